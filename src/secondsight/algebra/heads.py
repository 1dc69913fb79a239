"""A pair's interactions split by the attention heads of one side's last block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.layout import Layout, word_scores
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from secondsight.algebra.interactions import Interactions


@dataclass(frozen=True, eq=False, repr=False)
class HeadPart:
    """What one head adds: `matrix` (left, right) to the interactions, `effects` (left,) to the left side alone.

    `head` counts from 0; None is the residual stream, which passes no head.
    """

    head: int | None
    matrix: Float[Tensor, "left right"]
    effects: Float[Tensor, " left"]
    left_layout: Layout
    right_layout: Layout

    @property
    def name(self) -> str:
        """Such as "head 3"; "stream" for what passes no head."""
        return "stream" if self.head is None else f"head {self.head}"

    @property
    def interaction(self) -> float:
        """The head's part of the interaction."""
        return float(self.matrix.sum())

    @property
    def alone(self) -> float:
        """The head's part of what the left side adds alone."""
        return float(self.effects.sum())

    def toward_left(self, selection: Any = None) -> Float[Tensor, " left"]:
        """The head's attribution of every left feature to a selection of right ones, as of `Interactions`."""
        return self.matrix @ self.right_layout.select(selection).to(self.matrix)

    def __getitem__(self, selection: Any) -> Tensor:
        """The head's map over the left side for a selection of the right side."""
        return self.left_layout.view(self.toward_left(selection))

    @property
    def words(self) -> list[tuple[str, float]]:
        """(word, score) summed over the visible left features."""
        return word_scores(self.right_layout, self.left_layout.select(None).to(self.matrix) @ self.matrix)

    def __repr__(self) -> str:
        return f"HeadPart({self.name}: interaction {self.interaction:+.4f}, alone {self.alone:+.4f})"


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of the left side's last block in their order, and last the residual stream: they add up to the pair.

    The matrices sum to `pair.matrix` and the effects to `pair.left_effects`; so do `interaction` and `alone` to the terms.
    """

    parts: tuple[HeadPart, ...]
    pair: Interactions

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[HeadPart]:
        return iter(self.parts)

    def __getitem__(self, index: int) -> HeadPart:
        return self.parts[index]

    @property
    def stream(self) -> HeadPart:
        """What passes no head: the residual stream at the pooled position."""
        return self.parts[-1]

    def strongest(self, k: int = 3) -> list[HeadPart]:
        """The k heads with the largest |interaction|, largest first."""
        return sorted(self.parts[:-1], key=lambda part: -abs(part.interaction))[:k]

    def plot(self, k: int = 3, selection: Any = None) -> Figure:
        """A matplotlib figure with a row for each of the k strongest heads: its map for a selection, and its words."""
        from secondsight.visual.rows import plot_heads

        return plot_heads(self, k, selection)


def heads(pair: Interactions) -> Heads:
    """A pair's matrix and left effects split by the attention heads of the left side's last block.

    Moving a position moves every head's output, and what follows is linear at each node of the path, so that U = Σ_h U_h
    exactly. Raises `InputError` where the left vectors do not come from the closed form of a last block.
    """
    left, right = pair.left_contributions, pair.right_contributions
    if left is None or right is None:
        raise InputError(
            "heads need the pair's contributions, which differences, contrasts and pairs read from files do not have: "
            "explain the pair with method='last-layer'"
        )
    scale = left.scale * right.scale
    vectors = left.rows.vectors_by_head().double()
    partner, reference = right.vectors.to(vectors), right.reference_embedding.to(vectors)
    numbers = [*range(len(vectors) - 1), None]
    parts = tuple(
        HeadPart(
            head,
            head_vectors @ partner.T * scale,
            head_vectors @ reference * scale,
            pair.left_layout,
            pair.right_layout,
        )
        for head, head_vectors in zip(numbers, vectors.unbind(), strict=True)
    )
    return Heads(parts, pair)
