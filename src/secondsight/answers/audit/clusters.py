"""Words and the kinds of regions that they rest on, where no boxes say what the regions show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import GridLayout
from secondsight.answers.audit.region_clusters import MOST_REGIONS, RegionClusters, region_clusters, unit_regions
from secondsight.answers.audit.word_parts import CONTENT, PUNCTUATION, part_of
from secondsight.answers.collection import Collection, Progress
from secondsight.answers.partial import by_part, partial_folder
from secondsight.answers.pictures import photograph, text_of
from secondsight.answers.report import Case, Claim, Section
from secondsight.answers.significance import FEWEST, above_p, image_means, q_values

SHARE = 0.2
"""A word rests on a cluster where at least this share of its attribution lies there."""

LIFT = 1.5
"""And at least so many times what the captions' other words have there."""

WEAK = 0.1
"""Words of less than this share of the average content word's attribution rest on nothing."""

MOST_CLAIMS = 15
"""Claims on the page; the table has all words and clusters."""

ABOUT = (
    "Without boxes, regions are sorted by themselves: regions whose vectors point the same way form a cluster (k-means on "
    "their directions), shown by its most typical regions. The share of a word's positive attribution that lies in a "
    "cluster's regions is compared with the share that the other words of the same captions have there, image by image, so "
    "that regions which attract every word count for none."
)


@dataclass(frozen=True, eq=False)
class ClusterMeasure:
    """Measures where the content words of the captions with given keys lie: a row for each word, image and cluster.

    Columns: `word`, `image` (its row in the store), `cluster`, `count` of occurrences, and sums over them of the `share` of the
    word's positive attribution in the cluster's regions, of the other words' mean share there (`chance`), and of the word's
    whole positive attribution (`attribution`).
    """

    collection: Collection
    clusters: RegionClusters

    @cached_property
    def _image_of(self) -> dict[str, str]:
        return {text: image for image, text in self.collection.pairs}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.collection.images.keys())}

    def __call__(self, keys: Sequence[str]) -> pd.DataFrame:
        """The table of these captions; those that belong to no image are left out."""
        captions: dict[str, list[str]] = {}
        for key in keys:
            if key in self._image_of:
                captions.setdefault(self._image_of[key], []).append(key)
        tables = [_NOTHING]
        for key, texts in captions.items():
            image = self.collection.images[key]
            vectors = image.vectors.numpy()
            units, features = unit_regions(vectors, image.layout.visible)
            members, regions = self.clusters.assign(units), vectors[features] * image.scale
            shares = (word_shares(self.collection.texts[text], regions, members) for text in texts)
            tables += [table.assign(image=self._rows[key]) for table in shares if len(table)]
        return _summed(pd.concat(tables, ignore_index=True))


_NOTHING = pd.DataFrame(
    {
        "word": pd.Series(dtype=str),
        "image": pd.Series(dtype=np.int64),
        "cluster": pd.Series(dtype=np.int64),
        **{name: pd.Series(dtype=np.float64) for name in ("count", "share", "chance", "attribution")},
    }
)


def word_shares(caption: Contributions, regions: np.ndarray, members: np.ndarray) -> pd.DataFrame:
    """The rows of `ClusterMeasure` for one caption, of an image's regions (region, joint) and their clusters."""
    words = [word for word in caption.layout.words if word.features and part_of(word.text) != PUNCTUATION]
    if not words or not len(regions):
        return pd.DataFrame()
    names = np.array([word.text.lower() for word in words], dtype=object)
    tokens = caption.vectors.numpy() * caption.scale
    positive = np.maximum(regions @ np.stack([tokens[list(word.features)].sum(0) for word in words]).T, 0)
    totals = positive.sum(0)
    present = np.unique(members)
    inside = np.stack([positive[members == cluster].sum(0) for cluster in present])
    shares = inside / np.where(totals > 0, totals, 1.0)
    different = (names[:, None] != names[None]) & (totals > 0)
    counts = different.sum(1)
    chances = shares @ different.T / np.maximum(counts, 1)
    content = np.array([part_of(name) == CONTENT for name in names])
    counted = np.flatnonzero(content & (totals > 0) & (counts > 0))
    return pd.DataFrame(
        {
            "word": np.repeat(names[counted], len(present)),
            "cluster": np.tile(present, len(counted)),
            "count": 1.0,
            "share": shares[:, counted].T.ravel(),
            "chance": chances[:, counted].T.ravel(),
            "attribution": np.repeat(totals[counted].astype(np.float64), len(present)),
        }
    )


def word_cluster_table(shares: pd.DataFrame) -> pd.DataFrame:
    """Words and clusters that enough images have together, those whose share is most above chance first.

    `shares` are the rows of `ClusterMeasure`. `share` and `chance` are means over the images that have the word and a region of
    the cluster, `lift` is their ratio, `low` … `high` the interval of share − chance; `attribution` is the word's, as a
    multiple of the average content word's. `q` is over all rows.
    """
    shares = shares.assign(over=shares["share"] - shares["chance"])
    means = image_means(shares, ["word", "cluster"], "over")
    means = means[means["images"] >= FEWEST]
    sides = shares.groupby(["word", "cluster"])[["share", "chance"]].mean()
    of_words = shares.drop_duplicates(["word", "image"]).groupby("word")["attribution"].mean()
    table = means[["images"]].join(sides).reset_index()
    table["lift"] = table["share"] / table["chance"].where(table["chance"] > 0)
    table["low"], table["high"] = means["low"].to_numpy(), means["high"].to_numpy()
    table["attribution"] = table["word"].map(of_words / of_words.mean())
    table["q"] = q_values(above_p(means))
    return table.iloc[np.argsort(-means["mean"].to_numpy(), kind="stable")].reset_index(drop=True)


def clusters_section(
    collection: Collection, *, alpha: float = 0.05, seed: int = 0, progress: Progress | None = None
) -> Section:
    """The section on words and clusters of regions, with a false discovery rate of at most `alpha`.

    The rate is that of all rows whose share is above chance, of which only the larger shares and lifts are claimed.
    """
    folder = clusters_folder(collection, seed)
    clusters = region_clusters(collection, folder, seed=seed, progress=progress)
    measure = ClusterMeasure(collection, clusters)
    shares = _summed(by_part(collection, folder, measure, "measuring words in clusters", progress))
    for name in ("share", "chance", "attribution"):
        shares[name] /= shares["count"]
    table = word_cluster_table(shares)
    claimed = table[
        (table["q"] <= alpha) & (table["share"] >= SHARE) & (table["lift"] >= LIFT) & (table["attribution"] >= WEAK)
    ]
    claims = [_claim(collection, clusters, shares, row) for _, row in claimed.head(MOST_CLAIMS).iterrows()]
    return Section(
        "Words and kinds of regions",
        ABOUT,
        claims,
        {"words and clusters": table, "clusters": cluster_table(collection, clusters, claimed)},
        nothing="No word rests on one kind of region more than the other words do.",
    )


def clusters_folder(collection: Collection, seed: int) -> Path:
    """Where the clusters and the partial tables of `clusters_section` are kept."""
    return partial_folder(collection, "clusters", [seed, MOST_REGIONS])


def cluster_table(collection: Collection, clusters: RegionClusters, claimed: pd.DataFrame) -> pd.DataFrame:
    """Every cluster with its share of the regions, the words that rest on it, and the images of its most typical regions."""
    keys = collection.images.keys()
    words = claimed.groupby("cluster")["word"].apply(lambda names: ", ".join(names.head(5)))
    return pd.DataFrame(
        {
            "cluster": range(len(clusters.centres)),
            "share of regions": clusters.share,
            "words": [words.get(cluster, "") for cluster in range(len(clusters.centres))],
            "typical images": [", ".join(keys[row] for row in rows if row >= 0) for rows in clusters.images],
        }
    )


def _claim(collection: Collection, clusters: RegionClusters, shares: pd.DataFrame, row: pd.Series) -> Claim:
    word, cluster = row["word"], int(row["cluster"])
    sentence = (
        f"“{word}” rests on regions of cluster {cluster}: {row['share']:.0%} of its attribution lies there, {row['lift']:.1f} "
        f"times as much as of the captions' other words ({row['images']} images)."
    )
    numbers = {
        "word": word,
        "cluster": cluster,
        "share": float(row["share"]),
        "lift": float(row["lift"]),
        "q": row["q"],
    }
    examples = shares[(shares["word"] == word) & (shares["cluster"] == cluster)].nlargest(3, "share")
    keys = collection.images.keys()
    cases = [_word_case(collection, keys[image], word) for image in examples["image"]]
    typical = zip(clusters.images[cluster][:3], clusters.features[cluster][:3], strict=True)
    cases += [_region_case(collection, keys[image], int(feature), cluster) for image, feature in typical if image >= 0]
    return Claim(sentence, [case for case in cases if case is not None], numbers)


def _region_case(collection: Collection, image: str, feature: int, cluster: int) -> Case:
    """A typical region as a box on its photograph."""
    layout = collection.images[image].layout
    boxes = []
    if isinstance(layout, GridLayout):
        x0, y0, x1, y1 = layout.cell_boxes()[layout.visible.index(feature)].tolist()
        boxes = [(x0, y0, x1, y1)]
    return Case(photograph(collection, image), boxes=boxes, facts=f"typical of cluster {cluster}: a region of {image}")


def _word_case(collection: Collection, image: str, word: str) -> Case | None:
    """The map of a word in the first of an image's captions that has it."""
    for key, text in collection.pairs:
        if key != image:
            continue
        caption = collection.texts[text]
        tokens = [i for place in caption.layout.words if place.text.lower() == word for i in place.features]
        if tokens:
            photo = photograph(collection, image)
            heat = None if photo is None else (collection.images[image] @ caption).heatmap(tokens).float().numpy()
            return Case(photo, heat, facts=f"the map of “{word}” in “{text_of(caption.layout)}”")
    return None


def _summed(table: pd.DataFrame) -> pd.DataFrame:
    return table.groupby(["word", "image", "cluster"], as_index=False).sum()
