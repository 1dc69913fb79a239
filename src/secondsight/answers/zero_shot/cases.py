"""Images of a zero-shot classifier as cases: the picture under its margin's map, the prompts' words, the parts in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout
from secondsight.answers.pictures import Pieces, coloured_words
from secondsight.answers.report import MOST_CASES, Case
from secondsight.answers.zero_shot.classes import Classifier, exact
from secondsight.answers.zero_shot.margins import BY_WORD, cell_values
from secondsight.data.labelled import LabelledData
from secondsight.inputs.images import open_image
from secondsight.scale.lead import Part, largest, listed
from secondsight.scale.store import Store

Record = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Cases:
    """Makes cases of records; reads the photographs of those that are shown."""

    data: LabelledData
    images: Store
    classifier: Classifier

    def of(self, records: Sequence[Record]) -> list[Case]:
        """The first records as cases, as many as a report shows."""
        return [self._case(record) for record in records[:MOST_CASES]]

    def _case(self, record: Record) -> Case:
        winner, loser = _sides(record)
        image = exact(self.images[record["key"]])
        pair = image @ (self.classifier[winner] - self.classifier[loser])
        labelled = self.data[self.data.keys.index(record["key"])]
        heat = image.layout.heatmap(cell_values(pair)).numpy() if isinstance(image.layout, GridLayout) else None
        single = len(pair.right_layout.parts) == 2
        words = _words(pair) if single else _summed_words(record, winner, loser)
        return Case(open_image(labelled.image), heat, labelled.boxes, words, why(record))


def why(record: Record) -> str:
    """ "cup taken for bowl by 0.0210: the caption alone +0.0130, …" with the parts of the winner's lead, largest first."""
    winner, loser = _sides(record)
    sign = 1 if record["correct"] else -1
    relation = f"{winner}, before {loser}" if record["correct"] else f"{loser} taken for {winner}"
    parts = {name: sign * record[name] for name in BY_WORD}
    return f"{relation} by {abs(record['margin']):.4f}: {named_parts(parts, winner, loser, bool(record['correct']))}"


def named_parts(parts: Mapping[str, float], winner: str, loser: str, correct: bool) -> str:
    """The largest parts of a lead in words, signed."""
    right, other = (winner, loser) if correct else (loser, winner)
    names = {
        "caption alone": "the captions alone",
        "image alone": "the picture alone",
        "template words": "the template's words",
        "right class's words": f"“{right}”",
        "other class's words": f"“{other}”",
        "special positions": "special positions",
        "not attributed": "not attributed",
    }
    return listed(largest([Part(names[name], float(parts[name])) for name in BY_WORD], 4))


def _sides(record: Record) -> tuple[str, str]:
    """The class that won and the one that lost."""
    pair = record["label"], record["other class"]
    return pair if record["correct"] else pair[::-1]


def _words(pair: Interactions) -> Pieces:
    """Both prompts with what each word adds to the lead of the first."""
    layout = pair.right_layout
    values = layout.split(pair.matrix.sum(0))
    winner, loser = (coloured_words(prompt, of_prompt) for prompt, of_prompt in zip(layout.parts, values, strict=True))
    return [*winner, ("  rather than  ", None), *loser]


def _summed_words(record: Record, winner: str, loser: str) -> Pieces:
    """The classes' names with what their words add in all prompts, where a class has several."""
    sign = 1 if record["correct"] else -1
    names = BY_WORD[3:5] if record["correct"] else BY_WORD[4:2:-1]
    scores = [sign * record[name] for name in names]
    template = sign * record["template words"]
    return [(winner, scores[0]), ("  rather than  ", None), (loser, scores[1]), ("  ", None), ("templates", template)]
