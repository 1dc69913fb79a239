"""Failures: phrases that are not grounded, and a proposal of the cause ([M25] §4.5, Fig. 9)."""

from __future__ import annotations

from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from secondsight.data.grounded import Box, GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.cases import Case
from secondsight.evaluation.experiments.base import Record, groups
from secondsight.evaluation.experiments.grounding import Grounding
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.setting import Setting
from secondsight.visual.charts import clusters, stacked_shares

FAILED = 0.2
"""Below this PGE a phrase counts as a failure of grounding ([M25] §4.5)."""

FAILURE_LABEL = "share of the failures (PGE < 0.2) by proposed category (their number in brackets)"
"""The axis of a chart of categories."""

LISTED = 60
"""The number of failures that the report shows."""

LIKENESS = ["around", "on_others", "on_alike", "covered", "area"]
"""The evidence by which failures are arranged in the plane."""


class Evidence(TypedDict):
    """Shares of positive attribution and facts about the box, from which a category is proposed."""

    around: float
    on_others: float
    on_alike: float
    peak_on_alike: bool
    covered: float
    at_edge: bool
    area: float
    positive: float


class Failures(Grounding):
    """Phrases with PGE below 0.2, and what probably went wrong, for a person to confirm ([M25] Fig. 9)."""

    name: ClassVar[str] = "failures"
    categories: ClassVar[tuple[str, ...]] = (
        "misidentified",
        "spill over the box",
        "covered or partly visible",
        "correlated scene",
        "unusual",
    )

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """Every case with its evidence, and a proposed category if it failed."""
        cases, _ = self.judged_cases(setting, example)
        records = []
        for case in cases:
            record = {"kind": "case", **self.score(setting, case, example)}
            evidence = self.evidence(setting, case, example)
            category = propose(evidence) if record["energy"] < FAILED else None
            records.append({**record, **evidence, "category": category})
        return records

    def evidence(self, setting: Setting, case: Case, example: GroundedCaption) -> Evidence:
        """The evidence of one case."""
        map_, layout = span_map(*setting.explain_span(example, case.phrase.span))
        target = next((r for r in example.regions if r.label == case.phrase.label), None)
        different = [r for r in example.regions if r.label != case.phrase.label]
        group = target.group if target is not None else ""
        similar_boxes = [r.box for r in different if group and r.group == group]
        different_boxes = [r.box for r in different]

        def share(boxes: list[Box]) -> float:
            return measures.energy(map_, boxes, layout.image_size, layout.frame, self.rule) if boxes else 0.0

        def has_peak(box: Box) -> bool:
            return measures.pointing(map_, [box], layout.image_size, layout.frame, self.rule) > 0

        covered = max((measures.overlap(case.box, box) for box in different_boxes), default=0.0)
        return {
            "around": share([_enlarged(case.box)]) - share([case.box]),
            "on_others": share(different_boxes),
            "on_alike": share(similar_boxes),
            "peak_on_alike": any(has_peak(box) for box in similar_boxes),
            "covered": covered if target is None else max(covered, 1 - target.visible),
            "at_edge": _at_edge(case.phrase.boxes[0], layout.image_size),
            "area": case.share,
            "positive": float(np.clip(map_, 0, None).sum()),
        }

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Counts by category, and every failure with its evidence."""
        rows = []
        for setting, group in groups(frame, "setting"):
            failed = group[group.energy < FAILED]
            row: dict[str, Any] = {"setting": setting, "cases": len(group), "failures": len(failed)}
            rows.append(row | {kind: int((failed.category == kind).sum()) for kind in self.categories})
        failed = frame[frame.energy < FAILED]
        evidence = ["around", "on_others", "on_alike", "covered", "at_edge", "area", "attribution"]
        failures = failed[["setting", "key", "label", "words", "energy", "category", *evidence]]
        return {"categories": pd.DataFrame(rows), "failures": failures.reset_index(drop=True)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Shares of the categories, and failures with similar evidence near each other."""
        failed = frame[frame.energy < FAILED]
        if not len(failed):
            return {}
        counts = self.tables(frame)["categories"].set_index("setting")[list(self.categories)]
        figures = {"categories": stacked_shares(counts, FAILURE_LABEL)}
        evidence = failed[LIKENESS].to_numpy(float)
        if len(evidence) > 2:
            names = failed.words.tolist()
            figures["clusters"] = clusters(evidence, failed.category.tolist(), names, self.categories)
        return figures

    def gallery(self, frame: pd.DataFrame) -> list[Record]:
        """The clearest failures, whose categories a person can correct in the report."""
        failed = frame[frame.energy < FAILED].sort_values(["setting", "energy", "key"])
        return [row.to_dict() for _, row in failed.head(LISTED).iterrows()]


def propose(evidence: Evidence) -> str:
    """The category that the evidence suggests, by these rules in this order.

    Misidentified: the peak or a third of the attribution lies on another class of the same supercategory. Spill: over
    0.4 lies within half a box around it. Covered: another box covers 0.4 of the object, or it is cut by the image's edge
    and small. Correlated scene: there is positive attribution, and it lies elsewhere. Unusual: there is hardly any.
    """
    if evidence["peak_on_alike"] or evidence["on_alike"] > 1 / 3:
        return "misidentified"
    if evidence["around"] > 0.4:
        return "spill over the box"
    if evidence["covered"] > 0.4 or (evidence["at_edge"] and evidence["area"] < 0.1):
        return "covered or partly visible"
    return "correlated scene" if evidence["positive"] > 0.01 else "unusual"


def _enlarged(box: Box) -> Box:
    """The box with half its size added on every side."""
    x0, y0, x1, y1 = box
    dx, dy = 0.5 * (x1 - x0), 0.5 * (y1 - y0)
    return x0 - dx, y0 - dy, x1 + dx, y1 + dy


def _at_edge(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box reaches the image's edge, up to a hundredth of its size."""
    margin = 0.01 * max(size)
    x0, y0, x1, y1 = box
    return x0 <= margin or y0 <= margin or x1 >= size[0] - margin or y1 >= size[1] - margin
