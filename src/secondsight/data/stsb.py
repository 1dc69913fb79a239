"""STS-B: pairs of sentences with a score of their similarity (Cer et al. 2017)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from secondsight.support.errors import InputError
from secondsight.support.files import reading


@dataclass(frozen=True)
class SentencePair:
    """Two sentences and their similarity as people rated it, 0 to 1."""

    key: str
    first: str
    second: str
    score: float


def stsb(file: str | Path) -> list[SentencePair]:
    """STS-B: the original sts-test.csv (tab-separated: genre, file, year, id, score 0-5, sentences), or a .jsonl.

    JSONL has "sentence1", "sentence2" and "score" (0-5, or 0-1 if no score is above 1). Incomplete lines are left out.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{str(file)!r} does not exist")
    with reading(path, "pairs of sentences"), path.open(encoding="utf-8-sig", newline="") as stream:
        pairs = list(_json_pairs(stream) if path.suffix == ".jsonl" else _csv_pairs(stream))
    if not pairs:
        raise InputError(f"{str(file)!r} has no pairs of sentences with a score")
    outside = next((pair for pair in pairs if not 0 <= pair.score <= 5), None)
    if outside is not None:
        raise InputError(f"{str(file)!r}, pair {outside.key}: the score {outside.score} must lie in 0 … 5")
    highest = 5.0 if max(pair.score for pair in pairs) > 1 else 1.0
    return [SentencePair(pair.key, pair.first, pair.second, pair.score / highest) for pair in pairs]


def _json_pairs(lines: Iterable[str]) -> Iterator[SentencePair]:
    for number, line in enumerate(lines):
        entry = json.loads(line) if line.strip() else {}
        if {"sentence1", "sentence2", "score"} <= set(entry):
            yield SentencePair(str(number), str(entry["sentence1"]), str(entry["sentence2"]), float(entry["score"]))


def _csv_pairs(lines: Iterable[str]) -> Iterator[SentencePair]:
    for number, cells in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)):
        if len(cells) >= 7 and cells[4].replace(".", "", 1).isdigit():
            yield SentencePair(str(number), cells[5], cells[6], float(cells[4]))
