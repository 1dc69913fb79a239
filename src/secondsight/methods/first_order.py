"""Methods that give one map a side: how much each feature matters to the pair's similarity, whatever it matched."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import Layout
from secondsight.algebra.outcome import Outcome
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.algebra.contributions import Contributions
    from secondsight.model import Side


@dataclass(frozen=True, eq=False)
class EncodedInput:
    """One input after its forward pass: its side, its features, and the host's embedding (joint,) with autograd's graph."""

    side: Side
    layout: Layout
    embedding: Tensor

    def similarity(self, partner: Tensor, embedding: Tensor | None = None) -> Tensor:
        """The similarity of this input, or of another `embedding` of its side, to a partner's embedding."""
        embedding = self.embedding if embedding is None else embedding
        partner = partner.to(embedding)
        return F.cosine_similarity(embedding, partner, dim=0) if self.side.cosine else embedding @ partner


Encoded = TypeVar("Encoded", bound=EncodedInput)


class FirstOrder(Method, Generic[Encoded]):
    """A method that gives every side of a pair one non-negative map.

    A subclass says how an input is encoded, and which map it has for its partner's embedding. A pair's
    matrix is then the outer product of the left map and the right map's shares, which sum to 1: `e.toward_left(None)` is
    the left map itself, and any selection of words scales this one map. Special positions have nothing. Base and effects
    are zero; the sum of the matrix is that of the left map and says nothing about the similarity, which is the host's own.
    """

    order: ClassVar[int] = 1
    adds_up: ClassVar[bool] = False
    passes: ClassVar[int] = 2
    """Forward and backward passes of a side."""

    @property
    def factorises(self) -> bool:
        """A map belongs to a pair."""
        return False

    @abstractmethod
    def encode(self, side: Side, prepared: Prepared) -> Encoded:
        """One input after its forward pass; gradients are on."""

    @abstractmethod
    def map_of(self, encoded: Encoded, partner: Float[Tensor, " joint"]) -> Float[Tensor, " feature"]:
        """The map (feature,) of an encoded input for a partner's embedding; negative values count as zero."""

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Raises `InputError`: a first-order map has no vectors."""
        raise InputError(
            f"{self.name!r} gives a map of a pair and no vectors of one input: explain pairs with it, and use a method with "
            "vectors, such as 'last-layer', for stores, searches and contributions"
        )

    def interactions(self, left: Side, right: Side, a: Prepared, partners: Sequence[Prepared]) -> list[Interactions]:
        """The pairs' maps as matrices of rank one; the left input is encoded once."""
        with untouched(left.encoder.module, right.encoder.module), torch.enable_grad():
            first = self.encode(left, a)
            return [self._pair(first, self.encode(right, b)) for b in partners]

    def _pair(self, a: Encoded, b: Encoded) -> Interactions:
        rows = self._visible_map(a, b.embedding)
        columns = _shares(self._visible_map(b, a.embedding), b.layout)
        facts: dict[str, Any] = {"layer": "attention", "encodings": 1, "passes": self.passes}
        # Of the embedding itself nothing is accounted for.
        outcome = Outcome(self.name, "attention", "none", residual=1.0, cost=self.passes)
        return Interactions(
            attributions=torch.outer(rows, columns.to(rows)),
            left_effects=torch.zeros_like(rows),
            right_effects=torch.zeros_like(columns, dtype=rows.dtype),
            base=0.0,
            similarity=float(a.similarity(b.embedding).detach()),
            left_layout=a.layout,
            right_layout=b.layout,
            about={"left": facts, "right": dict(facts), "order": self.order},
            outcomes=(outcome, outcome),
        )

    def _visible_map(self, encoded: Encoded, partner: Tensor) -> Tensor:
        """The map of the visible features in the decomposition's precision, zero elsewhere."""
        values = self.map_of(encoded, partner.detach()).detach().clamp(min=0)
        return values.to("cpu", encoded.side.encoder.dtype()) * encoded.layout.indicator(encoded.layout.visible)


def _shares(values: Tensor, layout: Layout) -> Tensor:
    """A map divided by its sum; the same for all visible features where it is zero."""
    if not bool(values.any()):
        values = layout.indicator(layout.visible).to(values)
    return values / (values.sum() or 1.0)
