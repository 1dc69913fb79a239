"""Names of models, and model objects, as dual encoders."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

from torch import nn

from secondsight.encoders.names import FAMILIES as FAMILIES
from secondsight.encoders.names import Family
from secondsight.encoders.names import known_name as known_name
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import shortened


def _function(path: str) -> Callable[..., DualEncoder]:
    module, name = path.split(":")
    with warnings.catch_warnings():
        # Libraries of models use functions that torch is about to drop: nothing that our users could change.
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        function: Callable[..., DualEncoder] = getattr(import_module(module), name)
    return function


def load(name: Any, *, prompts: Any = None) -> DualEncoder:
    """The model of that name: "builtin", "open_clip:ARCHITECTURE/TAG_OR_PATH", "hf:NAME_OR_FOLDER", "st:NAME_OR_FOLDER".

    `prompts` as in `wrap`. Raises `InputError` for unknown names, and where weights are neither on this machine nor
    reachable.
    """
    family = known_name(name)
    loader, options = _function(family.loader), _options(family, name, prompts)
    return loader(name.removeprefix(family.prefix), **options) if family.prefix.endswith(":") else loader()


def _options(family: Family, name: str, prompts: Any) -> dict[str, Any]:
    if prompts is None:
        return {}
    if not family.prompts:
        raise InputError(
            f"{name} has no prompts: only sentence-transformers models take prompts=; write it into the text"
        )
    return {"prompts": prompts}


def as_model(model: Any) -> DualEncoder:
    """A dual encoder, or the model of a name; the one that was named last stays loaded. `InputError` for anything else."""
    if isinstance(model, DualEncoder):
        return model
    if isinstance(model, str):
        return _loaded(model)
    if isinstance(model, nn.Module):
        raise InputError(f"{type(model).__name__} is not a dual encoder yet: wrap it first, ss.wrap(model)")
    raise InputError(
        f"{shortened(model)} is not a model: give a name such as 'builtin', or what ss.load or ss.wrap gave"
    )


@lru_cache(maxsize=1)
def _loaded(name: str) -> DualEncoder:
    return load(name)


def wrap(
    model: Any, preprocess: Any = None, tokenizer: Any = None, *, name: str | None = None, prompts: Any = None
) -> DualEncoder:
    """A dual encoder around a model object that the user already has; the model stays as it is.

    For open_clip, `preprocess` maps a PIL image to a tensor (3, H, W) and `tokenizer` a list of strings to token ids; for
    transformers `preprocess` is the model's processor, or its image processor or feature extractor beside a `tokenizer`.
    Without them only model-ready tensors can be explained.

    `prompts` are the texts that precede queries and documents of a sentence-transformers model, ("query: ", "passage: "),
    or their names among the model's own; "" for none, by default what its `encode_query` and `encode_document` take.

    Raises `InputError` for objects of an unknown family.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"cannot wrap {type(model).__name__}: give a model object, or load a name with ss.load")
    for family in FAMILIES:
        if family.wrapper is not None and family.recognises(model):
            options = _options(family, type(model).__name__, prompts)
            return _function(family.wrapper)(model, preprocess, tokenizer, name or type(model).__name__, **options)
    raise InputError(
        f"{type(model).__name__} is not a model that secondsight knows: describe its sides with ss.TorchEncoder"
    )
