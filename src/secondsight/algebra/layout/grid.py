"""The layout of an image: patches or cells of a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from secondsight.algebra.layout.base import Box, Layout
from secondsight.support.errors import InputError
from secondsight.support.files import shortened

MAX_CELLS = 10_000
"""Cells of a grid that is laid onto another one; the shares between two such grids take 800 MB."""


@dataclass(frozen=True)
class GridLayout(Layout):
    """Patches or cells of an image: the visible features fill `grid` (rows, columns) row by row.

    `image_size` is (width, height) of the original image, `frame` the box (x0, y0, x1, y1) in its pixels that the grid
    covers: resizing and centre cropping make it smaller than the image, padding larger.
    """

    grid: tuple[int, int] = (0, 0)
    image_size: tuple[int, int] = (0, 0)
    frame: Box = (0.0, 0.0, 0.0, 0.0)
    kind: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid[0] * self.grid[1] != len(self.visible):
            raise InputError(f"a grid of {self.grid[0]}×{self.grid[1]} does not hold {len(self.visible)} cells")

    @cached_property
    def cells(self) -> Int[Tensor, "row column"]:
        """The index of the feature in every cell."""
        return torch.tensor(self.visible, dtype=torch.long).unflatten(0, self.grid)

    def heatmap(
        self, values: Float[Tensor, " feature"], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "height width"]:
        """Per-feature values upsampled bilinearly to the image, drawn at `size` (height, width) pixels; zero outside
        the frame."""
        height, width = size or self.image_size[::-1]
        across, down = width / self.image_size[0], height / self.image_size[1]
        x0, y0, x1, y1 = self.frame[0] * across, self.frame[1] * down, self.frame[2] * across, self.frame[3] * down
        cells = self.view(values)[None, None]
        # grid_sample takes the position of every original pixel centre in the frame, on [-1, 1].
        xs = ((torch.arange(width, dtype=cells.dtype, device=cells.device) + 0.5) - x0) / (x1 - x0) * 2 - 1
        ys = ((torch.arange(height, dtype=cells.dtype, device=cells.device) + 0.5) - y0) / (y1 - y0) * 2 - 1
        positions = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1)[None]
        pixels = F.grid_sample(cells, positions, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
        inside = ((ys.abs() <= 1)[:, None] & (xs.abs() <= 1)[None]).to(pixels.dtype)
        return pixels * inside

    def cell_boxes(self) -> Float[Tensor, "cell 4"]:
        """x0, y0, x1, y1 of every cell in pixels of the original image, row by row."""
        x0, y0, x1, y1 = self.frame
        rows, columns = self.grid
        xs = torch.linspace(x0, x1, columns + 1, dtype=torch.float64)
        ys = torch.linspace(y0, y1, rows + 1, dtype=torch.float64)
        top, left = torch.meshgrid(ys[:-1], xs[:-1], indexing="ij")
        bottom, right = torch.meshgrid(ys[1:], xs[1:], indexing="ij")
        return torch.stack([left, top, right, bottom], -1).flatten(0, 1).float()

    def cover(self, box: Any) -> Float[Tensor, " feature"]:
        """Share of every cell's area that lies in the box (original pixels), in 0 … 1; special features have 0.

        Fractions keep selections additive: two halves of a box add up to the box. Raises `InputError` for a box that is
        empty or outside the image or the part of it that the model sees.
        """
        try:
            x0, y0, x1, y1 = (float(v) for v in box)
        except (TypeError, ValueError):
            raise InputError(f"box {shortened(box)} is not four numbers x0,y0,x1,y1 in pixels of the image") from None
        label = f"box {x0:g},{y0:g},{x1:g},{y1:g}"
        width, height = self.image_size
        # Comparisons with NaN are false, so NaN fails here too.
        if not (x0 < x1 and y0 < y1):
            raise InputError(f"{label} is empty: x0 must be less than x1, and y0 less than y1")
        if not all(map(math.isfinite, (x0, y0, x1, y1))):
            raise InputError(f"{label} has a side that is no finite number: give pixels of the image")
        if not (x1 > 0 and y1 > 0 and x0 < width and y0 < height):
            raise InputError(f"{label} lies outside the image, which is {width}×{height} pixels")
        cells = self.cell_boxes().double()
        across = (cells[:, 2].clamp(max=x1) - cells[:, 0].clamp(min=x0)).clamp(min=0)
        down = (cells[:, 3].clamp(max=y1) - cells[:, 1].clamp(min=y0)).clamp(min=0)
        share = across * down / ((cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1]))
        if not bool(share.any()):
            frame = ",".join(f"{v:.0f}" for v in self.frame)
            raise InputError(f"{label} lies outside the part of the image that the model sees ({frame})")
        weights = torch.zeros(self.size)
        weights[self.visible] = share.float()
        return weights

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """Weights over the features for a box (a tuple of four numbers), indices, a slice, or None (all cells)."""
        if isinstance(selection, tuple):
            return self.cover(selection)
        return super().select(selection)

    def coarsen(self, most: int) -> GridLayout:
        """The finest grid of at most `most` cells a side whose cells all hold equally many of these."""
        grid = coarser_grid(self.grid, most)
        return GridLayout(grid[0] * grid[1], {}, grid, self.image_size, self.frame)

    def common_layout(self, target: Layout) -> GridLayout:
        """The finer of both grids, and a last feature for special positions and what lies outside the grid."""
        assert isinstance(target, GridLayout)  # of the same kind
        if self.image_size != target.image_size:
            raise InputError(
                f"the two explanations show images of {self.image_size[0]}×{self.image_size[1]} and "
                f"{target.image_size[0]}×{target.image_size[1]} pixels: both must be of the same photograph"
            )
        if max(len(self.visible), len(target.visible)) > MAX_CELLS:
            raise InputError(
                f"grids of {self.grid[0]}×{self.grid[1]} and {target.grid[0]}×{target.grid[1]} are too fine to be laid "
                "onto one another: explain at a block's input instead of layer='input'"
            )
        finer = self if len(self.visible) >= len(target.visible) else target
        cells = len(finer.visible)
        return GridLayout(cells + 1, {cells: "special"}, finer.grid, finer.image_size, finer.frame)

    def shares_in(self, target: Layout) -> Float[Tensor, "other feature"]:
        """Share of every cell's area that lies in every cell of another grid on the same image."""
        if not isinstance(target, GridLayout):
            return super().shares_in(target)
        a, b = self.cell_boxes().double(), target.cell_boxes().double()
        low, high = torch.maximum(a[None, :, :2], b[:, None, :2]), torch.minimum(a[None, :, 2:], b[:, None, 2:])
        area = (a[:, 2:] - a[:, :2]).prod(-1)
        shares = torch.zeros(target.size, self.size, dtype=torch.float64)
        shares[target.cells.reshape(-1, 1), self.cells.reshape(1, -1)] = (high - low).clamp(min=0).prod(-1) / area
        return shares

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        return {
            **super().to_json(),
            "grid": list(self.grid),
            "image_size": list(self.image_size),
            "frame": list(self.frame),
        }

    @classmethod
    def from_fields(cls, size: int, special: dict[int, str], data: Mapping[str, Any]) -> GridLayout:
        """The layout whose fields `to_json` wrote."""
        return cls(size, special, tuple(data["grid"]), tuple(data["image_size"]), tuple(data["frame"]))


def coarser_grid(grid: tuple[int, int], most: int) -> tuple[int, int]:
    """The largest (rows, columns) of at most `most` each that divide those of a grid."""
    rows, columns = (max(k for k in range(1, min(n, most) + 1) if n % k == 0) for n in grid)
    return rows, columns
