"""What a family's small random model is made of, and the list of families."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as hub
from PIL import Image
from torch import Tensor, nn
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

import secondsight as ss

PHOTO = Path(__file__).parents[3] / "examples" / "coffee.jpg"
CAPTIONS = ["a cup of coffee and a spoon on a wooden table", "two dogs play with a frisbee"]


@dataclass(frozen=True)
class Example:
    """A model with inputs of both sides, and the host's own embeddings of them, not normalised."""

    model: ss.DualEncoder
    host: nn.Module
    left: list[Any]
    right: list[Any]
    host_left: Callable[[Any], Tensor]
    host_right: Callable[[Any], Tensor]
    # Cosine models whose own functions normalise are compared after normalising both.
    normalised: bool = False
    # The image processor or feature extractor, and the tokenizer.
    parts: tuple[Any, ...] = ()


FAMILIES: dict[str, Callable[[torch.dtype], Example]] = {}


def family(build: Callable[[torch.dtype], Example]) -> Callable[[torch.dtype], Example]:
    """List a builder under its function's name; its docstring is the family's title in the docs."""
    FAMILIES[build.__name__.replace("_", "-")] = build
    return build


@cache
def photographs() -> list[Image.Image]:
    """Two photographs of different shapes."""
    whole = Image.open(PHOTO).convert("RGB")
    return [whole, whole.crop((whole.width // 2, 0, whole.width, whole.height)).resize((150, 240))]


def settled(model: nn.Module, dtype: torch.dtype, seed: int = 0, sharpness: float = 1.5) -> nn.Module:
    """Weights of one size whatever the library's initialisation: sharp attention, far from linear."""
    generator = torch.Generator().manual_seed(seed)

    def random(tensor: Tensor, scale: float, middle: float = 0.0) -> None:
        tensor.copy_(middle + scale * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            random(parameter, sharpness / fan**0.5 if parameter.ndim > 1 else 0.3)
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                random(module.weight, 1.0)
            elif "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
                random(module.weight, 0.2, 1.0)
            if isinstance(module, nn.BatchNorm2d):
                random(module.running_mean, 0.2)
                module.running_var.fill_(1.0).add_(0.2)
        for name in ("logit_scale", "logit_scale_a", "logit_scale_t", "temperature"):
            if isinstance(getattr(model, name, None), Tensor):
                getattr(model, name).fill_(2.0)
    return model.eval().to(dtype)


VISION = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=48, patch_size=8
)
TEXT = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3)


@dataclass
class Pair:
    """An image processor and a tokenizer together, as processors of transformers have them."""

    image_processor: Any
    tokenizer: Any


def text_config(tokenizer: Any, positions: int = 32, **options: Any) -> dict[str, Any]:
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    ids |= dict(bos_token_id=tokenizer.bos_token_id)
    return TEXT | ids | dict(vocab_size=len(tokenizer), max_position_embeddings=positions) | options


def resized(side: int = 48, **options: Any) -> Any:
    return hub.CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **options)


def save_hub(example: Example, folder: Path) -> None:
    """A model of transformers and its processor, as a hub has them."""
    example.host.save_pretrained(folder)
    processor = getattr(hub, PROCESSOR_MAPPING_NAMES[example.host.config.model_type])
    # Saving writes the processor's name into the tokenizer object.
    processor(*copy.deepcopy(example.parts)).save_pretrained(folder)
