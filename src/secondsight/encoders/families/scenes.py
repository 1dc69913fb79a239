"""The scenes model: a small CLIP that open_clip runs, trained in the package's own world of drawings.

It knows the classes, sizes, relations and backgrounds of `secondsight.data.scenes` in the Noto style and nothing else:
made for experiments whose truth is known, not for photographs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import load as load_safetensors
from torch import Tensor

from secondsight.encoders.families.open_clip.models import wrap_open_clip
from secondsight.inputs.images import Preprocess
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import brief, packaged

SIZE = 96
"""Pixels of the square that the model sees: a grid of 12 × 12 patches."""

CONTEXT = 32
"""Tokens of the longest caption, start and end included."""

_MERGES_SHA256 = "c395bcc91ce20e76089d58db4be60831b69bc9662194d9074bc621f48ec46bd4"
WEIGHTS_SHA256 = "f418f9e47b25642a21273aa9a19535cb20e23e98c57f0c7e9c7f80a2359bdcd1"
"""Of the weights that the package carries."""

ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "patch_size": 8, "layers": 6, "width": 160, "head_width": 32},
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 1016, "width": 128, "heads": 4, "layers": 3},
}


def preprocess(image: Image.Image) -> Tensor:
    """An image as the scenes model wants it: squashed to a square, pixels in −1 … 1; (3, SIZE, SIZE)."""
    small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy((np.array(small, dtype=np.float32) - 127.5) / 127.5).permute(2, 0, 1)


def tokenizer() -> SimpleTokenizer:
    """open_clip's byte-pair tokenizer with the merges of the world's words, each of which is one token."""
    resource = files(__package__) / "scenes_merges.txt.gz"
    packaged(resource, _MERGES_SHA256)
    with as_file(resource) as path:
        return SimpleTokenizer(str(path), context_length=CONTEXT)


def build(seed: int = 0) -> open_clip.CLIP:
    """The architecture with random weights; the caller's random state stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return open_clip.CLIP(**ARCHITECTURE)


def parts(weights: str | Path | None = None) -> tuple[open_clip.CLIP, Preprocess, SimpleTokenizer]:
    """Model, preprocessing and tokenizer, with the package's weights or those of a fine-tuned checkpoint."""
    if weights is None:
        data = packaged(files(__package__) / "scenes.safetensors", WEIGHTS_SHA256)
    else:
        try:
            data = Path(weights).read_bytes()
        except OSError as problem:
            raise InputError(f"{str(weights)!r} holds no weights of the scenes model ({problem.strerror})") from None
    model = build()
    _load_weights(model, data, str(weights or "scenes"))
    return model.eval(), preprocess, tokenizer()


def _load_weights(model: open_clip.CLIP, data: bytes, name: str) -> None:
    try:
        state: Mapping[str, Tensor] = load_safetensors(data)
        model.load_state_dict({key: value.float() for key, value in state.items()})
    except Exception as problem:
        raise InputError(f"{name!r} holds no weights of the scenes model ({brief(problem)})") from None


def load_scenes(weights: str = "") -> DualEncoder:
    """The dual encoder "scenes", or "scenes:FILE.safetensors" for a fine-tuned one."""
    model, prepare, tokens = parts(weights or None)
    return wrap_open_clip(model.requires_grad_(False), prepare, tokens, f"scenes:{weights}" if weights else "scenes")
