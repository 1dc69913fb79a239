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
        examples = [self._example(kind, random.Random(f"{self.seed}/{number}/{i}")) for i in range(self.batch)]
        pixels, texts, wrongs, patches = zip(*examples, strict=True)
        tokens = self.tokenize([*texts, *wrongs])
        tokens = tokens[:, : int((tokens != 0).sum(1).max())]
        keep = None if kind == "whole" else torch.tensor(patches)
        return as_input(pixels), tokens[: self.batch], tokens[self.batch :], keep

    def _example(self, kind: str, rng: random.Random) -> tuple[np.ndarray, str, str, list[int]]:
        scene = compose.random_scene(rng)
        pixels = compose.draw(scene, "noto", scenes.SIZE).pixels
        keep: list[int] = []
        if kind == "window":
            target = rng.choice(scene.objects)
            # A corner of the window such that the object's centre lies near the window's.
            x, y = (
                min(max(round(c * GRID / compose.UNITS - WINDOW / 2) + rng.randint(-1, 1), 0), GRID - WINDOW)
                for c in target.centre
            )
            keep = [GRID * (y + j) + x + i for j in range(WINDOW) for i in range(WINDOW)]
            scene = replace(scene, objects=(target,))
        elif kind == "half":
            keep = sorted(rng.sample(range(GRID**2), GRID**2 // 2))
        caption = captions.describe(scene, rng, every=rng.random() < 0.5)
        wrong = captions.wrong_captions(scene, caption, rng)
        return pixels, caption.text(), (rng.choice(wrong).caption if wrong else caption).text(), keep


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
    used: set[tuple[str, ...]] = set()
    pixels, texts = [], []
    for i in range(100 * count):
        rng = random.Random(f"held-out/{seed}/{i}")
        scene = compose.random_scene(rng)
        objects = tuple(sorted(item.name for item in scene.objects))
        if objects in used:
            continue
        used.add(objects)
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
    identities = {id(p) for p in inner}
    rest = [p for p in model.parameters() if id(p) not in identities]
    return [
        torch.optim.Muon(inner, lr=1e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def rates(stages: tuple[Stage, ...]) -> list[float]:
    """Every step's learning rate."""
    plan = []
    for stage in stages:
        for i in range(stage.steps):
            share = 0.5 - 0.5 * math.cos(math.pi * i / stage.steps)
            plan.append((stage.lr + (stage.end - stage.lr) * share) * min(1.0, (len(plan) + 1) / WARM_UP))
    return plan


def to_device(batch: tuple[Tensor, Tensor, Tensor, Tensor | None], device: str) -> Iterator[Tensor | None]:
    return (part if part is None else part.to(device, non_blocking=True) for part in batch)


class Run:
    """A training run in a folder: the model, its optimizers, the log, and the next step."""

    def __init__(self, out: Path, data: Batches, plan: list[float], facts: str, seed: int, device: str) -> None:
        self.data, self.plan, self.facts, self.device = data, plan, facts, device
        self.state = out / "state.pt"
        self.model = scenes.build(seed).to(device).train()
        self.optimizers = optimizers(self.model)
        self.first = 0
        self.log: list[dict[str, float | int | str]] = []
        if self.state.is_file():
            self.resume()

    def resume(self) -> None:
        """Continue from the state that an interrupted run of the same options saved."""
        state = torch.load(self.state, map_location=self.device, weights_only=True)
        if state["facts"] != self.facts:
            raise SystemExit(f"{self.state.parent} holds another run, with different options: choose another folder")
        self.first, self.log = state["step"], state["log"]
        self.model.load_state_dict(state["model"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)

    def save(self, step: int) -> None:
        state = {
            "facts": self.facts,
            "step": step,
            "log": self.log,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        with atomic(self.state) as file:
            torch.save(state, file)

    def step(self, number: int, batch: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        """Train on one batch; its loss and retrieval accuracy."""
        pixels, texts, wrongs, keep = to_device(batch, self.device)
        tokens = torch.cat([texts, wrongs])
        with torch.autocast(self.device, dtype=torch.bfloat16):
            left, right = embed_images(self.model, pixels, keep), embed_texts(self.model, tokens)
        loss, accuracy = contrastive(self.model, left, right, tokens)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.plan[number]
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        return loss, accuracy

    def train(self) -> None:
        """Train to the end; print every 20 steps, save and measure retrieval every 100."""
        numbers = list(range(self.first, len(self.data)))
        loader = DataLoader(self.data, batch_size=None, sampler=numbers, num_workers=1, prefetch_factor=8)
        started = time.time()
        for number, batch in zip(numbers, loader, strict=True):
            loss, accuracy = self.step(number, batch)
            count, last = number + 1, number + 1 == len(self.data)
            hit = round(accuracy.item(), 4)
            line = {"step": number, "stage": self.data.kinds[number], "loss": round(loss.item(), 4), "hit": hit}
            if count % 100 == 0 or last:
                line["retrieval"] = round(retrieval(self.model), 4)
                images = (count - self.first) * self.data.batch
                line["images_per_second"] = round(images / (time.time() - started), 1)
            self.log.append(line)
            if count % 20 == 0 or last:
                print(json.dumps(line), flush=True)
            if count % 100 == 0 or last:
                self.save(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the recipe's steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--install", action="store_true", help="copy the weights into the package")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    stages = tuple(replace(stage, steps=max(1, round(stage.steps * options.scale))) for stage in RECIPE)
    data = Batches(stages, options.batch, options.seed)
    facts = json.dumps({"batch": options.batch, "seed": options.seed, "scale": options.scale, "recipe": str(RECIPE)})
    run = Run(options.out, data, rates(stages), facts, options.seed, options.device)
    run.train()
    finish(run.model, run.log, options.out, options.install)


def curves(log: list[dict[str, float | int | str]], path: Path) -> None:
    """Loss of every batch and retrieval on held-out scenes over the steps."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([line["step"] for line in log], [line["loss"] for line in log], linewidth=0.6, color="#0072B2")
    axes.set(xlabel="step", ylabel="loss (blue)", ylim=(0, None))
    right_axes = axes.twinx()
    measured = [line for line in log if "retrieval" in line]
    right_axes.plot(
        [x["step"] for x in measured], [x["retrieval"] for x in measured], marker="o", markersize=3, color="#D55E00"
    )
    right_axes.set(ylabel="retrieval of 192 (orange)", ylim=(0, 1))
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
