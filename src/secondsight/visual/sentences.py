"""Sentences that the page, the terminal and figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secondsight.algebra.interactions import Interactions


def convergence_warning(e: Interactions) -> str | None:
    """The warning for an explanation that has not converged; None if it has."""
    if e.converged:
        return None
    return (
        f"This explanation has not converged: its terms miss the {e.quantity} by {e.error:.1e}. "
        "Allow more steps, or ask for a larger tolerance."
    )
