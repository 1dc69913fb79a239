"""The passes over all words on several machines: actors write the partial tables that the audit then reads.

All machines need access to both stores. A table is named after the part of the store that it measures, so work that Ray repeats
after losing a machine writes the same table again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from secondsight.answers.audit.clusters import ClusterMeasure, clusters_folder
from secondsight.answers.audit.region_clusters import region_clusters
from secondsight.answers.audit.word_parts import WordMeasure
from secondsight.answers.collection import Collection, Progress
from secondsight.answers.partial import partial_folder, partial_table
from secondsight.scale.ray_engine import by_actors, connect
from secondsight.scale.store import open_store


def words_with_ray(
    collection: Collection,
    *,
    address: str | None = None,
    actors: int = 1,
    cpus: float = 1,
    progress: Progress | None = None,
) -> int:
    """Measure the words of all captions by `actors` workers of a Ray cluster, each with `cpus` cores.

    `word_parts` and `words_section` then read what was measured; tables of an earlier run are kept. `address` is the cluster's,
    None starts Ray on this machine. Returns the number of captions. Raises `InputError` where there is no cluster.
    """
    connect(address)
    folder = partial_folder(collection, "words")
    return measure_parts(
        collection, folder, WordMeasure, actors=actors, cpus=cpus, doing="measuring words", progress=progress
    )


def clusters_with_ray(
    collection: Collection,
    *,
    address: str | None = None,
    actors: int = 1,
    cpus: float = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> int:
    """Measure which clusters of regions words rest on, as `words_with_ray`; the clusters themselves are fitted here."""
    connect(address)
    folder = clusters_folder(collection, seed)
    clusters = region_clusters(collection, folder, seed=seed, progress=progress)
    return measure_parts(
        collection,
        folder,
        ClusterMeasure,
        (clusters,),
        actors=actors,
        cpus=cpus,
        doing="measuring words in clusters",
        progress=progress,
    )


def measure_parts(
    collection: Collection,
    folder: Path,
    measure: type,
    arguments: Sequence[Any] = (),
    *,
    actors: int = 1,
    cpus: float = 1,
    doing: str = "measuring",
    progress: Progress | None = None,
) -> int:
    """Write the partial tables of `measure(collection, *arguments)` for all parts of the captions' store into a folder.

    Needs a connection to Ray. Returns the number of captions.
    """
    parts = collection.texts.parts()
    rows = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    options = {
        "images": str(collection.images.folder.absolute()),
        "texts": str(collection.texts.folder.absolute()),
        "pairs": ray.put(list(collection.pairs)),
        "folder": str(folder.absolute()),
        "measure": measure,
        "arguments": tuple(arguments),
    }
    done = 0
    for row in by_actors(rows, Measurer, {"options": options}, 1, actors, 0, cpus).iter_rows():
        done += int(row["captions"])
        if progress is not None:
            progress(doing, done, len(collection.texts))
    return done


class Measurer:
    """An actor with its own view of the stores; a call writes one partial table."""

    def __init__(self, options: dict[str, Any]) -> None:
        pairs = options["pairs"]
        pairs = ray.get(pairs) if isinstance(pairs, ray.ObjectRef) else pairs
        collection = Collection(open_store(options["images"]), open_store(options["texts"]), pairs)
        self.folder, self.parts = Path(options["folder"]), collection.texts.parts()
        self.measure = options["measure"](collection, *options["arguments"])

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Measure the parts of a batch; parts that an earlier run wrote are kept."""
        keys = {str(part): self.parts[str(part)] for part in batch["part"]}
        for part, keys_of_part in keys.items():
            partial_table(self.folder, part, keys_of_part, self.measure)
        return {"captions": [sum(map(len, keys.values()))]}
