"""One pair's whole matrix by libraries that could make it, beside ours, in one process: python benchmarks/rivals.py

- captum: LayerIntegratedGradients of g·v, once for every token's vector v: the same numbers as ours by another road. Few
  tokens are run and the time is multiplied, as each costs the same.
- shapiq: a FIxLIP-style game over cells and tokens, its k-additive regression of order 2, with a small budget; its time is
  that of the masked encodings, which its own approximation comes on top of.

ViT-B/32 with random weights, layer −1, a caption of 16 tokens. Prints JSON.
"""

import json
import statistics
import time
import warnings

import numpy as np
import open_clip
import shapiq
import torch
from captum.attr import LayerIntegratedGradients
from machine import described, peak
from PIL import Image

import secondsight as ss

CAPTION = "A white husky and a black dog running in a snow covered forest."
TOKENS, NODES, BUDGET = 3, 8, 64


def main(name="ViT-B-32"):
    torch.manual_seed(0)
    host = open_clip.create_model(name).eval()
    preprocess = open_clip.image_transform(host.visual.image_size, is_train=False)
    model = ss.wrap(host, preprocess, open_clip.get_tokenizer(name))
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (224, 224, 3), dtype=np.uint8))
    a, b = model.left.encoder.prepare(photo), model.right.encoder.prepare(CAPTION)
    found = {}

    def forward():
        with torch.no_grad():
            host.encode_image(a.tensor), host.encode_text(b.tensor)

    forward()
    method = ss.IntegratedJacobian(steps=NODES)
    method.interactions(model.left, model.right, a, [b])
    plain, ours = [], []
    for _ in range(7):
        begun = time.perf_counter()
        forward()
        plain.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        (pair,) = method.interactions(model.left, model.right, a, [b])
        matrix = pair.matrix
        ours.append(time.perf_counter() - begun)
    unit = statistics.median(plain)
    found["forward, s"] = unit
    found["ours, with the forward passes, s"] = statistics.median(ours)
    words = model.right.contributions([CAPTION], method)[0]
    black = model.left.encoder.reference(a, None, 0)
    layer = LayerIntegratedGradients(lambda x: host.encode_image(x) @ direction, host.visual.transformer.resblocks[-1])
    rows, begun = [], time.perf_counter()
    for j in range(1, 1 + TOKENS):
        direction = words.vectors[j] * words.scale
        made = layer.attribute(
            a.tensor, baselines=black, n_steps=NODES, method="gausslegendre", attribute_to_layer_input=True
        )
        made = made[0] if isinstance(made, tuple) else made
        rows.append(made[0].sum(-1).detach() / float(host.encode_image(a.tensor).norm()))
    each = (time.perf_counter() - begun) / TOKENS
    count = len(words.layout.visible) + len(words.layout.special)
    gap = max(float((matrix[:, j + 1] - row).abs().max()) for j, row in enumerate(rows))
    found["captum, s"] = each * count
    found["captum, times ours"] = each * count / found["ours, with the forward passes, s"]
    found["captum, largest difference / largest entry"] = gap / float(matrix.abs().max())
    players = len(pair.left_layout.visible) + len(pair.right_layout.visible)

    def game(masks):
        values = []
        for mask in masks:
            cells = torch.tensor(mask[: len(pair.left_layout.visible)]).view(pair.left_layout.grid).float()
            seen = torch.nn.functional.interpolate(cells[None, None], a.tensor.shape[-2:])[0]
            ids = b.tensor.clone()
            for k, i in enumerate(pair.right_layout.visible):
                if not mask[len(pair.left_layout.visible) + k]:
                    ids[0, i] = 0
            with torch.no_grad():
                g, h = host.encode_image(a.tensor * seen), host.encode_text(ids)
            values.append(float(torch.cosine_similarity(g, h)))
        return np.array(values)

    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        approximator = shapiq.KernelSHAPIQ(n=players, max_order=2, index="k-SII", random_state=0)
        approximator.approximate(budget=BUDGET, game=game)
    spent = time.perf_counter() - begun
    # A regression of order 2 needs at least as many masks as it has unknowns.
    unknowns = players * (players + 1) // 2
    found["shapiq, s for one mask"] = spent / BUDGET
    found["shapiq, s for as many masks as unknowns"] = spent / BUDGET * unknowns
    found["shapiq, times ours"] = spent / BUDGET * unknowns / found["ours, with the forward passes, s"]
    return {"model": name, "players": players, **found, "peak memory, GB": peak(), "machine": described()}


if __name__ == "__main__":
    print(json.dumps(main(), indent=1))
