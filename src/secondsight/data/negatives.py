"""Hard negatives for any grounded data set: one object's name replaced by a plausible other's, as in HNC's templates."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from secondsight.data.grounded import GroundedCaption, Negative, Phrase

_VOWEL = re.compile(r"[aeiou]", re.IGNORECASE)


def hard_negatives(captions: Iterable[GroundedCaption], seed: int = 0) -> Iterator[GroundedCaption]:
    """The captions with one more negative for each phrase whose class has a plausible other.

    Plausible is a class of the same supercategory that is not annotated in the image nor named in the caption; the data
    set itself, read once, says which there are. A singular name replaces a singular one, "a" and "an" follow. The choice
    depends on `seed`, the caption's key and the phrase alone.
    """
    listed = list(captions)
    groups: dict[str, set[str]] = defaultdict(set)
    for one in listed:
        for region in one.regions:
            groups[region.group].add(region.label)
    for one in listed:
        group_of = {region.label: region.group for region in one.regions}
        present = set(group_of) | {phrase.label for phrase in one.phrases}
        made = []
        for number, phrase in enumerate(one.phrases):
            others = sorted(groups.get(group_of.get(phrase.label, ""), set()) - present)
            if others and group_of.get(phrase.label):
                chosen = random.Random(f"{seed}/{one.key}/{number}").choice(others)
                made.append(_replaced(one, phrase, chosen))
        yield replace(one, negatives=(*one.negatives, *made))


def _replaced(one: GroundedCaption, phrase: Phrase, label: str) -> Negative:
    start, end = phrase.span
    text, words = one.caption, one.words(phrase)
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
    from secondsight.data.coco import plurals

    irregular = {"person": "people", "mouse": "mice", "sheep": "sheep", "knife": "knives", "skis": "skis"}
    return irregular.get(label, label if label.endswith("s") and label != "bus" else plurals(label)[0])
