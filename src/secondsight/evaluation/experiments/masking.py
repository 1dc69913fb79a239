"""What the experiments that take features away share: inputs as games, and explanations as predictions of their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout, Layout, owners_in
from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation.experiments.base import Experiment
from secondsight.evaluation.setting import Setting
from secondsight.inputs.images import IMAGE_REFERENCES
from secondsight.methods.base import one_of
from secondsight.methods.game import Game, open_game
from secondsight.support.errors import InputError


class MaskingExperiment(Experiment):
    """An experiment that takes features away. `fill` names what takes the place of an image's removed patches.

    It is an image reference, "mean" by default, or several with commas between, or "all": every setting is then measured under
    each of them.
    """

    by_embeddings: ClassVar[bool] = True

    def __init__(self, *, fill: str = "mean", **options: Any) -> None:
        super().__init__(**options)
        self.fill = fill
        self._fillings = IMAGE_REFERENCES if fill == "all" else tuple(str(fill).split(","))
        for filling in self._fillings:
            one_of("fill", filling, IMAGE_REFERENCES)

    def variants(self, setting: Setting) -> Iterator[Setting]:
        """The setting under every filling; with the usual one alone the setting itself."""
        if self._fillings == ("mean",):
            yield setting
            return
        for filling in self._fillings:
            spec, label = {**setting.spec, "filling": filling}, f"{setting.label}, {filling} filling"
            yield replace(setting, filling=filling, spec=spec, label=label)


def input_games(setting: Setting, example: GroundedCaption, seed: int) -> tuple[Game, Game]:
    """Both inputs as games whose players are features of the input, with the embeddings that the similarity uses.

    The setting's filling takes the place of an image's removed patches.
    """
    image, text = setting.prepared(example)
    left = open_game(setting.model.left, image, "input", (setting.filling, None), seed, "inside")
    right = open_game(setting.model.right, text, "input", None, seed, "inside")
    return left, right


def player_values(layout: Layout, values: Float[Tensor, " feature"], game: Game) -> Float[Tensor, " player"]:
    """Values of a layout's features as values of the game's players; cells are averaged if the grids differ."""
    players = game.layout.visible
    if layout == game.layout:
        return values[players].double()
    if isinstance(layout, GridLayout) and isinstance(game.layout, GridLayout):
        cells = _cell_sums(layout.heatmap(values).double(), game.layout)
        features = torch.zeros(game.layout.size, dtype=torch.float64)
        features[game.layout.cells.flatten()] = cells
        return features[players]
    if layout.kind == game.layout.kind and max(players) < layout.size:
        return values[players].double()
    raise InputError(f"features of {layout.kind} cannot be taken away as those of {game.layout.kind}")


def _cell_sums(heat: Float[Tensor, "height width"], layout: GridLayout) -> Float[Tensor, " cell"]:
    """The map's mean in every cell times the cell's area; 0 outside the map."""
    sums = []
    for x0, y0, x1, y1 in layout.cell_boxes().round().long().tolist():
        pixels = heat[max(y0, 0) : max(y1, y0 + 1), max(x0, 0) : max(x1, x0 + 1)]
        area = (x1 - x0) * (y1 - y0)
        sums.append(pixels.mean() * area if pixels.numel() else torch.zeros((), dtype=torch.float64))
    return torch.stack(sums)


def order_masks(values: Float[Tensor, " player"], shares: list[float], *, insert: bool) -> Bool[Tensor, "share player"]:
    """Masks that remove or insert the given shares of players, highest values first; ties keep their order."""
    order = values.argsort(descending=True, stable=True)
    masks = torch.zeros(len(shares), len(values), dtype=torch.bool)
    for row, share in enumerate(shares):
        masks[row, order[: round(share * len(values))]] = True
    return masks if insert else ~masks


def actual_similarities(games: tuple[Game, Game], masks: tuple[Tensor, Tensor]) -> Float[Tensor, " mask"]:
    """The similarity under pairs of masks, from embeddings of the masked inputs; equal masks of a side are encoded once."""
    sides = []
    for game, mask in zip(games, masks, strict=True):
        distinct, places = torch.unique(mask, dim=0, return_inverse=True)
        sides.append(game.values(distinct)[places])
    return (sides[0] * sides[1]).sum(-1)


@dataclass(frozen=True)
class ExplainedGame:
    """An explanation as a game of both inputs' players: base + Σ_S left + Σ_T right + Σ_S×T matrix, in double precision."""

    base: float
    left: Float[Tensor, " left"]
    right: Float[Tensor, " right"]
    matrix: Float[Tensor, "left right"]

    def similarities(self, masks: tuple[Tensor, Tensor]) -> Float[Tensor, " mask"]:
        """The similarity under pairs of masks according to the explanation."""
        left, right = (mask.double() for mask in masks)
        return self.base + left @ self.left + right @ self.right + ((left @ self.matrix) * right).sum(-1)


def explained_game(e: Interactions, games: tuple[Game, Game]) -> ExplainedGame:
    """The explanation in terms of the games' players; features that no player owns are always present."""
    sides = []
    for layout, game in zip((e.left_layout, e.right_layout), games, strict=True):
        always = present_features(layout, game, torch.zeros(1, game.players, dtype=torch.bool))
        with_player = present_features(layout, game, torch.eye(game.players, dtype=torch.bool))
        sides.append((always[0], with_player - always))
    (left_always, left_owned), (right_always, right_owned) = sides
    left, right, matrix = e.left_effects.double(), e.right_effects.double(), e.matrix.double()
    return ExplainedGame(
        base=e.base + float(left_always @ left + right_always @ right + left_always @ matrix @ right_always),
        left=left_owned @ (left + matrix @ right_always),
        right=right_owned @ (right + left_always @ matrix),
        matrix=left_owned @ matrix @ right_owned.T,
    )


def present_features(layout: Layout, game: Game, mask: Bool[Tensor, "mask player"]) -> Float[Tensor, "mask feature"]:
    """Which features of a layout are present (1 or 0) when the game's players are; special positions always are.

    A grid may be a multiple of the game's: its cells are present with the player in whose cell they lie.
    """
    present = torch.ones(len(mask), layout.size, dtype=torch.float64)
    players = game.layout.visible
    if layout == game.layout:
        present[:, players] = mask.double()
        return present
    if layout.kind != game.layout.kind or not _divides(game.layout, layout):
        raise InputError(f"features of {layout.kind} cannot be masked as those of {game.layout.kind}")
    # A last column for features that lie in no player.
    present = torch.ones(len(mask), game.layout.size + 1, dtype=torch.float64)
    present[:, players] = mask.double()
    return present[:, owners_in(layout, game.layout)]


def _divides(coarse: Layout, fine: Layout) -> bool:
    if fine.cells.ndim == coarse.cells.ndim == 2:
        return not any(many % few for many, few in zip(fine.cells.shape, coarse.cells.shape, strict=True))
    return max(coarse.visible) < fine.size
