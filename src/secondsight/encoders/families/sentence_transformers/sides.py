"""One side of a sentence-transformers model: the modules and the prompt that its queries or its documents go through."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secondsight.encoders.agreement import require_agreement
from secondsight.encoders.base import Context, Encoder
from secondsight.encoders.blocks import pooled_block
from secondsight.encoders.host import HostEncoder
from secondsight.encoders.host_text import HostTextEncoder, text_blocks
from secondsight.encoders.wrappers import class_names
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import HubTokens, Tokens
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from secondsight.paths.pooled import PooledBlock

TASKS = ("query", "document")
"""What the host calls its two sides."""

PAIR = ("two dogs play", "a dog runs in the park")
"""The texts by which a model is compared with its description."""

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


def run_modules(parts: Iterable[Any], features: dict[str, Any], task: str) -> dict[str, Any]:
    """What modules make of features one after the other; those that ask for the task are told."""
    for part in parts:
        options = {"task": task} if reads_task(part) else {}
        features = part(features, **options)
    return features


def reads_task(part: object) -> bool:
    """Whether a module does not treat queries and documents alike."""
    return "task" in getattr(part, "forward_kwargs", ())


def transformer_of(module: nn.ModuleList) -> Any:
    """The model of transformers inside the first module, without a head for masked words."""
    transformer: Any = module[0]
    inner = transformer.auto_model
    return getattr(inner, "base_model", inner)


def takes_last_output(inner: Any) -> bool:
    """Whether every block of a transformer takes the output of the one before it alone."""
    # T5's blocks hand relative positions down from the first.
    return "t5" not in inner.config.model_type


def prompt_of(model: SentenceTransformer, task: str) -> str:
    """The prompt that `encode_query` or `encode_document` takes when it is given none."""
    for name in _PROMPT_NAMES[task]:
        if name in model.prompts:
            return model.prompts[name] or ""
    return model.prompts.get(model.default_prompt_name or "") or ""


class SentenceEncoder(HostTextEncoder):
    """A transformer, then pooling, dense layers and whatever modules follow, for one task of the host.

    `parts` are the modules without a normalisation at the very end, which belongs to the cosine and is left to it, as in
    every other family. `kept` as in `HostEncoder`.
    """

    module: nn.ModuleList

    def __init__(self, parts: Sequence[nn.Module], task: str, prompt: str, kept: int | None = None) -> None:
        self.task, self.prompt, self.kept = task, prompt, kept
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
        self.chained = takes_last_output(inner)
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
        return text_blocks(transformer_of(module))

    def encode(self, module: nn.ModuleList, tensors: Tensor) -> Tensor:
        """Sentence embeddings before any normalisation at the end."""
        features: dict[str, Any] = {"input_ids": tensors, "attention_mask": torch.ones_like(tensors)}
        features |= {"modality": "text", "task": self.task}
        if self.prompt_length:
            features["prompt_length"] = self.prompt_length
        embeddings: Tensor = run_modules(module, features, self.task)["sentence_embedding"]
        return embeddings

    def last_block(self, module: nn.ModuleList, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The last block of a BERT-like transformer of which one position is read."""
        last = self.blocks(module)[-1]
        pool = {"cls": self.prompt_length, "lasttoken": context.shape[0] - 1}.get(self.mode)
        if pool is None or not hasattr(last, "intermediate") or kind_of(module[1]) != "Pooling":
            return None

        def finish(pooled: Tensor) -> Tensor:
            embeddings: Tensor = run_modules(module[2:], {"sentence_embedding": pooled}, self.task)[
                "sentence_embedding"
            ]
            return embeddings

        return pooled_block(last, pool, (finish,), dtype)

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The transformer's token embeddings."""
        table: nn.Module = transformer_of(self.in_precision(dtype)).get_input_embeddings()
        return table

    def known_text(self, text: str) -> str:
        """A text that the tokenizer has tokens for: the given one, unless it knows none of its words."""
        return text


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
        pair: tuple[str, Any] = PAIR,
    ) -> None:
        self.model, self.sides, self.cosine, self.name, self.pair = model, (query, document), cosine, name, pair
        self.checked = False

    def check(self) -> None:
        """`AdapterError` where the two differ; later calls do nothing."""
        if self.checked:
            return
        self.checked = True  # now, as preparing the pair asks for it again
        try:
            self._compare()
        except BaseException:
            self.checked = False
            raise

    def _compare(self) -> None:
        with untouched(self.model), warnings.catch_warnings():
            # Words that a small vocabulary lacks concern nobody here.
            warnings.simplefilter("ignore")
            host, size = self._host_similarity()
            similarity = self._similarity()
        second = repr(self.pair[1]) if isinstance(self.pair[1], str) else "a small picture"
        what = f"the similarity by {self.name!r} of {self.pair[0]!r} and {second}"
        require_agreement(host, similarity, max(size, 1e-6), [self.model], what)

    def _host_similarity(self) -> tuple[float, float]:
        """The host's own number, and the product of lengths that it is measured by."""
        model: Any = self.model
        sparse = {"convert_to_sparse_tensor": False} if "SparseEncoder" in class_names(model) else {}
        options = dict(convert_to_tensor=True, show_progress_bar=False, **sparse)
        query = model.encode_query(self.pair[0], prompt=self.sides[0].prompt, **options)
        document = model.encode_document(self.pair[1], prompt=self.sides[1].prompt, **options)
        lengths = float(query.float().norm() * document.float().norm())
        return float(model.similarity(query, document)), 1.0 if self.cosine else lengths

    def _similarity(self) -> float:
        def embedding(side: HostEncoder, raw: Any) -> Tensor:
            tensors = side.to_model(side.prepare(raw, truncate=True).tensor)
            return side.from_input(side.weights_dtype() or torch.float32)(tensors)[0].double()

        query, document = (embedding(side, raw) for side, raw in zip(self.sides, self.pair, strict=True))
        if self.cosine:
            return float(torch.nn.functional.cosine_similarity(query, document, dim=0))
        return float(query @ document)
