"""All benchmarks one after the other, each in a process of its own: `make bench`, about two hours on two cores.

Results lie in benchmarks/results, as JSON with the machine that made them or as tables; `figures` draws docs/benchmarks/*.png.

    python benchmarks/suite.py                  # everything
    python benchmarks/suite.py --device cuda    # full-size models on a GPU: fills their table in docs/benchmarks.md
    python benchmarks/suite.py --only figures   # only draw
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from secondsight.visual import charts
from secondsight.visual.saving import save

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"

RUNS = {
    "throughput-vit-b-16": ["throughput.py", "--json", str(RESULTS / "throughput-vit-b-16.json")],
    "scaling": ["scaling.py"],
    "store-formats": ["stores.py", "formats"],
    "store-10000": ["stores.py", "store"],
    "rivals-vit-b-32": ["rivals.py"],
}
"""Those that print JSON."""

TABLES = ("compare_exclip", "chained", "deep_layers", "long_inputs", "methods")
"""Those that print Markdown."""


BENCHMARKS = HERE.parent / "docs" / "benchmarks.md"

BEGIN, END = "<!-- device {device}: begin -->", "<!-- device {device}: end -->"
"""What a device's table stands between."""


def run() -> None:
    RESULTS.mkdir(exist_ok=True)
    for name, command in RUNS.items():
        print(name, flush=True)
        done = subprocess.run([sys.executable, *command], cwd=HERE, stdout=subprocess.PIPE, text=True, check=True)
        (RESULTS / f"{name}.json").write_text(done.stdout)
    for name in TABLES:
        print(name, flush=True)
        done = subprocess.run([sys.executable, f"{name}.py"], cwd=HERE, stdout=subprocess.PIPE, text=True, check=True)
        (RESULTS / f"{name}.md").write_text(done.stdout)


def device_table(device: str) -> None:
    """Measure full-size models on a device, and put the table in its place in the docs."""
    result = RESULTS / f"device-{device.partition(':')[0]}.json"
    subprocess.run([sys.executable, "device.py", "--device", device, "--out", str(result)], cwd=HERE, check=True)
    text = BENCHMARKS.read_text(encoding="utf-8")
    BENCHMARKS.write_text(
        filled(text, device.partition(":")[0], result.with_suffix(".md").read_text()), encoding="utf-8"
    )


def filled(text: str, device: str, table: str) -> str:
    """A page with a table between the two marks of its device, in place of what stood there."""
    begin, end = BEGIN.format(device=device), END.format(device=device)
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"docs/benchmarks.md has no lines {begin!r} and {end!r} for the table of {device!r}")
    return f"{head}{begin}\n{table}\n{end}{tail}"


def figures() -> None:
    place = HERE.parent / "docs" / "benchmarks"
    place.mkdir(exist_ok=True)
    found = json.loads((RESULTS / "scaling.json").read_text())
    rows = found["inputs"]
    n = [r["N"] for r in rows]
    named = {
        "decompose N + N inputs": (n, [r["decompose, s"] for r in rows]),
        "multiply N² pairs": (n, [r["N² products, s"] for r in rows]),
        "one forward pass a pair": (n, [r["N² forward passes, s"] for r in rows]),
    }
    save(charts.lines(named, "N images and N captions (ViT-B/32)", "seconds", "", log=True), place / "inputs.png")
    rows = found["nodes"]
    named = {"image side": ([r["nodes"] for r in rows], [r["image residual"] for r in rows])}
    save(charts.lines(named, "nodes (ViT-B/32, last layer)", "relative residual", "", log=True), place / "nodes.png")
    rows = found["depth"]
    named = {"a pair's whole matrix": ([r["layer"] for r in rows], [r["pair, forward passes"] for r in rows])}
    save(charts.lines(named, "image layer of 12 (ViT-B/32)", "forward passes", ""), place / "depth.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu (default): everything; cuda: the table of the GPU")
    parser.add_argument("--only", choices=["figures"], help="draw from results that are there")
    options = parser.parse_args()
    if options.device != "cpu":
        device_table(options.device)
    else:
        if options.only is None:
            run()
        figures()
