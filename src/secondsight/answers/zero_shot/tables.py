"""Tables of a zero-shot classifier: accuracy, confused pairs, what is decided by the captions alone, and where it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from secondsight.answers.significance import q_values, sign_test_p, wilson
from secondsight.answers.zero_shot.margins import BY_WORD, Margins

FEWEST = 2
"""Images or answers of a class, and of a pair of classes, from which it is looked at for more than chance."""


def accuracy(margins: Margins) -> pd.DataFrame:
    """Top-1, and top-5 where there are more than five classes, with Wilson's intervals."""
    rank = margins.records["rank"]
    rows = []
    for name, most in (("top-1", 1), ("top-5", 5)):
        if most < len(margins.names):
            right = int((rank <= most).sum())
            low, high = wilson(right, len(rank))
            rows.append({"accuracy": name, "share": right / len(rank), "low": low, "high": high, "right": right})
    return pd.DataFrame(rows)


def classes(margins: Margins) -> pd.DataFrame:
    """Every class: its accuracy, how often it is answered, and how close it is to pictures of other classes.

    "caption alone" and "on other pictures" are means over the images of other classes, less the mean over all classes: the
    first is the term of the explanation, the second the similarity itself. `q` says whether it is answered wrongly for
    others more often than it is missed.
    """
    records, labels = margins.records, margins.labels
    answers = _numbers(margins, "predicted")
    rows = []
    for index, name in enumerate(margins.names):
        mine, answered = labels == index, answers == index
        count, right = int(mine.sum()), int((mine & answered).sum())
        wrong = int((answered & ~mine).sum())
        missed = records["predicted"][mine & ~answered]
        low, high = wilson(right, count) if count else (np.nan, np.nan)
        rows.append(
            {
                "class": name,
                "images": count,
                "right": right,
                "accuracy": right / count if count else np.nan,
                "low": low,
                "high": high,
                "top-5": float((records["rank"][mine] <= 5).mean()) if count and len(margins.names) > 5 else np.nan,
                "taken for": missed.value_counts().sort_index().idxmax() if len(missed) else None,
                "answered": int(answered.sum()),
                "answered wrongly": wrong,
                "caption alone": _elsewhere(margins.alone, index, ~mine),
                "on other pictures": _elsewhere(margins.similarities, index, ~mine),
                "p": _too_often(wrong, count - right),
            }
        )
    table = pd.DataFrame(rows)
    table["q"] = q_values(table["p"])
    return table.dropna(axis=1, how="all")


def _elsewhere(values: Float[np.ndarray, "image cls"], index: int, others: np.ndarray) -> float:
    margins = values[others]
    return float(margins[:, index].mean() - margins.mean()) if len(margins) else float("nan")


def _too_often(wrong: int, missed: int) -> float:
    """p of a class being answered wrongly no more often than it is missed; none where it could not be small."""
    if wrong + missed < FEWEST:
        return float("nan")
    return float(stats.binomtest(wrong, wrong + missed, 0.5, alternative="greater").pvalue)


def confusions(margins: Margins) -> pd.DataFrame:
    """Pairs of a class and the wrong answer for it, the most frequent first.

    `expected` is how often the answer would come up in as many images of any other classes, and `p` Fisher's exact test
    against that; it is given for pairs whose totals allow two. The lead of the wrong class and its parts are means, positive
    where they are for the wrong class.
    """
    records = margins.records[~margins.records["correct"]]
    if not len(records):
        return pd.DataFrame()
    labels, answers = margins.labels, _numbers(margins, "predicted")
    images = np.bincount(labels, minlength=len(margins.names))
    wrong = np.bincount(answers[labels != answers], minlength=len(margins.names))
    tested = _chances(margins, labels, answers, images, wrong)
    rows = []
    for (label, answer), group in records.groupby(["label", "predicted"], sort=True):
        first, second = margins.names.index(label), margins.names.index(answer)
        p, q = tested.get((first, second), (np.nan, np.nan))
        whole = len(margins.records) - images[second]
        row = {
            "class": label,
            "taken for": answer,
            "times": len(group),
            "images": int(images[first]),
            "expected": images[first] * wrong[second] / whole,
            "p": p,
            "q": q,
            "lead": -group["margin"].mean(),
            **{name: -group[name].mean() for name in BY_WORD},
        }
        if "outside the object" in group:
            row["outside the object"] = group["outside the object"].mean()
        rows.append(row)
    order = ["times", "q", "lead"]
    return pd.DataFrame(rows).sort_values(order, ascending=[False, True, False], ignore_index=True)


def _chances(
    margins: Margins,
    labels: Int[np.ndarray, " image"],
    answers: Int[np.ndarray, " image"],
    images: Int[np.ndarray, " cls"],
    wrong: Int[np.ndarray, " cls"],
) -> Mapping[tuple[int, int], tuple[float, float]]:
    """p and q of every pair of classes whose totals allow two confusions; which pairs these are is no result of theirs."""
    counts = np.zeros((len(images), len(images)), int)
    np.add.at(counts, (labels, answers), 1)
    pairs = [
        (first, second)
        for second in np.flatnonzero(wrong >= FEWEST).tolist()
        for first in np.flatnonzero(images >= FEWEST).tolist()
        if first != second
    ]
    if not pairs:
        return {}
    first, second = np.array(pairs).T
    whole = len(margins.records) - images[second]
    p = stats.hypergeom.sf(counts[first, second] - 1, whole, wrong[second], images[first])
    q = q_values(np.clip(p, 0, 1))
    return {pair: (float(a), float(b)) for pair, a, b in zip(pairs, p, q, strict=True)}


def priors(margins: Margins) -> pd.DataFrame:
    """Accuracy as it is, without what the captions have alone, and without each class's mean similarity to all pictures.

    `p` is McNemar's exact test against the accuracy as it is.
    """
    labels = margins.labels
    usual = margins.similarities.argmax(1) == labels
    rows = []
    for name, off in (
        ("as it is", 0.0),
        ("without the captions alone", margins.alone),
        ("without each class's mean", margins.usual[None]),
    ):
        right = (margins.similarities - off).argmax(1) == labels
        gained, lost = int((right & ~usual).sum()), int((usual & ~right).sum())
        facts = {"accuracy": right.mean(), "gained": gained, "lost": lost, "p": sign_test_p(gained, lost)}
        rows.append({"ranked": name, **facts})
    return pd.DataFrame(rows)


def owed(margins: Margins) -> pd.DataFrame:
    """Classes with right answers that would be wrong without the captions alone, or without the template's words."""
    right = margins.records[margins.records["correct"]]
    rows = []
    for name, group in right.groupby("label", sort=True):
        row: dict[str, Any] = {"class": name, "right": len(group)}
        for part in ("caption alone", "template words"):
            row[f"only by {part}"] = int((group["margin"] <= group[part]).sum())
        rows.append({**row, "margin": group["margin"].mean(), **{part: group[part].mean() for part in BY_WORD}})
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).sort_values("only by caption alone", ascending=False, kind="stable", ignore_index=True)


def outside(margins: Margins) -> pd.DataFrame:
    """For right and wrong answers and each class: the winner's positive attribution outside the object, beside the area.

    `p` is Wilcoxon's signed-rank test of the two shares being the same, for five images or more.
    """
    records = margins.records
    if "outside the object" not in records:
        return pd.DataFrame()
    boxed = records[records["outside the object"].notna()]
    groups: list[tuple[str, pd.DataFrame]] = [
        ("right answers", boxed[boxed["correct"]]),
        ("wrong answers", boxed[~boxed["correct"]]),
    ]
    groups += [(f"right answers for {name}", group) for name, group in boxed[boxed["correct"]].groupby("label")]
    rows = [_outside_row(name, group) for name, group in groups if len(group)]
    table = pd.DataFrame(rows)
    classes_of = table["answers"].str.startswith("right answers for ")
    table.loc[classes_of, "q"] = q_values(table.loc[classes_of, "p"])
    return table


def _outside_row(name: str, group: pd.DataFrame) -> dict[str, Any]:
    share, area = group["outside the object"], group["area outside"]
    differing = (share - area)[share != area]
    return {
        "answers": name,
        "images": len(group),
        "outside the object": share.mean(),
        "area outside": area.mean(),
        "p": float(stats.wilcoxon(differing).pvalue) if len(differing) >= 5 else np.nan,
    }


def _numbers(margins: Margins, column: str) -> Int[np.ndarray, " image"]:
    number = {name: index for index, name in enumerate(margins.names)}
    return np.array([number[name] for name in margins.records[column]])


def means(records: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The mean of each part over right and over wrong answers, for the class that won."""
    rows = []
    for name, correct in (("right answers", True), ("wrong answers", False)):
        group = records[records["correct"] == correct]
        if len(group):
            sign = 1 if correct else -1
            parts = {column: sign * group[column].mean() for column in columns if column in group}
            rows.append({"answers": name, "images": len(group), "lead": sign * group["margin"].mean(), **parts})
    return pd.DataFrame(rows)
