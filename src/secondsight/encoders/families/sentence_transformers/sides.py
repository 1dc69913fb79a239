"""One side of a sentence-transformers model: the modules and the prompt that its queries or its documents go through."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secondsight.encoders.base import Context, Encoder
from secondsight.encoders.blocks import pooled_block
from secondsight.encoders.host import HostEncoder
from secondsight.encoders.host_text import HostTextEncoder, text_blocks
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import HubTokens, Tokens
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from secondsight.paths.pooled import PooledBlock

TASKS = ("query", "document")
"""What the host calls its two sides."""

_PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
_POOLS = {"cls": "first token", "lasttoken": "last token", "weightedmean": "weighted mean"}


def kind_of(module: object) -> str:
    """The name of a module's class."""
    return type(module).__name__


def route(model: SentenceTransformer, task: str, modality: str = "text") -> list[nn.Module]:
    """The modules that inputs of a task go through, those of routers included, in order."""

    def along(module: nn.Module) -> list[nn.Module]:
        if not hasattr(module, "sub_modules"):
            return [module]
        router: Any = module
        try:
            name = router._resolve_route(task=task, modality=modality)
        except ValueError as problem:
            raise InputError(
                f"the model's {kind_of(router)} leads no {modality} of a {task} anywhere ({problem}): "
                "name its routes 'query' and 'document'"
            ) from problem
        return [part for inner in router.sub_modules[name] for part in along(inner)]

    return [part for module in model for part in along(module)]


def prompt_of(model: SentenceTransformer, task: str) -> str:
    """The prompt that `encode_query` or `encode_document` takes when it is given none."""
    for name in _PROMPT_NAMES[task]:
        if name in model.prompts:
            return model.prompts[name] or ""
    return model.prompts.get(model.default_prompt_name or "") or ""


class SentenceEncoder(HostTextEncoder):
    """A transformer, then pooling, dense layers and whatever modules follow, for one task of the host.

    `parts` are the modules without a normalisation at the very end, which belongs to the cosine and is left to it, as in
    every other family. `joint` is the number of dimensions that are kept of an embedding.
    """

    module: nn.ModuleList

    def __init__(self, parts: Sequence[nn.Module], task: str, prompt: str, joint: int | None = None) -> None:
        self.task, self.prompt, self.joint = task, prompt, joint
        tokens = self.tokens_of(parts[0])
        super().__init__(nn.ModuleList(parts), tokens)
        pooling: Any = next((m for m in parts if kind_of(m) == "Pooling"), None)
        modes = None if pooling is None else pooling.pooling_mode
        self.mode: str = modes if isinstance(modes, str) else "+".join(modes or ("none",))
        self.pool = _POOLS.get(self.mode, self.mode)
        # Whether the joint dimensions are the words of the vocabulary.
        self.lexical = kind_of(parts[-1]) == "SpladePooling"
        self.prompt_length = tokens.prompt_tokens() if pooling is not None and not pooling.include_prompt else 0
        # Compared once, before the first use; None in copies that only prepare inputs.
        self.agreement: Agreement | None = None

    def axis_name(self, axis: int) -> str | None:
        """The word of the vocabulary, in sparse encoders."""
        return self.tokens.spell(axis) if self.lexical else None

    def tokens_of(self, first: Any) -> Tokens:
        """The first module's tokenizer as the host uses it for this task."""
        if not hasattr(first, "auto_model"):
            raise InputError(
                f"the first module is {kind_of(first)}, not a Transformer: describe the model with ss.TorchEncoder"
            )
        if "message" in getattr(first, "modality_config", {}):
            raise InputError(
                "the model puts texts into a chat template, whose tokens cannot be told from the text's: give its "
                "Transformer a modality_config with 'text' only, or describe the model with ss.TorchEncoder"
            )
        if self.task == "query" and getattr(first, "query_expansion", None):
            raise InputError(
                "the model pads queries with expansion tokens, as late interaction does: load it as a MultiVectorEncoder"
            )
        inner = first.auto_model
        # T5's blocks hand relative positions down from the first.
        self.chained = "t5" not in inner.config.model_type
        limits = (
            (getattr(first, "processing_kwargs", None) or {}).get("text", {}).get("max_length"),
            getattr(first, f"{self.task}_length", None),
            first.max_seq_length,
            getattr(inner.config, "max_position_embeddings", None),
        )
        return HubTokens(
            first.tokenizer,
            vocabulary=inner.get_input_embeddings().num_embeddings,
            context=int(next((limit for limit in limits if limit), 512)),
            prompt=self.prompt,
            clean=str.lower if getattr(first, "do_lower_case", False) else None,
        )

    def for_preparing(self) -> Encoder:
        """See `Encoder.for_preparing`; the host is not needed."""
        encoder = copy.copy(self)
        encoder.agreement = None
        return super(SentenceEncoder, encoder).for_preparing()

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text with the prompt before it, or see `Tokens.prepare`; the first one has the host's similarity compared."""
        if self.agreement is not None:
            self.agreement.check()
        return super().prepare(raw, truncate=truncate)

    def blocks(self, module: nn.ModuleList) -> Sequence[nn.Module]:
        """The transformer's blocks."""
        return text_blocks(_transformer(module))

    def encode(self, module: nn.ModuleList, tensors: Tensor) -> Tensor:
        """Sentence embeddings before any normalisation at the end."""
        features: dict[str, Any] = {"input_ids": tensors, "attention_mask": torch.ones_like(tensors)}
        features |= {"modality": "text", "task": self.task}
        if self.prompt_length:
            features["prompt_length"] = self.prompt_length
        return self.embedding(module, features)

    def embedding(self, parts: Sequence[nn.Module] | nn.ModuleList, features: dict[str, Any]) -> Tensor:
        """What modules make of features one after the other, cut to the dimensions that are kept."""
        for part in parts:
            options = {"task": self.task} if "task" in getattr(part, "forward_kwargs", ()) else {}
            features = part(features, **options)
        embedding: Tensor = features["sentence_embedding"]
        return embedding[..., : self.joint]

    def last_block(self, module: nn.ModuleList, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The last block of a BERT-like transformer of which one position is read."""
        last = self.blocks(module)[-1]
        pool = {"cls": self.prompt_length, "lasttoken": context.shape[0] - 1}.get(self.mode)
        if pool is None or not hasattr(last, "intermediate") or kind_of(module[1]) != "Pooling":
            return None
        following = list(module)[2:]
        finish = (lambda y: self.embedding(following, {"sentence_embedding": y}),)
        return pooled_block(last, pool, finish, dtype)

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The transformer's token embeddings."""
        table: nn.Module = _transformer(self.in_precision(dtype)).get_input_embeddings()
        return table


def _transformer(module: nn.ModuleList) -> Any:
    transformer: Any = module[0]
    # With a head for masked words, the blocks are in the model that it reads.
    inner = transformer.auto_model
    return getattr(inner, "base_model", inner)


class Agreement:
    """The host's own similarity of a short pair and what the two encoders make of it, compared once.

    Whatever a model does that its modules do not show, such as instructions that are built into its code, is found here.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        query: HostEncoder,
        document: HostEncoder,
        *,
        cosine: bool,
        name: str,
        pair: tuple[str, Any] = ("two dogs play", "a dog runs in the park"),
    ) -> None:
        self.model, self.sides, self.cosine, self.name, self.pair = model, (query, document), cosine, name, pair
        self.checked = False

    def check(self) -> None:
        """`AdapterError` where the two differ; later calls do nothing."""
        if self.checked:
            return
        self.checked = True
        with untouched(self.model), warnings.catch_warnings():
            # Words that a small vocabulary lacks concern nobody here.
            warnings.simplefilter("ignore")
            host, size = self._host_similarity()
            similarity = self._similarity()
        half = any(p.dtype in (torch.float16, torch.bfloat16) for p in self.model.parameters())
        if not abs(host - similarity) <= (0.03 if half else 1e-4) * max(size, 1e-6):
            self.checked = False
            second = repr(self.pair[1]) if isinstance(self.pair[1], str) else "a small picture"
            raise AdapterError(
                f"the similarity of {self.pair[0]!r} and {second} is {host:.4f} by {self.name!r} itself and "
                f"{similarity:.4f} by its modules one after the other: describe the model with ss.TorchEncoder"
            )

    def _host_similarity(self) -> tuple[float, float]:
        """The host's own number, and the product of lengths that it is measured by."""
        model: Any = self.model
        is_sparse = any(c.__name__ == "SparseEncoder" for c in type(model).__mro__)
        sparse = {"convert_to_sparse_tensor": False} if is_sparse else {}
        options = dict(convert_to_tensor=True, show_progress_bar=False, **sparse)
        query = model.encode_query(self.pair[0], prompt=self.sides[0].prompt, **options)
        document = model.encode_document(self.pair[1], prompt=self.sides[1].prompt, **options)
        lengths = float(query.float().norm() * document.float().norm())
        return float(model.similarity(query, document)), 1.0 if self.cosine else lengths

    def _similarity(self) -> float:
        query, document = (
            side.from_input(dtype)(side.to_model(side.prepare(raw, truncate=True).tensor))[0].double()
            for side, raw in zip(self.sides, self.pair, strict=True)
            for dtype in [side.weights_dtype() or torch.float32]
        )
        if self.cosine:
            return float(torch.nn.functional.cosine_similarity(query, document, dim=0))
        return float(query @ document)
