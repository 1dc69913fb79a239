"""Dual encoders of transformers as models: `ss.wrap(model, processor)` and `ss.load("hf:NAME_OR_FOLDER")`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from secondsight.encoders.base import Encoder
from secondsight.encoders.families.clap import ClapAudioEncoder
from secondsight.encoders.families.transformers_encoders import (
    HubImageEncoder,
    HubTextEncoder,
    sizes_can_be_read,
    unpatched,
)
from secondsight.encoders.families.transformers_towers import MODELS, Model, Tower, model_names
from secondsight.encoders.loading import loading, number, saved_folder
from secondsight.inputs.images import ImageInput
from secondsight.inputs.texts import HubTokens
from secondsight.model import DualEncoder
from secondsight.support.errors import AssumptionWarning, InputError
from secondsight.support.packages import require

if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


def _images(model: PreTrainedModel, description: Model, processor: ProcessorMixin | None) -> ImageInput:
    image_processor = getattr(processor, "image_processor", processor)
    if image_processor is None:
        return ImageInput(None, *description.pixels, assumed=True)
    patch: int = getattr(description.left.host(model).config, "patch_size", 0)

    def preprocess(image: Image.Image) -> Tensor:
        try:
            output: BatchFeature = image_processor(images=image, return_tensors="pt")
        except TypeError as problem:
            raise InputError(
                f"{type(image_processor).__name__} is not an image processor of transformers ({problem}): pass the model's own"
            ) from problem
        naflex = description.sizes == "naflex"
        pixels: Tensor = unpatched(output, (patch, patch)) if naflex else output["pixel_values"][0]
        return pixels

    return ImageInput(preprocess)


def text_tokens(
    model: PreTrainedModel, tower: Tower, tokenizer: PreTrainedTokenizerBase | None, *, pads: bool = False
) -> HubTokens:
    """How texts become ids for a text tower; `pads` says that the model reads padding up to its longest text."""
    host = tower.host(model)
    longest = int(host.config.max_position_embeddings) - _positions_before(host)
    limit = getattr(tokenizer, "model_max_length", None)
    context = min(longest, limit) if isinstance(limit, int) else longest
    padding = None if tokenizer is not None else getattr(host.config, "pad_token_id", None)
    vocabulary: int = tower.token_table(host).num_embeddings  # type: ignore[assignment]  # an embedding's
    return HubTokens(
        tokenizer, vocabulary=vocabulary, context=context, pad_to=longest if pads else None, padding=padding
    )


def _positions_before(tower: nn.Module) -> int:
    """How many positions stay unused: RoBERTa counts them from the one behind its padding token's."""
    for name, module in tower.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def _towers_of(model: PreTrainedModel, description: Model) -> PreTrainedModel | None:
    """The model that has both towers: the given one, or the one inside it, as in detectors and segmenters."""
    for candidate in (model, getattr(model, model.base_model_prefix, None)):
        if all(_has(candidate, tower.module) for tower in (description.left, description.text)):
            return candidate
    return None


def _has(model: object, path: str) -> bool:
    try:
        return isinstance(model, nn.Module) and model.get_submodule(path) is not None
    except AttributeError:
        return False


def wrap_hub(
    model: PreTrainedModel,
    processor: ProcessorMixin | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    name: str = "transformers",
) -> DualEncoder:
    """A dual encoder around a transformers model object; the model itself stays as it is.

    `processor` is the model's own (`AutoProcessor`), or its image processor or feature extractor beside a `tokenizer`;
    without them only model-ready tensors can be explained. Raises `InputError` for models of another kind.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    description = MODELS.get(kind) if isinstance(kind, str) else None
    host = None if description is None else _towers_of(model, description)
    if description is None or host is None:
        raise InputError(f"{type(model).__name__} ({kind}) is not one of the known dual encoders: {model_names()}")
    if description.left.projection is not None and not _has(host, description.left.projection):
        raise InputError(f"{type(model).__name__} has no contrastive head: load it as {description.name}")
    if kind == "aimv2" and host.config._attn_implementation != "eager":
        warnings.warn(
            "transformers' AIMv2 leaves out the causal mask of a text that comes alone, and keeps it in a padded batch: "
            "load the model with attn_implementation='eager' to explain what it was trained to compute",
            AssumptionWarning,
            stacklevel=3,
        )
    tokenizer = tokenizer if tokenizer is not None else getattr(processor, "tokenizer", None)
    left: Encoder
    if kind == "clap":
        left = ClapAudioEncoder(host, getattr(processor, "feature_extractor", processor))
    else:
        if description.sizes == "naflex" and not sizes_can_be_read():
            raise InputError(
                f"{type(model).__name__} reads sizes out of tensors while it runs, which torch {torch.__version__} does not "
                "allow in models that are differentiated forward: use a later torch"
            )
        images = _images(host, description, processor)
        left = HubImageEncoder(host, description.left, images, sizes=description.sizes)
    return DualEncoder(
        left,
        HubTextEncoder(host, description.text, text_tokens(host, description.text, tokenizer, pads=description.pads)),
        name=name,
        logit_scale=lambda: number(host, description.scale, description.scaled_by),
        logit_bias=lambda: number(host, "logit_bias") or 0.0,
    )


def load_hub(name: str) -> DualEncoder:
    """A model by its name on the hub or its local folder, with its own processor.

    Raises `InputError` for other kinds of models, for saved models that lack a part of it, and where weights cannot be
    had.
    """
    transformers = require("transformers", "hf", lambda: __import__("transformers"))
    folder = saved_folder("hf", name, "config.json")
    with loading(f"hf:{name}", "a local folder (hf:PATH)"):
        kind = transformers.AutoConfig.from_pretrained(folder).model_type
        if kind not in MODELS:
            raise InputError(f"hf:{name} is a {kind!r} model, not one of the known dual encoders: {model_names()}")
        model = _complete(f"hf:{name}", getattr(transformers, MODELS[kind].name), folder)
        processor = transformers.AutoProcessor.from_pretrained(folder)
    return wrap_hub(model, processor, name=f"hf:{name}")


def _complete(name: str, kind: Any, folder: str) -> PreTrainedModel:
    """The saved model; `InputError` where weights are missing, which the library would fill with random numbers."""
    model: PreTrainedModel
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    missing = sorted({".".join(key.split(".")[:2]) for key in report["missing_keys"]})
    if missing:
        raise InputError(
            f"{name} was saved without {', '.join(missing[:3])}{' …' if missing[3:] else ''} of {kind.__name__}: "
            "give a repository or folder that has both sides and their projections"
        )
    return model.eval()
