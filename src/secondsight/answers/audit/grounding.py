"""Grounding: the share of a word's positive attribution that lies in its own object's boxes, by class and by word."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from secondsight.answers.audit.cases import map_case
from secondsight.answers.audit.regions import covered_share, positive_share
from secondsight.answers.collection import Collection, Progress
from secondsight.answers.report import MOST_CASES, Case, Claim, Section
from secondsight.answers.significance import FEWEST, q_values
from secondsight.evaluation.maps import image_layout
from secondsight.evaluation.statistics import bootstrap_interval
from secondsight.support.errors import InputError

MOST_CLAIMS = 5
"""Claims of each kind on the page; the tables have all classes."""

ABOUT = (
    "How much of a word's positive attribution to the image lies in the boxes of the object that it names. Chance is the share "
    "of the visible image that the boxes fill: a map that knows nothing would put that much there. PGA is how often the "
    "strongest cell lies in a box. Intervals are bootstrapped over images; q-values, corrected for the number of classes, are "
    f"for “more than chance” and “less than chance” (Wilcoxon's signed ranks); classes below {FEWEST} images are only "
    "in the table. In the cases, words are coloured by what they put into the boxes."
)

_CASES = ["pair", "image", "word", "class", "start", "end", "share", "chance", "hit"]


def grounding_cases(collection: Collection, progress: Progress | None = None) -> pd.DataFrame:
    """Every phrase with a box that the model sees: its `share` of positive attribution in the boxes, and `chance`, their area.

    Columns: `pair` (its number), `image`, `word`, `class`, `start`, `end` (its characters), `share`, `chance`, and `hit`,
    whether the strongest cell's centre lies in a box. Left out are boxes smaller than a cell, and phrases that the model cuts
    off or that have no positive attribution.
    """
    rows = []
    for number in range(len(collection)):
        rows += _pair_rows(collection, number)
        if progress is not None:
            progress("measuring grounding", number + 1, len(collection))
    return pd.DataFrame(rows, columns=_CASES)


def _pair_rows(collection: Collection, number: int) -> list[tuple[object, ...]]:
    example = collection.example(number)
    phrases = [phrase for phrase in example.phrases if phrase.boxes]
    if not phrases:
        return []
    pair = collection.interactions(number)
    layout = image_layout(pair.left_layout)
    rows: list[tuple[object, ...]] = []
    for phrase in phrases:
        inside = covered_share(layout, phrase.boxes)
        if inside.sum() < 1:
            continue
        try:
            values = pair.toward_left(phrase.span)[layout.visible].double().numpy()
        except InputError:
            continue
        share = float(positive_share(values, inside))
        if np.isnan(share):
            continue
        word = example.words(phrase).lower()
        hit = bool(inside[values.argmax()] > 0.5)
        image = collection.pairs[number][0]
        rows.append((number, image, word, phrase.label, *phrase.span, share, float(inside.mean()), hit))
    return rows


def grounding_table(cases: pd.DataFrame, by: str | list[str] = "class", seed: int = 0) -> pd.DataFrame:
    """The cases of `grounding_cases` by class (or word), those that are grounded least, compared with chance, first.

    Columns: the names, `cases`, `images`, `share` with its interval `low` … `high`, `chance`, `lift` = share / chance, `PGA`,
    and the q-values `q above` and `q below` chance. An image counts once; below five images nothing is tested, and q is 1.
    """
    names = [by] if isinstance(by, str) else by
    rows = []
    for name, group in cases.groupby(names, sort=True):
        images = group.groupby("image")[["share", "chance", "hit"]].mean()
        low, high = bootstrap_interval(images["share"], np.arange(len(images)), seed=seed)
        share, chance = images["share"].mean(), images["chance"].mean()
        rows.append(
            {
                **dict(zip(names, name, strict=True)),
                "cases": len(group),
                "images": len(images),
                "share": share,
                "low": low,
                "high": high,
                "chance": chance,
                "lift": share / chance,
                "PGA": images["hit"].mean(),
                **{f"q {side}": p for side, p in _chance_p(images).items()},
            }
        )
    columns = [*names, "cases", "images", "share", "low", "high", "chance", "lift", "PGA", "q above", "q below"]
    table = pd.DataFrame(rows, columns=columns)
    tested = table["images"] >= FEWEST
    for side in ("q above", "q below"):
        table.loc[tested, side] = q_values(table.loc[tested, side])
    return table.sort_values(["lift", *names], ignore_index=True)


def _chance_p(images: pd.DataFrame) -> dict[str, float]:
    """p of "not above chance" and "not below chance" over images."""
    differences = (images["share"] - images["chance"]).to_numpy()
    if len(differences) < FEWEST or not differences.any():
        return {"above": 1.0, "below": 1.0}
    return {
        side: float(stats.wilcoxon(differences, alternative=alternative).pvalue)
        for side, alternative in (("above", "greater"), ("below", "less"))
    }


def grounding_section(
    collection: Collection, *, alpha: float = 0.05, seed: int = 0, progress: Progress | None = None
) -> Section:
    """The section on grounding. Classes claimed to be above or below chance have a false discovery rate of at most `alpha`."""
    cases = grounding_cases(collection, progress)
    classes = grounding_table(cases, "class", seed)
    tables = {"grounding": classes, "grounding by word": grounding_table(cases, ["word", "class"], seed)}
    claims = [*_overall(collection, cases, seed), *_claims(collection, cases, classes, alpha)]
    return Section("Grounding", ABOUT, claims, tables, nothing="No phrase has a box that can be judged.")


def _overall(collection: Collection, cases: pd.DataFrame, seed: int) -> list[Claim]:
    """What holds for all phrases together, with the cases that are farthest below chance."""
    if cases.empty:
        return []
    (row,) = (row for _, row in grounding_table(cases.assign(data="all"), "data", seed).iterrows())
    numbers = {"kind": "overall", "share": row["share"], "chance": row["chance"], "p": row["q above"]}
    examples = shown_cases(collection, cases, lambda case: case["share"] - case["chance"], False)
    return [Claim(f"All words with boxes together: {_measured(row)}.", examples, numbers)]


def _claims(collection: Collection, cases: pd.DataFrame, classes: pd.DataFrame, alpha: float) -> list[Claim]:
    tested = classes[classes["images"] >= FEWEST]
    below = tested[tested["q below"] <= alpha]
    above = tested[tested["q above"] <= alpha]
    neither = tested[(tested["q below"] > alpha) & (tested["q above"] > alpha)]
    claims = [
        _claim(collection, cases, row, "below", "“{0}” does not rest on its object: {1}.")
        for _, row in below.head(MOST_CLAIMS).iterrows()
    ]
    least = ", but least of those that do" if len(above) > 2 else ""
    for _, row in above.head(2).iterrows():
        claims.append(_claim(collection, cases, row, "above", f"“{{0}}” rests on its object{least}: {{1}}."))
    for _, row in above.iloc[2:].tail(1).iterrows():
        claims.append(_claim(collection, cases, row, "above", "“{0}” is grounded best: {1}."))
    if len(neither):
        claims.append(_undecided(collection, cases, neither))
    return claims


def _measured(row: pd.Series) -> str:
    return (
        f"{row['share']:.0%} of the positive attribution lies in the boxes ({row['low']:.0%} … {row['high']:.0%}), "
        f"chance {row['chance']:.0%}, {row['images']} images"
    )


def _claim(collection: Collection, cases: pd.DataFrame, row: pd.Series, kind: str, sentence: str) -> Claim:
    numbers = {
        "kind": kind,
        "class": row["class"],
        "share": row["share"],
        "chance": row["chance"],
        "q": row[f"q {kind}"],
    }
    best = kind == "above" and "best" in sentence
    examples = shown_cases(collection, cases[cases["class"] == row["class"]], lambda case: case["share"], best)
    return Claim(sentence.format(row["class"], _measured(row)), examples, numbers)


def _undecided(collection: Collection, cases: pd.DataFrame, neither: pd.DataFrame) -> Claim:
    """One claim for all classes of which nothing can be said."""
    listed = [
        f"“{row['class']}” ({row['share']:.0%}, chance {row['chance']:.0%}, {row['images']} images)"
        for _, row in neither.iterrows()
    ]
    rest = f" and {len(listed) - MOST_CASES} more" if len(listed) > MOST_CASES else ""
    sentence = (
        f"These images do not decide whether words rest on their objects: {', '.join(listed[:MOST_CASES])}{rest}."
    )
    examples: list[Case] = []
    for name in neither["class"].head(MOST_CASES):
        most = max(MOST_CASES // len(neither), 1)
        examples += shown_cases(collection, cases[cases["class"] == name], lambda case: case["share"], False, most)
    return Claim(sentence, examples, {"kind": "undecided", "classes": list(neither["class"])})


def shown_cases(
    collection: Collection,
    cases: pd.DataFrame,
    strength: Callable[[pd.DataFrame], pd.Series],
    largest: bool,
    most: int = MOST_CASES,
) -> list[Case]:
    """The cases with the largest or smallest strength, one an image."""
    ordered = cases.assign(strength=strength(cases)).sort_values("strength", ascending=not largest, kind="stable")
    return [_case(collection, row) for _, row in ordered.drop_duplicates("image").head(most).iterrows()]


def _case(collection: Collection, row: pd.Series) -> Case:
    number, span = int(row["pair"]), (int(row["start"]), int(row["end"]))
    example = collection.example(number)
    phrase = next(phrase for phrase in example.phrases if phrase.span == span)
    layout = image_layout(collection.images[row["image"]].layout)
    facts = f"“{row['word']}”: {row['share']:.0%} in the box, chance {row['chance']:.0%}; image {row['image']}"
    return map_case(
        collection, collection.pairs[number], span, covered_share(layout, phrase.boxes), phrase.boxes, facts
    )
