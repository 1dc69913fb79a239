"""How well explanations predict the similarity of masked inputs, over the number of encodings.

    python benchmarks/faithfulness.py ../shared/coco_mini [--pairs 6]

Correlation (DESIGN §8, p = 0.5) of the predicted with the actual similarity under fresh random masks, builtin model, first
captions of the first photographs. The ridge of `Banzhaf` against ordinary least squares on the same masks, which is FIxLIP's
own cross-modal estimator on their full factorial (docs/methods.md). Prints a Markdown table.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import torch

import secondsight as ss
from secondsight.engine.designs import Fit, bernoulli_masks, fit
from secondsight.methods.masking import Game, game

SHARES = (0.5, 1, 2, 4, 8)
TESTS = 200


def pairs(folder: Path, count: int) -> list[tuple[Path, str]]:
    captions = json.loads(next(folder.rglob("captions*.json")).read_text())
    names = {image["id"]: image["file_name"] for image in captions["images"]}
    first: dict[int, str] = {}
    for annotation in captions["annotations"]:
        first.setdefault(annotation["image_id"], annotation["caption"])
    return [(next(folder.rglob(names[i])), caption) for i, caption in list(first.items())[:count]]


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def fits(g: Game, seed: int) -> dict[tuple[float, str], Fit]:
    """Fits of one side for every share of masks and both estimators, on the first of one set of masks."""
    most = max(int(SHARES[-1] * g.players), 8)
    masks = bernoulli_masks(g.players, most, 0.5, seed)
    values = g.values(masks)
    made = {}
    for share in SHARES:
        count = max(int(share * g.players) // 2 * 2, 4)
        for name, ridge in (("ridge", None), ("least squares", 0.0)):
            made[share, name] = fit(masks[:count].double(), values[:count], ridge=ridge, groups=0)
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=6)
    options = parser.parse_args()
    model = ss.load("builtin")
    found: dict[tuple[float, str], list[float]] = {}
    for photo, caption in pairs(options.folder, options.pairs):
        sides = []
        for which, (side, raw) in enumerate(((model.left, photo), (model.right, caption))):
            g = game(side, side.encoder.prepare(raw), "input", None, 0, "inside")
            test = bernoulli_masks(g.players, TESTS, 0.5, 990 + which)
            sides.append((test.double(), g.values(test), fits(g, 5 + which)))
        actual = (sides[0][1] * sides[1][1]).sum(-1)
        for key in sides[0][2]:
            a, b = (own[key].intercept + test @ own[key].effects for test, _, own in sides)
            found.setdefault(key, []).append(correlation((a * b).sum(-1), actual))
    print("| encodings a side | ridge by cross-validation | ordinary least squares (FIxLIP's own) |\n|---|---|---|")
    for share in SHARES:
        cells = []
        for name in ("ridge", "least squares"):
            values = found[share, name]
            cells.append(f"{median(values):.2f} ({min(values):.2f} … {max(values):.2f})")
        print(f"| {share:g} × features | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
