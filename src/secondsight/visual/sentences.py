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


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def meanings(e: Interactions) -> dict[str, str]:
    """What every line of the table of terms is, in plain words, by the line's name."""
    kinds = e.terms.kinds
    sides = kinds if kinds[0] != kinds[1] else (f"left {kinds[0]}", f"right {kinds[1]}")
    (base, _), (left, _), (right, _), (interaction, _) = e.terms.labels()
    alone = (
        "What this {side} adds by itself, whatever stands on the other side: {kind} that is close to everything has a "
        "large number here, one that is far from everything a negative one."
    )
    return {
        base: "Where the model starts: what it finds between two blank inputs, before anything of this pair is there.",
        left: alone.format(side=sides[0], kind=_with_article(kinds[0])),
        right: alone.format(side=sides[1], kind=_with_article(kinds[1])),
        interaction: f"What the two have in common: every part of one with every part of the other. The colours above show "
        f"where this number comes from. It is the line that says whether the {e.quantity} is deserved.",
        "of it shown": "The share of parts that have a place above: words, or patches of the picture.",
        "of it shown on the two sides": "The share of parts that have a place above, and so a colour.",
        "of it in special positions": "The share of positions without a place: start and end marks of a text, or a summary "
        "of the whole picture that the model carries along.",
        e.quantity: _QUANTITIES.get(e.quantity, "The number that is explained."),
        "error": f"By how much the four lines miss the {e.quantity}. It is measured for every explanation; if it is not far "
        "smaller than the lines, do not trust them.",
    }


_QUANTITIES = {
    "similarity": "How alike the model finds the two. For most models 1 is the most and 0 means nothing in common, but even "
    "good pairs stay far below 1: compare with other captions or pictures of the same model.",
    "margin": "How much better the first fits than the second: the similarity of one less that of the other.",
    "difference": "How much more the first model or method finds than the second, on the same pair.",
}
