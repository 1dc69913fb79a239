"""Hubs: images and captions that are close to everything on the other side, and how much of that is theirs alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from secondsight.answers.audit.rankings import NEAREST, RANKINGS, Direction, directions, hubness, rank_all
from secondsight.answers.collection import Collection, Progress
from secondsight.answers.pictures import coloured_words, photograph, text_of
from secondsight.answers.report import Case, Claim, Section
from secondsight.answers.significance import outlier_p, q_values
from secondsight.support.errors import InputError

MOST_CLAIMS = 8
"""Hubs of each side on the page; the tables have all entries."""

WRONG = 3
"""Nearest wrong entries that a hub's case names."""

ABOUT = (
    "An entry's usual similarity is its mean similarity to the whole other side: its embedding times the mean embedding. "
    "Usual similarities are always skewed, so an entry is called a hub only if it lies further above the others than their "
    "own skew and the slope of their upper tail allow. The usual similarity is an exact sum of the four terms with the other "
    "side's mean: base, this entry alone, the other side alone, interaction. The entry's alone term is not what to take off "
    "a ranking: it also holds what the entry shows."
)


def hubs_section(
    collection: Collection, *, alpha: float = 0.05, seed: int = 0, progress: Progress | None = None
) -> Section:
    """The section on hubs; each side's have a false discovery rate of at most `alpha`. `seed` samples very many queries."""
    _check(collection)
    claims: list[Claim] = []
    tables: dict[str, pd.DataFrame] = {}
    recalls, counts = [], []
    for direction in directions(collection):
        kind, other_side = ("image", "caption") if direction.name.endswith("image") else ("caption", "image")
        lists, recall, queries = rank_all(direction, seed=seed, progress=progress)
        table = hub_table(direction).assign(lists=lists.numpy() / queries)
        table.insert(0, kind, (collection.images if kind == "image" else collection.texts).keys())
        recalls.append(recall)
        counts.append({"entries": f"{kind}s", "in lists of": f"{other_side}s", "skewness of N_k": hubness(lists)})
        for row, entry in table[table["q"] <= alpha].nlargest(MOST_CLAIMS, "usual").iterrows():
            claims.append(_claim(collection, direction, int(str(row)), entry, table, kind))
        tables[f"{kind} hubs"] = table.sort_values("usual", ascending=False, ignore_index=True)
    tables["rankings"] = pd.concat(recalls)[["direction", "ranking", "recall@1", "recall@5"]].reset_index(drop=True)
    tables["hubness"] = pd.DataFrame(counts)
    return Section("Hubs", f"{ABOUT} {_here(tables['rankings'])}", claims, tables, nothing="No entry is a hub.")


def hub_table(direction: Direction) -> pd.DataFrame:
    """Every entry's usual similarity and its four terms, which add up to it, in the order of the entries.

    `p` and `q` are those of "it belongs to the others' upper tail".
    """
    mean, reference_mean = (x.double().mean(0) for x in (direction.queries, direction.query_references))
    references = direction.entry_references.double()
    moved, mean_moved = direction.entries.double() - references, mean - reference_mean
    table = pd.DataFrame(
        {
            "usual": (direction.entries.double() @ mean).numpy(),
            "base": (references @ reference_mean).numpy(),
            "alone": (moved @ reference_mean).numpy(),
            "other side alone": (references @ mean_moved).numpy(),
            "interaction": (moved @ mean_moved).numpy(),
        }
    )
    table["p"] = outlier_p(table["usual"])
    tested = table["p"].to_numpy() < 1
    table["q"] = 1.0
    table.loc[tested, "q"] = q_values(table["p"][tested])
    return table


def _check(collection: Collection) -> None:
    first = next(iter(collection.texts))
    if collection.texts[first].pairing is not None:
        raise InputError("this model matches token vectors one by one: it has no mean embedding, and no hubs by it")


def _here(rankings: pd.DataFrame) -> str:
    """What the rankings do on the data at hand."""
    recall = rankings[rankings["direction"] == "caption → image"].set_index("ranking")["recall@1"]
    return (
        f"Here it is {recall[RANKINGS[0]]:.0%} by similarity, {recall[RANKINGS[2]]:.0%} without the alone term and "
        f"{recall[RANKINGS[1]]:.0%} without the usual similarity."
    )


def _claim(
    collection: Collection, direction: Direction, row: int, entry: pd.Series, table: pd.DataFrame, kind: str
) -> Claim:
    other_side = "captions" if kind == "image" else "images"
    name = entry["image"] if kind == "image" else f"“{text_of(collection.texts[entry['caption']].layout)}”"
    parts = {name: entry[name] - table[name].mean() for name in ("usual", "alone", "interaction")}
    sentence = (
        f"The {kind} {name} is close to all {other_side}: mean similarity {entry['usual']:.3f}, which is {parts['usual']:+.3f} "
        f"above the average {kind}'s; {parts['alone']:+.3f} of that is what it has alone, {parts['interaction']:+.3f} its "
        f"interaction with the mean of the {other_side}. It is in the first {NEAREST} of {entry['lists']:.0%} of the "
        f"{other_side}."
    )
    numbers = {"kind": f"{kind} hub", "key": entry[kind], "usual": float(entry["usual"]), "q": float(entry["q"])}
    return Claim(sentence, _cases(collection, direction, row, entry, kind), numbers)


def _cases(collection: Collection, direction: Direction, row: int, entry: pd.Series, kind: str) -> list[Case]:
    """The hub, coloured by what each of its parts adds to its usual similarity, and its nearest wrong entries."""
    nearest = _nearest_wrong(direction, row)
    mean = direction.queries.double().mean(0)
    if kind == "image":
        image = collection.images[entry["image"]]
        photo = photograph(collection, entry["image"])
        heat = (
            None
            if photo is None
            else image.layout.heatmap((image.vectors.double() @ mean * image.scale).float()).numpy()
        )
        keys = collection.texts.keys()
        wrong = [f"“{text_of(collection.texts[keys[i]].layout)}” {value:.3f}" for i, value in nearest]
        return [Case(photo, heat, facts="where it is close to all captions; nearest wrong ones: " + ", ".join(wrong))]
    caption = collection.texts[entry["caption"]]
    values = caption.vectors.double() @ mean * caption.scale
    pieces = coloured_words(caption.layout, values)
    keys = collection.images.keys()
    cases = [Case(words=pieces, facts="what its words add to its mean similarity to all images")]
    for i, value in nearest:
        photo = photograph(collection, keys[i])
        cases.append(Case(photo, facts=f"a wrong image near it, {keys[i]}: similarity {value:.3f}"))
    return cases


def _nearest_wrong(direction: Direction, row: int) -> list[tuple[int, float]]:
    """The queries that are closest to an entry which is not right for them, with their similarities."""
    similarities = (direction.queries @ direction.entries[row]).numpy()
    wrong = ~(direction.right == row).any(1).numpy()
    order = [i for i in np.argsort(-similarities, kind="stable") if wrong[i]]
    return [(int(i), float(similarities[i])) for i in order[:WRONG]]
