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
from secondsight.scale.rows import schema
from secondsight.scale.store import create_store, open_store, write_part


def row(i, rng):
    return {
        "key": f"{i:08d}",
        "checksum": 0,
        "embedding": rng.standard_normal(512, dtype=np.float32),
        "reference": rng.standard_normal(512, dtype=np.float32),
        "scale": 1.0,
        "residual": 0.0,
        "rounding": 0.0,
        "layout": "{}",
        "about": "{}",
        "steps": rng.standard_normal(197, dtype=np.float32).tobytes(),
        "vectors": rng.standard_normal((197, 512), dtype=np.float32).astype("<f2").tobytes(),
    }


def formats(count=4096):
    rng, columns = np.random.default_rng(0), schema(512)
    rows = [row(i, rng) for i in range(count)]
    table = pa.table({n: pa.array([r[n] for r in rows], columns.field(n).type) for n in columns.names}, columns)
    picks = random.Random(0).sample(range(count), 400)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def measure(name, write, opened, read):
            begun = time.perf_counter()
            write()
            written = time.perf_counter() - begun
            begun = time.perf_counter()
            handle = opened()
            open_time = time.perf_counter() - begun
            spent = []
            for i in picks:
                begun = time.perf_counter()
                got = read(handle, i)
                spent.append(time.perf_counter() - begun)
                assert bytes(got) == rows[i]["vectors"]
            size = sum(
                p.stat().st_size
                for p in place.rglob(f"{name}*/**/*" if (place / name).is_dir() else name)
                if p.is_file()
            )
            found[name] = {"write, s": written, "open, ms": 1e3 * open_time, "MB": size / 1e6,
                           "one row, ms": 1e3 * statistics.median(spent), "slowest, ms": 1e3 * max(spent)}  # fmt: skip

        def ipc():
            with pa.ipc.new_file(str(place / "arrow"), columns) as writer:
                writer.write_table(table, max_chunksize=256)

        def ipc_open():
            return pa.ipc.open_file(pa.memory_map(str(place / "arrow"))).read_all()

        measure("arrow", ipc, ipc_open, lambda t, i: t["vectors"][i].as_buffer().to_pybytes())
        for group in (1, 64):
            name = f"parquet{group}"
            options = dict(row_group_size=group, compression="none", use_dictionary=False, write_statistics=False)
            measure(
                name,
                lambda name=name, options=options: pq.write_table(table, place / name, **options),
                lambda name=name: pq.ParquetFile(place / name, memory_map=True),
                lambda f, i, group=group: f.read_row_group(i // group, ["vectors"])["vectors"][i % group].as_py(),
            )
        try:
            import lance
        except ModuleNotFoundError:
            found["lance"] = "not installed (pip install pylance)"
        else:
            measure(
                "lance",
                lambda: lance.write_dataset(table, str(place / "lance")),
                lambda: lance.dataset(str(place / "lance")),
                lambda d, i: d.take([i], columns=["vectors"])["vectors"][0].as_py(),
            )
    return {"rows": count, "formats": found, "machine": described()}


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
    model, found = ss.load("scenes"), {}
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for side, (kind, features) in enumerate((("image", 99), ("text", 16))):
            place = Path(folder) / kind
            create_store(place, model, ss.IntegratedJacobian(), side)
            begun = time.perf_counter()
            for first in range(0, count, 256):
                some = range(first, min(count, first + 256))
                rows = [random_contributions(i, features, joint, kind) for i in some]
                write_part(place, first, [f"{i:06d}" for i in some], rows, "float16")
            built = time.perf_counter() - begun
            begun = time.perf_counter()
            made[kind] = open_store(place)
            found[kind] = {"build, s": built, "open, s": time.perf_counter() - begun, **made[kind].summary()}
        images, texts = made["image"], made["text"]
        rng, spent = random.Random(0), []
        for _ in range(500):
            i, j = (f"{rng.randrange(count):06d}" for _ in range(2))
            begun = time.perf_counter()
            pair = images[i] @ texts[j]
            _ = pair.matrix, pair.terms
            spent.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        damaged = len(images.verify())
        found["pair, ms"] = {"median": 1e3 * statistics.median(spent), "slowest of 500": 1e3 * max(spent)}
        found["verify images, s"] = time.perf_counter() - begun
        found["damaged"] = damaged
    return {"entries a side": count, **found, "peak memory, GB": peak(), "machine": described()}


if __name__ == "__main__":
    print(json.dumps({"formats": formats, "store": store}[sys.argv[1]](), indent=1))
