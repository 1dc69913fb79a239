"""Formats for a store of contributions, measured on the same rows; then the store itself at size.

    python benchmarks/stores.py formats     # Arrow IPC, Parquet (row groups of 1 and 64), Lance: write, open, one row
    python benchmarks/stores.py store       # 10,000 × 10,000 random contributions: build, reopen, random pairs, verify

Rows are those of a ViT-B/16 (197 × 512 float16) in `formats`, of half that many cells in `store`.
"""

import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import described, peak

import secondsight as ss
from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import GridLayout, TokenLayout
from secondsight.scale.rows import Part, pack_row, table_of
from secondsight.scale.store import create_store, open_store, write_part


def formats(count=4096):
    table = table_of(
        [pack_row(f"{i:08d}", random_contributions(i, 197, 512, "text"), "float16") for i in range(count)], "float16"
    )
    expected = np.asarray(table["vectors"].combine_chunks().flatten().flatten()).reshape(count, -1)
    picks = random.Random(0).sample(range(count), 400)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def measure(name, write, open_file, read):
            begun = time.perf_counter()
            write()
            written = time.perf_counter() - begun
            begun = time.perf_counter()
            handle = open_file()
            opened = time.perf_counter() - begun
            seconds = []
            for i in picks:
                begun = time.perf_counter()
                vectors = read(handle, i)
                seconds.append(time.perf_counter() - begun)
                assert np.array_equal(vectors, expected[i])
            files = place.glob(f"{name}/**/*" if (place / name).is_dir() else name)
            size = sum(path.stat().st_size for path in files if path.is_file())
            results[name] = {"write, s": written, "open, ms": 1e3 * opened, "MB": size / 1e6,
                             "one row, ms": 1e3 * statistics.median(seconds), "slowest, ms": 1e3 * max(seconds)}  # fmt: skip

        def write_arrow():
            with pa.ipc.new_file(str(place / "arrow"), table.schema) as writer:
                writer.write_table(table, max_chunksize=256)

        def open_arrow():
            batches = pa.ipc.open_file(pa.memory_map(str(place / "arrow")))
            return [Part(pa.Table.from_batches([batches.get_batch(i)])) for i in range(batches.num_record_batches)]

        measure("arrow", write_arrow, open_arrow, lambda parts, i: parts[i // 256].row(i % 256)["vectors"])
        for group in (1, 64):
            name = f"parquet{group}"
            options = dict(row_group_size=group, compression="none", use_dictionary=False, write_statistics=False)
            measure(
                name,
                lambda name=name, options=options: pq.write_table(table, place / name, **options),
                lambda name=name: pq.ParquetFile(place / name, memory_map=True),
                lambda f, i, group=group: flat(f.read_row_group(i // group, ["vectors"])["vectors"][i % group]),
            )
        try:
            import lance
        except ModuleNotFoundError:
            results["lance"] = "not installed (pip install pylance)"
        else:
            measure(
                "lance",
                lambda: lance.write_dataset(table, str(place / "lance")),
                lambda: lance.dataset(str(place / "lance")),
                lambda d, i: flat(d.take([i], columns=["vectors"])["vectors"][0]),
            )
    return {"rows": count, "formats": results, "machine": described()}


def flat(vectors):
    return np.asarray(vectors.values.flatten())


def random_contributions(i, features, joint, kind):
    g = torch.Generator().manual_seed(i)
    vectors = torch.randn(features, joint, generator=g) / features
    reference = torch.randn(joint, generator=g)
    if kind == "image":
        layout = GridLayout(features, {0: "class"}, (7, 14), (640, 480), (80.0, 0.0, 560.0, 480.0))
    else:
        words = tuple(f"w{j}" for j in range(features))
        layout = TokenLayout(features, {}, words, tuple((3 * j, 3 * j + 2) for j in range(features)), " ".join(words))
    embedding = reference + vectors.sum(0)
    return Contributions(vectors, embedding, reference, layout, 1 / float(embedding.norm()), {"method": "random"})


def store(count=10_000, joint=512):
    model, results, stores = ss.load("scenes"), {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for side, (kind, features) in enumerate((("image", 99), ("text", 16))):
            place = Path(folder) / kind
            create_store(place, model, ss.IntegratedJacobian(), side)
            begun = time.perf_counter()
            for first in range(0, count, 256):
                group = range(first, min(count, first + 256))
                entries = [random_contributions(i, features, joint, kind) for i in group]
                write_part(place, first, [f"{i:06d}" for i in group], entries, "float16")
            built = time.perf_counter() - begun
            begun = time.perf_counter()
            stores[kind] = open_store(place)
            results[kind] = {"build, s": built, "open, s": time.perf_counter() - begun, **stores[kind].summary()}
        images, texts = stores["image"], stores["text"]
        rng, seconds = random.Random(0), []
        for _ in range(500):
            i, j = (f"{rng.randrange(count):06d}" for _ in range(2))
            begun = time.perf_counter()
            pair = images[i] @ texts[j]
            _ = pair.matrix, pair.terms
            seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        damaged = len(images.verify())
        results["pair, ms"] = {"median": 1e3 * statistics.median(seconds), "slowest of 500": 1e3 * max(seconds)}
        results["verify images, s"] = time.perf_counter() - begun
        results["damaged"] = damaged
    return {"entries a side": count, **results, "peak memory, GB": peak(), "machine": described()}


if __name__ == "__main__":
    print(json.dumps({"formats": formats, "store": store}[sys.argv[1]](), indent=1))
