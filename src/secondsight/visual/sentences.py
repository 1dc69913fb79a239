"""Sentences that the page, the terminal and figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secondsight.algebra.interactions import Interactions


def convergence_warning(e: Interactions) -> str | None:
    """What to tell a reader of an explanation that has not converged; None where it has."""
    if e.converged:
        return None
    return (
        f"This explanation has not converged: its terms miss the {e.quantity} by {e.error:.1e}. "
        "Allow more steps, or ask for a larger tolerance."
    )
