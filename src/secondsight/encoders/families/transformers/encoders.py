"""Encoders around the image and text towers of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import jvp

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import Context, States
from secondsight.encoders.families.transformers.towers import Tower
from secondsight.encoders.host import Parts
from secondsight.encoders.host_image import HostImageEncoder
from secondsight.encoders.host_text import HostTextEncoder
from secondsight.inputs.images import ImageInput, grid_layout
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import HubTokens
from secondsight.support.errors import AdapterError, InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from secondsight.paths.pooled import PooledBlock


class HubImageEncoder(HostImageEncoder):
    """An image tower of transformers; `sizes` are those of `Model`."""

    def __init__(self, model: PreTrainedModel, tower: Tower, images: ImageInput, *, sizes: str = "fixed") -> None:
        self.tower, self.naflex = tower, sizes == "naflex"
        self.pool = type(self).pool if tower.pool is None else tower.pooling
        config = tower.host(model).config
        # A stage that merges patches takes its grid from the one before it.
        self.chained = self.output_suffices = not tower.merges
        patch, size = _both(getattr(config, "patch_size", None)), _both(getattr(config, "image_size", None))
        registers = getattr(config, "num_register_tokens", 0)
        super().__init__(
            tower.parts(model),
            images,
            special=() if tower.probe is not None else (*tower.special, *("register",) * registers),
            patch=None if self.tower.merges else patch,
            size=size if patch is not None and sizes == "fixed" else None,
        )

    def blocks(self, module: Parts) -> Sequence[nn.Module]:
        """See `Tower.block_list`."""
        return self.tower.block_list(module)

    def last_block(self, module: Parts, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """See `Tower.last_block`."""
        return self.tower.last_block(module, context.shape[0], dtype)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """An image through the model's processor, the processor's own output, or model-ready pixels (1, 3, H, W)."""
        prepared = super().prepare(self._pixels(raw) if isinstance(raw, Mapping) else raw)
        height, width = prepared.tensor.shape[-2:]
        if self.patch is not None and (height % self.patch[0] or width % self.patch[1]) and self.size is None:
            raise InputError(f"pixels of {height}×{width} must be a whole number of patches of {self.patch[0]}")
        return prepared

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Special positions, then the patches or cells; of towers that merge patches, those that are left."""
        if not self.tower.merges or len(states.context.shape) == 3:
            return super().layout(prepared, layer, states)
        (height, width), size = prepared.tensor.shape[-2:], len(states.hidden)
        side = round((height * width / size) ** 0.5)
        rows, columns = height // side, width // side
        if rows * columns != size:
            raise AdapterError(f"{size} positions are no grid over pixels of {height}×{width}")
        return grid_layout(prepared.placement, (rows, columns), {})

    def _pixels(self, output: Mapping[str, Any]) -> Tensor:
        pixels = output.get("pixel_values")
        if not isinstance(pixels, Tensor) or len(pixels) != 1:
            raise InputError("a processor's output needs 'pixel_values' of one image as a tensor")
        return unpatched(output, self.patch)[None] if self.naflex and self.patch is not None else pixels

    def encode(self, module: Parts, tensors: Tensor) -> Tensor:
        """The projected embeddings of pixels."""
        if not self.naflex or self.patch is None:
            return self.tower.embedding(module, module.tower(pixel_values=tensors))
        p, (height, width) = self.patch[0], tensors.shape[-2:]
        patches = tensors.unflatten(3, (width // p, p)).unflatten(2, (height // p, p))
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        shapes = torch.tensor([[height // p, width // p]], device=tensors.device).expand(len(tensors), 2)
        mask = torch.ones(patches.shape[:2], dtype=torch.long, device=tensors.device)
        output = module.tower(patches, pixel_attention_mask=mask, spatial_shapes=shapes)
        return self.tower.embedding(module, output)


class HubTextEncoder(HostTextEncoder):
    """A text tower of transformers. Behind a causal tower's pooled position nothing matters: ids are cut there."""

    def __init__(self, model: PreTrainedModel, tower: Tower, tokens: HubTokens) -> None:
        self.tower, self.pool = tower, tower.pooling
        super().__init__(tower.parts(model), tokens)
        self.end: int | None = getattr(tower.host(model).config, "eos_token_id", None)

    def blocks(self, module: Parts) -> Sequence[nn.Module]:
        """See `Tower.block_list`."""
        return self.tower.block_list(module)

    def last_block(self, module: Parts, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """See `Tower.last_block`."""
        return self.tower.last_block(module, context.shape[0], dtype)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text through the model's tokenizer, a tokenizer's own output, or token ids (1, length)."""
        prepared = self.tokens.prepare(raw, truncate=truncate)
        if self.tower.pool != "end":
            return prepared
        length = self.tower.end_position(prepared.tensor, self.end) + 1
        return Prepared(prepared.tensor[:, :length], prepared.display, prepared.tokenized.cut(length))

    def encode(self, module: Parts, tensors: Tensor) -> Tensor:
        """The projected embeddings of token ids, all of which are read."""
        # SigLIP was trained to read its padding; everywhere else none is left.
        mask = torch.ones_like(tensors)
        return self.tower.embedding(module, module.tower(input_ids=tensors, attention_mask=mask))

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The tower's token embeddings."""
        return self.tower.token_table(self.in_precision(dtype).tower)


@cache
def sizes_can_be_read() -> bool:
    """Whether this torch can read a tensor's numbers within a forward derivative, as NaFlex models need; 2.7 cannot."""

    def scaled(x: Tensor) -> Tensor:
        return x * torch.tensor([2.0]).tolist()[0]

    try:
        return float(jvp(scaled, (torch.ones(()),), (torch.ones(()),))[1]) == 2.0
    except RuntimeError:
        return False


def require_readable_sizes(model: nn.Module) -> None:
    """`InputError` for a model that reads sizes out of tensors, where `sizes_can_be_read` says that this torch cannot."""
    if not sizes_can_be_read():
        raise InputError(
            f"{type(model).__name__} reads sizes out of tensors while it runs, which torch {torch.__version__} does not "
            "allow in models that are differentiated forward: use a later torch"
        )


def unpatched(output: Mapping[str, Any], patch: tuple[int, int]) -> Tensor:
    """NaFlex patches (1, patches, values) as pixels (3, height, width)."""
    rows, columns = (int(n) for n in output["spatial_shapes"][0])
    values: Tensor = output["pixel_values"][0][: rows * columns]
    cells = values.unflatten(1, (patch[0], patch[1], 3)).unflatten(0, (rows, columns))
    return cells.permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)


def _both(side: int | Sequence[int] | None) -> tuple[int, int] | None:
    """A side as configurations have it, one number for both or a pair, as (rows, columns)."""
    if side is None or isinstance(side, int):
        return None if side is None else (side, side)
    return int(side[0]), int(side[1])
