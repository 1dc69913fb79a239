"""Dual encoders of transformers that are put together: any two towers with projections, or two models side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from secondsight.encoders.families.transformers.refusals import blocks_path
from secondsight.encoders.families.transformers.towers import IMAGENET, MODELS, Model, Tower
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

JOINED = "vision-text-dual-encoder"

_VIT = Tower("vision_model", "visual_projection", "layers", finish=("layernorm", "pooler"))
_DINO = replace(_VIT, blocks="encoder.layer", finish=("layernorm",))
_IMAGES = {
    "clip_vision_model": MODELS["clip"].left,
    "siglip_vision_model": replace(MODELS["siglip"].left, projection="visual_projection"),
    "vit": _VIT,
    "deit": replace(_VIT, special=("class", "distillation")),
    "dinov2": _DINO,
    "dinov2_with_registers": _DINO,
}
_BERT = Tower("text_model", "text_projection", "encoder.layer", finish=("pooler",))
_TEXTS = {"clip_text_model": MODELS["clip"].text} | dict.fromkeys(
    ("bert", "roberta", "xlm-roberta", "camembert", "data2vec-text"), _BERT
)
"""Towers whose pooling is known, by the model_type of their configuration; others are read as they pool themselves."""


def joined(model: PreTrainedModel) -> Model:
    """The description of a `VisionTextDualEncoderModel`; `InputError` for towers whose blocks cannot be told."""
    kinds = [part.config.model_type for part in (model.vision_model, model.text_model)]
    left = _IMAGES.get(kinds[0]) or _unknown(model.vision_model, "vision_model", "visual_projection")
    text = _TEXTS.get(kinds[1]) or _unknown(model.text_model, "text_model", "text_projection")
    fixed = kinds[0] in _IMAGES and not kinds[0].startswith("dino")
    description = Model("VisionTextDualEncoderModel", left, text, sizes="fixed" if fixed else "any")
    return description if kinds[0].startswith("clip") else replace(description, pixels=IMAGENET)


def _unknown(tower: Any, name: str, projection: str) -> Tower:
    blocks = blocks_path(tower)
    if blocks is None:
        raise InputError(
            f"the {name} {type(tower).__name__} has no list of blocks: describe both sides with ss.TorchEncoder"
        )
    return Tower(name, projection, blocks, pool=None, merges=hasattr(tower.config, "depths"))


def dpr_tower(model: Any) -> Tower | None:
    """The side of DPR that a model is; None for any other model."""
    side = next((n for n in ("question_encoder", "ctx_encoder") if hasattr(model, n)), None)
    if side is None or model.config.model_type != "dpr":
        return None
    projected = hasattr(getattr(model, side), "encode_proj")
    return Tower(f"{side}.bert_model", f"{side}.encode_proj" if projected else None, "encoder.layer", read="first")


def halves(image: Any, text: Any) -> Model | None:
    """The description of a model of which these are the two halves, each with its projection; None if there is none."""
    kind = str(getattr(getattr(image, "config", None), "model_type", "")).removesuffix("_vision_model")
    description = MODELS.get(kind)
    if description is None or getattr(getattr(text, "config", None), "model_type", "") != f"{kind}_text_model":
        return None
    for model, tower in ((image, description.left), (text, description.text)):
        if not all(hasattr(model, name) for name in (tower.module, tower.projection) if name is not None):
            return None
    return description
