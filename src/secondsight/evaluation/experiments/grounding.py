"""What the experiments on single phrases share."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.cases import Case, find_cases
from secondsight.evaluation.experiments.base import Experiment, Record
from secondsight.evaluation.maps import image_layout, span_map
from secondsight.evaluation.setting import Setting
from secondsight.support.errors import InputError


class Grounding(Experiment):
    """An experiment on phrases whose object has one box."""

    needs: ClassVar[str] = "a phrase with one box whose object is the only one of its class"

    def wants(self, example: GroundedCaption) -> bool:
        """Captions with a phrase that has one box and is the only object of its class."""
        counts = Counter(region.label for region in example.regions)
        return any(len(phrase.boxes) == 1 and counts[phrase.label] < 2 for phrase in example.phrases)

    def judged_cases(self, setting: Setting, example: GroundedCaption) -> tuple[list[Case], Counter[str]]:
        """The caption's cases, and how many phrases were skipped for which reason."""
        e = setting.explain(example)[0]
        cases, skipped = find_cases(example, image_layout(e.left_layout))
        uncut = []
        for case in cases:
            try:
                e.right_layout.select(case.phrase.span)
            except InputError:
                skipped["cut from the caption"] += 1
            else:
                uncut.append(case)
        return uncut, skipped

    def score(self, setting: Setting, case: Case, example: GroundedCaption) -> Record:
        """PGA, PGE and chance of one phrase."""
        e, selection = setting.explain_span(example, case.phrase.span)
        map_, layout = span_map(e, selection)
        arguments = (map_, [case.box], layout.image_size, layout.frame, self.rule)
        return {
            "label": case.phrase.label,
            "words": example.words(case.phrase),
            "span": list(case.phrase.span),
            "box": list(case.box),
            "hit": measures.pointing(*arguments),
            "energy": measures.energy(*arguments),
            "chance": case.share,
            "attribution": float(map_.sum()),
            "similarity": e.similarity,
            "error": e.error,
        }
