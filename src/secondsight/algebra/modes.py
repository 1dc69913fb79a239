"""The modes of an attribution matrix: few pairs of a map and a set of words that make up what was matched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.layout import Layout, word_scores
from secondsight.algebra.matrix import FactoredMatrix
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from secondsight.algebra.interactions import Interactions

_TOLD = 3
"""Words that a mode's representation names."""


@dataclass(frozen=True, eq=False, repr=False)
class Mode:
    """One singular part of an attribution matrix: a map over the left side times weights of the right side.

    `matrix` is left ⊗ right, in units of the similarity. The strongest word, or without words the strongest feature, has the
    weight 1, so that `left` (left,) is what the mode adds to that word's map. Both are zero at special positions.
    `share` is its part of Σ A² over the visible features, in 0 … 1; `contribution` is Σ left · Σ right, its signed part of the
    interaction.
    """

    left: Float[Tensor, " left"]
    right: Float[Tensor, " right"]
    share: float
    left_layout: Layout
    right_layout: Layout

    @property
    def matrix(self) -> Float[Tensor, "left right"]:
        """What the mode adds for every pair of features."""
        return torch.outer(self.left, self.right)

    @property
    def contribution(self) -> float:
        """What the mode adds to the similarity."""
        return float(self.left.sum() * self.right.sum())

    @property
    def map(self) -> Tensor:
        """`left` as its layout shows it: an image's grid (rows, columns), a text's tokens."""
        return self.left_layout.view(self.left)

    def heatmap(self) -> Float[Tensor, "height width"]:
        """The map upsampled bilinearly to the original image's pixels; `InputError` without an image."""
        return self.left_layout.heatmap(self.left)

    @property
    def words(self) -> list[tuple[str, float]]:
        """(word, weight) in reading order, relative to the strongest word; `InputError` if the right side is no text."""
        return word_scores(self.right_layout, self.right)

    def __repr__(self) -> str:
        names: list[tuple[str, float]] = []
        if self.right_layout.words:
            names = sorted(self.words, key=lambda entry: -abs(entry[1]))[:_TOLD]
        told = "".join(f", {word} {weight:+.2f}" for word, weight in names)
        return f"Mode({self.share:.0%}, {self.contribution:+.4f}{told})"


@dataclass(frozen=True, eq=False)
class Modes:
    """The strongest modes of a pair, strongest first: e.matrix = Σ mode.matrix + rest.

    `rank` is how many there are in all; `special_share` is the part of Σ A², in 0 … 1, that lies in rows or columns of special
    positions, which belong to no mode.
    """

    modes: tuple[Mode, ...]
    rank: int
    special_share: float
    pair: Interactions

    def __len__(self) -> int:
        return len(self.modes)

    def __iter__(self) -> Iterator[Mode]:
        return iter(self.modes)

    def __getitem__(self, index: int) -> Mode:
        return self.modes[index]

    @property
    def share(self) -> float:
        """The part of Σ A² over the visible features that these modes hold, in 0 … 1."""
        return sum(mode.share for mode in self.modes)

    @property
    def contribution(self) -> float:
        """What these modes add to the similarity; the interaction less this is what the rest adds."""
        return sum(mode.contribution for mode in self.modes)

    @cached_property
    def rest(self) -> Float[Tensor, "left right"]:
        """What these modes leave of the matrix: weaker modes, and the rows and columns of special positions."""
        rest = self.pair.matrix.double()
        for mode in self.modes:
            rest = rest - mode.matrix.to(rest)
        return rest

    def plot(self) -> Figure:
        """A matplotlib figure with a row for every mode: its map on the left side, its words coloured by their weight."""
        from secondsight.visual.rows import plot_modes

        return plot_modes(self)


def modes(pair: Interactions, k: int | None = 3) -> Modes:
    """The k strongest modes of a pair's attribution matrix over its visible features, all of them for None.

    They are its singular parts: no other k pairs of a map and a set of weights leave a smaller rest (Eckart and Young, 1936).
    Raises `InputError` for a k below 1, and where a side has no visible feature.
    """
    if k is not None and (not isinstance(k, int) or isinstance(k, bool) or k < 1):
        raise InputError(f"modes of k={k!r}: k must be a whole number from 1 on, or None for all")
    visible = [torch.tensor(layout.visible, dtype=torch.long) for layout in (pair.left_layout, pair.right_layout)]
    for name, indices in zip(("left", "right"), visible, strict=True):
        if not len(indices):
            raise InputError(f"the {name} side has special positions only, which belong to no mode")
    left, sizes, right, total = _singular_parts(pair.attributions, *visible)
    smallest = float(sizes[0]) * torch.finfo(pair.left_effects.dtype).eps * max(len(indices) for indices in visible)
    rank = int((sizes > smallest).sum())
    squares = sizes.square()
    seen = float(squares.sum()) or 1.0
    parts = []
    for number in range(rank if k is None else min(k, rank)):
        rows = torch.zeros(pair.left_layout.size, dtype=torch.float64)
        columns = torch.zeros(pair.right_layout.size, dtype=torch.float64)
        rows[visible[0]], columns[visible[1]] = left[:, number] * sizes[number], right[:, number]
        strongest = _strongest(pair.right_layout, columns)
        share = float(squares[number]) / seen
        parts.append(Mode(rows * strongest, columns / strongest, share, pair.left_layout, pair.right_layout))
    hidden = max(0.0, 1 - float(squares.sum()) / total) if total else 0.0
    return Modes(tuple(parts), rank, hidden, pair)


def _strongest(layout: Layout, weights: Float[Tensor, " feature"]) -> float:
    """The signed weight of the word, or without words of the feature, whose weight is largest."""
    scores = [score for _, score in word_scores(layout, weights)] if layout.words else []
    return max(scores, key=abs, default=0.0) or max(weights.tolist(), key=abs)


def _singular_parts(
    matrix: Tensor | FactoredMatrix, rows: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Left vectors (row, mode), singular values and right vectors (column, mode) of A[rows, columns], and Σ A² of all A.

    Of A = U Vᵀ with fewer joint dimensions than features the matrix is never formed: with U = Q R and V = Q' R', the
    singular parts of A are those of the small R R'ᵀ.
    """
    if isinstance(matrix, FactoredMatrix) and not matrix.computed and min(matrix.shape) > matrix.left.shape[1]:
        u = matrix.left.vectors().double().cpu() * matrix.scale
        v = matrix.right.vectors().double().cpu()
        total = float(((u.T @ u) * (v.T @ v)).sum())
        (q_left, r_left), (q_right, r_right) = torch.linalg.qr(u[rows]), torch.linalg.qr(v[columns])
        left, sizes, right = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
        return q_left @ left, sizes, q_right @ right.T, total
    dense: Any = matrix if isinstance(matrix, Tensor) else matrix.dense()
    dense = dense.double().cpu()
    left, sizes, right = torch.linalg.svd(dense[rows[:, None], columns], full_matrices=False)
    return left, sizes, right.T, float(dense.square().sum())
