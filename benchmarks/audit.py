"""An audit's words, hubs and clusters at size: seconds, peak memory, and what is left to do after a kill.

    python benchmarks/audit.py [ENTRIES [CELLS]]    # 10,000 images and captions, 50 cells, unless told otherwise

The stores hold random vectors with the shape and structure of real ones: 400 nouns with a direction each, images of three of
them, captions of 12 to 20 tokens that name two. Every section runs in a process of its own; the pass over the words is killed
when a quarter of its parts is there, and started again. Results go to benchmarks/results/audit-ENTRIES.json.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import described, peak

import secondsight as ss
from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import GridLayout, TokenLayout
from secondsight.answers import open_collection
from secondsight.answers.audit.clusters import clusters_section
from secondsight.answers.audit.hubs import hubs_section
from secondsight.answers.audit.words import words_section
from secondsight.scale.store import create_store, write_part

JOINT, NOUNS, PART = 512, 400, 256
FILLERS = "a the of with and on in near small red photo standing".split()  # noqa: SIM905
SECTIONS = {"words": words_section, "hubs": hubs_section, "clusters": clusters_section}


def build(folder, count, cells):
    """Both stores; seconds it took."""
    begun, model = time.perf_counter(), ss.load("scenes")
    generator = np.random.default_rng(0)
    directions = generator.normal(0, JOINT**-0.5, (NOUNS, JOINT)).astype(np.float32)
    shown = generator.integers(0, NOUNS, (count, 3))
    for side, kind in enumerate(("image", "text")):
        create_store(folder / kind, model, ss.IntegratedJacobian(), side)
        for first in range(0, count, PART):
            rows = range(first, min(first + PART, count))
            if kind == "image":
                entries = [image(generator, directions, shown[i], cells) for i in rows]
            else:
                entries = [caption(generator, directions, shown[i]) for i in rows]
            keys = [f"{i:06d}" + ("/0" if kind == "text" else "") for i in rows]
            write_part(folder / kind, first, keys, entries, "float16")
    return time.perf_counter() - begun


def image(generator, directions, nouns, cells):
    """A class token, and cells of which a part shows each noun."""
    side = round(cells**0.5)
    grid = (side, cells // side)
    vectors = generator.normal(0, 0.3 * JOINT**-0.5, (grid[0] * grid[1] + 1, JOINT)).astype(np.float32)
    for noun, places in zip(nouns, np.array_split(np.arange(1, len(vectors)), 4), strict=False):
        vectors[places] += directions[noun]
    layout = GridLayout(len(vectors), {0: "class"}, grid, (640, 480), (80.0, 0.0, 560.0, 480.0))
    return contributions(generator, vectors / len(vectors), layout)


def caption(generator, directions, nouns):
    """12 to 20 tokens with a start and an end."""
    words = list(generator.choice(FILLERS, generator.integers(8, 17)))
    words += [f"noun{nouns[0]}", f"noun{nouns[1]}"]
    vectors = generator.normal(0, 0.1 * JOINT**-0.5, (len(words) + 2, JOINT)).astype(np.float32)
    vectors[-3:-1] += directions[nouns[:2]]
    ends = np.cumsum([len(word) + 1 for word in words])
    offsets = [(int(end) - len(word) - 1, int(end) - 1) for end, word in zip(ends, words, strict=True)]
    size = len(words) + 2
    tokens = ("<s>", *words, "</s>")
    layout = TokenLayout(size, {0: "start", size - 1: "end"}, tokens, (None, *offsets, None), " ".join(words))
    return contributions(generator, vectors, layout)


def contributions(generator, vectors, layout):
    """Vectors from a common reference to an embedding; the similarity is a cosine."""
    reference = generator.normal(0, 0.1 * JOINT**-0.5, JOINT).astype(np.float32)
    embedding = reference + vectors.sum(0)
    tensors = [torch.from_numpy(values) for values in (vectors, embedding, reference)]
    return Contributions(*tensors, layout, 1 / float(np.linalg.norm(embedding)))


def run_section(name, folder):
    """A section in this process."""
    begun = time.perf_counter()
    collection = open_collection(folder / "image", folder / "text")
    section = SECTIONS[name](collection)
    return {"seconds": round(time.perf_counter() - begun, 1), "peak memory, GB": peak(), "claims": len(section.claims)}


def in_process(name, folder, kill_after=0):
    """A section in a process of its own, which is killed when so many partial tables are there."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, __file__, name, str(folder)], stdout=subprocess.PIPE, text=True)
    while kill_after and process.poll() is None:
        if len(list((folder / "text").glob(f"audit-{name}-*/*.parquet"))) >= kill_after:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return {"killed after, s": round(time.perf_counter() - begun, 1), "parts done": kill_after}
        time.sleep(0.05)
    return json.loads(process.communicate()[0].splitlines()[-1])


def main(count=10_000, cells=50):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        results = {"entries a side": count, "cells": cells, "build, s": round(build(folder, count, cells), 1)}
        results["words, killed"] = in_process("words", folder, kill_after=-(-count // PART) // 4)
        results["words, continued"] = in_process("words", folder)
        results["words, repeated"] = in_process("words", folder)
        for partial in (folder / "text").glob("audit-words-*/*.parquet"):
            partial.unlink()
        results["words, whole"] = in_process("words", folder)
        results["hubs"] = in_process("hubs", folder)
        results["clusters"] = in_process("clusters", folder)
    results |= {"load when it ended": os.getloadavg()[0], "machine": described()}
    Path(__file__).with_name("results").joinpath(f"audit-{count}.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in SECTIONS:
        print(json.dumps(run_section(sys.argv[1], Path(sys.argv[2]))))
    else:
        main(*map(int, sys.argv[1:]))
