"""STS-B: pairs of sentences with a score of their similarity (Cer et al. 2017)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from secondsight.data.grounded import GroundedCaption, ListedDataset
from secondsight.support.errors import InputError
from secondsight.support.files import reading


@dataclass(frozen=True)
class SentencePair(GroundedCaption):
    """Two sentences, the second of which is the caption, and their similarity as people rated it, 0 to 1.

    There is no image: the model's left side reads the first sentence.
    """

    first: str = ""
    score: float = 0.0

    @property
    def second(self) -> str:
        """The second sentence."""
        return self.caption

    @property
    def left(self) -> str:
        """The first sentence."""
        return self.first


class SentencePairs(ListedDataset):
    """Pairs of sentences for experiments that compare texts with texts."""

    def read(self, index: int) -> SentencePair:
        """The pair."""
        pair: SentencePair = self.entries[index]
        return pair

    def summary(self) -> str:
        """The number of pairs."""
        return f"{self.name}: {len(self)} pairs of sentences"


def open_sentence_pairs(spec: str | Path) -> SentencePairs:
    """The pairs of `stsb:FILE`, or of a path; see `stsb`."""
    kind, colon, path = str(spec).partition(":")
    if colon and kind != "stsb" and not Path(spec).exists():
        raise InputError(f"{str(spec)!r} is not a file of scored pairs of sentences: give stsb:FILE")
    file = Path(path if colon and kind == "stsb" else spec)
    return SentencePairs(file.stem, stsb(file))


def stsb(file: str | Path) -> list[SentencePair]:
    """STS-B: the original sts-test.csv (tab-separated: genre, file, year, id, score 0-5, sentences), or a .jsonl.

    GLUE's train.tsv and dev.tsv, whose header names the columns, are read too. JSONL has "sentence1", "sentence2" and "score"
    (0-5, or 0-1 if no score is above 1). Incomplete lines are left out.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{str(file)!r} does not exist")
    with reading(path, "pairs of sentences"), path.open(encoding="utf-8-sig", newline="") as stream:
        pairs = list(_json_pairs(stream) if path.suffix == ".jsonl" else _csv_pairs(stream))
    if not pairs:
        raise InputError(
            f"{str(file)!r} has no pairs of sentences with a score: give STS-B's CSV, GLUE's TSV, or JSONL with "
            "sentence1, sentence2 and score"
        )
    outside = next((pair for pair in pairs if not 0 <= pair.score <= 5), None)
    if outside is not None:
        raise InputError(f"{str(file)!r}, pair {outside.key}: the score {outside.score} must lie in 0 … 5")
    highest = 5.0 if max(pair.score for pair in pairs) > 1 else 1.0
    return [replace(pair, score=pair.score / highest) for pair in pairs]


def _pair(number: int, first: str, second: str, score: float) -> SentencePair:
    return SentencePair(str(number), str(number), Path(), second, first=first, score=score)


def _json_pairs(lines: Iterable[str]) -> Iterator[SentencePair]:
    for number, line in enumerate(lines):
        entry = json.loads(line) if line.strip() else {}
        if {"sentence1", "sentence2", "score"} <= set(entry):
            yield _pair(number, str(entry["sentence1"]), str(entry["sentence2"]), float(entry["score"]))


def _csv_pairs(lines: Iterable[str]) -> Iterator[SentencePair]:
    score, first, second = 4, 5, 6
    for number, cells in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)):
        if not number and {"sentence1", "sentence2", "score"} <= set(cells):
            score, first, second = (cells.index(name) for name in ("score", "sentence1", "sentence2"))
        elif len(cells) > max(score, first, second) and cells[score].replace(".", "", 1).isdigit():
            yield _pair(number, cells[first], cells[second], float(cells[score]))
