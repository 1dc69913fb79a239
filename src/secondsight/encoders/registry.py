"""Names of models, and model objects, as dual encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from secondsight.encoders.base import DualEncoder
from secondsight.errors import InputError


@dataclass(frozen=True)
class Family:
    """A line of the table: how names begin, where the loader lives, and what to tell the user."""

    prefix: str
    loader: str
    example: str
    about: str


FAMILIES = (
    Family("builtin", "secondsight.encoders.builtin:load_builtin", "builtin", "photographs, offline, no hub; not CLIP"),
    Family(
        "open_clip:",
        "secondsight.encoders.open_clip:load_open_clip",
        "open_clip:ViT-B-16/openai",
        "open_clip ViT and ModifiedResNet; behind the slash a pretrained tag or a local checkpoint",
    ),
)


def load(name: str) -> DualEncoder:
    """The model of that name: "builtin", or "open_clip:ARCHITECTURE/TAG_OR_PATH".

    Raises `InputError` for unknown names, and where weights are neither here nor reachable.
    """
    for family in FAMILIES:
        whole = not family.prefix.endswith(":")
        if (whole and name == family.prefix) or (not whole and name.startswith(family.prefix)):
            module, function = family.loader.split(":")
            loader: Callable[..., DualEncoder] = getattr(import_module(module), function)
            return loader() if whole else loader(name.removeprefix(family.prefix))
    known = ", ".join(f"{f.prefix}…" if f.prefix.endswith(":") else f.prefix for f in FAMILIES)
    raise InputError(f"unknown model {name!r}; known: {known} (such as {FAMILIES[-1].example!r})")


def wrap(model: Any, preprocess: Any = None, tokenizer: Any = None, *, name: str | None = None) -> DualEncoder:
    """A dual encoder around a model object that the user already has; the model stays as it is.

    `preprocess` maps a PIL image to a tensor (3, H, W), `tokenizer` a list of strings to token ids; without them only
    model-ready tensors can be explained. Raises `InputError` for objects of an unknown family.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"cannot wrap {type(model).__name__}: give a model object, or load a name with ss.load")
    if hasattr(model, "visual") and hasattr(model, "encode_text"):
        from secondsight.encoders.open_clip import wrap_open_clip

        return wrap_open_clip(model, preprocess, tokenizer, name or type(model).__name__)
    raise InputError(
        f"{type(model).__name__} is not a model that secondsight knows: describe its sides with ss.TorchEncoder"
    )
