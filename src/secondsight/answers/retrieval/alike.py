"""Where the winner is as right as the right entry, or nearly: by the captions, and by the annotated objects."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import log

from secondsight.answers.collection import Collection
from secondsight.answers.retrieval.misses import COMMON, MOST
from secondsight.answers.retrieval.ranks import Direction, Ranks
from secondsight.scale.search import Searchable


@dataclass(frozen=True)
class Annotations:
    """The classes of objects that every photograph shows, and those that every caption names."""

    shown: dict[str, set[str]] = field(default_factory=dict)
    named: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, collection: Collection) -> Annotations:
        """Those of a collection's data; empty where the data is not at hand."""
        annotations = cls()
        for number, (image, text) in enumerate(collection.pairs if collection.data is not None else ()):
            example = collection.example(number)
            labels = {phrase.label for phrase in example.phrases}
            annotations.named.setdefault(text, set()).update(labels)
            annotations.shown.setdefault(image, set()).update({region.label for region in example.regions} | labels)
        return annotations

    def same_objects(self, text: str, image: str) -> bool:
        """Whether the photograph shows every object that the caption names, as at most a tenth of the photographs do."""
        labels = self.named.get(text, set())
        if not labels or not labels <= self.shown.get(image, set()):
            return False
        return sum(labels <= objects for objects in self.shown.values()) <= COMMON * len(self.shown)


class Likeness:
    """Says of a miss whether captions or annotations make the winner as right as the right entry."""

    def __init__(self, collection: Collection) -> None:
        self.annotations = Annotations.of(collection)
        self._captions: dict[str, list[str]] = {}
        self._images_with: dict[str, set[str]] = {}
        for image, text in collection.pairs:
            self._captions.setdefault(image, []).append(text)
            for stem in _stems(collection.texts[text].layout.text or ""):
                self._images_with.setdefault(stem, set()).add(image)

    def __call__(self, direction: Direction, number: int, ranks: Ranks) -> str | None:
        """ "same input", "word order", "same objects", "same words", or None."""
        query, winner = direction.query_keys[number], direction.entry_keys[int(ranks.winner[number])]
        right = [direction.entry_keys[row] for row in direction.relevant[number]]
        if direction.name == "text→image":
            text, image = query, winner
            rivals = _texts(direction.queries, [query]), _texts(direction.queries, self._captions[winner])
        else:
            text, image = winner, query
            rivals = _texts(direction.entries, [winner]), _texts(direction.entries, right)
        (first,), captions = rivals
        if not first:
            return None
        if first.casefold() in (other.casefold() for other in captions):
            return "same input"
        if _words(first) in (_words(other) for other in captions):
            return "word order"
        if self.annotations.same_objects(text, image):
            return "same objects"
        return "same words" if "image" in direction.name and self._same_words(first, image) else None

    def _same_words(self, text: str, image: str) -> bool:
        """Whether an image's captions have half of a text's words, each counted by its rarity, as at most a tenth have."""
        overlap: Counter[str] = Counter()
        whole = 0.0
        for stem in _stems(text):
            images = self._images_with.get(stem, set())
            rarity = log(len(self._captions) / max(len(images), 1))
            whole += rarity
            for with_stem in images:
                overlap[with_stem] += rarity  # type: ignore[assignment]  # counters add any number
        if not 0 < MOST * whole <= overlap[image]:
            return False
        return sum(value >= overlap[image] for value in overlap.values()) <= COMMON * len(self._captions)


def _texts(store: Searchable, keys: Iterable[str]) -> list[str]:
    return [store[key].layout.text or "" for key in keys]


def _stems(text: str) -> set[str]:
    """The words of a text, without the s of a plural."""
    return {word[:-1] if len(word) > 3 and word.endswith("s") else word for word in _words(text)}


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.casefold()))
