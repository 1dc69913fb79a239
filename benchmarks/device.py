"""Full-size models on one device, in float32 and bf16: the table of docs/benchmarks.md, "On a GPU".

    python benchmarks/device.py --device cuda            # every model, each in a process of its own; `make bench DEVICE=cuda`
    python benchmarks/device.py --device cpu --models ViT-B-16 --precisions float32

Random weights, model-ready inputs, medians. `forward` is the host model's embeddings of one pair; `pair` the whole matrix of
one pair with everything it needs, forward passes included, at both last layers and with the default method; `embeddings` and
`vectors` are images a second in batches. `difference` is how far the matrix in this precision is from that in float32, in
Frobenius norms. Memory is what the device held at most (on a CPU, the process). Writes JSON, and Markdown beside it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from machine import described, peak

import secondsight as ss
from secondsight.methods import as_method
from secondsight.scale.place import PRECISIONS, move_model

MODELS = ("ViT-B-16", "ViT-L-14", "ViT-SO400M-14-SigLIP")
METHODS = {"last layer": "last-layer", "default": "grounded"}
WORDS = 12
"""Tokens of the caption besides its start and end."""

COLUMNS = {
    "model": "model",
    "precision": "precision",
    "forward, ms": "forward, ms",
    "pair, last layer, ms": "pair at the last layer, ms",
    "pair, default, ms": "pair by the default method, ms",
    "embeddings a second": "embeddings a second",
    "vectors a second": "vectors a second",
    "memory, last layer, GB": "memory at the last layer, GB",
    "memory, default, GB": "memory of the default method, GB",
    "difference, last layer": "difference at the last layer",
    "difference, default": "difference of the default method",
}
"""Fields of a result, and what the table calls them."""


class Clock:
    """Median seconds of a call on a device, after one that does not count."""

    def __init__(self, device: str, turns: int) -> None:
        self.device, self.turns = device, turns

    def wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def __call__(self, work) -> float:
        times = []
        for _ in range(self.turns + 1):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times[1:])


def random_host(name: str):
    """An open_clip model with random weights, and its images' side and its captions' length and number of tokens."""
    import open_clip

    torch.manual_seed(0)
    host = open_clip.create_model(name).eval().requires_grad_(False)
    size, config = host.visual.image_size, open_clip.get_model_config(name)["text_cfg"]
    return host, size if isinstance(size, int) else size[0], config.get("context_length", 77), config["vocab_size"]


def random_inputs(size: int, length: int, vocabulary: int, count: int):
    """Model-ready pixels and token numbers; the largest number ends a text, as CLIP's tokenizer has it."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(count, 3, size, size, generator=generator)
    tokens = torch.zeros(count, length, dtype=torch.long)
    words = min(WORDS, length - 2)
    tokens[:, 0] = vocabulary - 2
    tokens[:, 1 : 1 + words] = torch.randint(1, vocabulary - 2, (count, words), generator=generator)
    tokens[:, 1 + words] = vocabulary - 1
    return pixels, tokens


def peak_memory(device: str) -> float:
    """Gigabytes held at most since `forget_peak`; on a CPU since the process began."""
    return torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else peak()


def forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def measure(name: str, device: str, precisions: list[str], batch: int, turns: int, build=random_host) -> list[dict]:
    """One row for each precision; the first one should be float32, which the others are compared with."""
    host, size, length, vocabulary = build(name)
    pixels, tokens = random_inputs(size, length, vocabulary, batch)
    exact: dict[str, torch.Tensor] = {}
    clock = Clock(device, turns)
    return [
        {"model": name, "precision": precision, **costs(host, pixels, tokens, precision, clock, exact)}
        for precision in precisions
    ]


def costs(host, pixels, tokens, precision: str, clock: Clock, exact: dict) -> dict:
    """What a host costs in one precision; `exact` takes the first matrix of each method, which later ones are compared with."""
    device, batch = clock.device, len(pixels)
    model = move_model(ss.wrap(host), device, precision)
    images, (text,) = model.left.prepare([*pixels]), model.right.prepare(tokens[:1])
    ready, words = pixels.to(device, PRECISIONS[precision]), tokens[:1].to(device)
    row = {}
    with torch.no_grad():
        row["forward, ms"] = 1e3 * clock(lambda: (host.encode_image(ready[:1]), host.encode_text(words)))
        row["embeddings a second"] = batch / clock(lambda: host.encode_image(ready))
    for label, name in METHODS.items():
        method = as_method(name)

        def matrix(method=method):
            return model.interactions(method, images[0], [text])[0].matrix

        forget_peak(device)
        row[f"pair, {label}, ms"] = 1e3 * clock(matrix)
        row[f"memory, {label}, GB"] = peak_memory(device)
        values = matrix().double().cpu()
        reference = exact.setdefault(label, values)
        row[f"difference, {label}"] = float((values - reference).norm() / reference.norm())
    last_layer = as_method("last-layer")
    vectors = clock(lambda: [c.vectors for c in last_layer.contributions(model.left, images)])
    return row | {"vectors a second": batch / vectors}


def markdown(result: dict) -> str:
    """The table of a result, with the machine in its first line."""
    machine = result["machine"]
    device = machine["gpu"] if result["device"].startswith("cuda") else machine["cpu"]
    rows = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    rows += [[cell(row[field]) for field in COLUMNS] for row in result["rows"]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    facts = (
        f"{device}, torch {machine['torch']}, batches of {result['batch']}, random weights, commit {machine['commit']}."
    )
    return f"{facts}\n\n{table}\n"


def cell(value) -> str:
    """A number with three digits."""
    if isinstance(value, str):
        return value
    return (
        "–" if value == 0 else f"{value:.1e}" if value < 1e-3 else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    )


def run(options) -> dict:
    """Every model in a process of its own, so that memory is one model's."""
    rows = []
    for name in options.models:
        command = [sys.executable, __file__, "--device", options.device, "--only", name, "--batch", str(options.batch)]
        command += ["--turns", str(options.turns), "--precisions", *options.precisions]
        print(name, file=sys.stderr, flush=True)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
        rows += json.loads(done.stdout)
    return {
        "device": options.device,
        "batch": options.batch,
        "turns": options.turns,
        "rows": rows,
        "machine": described(),
    }


def write(result: dict, out: Path) -> None:
    """The result as JSON, and its table as Markdown beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16"], choices=list(PRECISIONS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, help="default: results/device-DEVICE.json")
    parser.add_argument("--only", help="one model, whose rows are printed as JSON")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(f"device {options.device!r} cannot be used here: torch sees no GPU; give --device cpu")
    # Random weights come without preprocessing, and any reference does for timing.
    warnings.simplefilter("ignore", ss.AssumptionWarning)
    if options.only:
        print(json.dumps(measure(options.only, options.device, options.precisions, options.batch, options.turns)))
    else:
        name = options.device.partition(":")[0]
        out = options.out or Path(__file__).parent / "results" / f"device-{name}.json"
        write(run(options), out)
        print(out.with_suffix(".md").read_text())
