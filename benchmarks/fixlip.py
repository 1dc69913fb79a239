"""FIxLIP's faithfulness over the budget: mask fits, the joint game's least squares and Jacobians at equal encodings a side.

    python benchmarks/fixlip.py                                            # 40 scenes, some ten minutes on two cores
    python benchmarks/fixlip.py --data coco:../shared/coco_mini#val2017 --model builtin --pairs 10 --out fixlip-coco

Every pair is a line of `pairs.jsonl` in the folder `--out`, so that a stopped run goes on where it was; `fixlip.md` has the
tables, `fixlip.json` their numbers, `fixlip-*.svg` and `.png` the curves, medians over pairs. The budget is encodings of a side
over its features; fits share their masks (p = 0.5), the first of them for small budgets:

- "Banzhaf": with prior and smoothing, as the method is; its prior costs about one encoding more. It draws antithetic masks; a
  second curve has independent ones.
- "least squares a side": without either, on independent masks: FIxLIP's cross-modal estimator on the factorial of both sides'
  masks (docs/methods.md), and its way of drawing them. Of the largest budget half of the masks are antithetic to others.
- "joint least squares": FIxLIP's game of both sides' players, a mask of each side for every value, so that it encodes as many
  texts as images; of all solutions the one of least norm where masks are fewer than coefficients.

A Jacobian's budget is its seconds over those of one encoding of every feature of both sides, measured on the same pair.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import described
from torch import Tensor

import secondsight as ss
from secondsight.algebra.interactions import Interactions
from secondsight.data import GroundedCaption, open_data
from secondsight.evaluation import settings
from secondsight.evaluation.experiments.faithfulness import MEASURES, Faithfulness
from secondsight.evaluation.experiments.masking import (
    ExplainedGame,
    actual_similarities,
    explained_game,
    input_games,
)
from secondsight.evaluation.setting import Setting
from secondsight.methods import Method
from secondsight.methods.banzhaf import Assumptions
from secondsight.methods.game import Game
from secondsight.methods.mask_regression import all_masks, banzhaf_weights, bernoulli_masks
from secondsight.visual import charts, save

SHARES = (0.5, 1, 2, 4, 8)
OURS = "Banzhaf"
FITS = {
    OURS: ss.Banzhaf(),
    f"{OURS}, independent masks": ss.Banzhaf(),
    "least squares a side": ss.Banzhaf(ridge=0.0, prior=False, smooth=False),
}
JOINT = "joint least squares"
FIGURES = (("r2", "p=0.5"), ("correlation", "p=0.5"), ("r2", "shapley"))
Scores = dict[str, dict[str, float]]


def jacobians(filling: Any) -> Iterator[tuple[str, Method]]:
    """Methods of one cost each, of the same names where they are one curve; what is absent is what the masks put there."""
    options: dict[str, Any] = {"reference": (filling, None), "normalize": "inside"}
    yield "integrated Jacobian, last layer", ss.IntegratedJacobian(**options)
    for steps in (4, 16):
        yield "integrated Jacobian, input", ss.IntegratedJacobian(layer="input", steps=steps, **options)
    for cells in (1, 4):
        yield "chained Jacobian, input", ss.ChainedJacobian(layer="input", cells=cells, **options)


@dataclass(frozen=True)
class Masked:
    """Masks of one side and the embeddings under them; two in a row are antithetic."""

    masks: Tensor
    values: Tensor

    def first(self, count: int, *, independent: bool) -> "Masked":
        """So many of the masks: whole pairs, or one of every pair as long as there are enough."""
        order = torch.arange(len(self.masks))
        if independent:
            order = torch.cat([order[0::2], order[1::2]])
        return Masked(self.masks[order[:count]], self.values[order[:count]])


def masked(game: Game, limit: int) -> Masked:
    """As many masks as the largest budget asks for."""
    masks = bernoulli_masks(game.players, limit, 0.5, seed=5 + game.side.index)
    return Masked(masks, game.values(masks))


def side_fits(game: Game, seen: Masked) -> dict[tuple[str, float], tuple[Tensor, Tensor]]:
    """(intercept, effects) of every fit and share of the budget; with every subset where there are no more of them."""
    everything = all_masks(game.players) if 2**game.players <= len(seen.masks) else None
    all_values = None if everything is None else game.values(everything)
    fits = {}
    for name, method in FITS.items():
        assumptions, _ = method.assumptions(game)
        for share in SHARES:
            count = max(int(share * game.players) // 2 * 2, 4)
            if everything is not None and all_values is not None and len(everything) <= count:
                exact = Assumptions(banzhaf_weights(everything, 0.5))
                fit = exact.fit(everything.double(), all_values, method.ridge or 0.0)
            else:
                part = seen.first(count, independent=name != OURS)
                fit = assumptions.fit(part.masks.double(), part.values, method.ridge)
            fits[name, share] = (fit.intercept, fit.effects)
    return fits


def joint_predictions(train: tuple[Tensor, Tensor], values: Tensor, test: tuple[Tensor, Tensor]) -> Tensor:
    """Least squares of least norm on the intercept, both sides' players and all their pairs, at other masks.

    The design is the row-wise product of [1, left mask] and [1, right mask], so that inner products of its rows are products of
    the sides': no coefficient is needed for a prediction.
    """

    def products(masks: tuple[Tensor, Tensor]) -> Tensor:
        sides = (1 + mask.double() @ other.double().T for mask, other in zip(masks, train, strict=True))
        return next(sides) * next(sides)

    return products(test) @ (torch.linalg.pinv(products(train), hermitian=True, rtol=1e-10) @ values)


def measure(setting: Setting, example: GroundedCaption, experiment: Faithfulness) -> list[dict[str, Any]]:
    """The scores of every estimator at every budget on one pair."""
    games = input_games(setting, example, 0)
    left, right = games
    kernels = ("p=0.5", "p=0.3", "p=0.7", "shapley")
    masks = {kernel: experiment.draw(kernel, games) for kernel in kernels}
    actual = {kernel: actual_similarities(games, pair) for kernel, pair in masks.items()}

    def scores(predict: Callable[[tuple[Tensor, Tensor]], Tensor]) -> Scores:
        return {
            kernel: {name: score(predict(masks[kernel]), actual[kernel]) for name, score in MEASURES.items()}
            for kernel in kernels
        }

    limit = int(SHARES[-1] * left.players) // 2 * 2
    seen = masked(left, limit), masked(right, limit)
    left_fits, right_fits = (side_fits(game, side) for game, side in zip(games, seen, strict=True))
    rows: list[dict[str, Any]] = []
    for (name, share), (base, effects) in left_fits.items():
        other_base, other_effects = right_fits[name, share]
        fitted = ExplainedGame(
            float(base @ other_base), effects @ other_base, other_effects @ base, effects @ other_effects.T
        )
        rows.append({"name": name, "budget": share, **scores(fitted.similarities)})
    for share in SHARES:
        count = int(share * left.players) // 2 * 2
        a, b = (side.first(count, independent=True) for side in seen)
        predict = partial(joint_predictions, (a.masks, b.masks), (a.values * b.values).sum(-1))
        rows.append({"name": JOINT, "budget": share, **scores(predict)})
    once = sum(game.players * seconds_of_encoding(game) for game in games)
    image, text = setting.prepared(example)
    for name, method in jacobians(left.filling):
        clock = time.perf_counter()
        e = setting.model.interactions(method, image, [text])[0].dense()
        spent = time.perf_counter() - clock
        rows.append(
            {"name": name, "budget": spent / once, "cost": cost_of(e), **scores(explained_game(e, games).similarities)}
        )
    return rows


def seconds_of_encoding(game: Game) -> float:
    """Seconds of one encoding in a batch of 32."""
    masks = bernoulli_masks(game.players, 32, 0.5, seed=1)
    times = []
    for _ in range(3):
        clock = time.perf_counter()
        game.values(masks)
        times.append((time.perf_counter() - clock) / len(masks))
    return median(times)


def cost_of(e: Interactions) -> str:
    """What both sides say they have spent."""
    return " + ".join(str(outcome.cost) for outcome in e.outcomes if outcome)


def summary(lines: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Medians over pairs; points of a curve are told apart by their order."""
    points = []
    for rows in zip(*lines, strict=True):
        first = rows[0]
        kernels = [name for name, value in first.items() if isinstance(value, dict)]
        point: dict[str, Any] = {"name": first["name"], "budget": median(row["budget"] for row in rows)}
        point |= {"cost": first["cost"]} if "cost" in first else {}
        for kernel in kernels:
            for name in MEASURES:
                values = sorted(row[kernel][name] for row in rows if row[kernel][name] == row[kernel][name])
                point[f"{name} {kernel}"] = median(values) if values else None
        points.append(point)
    return points


def table(points: list[dict[str, Any]]) -> str:
    """Rows are estimators at a budget, columns measures under kernels."""
    columns = [
        "r2 p=0.3",
        "r2 p=0.5",
        "r2 p=0.7",
        "r2 shapley",
        *(f"{name} p=0.5" for name in MEASURES if name != "r2"),
    ]
    names = [column.replace("r2", "R²").replace("correlation", "Pearson") for column in columns]
    lines = ["| estimator | encodings a side / features | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for point in points:
        cells = ["–" if point[column] is None else f"{point[column]:.2f}" for column in columns]
        spent = f" ({point['cost']} passes)" if "cost" in point else ""
        lines.append(f"| {point['name']}{spent} | {point['budget']:.2g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(points: list[dict[str, Any]], folder: Path) -> None:
    """One figure for each of `FIGURES`; R² below zero is drawn at the edge."""
    for measure_name, kernel in FIGURES:
        series: dict[str, tuple[list[float], list[float]]] = {}
        for point in sorted(points, key=lambda point: point["budget"]):
            value = point[f"{measure_name} {kernel}"]
            if value is not None:
                xs, ys = series.setdefault(point["name"], ([], []))
                xs.append(point["budget"])
                ys.append(max(value, -0.1))
        label = "R²" if measure_name == "r2" else "correlation"
        figure = charts.lines(
            series, "encodings a side, in units of its features", f"{label} under masks ({kernel})", ""
        )
        axes = figure.axes[0]
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_ylim(-0.12, 1)
        for ending in ("svg", "png"):
            save(figure, folder / f"fixlip-{measure_name}-{kernel.replace('=', '')}.{ending}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="scenes:noto/150")
    parser.add_argument("--model", default="scenes")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--masks", type=int, default=100, help="of every kernel, to predict")
    parser.add_argument("--out", type=Path, default=Path("fixlip"))
    options = parser.parse_args()
    warnings.simplefilter("ignore", ss.ConvergenceWarning)
    options.out.mkdir(parents=True, exist_ok=True)
    (setting,) = settings([(options.model, ss.load(options.model))])
    experiment = Faithfulness(masks=options.masks)
    journal = options.out / "pairs.jsonl"
    finished = {}
    if journal.exists():
        finished = {line["key"]: line["rows"] for line in map(json.loads, journal.read_text().splitlines())}
    examples = {f"{e.image_key}/{e.key}": e for e in open_data(options.data)[: options.pairs]}
    for number, (key, example) in enumerate(examples.items(), 1):
        if key not in finished:
            finished[key] = measure(setting, example, experiment)
            with journal.open("a") as file:
                file.write(json.dumps({"key": key, "rows": finished[key]}) + "\n")
        print(f"{number}/{len(examples)} {key}", flush=True)
    lines = [finished[key] for key in examples]
    points = summary(lines)
    head = {"data": options.data, "model": options.model, "pairs": len(lines), "masks": options.masks, **described()}
    (options.out / "fixlip.json").write_text(json.dumps({**head, "points": points}, indent=1) + "\n")
    (options.out / "fixlip.md").write_text(
        f"{len(lines)} pairs of {options.data}, model {options.model}\n\n{table(points)}\n"
    )
    draw(points, options.out)
    print(table(points))


if __name__ == "__main__":
    main()
