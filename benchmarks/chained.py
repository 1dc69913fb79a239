"""Chained Jacobians: the cost of a deep explanation in forward passes of its pair, all measured in one run.

    python benchmarks/chained.py                       # all models, each in a process of its own, some ten minutes
    python benchmarks/chained.py ViT-B-16 6 0          # one open_clip configuration at some layers
    python benchmarks/chained.py --device cuda --precision bfloat16 ViT-B-16 6 0

Random full-size weights, a caption of 16 tokens, float32, medians. `linearise` is the image side's chain with its measured
residual, `15 rows` the matrix with the caption's 15 vectors, `1 row` a selection, in units of one forward pass of the pair;
`whole` is everything from model-ready inputs to the whole matrix, forward passes included, and `integrated` the same for the
integrated Jacobian (tol 1e-3). Memory is the process's peak, in brackets what it had before.
"""

import argparse
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

from machine import peak

ROOT = Path(__file__).parents[1]
CAPTION = "A white husky and a black dog running in a snow covered forest."
RUNS = (
    ("ViT-B-32", "6", "0", "input"),
    ("ViT-B-16", "6", "0", "input"),
    ("ViT-L-14", "12"),
    ("MobileCLIP2-S2", "-1"),
    ("minilm", "0"),
    ("builtin", "-1"),
)
HEAD = (
    "| model | layer | forward, s | linearise | 15 rows | 1 row | whole | integrated | residual | peak memory, GB |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def clock(run, repeats: int = 5) -> tuple[float, object]:
    """Median seconds of a call, and what it gave."""
    import torch

    times, result = [], None
    for _ in range(repeats):
        begun = time.perf_counter()
        result = run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), result


def load(name: str, device: str, precision: str):
    """The model and two model-ready inputs."""
    import torch

    import secondsight as ss

    torch.manual_seed(0)
    if name == "builtin":
        model = ss.load("builtin")
        return model, model.left.prepare([str(ROOT / "examples" / "coffee.jpg")]), model.right.prepare([CAPTION])
    if name == "minilm":
        model = ss.load("builtin").pair("text", "text")
        return model, model.left.prepare([CAPTION]), model.right.prepare(["Two dogs run through snow."])
    import open_clip

    host = open_clip.create_model(name).eval().requires_grad_(False).to(device, getattr(torch, precision))
    size = host.visual.image_size if isinstance(host.visual.image_size, int) else host.visual.image_size[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ss.wrap(host, tokenizer=open_clip.get_tokenizer(name))
    return model, model.left.prepare(torch.randn(1, 3, size, size)), model.right.prepare([CAPTION])


def measure(name: str, layers: list[str], device: str, precision: str) -> None:

    model, (image,), (text,) = load(name, device, precision)
    before = peak()

    def forward():
        model.left.embed_prepared([image]), model.right.embed_prepared([text])

    forward()
    unit, _ = clock(forward, 9)
    for layer in layers:
        number = layer if layer == "input" else int(layer)
        print(
            f"| {name} | {layer} | {unit:.4f} | {row(model, image, text, number, unit)} | {peak():.1f} ({before:.1f}) |",
            flush=True,
        )


def row(model, image, text, layer, unit: float) -> str:
    """The costs at one layer of the image side, as cells of the table."""
    import torch

    import secondsight as ss

    method = ss.ChainedJacobian(layer=(layer, -1))
    with torch.no_grad():
        x = next(iter(method.layer_inputs(model.left, [image])))
    linearise, contributions = clock(lambda: linearised(method, x))
    rows = torch.randn(15, len(contributions.embedding), device=contributions.embedding.device)
    many, _ = clock(lambda: contributions.rows.pull(rows))
    single, _ = clock(lambda: contributions.rows.pull(rows[:1]))
    whole, e = clock(lambda: explained(model, image, text, method), 3)
    cells = [f"{seconds / unit:.2f}" for seconds in (linearise, many, single, whole)]
    if layer in (0, "input") or unit > 0.4:
        integrated = "–"
    else:
        seconds, _ = clock(lambda: explained(model, image, text, ss.IntegratedJacobian(layer=(layer, -1))), 1)
        integrated = f"{seconds / unit:.1f}"
    return " | ".join([*cells, integrated, f"{e.outcomes[0].residual:.0e}"])


def linearised(method, x):
    """One input's contributions, not taken from what an earlier call kept."""
    from secondsight.support.guard import untouched

    with untouched(x.encoder.module):
        return method.contribute(x)


def explained(model, image, text, method):
    """A pair and its whole matrix."""
    pair = method.interactions(model.left, model.right, image, [text])[0]
    assert pair.matrix.isfinite().all()
    return pair


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("layers", nargs="*")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    if options.model:
        measure(options.model, options.layers, options.device, options.precision)
    else:
        print(HEAD, flush=True)
        for name, *layers in RUNS:
            command = [sys.executable, __file__, name, *layers, "--device", options.device]
            subprocess.run([*command, "--precision", options.precision], check=True, cwd=ROOT / "benchmarks")
