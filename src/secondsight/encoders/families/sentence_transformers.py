"""sentence-transformers models: two texts, compared token by token, as in xsbert (Möller et al. 2023, 2024)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import Context, States
from secondsight.encoders.blocks import pooled_block
from secondsight.encoders.host import HostEncoder, text_blocks
from secondsight.encoders.loading import loading, saved_folder
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import TEXT_REFERENCES, HubTokens
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.packages import require


def _kind(module: Any) -> str:
    return type(module).__name__


class SentenceEncoder(HostEncoder):
    """A SentenceTransformer: a transformer, then pooling, dense layers and whatever modules follow.

    Normalisation at the very end belongs to the cosine and is left to it, as in every other family.
    """

    kind = "text"
    references = TEXT_REFERENCES
    contextual = True

    def __init__(self, model: Any) -> None:
        transformer = model[0]
        if _kind(transformer) != "Transformer" or not hasattr(transformer, "auto_model"):
            raise InputError(
                f"the first module is {_kind(transformer)}, not a Transformer: describe the model with ss.TorchEncoder"
            )
        # The final normalisation is the cosine's; cut afterwards, as for a dot product, it is the encoder's own.
        own = model.truncate_dim is not None and model.similarity_fn_name == "dot"
        self.normalises = _kind(model[-1]) == "Normalize" and not own
        parts = list(model)[:-1] if self.normalises else list(model)
        pooling = next((m for m in parts if _kind(m) == "Pooling"), None)
        modes = None if pooling is None else pooling.pooling_mode
        self.mode: str = modes if isinstance(modes, str) else "+".join(modes or ("none",))
        self.pool = {"cls": "first token", "lasttoken": "last token", "weightedmean": "weighted mean"}.get(
            self.mode, self.mode
        )
        inner = transformer.auto_model
        # T5's blocks hand relative positions down from the first.
        self.chained = "t5" not in inner.config.model_type
        super().__init__(nn.ModuleList(parts))
        self.joint: int | None = model.truncate_dim
        prompt: str = model.prompts.get(model.default_prompt_name or "", "") or ""
        longest = model.max_seq_length or getattr(inner.config, "max_position_embeddings", None) or 512
        lower = getattr(transformer, "do_lower_case", False)
        self.tokens = HubTokens(
            model.tokenizer,
            vocabulary=inner.get_input_embeddings().num_embeddings,
            context=int(longest),
            prompt=prompt,
            clean=str.lower if lower else None,
        )
        self.prompted = self.tokens.prompt_tokens() if pooling is not None and not pooling.include_prompt else 0

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text through the model's tokenizer, a tokenizer's own output, or token ids (1, length)."""
        return self.tokens.prepare(raw, truncate=truncate)

    def blocks(self, module: Any) -> Sequence[nn.Module]:
        """The transformer's blocks."""
        return text_blocks(module[0].auto_model)

    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """Sentence embeddings before any normalisation at the end."""
        features: dict[str, Any] = {"input_ids": tensors, "attention_mask": torch.ones_like(tensors)}
        if self.prompted:
            features["prompt_length"] = self.prompted
        for part in module:
            features = part(features)
        embedding: Tensor = features["sentence_embedding"]
        return embedding if self.joint is None else embedding[:, : self.joint]

    def block_of(self, module: Any, context: Context, dtype: torch.dtype) -> Any:
        """The last block of a BERT-like transformer of which one position is read."""
        last = self.blocks(module)[-1]
        where = {"cls": self.prompted, "lasttoken": context.shape[0] - 1}.get(self.mode)
        if where is None or not hasattr(last, "intermediate") or _kind(module[1]) != "Pooling":
            return None

        def following(y: Tensor) -> Tensor:
            features: dict[str, Any] = {"sentence_embedding": y}
            for part in list(module)[2:]:
                features = part(features)
            return features["sentence_embedding"][..., : self.joint]

        return pooled_block(last, where, (following,), dtype)

    def token_embedding(self, dtype: torch.dtype) -> Any:
        """The transformer's token embeddings."""
        return self.in_precision(dtype)[0].auto_model.get_input_embeddings()

    def pooling(self, context: Context) -> Hashable:
        """The length: all of it is read, the same way for every text."""
        length: int = context.shape[0]
        return length

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """Padding between start and end, or see `HubTokens.reference`."""
        return self.tokens.reference(prepared, which)

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Start, words, end."""
        layout: Layout = prepared.place.layout(len(states.hidden))
        return layout


def wrap_sentences(
    model: Any, preprocess: Any = None, tokenizer: Any = None, name: str = "sentence-transformers"
) -> DualEncoder:
    """A dual encoder of two texts around a SentenceTransformer object; the model itself stays as it is.

    The model brings its own tokenizer, so the other two arguments are not used. Raises `InputError` where its
    similarity is no inner product.
    """
    similarity = model.similarity_fn_name
    if similarity not in ("cosine", "dot"):
        raise InputError(f"similarity {similarity!r} is no inner product: only cosine and dot can be explained")
    encoder = SentenceEncoder(model)
    cosine = similarity == "cosine" or encoder.normalises
    return DualEncoder(encoder, encoder, name=name, cosine=cosine)


def load_sentences(name: str) -> DualEncoder:
    """A model by its name on the hub or its local folder; `InputError` where it cannot be had."""
    library = require("sentence-transformers", "st", lambda: __import__("sentence_transformers"))
    folder = saved_folder("st", name, "modules.json", "config.json")
    with loading(f"st:{name}", "a local folder (st:PATH)"):
        model = library.SentenceTransformer(folder, device="cpu").eval()
    return wrap_sentences(model, name=f"st:{name}")
