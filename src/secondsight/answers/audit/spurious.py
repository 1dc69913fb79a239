"""Spurious pairs: words that rest on another object, or on a background, more than other words do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from secondsight.answers.audit.cases import map_case
from secondsight.answers.audit.regions import BACKGROUND, covered_share
from secondsight.answers.audit.spurious_cases import WITH, WITHOUT, Scene, scenes_of, spurious_cases
from secondsight.answers.collection import Collection, Progress
from secondsight.answers.report import MOST_CASES, Case, Claim, Section
from secondsight.answers.significance import FEWEST, q_values
from secondsight.evaluation.maps import image_layout

MOST_CLAIMS = 6
"""Claims of each reading on the page, the surest first; the table has all pairs."""

MOST_SCORED = 300
"""Pairs, those with the smallest p-values, whose captions' scores are looked at."""

_COLUMNS = ["reading", "class", "region", "images", "captions", "share", "usual", "lift", "rank", "p", "q"]

ABOUT = (
    "Words that rest on what they do not name: on the boxes of another object (less the word's own boxes), or on the "
    "background outside all boxes. The share of a word's positive attribution on such a region is ranked among the words of "
    "objects that are not in the image, taken from other captions. A pair is claimed where the word ranks above the middle, "
    "and above its own rank on other objects (or backgrounds), over images as well as over captions; q-values are corrected "
    "for the number of pairs of each reading. “With the object”: the image's own caption names it and it is there; this finds "
    "words that borrow from their neighbours in the caption, too. “Without the object”: it is not there, so the region alone "
    "attracts the word; “score” is how often captions of the word's class score such images above images with neither (what "
    "all captions score is taken off; 0.5 means no difference)."
)


def spurious_table(cases: pd.DataFrame) -> pd.DataFrame:
    """Pairs of a word's class and a region from the rows of `spurious_cases`, the surest first.

    Columns: `reading`, `class`, `region`, `images`, `captions` (that the words are from), `share`, `usual` (of words of absent
    objects), `lift` = share / usual, `rank` (0.5 is usual), `p` and `q`. An image counts once. Pairs below five images, or
    words from below five captions, are left out.
    """
    tables = [_reading_table(table) for _, table in cases.groupby("reading", observed=True)]
    result = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_COLUMNS)
    return result.sort_values(["p", "lift", "class", "region"], ascending=[True, False, True, True], ignore_index=True)


def _reading_table(cases: pd.DataFrame) -> pd.DataFrame:
    names = ["class", "region"]
    of_images = (
        cases.groupby([*names, "image"], observed=True)[["share", "usual", "rank"]].mean().groupby(names, observed=True)
    )
    of_captions = cases.groupby([*names, "pair"], observed=True)["rank"].mean().groupby(names, observed=True)
    table = of_images[["share", "usual", "rank"]].mean()
    table = table.assign(images=of_images.size(), captions=of_captions.size(), lift=table["share"] / table["usual"])
    expected = pd.Series(_expected_ranks(cases)).reindex(table.index)
    table["p"] = np.maximum(
        _above(table["rank"] - expected, of_images["rank"].var(), table["images"]),
        _above(of_captions.mean() - expected, of_captions.var(), table["captions"]),
    )
    table = table[(table["images"] >= FEWEST) & (table["captions"] >= FEWEST)].reset_index()
    return table.assign(reading=str(cases["reading"].iloc[0]), q=q_values(table["p"]))[_COLUMNS].astype(
        {"class": str, "region": str}
    )


def _expected_ranks(table: pd.DataFrame) -> dict[tuple[str, str], float]:
    """The rank that a word must exceed on a region: its mean one on other regions of that kind, but at least the middle.

    Some words have more attribution on objects than others, whichever the objects.
    """
    means = table.groupby(["class", "region"], observed=True)["rank"].agg(["sum", "size"]).reset_index()
    means["background"] = means["region"].astype(str).str.startswith(BACKGROUND)
    totals = means.groupby(["class", "background"], observed=True)[["sum", "size"]].transform("sum")
    other_counts = totals["size"] - means["size"]
    usual = np.where(other_counts > 0, (totals["sum"] - means["sum"]) / np.maximum(other_counts, 1), 0.5)
    keys = zip(means["class"], means["region"], strict=True)
    return {key: max(float(value), 0.5) for key, value in zip(keys, usual, strict=True)}


def _above(distance: pd.Series, variance: pd.Series, count: pd.Series) -> Float[np.ndarray, " pair"]:
    """One-sided p of "the mean rank is not above what is expected".

    Ranks of words that are all alike are uniform, so that their variance is 1/12, however few they are, and the tails of their
    mean are lighter than a normal distribution's; a larger variance that is observed counts instead.
    """
    spread = np.sqrt(np.maximum(variance.fillna(0), 1 / 12) / count)
    return np.asarray(stats.norm.sf(distance / spread))


def scores_without(
    collection: Collection, scenes: Mapping[str, Scene], pairs: list[tuple[str, str]]
) -> Float[np.ndarray, " pair"]:
    """For pairs of a class and a region: how often captions of the class score images with the region, and without the class,
    above images with neither, 0 … 1; NaN where there are no such images or captions.

    Captions that name the region too are not asked, and what all captions score is taken off.
    """
    rows = {key: row for row, key in enumerate(collection.images.keys())}
    images = collection.images.embeddings.numpy()[[rows[image] for image in scenes]]
    rows = {key: row for row, key in enumerate(collection.texts.keys())}
    texts = collection.texts.embeddings.numpy()
    caption_labels: dict[int, set[str]] = {}
    for scene in scenes.values():
        caption_labels |= {number: set() for number in scene.pairs}
        for word in scene.words:
            caption_labels[word.pair].add(word.label)
    all_captions = texts.mean(0)
    present = [{*scene.classes, scene.background} for scene in scenes.values()]
    result = []
    for label, region in pairs:
        asking = [number for number, labels in caption_labels.items() if label in labels and region not in labels]
        has = np.array([region in names and label not in names for names in present])
        neither = np.array([region not in names and label not in names for names in present])
        if not asking or not has.any() or not neither.any():
            result.append(np.nan)
            continue
        caption = texts[[rows[collection.pairs[number][1]] for number in asking]].mean(0) - all_captions
        scores = images @ caption
        wins = stats.mannwhitneyu(scores[has], scores[neither]).statistic
        result.append(float(wins) / (has.sum() * neither.sum()))
    return np.array(result, dtype=np.float64)


def spurious_section(
    collection: Collection, *, alpha: float = 0.05, seed: int = 0, progress: Progress | None = None
) -> Section:
    """The section on spurious pairs. The claims of each reading have a false discovery rate of at most `alpha`."""
    scenes = scenes_of(collection, progress)
    cases = spurious_cases(collection, scenes, seed=seed, progress=progress)
    table = spurious_table(cases)
    table["score"] = np.nan
    scored = table.index[table["reading"] == WITHOUT][:MOST_SCORED]
    pairs = [(str(row["class"]), str(row["region"])) for _, row in table.loc[scored].iterrows()]
    table.loc[scored, "score"] = scores_without(collection, scenes, pairs)
    claims = []
    for reading in (WITH, WITHOUT):
        claimed = table[(table["reading"] == reading) & (table["q"] <= alpha)]
        claims += [_claim(collection, scenes, cases, row) for _, row in claimed.head(MOST_CLAIMS).iterrows()]
    return Section(
        "Spurious pairs",
        ABOUT,
        claims,
        {"spurious pairs": table},
        nothing="No word rests on another object or background.",
    )


def region_name(region: str) -> str:
    """A region as a sentence names it."""
    kind, _, name = region.partition(": ")
    if kind != BACKGROUND:
        return f"“{region}”"
    return f"the background “{name}”" if name else "the background"


def _claim(collection: Collection, scenes: Mapping[str, Scene], cases: pd.DataFrame, row: pd.Series) -> Claim:
    region = region_name(row["region"])
    measured = (
        f"{row['share']:.0%} of its positive attribution lies there, {row['lift']:.1f} times what words of absent objects "
        "put there"
    )
    if row["reading"] == WITH:
        sentence = f"“{row['class']}” also rests on {region}: {measured} ({row['images']} images)."
    else:
        sentence = (
            f"“{row['class']}” rests on {region} where there is no {row['class']}: {measured} ({row['images']} images)"
        )
        if not np.isnan(row["score"]):
            sentence += f"; its captions score such images above others in {row['score']:.0%} of comparisons"
        sentence += "."
    which = (cases["reading"] == row["reading"]) & (cases["class"] == row["class"]) & (cases["region"] == row["region"])
    strongest = cases[which].assign(excess=cases["share"] - cases["usual"]).sort_values("excess", ascending=False)
    examples = [
        _case(collection, scenes, case) for _, case in strongest.drop_duplicates("image").head(MOST_CASES).iterrows()
    ]
    names = ("reading", "class", "region", "images", "share", "usual", "lift", "q")
    return Claim(sentence, examples, {"kind": "spurious", **{name: row[name] for name in names}})


def _case(collection: Collection, scenes: Mapping[str, Scene], case: pd.Series) -> Case:
    scene, region = scenes[case["image"]], str(case["region"])
    word_boxes = scene.boxes.get(str(case["class"]), ())
    region_boxes = scene.boxes.get(region, ())
    layout = image_layout(collection.images[case["image"]].layout)
    everything = [box for boxes in scene.boxes.values() for box in boxes]
    inside = (
        covered_share(layout, region_boxes, word_boxes)
        if region_boxes
        else covered_share(layout, [layout.frame], everything)
    )
    facts = f"“{case['class']}”: {case['share']:.0%} on {region_name(region)}, usual {case['usual']:.0%}; image {case['image']}"
    if case["reading"] == WITHOUT:
        facts += ", caption of another image"
    if region_boxes:
        facts += f"; orange: {region}"
    text = collection.pairs[int(case["pair"])][1]
    return map_case(
        collection,
        (str(case["image"]), text),
        (int(case["start"]), int(case["end"])),
        inside,
        word_boxes,
        facts,
        region_boxes,
    )
