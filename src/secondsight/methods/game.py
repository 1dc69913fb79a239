"""One input as a game: its embedding when some of its features are taken away."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import Layout, owners_in
from secondsight.algebra.outcome import Outcome
from secondsight.encoders.base import check_finite
from secondsight.encoders.input_layer import at_layer
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Layer, Method, Sides, for_side, reference_label
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.model import Side

_BATCH = 32
"""Masked inputs that go through the model at once."""


class MaskingMethod(Method):
    """A method that looks at embeddings with features present or absent: a subclass defines `contribute` and its options.

    Options that the base understands, the first two for both sides or a (left, right) pair: `layer`, where features are
    replaced, "input" (default) or a block; `reference`, what replaces them, by default the mean where the side knows it;
    `normalize` "inside" (default) looks at unit vectors where the similarity is a cosine, "outside" at raw embeddings;
    `seed` draws masks and the noise reference.
    """

    layer: Sides[Layer] = "input"
    reference: Sides[str | Tensor | None] = None
    normalize: str = "inside"
    seed: int = 0

    @abstractmethod
    def contribute(self, game: Game) -> Contributions:
        """Contributions of one input, from its embeddings under masks."""

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input; the model leaves as it came."""
        return [self.contribute(self.game(side, prepared)) for prepared in inputs]

    def game(self, side: Side, prepared: Prepared) -> Game:
        """The game of one input; see `open_game`."""
        return open_game(side, prepared, self.layer, self.reference, self.seed, self.normalize, self.name)


@dataclass(eq=False)
class Game:
    """Embeddings of one input with features present or absent; absent ones take the reference's values.

    Players are the visible features of `layout`; special positions always stay. `filling` is the reference that takes
    the place of absent ones. `encodings` counts inputs encoded so far; `method` is the name of the method that plays.
    """

    side: Side
    prepared: Prepared
    layout: Layout
    embedding: Float[Tensor, " joint"]
    encode: Callable[[Tensor], Tensor]
    unit: bool
    layer: int | str
    filling: str | Tensor | None = None
    encodings: int = 0
    method: str = "masks"
    _ends: dict[bool, Tensor] = field(default_factory=dict)

    @property
    def players(self) -> int:
        """How many features can be taken away."""
        return len(self.layout.visible)

    def values(self, masks: Bool[Tensor, "mask player"]) -> Float[Tensor, "mask joint"]:
        """Embeddings with the given players present, in double precision."""
        rows = []
        with untouched(self.side.encoder.module):
            # Of no masks at all `split` gives one empty part, which some models cannot take.
            for part in masks.split(_BATCH) if len(masks) else ():
                rows.append(self.encode(part).double())
        self.encodings += len(masks)
        embeddings = torch.cat(rows) if rows else torch.zeros(0, len(self.embedding), dtype=torch.float64)
        check_finite(self.side.encoder, embeddings, None)
        return F.normalize(embeddings, dim=-1) if self.unit else embeddings

    def end(self, present: bool) -> Float[Tensor, " joint"]:
        """The embedding with all players, or none; encoded once."""
        if present not in self._ends:
            self._ends[present] = self.values(torch.full((1, self.players), present))[0]
        return self._ends[present]

    def contributions(
        self,
        effects: Float[Tensor, "player joint"],
        baseline: Float[Tensor, " joint"],
        facts: Mapping[str, Any],
        deviations: Float[Tensor, "group player joint"] | None = None,
        converged: bool = True,
    ) -> Contributions:
        """Players' effects as contributions of all features, zero for the special ones."""
        embedding = F.normalize(self.embedding, dim=-1) if self.unit else self.embedding
        start = baseline.to(self.embedding.dtype)
        vectors = self._all_features(effects)
        moved = (embedding - start).double()
        residual = float((moved - vectors.double().sum(0)).norm()) / (float(moved.norm()) or 1.0)
        return Contributions(
            factor=vectors,
            embedding=embedding,
            reference_embedding=start,
            layout=self.layout,
            scale=1.0 if self.unit or not self.side.cosine else 1 / float(self.embedding.double().norm()),
            about={"layer": self.layer, "encodings": self.encodings, **facts},
            deviations=None if deviations is None or not len(deviations) else self._all_features(deviations),
            outcome=self.outcome(residual, converged),
            space=self.side.space,
        )

    def outcome(self, residual: float = 0.0, converged: bool = True) -> Outcome:
        """How the game went, and what it has cost so far."""
        filling = reference_label(self.side.encoder.references, self.filling)
        return Outcome(self.method, self.layer, filling, residual, converged, cost=self.encodings)

    def _all_features(self, values: Float[Tensor, "*group player joint"]) -> Float[Tensor, "*group feature joint"]:
        """Values of the players in the places of their features, zero elsewhere."""
        shape = (*values.shape[:-2], self.layout.size, values.shape[-1])
        spread = torch.zeros(shape, dtype=self.embedding.dtype)
        spread[..., self.layout.visible, :] = values.to(self.embedding.dtype)
        return spread


def open_game(
    side: Side,
    prepared: Prepared,
    layer: Sides[Layer],
    reference: Sides[str | Tensor | None],
    seed: int,
    normalize: str,
    method: str = "masks",
) -> Game:
    """The game of one input: features are taken away at `layer`, by default the model-ready input itself.

    `layer` and `reference` take one value or a (left, right) pair. Absent features are the mean pixel or the mean of a
    spectrogram where the side knows it, else the usual reference.

    At the input an image's players are the cells of the last layer's grid, each a block of pixels, and a text's players
    its tokens; at a deeper layer they are that layer's positions.
    """
    layer, filling = for_side(side, layer, reference)
    with untouched(side.encoder.module):
        encoder, number = at_layer(side.encoder, layer)
        if layer == "input" and side.kind == "text" and side.encoder.token_embedding(torch.float32) is None:
            # Without a known embedding table, use the first block's input.
            encoder, number = at_layer(side.encoder, 0)
        if filling is None and encoder.references != side.encoder.references:
            filling = encoder.references[0]  # the layer has one of its own
        elif filling is None and "mean" in encoder.references:
            filling = "mean"
        state = encoder.features(prepared.tensor, number)[0]
        check_finite(side.encoder, state.embedding, prepared.tensor)
        absent = encoder.reference_at(encoder.reference(prepared, filling, seed), number, state.context)
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
        return head(hidden.to(state.hidden)).cpu()

    unit = normalize == "inside" and side.cosine
    embedding = state.embedding.cpu()
    return Game(
        side, prepared, layout, embedding, encode, unit, encoder.label(number), filling, encodings=1, method=method
    )


def _owners(fine: Layout, coarse: Layout) -> Tensor:
    try:
        return owners_in(fine, coarse)
    except InputError as error:
        raise InputError(f"{error}: give layer=0, where the players are that layer's features") from error
