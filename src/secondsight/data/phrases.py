"""Class names in captions: COCO's synonyms, and a finder of their words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

Synonyms = Mapping[str, list[str]]

NO_CLASS = ""
"""The label of words that contain a class name but mean something else, such as "train station"."""


@lru_cache(maxsize=1)
def coco_synonyms() -> dict[str, list[str]]:
    """Words for each of COCO's 80 classes, singular and irregular plural forms; "word!" has no regular plural.

    The 81st entry, "", lists words that are of no class, such as "train station".
    """
    synonyms: dict[str, list[str]] = json.loads(
        files("secondsight.data").joinpath("coco_synonyms.json").read_text(encoding="utf-8")
    )
    return synonyms


class PhraseFinder:
    """Finds class names in captions: longest first, whole words, plurals included, no case, no overlap."""

    def __init__(self, synonyms: Synonyms) -> None:
        self.labels: dict[str, str] = {}
        for label, words in synonyms.items():
            for word in words:
                for form in [word[:-1]] if word.endswith("!") else [word, *plurals(word)]:
                    self.labels.setdefault(form.lower(), label)
        longest_first = sorted(self.labels, key=lambda form: (-len(form), form))
        spelled = "|".join(r"[\s-]+".join(re.escape(part) for part in form.split()) for form in longest_first)
        self.pattern = re.compile(rf"(?<![\w-])(?:{spelled})(?![\w-])", re.IGNORECASE) if longest_first else None

    def find(self, caption: str) -> list[tuple[tuple[int, int], str]]:
        """(span, label) in the order of the caption."""
        if self.pattern is None:
            return []
        phrases = []
        for match in self.pattern.finditer(caption):
            form = " ".join(re.split(r"[\s-]+", match.group().lower()))
            label = self.labels.get(form) or self.labels.get(match.group().lower())
            if label is not None and label != NO_CLASS:
                phrases.append((match.span(), label))
        return phrases


def plurals(word: str) -> list[str]:
    """Regular plurals of the last word."""
    if re.search(r"(s|x|z|ch|sh)$", word):
        return [word + "es"]
    if re.search(r"[^aeiou]y$", word):
        return [word[:-1] + "ies"]
    if word.endswith("fe"):
        return [word[:-2] + "ves"]
    if word.endswith("o"):
        return [word + "s", word + "es"]
    return [word + "s"]
