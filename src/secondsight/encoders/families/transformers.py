"""Dual encoders of transformers: CLIP, SigLIP, SigLIP 2, ALIGN, AltCLIP, Chinese-CLIP, BLIP's contrastive head, CLAP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor, nn
from torch.func import jvp

from secondsight.encoders.base import ATTENTION_POOL, Context, Encoder
from secondsight.encoders.blocks import pooled_block, probe_block
from secondsight.encoders.families.clap import ClapAudioEncoder
from secondsight.encoders.host import Parts
from secondsight.encoders.host_image import HostImageEncoder
from secondsight.encoders.host_text import HostTextEncoder
from secondsight.encoders.loading import loading, number, saved_folder
from secondsight.inputs.images import ImageInput
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import HubTokens
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.packages import require

if TYPE_CHECKING:
    from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    from secondsight.paths.pooled import PooledBlock


@dataclass(frozen=True)
class Tower:
    """Where a model keeps one side: names of attributes, dotted where they lie deeper.

    `read` says what the tower's embedding is made from before `projection`: its "pooler" output, or the "first" hidden
    state. `pool` is the position that the last block is read at: "first", "last" or the "end" token, whose later
    neighbours a causal mask hides; None for a mean. `probe` is an attention pool after the blocks. `finish` are the
    parts of the tower that follow the last block or pool, before the projection.
    """

    module: str
    projection: str | None
    blocks: str
    read: str = "pooler"
    pool: str | None = "first"
    probe: str | None = None
    finish: tuple[str, ...] = ()

    @property
    def pooling(self) -> str:
        """How positions become one embedding, in words."""
        if self.probe is not None:
            return ATTENTION_POOL
        return "mean" if self.pool is None else f"{self.pool} token"

    def parts(self, model: PreTrainedModel) -> Parts:
        """The tower of a model and its projection, by themselves."""
        projection = None if self.projection is None else getattr(model, self.projection)
        return Parts(tower=getattr(model, self.module), projection=projection)

    def block_list(self, parts: Parts) -> list[nn.Module]:
        """The blocks, and the attention pool where there is one."""
        blocks = list(_part(parts.tower, self.blocks))
        return blocks if self.probe is None else [*blocks, _part(parts.tower, self.probe)]

    def embedding(self, parts: Parts, output: BaseModelOutputWithPooling) -> Tensor:
        """The projected embeddings of a tower's output."""
        pooled: Tensor = output.pooler_output if self.read == "pooler" else output.last_hidden_state[:, 0]
        return pooled if parts.projection is None else parts.projection(pooled)

    def last_block(self, parts: Parts, positions: int, dtype: torch.dtype) -> PooledBlock | None:
        """The attention pool, or the last block read at one position."""
        block, finish = self.block_list(parts)[-1], self._finish(parts)
        if self.probe is not None:
            return probe_block(block, finish, dtype)
        if self.pool is None:
            return None
        return pooled_block(block, 0 if self.pool == "first" else positions - 1, finish, dtype)

    def _finish(self, parts: Parts) -> list[nn.Module | Callable[[Tensor], Tensor] | None]:
        def pooler(part: nn.Module) -> Callable[[Tensor], Tensor]:
            # BERT's poolers pick the first position of a sequence themselves.
            return lambda y: part(y[:, None])

        modules = [(name, _part(parts.tower, name)) for name in self.finish]
        return [*(pooler(part) if name == "pooler" else part for name, part in modules), parts.projection]


@dataclass(frozen=True)
class Model:
    """A model class: its two towers, how its processor pads texts, and what its logits multiply and add."""

    name: str
    left: Tower
    text: Tower
    pads: bool = False
    naflex: bool = False
    half: bool = False  # pixels normalised by 0.5 rather than CLIP's mean and deviation


_PLAIN = Tower("vision_model", "visual_projection", "encoder.layers", finish=("post_layernorm",))
_BERT = Tower("text_model", "text_projection", "encoder.layer", read="first")
_PROBED = Tower("vision_model", None, "encoder.layers", probe="head")
_LAST = Tower("text_model", None, "encoder.layers", pool="last", finish=("final_layer_norm", "head"))

MODELS = {
    "clip": Model(
        "CLIPModel",
        _PLAIN,
        Tower("text_model", "text_projection", "encoder.layers", pool="end", finish=("final_layer_norm",)),
    ),
    "siglip": Model("SiglipModel", _PROBED, _LAST, pads=True, half=True),
    "siglip2": Model("Siglip2Model", _PROBED, _LAST, pads=True, naflex=True, half=True),
    "align": Model("AlignModel", Tower("vision_model", None, "encoder.blocks", pool=None), _BERT),
    "altclip": Model(
        "AltCLIPModel",
        _PLAIN,
        Tower(
            "text_model", "text_projection", "roberta.encoder.layers", read="first", finish=("pre_LN", "transformation")
        ),
    ),
    "chinese_clip": Model("ChineseCLIPModel", _PLAIN, _BERT),
    "blip": Model(
        "BlipForImageTextRetrieval",
        Tower("vision_model", "vision_proj", "encoder.layers", read="first", finish=("post_layernorm",)),
        Tower("text_encoder", "text_proj", "encoder.layer", read="first"),
    ),
    "clap": Model(
        "ClapModel",
        Tower("audio_model", "audio_projection", "audio_encoder.layers", pool=None),
        Tower("text_model", "text_projection", "encoder.layer", finish=("pooler",)),
    ),
}
"""The dual encoders of transformers, by the model_type of their configuration."""

_SCALES = {"clap": ("logit_scale_a", torch.exp), "align": ("temperature", torch.reciprocal)}
"""Of models that do not call it logit_scale: the parameter that scales logits, and how."""


def _part(module: nn.Module, path: str) -> Any:
    return module.get_submodule(path)


class HubImageEncoder(HostImageEncoder):
    """An image tower of transformers; with `naflex`, of images in any number of patches."""

    def __init__(self, model: PreTrainedModel, tower: Tower, images: ImageInput, *, naflex: bool = False) -> None:
        self.tower, self.naflex, self.pool = tower, naflex, tower.pooling
        config = model.config.vision_config
        side: int | None = getattr(config, "patch_size", None)
        fixed = side is not None and not naflex
        super().__init__(
            tower.parts(model),
            images,
            special=() if tower.probe is not None else ("class",),
            patch=None if side is None else (side, side),
            size=(config.image_size, config.image_size) if fixed else None,
        )

    def blocks(self, module: Parts) -> Sequence[nn.Module]:
        """See `Tower.block_list`."""
        return self.tower.block_list(module)

    def last_block(self, module: Parts, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """See `Tower.last_block`."""
        return self.tower.last_block(module, context.shape[0], dtype)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """An image through the model's processor, the processor's own output, or model-ready pixels (1, 3, H, W)."""
        prepared = super().prepare(self._pixels(raw) if isinstance(raw, Mapping) else raw)
        if self.naflex and self.patch is not None and any(n % self.patch[0] for n in prepared.tensor.shape[-2:]):
            height, width = prepared.tensor.shape[-2:]
            raise InputError(f"pixels of {height}×{width} must be a whole number of patches of {self.patch[0]}")
        return prepared

    def _pixels(self, output: Mapping[str, Any]) -> Tensor:
        pixels = output.get("pixel_values")
        if not isinstance(pixels, Tensor) or len(pixels) != 1:
            raise InputError("a processor's output needs 'pixel_values' of one image as a tensor")
        return _unpatched(output, self.patch)[None] if self.naflex and self.patch is not None else pixels

    def encode(self, module: Parts, tensors: Tensor) -> Tensor:
        """The projected embeddings of pixels."""
        if not self.naflex or self.patch is None:
            return self.tower.embedding(module, module.tower(pixel_values=tensors))
        p, (height, width) = self.patch[0], tensors.shape[-2:]
        patches = tensors.unflatten(3, (width // p, p)).unflatten(2, (height // p, p))
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        shapes = torch.tensor([[height // p, width // p]], device=tensors.device).expand(len(tensors), 2)
        mask = torch.ones(patches.shape[:2], dtype=torch.long, device=tensors.device)
        output = module.tower(patches, pixel_attention_mask=mask, spatial_shapes=shapes)
        return self.tower.embedding(module, output)


class HubTextEncoder(HostTextEncoder):
    """A text tower of transformers. Behind a causal tower's pooled position nothing matters: ids are cut there."""

    def __init__(self, model: PreTrainedModel, tower: Tower, tokens: HubTokens) -> None:
        self.tower, self.pool = tower, tower.pooling
        super().__init__(tower.parts(model), tokens)
        end: int | None = _part(model, tower.module).config.eos_token_id
        self.end = -1 if end is None else end

    def blocks(self, module: Parts) -> Sequence[nn.Module]:
        """See `Tower.block_list`."""
        return self.tower.block_list(module)

    def last_block(self, module: Parts, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """See `Tower.last_block`."""
        return self.tower.last_block(module, context.shape[0], dtype)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text through the model's tokenizer, a tokenizer's own output, or token ids (1, length)."""
        prepared = self.tokens.prepare(raw, truncate=truncate)
        if self.tower.pool != "end":
            return prepared
        ids = prepared.tensor
        # The rule of transformers' CLIP: old configurations say 2 and mean the highest id.
        end = int(ids[0].argmax()) if self.end == 2 else int(ids[0].eq(self.end).int().argmax())
        return Prepared(ids[:, : end + 1], prepared.display, prepared.tokenized.cut(end + 1))

    def encode(self, module: Parts, tensors: Tensor) -> Tensor:
        """The projected embeddings of token ids, all of which are read."""
        # SigLIP was trained to read its padding; everywhere else none is left.
        mask = torch.ones_like(tensors)
        return self.tower.embedding(module, module.tower(input_ids=tensors, attention_mask=mask))

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The tower's token embeddings."""
        table: nn.Module = self.in_precision(dtype).tower.get_input_embeddings()
        return table


@cache
def sizes_can_be_read() -> bool:
    """Whether this torch can read a tensor's numbers within a forward derivative, as NaFlex models need; 2.7 cannot."""

    def scaled(x: Tensor) -> Tensor:
        return x * torch.tensor([2.0]).tolist()[0]

    try:
        return float(jvp(scaled, (torch.ones(()),), (torch.ones(()),))[1]) == 2.0
    except RuntimeError:
        return False


def _unpatched(output: Mapping[str, Any], patch: tuple[int, int]) -> Tensor:
    """NaFlex patches (1, patches, values) as pixels (3, height, width)."""
    rows, columns = (int(n) for n in output["spatial_shapes"][0])
    values: Tensor = output["pixel_values"][0][: rows * columns]
    cells = values.unflatten(1, (patch[0], patch[1], 3)).unflatten(0, (rows, columns))
    return cells.permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)


def _images(model: PreTrainedModel, description: Model, processor: ProcessorMixin | None) -> ImageInput:
    image_processor = getattr(processor, "image_processor", processor)
    if image_processor is None:
        mean, std = ((0.5,) * 3,) * 2 if description.half else (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        return ImageInput(None, mean, std, assumed=True)
    patch: int = getattr(model.config.vision_config, "patch_size", 0)

    def preprocess(image: Image.Image) -> Tensor:
        try:
            output: BatchFeature = image_processor(images=image, return_tensors="pt")
        except TypeError as problem:
            raise InputError(
                f"{type(image_processor).__name__} is not an image processor of transformers ({problem}): pass the model's own"
            ) from problem
        pixels: Tensor = _unpatched(output, (patch, patch)) if description.naflex else output["pixel_values"][0]
        return pixels

    return ImageInput(preprocess)


def _tokens(model: PreTrainedModel, description: Model, tokenizer: PreTrainedTokenizerBase | None) -> HubTokens:
    config = model.config.text_config
    table = _part(model, description.text.module).get_input_embeddings()
    longest = int(config.max_position_embeddings)
    if config.model_type.startswith(("clap", "altclip", "roberta", "xlm-roberta")):
        # RoBERTa counts positions from the one behind its padding token's.
        longest -= int(config.pad_token_id) + 1
    limit = getattr(tokenizer, "model_max_length", None)
    context = min(longest, limit) if isinstance(limit, int) else longest
    padding = None if tokenizer is not None else getattr(config, "pad_token_id", None)
    pad_to = longest if description.pads else None
    return HubTokens(tokenizer, vocabulary=table.num_embeddings, context=context, pad_to=pad_to, padding=padding)


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
    if (
        description is None
        or not hasattr(model, description.text.module)
        or not hasattr(model, description.left.module)
    ):
        raise InputError(f"{type(model).__name__} ({kind}) is not one of the known dual encoders: {_names()}")
    if description.left.projection is not None and not hasattr(model, description.left.projection):
        raise InputError(f"{type(model).__name__} has no contrastive head: load it as {description.name}")
    tokenizer = tokenizer if tokenizer is not None else getattr(processor, "tokenizer", None)
    left: Encoder
    if kind == "clap":
        left = ClapAudioEncoder(model, getattr(processor, "feature_extractor", processor))
    else:
        if description.naflex and not sizes_can_be_read():
            raise InputError(
                f"{type(model).__name__} reads sizes out of tensors while it runs, which torch {torch.__version__} does not "
                "allow in models that are differentiated forward: use a later torch"
            )
        images = _images(model, description, processor)
        left = HubImageEncoder(model, description.left, images, naflex=description.naflex)
    scale, change = _SCALES.get(str(kind), ("logit_scale", torch.exp))
    return DualEncoder(
        left,
        HubTextEncoder(model, description.text, _tokens(model, description, tokenizer)),
        name=name,
        logit_scale=lambda: number(model, scale, change),
        logit_bias=lambda: number(model, "logit_bias") or 0.0,
    )


def _names() -> str:
    return ", ".join(f"{model.name} ({kind})" for kind, model in MODELS.items())


def load_hub(name: str) -> DualEncoder:
    """A model by its name on the hub or its local folder, with its own processor.

    Raises `InputError` for other kinds of models and where weights cannot be had.
    """
    transformers = require("transformers", "hf", lambda: __import__("transformers"))
    folder = saved_folder("hf", name, "config.json")
    with loading(f"hf:{name}", "a local folder (hf:PATH)"):
        kind = transformers.AutoConfig.from_pretrained(folder).model_type
        if kind not in MODELS:
            raise InputError(f"hf:{name} is a {kind!r} model, not one of the known dual encoders: {_names()}")
        model = getattr(transformers, MODELS[kind].name).from_pretrained(folder).eval()
        processor = transformers.AutoProcessor.from_pretrained(folder)
    return wrap_hub(model, processor, name=f"hf:{name}")
