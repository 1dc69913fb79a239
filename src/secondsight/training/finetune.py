"""Fine-tuning an open_clip model on image-caption pairs with the symmetric contrastive loss ([M25] §4.1)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from open_clip.loss import ClipLoss
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn

from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.encoders.families import scenes
from secondsight.encoders.families.open_clip.models import FACTS, open_clip_parts
from secondsight.inputs.images import open_image
from secondsight.methods.base import one_of
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder, locked, reading

PRECISIONS = ("no", "bf16", "fp16")

LARGEST_SCALE = math.log(100)
"""CLIP's bound of the logarithm of the logit scale, without which the loss can diverge within a few steps."""

Progress = Callable[[int, int, float], None]
"""Called with the number of steps done, their total and the loss."""


@dataclass(frozen=True)
class Recipe:
    """[M25] §4.1: AdamW, learning rate rising exponentially from `start_lr` to `lr`, then constant.

    `warm_up` is the number of steps of the rise, None for the first epoch's. With `final_lr` the rate then falls, along half
    a cosine, to that value at the last step (not in the paper). `batch` is the batch of all processes together. `precision`
    is "no", "bf16" or "fp16" (mixed, for GPUs). `seed` determines the order of the pairs.
    """

    epochs: int = 5
    batch: int = 64
    lr: float = 1e-5
    start_lr: float = 1e-7
    warm_up: int | None = None
    weight_decay: float = 1e-4
    precision: str = "no"
    seed: int = 0
    final_lr: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "start_lr"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)!r} must be positive")
        if self.final_lr is not None and not 0 <= self.final_lr <= self.lr:
            raise InputError(f"final_lr={self.final_lr!r} must lie between 0 and lr={self.lr!r}")
        if self.batch < 2:
            raise InputError(f"batch={self.batch!r}: a contrastive loss needs at least two pairs")
        one_of("precision", self.precision, PRECISIONS)
        if self.weight_decay < 0 or (self.warm_up is not None and self.warm_up < 0):
            raise InputError("weight_decay and warm_up must not be negative")

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = steps_per_epoch if self.warm_up is None else self.warm_up
        share = min(step / rise, 1.0) if rise else 1.0
        if step < rise or self.final_lr is None:
            return float(self.start_lr * (self.lr / self.start_lr) ** share)
        fallen = (step - rise) / max(1, self.epochs * steps_per_epoch - 1 - rise)
        return self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, fallen)))


def finetune(
    model: str,
    data: GroundedDataset,
    out: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fine-tune an open_clip model, or the scenes model, on a data set's captions; returns the checkpoint.

    `model` is "open_clip:ARCHITECTURE/WEIGHTS", "scenes" or "scenes:WEIGHTS"; `tuned_name` gives the name under which
    `ss.load` loads the checkpoint.

    Under `out`: model.safetensors after the last epoch, epoch-N.safetensors after each, log.jsonl with every step's loss
    and rate, and state.pt, from which a stopped run continues after its last whole epoch. Several processes (`accelerate
    launch`) share batches and negatives. Raises `InputError` for other models, too little data, or an `out` of another
    run.
    """
    recipe = recipe or Recipe()
    host, preprocess, tokenizer = _parts(model)
    accelerator = Accelerator(mixed_precision=recipe.precision)
    pairs = [pair for pair, _ in zip(data, range(limit), strict=False)] if limit is not None else list(data)
    if len(pairs) < recipe.batch or recipe.batch < accelerator.num_processes:
        raise InputError(f"{data.name} has {len(pairs)} usable pairs, fewer than a batch of {recipe.batch}")
    folder = ensure_folder(out)
    facts = {"model": model, "data": data.name, "pairs": len(pairs), **asdict(recipe)}
    with locked(folder) if accelerator.is_main_process else nullcontext():
        trainer = _Trainer(host, preprocess, tokenizer, pairs, recipe, accelerator, progress)
        start = _resume(folder, facts, host, trainer.optimizer, accelerator.device)
        trainer.prepare()
        for epoch in range(start, recipe.epochs):
            log = trainer.run_epoch(epoch)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                _save_epoch(folder, epoch, facts, host, trainer.optimizer, log)
            accelerator.wait_for_everyone()
        checkpoint = folder / "model.safetensors"
        if accelerator.is_main_process:
            with atomic(checkpoint) as file:
                file.write(_weights(host))
        return checkpoint


def tuned_name(model: str, checkpoint: str | os.PathLike[str]) -> str:
    """The name under which `ss.load` loads a checkpoint that `finetune` made from `model`."""
    if model.partition(":")[0] == "scenes":
        return f"scenes:{os.fspath(checkpoint)}"
    architecture = model.removeprefix("open_clip:").partition("/")[0]
    return f"open_clip:{architecture}/{os.fspath(checkpoint)}"


def _parts(model: str) -> tuple[Any, Callable[[Image.Image], Tensor], Callable[[list[str]], Tensor]]:
    """The host model, its preprocessing and its tokenizer."""
    kind, _, name = model.partition(":")
    if kind == "scenes":
        return scenes.parts(name or None)
    if kind != "open_clip":
        raise InputError(
            f"cannot fine-tune {model!r}: only open_clip models, as open_clip:ARCHITECTURE/WEIGHTS, and scenes"
        )
    return open_clip_parts(name)


class _Pair(nn.Module):
    """Both towers as one forward pass, so that several processes share gradients."""

    def __init__(self, host: nn.Module) -> None:
        super().__init__()
        self.host = host

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        host: Any = self.host
        left, right = host.encode_image(images), host.encode_text(texts)
        return F.normalize(left, dim=-1), F.normalize(right, dim=-1), host.logit_scale.exp()


class _Trainer:
    """Steps of one process: its part of every batch, the loss over all processes, and the log."""

    def __init__(
        self,
        host: Any,
        preprocess: Callable[[Image.Image], Tensor],
        tokenizer: Callable[[list[str]], Tensor],
        pairs: Sequence[GroundedCaption],
        recipe: Recipe,
        accelerator: Accelerator,
        progress: Progress | None,
    ) -> None:
        self.preprocess, self.tokenizer, self.pairs = preprocess, tokenizer, pairs
        self.recipe, self.accelerator, self.progress = recipe, accelerator, progress
        self.steps_per_epoch = len(pairs) // recipe.batch
        self.host = host
        self.towers: nn.Module = _Pair(host)
        self.optimizer = torch.optim.AdamW(host.parameters(), lr=recipe.start_lr, weight_decay=recipe.weight_decay)
        self.loss = ClipLoss(
            local_loss=False,
            gather_with_grad=True,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )

    def prepare(self) -> None:
        """Hand the towers and the optimizer to the accelerator, once their state is in place."""
        self.towers, self.optimizer = self.accelerator.prepare(self.towers, self.optimizer)

    def run_epoch(self, epoch: int) -> str:
        """One pass through the data; its log, a line of JSON for each step."""
        self.towers.train()
        lines = []
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        for number, indices in enumerate(_batches(len(self.pairs), self.recipe, epoch, process, processes)):
            step = epoch * self.steps_per_epoch + number
            rate = self.recipe.rate(step, self.steps_per_epoch)
            loss = self._step([self.pairs[i] for i in indices], step, rate)
            lines.append(json.dumps({"step": step, "epoch": epoch, "loss": loss, "lr": rate}) + "\n")
            if self.progress and self.accelerator.is_main_process:
                self.progress(step + 1, self.recipe.epochs * self.steps_per_epoch, loss)
        return "".join(lines)

    def _step(self, batch: Sequence[GroundedCaption], step: int, rate: float) -> float:
        """One step of the optimizer; the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        device = self.accelerator.device
        images = torch.stack([self.preprocess(open_image(pair.image)) for pair in batch]).to(device)
        texts = self.tokenizer([pair.caption for pair in batch]).to(device)
        with self.accelerator.autocast():
            left, right, scale = self.towers(images, texts)
        loss = self.loss(left.float(), right.float(), scale.float())
        if not bool(torch.isfinite(loss)):
            raise InputError(f"the loss became {loss.item()} at step {step}: use a smaller lr, or precision bf16 or no")
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.optimizer.step()
        with torch.no_grad():
            self.host.logit_scale.clamp_(0, LARGEST_SCALE)
        return float(loss.item())


def _batches(count: int, recipe: Recipe, epoch: int, process: int, processes: int) -> Iterator[list[int]]:
    """One process's part of every batch; the order depends only on the seed and the epoch."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator).tolist()
    share = recipe.batch // processes
    for start in range(0, count - recipe.batch + 1, recipe.batch):
        batch = order[start : start + recipe.batch]
        yield batch[process * share : (process + 1) * share]


def _weights(host: Any) -> bytes:
    """The state as safetensors, with what is needed to build the model again and prepare its images."""
    state = {key: value.detach().cpu().contiguous().clone() for key, value in host.state_dict().items()}
    preprocessing = dict(getattr(host.visual, "preprocess_cfg", {}))  # open_clip stores it there
    keys = [key for key in ("mean", "std", "interpolation", "resize_mode") if key in preprocessing]
    facts = {
        "force_quick_gelu": any(type(module).__name__ == "QuickGELU" for module in host.modules()),
        **{f"image_{key}": preprocessing[key] for key in keys},
    }
    return save(state, metadata={FACTS: json.dumps(facts)})


def _save_epoch(
    folder: Path, epoch: int, facts: dict[str, Any], host: nn.Module, optimizer: torch.optim.Optimizer, log: str
) -> None:
    """An epoch's checkpoint first, then its lines of the log, then the state that refers to the checkpoint."""
    with atomic(folder / f"epoch-{epoch + 1}.safetensors") as file:
        file.write(_weights(host))
    log_file = folder / "log.jsonl"
    earlier = log_file.read_text().splitlines() if log_file.is_file() else []
    lines = [line for line in earlier if json.loads(line)["epoch"] < epoch]
    with atomic(log_file) as file:
        file.write(("".join(line + "\n" for line in lines) + log).encode())
    state = {"facts": json.dumps(facts, sort_keys=True), "epoch": epoch + 1, "optimizer": optimizer.state_dict()}
    with atomic(folder / "state.pt") as file:
        torch.save(state, file)


def _resume(
    folder: Path, facts: dict[str, Any], host: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> int:
    """Load the weights and the optimizer of the last whole epoch; the number of finished epochs."""
    file = folder / "state.pt"
    if not file.is_file():
        return 0
    with reading(file, "state of a training run"):
        state = torch.load(file, map_location="cpu", weights_only=True)
        run, optimizer_state, epoch = state["facts"], state["optimizer"], int(state["epoch"])
    if run != json.dumps(facts, sort_keys=True):
        raise InputError(f"{str(folder)!r} holds another run (other model, data or recipe): choose another folder")
    weights = folder / f"epoch-{epoch}.safetensors"
    with reading(weights, "weights of this run"):
        host.load_state_dict(load_file(weights))
    host.to(device)
    with reading(file, "state of a training run"):
        optimizer.load_state_dict(optimizer_state)
    return epoch
