"""Text encoders made of a host module: tokens, references and layouts of texts."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import Context, States
from secondsight.encoders.host import HostEncoder
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import TEXT_REFERENCES, Tokens
from secondsight.support.errors import InputError

_BLOCK_PATHS = (
    "encoder.layer",
    "encoder.layers",
    "encoder.block",
    "transformer.layer",
    "layers",
    "layer",
    "block",
    "h",
)


class HostTextEncoder(HostEncoder):
    """A `HostEncoder` of texts, whose masks and pooling follow the input's token ids."""

    kind = "text"
    references = TEXT_REFERENCES
    contextual = True

    def __init__(self, module: nn.Module, tokens: Tokens) -> None:
        super().__init__(module)
        self.tokens = tokens

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text through the model's tokenizer, a tokenizer's own output, or token ids (1, length)."""
        return self.tokens.prepare(raw, truncate=truncate)

    def reference(self, prepared: Prepared, choice: str | Tensor | None, seed: int) -> Tensor:
        """See `Tokens.reference`."""
        return self.tokens.reference(prepared, choice)

    def reference_key(self, context: Context) -> Hashable:
        """The length, where all of the text is read and pooled in the same way whatever its words are."""
        return context.shape[0]

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Start, words, end, and padding where the model reads it."""
        return prepared.tokenized.layout(len(states.hidden))


def text_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a text model of transformers: BERT, RoBERTa, MPNet, DistilBERT, T5, M2M100, Qwen and similar ones.

    Raises `InputError` for models that keep them elsewhere.
    """
    for path in _BLOCK_PATHS:
        part: object = model
        for name in path.split("."):
            part = getattr(part, name, None)
        if isinstance(part, nn.ModuleList) and len(part):
            return list(part)
    raise InputError(f"the text model {type(model).__name__} has no known blocks: describe it with ss.TorchEncoder")
