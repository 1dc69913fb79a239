"""sentence-transformers models: two texts, compared token by token, as in xsbert (Möller et al. 2023, 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secondsight.encoders.base import Context
from secondsight.encoders.blocks import pooled_block
from secondsight.encoders.families.multi_vector import is_multi_vector, wrap_multi_vector
from secondsight.encoders.host_text import HostTextEncoder, text_blocks
from secondsight.encoders.loading import loading, saved_folder
from secondsight.inputs.texts import HubTokens
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.packages import require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from secondsight.paths.pooled import PooledBlock

_POOLS = {"cls": "first token", "lasttoken": "last token", "weightedmean": "weighted mean"}


def _kind(module: object) -> str:
    return type(module).__name__


class SentenceEncoder(HostTextEncoder):
    """A SentenceTransformer: a transformer, then pooling, dense layers and whatever modules follow.

    Normalisation at the very end belongs to the cosine and is left to it, as in every other family.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        transformer = model[0]
        if _kind(transformer) != "Transformer" or not hasattr(transformer, "auto_model"):
            raise InputError(
                f"the first module is {_kind(transformer)}, not a Transformer: describe the model with ss.TorchEncoder"
            )
        inner = transformer.auto_model
        # T5's blocks hand relative positions down from the first.
        self.chained = "t5" not in inner.config.model_type
        # The final normalisation is the cosine's; cut afterwards, as for a dot product, it belongs to the encoder.
        cut_afterwards = model.truncate_dim is not None and model.similarity_fn_name == "dot"
        self.normalises = _kind(model[-1]) == "Normalize" and not cut_afterwards
        parts = list(model)[:-1] if self.normalises else list(model)
        tokens = _tokens(model)
        super().__init__(nn.ModuleList(parts), tokens)
        pooling = next((m for m in parts if _kind(m) == "Pooling"), None)
        modes = None if pooling is None else pooling.pooling_mode
        self.mode: str = modes if isinstance(modes, str) else "+".join(modes or ("none",))
        self.pool = _POOLS.get(self.mode, self.mode)
        self.joint: int | None = model.truncate_dim
        self.prompt_length = tokens.prompt_tokens() if pooling is not None and not pooling.include_prompt else 0

    def blocks(self, module: nn.ModuleList) -> Sequence[nn.Module]:
        """The transformer's blocks."""
        return text_blocks(_transformer(module))

    def encode(self, module: nn.ModuleList, tensors: Tensor) -> Tensor:
        """Sentence embeddings before any normalisation at the end."""
        features: dict[str, Any] = {"input_ids": tensors, "attention_mask": torch.ones_like(tensors)}
        if self.prompt_length:
            features["prompt_length"] = self.prompt_length
        for part in module:
            features = part(features)
        embedding: Tensor = features["sentence_embedding"]
        return embedding if self.joint is None else embedding[:, : self.joint]

    def last_block(self, module: nn.ModuleList, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The last block of a BERT-like transformer of which one position is read."""
        last = self.blocks(module)[-1]
        pool = {"cls": self.prompt_length, "lasttoken": context.shape[0] - 1}.get(self.mode)
        if pool is None or not hasattr(last, "intermediate") or _kind(module[1]) != "Pooling":
            return None

        def finish(y: Tensor) -> Tensor:
            features: dict[str, Any] = {"sentence_embedding": y}
            for part in list(module)[2:]:
                features = part(features)
            return features["sentence_embedding"][..., : self.joint]

        return pooled_block(last, pool, (finish,), dtype)

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The transformer's token embeddings."""
        table: nn.Module = _transformer(self.in_precision(dtype)).get_input_embeddings()
        return table


def _transformer(module: nn.ModuleList) -> Any:
    transformer: Any = module[0]
    return transformer.auto_model


def _tokens(model: SentenceTransformer) -> HubTokens:
    transformer = model[0]
    inner = transformer.auto_model
    longest = model.max_seq_length or getattr(inner.config, "max_position_embeddings", None) or 512
    return HubTokens(
        model.tokenizer,
        vocabulary=inner.get_input_embeddings().num_embeddings,
        context=int(longest),
        prompt=model.prompts.get(model.default_prompt_name or "", "") or "",
        clean=str.lower if getattr(transformer, "do_lower_case", False) else None,
    )


def wrap_sentences(
    model: SentenceTransformer, preprocess: object = None, tokenizer: object = None, name: str = "sentence-transformers"
) -> DualEncoder:
    """A dual encoder of two texts around a SentenceTransformer object; the model itself stays as it is.

    The model brings its own tokenizer, so the other two arguments are not used. Raises `InputError` where its
    similarity is not an inner product.
    """
    if any(c.__name__ == "MultiVectorEncoder" for c in type(model).__mro__):
        return wrap_multi_vector(model, name)
    similarity = model.similarity_fn_name
    if similarity not in ("cosine", "dot"):
        raise InputError(f"similarity {similarity!r} is not an inner product: only cosine and dot can be explained")
    encoder = SentenceEncoder(model)
    cosine = similarity == "cosine" or encoder.normalises
    return DualEncoder(encoder, encoder, name=name, cosine=cosine)


def load_sentences(name: str) -> DualEncoder:
    """A model by its name on the hub or its local folder; `InputError` where it cannot be had."""
    library = require("sentence-transformers", "st", lambda: __import__("sentence_transformers"))
    folder = saved_folder("st", name, "modules.json", "config.json")
    with loading(f"st:{name}", "a local folder (st:PATH)"):
        kind = library.MultiVectorEncoder if is_multi_vector(folder) else library.SentenceTransformer
        model = kind(folder, device="cpu").eval()
    return wrap_sentences(model, name=f"st:{name}")
