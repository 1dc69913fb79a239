"""secondsight against the public implementation, in one run: python benchmarks/compare_exclip.py [--model …] [--full]

Random full-size open_clip models (cost does not depend on the weights), float32, a caption of 16 tokens, one pair, the
same references on both sides. Every row is a process of its own, so that its peak memory is its own; rows run one after
the other on an otherwise idle machine. `forward` is the host model's encode_image + encode_text of the pair; our times
and exclip's leave it out. Ours are medians of 7, exclip's (minutes each) single runs. exclip 1.1 is installed without
its dependencies into a folder of its own. Prints the table of docs/benchmarks.md and keeps it as
results/exclip.md.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve()
CAPTION = "A white husky and a black dog running in a snow covered forest."
ROOT = HERE.parents[1]


def rss() -> float:
    """Resident memory now, in GB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e9


class Peak:
    """Peak resident memory while the block runs, and what was there before it."""

    def __enter__(self):
        self.before = self.most = rss()
        self.over = threading.Event()

        def watch():
            while not self.over.wait(0.005):
                self.most = max(self.most, rss())

        self.thread = threading.Thread(target=watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.most = max(self.most, rss())


def host(name: str):
    """A random model, its pixels and token ids, and the references that both sides use."""
    import open_clip
    import torch

    torch.manual_seed(0)
    model, _, _ = open_clip.create_model_and_transforms(name)
    model.eval().requires_grad_(False)
    size = model.visual.image_size[0]
    image, text = torch.randn(1, 3, size, size), open_clip.get_tokenizer(name)([CAPTION])
    padding = torch.zeros_like(text)
    end = int(text.argmax())
    padding[0, 0], padding[0, end] = text[0, 0], text[0, end]
    return model, image, text, torch.zeros_like(image), padding


def forward(model, image, text) -> float:
    import torch

    times = []
    with torch.no_grad():
        for _ in range(9):
            begun = time.perf_counter()
            model.encode_image(image), model.encode_text(text)
            times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


def measure_ours(name: str, layer: int) -> dict:
    import secondsight as ss

    model, image, text, zeros, padding = host(name)
    base = forward(model, image, text)
    dual = ss.wrap(model)
    method = ss.IntegratedJacobian(layer=layer, reference=(zeros, padding), tol=1e-3)
    from secondsight.support.guard import untouched

    deep = layer != -1
    seconds = {"pair": [], "U": []}
    a, b = dual.left.encoder.prepare(image), dual.right.encoder.prepare(text)
    with Peak() as peak:
        explanation = ss.explain(dual, image, text, method)
        explanation.matrix
    with untouched(model):
        # The host's forward passes stay outside the clock; a copy of a layer's input forgets what was computed from it.
        image_at_layer, text_at_layer = (
            next(method.layer_inputs(dual.left, [a])),
            next(method.layer_inputs(dual.right, [b])),
        )
        for _ in range(3 if deep else 9):
            begun = time.perf_counter()
            right = method.contribute(replace(text_at_layer)).dense()
            between = time.perf_counter()
            left = method.contribute(replace(image_at_layer))
            adapted = time.perf_counter()
            pair = left @ right
            pair.matrix, pair.left_effects
            seconds["pair"].append(time.perf_counter() - begun)
            if not deep:
                left = method.contribute(replace(image_at_layer))
                begun = time.perf_counter()
                left.dense()
                seconds["U"].append(time.perf_counter() - begun + adapted - between)
            forward(model, image, text) if not deep else None
    outcomes = explanation.outcomes
    residual = max(outcome.residual for outcome in outcomes)
    nodes = "/".join(str(outcome.nodes) for outcome in outcomes)
    skip = 1 if deep else 2
    row = {"forward": base, "pair": statistics.median(seconds["pair"][skip:]), "residual": residual, "nodes": nodes}
    if seconds["U"]:
        row["U"] = statistics.median(seconds["U"][skip:])
    return {**row, "gb": peak.most, "gb_before": peak.before}


def measure_exclip(name: str, layer: int, steps: int) -> dict:
    import torch
    from exclip import OpenClipExplainer

    model, image, text, zeros, padding = host(name)
    base = forward(model, image, text)
    depth = len(model.visual.transformer.resblocks)
    model.requires_grad_(True)  # its graph starts at the weights
    explainer = OpenClipExplainer(model, image_dim=image.shape[-1], device=torch.device("cpu"))
    explainer.img_ref, explainer.txt_ref = zeros, padding
    with Peak() as peak:
        begun = time.perf_counter()
        explainer.explain(text, image, text_layer=layer % depth, image_layer=layer % depth, N=steps)
        seconds = time.perf_counter() - begun
    return {"forward": base, "pair": seconds - base, "gb": peak.most, "gb_before": peak.before, "nodes": str(steps)}


def child(kind: str, *arguments: str, packages: Path) -> dict | None:
    """One measurement in a process of its own; None where it ran out of memory."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT / "src")]),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, str(HERE), "--child", kind, *arguments]
    # A row that does not fit should fail by itself, not bring the machine down.
    most = int(0.88 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))

    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False, preexec_fn=limit)
    if done.returncode:
        print(f"  {kind} {arguments}: ended with {done.returncode}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--models", nargs="+", default=["ViT-B-32", "ViT-B-16"])
    parser.add_argument("--ours-too", nargs="*", default=["ViT-L-14"], help="models measured without exclip")
    parser.add_argument("--skip", nargs="*", default=[], metavar="MODEL:LAYER:N", help="rows of exclip to leave out")
    options = parser.parse_args()
    if options.child:
        kind, name, layer, *steps = options.child
        result = measure_ours(name, int(layer)) if kind == "ours" else measure_exclip(name, int(layer), int(steps[0]))
        print(json.dumps(result))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        packages = Path(folder)
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, "exclip==1.1"], check=True
        )
        for name in [*options.models, *options.ours_too]:
            for layer in (-1, 6):
                if layer == 6 and name in options.ours_too:
                    continue
                print(f"{name} layer {layer}", file=sys.stderr)
                ours = child("ours", name, str(layer), packages=packages)
                rows.append((name, layer, "secondsight", ours, ours))
                for steps in (10, 50) if layer == -1 else (10,):
                    if name in options.models and f"{name}:{layer}:{steps}" not in options.skip:
                        found = child("exclip", name, str(layer), str(steps), packages=packages)
                        rows.append((name, layer, f"exclip, N={steps}", found, ours))
                write(rows)
    print((ROOT / "benchmarks" / "results" / "exclip.md").read_text())


def write(rows: list) -> None:
    lines = [
        "# Benchmarks",
        "",
        "Made by `python benchmarks/compare_exclip.py`; see its first lines for the protocol. "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, tol 1e-3. `pair` is the whole matrix of one pair "
        "without the forward passes, `U` all patches' reusable vectors, both also as a share of the same process's "
        "forward pass. Memory is the process's peak, and in brackets what it had before (the model).",
        "",
        "| model | layer | | nodes | residual | forward, s | pair, s | share of forward | U, share | "
        "slower than ours | peak memory, GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, layer, who, row, ours in rows:
        if row is None:
            lines.append(f"| {name} | {layer} | {who} | | | | did not fit in memory | | | | |")
            continue
        residual = f"{row['residual']:.0e}" if "residual" in row else ""
        share = f"{row['U'] / row['forward']:.2f}" if "U" in row else ""
        times = f"{row['pair'] / ours['pair']:,.0f}×" if row is not ours else ""
        lines.append(
            f"| {name} | {layer} | {who} | {row['nodes']} | {residual} | {row['forward']:.3f} | {row['pair']:.3f} | "
            f"{row['pair'] / row['forward']:,.2f} | {share} | {times} | {row['gb']:.1f} ({row['gb_before']:.1f}) |"
        )
    (ROOT / "benchmarks" / "results" / "exclip.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
