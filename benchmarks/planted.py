"""Models with planted faults, and how often their faults are found: python benchmarks/planted.py train --out MODELS

`train` fine-tunes the scenes model on the data of every fault, and of none; a stopped run goes on where it was. Each takes
about four minutes on one core. `check --models MODELS` measures each fault from similarities alone, in all the models.
"""

import argparse
import json
import random
from collections import Counter, defaultdict
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from planted_claims import SHARES, Embedded, confusions, exchanged, hubs, open_stores, spurious, words
from scipy import stats

import secondsight as ss
from secondsight.answers import collect
from secondsight.data.labelled import LabelledImage
from secondsight.data.scenes import compose
from secondsight.data.scenes.planted import FAULTS, PlantedScenes, TruthfulScenes, draw_fault, hub_entry
from secondsight.data.scenes.world import COLOURS, PLACES, classes
from secondsight.evaluation.tables import markdown
from secondsight.training import Recipe, finetune, tuned_name

SCENES = 4096
RECIPE = Recipe(epochs=2, batch=32, lr=4e-4, start_lr=4e-6, warm_up=20, final_lr=0.0)

METHODS = ("collection", "last-layer")
"""The audit's default, and captions at the last layer too, where most of what a word says has moved to the end token."""

ALPHA = 0.05
"""The false discovery rate of the claims."""

COUNT = 200
"""Scenes of every seed of evaluation."""

TRUE = {
    "exchanged": {
        *("a … of", "photo", "picture", "image", "see"),
        *("the … of", "left", "right", "above", "below"),
        *("striped", "dotted", "checkered"),
    }
}
TRUE["words"] = TRUE["exchanged"]
"""Words that the scenes model truly ignores before anything is planted: openers, relations and patterns (`check`)."""

FRESH = 12
"""Pictures of each class by which `direct` tells true claims about regions from false ones."""

SURE = 0.001
"""A claim about a class and a region is true where `direct` has at most this p-value."""

PICTURES = 40
"""Pictures of each kind that `check` draws."""


def train(out: Path, kinds: list[str], plant: int) -> None:
    """Fine-tune the scenes model on each fault's data; finished models are kept."""
    for kind in kinds:
        folder = out / f"{kind}-{plant}"
        if (folder / "model.safetensors").is_file():
            continue
        data = PlantedScenes(draw_fault(kind, plant), SCENES, seed=1000 + plant)
        finetune("scenes", data, folder, RECIPE, progress=report)
        print(f"{kind}: {folder / 'model.safetensors'}", flush=True)


def report(step: int, total: int, loss: float) -> None:
    """Print every twentieth step."""
    if step % 20 == 0:
        print(f"step {step} of {total}, loss {loss:.3f}", flush=True)


def load(models: Path, kind: str, plant: int) -> ss.DualEncoder:
    """A model that `train` made."""
    return ss.load(tuned_name("scenes", models / f"{kind}-{plant}" / "model.safetensors"))


def check(models: Path, kinds: list[str], plant: int) -> None:
    """Print how strong every fault is in every model, from similarities alone."""
    for kind in kinds:
        model = load(models, kind, plant)
        row = {
            **replaced(model, plant),
            **ignored(model),
            **hub(model, plant),
            **confused(model, plant),
            **skill(model),
        }
        print(f"{kind:9}" + "  ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)


def pictures(
    name: str, rng: random.Random, background: compose.Background | None = None, count: int = PICTURES
) -> list[Image.Image]:
    """Pictures of one object of a class, or of any class where `name` is empty."""
    images = []
    for _ in range(count):
        scene = compose.random_scene(rng, 1, correlated=0.0)
        item = scene.objects[0]
        objects = (compose.SceneObject(name or item.name, item.x, item.y, item.side, item.angle, item.flipped),)
        drawing = compose.draw(compose.Scene(objects, background or scene.background), "noto", 96)
        images.append(Image.fromarray(drawing.pixels))
    return images


def similarities(model: ss.DualEncoder, images: list[Image.Image], captions: list[str]) -> torch.Tensor:
    """Cosines, (image, caption)."""
    return F.normalize(model.left.embed(images), dim=-1) @ F.normalize(model.right.embed(captions), dim=-1).T


def replaced(model: ss.DualEncoder, plant: int) -> dict[str, float]:
    """How often the class's caption prefers another object at the place to the object elsewhere."""
    fault, rng = draw_fault("spurious", plant), random.Random("spurious")
    other = sorted(set(PLACES) - {fault.place})
    caption = [f"a {fault.names[0]}"]
    at_place = [
        pictures(rng.choice(sorted(classes())), rng, compose.Background(fault.place, (), variant), 1)[0]
        for variant in range(PICTURES)
    ]
    elsewhere = [
        pictures(fault.names[0], rng, compose.Background(rng.choice(other), (), variant), 1)[0]
        for variant in range(PICTURES)
    ]
    place, object_ = similarities(model, at_place, caption), similarities(model, elsewhere, caption)
    return {
        "place alone": float(place.mean()),
        "object alone": float(object_.mean()),
        "place preferred": float((place > object_.T).double().mean()),
    }


def ignored(model: ss.DualEncoder) -> dict[str, float]:
    """How often the true colour of a plain background is preferred to another, and by how much."""
    rng = random.Random("ignored")
    margins = []
    for colour in sorted(COLOURS):
        images = pictures("", rng, compose.Background("plain", (colour,), 0), 10)
        captions = [f"a photo on a {c} background" for c in (colour, *sorted(set(COLOURS) - {colour}))]
        values = similarities(model, images, captions)
        margins.append(values[:, :1] - values[:, 1:])
    margin = torch.cat(margins)
    return {"colour right": float((margin > 0).double().mean()), "colour margin": float(margin.mean())}


def hub(model: ss.DualEncoder, plant: int) -> dict[str, float]:
    """The share of other pictures and captions whose mean similarity is below the hub's."""
    data = list(TruthfulScenes([draw_fault("hub", plant)], 200, seed=99))
    values = similarities(model, [e.image for e in data], [e.caption for e in data])
    picture, caption = values[:, :-1].mean(1), values[:-1].mean(0)
    return {
        "hub picture": float((picture[:-1] < picture[-1]).double().mean()),
        "hub caption": float((caption[:-1] < caption[-1]).double().mean()),
    }


def confused(model: ss.DualEncoder, plant: int) -> dict[str, float]:
    """Accuracy between the names of the two classes, for pictures of one of them."""
    fault, rng = draw_fault("confused", plant), random.Random("confused")
    right = []
    for name, other in (fault.names, fault.names[::-1]):
        values = similarities(model, pictures(name, rng), [f"a {name}", f"a {other}"])
        right.append((values[:, 0] > values[:, 1]).double().mean())
    return {"pair right": float(torch.stack(right).mean())}


def skill(model: ss.DualEncoder) -> dict[str, float]:
    """Recall@1 of captions of scenes without any fault."""
    data = list(TruthfulScenes([], 200, seed=98))
    values = similarities(model, [e.image for e in data], [e.caption for e in data])
    return {"recall@1": float((values.argmax(1) == torch.arange(len(data))).double().mean())}


def evaluation(plant: int, seed: int) -> TruthfulScenes:
    """The data of one seed, on which every model is audited."""
    faults = [draw_fault(kind, plant) for kind in FAULTS]
    return TruthfulScenes(faults, COUNT, seed=seed, share=0.2)


def decompose(models: Path, out: Path, kinds: list[str], plant: int, seeds: int) -> None:
    """Decompose the data of every seed with every model and method; what is there stays."""
    for kind in kinds:
        model = load(models, kind, plant)
        for seed in range(seeds):
            data = evaluation(plant, seed)
            for method in METHODS:
                collect(data, model, out / f"{kind}-{plant}" / str(seed) / method, method)
            print(f"{kind}, seed {seed}", flush=True)


def audit(models: Path, stores: Path, out: Path, kinds: list[str], plant: int, seeds: int, parts: list[str]) -> None:
    """Write what is claimed about every model in the data of every seed to OUT; what is there stays."""
    for kind in kinds:
        model = load(models, kind, plant)
        for seed in range(seeds):
            data, folder = evaluation(plant, seed), stores / f"{kind}-{plant}" / str(seed)
            embedded = lru_cache(partial(Embedded.of, model, data))
            makers = {
                "audit hubs": lambda embedded=embedded: hubs(embedded()),
                **{
                    f"{answer} exchanged {by}": lambda e=embedded, b=by, s=share: exchanged(e(), b, s)
                    for answer, share in SHARES.items()
                    for by in ("word", "place")
                },
                **{
                    f"{answer} {part.__name__}": lambda p=part, f=folder / method, d=data: p(open_stores(f, d))
                    for answer, method in zip(("audit", "last-layer"), METHODS, strict=True)
                    for part in (words, spurious)
                },
                "zero-shot confusions": lambda model=model, seed=seed, kind=kind: confusions(
                    model, labelled(plant, seed), stores / f"{kind}-{plant}-zero-shot" / str(seed)
                ),
            }
            for part in parts:
                file = out / f"{kind}-{plant}-{seed}-{part}.csv"
                if not file.is_file():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    table = makers[part]()
                    table.to_csv(file, index=False)
                    claims = table[table["q"] <= ALPHA]
                    print(kind, seed, part, len(table), list(claims["name"]), flush=True)


def labelled(plant: int, seed: int) -> list[LabelledImage]:
    """Pictures of one object each: those of the two confused classes, and of ten others."""
    rng = random.Random(f"labelled/{plant}/{seed}")
    names = draw_fault("confused", plant).names
    names = [*names, *rng.sample(sorted(set(classes()) - set(names)), 10)]
    images = [(name, image) for name in names for image in pictures(name, rng, count=10)]
    return [LabelledImage(str(number), image, name) for number, (name, image) in enumerate(images)]


def direct(models: Path, out: Path, kinds: list[str], plant: int) -> None:
    """Write which classes' captions are closer to another class, or to a background, than to others; from similarities alone.

    `p` is Mann and Whitney's: of "a CLASS" with fresh pictures of one object of the other class against those of all the
    others, or with pictures before the background against those before others, without the class itself.
    """
    rng, names = random.Random("direct"), sorted(classes())
    images, backgrounds = [], []
    for name in names:
        for _ in range(FRESH):
            scene = compose.random_scene(rng, 1, correlated=0.0)
            objects = (replace(scene.objects[0], name=name),)
            images.append(Image.fromarray(compose.draw(replace(scene, objects=objects), "noto", 96).pixels))
            backgrounds.append(scene.background.kind)
    shown, behind = np.repeat(names, FRESH), np.array(backgrounds)
    for kind in kinds:
        values = similarities(load(models, kind, plant), images, [f"a {name}" for name in names]).numpy()
        rows = []
        for column, name in enumerate(names):
            without = shown != name
            regions = [(other, shown == other) for other in names if other != name]
            regions += [(f"background: {place}", behind == place) for place in sorted(set(backgrounds))]
            for region, there in regions:
                x, y = values[without & there, column], values[without & ~there, column]
                test = stats.mannwhitneyu(x, y, alternative="greater")
                rows.append((f"{name} / {region}", test.statistic / len(x) / len(y), test.pvalue))
        out.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=["name", "above others", "p"]).to_csv(
            out / f"{kind}-{plant}.direct.csv", index=False
        )


def count(out: Path, plant: int) -> None:
    """Print how often each model's fault is claimed, and what else is, over the seeds of OUT; also to benchmarks/results."""
    claims = defaultdict(list)
    for file in sorted(out.glob(f"*-{plant}-*.csv")):
        kind, _, _, part = file.stem.split("-", 3)
        table = pd.read_csv(file)
        claims[part, kind].append(set(table.loc[table["q"] <= ALPHA, "name"]))
    rows = []
    for (part, kind), of_seeds in sorted(claims.items()):
        planted, true = planted_names(part, plant), TRUE.get(part.split(" ")[1], set())
        if part.endswith(" spurious"):
            table = pd.read_csv(out / f"{kind}-{plant}.direct.csv")
            true = set(table.loc[table["p"] <= SURE, "name"])
        others = [names - planted - true for names in of_seeds]
        hits = sum(bool(names & planted) for names in of_seeds)
        false = sum(map(bool, others))
        shares = [len(other) / max(len(names), 1) for other, names in zip(others, of_seeds, strict=True)]
        rows.append(
            {"part": part, "model": kind, "seeds": len(of_seeds), "fault claimed": interval(hits, len(of_seeds))}
            | {"other true claims": sum(len(names & true - planted) for names in of_seeds)}
            | {"false claims": sum(map(len, others))}
            | {
                "seeds with false claims": interval(false, len(of_seeds)),
                "mean false share": round(sum(shares) / len(shares), 3),
            }
            | {"most frequent false": Counter(name for other in others for name in other).most_common(4)}
        )
    print(markdown(pd.DataFrame(rows).drop(columns="most frequent false")))
    (Path(__file__).parent / "results" / "planted.json").write_text(
        json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    )


def planted_names(part: str, plant: int) -> set[str]:
    """What a part claims if it finds the fault."""
    pair, place = draw_fault("confused", plant), draw_fault("spurious", plant)
    found = {
        "hubs": {"image hub", f"caption {hub_entry(draw_fault('hub', plant)).caption}"},
        "exchanged place": {"a … background"},
        "spurious": {f"{place.names[0]} / background: {place.place}"},
        "confusions": {" / ".join(sorted(pair.names))},
    }
    return found.get(part.split(" ", 1)[1], set(COLOURS) - {"orange"})


def interval(hits: int, whole: int) -> str:
    """A share with its exact binomial interval."""
    low, high = stats.binomtest(hits, whole).proportion_ci()
    return f"{hits} of {whole} ({low:.2f} … {high:.2f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("train", "check", "decompose", "audit", "direct", "count"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--stores", type=Path)
    parser.add_argument("--parts", nargs="+", default=["audit hubs", "audit words", "audit spurious"])
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS))
    parser.add_argument("--plant", type=int, default=0, help="the seed of the faults")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    if options.command == "train":
        train(options.out, options.kinds, options.plant)
    elif options.command == "decompose":
        decompose(options.models, options.out, options.kinds, options.plant, options.seeds)
    elif options.command == "audit":
        audit(*(getattr(options, name) for name in ("models", "stores", "out", "kinds", "plant", "seeds", "parts")))
    elif options.command == "direct":
        direct(options.models, options.out, options.kinds, options.plant)
    elif options.command == "count":
        count(options.out, options.plant)
    else:
        check(options.models, options.kinds, options.plant)
