"""sentence-transformers' MultiVectorEncoder: ColBERT-like models of texts, a query compared token by token with a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from secondsight.encoders.families.sentence_transformers.sides import run_modules, takes_last_output, transformer_of
from secondsight.encoders.families.transformers.pages import ENCODERS, ColModernVBertEncoder, wrap_pages
from secondsight.encoders.host_text import HostTextEncoder, text_blocks
from secondsight.encoders.late_interaction import LateInteractionEncoder
from secondsight.encoders.late_model import LateInteraction
from secondsight.inputs.prepared import Prepared, Tokenized
from secondsight.inputs.texts import HubTokens
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from PIL import Image
    from sentence_transformers import MultiVectorEncoder

EXPANSION = "expansion"
"""What layouts call the tokens that fill a query up to a length."""


class ExpandedTokens(HubTokens):
    """Texts of which queries are filled up to `length` with the token `expansion`; None leaves them as they are."""

    def __init__(self, tokenizer: Any, *, expansion: int | None = None, length: int = 0, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self.expansion, self.length = expansion, length
        self._ending = 0
        if expansion is not None:
            # A tokenizer whose own end token is the expansion's ends every text with one that belongs to the text.
            self._ending = _run_at_end(tokenizer("a")["input_ids"], expansion)

    def expanded(self, ids: Sequence[int]) -> int:
        """How many tokens at the end of a model-ready text fill it up."""
        if self.expansion is None:
            return 0
        return max(_run_at_end(ids, self.expansion) - self._ending, 0)

    def tokenize(self, text: str, truncate: bool) -> Prepared:
        """See `Tokens.tokenize`."""
        prepared = super().tokenize(text, truncate)
        missing = self.length - prepared.tensor.shape[1]
        if self.expansion is None or missing <= 0:
            return prepared
        tensor = torch.cat([prepared.tensor, torch.full((1, missing), self.expansion)], 1)
        source, size = prepared.tokenized, prepared.tensor.shape[1]
        special = {**source.special, **dict.fromkeys(range(size, size + missing), EXPANSION)}
        tokens = (*source.tokens, *[self.spell(self.expansion)] * missing)
        offsets = (*source.offsets, *[None] * missing)
        return Prepared(tensor, prepared.display, Tokenized(source.text, tokens, offsets, special))

    def special_tokens(self, ids: Sequence[int]) -> dict[int, str]:
        """See `Tokens.special_tokens`."""
        size = len(ids) - self.expanded(ids)
        return super().special_tokens(ids[:size]) | dict.fromkeys(range(size, len(ids)), EXPANSION)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """See `HubTokens.prepare`; of a query's preprocessing the tokens that fill it up belong to it."""
        positions = raw.get("query_expansion_positions") if isinstance(raw, Mapping) else None
        if isinstance(positions, Tensor):
            raw = {**raw, "attention_mask": raw["attention_mask"].bool() | positions.bool()}
        return super().prepare(raw, truncate=truncate)


def _run_at_end(ids: Sequence[int], token: int) -> int:
    return next((n for n, i in enumerate(reversed(ids)) if i != token), len(ids))


class MultiVectorText(LateInteractionEncoder, HostTextEncoder):
    """One side of a MultiVectorEncoder: its modules run for the task "query" or "document"."""

    def __init__(self, model: MultiVectorEncoder, role: str) -> None:
        self.role = role
        self._masks: list[Any] = [m for m in model if hasattr(m, "skiplist_words")]
        expansion = model[0].query_expansion if role == "query" else None
        self.attends = expansion is None or bool(expansion["attend"])
        tokens = _tokens(model, role)
        self.chained = takes_last_output(model[0].auto_model)
        super().__init__(nn.ModuleList(model), tokens)
        self.expanded = tokens.expanded

    def blocks(self, module: nn.ModuleList) -> Sequence[nn.Module]:
        """The transformer's blocks."""
        return text_blocks(transformer_of(module))

    def token_vectors(self, module: nn.ModuleList, tensors: Tensor) -> Float[Tensor, "batch token width"]:
        """The vectors of all tokens after the last module."""
        vectors: Tensor = run_modules(module, self._features(tensors), self.role)["token_embeddings"]
        return vectors

    def compared(self, tensors: Tensor) -> Bool[Tensor, "batch token"]:
        """What the model's mask keeps: without a skip list all tokens, those that fill up a query among them."""
        mask: Tensor = run_modules(self._masks, self._features(tensors), self.role)["attention_mask"]
        return mask.bool()

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The transformer's token embeddings."""
        table: nn.Module = transformer_of(self.in_precision(dtype)).get_input_embeddings()
        return table

    def _features(self, ids: Tensor) -> dict[str, Any]:
        """What the model's own preprocessing gives for these token ids."""
        filled = torch.zeros_like(ids, dtype=torch.bool)
        for row, numbers in zip(filled, ids.tolist(), strict=True):
            row[len(numbers) - self.expanded(numbers) :] = True
        seen = torch.ones_like(ids) if self.attends else (~filled).to(ids.dtype)
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": seen}
        return {**features, "query_expansion_positions": filled} if bool(filled.any()) else features


def _tokens(model: MultiVectorEncoder, role: str) -> ExpandedTokens:
    transformer = model[0]
    inner, tokenizer = transformer.auto_model, model.tokenizer
    longest = model.max_seq_length or getattr(inner.config, "max_position_embeddings", None) or 512
    longest = (transformer.query_length if role == "query" else transformer.document_length) or longest
    expansion = transformer.query_expansion if role == "query" else None
    options: dict[str, Any] = {}
    if expansion is not None:
        if getattr(tokenizer, "padding_side", "right") != "right":
            raise InputError(
                "this model fills queries up on their left, which is not supported: set tokenizer.padding_side='right'"
            )
        options = {"expansion": _expansion_id(tokenizer, expansion["token"]), "length": expansion["length"]}
        longest = expansion["length"] if expansion["strategy"] == "fixed" else max(longest, expansion["length"])
    return ExpandedTokens(
        tokenizer,
        vocabulary=inner.get_input_embeddings().num_embeddings,
        context=int(longest),
        prompt=model.prompts.get(role) or "",
        clean=str.lower if getattr(transformer, "do_lower_case", False) else None,
        **options,
    )


def _expansion_id(tokenizer: Any, token: str | None) -> int:
    """The id that fills queries up: the given token's, or that of the mask token, or of the end token."""
    if token is not None:
        return int(tokenizer.convert_tokens_to_ids(token))
    return int(tokenizer.eos_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id)


def wrap_multi_vector(model: MultiVectorEncoder, name: str = "sentence-transformers") -> LateInteraction:
    """A late-interaction model of a query and a document around a MultiVectorEncoder; the model itself stays as it is.

    Raises `InputError` for models that do not read plain text, or merge tokens.
    """
    kinds = [type(module).__name__ for module in model]
    transformer = model[0]
    if getattr(transformer, "transformer_task", None) == "retrieval":
        return _wrap_pages(model, name)
    if kinds[0] != "Transformer" or not hasattr(transformer, "auto_model"):
        raise InputError(
            f"the first module is {kinds[0]}, not a Transformer: describe the sides as "
            "secondsight.encoders.late_interaction.LateInteractionEncoder"
        )
    if "message" in transformer.modality_config or "text" not in transformer.modality_config:
        raise InputError(
            f"{kinds[0]} renders its inputs through a chat template: give the model that is inside, model[0].auto_model"
        )
    pooling = next((kind for kind, m in zip(kinds, model, strict=True) if hasattr(m, "pool_one")), None)
    if pooling is not None:
        raise InputError(f"{pooling} merges tokens, so that none has a vector of its own: remove that module first")

    def host(query: Prepared, document: Prepared) -> float | None:
        if not isinstance(query.display, str) or not isinstance(document.display, str):
            return None
        return _host_similarity(model, query.display, document.display)

    sides = (MultiVectorText(model, "query"), MultiVectorText(model, "document"))
    return LateInteraction(*sides, name=name, mean=model.similarity_fn_name == "meanmaxsim", host=host)


def _wrap_pages(model: MultiVectorEncoder, name: str) -> LateInteraction:
    """A page retrieval model of transformers inside a MultiVectorEncoder that adds nothing to it; otherwise `InputError`."""
    inner, prompts = model[0].auto_model, [prompt for prompt in model.prompts.values() if prompt]
    masks = [m for m in model if getattr(m, "skiplist_words", None) or getattr(m, "keep_only_token_ids", None)]
    others = [type(m).__name__ for m in list(model)[1:] if not hasattr(m, "skiplist_words")]
    known = ENCODERS.get(type(inner).__name__)
    # sentence-transformers does not ask this one's processor for the prompts around queries and pages.
    if known in (None, ColModernVBertEncoder) or prompts or masks or others:
        raise InputError(
            f"{type(inner).__name__} inside a MultiVectorEncoder with its own prompts or modules is not supported: "
            "explain the model that is inside, ss.wrap(model[0].auto_model, model.processor)"
        )

    return wrap_pages(inner, model.processor, name, partial(_host_similarity, model))


def _host_similarity(model: MultiVectorEncoder, query: str, document: str | Image.Image) -> float:
    options: dict[str, Any] = {"device": next(model.parameters()).device, "show_progress_bar": False}
    with untouched(model):
        vectors = model.encode_query(query, **options), model.encode_document(document, **options)
        return float(model.similarity(*vectors))
