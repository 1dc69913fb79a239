"""Hard negatives for any grounded data set: an object's name replaced by a plausible one, as in HNC's templates."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from secondsight.data.grounded import GroundedCaption, Negative, Phrase
from secondsight.data.phrases import plurals

_VOWEL = re.compile(r"[aeiou]", re.IGNORECASE)
_IRREGULAR_PLURALS = {"person": "people", "mouse": "mice", "sheep": "sheep", "knife": "knives", "skis": "skis"}
_PUNCTUATION = ".,;!?"

Span = tuple[int, int]


def hard_negatives(captions: Iterable[GroundedCaption], seed: int = 0) -> Iterator[GroundedCaption]:
    """The captions with one more negative for each phrase whose class can be replaced by a plausible one.

    Plausible classes have the same supercategory and are neither annotated in the image nor named in the caption; they
    come from the data set itself, which is read once. A singular name replaces a singular one, and "a" or "an" is adapted.
    The choice depends only on `seed`, the caption's key and the phrase.
    """
    examples = list(captions)
    groups: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        for region in example.regions:
            groups[region.group].add(region.label)
    for example in examples:
        group_of = {region.label: region.group for region in example.regions}
        present = set(group_of) | {phrase.label for phrase in example.phrases}
        negatives = []
        for number, phrase in enumerate(example.phrases):
            plausible = sorted(groups.get(group_of.get(phrase.label, ""), set()) - present)
            if plausible and group_of.get(phrase.label):
                label = random.Random(f"{seed}/{example.key}/{number}").choice(plausible)
                negatives.append(_replace(example, phrase, label))
        yield replace(example, negatives=(*example.negatives, *negatives))


def _replace(example: GroundedCaption, phrase: Phrase, label: str) -> Negative:
    """The caption with a phrase's words replaced by a class name, in their number and letter case."""
    start, end = phrase.span
    text, words = example.caption, example.words(phrase)
    plural = words.lower().endswith("s") and not phrase.label.endswith("s")
    name = _plural(label) if plural else label
    if words.isupper():
        name = name.upper()
    elif words[:1].isupper():
        name = name[:1].upper() + name[1:]
    before = text[:start]
    article = re.search(r"\b([Aa])(n?)\s+$", before)
    if article:
        fitting = article.group(1) + ("n" if _VOWEL.match(name) else "")
        before = before[: article.start()] + fitting + before[article.end(2) :]
    span = (len(before), len(before) + len(name))
    return Negative(before + name + text[end:], span, phrase.span, "replace_object")


def _plural(label: str) -> str:
    regular = label if label.endswith("s") and label != "bus" else plurals(label)[0]
    return _IRREGULAR_PLURALS.get(label, regular)


def changed_words(right: str, wrong: str) -> tuple[Span | None, Span | None]:
    """Character spans of the words that differ, in either text; None for a text that only lacks words."""
    spans = [[match.span() for match in re.finditer(r"\S+", text)] for text in (right, wrong)]
    words = [
        [text[start:end].lower().strip(_PUNCTUATION) for start, end in word_spans]
        for text, word_spans in zip((right, wrong), spans, strict=True)
    ]
    shorter = min(len(words[0]), len(words[1]))
    head = next((i for i in range(shorter) if words[0][i] != words[1][i]), shorter)
    tail = next((i for i in range(shorter - head) if words[0][-1 - i] != words[1][-1 - i]), shorter - head)
    before, after = (
        _joined_span(text, word_spans[head : len(word_spans) - tail])
        for text, word_spans in zip((right, wrong), spans, strict=True)
    )
    return before, after


def _joined_span(text: str, words: list[Span]) -> Span | None:
    """From the first word to the last without its punctuation; None if there are no words."""
    if not words:
        return None
    start, end = words[0][0], words[-1][1]
    while end - 1 > start and text[end - 1] in _PUNCTUATION:
        end -= 1
    return start, end
