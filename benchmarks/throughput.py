"""Contributions of many inputs beside plain embeddings, in one process and turn by turn.

    python benchmarks/throughput.py                       # ViT-B/16, layer −1, about five minutes on two cores
    python benchmarks/throughput.py --json results.json --model ViT-B-32 --device cuda --precision bf16

Prints entries a second of both and their ratio (medians over turns), what a pair of the N × M costs when both sides are
there, and the process's peak memory after N and after 4 N inputs. Random full-size weights, prepared inputs.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from machine import described, peak
from PIL import Image

import secondsight as ss
from secondsight.scale import decompose
from secondsight.scale.place import move_model
from secondsight.scale.sources import Source

TEXTS = ["a cup of coffee and a spoon on a wooden table", "two dogs running after a ball on the beach"]


def timed(device, work):
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main(name, device, precision, n, turns, layer):
    torch.manual_seed(0)
    host = open_clip.create_model(name).eval()
    preprocess = open_clip.image_transform(host.visual.image_size, is_train=False)
    dual = move_model(ss.wrap(host, preprocess, open_clip.get_tokenizer(name)), device, precision)
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8)) for _ in range(n)]
    method = ss.IntegratedJacobian(layer=layer)
    rows = {}
    for side, raw in ((dual.left, photos), (dual.right, [TEXTS[i % 2] + f" number {i}" for i in range(n)])):
        inputs = side.prepare(raw)
        size = 16 if device == "cpu" else 64
        batches = [torch.cat([p.tensor for p in inputs[i : i + size]]).to(device) for i in range(0, n, size)]
        encode = host.encode_image if side is dual.left else host.encode_text
        low = next(host.parameters()).dtype

        def embed(batches=batches, encode=encode, low=low):
            with torch.no_grad():
                for batch in batches:
                    encode(batch.to(low) if batch.is_floating_point() else batch)

        def contribute(side=side, inputs=inputs):
            return method.contributions(side, inputs)

        embed(), contribute()
        plain, ours = [], []
        for _ in range(turns):
            plain.append(timed(device, embed))
            ours.append(timed(device, contribute))
        made = contribute()
        rows[side.kind] = {
            "embeddings a second": n / statistics.median(plain),
            "contributions a second": n / statistics.median(ours),
            "ratio": statistics.median(plain) / statistics.median(ours),
            "residual": max(c.relative_residual for c in made),
            "vectors": list(made[0].vectors.shape),
        }
        rows[side.kind]["made"] = made
    images, texts = rows["image"].pop("made"), rows["text"].pop("made")
    begun = time.perf_counter()
    for u in images:
        for v in texts:
            _ = (u @ v).matrix
    pair = (time.perf_counter() - begun) / len(images) / len(texts)
    memory = grown(dual, photos, method)
    return {"model": name, "device": device, "precision": precision, "layer": layer, "n": n, **rows,
            "pair, s": pair, "memory, GB": memory, "machine": described()}  # fmt: skip


def grown(dual, photos, method):
    """Peak memory after decomposing N images into a store, and after three times as many more."""
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for count in (len(photos), 4 * len(photos)):
            source = Source("image", [str(i) for i in range(count)], lambda i: photos[i % len(photos)])
            decompose(source, dual, Path(place) / "s", method, part=32, workers=0)
            found[f"{count} images"] = round(peak(), 3)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default=None)
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("-n", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    result = main(a.model, a.device, a.precision, a.n, a.turns, a.layer)
    print(json.dumps(result, indent=1))
    if a.json:
        a.json.write_text(json.dumps(result, indent=1))
