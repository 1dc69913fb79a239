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


def assignment_summary(e: Interactions) -> str | None:
    """Which match of a late-interaction pair won most narrowly, and what it would flip to; None for other pairs."""
    entries = e.about.get("assignment")
    if not entries or not isinstance(entries[0], dict):
        return None
    contested = [entry for entry in entries if entry["margin"] is not None]
    if not contested:
        return None
    close = min(contested, key=lambda entry: entry["margin"])
    return (
        f"{len(entries)} query tokens, each held to its best match; the closest call: {close['token']!r} takes "
        f"{close['match']!r} ({close['similarity']:.4f}), {close['margin']:.4f} ahead of {close['runner_up']!r}."
    )


def meanings(e: Interactions) -> dict[str, str]:
    """What every line of the table of terms is, in plain words, by the line's name."""
    kinds = e.terms.kinds
    sides = kinds if kinds[0] != kinds[1] else (f"left {kinds[0]}", f"right {kinds[1]}")
    lines = [name for name, _ in e.terms.labels()]
    joined = [layout.kind == "joined" for layout in (e.left_layout, e.right_layout)]
    explained = _terms_of_margin(kinds, joined) if e.quantity == "margin" else _terms_of_pair(kinds, sides)
    if e.quantity == "difference":
        explained = [f"{text} Here it is the first explanation's number less the second's." for text in explained]
    return {
        **dict(zip(lines, explained, strict=True)),
        "of it shown": "The share of parts that have a place above: words, or patches of the picture.",
        "of it shown on the two sides": "The share of parts that have a place above, and so a colour.",
        "of it in special positions": "The share of positions without a place: start and end marks of a text, the prompt "
        "before it, or a summary of the whole picture that the model carries along.",
        e.quantity: _QUANTITIES.get(e.quantity, "The number that is explained."),
        "error": f"By how much the four lines miss the {e.quantity}. It is measured for every explanation; if it is not far "
        "smaller than the lines, do not trust them.",
    }


def _terms_of_pair(kinds: tuple[str, str], sides: tuple[str, str]) -> list[str]:
    """What base, both sides alone and interaction of a similarity are."""
    blanks = [_BLANKS.get(kind, "a blank input") for kind in kinds]

    def alone(side: int) -> str:
        length = "the text's length and " if kinds[1 - side] == "text" else ""
        return (
            f"What the {sides[side]} adds against {blanks[1 - side]}, beyond the base: no content of the {sides[1 - side]} "
            f"counts here. The number may still differ from pair to pair, for {length}the lengths of the pair's vectors, by "
            "which every line is divided, differ too. A negative number: by itself it lowers the similarity."
        )

    return [
        f"Where the model starts: what it finds between {blanks[0]} and {blanks[1]}, before anything of this pair is there.",
        alone(0),
        alone(1),
        "What only the two together bring about: by how much the similarity is higher, or lower, because they meet, beyond "
        "what each adds against a blank. The colours above show which parts it comes from. It does not say whether the "
        "model is right.",
    ]


def _terms_of_margin(kinds: tuple[str, str], joined: list[bool]) -> list[str]:
    """The same for a margin, whose one side holds the two inputs that are compared, as `joined` says."""
    single, compared = (kinds[1], kinds[0]) if joined[0] else kinds
    blank = _BLANKS.get(single, "a blank input")
    of_compared = (
        f"How much better the first {compared} than the second fits {blank}: nothing in this {single} counts here."
    )
    of_single = (
        f"What this {single} adds against a blank in place of the first {compared}, less the same for the second: mostly "
        "little, for only the lengths of the two and of their vectors count here."
    )
    return [
        "Where the model starts: the margin with all inputs blank. Mostly little, for only lengths differ then.",
        *((of_compared, of_single) if joined[0] else (of_single, of_compared)),
        f"What this {single} has in common with the first {compared}, beyond what each adds against a blank, less the same "
        "for the second. The colours above show which parts it comes from. It does not say whether the model is right.",
    ]


_BLANKS = {"image": "a black picture", "text": "an empty text as long as this one", "audio": "a blank sound"}

_QUANTITIES = {
    "similarity": "How alike the model finds the two. For most models 1 is the most and 0 means nothing in common, but even "
    "good pairs stay far below 1: compare with other captions or pictures of the same model.",
    "margin": "How much better the first fits than the second: the similarity of one less that of the other.",
    "difference": "How much more the first model or method finds than the second, on the same pair.",
}
