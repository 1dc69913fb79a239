"""Dual encoders of transformers as models: `ss.wrap(model, processor)` and `ss.load("hf:NAME_OR_FOLDER")`."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from secondsight.encoders.base import Encoder
from secondsight.encoders.families.transformers import pages
from secondsight.encoders.families.transformers.blip2 import wrap_blip2
from secondsight.encoders.families.transformers.clap import ClapAudioEncoder
from secondsight.encoders.families.transformers.encoders import (
    HubImageEncoder,
    HubTextEncoder,
    require_readable_sizes,
    unpatched,
)
from secondsight.encoders.families.transformers.groupvit import GroupVitImage
from secondsight.encoders.families.transformers.joined import JOINED, dpr_tower, halves, joined
from secondsight.encoders.families.transformers.refusals import refusal
from secondsight.encoders.families.transformers.towers import MODELS, OPENAI, Model, Pixels, Tower
from secondsight.encoders.loading import loading, number, saved_folder
from secondsight.inputs.images import ImageInput
from secondsight.inputs.texts import HubTokens, longest_text
from secondsight.model import DualEncoder
from secondsight.support.errors import AssumptionWarning, InputError
from secondsight.support.packages import require

if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


def _images(processor: ProcessorMixin | None, pixels: Pixels, naflex: int | None = None) -> ImageInput:
    """How images are prepared: by the processor, or as `pixels` says; `naflex` is the side of a patch in a sequence."""
    image_processor = getattr(processor, "image_processor", processor)
    if image_processor is None:
        return ImageInput(None, *pixels, assumed=True)

    def preprocess(image: Image.Image) -> Tensor:
        try:
            output: BatchFeature = image_processor(images=image, return_tensors="pt")
        except TypeError as problem:
            raise InputError(
                f"{type(image_processor).__name__} is not an image processor of transformers ({problem}): pass the model's own"
            ) from problem
        prepared: Tensor = unpatched(output, (naflex, naflex)) if naflex else output["pixel_values"][0]
        return prepared

    return ImageInput(preprocess)


def text_tokens(
    model: PreTrainedModel, tower: Tower, tokenizer: PreTrainedTokenizerBase | None, *, pads: bool = False
) -> HubTokens:
    """How texts become ids for a text tower; `pads` says that the model reads padding up to its longest text."""
    host = tower.host(model)
    positions = int(getattr(host.config, "max_position_embeddings", sys.maxsize)) - _positions_before(host)
    padding = None if tokenizer is not None else getattr(host.config, "pad_token_id", None)
    vocabulary: int = tower.token_table(host).num_embeddings  # type: ignore[assignment]  # an embedding's
    return HubTokens(
        tokenizer,
        vocabulary=vocabulary,
        context=longest_text(tokenizer, positions),
        pad_to=positions if pads else None,
        padding=padding,
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


def _dual_encoder_in(model: PreTrainedModel) -> tuple[Model, PreTrainedModel] | None:
    """The description of a dual encoder and the model that has its towers; None for any other model."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    description = joined(model) if kind == JOINED else MODELS.get(str(kind))
    host = None if description is None else _towers_of(model, description)
    return None if description is None or host is None else (description, host)


def wrap_hub(
    model: PreTrainedModel | tuple[PreTrainedModel, ...],
    processor: ProcessorMixin | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    name: str = "transformers",
) -> DualEncoder:
    """A dual encoder around a transformers model object; the model itself stays as it is.

    `processor` is the model's own (`AutoProcessor`), or its image processor or feature extractor beside a `tokenizer`;
    without them only model-ready tensors can be explained. A pair of models are the two sides of one: see `_wrap_pair`.
    Raises `InputError` for models of another kind.
    """
    if isinstance(model, tuple):
        return _wrap_pair(model, processor, tokenizer, name)
    if type(model).__name__ in pages.ENCODERS:
        return pages.wrap_pages(model, processor, name)
    tokenizer = tokenizer if tokenizer is not None else getattr(processor, "tokenizer", None)
    if hasattr(model, "query_tokens") and hasattr(model, "vision_projection"):
        images = _images(processor, OPENAI)
        return wrap_blip2(model, images, tokenizer, name)
    described = _dual_encoder_in(model)
    if described is None:
        raise refusal(model, type(model).__name__)
    description, host = described
    if description.left.projection is not None and not _has(host, description.left.projection):
        raise InputError(f"{type(model).__name__} has no contrastive head: load it as {description.name}")
    return _dual(description, (host, host), processor, tokenizer, name)


def _dual(
    description: Model,
    hosts: tuple[PreTrainedModel, PreTrainedModel],
    processor: ProcessorMixin | None,
    tokenizer: PreTrainedTokenizerBase | None,
    name: str,
) -> DualEncoder:
    """The dual encoder of a description, whose left tower is in the first model and whose texts are in the second."""
    host, left = hosts[0], _left(description, hosts[0], processor)
    tokens = text_tokens(hosts[1], description.text, tokenizer, pads=description.pads)
    return DualEncoder(
        left,
        HubTextEncoder(hosts[1], description.text, tokens),
        name=name,
        logit_scale=lambda: number(host, description.scale, description.scaled_by),
        logit_bias=lambda: number(host, "logit_bias") or 0.0,
    )


def _left(description: Model, host: PreTrainedModel, processor: ProcessorMixin | None) -> Encoder:
    if description is MODELS["clap"]:
        return ClapAudioEncoder(host, getattr(processor, "feature_extractor", processor))
    if description.sizes == "naflex":
        require_readable_sizes(host)
    if description.attention not in (None, host.config._attn_implementation):
        warnings.warn(
            "transformers' AIMv2 leaves out the causal mask of a text that comes alone, and keeps it in a padded batch: "
            "load the model with attn_implementation='eager' to explain what it was trained to compute",
            AssumptionWarning,
            stacklevel=5,
        )
    patch = description.left.host(host).config.patch_size if description.sizes == "naflex" else None
    images = _images(processor, description.pixels, patch)
    encoder = GroupVitImage if description is MODELS["groupvit"] else HubImageEncoder
    return encoder(host, description.left, images, sizes=description.sizes)


def _wrap_pair(models: tuple[PreTrainedModel, ...], processor: Any, tokenizer: Any, name: str) -> DualEncoder:
    """Two models as the sides of one: DPR's question and context encoder, or an image and a text half of a known model.

    DPR's may have one tokenizer or a pair of them. Raises `InputError` for any other pair.
    """
    towers = [dpr_tower(model) for model in models]
    description = halves(*models) if len(models) == 2 else None
    given = tokenizer if tokenizer is not None else getattr(processor, "tokenizer", None)
    if description is not None:
        return _dual(description, (models[0], models[1]), processor, given, name)
    if len(models) != 2 or None in towers:
        names = ", ".join(type(model).__name__ for model in models)
        raise InputError(
            f"({names}) are not the two sides of one model: give DPR's question and context encoder, or two halves with "
            "projections such as CLIPVisionModelWithProjection and CLIPTextModelWithProjection; "
            "any other two make an ss.DualEncoder of ss.TorchEncoder"
        )
    # A text model has no image processor: a tokenizer in its place is meant as one.
    given = processor if given is None else given
    tokenizers = given if isinstance(given, tuple) else (given, given)
    sides = [
        HubTextEncoder(model, tower, text_tokens(model, tower, tokens))
        for model, tower, tokens in zip(models, towers, tokenizers, strict=True)
        if tower is not None
    ]
    return DualEncoder(*sides, name=name, cosine=False)


def load_hub(name: str) -> DualEncoder:
    """A model by its name on the hub or its local folder, with its own processor.

    Raises `InputError` for other kinds of models, for saved models that lack a part of it, and where weights cannot be
    had.
    """
    transformers = require("transformers", "hf", lambda: __import__("transformers"))
    folder = saved_folder("hf", name, "config.json")
    with loading(f"hf:{name}", "a local folder (hf:PATH)"):
        config = transformers.AutoConfig.from_pretrained(folder)
        class_name = _class_name(config)
        if class_name is None:
            raise refusal(_without_weights(config), f"hf:{name}")
        model = _complete(f"hf:{name}", getattr(transformers, class_name), folder)
        processor = transformers.AutoProcessor.from_pretrained(folder)
    return wrap_hub(model, processor, name=f"hf:{name}")


def _class_name(config: Any) -> str | None:
    """The class that has both sides of a saved model; None where there is none, or where a model was saved that generates."""
    import transformers

    saved = getattr(transformers, (config.architectures or [""])[0], None)
    if saved is not None and getattr(saved, "can_generate", lambda: False)():
        return None
    classes = {kind: model.name for kind, model in MODELS.items()}
    classes |= {JOINED: "VisionTextDualEncoderModel", "blip-2": "Blip2ForImageTextRetrieval"}
    classes |= {name.removesuffix("ForRetrieval").lower(): name for name in pages.ENCODERS}
    return classes.get(config.model_type)


def _without_weights(config: Any) -> nn.Module:
    """The model that a configuration was saved with, to look at; an empty module where it cannot be built."""
    import transformers

    kind = getattr(transformers, (config.architectures or [""])[0], transformers.AutoModel)
    try:
        with torch.device("meta"):
            model: nn.Module = kind.from_config(config) if kind is transformers.AutoModel else kind(config)
    except Exception:  # whatever a library's constructor does not like: the sentence is then a general one
        model = nn.Module()
        model.config = config
    return model


def _complete(name: str, kind: Any, folder: str) -> PreTrainedModel:
    """The saved model; `InputError` where weights are missing, which the library would fill with random numbers."""
    model: PreTrainedModel
    attention = next((known.attention for known in MODELS.values() if known.name == kind.__name__), None)
    model, report = kind.from_pretrained(folder, output_loading_info=True, attn_implementation=attention)
    missing = sorted({".".join(key.split(".")[:2]) for key in report["missing_keys"]})
    if missing:
        raise InputError(
            f"{name} was saved without {', '.join(missing[:3])}{' …' if missing[3:] else ''} of {kind.__name__}: "
            "give a repository or folder that has both sides and their projections"
        )
    return model.eval()
