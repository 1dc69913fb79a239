"""Encoders whose head is the host model itself: a block's input is put in place of its own, all else runs as ever.

Masks, rotary positions, pooling, projections and whatever else a library does are then exact without being described.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import ATTENTION_POOL, Context, Encoder, Head, Reference, States
from secondsight.inputs.images import IMAGE_REFERENCES, ImageInput, grid_layout
from secondsight.inputs.prepared import Prepared
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import capturing, replacing, skipping


class HostEncoder(Encoder):
    """An encoder made of a host module: say what embeds and which blocks follow one another.

    `contextual` says that what follows the embedded input depends on the input in other ways too (attention masks,
    pooled positions), as in texts: references are then run under their input's. `chained` says that every block takes
    the output of the one before it, so that those below a layer need not run. `channels_last` says that feature maps are
    (batch, rows, columns, width).
    """

    contextual = False
    chained = True
    channels_last = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.depth = len(self.blocks(module))
        self._form: int | None = None  # what blocks return: a tensor, or a tuple of this length
        self._form_known = False
        self._last_form: int | None = None

    @abstractmethod
    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """The module's embeddings (batch, joint) of model-ready tensors, not normalised."""

    @abstractmethod
    def blocks(self, module: Any) -> Sequence[nn.Module]:
        """The module's blocks, in the order of the forward pass; the last one may be an attention pool."""

    def outputs(self) -> Any:
        """The last block, where it is none that pools."""
        return None if self.pool == ATTENTION_POOL else self.blocks(self.module)[-1]

    def after(self, context: Context, output: Tensor) -> tuple[Tensor, Context]:
        """The last block's output, whose grid may be another than its input's."""
        output = output.movedim(2, 0) if self.channels_last and output.ndim == 3 else output
        flat = output.flatten(1).mT if output.ndim == 3 else output
        return flat, replace(context, shape=tuple(output.shape))

    def block_of(self, module: Any, context: Context, dtype: torch.dtype) -> Any:
        """The `PooledBlock` of the last block where it has one; see `encoders.blocks`."""
        return None

    def pooled(self, layer: int, context: Context, dtype: torch.dtype) -> Any:
        """The closed form at the last block."""
        return self.block_of(self.in_precision(dtype), context, dtype) if layer == self.depth - 1 else None

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The host from model-ready tensors to embeddings, in `dtype`."""
        module = self.in_precision(dtype)
        return lambda tensors: self.encode(module, tensors)

    def _own(self, tensors: Tensor) -> Tensor:
        """Tensors on the model's device, floating ones in its precision."""
        if not tensors.is_floating_point():
            return tensors.to(self.device())
        own = next((p.dtype for p in self.module.parameters() if p.dtype.is_floating_point), tensors.dtype)
        return tensors.to(self.device(), own)

    def _run(self, tensors: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Hidden states entering a block as the host has them, and the embeddings."""
        seen: dict[str, Any] = {}
        block = self.blocks(self.module)[layer]
        forms: list[int | None] = []
        handle = block.register_forward_hook(
            lambda _, __, output: forms.append(len(output) if isinstance(output, tuple) else None)
        )
        try:
            with capturing(block, seen):
                out = self.encode(self.module, tensors)
        finally:
            handle.remove()
        if "args" not in seen:
            raise AdapterError(
                f"the {self.kind} model never called its block {layer}: a compiled or scripted model cannot be explained"
            )
        # Learned from blocks that are followed by their like; a pool at the end returns what it likes.
        if layer < self.depth - 1 or self.depth == 1:
            self._form, self._form_known = forms[0], True
        if layer == self.depth - 1:
            self._last_form = forms[0]
        hidden = seen["args"][0] if seen["args"] else next(iter(seen["kwargs"].values()))
        if not isinstance(hidden, Tensor) or hidden.ndim not in (3, 4) or len(hidden) != len(tensors):
            found = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
            raise AdapterError(
                f"hidden states {found} of {len(tensors)} inputs are neither (batch, position, width) nor "
                "(batch, width, rows, columns)"
            )
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(tensors):
            found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise AdapterError(f"the module gave {found} for {len(tensors)} inputs: (batch, joint) is needed")
        return self._channels_first(hidden), out

    def _channels_first(self, hidden: Tensor) -> Tensor:
        return hidden.movedim(3, 1) if self.channels_last and hidden.ndim == 4 else hidden

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Hidden states for a batch, each with its own input as context."""
        tensors = self._own(tensors)
        hidden, out = self._run(tensors, layer)
        dtype = self.dtype()
        return [
            States(h, e.to(dtype), Context(t[None], tuple(x.shape)))
            for h, x, e, t in zip(self._rows(hidden), hidden, out, tensors, strict=True)
        ]

    def reference_features(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """The reference's hidden states; those of a `contextual` encoder under the input's masks and pooling."""
        if not self.contextual:
            return super().reference_features(tensor, layer, context)
        embedded, _ = self._run(self._own(tensor), 0)
        embedded = embedded.movedim(1, 3) if self.channels_last and embedded.ndim == 4 else embedded
        with replacing(self.blocks(self.module)[0], embedded):
            # The pre-hook that replaces is registered first, so the layer's own hook sees the replacement.
            hidden, out = self._run(context.tensor, layer)
        return Reference(self._rows(hidden)[0], out[0].to(self.dtype()))

    def _rows(self, hidden: Tensor) -> list[Tensor]:
        """Copies of hidden states as (position, width) for every input, in the decomposition's precision."""
        flat = hidden.flatten(2).mT if hidden.ndim == 4 else hidden
        return [h.to(self.dtype()).clone() for h in flat]

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The host run with the layer's input put in place of its own; at `depth` all blocks pass it on."""
        module = self.in_precision(dtype)
        blocks = self.blocks(module)
        if not self._form_known and self.chained and layer > 0:
            self._run(context.tensor, 0)
        if layer == self.depth:
            self._run(context.tensor, layer - 1)
        tensor = context.tensor.to(dtype) if context.tensor.is_floating_point() else context.tensor

        def head(x: Tensor) -> Tensor:
            hidden = x.mT.unflatten(2, context.shape[1:]) if len(context.shape) == 3 else x
            hidden = hidden.movedim(1, 3) if self.channels_last and hidden.ndim == 4 else hidden
            with ExitStack() as stack:
                if self.chained:
                    stack.enter_context(skipping(blocks[: min(layer, self.depth - 1)], self._form))
                if layer == self.depth:
                    stack.enter_context(skipping(blocks[-1:], self._last_form))
                stack.enter_context(replacing(blocks[min(layer, self.depth - 1)], hidden))
                return self.encode(module, tensor.expand(len(x), *tensor.shape[1:]))

        return head


_TEXT_BLOCKS = (
    "encoder.layer",
    "encoder.layers",
    "encoder.block",
    "transformer.layer",
    "layers",
    "layer",
    "block",
    "h",
)


def text_blocks(model: Any) -> list[nn.Module]:
    """The blocks of a text model of transformers: BERT, RoBERTa, MPNet, DistilBERT, T5, M2M100, Qwen and their like.

    Raises `InputError` for models that keep them elsewhere, or run one of them several times.
    """
    for path in _TEXT_BLOCKS:
        found: Any = model
        for name in path.split("."):
            found = getattr(found, name, None)
        if isinstance(found, nn.ModuleList) and len(found):
            return list(found)
    raise InputError(f"the text model {type(model).__name__} has no known blocks: describe it with ss.TorchEncoder")


class HostImageEncoder(HostEncoder):
    """A `HostEncoder` of images.

    `special` names the positions before the patches (a pool may see fewer of them); `patch` is the side of a patch in
    model-ready pixels, not needed for feature maps; `size` is the only (rows, columns) of pixels that the model takes.
    """

    kind = "image"
    references = IMAGE_REFERENCES

    def __init__(
        self,
        module: nn.Module,
        images: ImageInput,
        *,
        special: Sequence[str] = (),
        patch: tuple[int, int] | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(module)
        self.images, self.special, self.patch, self.size = images, tuple(special), patch, size

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """An image through the model's preprocessing, or model-ready pixels of a size that it takes."""
        prepared = self.images.prepare(raw)
        if self.size is not None:
            check_size(prepared, self.size)
        return prepared

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """See `ImageInput.reference`."""
        return self.images.reference(prepared, which, seed)

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Special positions, then the patches or cells."""
        shape = states.context.shape
        if len(shape) == 3:
            return grid_layout(prepared.place, (shape[1], shape[2]), {})
        if self.patch is None:
            raise AdapterError("the size of this model's patches is not known: its grid cannot be told")
        height, width = prepared.tensor.shape[-2:]
        rows, columns = height // self.patch[0], width // self.patch[1]
        extra = len(states.hidden) - rows * columns
        if not 0 <= extra <= len(self.special):
            raise AdapterError(f"{len(states.hidden)} positions are not {rows}×{columns} patches and {self.special}")
        return grid_layout(prepared.place, (rows, columns), dict(enumerate(self.special[:extra])))


def check_size(prepared: Prepared, size: tuple[int, ...]) -> None:
    """`InputError` for pixels of a size that the model does not take."""
    if tuple(prepared.tensor.shape[-2:]) != tuple(size):
        height, width = prepared.tensor.shape[-2:]
        raise InputError(f"pixels of {height}×{width} do not fit this model, which takes {size[0]}×{size[1]}")
