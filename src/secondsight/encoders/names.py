"""Names of models and the families behind them; needs no torch, so a wrong name is refused at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Family:
    """A line of the table: how names begin, where the loader lives, an example, and a description for users.

    `wrapper` is the function that wraps a model object; `recognises` tells whether an object belongs to the family;
    `prompts` says that loader and wrapper take the prompts of queries and documents, `pairs` that two models may be given
    as the two sides of one.
    """

    prefix: str
    loader: str
    example: str
    about: str
    wrapper: str | None = None
    recognises: Callable[[nn.Module], bool] = lambda model: False
    prompts: bool = False
    pairs: bool = False


def _class_of(library: str, name: str | None = None) -> Callable[[nn.Module], bool]:
    """Whether a model's class, or the one of that name among its ancestors, comes from a library."""
    return lambda model: any(
        c.__module__.split(".")[0] == library and name in (None, c.__name__) for c in type(model).__mro__
    )


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
        "secondsight.encoders.families.open_clip.models:load_open_clip",
        "open_clip:ViT-B-16/openai",
        "open_clip models; behind the slash a pretrained tag or a local checkpoint",
        "secondsight.encoders.families.open_clip.models:wrap_open_clip",
        lambda model: hasattr(model, "visual") and hasattr(model, "encode_text"),
    ),
    Family(
        "hf:",
        "secondsight.encoders.families.transformers.models:load_hub",
        "hf:google/siglip-base-patch16-224",
        "transformers: CLIP, MetaCLIP 2, SigLIP, SigLIP 2, ALIGN, AltCLIP, Chinese-CLIP, BLIP, BLIP-2, FLAVA, AIMv2, TIPSv2, "
        "GroupViT, CLIPSeg, OWL-ViT, OWLv2, VisionTextDualEncoder, CLAP, ColPali, ColQwen2, ColModernVBert; a hub name or a "
        "local folder",
        "secondsight.encoders.families.transformers.models:wrap_hub",
        _class_of("transformers", "PreTrainedModel"),
        pairs=True,
    ),
    Family(
        "st:",
        "secondsight.encoders.families.sentence_transformers.models:load_sentences",
        "st:sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers, queries and documents, also late interaction; a hub name or a local folder",
        "secondsight.encoders.families.sentence_transformers.models:wrap_sentences",
        _class_of("sentence_transformers"),
        prompts=True,
    ),
)


def known_name(name: Any) -> Family:
    """The family of a model's name; `InputError` that lists the known ones."""
    if not isinstance(name, str):
        from torch import nn

        from secondsight.support.files import shortened

        remedy = "ss.wrap takes model objects" if isinstance(name, nn.Module) else "give one such as 'builtin'"
        raise InputError(f"{shortened(name)} is not the name of a model: {remedy}")
    for family in FAMILIES:
        if name.startswith(family.prefix) if family.prefix.endswith(":") else name == family.prefix:
            return family
    if os.path.exists(name):
        prefix = "st:" if os.path.exists(os.path.join(name, "modules.json")) else "hf:"
        raise InputError(
            f"{name!r} needs its library before it, such as {prefix + name!r}: hf:, st: or open_clip:ARCHITECTURE/"
        )
    prefixes = ", ".join(f"{f.prefix}…" if f.prefix.endswith(":") else f.prefix for f in FAMILIES)
    raise InputError(f"unknown model {name!r}; known: {prefixes} (such as 'open_clip:ViT-B-16/openai')")
