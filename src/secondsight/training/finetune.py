"""Fine-tuning an open_clip model on image-caption pairs with the symmetric contrastive loss ([M25] §4.1)."""

from __future__ import annotations

import io
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
from safetensors.torch import load_file, save
from torch import Tensor, nn

from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.encoders.families import scenes
from secondsight.encoders.families.open_clip import FACTS, open_clip_parts
from secondsight.inputs.images import open_image
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder, locked, reading

PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True)
class Recipe:
    """[M25] §4.1: AdamW, learning rate rising exponentially from `start_lr` to `lr`, then constant.

    `warm_up` is the number of steps of the rise, None for the first epoch's. With `final_lr` the rate falls after the rise,
    in half a cosine, to that at the last step (not in the paper). `batch` is the batch of all processes
    together. `precision` is "no", "bf16" or "fp16" (mixed, for GPUs). `seed` decides the order of the pairs.
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
        if self.precision not in PRECISIONS:
            raise InputError(f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}")
        if self.weight_decay < 0 or (self.warm_up is not None and self.warm_up < 0):
            raise InputError("weight_decay and warm_up must not be negative")

    def rate(self, step: int, an_epoch: int) -> float:
        """The learning rate of a step, counted from 0."""
        rise = an_epoch if self.warm_up is None else self.warm_up
        share = min(step / rise, 1.0) if rise else 1.0
        if step < rise or self.final_lr is None:
            return float(self.start_lr * (self.lr / self.start_lr) ** share)
        left = (step - rise) / max(1, self.epochs * an_epoch - 1 - rise)
        return self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, left)))


def finetune(
    model: str,
    data: GroundedDataset,
    out: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    limit: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Path:
    """Fine-tune an open_clip model, or the scenes model, on a data set's captions; returns the checkpoint.

    `model` is "open_clip:ARCHITECTURE/WEIGHTS", "scenes" or "scenes:WEIGHTS"; `tuned_name` says how `ss.load` is asked for
    the checkpoint.

    Under `out`: model.safetensors after the last epoch, epoch-N.safetensors after each, log.jsonl with every step's loss
    and rate, state.pt to go on from where a run was stopped (the last whole epoch). Several processes (`accelerate
    launch`) share batches and negatives. Raises `InputError` for other models, too little data, or an `out` of another
    run.
    """
    recipe = recipe or Recipe()
    host, preprocess, tokenizer = _parts(model)
    accelerator = Accelerator(mixed_precision=recipe.precision)
    pairs = [one for one, _ in zip(data, range(limit), strict=False)] if limit is not None else list(data)
    share = recipe.batch // accelerator.num_processes
    an_epoch = len(pairs) // recipe.batch
    if an_epoch < 1 or share < 1:
        raise InputError(f"{data.name} has {len(pairs)} usable pairs, fewer than a batch of {recipe.batch}")
    folder = Path(out)
    ensure_folder(folder)
    facts = {"model": model, "data": data.name, "pairs": len(pairs), **asdict(recipe)}
    optimizer = torch.optim.AdamW(host.parameters(), lr=recipe.start_lr, weight_decay=recipe.weight_decay)
    with locked(folder) if accelerator.is_main_process else nullcontext():
        begun = _resumed(folder, facts, host, optimizer, accelerator)
        loss = ClipLoss(
            local_loss=False,
            gather_with_grad=True,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        trained, optimizer = accelerator.prepare(_Pair(host), optimizer)
        inner: Any = host
        total = recipe.epochs * an_epoch
        made = io.StringIO()
        for epoch in range(begun, recipe.epochs):
            trained.train()
            for number, chosen in enumerate(_batches(len(pairs), recipe, epoch, accelerator.process_index, share)):
                step = epoch * an_epoch + number
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate(step, an_epoch)
                images, texts = _tensors([pairs[i] for i in chosen], preprocess, tokenizer)
                with accelerator.autocast():
                    features = trained(images.to(accelerator.device), texts.to(accelerator.device))
                value = loss(*(f.float() for f in features[:2]), features[2].float())
                if not bool(torch.isfinite(value)):
                    raise InputError(
                        f"the loss became {value.item()} at step {step}: use a smaller lr, or precision bf16 or no"
                    )
                optimizer.zero_grad()
                accelerator.backward(value)
                optimizer.step()
                with torch.no_grad():
                    # CLIP's own bound, without which a few steps can make the loss diverge.
                    inner.logit_scale.clamp_(0, math.log(100))
                line = {"step": step, "epoch": epoch, "loss": value.item(), "lr": recipe.rate(step, an_epoch)}
                made.write(json.dumps(line) + "\n")
                if progress and accelerator.is_main_process:
                    progress(step + 1, total, value.item())
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                _kept(folder, epoch, facts, host, optimizer, made.getvalue())
                made = io.StringIO()
            accelerator.wait_for_everyone()
        final = folder / "model.safetensors"
        if accelerator.is_main_process:
            with atomic(final) as file:
                file.write(_weights(host))
        return final


def tuned_name(model: str, checkpoint: str | os.PathLike[str]) -> str:
    """What `ss.load` takes for a checkpoint that `finetune` made of `model`."""
    if model.partition(":")[0] == "scenes":
        return f"scenes:{os.fspath(checkpoint)}"
    architecture = model.removeprefix("open_clip:").partition("/")[0]
    return f"open_clip:{architecture}/{os.fspath(checkpoint)}"


def _parts(model: str) -> tuple[Any, Any, Any]:
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


def _batches(count: int, recipe: Recipe, epoch: int, process: int, share: int) -> Iterator[list[int]]:
    """One process's part of every batch; the order depends on the seed and the epoch alone."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator).tolist()
    for start in range(0, count - recipe.batch + 1, recipe.batch):
        batch = order[start : start + recipe.batch]
        yield batch[process * share : (process + 1) * share]


def _tensors(batch: Sequence[GroundedCaption], preprocess: Any, tokenizer: Any) -> tuple[Tensor, Tensor]:
    images = torch.stack([preprocess(open_image(one.image)) for one in batch])
    return images, tokenizer([one.caption for one in batch])


def _weights(host: nn.Module) -> bytes:
    """The state as safetensors, with what is needed to make and feed the model again."""
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in host.state_dict().items()}
    settings = dict(getattr(host.visual, "preprocess_cfg", {}))  # open_clip keeps it there
    facts = {
        "force_quick_gelu": any(type(m).__name__ == "QuickGELU" for m in host.modules()),
        **{f"image_{key}": settings[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in settings},
    }
    return save(plain, metadata={FACTS: json.dumps(facts)})


def _kept(folder: Path, epoch: int, facts: dict[str, Any], host: nn.Module, optimizer: Any, log: str) -> None:
    """An epoch's checkpoint first, then the state that refers to it, then its lines of the log."""
    with atomic(folder / f"epoch-{epoch + 1}.safetensors") as file:
        file.write(_weights(host))
    state = {"facts": json.dumps(facts, sort_keys=True), "epoch": epoch + 1, "optimizer": optimizer.state_dict()}
    earlier = (folder / "log.jsonl").read_text() if (folder / "log.jsonl").is_file() else ""
    lines = [line for line in earlier.splitlines() if json.loads(line)["epoch"] < epoch]
    with atomic(folder / "log.jsonl") as file:
        file.write(("".join(line + "\n" for line in lines) + log).encode())
    with atomic(folder / "state.pt") as file:
        torch.save(state, file)


def _resumed(folder: Path, facts: dict[str, Any], host: nn.Module, optimizer: Any, accelerator: Any) -> int:
    """Puts the last whole epoch's weights and optimiser in place; the number of epochs that are done."""
    file = folder / "state.pt"
    if not file.is_file():
        return 0
    with reading(file, "state of a training run"):
        state = torch.load(file, map_location="cpu", weights_only=True)
        state["facts"], state["optimizer"], int(state["epoch"])
    if state["facts"] != json.dumps(facts, sort_keys=True):
        raise InputError(f"{str(folder)!r} holds another run (other model, data or recipe): choose another folder")
    epoch = int(state["epoch"])
    with reading(folder / f"epoch-{epoch}.safetensors", "weights of this run"):
        host.load_state_dict(load_file(folder / f"epoch-{epoch}.safetensors"))
    host.to(accelerator.device)
    with reading(file, "state of a training run"):
        optimizer.load_state_dict(state["optimizer"])
    return epoch
