"""Kinds of regions without annotations: clusters of the directions of regions' vectors."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from secondsight.answers.collection import Collection, Progress
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder

MOST_REGIONS = 100_000
"""Regions that are clustered; of more, equally many of every image are drawn."""

MOST_CLUSTERS = 128
"""Clusters of as many regions as are clustered; of fewer regions, half of the root of their number."""

TYPICAL = 6
"""Most typical regions that are kept of each cluster, of different images."""


@dataclass(frozen=True, eq=False)
class RegionClusters:
    """Clusters of regions by the direction of their vectors: unit `centres`, and the `share` of the regions in each.

    `images` (rows in the store) and `features` are those of the most typical regions of each cluster, the nearest to its
    centre first; −1 where it has fewer.
    """

    centres: Float[np.ndarray, "cluster joint"]
    share: Float[np.ndarray, " cluster"]
    images: Int[np.ndarray, "cluster typical"]
    features: Int[np.ndarray, "cluster typical"]

    def assign(self, vectors: Float[np.ndarray, "region joint"]) -> Int[np.ndarray, " region"]:
        """The cluster of each region: the centre with the largest cosine."""
        return (vectors @ self.centres.T).argmax(1)


def region_clusters(
    collection: Collection, folder: Path, *, seed: int = 0, progress: Progress | None = None
) -> RegionClusters:
    """The clusters of a collection's regions, read from the folder where an earlier run wrote them.

    Special features and regions whose vector is zero belong to none. Raises `InputError` without scikit-learn, and for fewer
    than two regions.
    """
    path = folder / "clusters.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError), np.load(path, allow_pickle=False) as saved:
        return RegionClusters(*(saved[name] for name in ("centres", "share", "images", "features")))
    vectors, images, features = _sample(collection, seed, progress)
    clusters = _fitted(vectors, images, features, seed)
    with contextlib.suppress(OSError, InputError):
        ensure_folder(folder)
        with atomic(path) as file:
            np.savez(file, **vars(clusters))
    return clusters


def _sample(
    collection: Collection, seed: int, progress: Progress | None
) -> tuple[Float[np.ndarray, "region joint"], Int[np.ndarray, " region"], Int[np.ndarray, " region"]]:
    """Unit vectors of regions, their images' rows, and which features they are."""
    generator = np.random.default_rng(seed)
    keys = collection.images.keys()
    rows = np.arange(len(keys))
    if len(rows) > MOST_REGIONS:
        rows = np.sort(generator.choice(rows, MOST_REGIONS, replace=False))
    most = MOST_REGIONS // len(rows)
    vectors, images, features = [], [], []
    for done, row in enumerate(rows, 1):
        image = collection.images[keys[row]]
        units, visible = unit_regions(image.vectors.numpy(), image.layout.visible)
        drawn = np.sort(generator.choice(len(visible), min(most, len(visible)), replace=False))
        vectors.append(units[drawn])
        features.append(visible[drawn])
        images.append(np.full(len(drawn), row))
        if progress is not None and (done % 100 == 0 or done == len(rows)):
            progress("reading regions", done, len(rows))
    if sum(map(len, vectors)) < 2:
        raise InputError("clusters need at least two regions: the store's images have too few visible cells")
    return np.concatenate(vectors), np.concatenate(images), np.concatenate(features)


def unit_regions(
    vectors: Float[np.ndarray, "feature joint"], visible: list[int]
) -> tuple[Float[np.ndarray, "region joint"], Int[np.ndarray, " region"]]:
    """The directions of the visible features whose vector is not zero, and which features they are."""
    features = np.array(visible, dtype=np.int64)
    lengths = np.linalg.norm(vectors[features], axis=1)
    features, lengths = features[lengths > 0], lengths[lengths > 0]
    return (vectors[features] / lengths[:, None]).astype(np.float32), features


def _fitted(
    vectors: Float[np.ndarray, "region joint"],
    images: Int[np.ndarray, " region"],
    features: Int[np.ndarray, " region"],
    seed: int,
) -> RegionClusters:
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ModuleNotFoundError as problem:
        raise InputError("clusters of regions need scikit-learn: pip install 'secondsight[eval]'") from problem
    count = min(MOST_CLUSTERS, max(2, int(len(vectors) ** 0.5 / 2)))
    means = MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=4096).fit(vectors).cluster_centers_
    means = means.astype(np.float32)
    centres = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    cosines = vectors @ centres.T
    members = cosines.argmax(1)
    typical = np.full((2, count, TYPICAL), -1)
    for cluster in range(count):
        inside = np.flatnonzero(members == cluster)
        inside = inside[np.argsort(-cosines[inside, cluster], kind="stable")]
        _, firsts = np.unique(images[inside], return_index=True)
        nearest = inside[np.sort(firsts)[:TYPICAL]]
        typical[:, cluster, : len(nearest)] = images[nearest], features[nearest]
    share = np.bincount(members, minlength=count) / len(vectors)
    return RegionClusters(centres, share, typical[0], typical[1])
