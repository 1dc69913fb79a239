"""Tables beside an explanation: the best matches of late interaction, the words that a sparse similarity is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any, NamedTuple

from secondsight.visual.sentences import closest_call

if TYPE_CHECKING:
    from secondsight.algebra.interactions import Interactions

_NAME = 60
"""Characters of a text that a title names."""


class Details(NamedTuple):
    """A table of texts; `short` has one entry a row, for places without room, `marked` is the row that stands out."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    short: list[str]
    marked: int | None = None


def details(e: Interactions) -> list[Details]:
    """All tables of a pair; of a margin those of both its pairs."""
    return [*matches(e), *axes(e)]


def matches(e: Interactions) -> list[Details]:
    """What every query token of a late-interaction pair matched, and by how much that match won; nothing for others."""
    return [_matches(of, entries) for of, entries in _by_pair(e, "assignment") if entries]


def axes(e: Interactions) -> list[Details]:
    """The words of the vocabulary that make up a sparse model's similarity; nothing for other models."""
    return [_axes(of, entries) for of, entries in _by_pair(e, "axes") if entries]


def _by_pair(e: Interactions, name: str) -> list[tuple[str, Sequence[Any]]]:
    """A fact's entries of a pair, or of both pairs of a margin, each with what its title begins with."""
    fact = e.about.get(name)
    if e.quantity == "similarity":
        return [("", fact or [])]
    if e.quantity != "margin" or not fact or len(fact) != 2:
        return []
    joined = next((layout for layout in (e.right_layout, e.left_layout) if layout.kind == "joined"), e.right_layout)
    texts = [part.text or "" for part in joined.parts]
    if not all(texts) or len(texts) != 2:
        texts = ["first", "second"]
    names = [f"“{shorten(text, _NAME, placeholder='…')}”: " for text in texts]
    return [(name, part or []) for name, part in zip(names, fact, strict=True)]


def _matches(of: str, entries: Sequence[Mapping[str, Any]]) -> Details:
    close = closest_call(entries)
    title = f"{of}what each of {len(entries)} query tokens matched"
    if close is not None:
        token, match, rival = (entries[close][name] for name in ("token", "match", "runner_up"))
        title += f"; the closest call: “{token}” takes “{match}”, {entries[close]['margin']:.4f} ahead of “{rival}”"
    rows = [
        (
            entry["token"],
            entry["match"],
            f"{entry['similarity']:.4f}",
            "" if entry["margin"] is None else f"{entry['margin']:.4f}",
            entry["runner_up"] or "",
        )
        for entry in entries
    ]
    short = [f"{entry['token']} → {entry['match']} {entry['similarity']:.2f}" for entry in entries]
    return Details(
        title, ("query token", "best match", "similarity", "ahead by", "of the runner-up"), rows, short, close
    )


def _axes(of: str, entries: Sequence[Sequence[Any]]) -> Details:
    title = f"{of}the similarity by words of the vocabulary, the {len(entries)} largest parts"
    rows = [(word, f"{value:+.4f}") for word, value in entries]
    return Details(title, ("word", "part"), rows, [f"{word} {value:+.2f}" for word, value in entries])
