"""How a computation of contributions went: what was asked, what was reached, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

LARGE_ERROR = 0.1
"""With fixed nodes: the largest relative residual of a side, and the largest error of a pair relative to its interaction."""


@dataclass(frozen=True)
class Outcome:
    """How one side's contributions were computed, and how well they add up.

    `method` is its name on the command line, `layer` the block whose input was attributed ("input" for pixels or token
    embeddings), `reference` the name of the reference, or "tensor" for the user's own. `residual` is
    ‖g(a) − g(r) − ΣU‖ / ‖g(a) − g(r)‖. `tolerance` is the residual that was aimed at and `nodes` the size of the quadrature;
    both are None where a method has no such goal. `cost` counts forward passes, derivatives along the path or encodings,
    whatever the method spends. `converged` is False where the tolerance was missed or, with a fixed number of nodes, where
    the residual is above `LARGE_ERROR`.
    """

    method: str
    layer: int | str
    reference: str
    residual: float
    converged: bool = True
    tolerance: float | None = None
    nodes: int | None = None
    cost: int = 0

    @property
    def fixed_nodes(self) -> bool:
        """Whether the number of nodes was given rather than a tolerance."""
        return self.nodes is not None and self.tolerance is None

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Outcome | None:
        """The outcome that `to_json` wrote; None for none."""
        return None if data is None else cls(**data)


def joint_outcome(outcomes: Sequence[Outcome | None]) -> Outcome | None:
    """The outcome of several inputs taken together: the worst residual, the most nodes, the sum of the costs."""
    present = [outcome for outcome in outcomes if outcome is not None]
    if not present:
        return None
    worst = max(present, key=lambda outcome: outcome.residual)
    nodes = [outcome.nodes for outcome in present if outcome.nodes is not None]
    return replace(
        worst,
        converged=all(outcome.converged for outcome in present),
        nodes=max(nodes, default=None),
        cost=sum(outcome.cost for outcome in present),
    )
