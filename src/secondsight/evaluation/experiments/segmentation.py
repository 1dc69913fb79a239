"""Segmentation: whether a phrase's map covers its object's pixels, beside pointing at its box."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.cases import Case
from secondsight.evaluation.experiments.base import Record, groups, of_kind
from secondsight.evaluation.experiments.grounding import Grounding
from secondsight.evaluation.experiments.pointing import quartile_cases, stochastic_orders
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.setting import Setting
from secondsight.evaluation.statistics import bootstrap_interval
from secondsight.visual.charts import distributions

MEASURES = {
    "average_precision": "AP",
    "mean_iou": "mIoU",
    "iou": "IoU of the object",
    "pixel_accuracy": "pixel accuracy",
    "mask_hit": "PGA in the mask",
    "mask_energy": "PGE in the mask",
    "hit": "PGA in the box",
    "energy": "PGE in the box",
}
"""The records' columns whose means the table shows, and what it calls them."""


class Segmentation(Grounding):
    """Does a phrase's map cover its object? Mean IoU, average precision and pixel accuracy of masks, beside the box's measures.

    The cases are those of pointing whose object has a mask. A map is upsampled bilinearly to the image, and pixels count that
    the model sees and that are annotated. For IoU and pixel accuracy the map's positive part is scaled to 0 … 1 and cut at 0.5.
    """

    name: ClassVar[str] = "segmentation"
    needs: ClassVar[str] = "a phrase with one box whose object has a mask and is the only one of its class"
    contours: ClassVar[bool] = True

    def wants(self, example: GroundedCaption) -> bool:
        """Captions of pointing with a phrase whose only object has a mask."""
        counts = Counter(region.label for region in example.regions)
        masked = {region.label for region in example.regions if region.mask is not None and counts[region.label] == 1}
        return super().wants(example) and any(phrase.label in masked for phrase in example.phrases)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each case, and one for each reason for skipping phrases."""
        cases, skipped = self.judged_cases(setting, example)
        records: list[Record] = []
        for case in cases:
            scores = self.mask_scores(setting, case, example)
            if isinstance(scores, str):
                skipped[scores] += 1
            else:
                records.append({"kind": "case", **self.score(setting, case, example), **scores})
        return records + [{"kind": "skipped", "reason": r, "count": count} for r, count in sorted(skipped.items())]

    def mask_scores(self, setting: Setting, case: Case, example: GroundedCaption) -> Record | str:
        """The measures of one phrase's mask, or why there are none."""
        if case.mask is None:
            return "without a mask"
        mask = case.mask.array()
        map_, layout = span_map(*setting.explain_span(example, case.phrase.span))
        if mask.shape != layout.image_size[::-1]:
            return "mask of another size than its image"
        values, within = measures.pixels_of(map_, mask, case.mask.valid(), layout.frame)
        if within.all() or not within.any():
            return "mask of nothing or everything that the model sees"
        # What lowers the similarity is not the object's; methods of the published protocol give nothing negative.
        positive = np.clip(values, 0, None)
        half, mean = (measures.agreement(positive, within, threshold) for threshold in (0.5, "mean"))
        return {
            "average_precision": measures.average_precision(values, within),
            "average_precision_of_both": measures.average_precision(positive, within, both_classes=True),
            "mean_iou": half.mean_iou,
            "iou": half.iou,
            "pixel_accuracy": half.pixel_accuracy,
            "mask_hit": measures.share_of_highest(values, within),
            "mask_energy": measures.share_of_positive(values, within),
            "mask_chance": float(within.mean()),
            "at_half": list(half),
            "at_mean": list(mean),
        }

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Means with intervals, the published protocol's sums, skipped phrases, and every pair of settings compared."""
        cases = of_kind(frame, "case")
        tables = {"overall": self.means(cases), "summed over pixels": sums(cases), "classes": by_class(cases)}
        skipped = of_kind(frame, "skipped")
        if len(skipped):
            tables["left out"] = groups(skipped, ["setting", "reason"])["count"].sum().astype(int).reset_index()
        for measure in ("average_precision", "mean_iou"):
            orders = stochastic_orders(cases, measure, MEASURES[measure], self.seed)
            if len(orders):
                tables[f"almost stochastic order by {MEASURES[measure]}"] = orders
        return tables

    def means(self, cases: pd.DataFrame) -> pd.DataFrame:
        """Means of every setting; 95 % intervals from drawing images anew."""
        rows = []
        for setting, group in groups(cases, "setting"):
            images = group.key.str.rpartition("/")[0]
            row: dict[str, object] = {"cases": len(group)}
            for column, name in MEASURES.items():
                row[name] = group[column].mean()
                if not column.endswith("hit"):
                    low, high = bootstrap_interval(group[column], images, seed=self.seed)
                    row[f"{name}, 95 %"] = f"{low:.3f} … {high:.3f}"
            row["chance of the mask"], row["chance of the box"] = group.mask_chance.mean(), group.chance.mean()
            rows.append(pd.Series(row).rename(setting))
        return pd.DataFrame(rows).astype({"cases": int})

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Cumulative distributions of the measures that need no threshold, and of mean IoU."""
        cases = of_kind(frame, "case")
        labels = {
            "average_precision": "average precision of the object's pixels",
            "mean_iou": "mean IoU of object and background, map cut at 0.5",
            "mask_energy": "PGE: positive attribution in the mask",
        }
        return {
            column.replace("_", " "): distributions(
                {setting: group[column].to_numpy() for setting, group in groups(cases, "setting")}, label
            )
            for column, label in labels.items()
        }

    def gallery(self, frame: pd.DataFrame) -> list[Record]:
        """The best, the quartiles and the worst of each setting by average precision."""
        records = quartile_cases(of_kind(frame, "case"), "average_precision")
        shown = {
            "average_precision": "AP",
            "mean_iou": "mIoU",
            "mask_energy": "PGE in the mask",
            "energy": "in the box",
        }
        return [{**r, "facts": ", ".join(f"{name} {r[column]:.2f}" for column, name in shown.items())} for r in records]


def sums(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean IoU and pixel accuracy of all cases' pixels together, cut at 0.5 and at the map's mean, and mean AP of both classes.

    Cut at the mean, these are the three measures of Chefer et al. (2021), whose published code does so.
    """
    rows = []
    for setting, group in groups(cases, "setting"):
        row: dict[str, object] = {"setting": setting, "cases": len(group)}
        for threshold, column in (("0.5", "at_half"), ("the mean", "at_mean")):
            together = measures.Agreement(*(int(v) for v in np.sum(group[column].tolist(), axis=0)))
            row[f"mIoU at {threshold}"] = together.mean_iou
            row[f"pixel accuracy at {threshold}"] = together.pixel_accuracy
        rows.append({**row, "mAP of both classes": group.average_precision_of_both.mean()})
    return pd.DataFrame(rows)


def by_class(cases: pd.DataFrame) -> pd.DataFrame:
    """Means by setting and class."""
    table = groups(cases, ["setting", "label"])[list(MEASURES)].mean().rename(columns=MEASURES).reset_index()
    counts = groups(cases, ["setting", "label"]).size().to_numpy()
    table.insert(2, "cases", counts)
    return table.rename(columns={"label": "class"})
