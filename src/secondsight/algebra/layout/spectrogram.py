"""The layout of sound: cells of a spectrogram."""

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

from secondsight.algebra.layout.base import Layout
from secondsight.algebra.layout.grid import coarser_grid
from secondsight.support.errors import InputError


@dataclass(frozen=True)
class SpectrogramLayout(Layout):
    """Cells of a spectrogram: `grid` is (bands, frames), low bands first; `places` says in which cell every visible
    feature lies, counted band by band.

    `seconds` is the duration of all frames as the model receives them: its processor may repeat short clips. It is 0 for
    model-ready spectrograms, whose duration is unknown.
    """

    grid: tuple[int, int] = (0, 0)
    places: tuple[int, ...] = ()
    seconds: float = 0.0
    kind: ClassVar[str] = "audio"

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.places) != list(range(self.grid[0] * self.grid[1])) or len(self.places) != len(self.visible):
            raise InputError(f"{len(self.places)} cells do not fill a grid of {self.grid[0]}×{self.grid[1]}")

    @cached_property
    def cells(self) -> Int[Tensor, "band frame"]:
        """The index of the feature in every cell."""
        features = torch.empty(len(self.places), dtype=torch.long)
        features[list(self.places)] = torch.tensor(self.visible, dtype=torch.long)
        return features.unflatten(0, self.grid)

    def heatmap(
        self, values: Float[Tensor, " feature"], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "height width"]:
        """Per-feature values upsampled bilinearly to (height, width) pixels, the lowest band in the first row."""
        if size is None:
            return super().heatmap(values)
        cells = self.view(values)[None, None]
        return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)[0, 0]

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """Weights for (start, end) in seconds, cells counting by their covered share; or indices, a slice, None."""
        if not isinstance(selection, tuple):
            return super().select(selection)
        numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in selection)
        if len(selection) != 2 or not numbers or not selection[0] < selection[1]:
            raise InputError(
                f"cannot select {selection!r} from sound: give (start, end) in seconds, start less than end"
            )
        if not self.seconds:
            raise InputError("the duration of a model-ready spectrogram is unknown: select cells by their indices")
        start, end = float(selection[0]), float(selection[1])
        if end <= 0 or start >= self.seconds:
            raise InputError(f"{start:g}-{end:g} s lies outside the sound, which lasts {self.seconds:g} s")
        edges = torch.linspace(0, self.seconds, self.grid[1] + 1, dtype=torch.float64)
        share = (edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)).clamp(min=0) / (edges[1] - edges[0])
        weights = torch.zeros(self.size)
        weights[self.visible] = share.float()[torch.tensor(self.places) % self.grid[1]]
        return weights

    def coarsen(self, most: int) -> SpectrogramLayout:
        """The finest grid of at most `most` cells a side whose cells all hold equally many of these."""
        grid = coarser_grid(self.grid, most)
        return SpectrogramLayout(grid[0] * grid[1], {}, grid, tuple(range(grid[0] * grid[1])), self.seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        return {**super().to_json(), "grid": list(self.grid), "cells": list(self.places), "seconds": self.seconds}

    @classmethod
    def from_fields(cls, size: int, special: dict[int, str], data: Mapping[str, Any]) -> SpectrogramLayout:
        """The layout whose fields `to_json` wrote."""
        return cls(size, special, tuple(data["grid"]), tuple(data["cells"]), data["seconds"])
