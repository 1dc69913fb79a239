"""Trains the scenes model: python scripts/train_scenes.py --out FOLDER (make train-scenes).

A symmetric contrastive loss over images and captions of the Noto world. Every image brings a wrong caption of its own
(one object, relation, size or place replaced) as one more negative. Three stages make it affordable on a CPU: windows of
6 × 6 patches around one object with a caption of it alone, whole scenes of which the tower sees half of the patches,
whole scenes. Batches depend on the seed and their number alone. The folder gets log.jsonl, curves.png, state.pt to go on
from, and scenes.safetensors (float16), which --install copies into the package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from secondsight.data.scenes import captions, compose
from secondsight.encoders.families import scenes
from secondsight.support.files import atomic

GRID, PATCH, WINDOW = 12, 8, 6


@dataclass(frozen=True)
class Stage:
    """Steps with `kind` "window", "half" or "whole"; the rate moves as a cosine from `lr` to `end`."""

    kind: str
    steps: int
    lr: float
    end: float


RECIPE = (Stage("window", 400, 2e-3, 1.5e-3), Stage("half", 850, 1.5e-3, 5e-4), Stage("whole", 300, 5e-4, 1e-6))
BATCH = 192
WARM_UP = 60


def as_input(pixels: Sequence[np.ndarray]) -> Tensor:
    """Drawn scenes as the model takes them; what `scenes.preprocess` makes of images of its size."""
    return torch.from_numpy((np.stack(pixels).astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2).contiguous()


class Batches(Dataset):
    """Batch number i: pixels, tokens of true captions, tokens of wrong ones, and the patches that the tower sees."""

    def __init__(self, stages: tuple[Stage, ...], batch: int, seed: int) -> None:
        self.kinds = [stage.kind for stage in stages for _ in range(stage.steps)]
        self.batch, self.seed = batch, seed
        self.tokenize = scenes.tokenizer()

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        kind = self.kinds[number]
        made = [self._one(kind, random.Random(f"{self.seed}/{number}/{i}")) for i in range(self.batch)]
        pixels, texts, wrongs, kept = zip(*made, strict=True)
        tokens = self.tokenize([*texts, *wrongs])
        tokens = tokens[:, : int((tokens != 0).sum(1).max())]
        keep = None if kind == "whole" else torch.tensor(kept)
        return as_input(pixels), tokens[: self.batch], tokens[self.batch :], keep

    def _one(self, kind: str, rng: random.Random) -> tuple[np.ndarray, str, str, list[int]]:
        scene = compose.random_scene(rng)
        pixels = compose.draw(scene, "noto", scenes.SIZE).pixels
        keep: list[int] = []
        if kind == "window":
            one = rng.choice(scene.objects)
            # A corner of the window such that the object's centre lies near the window's.
            x, y = (
                min(max(round(c * GRID / compose.UNITS - WINDOW / 2) + rng.randint(-1, 1), 0), GRID - WINDOW)
                for c in one.centre
            )
            keep = [GRID * (y + j) + x + i for j in range(WINDOW) for i in range(WINDOW)]
            scene = replace(scene, objects=(one,))
        elif kind == "half":
            keep = sorted(rng.sample(range(GRID**2), GRID**2 // 2))
        said = captions.describe(scene, rng, every=rng.random() < 0.5)
        wrong = captions.wrong_captions(scene, said, rng)
        return pixels, said.text(), (rng.choice(wrong).caption if wrong else said).text(), keep


def embed_images(model: torch.nn.Module, pixels: Tensor, keep: Tensor | None) -> Tensor:
    """The image tower on some of its patches."""
    visual = model.visual
    if keep is None:
        return visual(pixels)
    x = visual.conv1(pixels).flatten(2).mT + visual.positional_embedding[1:]
    x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[-1]))
    first = (visual.class_embedding + visual.positional_embedding[0]).expand(len(x), 1, -1)
    x = visual.transformer(visual.ln_pre(torch.cat([first.to(x), x], 1)))
    return visual.ln_post(x)[:, 0] @ visual.proj


def embed_texts(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    """The text tower without the padding that its causal mask hides anyway."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection


def contrastive(model: torch.nn.Module, images: Tensor, texts: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a batch and its retrieval accuracy; `texts` are true captions, then wrong ones.

    A caption that says the same as an image's own is no negative of it.
    """
    count = len(images)
    images, texts = F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    logits = model.logit_scale.exp() * images @ texts.T
    same = (tokens[:count, None] == tokens[None]).all(-1)
    same[:, :count].fill_diagonal_(False)
    logits = logits.masked_fill(same, -torch.inf)
    truth = torch.arange(count, device=images.device)
    loss = (F.cross_entropy(logits, truth) + F.cross_entropy(logits[:, :count].T, truth)) / 2
    return loss, (logits[:, :count].argmax(1) == truth).float().mean()


def held_out(count: int, seed: int) -> tuple[Tensor, list[str]]:
    """Scenes with different sets of objects, never trained on, and captions that name every object."""
    seen: set[tuple[str, ...]] = set()
    pixels, texts = [], []
    for i in range(100 * count):
        rng = random.Random(f"held-out/{seed}/{i}")
        scene = compose.random_scene(rng)
        objects = tuple(sorted(one.name for one in scene.objects))
        if objects in seen:
            continue
        seen.add(objects)
        pixels.append(compose.draw(scene, "noto", scenes.SIZE).pixels)
        texts.append(captions.describe(scene, rng, every=True).text())
        if len(texts) == count:
            break
    return as_input(pixels), texts


@torch.no_grad()
def retrieval(model: torch.nn.Module, batches: int = 3, count: int = 192) -> float:
    """Share of held-out images whose own caption is the most similar of `count`, over some batches."""
    model.eval()
    tokenize, device = scenes.tokenizer(), next(model.parameters()).device
    hits = []
    for seed in range(batches):
        images, texts = held_out(count, seed)
        left = F.normalize(model.encode_image(images.to(device)), dim=-1)
        right = F.normalize(model.encode_text(tokenize(texts).to(device)), dim=-1)
        hits.append(((left @ right.T).argmax(1).cpu() == torch.arange(count)).float().mean())
    model.train()
    return float(torch.stack(hits).mean())


def optimizers(model: torch.nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest; both take AdamW's learning rates."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "resblocks" in name]
    known = {id(p) for p in inner}
    rest = [p for p in model.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(inner, lr=1e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def rates(stages: tuple[Stage, ...]) -> list[float]:
    """Every step's learning rate."""
    made = []
    for stage in stages:
        for i in range(stage.steps):
            share = 0.5 - 0.5 * math.cos(math.pi * i / stage.steps)
            made.append((stage.lr + (stage.end - stage.lr) * share) * min(1.0, (len(made) + 1) / WARM_UP))
    return made


def moved(batch: tuple[Tensor, Tensor, Tensor, Tensor | None], device: str) -> Iterator[Tensor | None]:
    return (part if part is None else part.to(device, non_blocking=True) for part in batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the recipe's steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--install", action="store_true", help="copy the weights into the package")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    stages = tuple(replace(stage, steps=max(1, round(stage.steps * given.scale))) for stage in RECIPE)
    data, plan = Batches(stages, given.batch, given.seed), rates(stages)
    model = scenes.build(given.seed).to(given.device).train()
    steppers = optimizers(model)
    facts = json.dumps({"batch": given.batch, "seed": given.seed, "scale": given.scale, "recipe": str(RECIPE)})
    begun, state = 0, given.out / "state.pt"
    log: list[dict[str, float | int | str]] = []
    if state.is_file():
        kept = torch.load(state, map_location=given.device, weights_only=True)
        if kept["facts"] != facts:
            raise SystemExit(f"{given.out} holds another run: choose another folder")
        begun, log = kept["step"], kept["log"]
        model.load_state_dict(kept["model"])
        for stepper, values in zip(steppers, kept["optimizers"], strict=True):
            stepper.load_state_dict(values)
    todo = list(range(begun, len(data)))
    loader = DataLoader(data, batch_size=None, sampler=todo, num_workers=1, prefetch_factor=8)
    started = time.time()
    for number, batch in zip(todo, loader, strict=True):
        pixels, texts, wrongs, keep = moved(batch, given.device)
        tokens = torch.cat([texts, wrongs])
        with torch.autocast(given.device, dtype=torch.bfloat16):
            left, right = embed_images(model, pixels, keep), embed_texts(model, tokens)
        loss, hit = contrastive(model, left, right, tokens)
        for stepper in steppers:
            for group in stepper.param_groups:
                group["lr"] = plan[number]
            stepper.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepper in steppers:
            stepper.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        line = {"step": number, "stage": data.kinds[number], "loss": round(loss.item(), 4), "hit": round(hit.item(), 4)}
        if (number + 1) % 100 == 0 or number + 1 == len(data):
            line["retrieval"] = round(retrieval(model), 4)
            line["images_per_second"] = round((number + 1 - begun) * given.batch / (time.time() - started), 1)
        log.append(line)
        if (number + 1) % 20 == 0 or number + 1 == len(data):
            print(json.dumps(line), flush=True)
        if (number + 1) % 100 == 0 or number + 1 == len(data):
            with atomic(state) as file:
                optim = [stepper.state_dict() for stepper in steppers]
                torch.save(
                    {"facts": facts, "step": number + 1, "log": log, "model": model.state_dict(), "optimizers": optim},
                    file,
                )
    finish(model, log, given.out, given.install)


def curves(log: list[dict[str, float | int | str]], path: Path) -> None:
    """Loss of every batch and retrieval on held-out scenes over the steps."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([line["step"] for line in log], [line["loss"] for line in log], linewidth=0.6, color="#0072B2")
    axes.set(xlabel="step", ylabel="loss (blue)", ylim=(0, None))
    other = axes.twinx()
    tried = [line for line in log if "retrieval" in line]
    other.plot([x["step"] for x in tried], [x["retrieval"] for x in tried], marker="o", markersize=3, color="#D55E00")
    other.set(ylabel="retrieval of 192 (orange)", ylim=(0, 1))
    for before, after in pairwise(log):
        if before["stage"] != after["stage"]:
            axes.axvline(after["step"], color="#999999", linewidth=0.6)
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": None})


def finish(model: torch.nn.Module, log: list[dict[str, float | int | str]], out: Path, install: bool) -> None:
    """Writes log, curves and weights; into the package too, with the hash that it checks, where asked."""
    with atomic(out / "log.jsonl") as file:
        file.write("".join(json.dumps(line) + "\n" for line in log).encode())
    curves(log, out / "curves.png")
    data = save({key: value.detach().cpu().half().contiguous() for key, value in model.state_dict().items()})
    weights = out / "scenes.safetensors"
    with atomic(weights) as file:
        file.write(data)
    digest = hashlib.sha256(data).hexdigest()
    print(f"{weights}: {len(data) / 1e6:.1f} MB, SHA-256 {digest}")
    if install:
        package = Path(scenes.__file__).parent
        shutil.copy(weights, package / "scenes.safetensors")
        source = package / "scenes.py"
        text = re.sub(r'WEIGHTS_SHA256 = "\w*"', f'WEIGHTS_SHA256 = "{digest}"', source.read_text())
        source.write_text(text)


if __name__ == "__main__":
    main()
