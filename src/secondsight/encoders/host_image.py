"""Image encoders made of a host module: preprocessing, references and layouts of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import ATTENTION_POOL, States
from secondsight.encoders.host import HostEncoder
from secondsight.inputs.images import IMAGE_REFERENCES, ImageInput, check_size, grid_layout
from secondsight.inputs.prepared import Prepared
from secondsight.support.errors import AdapterError


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
            check_size(prepared.tensor, self.size)
        return prepared

    def grounded_layer(self) -> int | str:
        """The middle block of transformers; the input of the last stage in convolutional networks."""
        if self.patch is not None:
            return super().grounded_layer()
        return max(self.depth - (2 if self.pool == ATTENTION_POOL else 1), 0)

    def reference(self, prepared: Prepared, choice: str | Tensor | None, seed: int) -> Tensor:
        """See `ImageInput.reference`."""
        return self.images.reference(prepared, choice, seed)

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Special positions, then the patches or cells."""
        shape = states.context.shape
        if len(shape) == 3:
            return grid_layout(prepared.placement, (shape[1], shape[2]), {})
        if self.patch is None:
            raise AdapterError("the size of this model's patches is not known: its grid cannot be told")
        height, width = prepared.tensor.shape[-2:]
        rows, columns = height // self.patch[0], width // self.patch[1]
        extra = len(states.hidden) - rows * columns
        if not 0 <= extra <= len(self.special):
            raise AdapterError(f"{len(states.hidden)} positions are not {rows}×{columns} patches and {self.special}")
        return grid_layout(prepared.placement, (rows, columns), dict(enumerate(self.special[:extra])))
