"""How well explanations predict the similarity of masked inputs, over the number of encodings.

    python benchmarks/faithfulness.py ../shared/coco_mini [--pairs 20] [--model builtin]

Correlation (DESIGN §8, p = 0.5) of the predicted with the actual similarity under fresh random masks, first captions of the
first photographs. `Banzhaf` as it is, without prior and neighbours, and ordinary least squares on the same masks, which is
FIxLIP's own cross-modal estimator on their full factorial (docs/methods.md). Prints a Markdown table.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import torch

import secondsight as ss
from secondsight.evaluation.measures import correlation
from secondsight.inputs.prepared import Prepared
from secondsight.methods.game import game
from secondsight.methods.mask_regression import Fit, bernoulli_masks
from secondsight.model import Side

SHARES = (0.5, 1, 2, 4, 8)
TESTS = 200
ESTIMATORS = {
    "`Banzhaf`": ss.Banzhaf(),
    "no prior, no neighbours": ss.Banzhaf(prior=False, smooth=False),
    "ordinary least squares (FIxLIP's own)": ss.Banzhaf(ridge=0.0),
}


def pairs(folder: Path, count: int) -> list[tuple[Path, str]]:
    captions = json.loads(next(folder.rglob("captions*.json")).read_text())
    names = {image["id"]: image["file_name"] for image in captions["images"]}
    first: dict[int, str] = {}
    for annotation in captions["annotations"]:
        first.setdefault(annotation["image_id"], annotation["caption"])
    return [(next(folder.rglob(names[i])), caption) for i, caption in list(first.items())[:count]]


def fits(side: Side, prepared: Prepared) -> tuple[torch.Tensor, torch.Tensor, dict[tuple[float, str], Fit]]:
    """Test masks and their values, and one side's fits for every share of masks and estimator, all on nested masks."""
    g = game(side, prepared, "input", None, 0, "inside")
    test = bernoulli_masks(g.players, TESTS, 0.5, 990 + side.index)
    masks = bernoulli_masks(g.players, max(int(SHARES[-1] * g.players), 8), 0.5, 5 + side.index)
    values = g.values(masks)
    made = {}
    for name, method in ESTIMATORS.items():
        known, _ = method.known(side, prepared, g)
        for share in SHARES:
            count = max(int(share * g.players) // 2 * 2, 4)
            made[share, name] = known.fit(masks[:count].double(), values[:count], method.ridge)
    return test.double(), g.values(test), made


def curves(model: ss.DualEncoder, examples: list[tuple[Any, Any]]) -> str:
    """The table: rows are shares, columns estimators."""
    found: dict[tuple[float, str], list[float]] = {}
    for left, right in examples:
        sides = [fits(side, side.encoder.prepare(raw)) for side, raw in ((model.left, left), (model.right, right))]
        actual = (sides[0][1] * sides[1][1]).sum(-1)
        for key in sides[0][2]:
            a, b = (own[key].intercept + test @ own[key].effects for test, _, own in sides)
            found.setdefault(key, []).append(correlation((a * b).sum(-1), actual))
    lines = ["| encodings a side | " + " | ".join(ESTIMATORS) + " |", "|---" * (1 + len(ESTIMATORS)) + "|"]
    for share in SHARES:
        cells = []
        for name in ESTIMATORS:
            values = found[share, name]
            cells.append(f"{median(values):.2f} ({min(values):.2f} … {max(values):.2f})")
        lines.append(f"| {share:g} × features | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--model", default="builtin")
    options = parser.parse_args()
    print(curves(ss.load(options.model), list(pairs(options.folder, options.pairs))))


if __name__ == "__main__":
    main()
