"""Models with planted faults, and how often their faults are found: python benchmarks/planted.py train --out MODELS

`train` fine-tunes the scenes model on the data of every fault, and of none; a stopped run goes on where it was. Each takes
about four minutes on one core. `check --models MODELS` measures each fault from similarities alone, in all the models.
"""

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

import secondsight as ss
from secondsight.data.scenes import compose
from secondsight.data.scenes.planted import FAULTS, PlantedScenes, TruthfulScenes, draw_fault
from secondsight.data.scenes.world import COLOURS, PLACES, classes
from secondsight.training import Recipe, finetune, tuned_name

SCENES = 4096
RECIPE = Recipe(epochs=2, batch=32, lr=4e-4, start_lr=4e-6, warm_up=20, final_lr=0.0)

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
            **spurious(model, plant),
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


def spurious(model: ss.DualEncoder, plant: int) -> dict[str, float]:
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("train", "check"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS))
    parser.add_argument("--plant", type=int, default=0, help="the seed of the faults")
    options = parser.parse_args()
    if options.command == "train":
        train(options.out, options.kinds, options.plant)
    else:
        check(options.models, options.kinds, options.plant)
