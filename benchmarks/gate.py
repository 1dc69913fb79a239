"""Is the gate's verdict true? Models whose change is known: none, noise, another style, one class's word made meaningless.

python benchmarks/gate.py train --out MODELS      # three fine-tuned scenes models, a few minutes each
python benchmarks/gate.py check --models MODELS   # false alarms, and what is named where something changed
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import secondsight as ss
from secondsight.answers import Collection
from secondsight.answers.gate import collect_pairs, open_pairs
from secondsight.answers.gate.compare import Comparison, compare, subjects_of
from secondsight.answers.gate.measure import measure
from secondsight.answers.gate.moves import find_moves
from secondsight.data import ListedDataset, Scenes
from secondsight.data.scenes import compose
from secondsight.data.scenes.captions import Caption, Noun
from secondsight.data.scenes.planted import Fault, TruthfulScenes
from secondsight.data.scenes.world import classes
from secondsight.scale import decompose
from secondsight.scale.sources import of_data
from secondsight.training import Recipe, finetune

TARGET = "cat"
TARGETS = 60
SEEDS = 20
PICTURES = 8


class Scattered(Scenes):
    """Captions in which the target's word stands for random objects, and the target has random names."""

    def random_caption(self, scene: compose.Scene, rng: random.Random) -> Caption:
        caption = super().random_caption(scene, rng)
        names = sorted(classes())

        def change(part: Noun | str) -> Noun | str:
            if not isinstance(part, Noun):
                return part
            if part.name == TARGET:
                return replace(part, name=rng.choice([name for name in names if name != TARGET]))
            return replace(part, name=TARGET) if rng.random() < 1 / len(names) else part

        return Caption(tuple(change(part) for part in caption.parts))


def train(out: Path) -> None:
    style = Recipe(epochs=3, batch=64, lr=1e-4, warm_up=10, final_lr=1e-6)
    short = Recipe(epochs=2, batch=64, lr=2e-4, warm_up=8, final_lr=1e-6)
    finetune("scenes", Scenes(1500, style="twemoji", seed=11), out / "style", style)
    finetune("scenes", Scattered(800, seed=11, correlated=0.0), out / "scattered", short)
    finetune("scenes", Scenes(800, seed=11, correlated=0.0), out / "clean", short)


def subset(collection: Collection, count: int, seed: int) -> Collection:
    """Some of the pairs, drawn at random."""
    chosen = sorted(random.Random(seed).sample(range(len(collection)), count))
    return replace(collection, pairs=[collection.pairs[number] for number in chosen])


def changed(change: Callable[[torch.Tensor], torch.Tensor]) -> ss.DualEncoder:
    """The scenes model with changed weights."""
    model = ss.load("scenes")
    with torch.no_grad():
        for side in (model.left, model.right):
            for parameter in side.encoder.module.parameters():
                parameter.copy_(change(parameter))
    return model


def alike(count: int, stores: Path) -> dict[str, object]:
    """Models that differ by nothing, or by what nobody would notice: failures in `SEEDS` samples of half the pairs."""
    data = open_pairs(f"scenes:noto/{count}#6")
    before = collect_pairs(data, ss.load("scenes"), stores)
    noise = torch.Generator().manual_seed(0)
    variants = {
        "the same": before,
        "bfloat16 weights": changed(lambda weight: weight.bfloat16().float()),
        "float16 weights": changed(lambda weight: weight.half().float()),
        "relative noise 1e-4": changed(lambda w: w * (1 + 1e-4 * torch.randn(w.shape, generator=noise))),
        "relative noise 1e-2": changed(lambda w: w * (1 + 1e-2 * torch.randn(w.shape, generator=noise))),
    }
    results = {}
    for name, model in variants.items():
        after = model if isinstance(model, Collection) else collect_pairs(data, model, stores)
        results[name] = _failures(before, after)
    folder = stores / "single"
    for kind in ("image", "text"):
        decompose(of_data(data, kind), ss.load("scenes"), folder / kind, batch=1)
    from secondsight.answers import open_collection

    results["batches of one"] = _failures(before, open_collection(folder / "image", folder / "text", data))
    return results


def _failures(before: Collection, after: Collection) -> str:
    failed, largest, whole = 0, 0.0, 0.0
    for seed in range(SEEDS):
        compared = compare(*(subset(side, len(before) // 2, seed) for side in (before, after)), seed=seed)
        failed += not compared.passed
        largest = max(largest, float(np.abs(compared.change).max()))
        whole = max(whole, abs(compared.moves[0].change))
    return f"{failed} of {SEEDS} failed; largest change of a pair {largest:.4f}, of the mean {whole:.4f} spreads"


def exchanged(before: Collection, after: Collection, runs: int = 200) -> dict[str, str]:
    """False alarms where each image's before and after stand in random order.

    Nothing moved then, and the changes have all the variance of a real one.
    """
    before, after = (subset(side, 400, 0) for side in (before, after))
    old, new = measure(before, before.pairs), measure(after, after.pairs)
    listed, images = subjects_of(before, old, new), [image for image, _ in before.pairs]
    alarms = {}
    for alpha, tolerance in ((0.01, 0.1), (0.01, 0.0), (0.1, 0.0)):
        found = 0
        for seed in range(runs):
            swap = np.random.default_rng(seed).random(len(images)) < 0.5
            first = replace(old, total=np.where(swap, new.total, old.total))
            second = replace(new, total=np.where(swap, old.total, new.total))
            moves = find_moves(first, second, listed, images, alpha, tolerance, seed)
            found += any(move.verdict(alpha) != "same" for move in moves)
        alarms[f"alpha {alpha}, tolerance {tolerance}"] = f"{found} alarms in {runs} runs"
    return alarms


def directly(models: list[ss.DualEncoder]) -> dict[str, float]:
    """By class, without any attribution: how the margin of its caption over all other classes' changed.

    Fresh pictures of one object each; the margin is in standard deviations of all wrong cosines of the model.
    """
    names = sorted(classes())
    rng = random.Random("direct")
    images = [picture(name, rng) for name in names for _ in range(PICTURES)]
    captions = [f"a {name}" for name in names]
    margins = []
    for model in models:
        values = F.normalize(model.left.embed(images), dim=-1) @ F.normalize(model.right.embed(captions), dim=-1).T
        right = torch.arange(len(names)).repeat_interleave(PICTURES)
        own = values.gather(1, right[:, None])[:, 0]
        wrong = values.masked_select(F.one_hot(right, len(names)) == 0)
        others = (values.sum(1) - own) / (len(names) - 1)
        margins.append(((own - others) / wrong.std()).view(len(names), PICTURES).mean(1))
    return dict(zip(names, (margins[1] - margins[0]).tolist(), strict=True))


def picture(name: str, rng: random.Random) -> Image.Image:
    """A picture of one object."""
    scene = compose.random_scene(rng, 1, correlated=0.0)
    return Image.fromarray(
        compose.draw(replace(scene, objects=(replace(scene.objects[0], name=name),)), "noto", 96).pixels
    )


def named(compared: Comparison, direct: dict[str, float]) -> dict[str, object]:
    """What is named, and the direct measure of the classes that are named and of those that were tested and are not."""
    worse = {m.subject.name for m in compared.moved("worse") if m.subject.kind == "classes"}
    tested = {m.subject.name for m in compared.moves if m.tested and m.subject.kind == "classes"}
    return {
        "passed": compared.passed,
        "worse": [f"{m.subject.name} {m.change:+.2f} ({m.images})" for m in compared.moved("worse")],
        "better": [f"{m.subject.name} {m.change:+.2f} ({m.images})" for m in compared.moved("better")],
        "classes tested": len(tested),
        "direct, named worse": {name: round(direct[name], 2) for name in sorted(worse)},
        "direct, mean of the other tested": round(float(np.mean([direct[name] for name in tested - worse])), 2),
        "direct, largest falls": sorted(((round(v, 2), n) for n, v in direct.items()))[:5],
    }


def target_rich(count: int) -> ListedDataset:
    """Scenes of the old style, and some more with the target, which is rare."""
    fault = Fault("confused", 0, (TARGET, TARGET))
    return ListedDataset("scenes", [*Scenes(count, seed=5), *TruthfulScenes([fault], TARGETS, seed=7, share=1.0)])


def check(folder: Path, stores: Path, count: int) -> None:
    data = target_rich(count)
    loaded = {"scenes": ss.load("scenes")}
    loaded |= {n: ss.load(f"scenes:{folder / n / 'model.safetensors'}") for n in ("style", "scattered", "clean")}
    collections = {name: collect_pairs(data, model, stores) for name, model in loaded.items()}
    for before, after in (("scenes", "style"), ("scenes", "scattered"), ("scenes", "clean"), ("clean", "scattered")):
        direct = directly([loaded[before], loaded[after]])
        result = named(compare(collections[before], collections[after]), direct)
        print(f"{before} → {after}: {json.dumps(result, indent=1, ensure_ascii=False)}", flush=True)
    print(json.dumps(exchanged(collections["scenes"], collections["style"]), indent=1), flush=True)
    print(json.dumps(alike(300, stores), indent=1), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "check"])
    parser.add_argument("--out", type=Path, default=Path("models"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--stores", type=Path, default=Path("gate-stores"))
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "train":
        train(options.out)
    else:
        check(options.models, options.stores, options.count)
