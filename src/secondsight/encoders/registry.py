"""Names of models, and model objects, as dual encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from torch import nn

from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import shortened


@dataclass(frozen=True)
class Family:
    """A line of the table: how names begin, where the loader lives, an example, and a description for users.

    `wrapper` is the function that wraps a model object; `recognises` tells whether an object belongs to the family.
    """

    prefix: str
    loader: str
    example: str
    about: str
    wrapper: str | None = None
    recognises: Callable[[nn.Module], bool] = lambda model: False


def _class_of(library: str) -> Callable[[nn.Module], bool]:
    return lambda model: any(c.__module__.split(".")[0] == library for c in type(model).__mro__)


FAMILIES = (
    Family(
        "builtin",
        "secondsight.encoders.families.builtin:load_builtin",
        "builtin",
        "photographs, offline, no hub; not CLIP",
    ),
    Family(
        "scenes",
        "secondsight.encoders.families.scenes:load_scenes",
        "scenes",
        "a small CLIP of the package's own world",
    ),
    Family(
        "scenes:",
        "secondsight.encoders.families.scenes:load_scenes",
        "scenes:tuned/model.safetensors",
        "the scenes model with other weights, such as fine-tuned ones",
    ),
    Family(
        "open_clip:",
        "secondsight.encoders.families.open_clip:load_open_clip",
        "open_clip:ViT-B-16/openai",
        "open_clip models; behind the slash a pretrained tag or a local checkpoint",
        "secondsight.encoders.families.open_clip:wrap_open_clip",
        lambda model: hasattr(model, "visual") and hasattr(model, "encode_text"),
    ),
    Family(
        "hf:",
        "secondsight.encoders.families.transformers:load_hub",
        "hf:google/siglip-base-patch16-224",
        "transformers: CLIP, SigLIP, SigLIP 2, ALIGN, AltCLIP, Chinese-CLIP, BLIP, CLAP; a hub name or a local folder",
        "secondsight.encoders.families.transformers:wrap_hub",
        _class_of("transformers"),
    ),
    Family(
        "st:",
        "secondsight.encoders.families.sentence_transformers:load_sentences",
        "st:sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers, two texts; a hub name or a local folder",
        "secondsight.encoders.families.sentence_transformers:wrap_sentences",
        _class_of("sentence_transformers"),
    ),
)


def _function(path: str) -> Callable[..., DualEncoder]:
    module, name = path.split(":")
    function: Callable[..., DualEncoder] = getattr(import_module(module), name)
    return function


def load(name: Any) -> DualEncoder:
    """The model of that name: "builtin", "open_clip:ARCHITECTURE/TAG_OR_PATH", "hf:NAME_OR_FOLDER", "st:NAME_OR_FOLDER".

    Raises `InputError` for unknown names, and where weights are neither on this machine nor reachable.
    """
    family = known_name(name)
    loader = _function(family.loader)
    return loader(name.removeprefix(family.prefix)) if family.prefix.endswith(":") else loader()


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


def known_name(name: Any) -> Family:
    """The family of a model's name; `InputError` that lists the known ones."""
    if not isinstance(name, str):
        remedy = "ss.wrap takes model objects" if isinstance(name, nn.Module) else "give one such as 'builtin'"
        raise InputError(f"{shortened(name)} is not the name of a model: {remedy}")
    for family in FAMILIES:
        if name.startswith(family.prefix) if family.prefix.endswith(":") else name == family.prefix:
            return family
    prefixes = ", ".join(f"{f.prefix}…" if f.prefix.endswith(":") else f.prefix for f in FAMILIES)
    raise InputError(f"unknown model {name!r}; known: {prefixes} (such as 'open_clip:ViT-B-16/openai')")


def wrap(model: Any, preprocess: Any = None, tokenizer: Any = None, *, name: str | None = None) -> DualEncoder:
    """A dual encoder around a model object that the user already has; the model stays as it is.

    For open_clip, `preprocess` maps a PIL image to a tensor (3, H, W) and `tokenizer` a list of strings to token ids; for
    transformers `preprocess` is the model's processor, or its image processor or feature extractor beside a `tokenizer`.
    Without them only model-ready tensors can be explained. Raises `InputError` for objects of an unknown family.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"cannot wrap {type(model).__name__}: give a model object, or load a name with ss.load")
    for family in FAMILIES:
        if family.wrapper is not None and family.recognises(model):
            return _function(family.wrapper)(model, preprocess, tokenizer, name or type(model).__name__)
    raise InputError(
        f"{type(model).__name__} is not a model that secondsight knows: describe its sides with ss.TorchEncoder"
    )
