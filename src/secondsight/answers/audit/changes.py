"""What changed between two models on the same pairs: grounding by class, words, and how far captions stand out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from secondsight.answers.audit.cases import map_case
from secondsight.answers.audit.grounding import grounding_cases
from secondsight.answers.audit.regions import covered_share
from secondsight.answers.audit.word_parts import CONTENT, word_parts
from secondsight.answers.collection import Collection, Progress
from secondsight.answers.report import MOST_CASES, Case, Claim, Section
from secondsight.answers.significance import FEWEST, q_values
from secondsight.evaluation.maps import image_layout
from secondsight.evaluation.statistics import staged_sign_flip_p
from secondsight.support.errors import InputError

MOST_CLAIMS = 6
"""Claims of each kind on the page; the tables have everything."""

FEWEST_DRAWS = 9999
"""Sign patterns of a test at least; more where many groups are tested."""

BLOCK = 1024
"""Images whose similarities to all captions are in memory at once."""

ABOUT = (
    "The same pairs under both models, compared case by case, so that the models may differ in grid, scale and joint space. "
    "Grounding: the share of a word's positive attribution in its own boxes. Words: what a word adds with its own image over "
    "others, as a multiple of the average content word of its model. Margin: how far an image's own caption lies above the "
    "captions of other images, in standard deviations of these. Tests flip the signs of whole images' differences; q-values "
    "are corrected for the number of classes or words of each kind."
)

COLUMNS = ["images", "before", "after", "change", "q"]


def paired_table(
    before: pd.DataFrame, after: pd.DataFrame, by: str, value: str, on: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Groups of the rows that both tables have, with the mean `value` before and after, the largest changes first.

    `on` names the columns that identify a row; they and `by` include "image". An image counts once. Groups below five images
    are left out. Columns: `by`, `images`, `before`, `after`, `change` and `q`.
    """
    columns = list(dict.fromkeys([*on, by, "image"]))
    rows = before[[*columns, value]].merge(after[[*columns, value]], on=columns, suffixes=(" before", " after"))
    rows = rows.rename(columns={f"{value} before": "before", f"{value} after": "after"})
    means = {name: group.groupby("image")[["before", "after"]].mean() for name, group in rows.groupby(by)}
    tested = {name: images for name, images in means.items() if len(images) >= FEWEST}
    # A single group that changed must be able to stand out among all that are tested.
    draws = max(FEWEST_DRAWS, 100 * len(tested))
    result = []
    for name, images in tested.items():
        change = images["after"] - images["before"]
        p = staged_sign_flip_p(change, np.arange(len(images)), draws=draws, promising=0.1, seed=seed)
        result.append((name, len(images), images["before"].mean(), images["after"].mean(), change.mean(), p))
    table = pd.DataFrame(result, columns=[by, *COLUMNS])
    table["q"] = q_values(table["q"])
    return table.sort_values("change", key=np.abs, ascending=False, ignore_index=True)


def margins(collection: Collection) -> pd.DataFrame:
    """For every pair: its `image`, `text`, and `margin`, how far the caption lies above other images' captions.

    In standard deviations of the image's similarities to these; NaN where it has fewer than two.
    """
    images = {key: row for row, key in enumerate(collection.images.keys())}
    texts = {key: row for row, key in enumerate(collection.texts.keys())}
    pairs = pd.DataFrame(list(collection.pairs), columns=["image", "text"])
    own_image, own_text = pairs["image"].map(images).to_numpy(), pairs["text"].map(texts).to_numpy()
    values = np.full(len(pairs), np.nan)
    left, right = collection.images.embeddings.double(), collection.texts.embeddings.double()
    for first in range(0, len(left), BLOCK):
        similarities = (left[first : first + BLOCK] @ right.T).numpy()
        for row in range(len(similarities)):
            own_captions = np.flatnonzero(own_image == first + row)
            wrong_captions = np.ones(len(right), dtype=bool)
            wrong_captions[own_text[own_captions]] = False
            if wrong_captions.sum() > 1:
                rest = similarities[row, wrong_captions]
                values[own_captions] = (similarities[row, own_text[own_captions]] - rest.mean()) / rest.std(ddof=1)
    return pairs.assign(margin=values)


def changes_section(
    before: Collection,
    after: Collection,
    *,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Section:
    """The section on what changed; claims of each kind have a false discovery rate of at most `alpha`.

    Raises `InputError` for collections without a common pair.
    """
    before, after = _common(before, after)
    claims: list[Claim] = []
    tables = {"change of margins": _margin_table(before, after, seed)}
    claims += [_margin_claim(row) for _, row in tables["change of margins"].iterrows() if row["q"] <= alpha]
    if after.has_boxes:
        cases = [_with_keys(collection, grounding_cases(collection, progress)) for collection in (before, after)]
        table = paired_table(cases[0], cases[1], "class", "share", ["text", "start", "end"], seed)
        tables["change of grounding"] = table
        claims += [_grounding_claim(before, after, cases, row) for _, row in _claimed(table, alpha).iterrows()]
    if all(collection.texts[collection.pairs[0][1]].pairing is None for collection in (before, after)):
        tables["change of words"] = _word_table(before, after, seed, progress)
        claims += [_word_claim(row) for _, row in _claimed(tables["change of words"], alpha).iterrows()]
    return Section("What changed", ABOUT, claims, tables, nothing="No class, word or margin changed beyond chance.")


def _claimed(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    return table[table["q"] <= alpha].head(MOST_CLAIMS)


def _common(before: Collection, after: Collection) -> tuple[Collection, Collection]:
    """Both with the pairs that both have, in one order."""
    shared = set(before.pairs) & set(after.pairs)
    pairs = [pair for pair in after.pairs if pair in shared]
    if not pairs:
        raise InputError("the two models have no pairs in common: decompose the same data with both")
    if len({image for image, _ in pairs}) < 2:
        raise InputError("two models are compared over images, and there is only one: look at more")
    first, second = (replace(collection, pairs=pairs) for collection in (before, after))
    return first, second


def _with_keys(collection: Collection, cases: pd.DataFrame) -> pd.DataFrame:
    """The cases of grounding with their caption's key, which both models share."""
    return cases.assign(text=[collection.pairs[number][1] for number in cases["pair"]])


def _margin_table(before: Collection, after: Collection, seed: int) -> pd.DataFrame:
    """The margin of all pairs together."""
    tables = [margins(collection).dropna().assign(pairs="all") for collection in (before, after)]
    return paired_table(tables[0], tables[1], "pairs", "margin", ["text"], seed)


def _word_table(before: Collection, after: Collection, seed: int, progress: Progress | None) -> pd.DataFrame:
    tables = []
    for collection in (before, after):
        parts = word_parts(collection, progress)
        parts = parts[parts["part"] == CONTENT]
        average = parts.groupby("image")["gain"].mean().mean()
        names = np.array(collection.images.keys())
        tables.append(
            parts.assign(image=names[parts["image"]], gain=parts["gain"] / abs(average) if average else np.nan)
        )
    return paired_table(tables[0], tables[1], "word", "gain", [], seed)


def _margin_claim(row: pd.Series) -> Claim:
    direction = "more" if row["change"] > 0 else "less"
    sentence = (
        f"Captions stand out {direction} from other images' captions: {row['before']:.2f} standard deviations above them "
        f"before, {row['after']:.2f} after ({row['images']} images)."
    )
    return Claim(sentence, (), {"kind": "margin", "change": row["change"], "q": row["q"]})


def _word_claim(row: pd.Series) -> Claim:
    direction = "more" if row["change"] > 0 else "less"
    sentence = (
        f"“{row['word']}” counts {direction}: {row['before']:.1f} times the average content word before, {row['after']:.1f} "
        f"times after ({row['images']} images)."
    )
    return Claim(sentence, (), {"kind": "word", "word": row["word"], "change": row["change"], "q": row["q"]})


def _grounding_claim(before: Collection, after: Collection, cases: Sequence[pd.DataFrame], row: pd.Series) -> Claim:
    direction = "more" if row["change"] > 0 else "less"
    sentence = (
        f"“{row['class']}” rests {abs(row['change']) * 100:.0f} points {direction} on its object: {row['before']:.0%} of the "
        f"positive attribution lies in the boxes before, {row['after']:.0%} after ({row['images']} images)."
    )
    rows = [table[table["class"] == row["class"]] for table in cases]
    merged = rows[0].merge(rows[1], on=["image", "text", "start", "end"], suffixes=(" before", " after"))
    sign = 1 if row["change"] > 0 else -1
    merged = merged.assign(change=sign * (merged["share after"] - merged["share before"]))
    merged = merged.sort_values("change", ascending=False).drop_duplicates("image").head(MOST_CASES // 2)
    # Two cards stand next to each other: before and after.
    examples = [
        _case(collection, case, label)
        for _, case in merged.iterrows()
        for collection, label in ((before, "before"), (after, "after"))
    ]
    numbers = {"kind": "grounding", "class": row["class"], "change": row["change"], "q": row["q"]}
    return Claim(sentence, examples, numbers)


def _case(collection: Collection, case: pd.Series, label: str) -> Case:
    number = int(case["pair after"])
    span = (int(case["start"]), int(case["end"]))
    phrase = next(phrase for phrase in collection.example(number).phrases if phrase.span == span)
    inside = covered_share(image_layout(collection.images[case["image"]].layout), phrase.boxes)
    facts = f"{label}: {case[f'share {label}']:.0%} of “{case['word after']}” in the box; image {case['image']}"
    return map_case(collection, (case["image"], case["text"]), span, inside, phrase.boxes, facts)
