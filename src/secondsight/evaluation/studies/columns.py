"""What a comparison of explanations measures: one line for each column of its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from secondsight.evaluation.experiments.base import of_kind
from secondsight.evaluation.experiments.sanity import SHUFFLED
from secondsight.evaluation.run import Run

Statistic = Callable[[Any], float]


def share_below_zero(changes: Any) -> float:
    """The share of the changes that are negative."""
    return float((np.asarray(changes) < 0).mean())


@dataclass(frozen=True)
class Column:
    """A column of the table: `statistic` of a `field` of one experiment's records of a `kind`.

    `better` is "higher", "lower", "near 0", or "" where none is better. A column of `quality` is compared case by case, on the
    cases that all settings judged: it has intervals and tests. The others are medians of what each setting has.
    """

    name: str
    experiment: str
    field: str
    meaning: str
    kind: str | None = None
    better: str = "higher"
    quality: bool = False
    statistic: Statistic = np.median

    def gain(self, values: Any) -> Any:
        """Numbers that are higher where the values are better."""
        return -np.abs(values) if self.better == "near 0" else -values if self.better == "lower" else values


COLUMNS = (
    Column(
        "PGA", "pointing", "hit", "share of phrases whose map is highest in the object's box",
        kind="case", quality=True, statistic=np.mean,
    ),
    Column(
        "PGE", "pointing", "energy", "median share of positive attribution in the object's box", kind="case", quality=True
    ),
    Column(
        "AP", "segmentation", "average_precision", "mean average precision of the object's pixels",
        kind="case", quality=True, statistic=np.mean,
    ),
    Column(
        "mIoU", "segmentation", "mean_iou", "mean IoU of object and background, the map cut at half its highest value",
        kind="case", quality=True, statistic=np.mean,
    ),
    Column(
        "pixels", "segmentation", "pixel_accuracy", "mean share of pixels that are then right", kind="case", statistic=np.mean,
    ),
    Column(
        "error", "pointing", "error",
        "median difference between the similarity and its four terms, in units of the similarity",
        kind="case", better="lower",
    ),
    Column(
        "faithfulness", "faithfulness", "correlation",
        "median correlation of predicted with actual similarity of masked inputs", quality=True,
    ),
    Column("Spearman", "faithfulness", "spearman", "median rank correlation of the same"),
    Column("Kendall", "faithfulness", "kendall", "median share of pairs of masks in the right order less the others"),
    Column("R²", "faithfulness", "r2", "median share of the actual similarity's variance that the prediction itself explains"),
    Column(
        "AID", "joint-perturbation", "aid",
        "median area between insertion and deletion of both inputs' features in one ranking", kind="summed", quality=True,
    ),
    Column("AID, greedy", "joint-perturbation", "aid", "the same for sets chosen with their interactions", kind="greedy"),
    Column(
        "CII", "perturbation", "area", "similarity while the image's strongest features are put in, median area",
        kind="CII", quality=True,
    ),
    Column("CID", "perturbation", "area", "while they are taken away", kind="CID", better="lower", quality=True),
    Column(
        "CTI", "perturbation", "area", "similarity while the text's strongest features are put in, median area",
        kind="CTI", quality=True,
    ),
    Column("CTD", "perturbation", "area", "while they are taken away", kind="CTD", better="lower", quality=True),
    Column(
        "collage", "collage", "share", "mean signed share of attribution in the right one of four images",
        quality=True, statistic=np.mean,
    ),
    Column(
        "negatives", "hard-negatives", "delta_attribution",
        "share of wrong words whose attribution to the object's box is below the right word's", statistic=share_below_zero,
    ),
    Column(
        "sanity", "sanity", "rank_correlation",
        "median rank correlation with the maps of the same model with shuffled weights", kind="case", better="near 0",
    ),
    Column(
        "max-sensitivity", "sensitivity", "max_sensitivity",
        "median of a map's largest relative change under slight noise of the pixels", better="lower",
    ),
    Column("sparseness", "sensitivity", "sparseness", "median Gini index of absolute attributions", better=""),
    Column(
        "references", "references", "correlation", "median correlation of maps under two references of the image",
        kind="pair",
    ),
    Column("seeds", "references", "correlation", "the same under a random reference's seeds", kind="seeds"),
    Column(
        "passes", "cost", "passes", "median time of an explanation in forward passes of the pair", better="lower"
    ),
    Column(
        "computations", "cost", "computations",
        "forward passes, derivatives or encodings that the method counted for a pair", better="lower",
    ),
    Column("MiB", "cost", "mebibytes", "median peak of additional memory during an explanation", better="lower"),
)  # fmt: skip
"""The table's columns, in its order."""


@dataclass(frozen=True)
class Scores:
    """A column's values by case and setting, on the cases that every setting judged, and each case's image."""

    column: Column
    values: pd.DataFrame
    images: np.ndarray


def records_of(column: Column, runs: Mapping[str, Run]) -> pd.DataFrame:
    """The records with a number in the column's field, "setting" being the label of the setting that was asked for."""
    if column.experiment not in runs:
        return pd.DataFrame({"setting": [], "key": [], column.field: []})
    frame = runs[column.experiment].frame
    frame = frame if column.kind is None else of_kind(frame, column.kind)
    if column.field not in frame:
        return pd.DataFrame({"setting": [], "key": [], column.field: []})
    frame = frame.dropna(subset=[column.field])
    return frame.assign(setting=frame["setting"].str.removesuffix(SHUFFLED))


def paired_scores(column: Column, runs: Mapping[str, Run]) -> Scores:
    """A column's values case by case; a case is a phrase where the records are of phrases, otherwise a caption."""
    frame = records_of(column, runs)
    case = frame["key"].astype(str)
    for name in ("span", "words"):
        if name in frame:
            case = case + " " + frame[name].map(str)
    frame = frame.assign(case=case, value=frame[column.field].astype(float))
    labels = list(dict.fromkeys(frame["setting"]))
    values = frame.pivot_table(index="case", columns="setting", values="value", sort=False).reindex(columns=labels)
    values = values.dropna()
    key_of = dict(zip(frame["case"], frame["key"], strict=True))
    examples = runs[column.experiment].examples if len(values) else {}
    return Scores(column, values, np.array([examples[key_of[name]].image_key for name in values.index]))


def column_values(column: Column, runs: Mapping[str, Run]) -> dict[str, float]:
    """The column's number for every setting that has one, by label."""
    if column.quality:
        values = paired_scores(column, runs).values
        return {str(label): float(column.statistic(values[label])) for label in values if len(values)}
    grouped = records_of(column, runs).groupby("setting", sort=False)[column.field]
    return {str(label): float(column.statistic(group.astype(float))) for label, group in grouped}


def best_value(column: Column, values: Iterable[float]) -> float | None:
    """The best of the values; None where there are fewer than two, all are equal, or none is better."""
    if not column.better:
        return None
    known = {float(value) for value in values if not np.isnan(value)}
    return max(known, key=lambda value: float(column.gain(value))) if len(known) > 1 else None
