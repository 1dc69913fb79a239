"""Passages of a text: its sentences and lines, in whose surroundings the values of words are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.layout import Layout, word_scores

LONG = 80
"""Words up to which a text is shown as a line of large words; a longer one is shown as paragraphs."""

_LONGEST = 60
"""Words of a passage; a longer sentence is divided into equal pieces."""

_ABBREVIATION = re.compile(r"(?:^|\W)(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|Fig|Eq|al|e\.g|i\.e)\.$")
_NEXT = re.compile(r"\s*(\S)")
_END = re.compile(r"""\n\s*\n|\n|[。！？]+[」』）]*|[.!?…]+['"”’»)\]]*(?=\s)""")


class Passage(NamedTuple):
    """A stretch of a text: words from `first` to before `end`, and their characters."""

    first: int
    end: int
    text: str

    def value(self, scores: Sequence[float]) -> float:
        """The sum of its words' scores."""
        return sum(scores[self.first : self.end])


def is_long(layout: Layout) -> bool:
    """Whether a side is a text of so many words that it is shown as paragraphs."""
    return len(layout.parts) == 1 and len(layout.words) > LONG


def passages(layout: Layout) -> list[Passage]:
    """The sentences and lines of a text in reading order; every word is in one of them.

    Sentences end at marks such as full stops, lines at the text's own line breaks, both only before what begins with no small
    letter, as lines of wrapped paragraphs do; an empty line always ends a passage. Without a text, whose tokens are its
    words, passages are of equal length.
    """
    words = layout.words
    if not words:
        return []
    text = layout.text
    boundaries = [] if text is None else list(_boundaries(text))
    starts = [0]
    for index, word in enumerate(words):
        passed = False
        while boundaries and boundaries[0] <= word.start:
            boundaries.pop(0)
            passed = True
        if passed and index:
            starts.append(index)
    result = []
    for first, end in zip(starts, [*starts[1:], len(words)], strict=True):
        pieces = -(-(end - first) // _LONGEST)
        cuts = [first + round(i * (end - first) / pieces) for i in range(pieces + 1)]
        for a, b in pairwise(cuts):
            inside = " ".join(w.text for w in words[a:b]) if text is None else text[words[a].start : words[b - 1].end]
            result.append(Passage(a, b, inside))
    return result


def _boundaries(text: str) -> Iterator[int]:
    """Where a new sentence or line may begin."""
    for match in _END.finditer(text):
        following = _NEXT.match(text, match.end())
        goes_on = following is not None and following[1].islower() and match.group().count("\n") < 2
        if not goes_on and not _ABBREVIATION.search(text[max(0, match.end() - 8) : match.end()]):
            yield match.end()


def brief(words: Sequence[str]) -> str:
    """Words for a title: of many the first and the last."""
    return " ".join(words if len(words) < 13 else [*words[:5], "…", *words[-4:]])


def strongest_passages(layout: Layout, values: Float[Tensor, " feature"], count: int) -> list[tuple[Passage, float]]:
    """The passages that add most to the sum of the values, strongest first; those that take most away if it is negative."""
    scores = [value for _, value in word_scores(layout, values)]
    sign = -1 if sum(scores) < 0 else 1
    valued = [(passage, passage.value(scores)) for passage in passages(layout)]
    return sorted(valued, key=lambda entry: -sign * entry[1])[:count]
