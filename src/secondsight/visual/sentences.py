"""Sentences that the page, the terminal and figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secondsight.algebra.interactions import Interactions

_CELL_NAMES = {"image": "patch", "audio": "part of the sound"}

_SMALL_SHARE = 0.005
"""Rounds to 0 %."""


def convergence_warning(e: Interactions) -> str | None:
    """The warning for an explanation that has not converged; None if it has."""
    if e.converged:
        return None
    return (
        f"This explanation has not converged: its terms miss the {e.quantity} by {e.error:.1e}. "
        "Allow more steps, or ask for a larger tolerance."
    )


def first_order_note(e: Interactions) -> str | None:
    """What a reader must know of an explanation by a first-order method; None for others."""
    if e.order != 1:
        return None
    return f"First order: one map for all words, which any selection scales. It does not add up to the {e.quantity}"


def special_shares(e: Interactions) -> list[str]:
    """How much of the interactions lies where a side has no word or patch, and in a prompt; only shares that matter."""
    modalities = e.left_layout.modality, e.right_layout.modality
    sides = modalities if modalities[0] != modalities[1] else (f"left {modalities[0]}", f"right {modalities[1]}")
    lines = []
    for side, modality, share, prompt in zip(
        sides, modalities, e.special_share(), e.special_share("prompt"), strict=True
    ):
        if share > _SMALL_SHARE:
            in_prompt = f", {prompt:.0%} in the prompt" if prompt > _SMALL_SHARE else ""
            cell = _CELL_NAMES.get(modality, "word")
            lines.append(
                f"{share:.0%} of all interaction (by size) lies in {side} positions that are not a {cell}{in_prompt}"
            )
    return lines


def cut_texts(e: Interactions) -> list[str]:
    """How many words of a text come behind the last that the model reads; of texts that it reads to the end nothing."""
    lines = []
    for part in (*e.left_layout.parts, *e.right_layout.parts):
        words = part.words
        read = max((i + 1 for i, word in enumerate(words) if word.features), default=len(words))
        if read < len(words):
            rest = len(words) - read
            lines.append(
                f"of the {len(words)} words and marks of “{words[0].text} …” the model does not read the last {rest}"
            )
    return lines


def assignment_summary(e: Interactions) -> str | None:
    """Which match of a late-interaction pair won most narrowly, and what it would flip to; None for other pairs."""
    entries = e.about.get("assignment") if e.quantity == "similarity" else None
    close = None if entries is None else closest_call(entries)
    if entries is None or close is None:
        return None
    entry = entries[close]
    return (
        f"{len(entries)} query tokens, each held to its best match; the closest call: {entry['token']!r} takes "
        f"{entry['match']!r} ({entry['similarity']:.4f}), {entry['margin']:.4f} ahead of {entry['runner_up']!r}."
    )


def closest_call(entries: Sequence[Mapping[str, Any]]) -> int | None:
    """The query token whose best match won most narrowly, as the entries of `about["assignment"]` tell; None without one."""
    contested = [i for i, entry in enumerate(entries) if entry["margin"] is not None]
    return min(contested, key=lambda i: entries[i]["margin"], default=None)


def meanings(e: Interactions) -> dict[str, str]:
    """What every line of the table of terms is, in plain words, by the line's name."""
    kinds = e.terms.kinds
    sides = kinds if kinds[0] != kinds[1] else (f"left {kinds[0]}", f"right {kinds[1]}")
    lines = [name for name, _ in e.terms.labels()]
    joined = [layout.kind == "joined" for layout in (e.left_layout, e.right_layout)]
    explained = _terms_of_margin(kinds, joined) if e.quantity == "margin" else _terms_of_pair(e, sides)
    if e.order == 1:
        explained = [*("Nothing: a map of first order has no such part.",) * 3, _MAP_SUM]
    if e.quantity == "difference":
        explained = [f"{text} Here it is the first explanation's number less the second's." for text in explained]
    return {
        **dict(zip(lines, explained, strict=True)),
        "of it shown": "The share of parts that have a place above: words, or patches of the picture.",
        "of it shown on the two sides": "The share of parts that have a place above, and so a colour.",
        "of it in special positions": "The share of positions without a place: start and end marks of a text, the prompt "
        "before it, or a summary of the whole picture that the model carries along.",
        e.quantity: _similarity(e)
        if e.quantity == "similarity"
        else _QUANTITIES.get(e.quantity, "The number that is explained."),
        "error": f"By how much the four lines miss the {e.quantity}. It is measured for every explanation; if it is not far "
        "smaller than the lines, do not trust them.",
    }


def _similarity(e: Interactions) -> str:
    """What the similarity is, and which numbers it can have; of pairs that do not tell, what holds for any."""
    what = "How alike the model finds the two"
    compare = (
        f"compare with other {'texts' if set(e.terms.kinds) == {'text'} else 'captions or pictures'} of the same model"
    )
    if e.about.get("scale") == "logit":
        return f"{what}, as its logit: the similarity times the model's scale, plus its bias. It may be any number: {compare}."
    measure = e.about.get("measure")
    if measure == "cosine":
        return (
            f"{what}: the cosine of their vectors. 1 is the most and 0 means nothing in common, but even good pairs stay "
            f"far below 1: {compare}."
        )
    if measure == "dot product":
        return f"{what}: the inner product of their vectors. It grows with their lengths and has no largest value: {compare}."
    if measure == "MaxSim":
        return (
            f"{what}: for every token of the query the inner product with its best match in the document, all added up. It "
            "grows with the length of the query: compare documents for one query."
        )
    if measure == "MeanMaxSim":
        return (
            f"{what}: for every token of the query the inner product with its best match in the document, and the mean of "
            "these: compare documents for one query."
        )
    return f"{what}. A cosine is 1 at most; an inner product, or a sum of best matches, may be any number: {compare}."


def _why_alone_differs(e: Interactions, kind: str) -> str:
    """Why a side alone may have another number in another pair, whose other side is of a kind."""
    if e.about.get("measure") in ("MaxSim", "MeanMaxSim"):
        return " The number still differs from pair to pair, as each has other best matches."
    if e.about.get("measure") == "dot product":
        differing = " The number may still differ from pair to pair, for the text's length differs too."
        return differing if kind == "text" else ""
    text = "the text's length and " if kind == "text" else ""
    return (
        f" The number may still differ from pair to pair, for {text}the lengths of the pair's vectors, by which every "
        "line is divided, differ too."
    )


def _blanks(e: Interactions) -> list[str]:
    """What stands for an input without content on either side."""
    return [
        "vectors of zero" if outcome is not None and outcome.reference == "zero" else _BLANKS.get(kind, "a blank input")
        for kind, outcome in zip(e.terms.kinds, e.outcomes, strict=True)
    ]


def _terms_of_pair(e: Interactions, sides: tuple[str, str]) -> list[str]:
    """What base, both sides alone and interaction of a similarity are."""
    kinds, blanks = e.terms.kinds, _blanks(e)

    def alone(side: int) -> str:
        return (
            f"What the {sides[side]} adds against {blanks[1 - side]}, beyond the base: no content of the {sides[1 - side]} "
            f"counts here.{_why_alone_differs(e, kinds[1 - side])} A negative number: by itself it lowers the similarity."
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


_MAP_SUM = (
    "The sum of the map, in units of the method's own. It says nothing about the similarity: compare parts of one map with "
    "each other."
)

_BLANKS = {"image": "a black picture", "text": "an empty text as long as this one", "audio": "a blank sound"}

_QUANTITIES = {
    "margin": "How much better the first fits than the second: the similarity of one less that of the other.",
    "difference": "How much more the first model or method finds than the second, on the same pair.",
}
