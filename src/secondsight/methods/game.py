"""One input as a game: its embedding when some of its features are taken away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import GridLayout, Layout, SpectrogramLayout
from secondsight.encoders.base import check_finite
from secondsight.encoders.input_layer import at_layer
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import for_side
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.model import Side

_TOGETHER = 32
"""Masked inputs that go through the model at once."""


@dataclass(eq=False)
class Game:
    """Embeddings of one input with features present or absent; absent ones take the reference's values.

    Players are the visible features of `layout`; special positions always stay. `filling` is the reference that takes
    the place of absent ones. `spent` counts inputs encoded so far.
    """

    side: Side
    layout: Layout
    embedding: Float[Tensor, " joint"]
    encode: Callable[[Tensor], Tensor]
    unit: bool
    layer: int | str
    filling: Any = None
    spent: int = 0
    _ends: dict[bool, Tensor] = field(default_factory=dict)

    @property
    def players(self) -> int:
        """How many features can be taken away."""
        return len(self.layout.visible)

    def values(self, masks: Bool[Tensor, "mask player"]) -> Float[Tensor, "mask joint"]:
        """Embeddings with the given players present, in double precision."""
        rows = []
        with untouched(self.side.encoder.module):
            for part in masks.split(_TOGETHER):
                rows.append(self.encode(part).double())
        self.spent += len(masks)
        out = torch.cat(rows) if rows else torch.zeros(0, len(self.embedding), dtype=torch.float64)
        check_finite(self.side.encoder, out, None)
        return F.normalize(out, dim=-1) if self.unit else out

    def end(self, present: bool) -> Float[Tensor, " joint"]:
        """The embedding with all players, or none; encoded once."""
        if present not in self._ends:
            self._ends[present] = self.values(torch.full((1, self.players), present))[0]
        return self._ends[present]

    def contributions(
        self, effects: Float[Tensor, "player joint"], baseline: Tensor, about: dict[str, Any], deviations: Any = None
    ) -> Contributions:
        """Players' effects as contributions of all features, zero for the special ones."""

        def spread(of_players: Tensor) -> Tensor:
            shape = (*of_players.shape[:-2], self.layout.size, of_players.shape[-1])
            out = torch.zeros(shape, dtype=self.embedding.dtype)
            out[..., self.layout.visible, :] = of_players.to(self.embedding.dtype)
            return out

        whole = F.normalize(self.embedding, dim=-1) if self.unit else self.embedding
        scale = 1.0 if self.unit or not self.side.cosine else 1 / float(self.embedding.double().norm())
        return Contributions(
            factor=spread(effects),
            embedding=whole,
            reference_embedding=baseline.to(self.embedding.dtype),
            layout=self.layout,
            scale=scale,
            about={"layer": self.layer, "encodings": self.spent, **about},
            deviations=None if deviations is None or not len(deviations) else spread(deviations),
        )


def game(side: Side, prepared: Prepared, layer: Any, reference: Any, seed: int, normalize: str) -> Game:
    """The game of one input: features are taken away at `layer`, by default the model-ready input itself.

    `layer` and `reference` take one value or a (left, right) pair. Absent features are the mean pixel or the mean of a
    spectrogram where the side knows it, else the usual reference.

    At the input an image's players are the cells of the last layer's grid, each a block of pixels, and a text's players
    its tokens; at a deeper layer they are that layer's positions.
    """
    layer, which = for_side(side, layer, reference)
    if which is None and "mean" in side.encoder.references:
        which = "mean"
    with untouched(side.encoder.module):
        encoder, number = at_layer(side.encoder, layer)
        if layer == "input" and side.kind == "text" and side.encoder.token_embedding(torch.float32) is None:
            # Whoever cannot say where token embeddings are has them at the first block's input.
            encoder, number = at_layer(side.encoder, 0)
        state = encoder.features(prepared.tensor, number)[0]
        check_finite(side.encoder, state.embedding, prepared.tensor)
        other = encoder.reference(prepared, which, seed)
        absent = encoder.reference_at(other, number, state.context)
        fine = encoder.layout(prepared, number, state)
        layout, owner = fine, torch.arange(fine.size)
        if encoder is not side.encoder:
            last = side.encoder.depth - 1
            coarse = side.encoder.features(prepared.tensor, last)[0]
            layout = side.encoder.layout(prepared, last, coarse)
            owner = _owners(fine, layout)
        head = encoder.head(number, state.context, encoder.dtype())
    start, delta = absent.hidden.cpu(), (state.hidden - absent.hidden).cpu()
    # Positions that no player owns are always present.
    player = torch.full((layout.size + 1,), len(layout.visible))
    player[layout.visible] = torch.arange(len(layout.visible))
    column = player[owner]

    def encode(masks: Tensor) -> Tensor:
        present = torch.cat([masks, torch.ones(len(masks), 1, dtype=torch.bool)], 1)[:, column]
        hidden = start + present[..., None].to(start) * delta
        out: Tensor = head(hidden.to(state.hidden)).cpu()
        return out

    unit = normalize == "inside" and side.cosine
    embedding = state.embedding.cpu()
    return Game(side, layout, embedding, encode, unit, encoder.label(number), which, spent=1)


def _owners(fine: Layout, coarse: Layout) -> Tensor:
    """Which coarse feature every fine one belongs to; `coarse.size` for none."""
    if isinstance(fine, GridLayout) and isinstance(coarse, GridLayout):
        return _cells(fine.grid, coarse, torch.tensor(fine.visible), fine.size)
    if isinstance(fine, SpectrogramLayout) and isinstance(coarse, SpectrogramLayout):
        places = torch.empty(fine.size, dtype=torch.long)
        places[torch.tensor(fine.cells)] = torch.tensor(fine.visible)
        return _cells(fine.grid, coarse, places, fine.size)
    if fine.kind == coarse.kind and max(coarse.visible, default=0) < fine.size:
        # Positions that one of them does not have, such as a class token behind the text, belong to nobody.
        owner, shared = torch.full((fine.size,), coarse.size), min(coarse.size, fine.size)
        owner[:shared] = torch.arange(shared)
        return owner
    raise InputError(f"features of {fine.kind} at the input cannot be told from those of the last layer: give layer=0")


def _cells(grid: tuple[int, int], coarse: Any, order: Tensor, size: int) -> Tensor:
    """Owners of a fine grid's cells, `order` their features row by row."""
    rows = torch.arange(grid[0]) * coarse.grid[0] // grid[0]
    columns = torch.arange(grid[1]) * coarse.grid[1] // grid[1]
    features = coarse.view(torch.arange(coarse.size, dtype=torch.float64)).long()
    owner = torch.full((size,), coarse.size)
    owner[order] = features[rows[:, None], columns[None]].flatten()
    return owner
