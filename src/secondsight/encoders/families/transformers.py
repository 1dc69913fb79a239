"""Dual encoders of transformers: CLIP, SigLIP, SigLIP 2, ALIGN, AltCLIP, Chinese-CLIP, BLIP's contrastive head, CLAP."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn
from torch.func import jvp

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import ATTENTION_POOL, Context, Encoder
from secondsight.encoders.blocks import pooled_block, probe_block
from secondsight.encoders.families.clap import AudioEncoder
from secondsight.encoders.host import HostEncoder, HostImageEncoder
from secondsight.encoders.loading import loading, number, saved_folder
from secondsight.inputs.images import ImageInput
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import TEXT_REFERENCES, HubTokens
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.packages import require


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
"""What is known of transformers' dual encoders, by their configuration's model_type."""


class Parts(nn.Module):
    """A tower and its projection by themselves: guarding them need not walk the other side too."""

    def __init__(self, tower: nn.Module, projection: nn.Module | None) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection if projection is not None else nn.Identity()


def _part(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


class _Hub(HostEncoder):
    """What towers of transformers share."""

    def __init__(self, model: nn.Module, tower: Tower) -> None:
        self.tower = tower
        projection = None if tower.projection is None else getattr(model, tower.projection)
        HostEncoder.__init__(self, Parts(getattr(model, tower.module), projection))
        self.pool = "mean" if tower.pool is None else f"{tower.pool} token"
        if tower.probe is not None:
            self.pool = ATTENTION_POOL

    def blocks(self, module: Any) -> Sequence[nn.Module]:
        """The tower's blocks, and its attention pool where it has one."""
        blocks = list(_part(module.tower, self.tower.blocks))
        return blocks if self.tower.probe is None else [*blocks, _part(module.tower, self.tower.probe)]

    def _read(self, module: Any, out: Any) -> Tensor:
        pooled = out.pooler_output if self.tower.read == "pooler" else out.last_hidden_state[:, 0]
        embedding: Tensor = module.projection(pooled)
        return embedding

    def _finish(self, module: Any) -> list[Any]:
        def pooler(part: Any) -> Callable[[Tensor], Tensor]:
            # BERT's poolers pick the first position of a sequence themselves.
            return lambda y: part(y[:, None])

        parts = [(name, _part(module.tower, name)) for name in self.tower.finish]
        return [*(pooler(p) if name == "pooler" else p for name, p in parts), module.projection]

    def block_of(self, module: Any, context: Context, dtype: torch.dtype) -> Any:
        """The attention pool, or the last block read at one position."""
        block, finish = self.blocks(module)[-1], self._finish(module)
        if self.tower.probe is not None:
            return probe_block(block, finish, dtype)
        if self.tower.pool is None:
            return None
        return pooled_block(block, 0 if self.tower.pool == "first" else context.shape[0] - 1, finish, dtype)


class HubImageEncoder(_Hub, HostImageEncoder):
    """An image tower of transformers; with `naflex`, of images in any number of patches."""

    def __init__(self, model: Any, tower: Tower, images: ImageInput, *, naflex: bool = False) -> None:
        _Hub.__init__(self, model, tower)
        config = model.config.vision_config
        side = getattr(config, "patch_size", None)
        self.naflex = naflex
        self.images, self.patch = images, None if side is None else (side, side)
        self.special = () if tower.probe is not None else ("class",)
        fixed = side is not None and not naflex
        self.size = (config.image_size, config.image_size) if fixed else None

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """An image through the model's processor, the processor's own output, or model-ready pixels (1, 3, H, W)."""
        if isinstance(raw, Mapping):
            raw = self._pixels(raw)
        prepared = super().prepare(raw)
        if self.naflex and self.patch is not None and any(n % self.patch[0] for n in prepared.tensor.shape[-2:]):
            height, width = prepared.tensor.shape[-2:]
            raise InputError(f"pixels of {height}×{width} are no whole number of patches of {self.patch[0]}")
        return prepared

    def _pixels(self, made: Mapping[str, Any]) -> Tensor:
        pixels = made.get("pixel_values")
        if not isinstance(pixels, Tensor) or len(pixels) != 1:
            raise InputError("a processor's output needs 'pixel_values' of one image as a tensor")
        return _unpatched(made, self.patch)[None] if self.naflex and self.patch is not None else pixels

    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """The projected embeddings of pixels."""
        if not self.naflex or self.patch is None:
            return self._read(module, module.tower(pixel_values=tensors))
        p, (height, width) = self.patch[0], tensors.shape[-2:]
        patches = tensors.unflatten(3, (width // p, p)).unflatten(2, (height // p, p))
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        shapes = torch.tensor([[height // p, width // p]], device=tensors.device).expand(len(tensors), 2)
        mask = torch.ones(patches.shape[:2], dtype=torch.long, device=tensors.device)
        return self._read(module, module.tower(patches, pixel_attention_mask=mask, spatial_shapes=shapes))


@cache
def sizes_can_be_read() -> bool:
    """Whether this torch knows a tensor's numbers within a forward derivative, as NaFlex models need; 2.7 does not."""

    def scaled(x: Tensor) -> Tensor:
        return x * torch.tensor([2.0]).tolist()[0]

    try:
        return float(jvp(scaled, (torch.ones(()),), (torch.ones(()),))[1]) == 2.0
    except RuntimeError:
        return False


def _unpatched(made: Mapping[str, Any], patch: tuple[int, int] | None) -> Tensor:
    """NaFlex patches (1, patches, values) as pixels (3, height, width)."""
    assert patch is not None  # the caller asked
    rows, columns = (int(n) for n in made["spatial_shapes"][0])
    values: Tensor = made["pixel_values"][0][: rows * columns]
    cells = values.unflatten(1, (patch[0], patch[1], 3)).unflatten(0, (rows, columns))
    return cells.permute(4, 0, 2, 1, 3).flatten(3).flatten(1, 2)


class HubTextEncoder(_Hub):
    """A text tower of transformers. Behind a causal tower's pooled position nothing matters: ids are cut there."""

    kind = "text"
    references = TEXT_REFERENCES
    contextual = True

    def __init__(self, model: Any, tower: Tower, tokens: HubTokens) -> None:
        super().__init__(model, tower)
        self.tokens = tokens

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text through the model's tokenizer, a tokenizer's own output, or token ids (1, length)."""
        prepared = self.tokens.prepare(raw, truncate=truncate)
        if self.tower.pool != "end":
            return prepared
        kept = self._end(prepared.tensor) + 1
        return Prepared(prepared.tensor[:, :kept], prepared.shown, prepared.place.cut(kept))

    def _end(self, ids: Tensor) -> int:
        # The rule of transformers' CLIP: old configurations say 2 and mean the highest id.
        end: int = self.module.tower.config.eos_token_id
        return int(ids[0].argmax()) if end == 2 else int((ids[0] == end).int().argmax())

    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """The projected embeddings of token ids, all of which are read."""
        # SigLIP was trained to read its padding; everywhere else none is left.
        mask = torch.ones_like(tensors)
        return self._read(module, module.tower(input_ids=tensors, attention_mask=mask))

    def token_embedding(self, dtype: torch.dtype) -> Any:
        """The tower's token embeddings."""
        return self.in_precision(dtype).tower.get_input_embeddings()

    def pooling(self, context: Context) -> Hashable:
        """The length: all of it is read, and pooled at one end."""
        length: int = context.shape[0]
        return length

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """Padding between start and end, or see `HubTokens.reference`."""
        return self.tokens.reference(prepared, which)

    def layout(self, prepared: Prepared, layer: int, states: Any) -> Layout:
        """Start, words, end, and padding where the model reads it."""
        layout: Layout = prepared.place.layout(len(states.hidden))
        return layout


def _images(model: Any, known: Model, processor: Any) -> ImageInput:
    made = getattr(processor, "image_processor", processor)
    if made is None:
        mean, std = ((0.5,) * 3,) * 2 if known.half else (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        return ImageInput(None, mean, std, assumed=True)
    patch: int = getattr(model.config.vision_config, "patch_size", 0)

    def preprocess(image: Any) -> Tensor:
        try:
            out = made(images=image, return_tensors="pt")
        except TypeError as problem:
            raise InputError(
                f"{type(made).__name__} cannot be called as an image processor of transformers ({problem}): pass the model's"
            ) from problem
        pixels: Tensor = _unpatched(out, (patch, patch)) if known.naflex else out["pixel_values"][0]
        return pixels

    return ImageInput(preprocess)


def _tokens(model: Any, known: Model, tokenizer: Any) -> HubTokens:
    config = model.config.text_config
    table = _part(model, known.text.module).get_input_embeddings()
    longest = int(config.max_position_embeddings)
    if config.model_type.startswith(("clap", "altclip", "roberta", "xlm-roberta")):
        # RoBERTa counts positions from the one behind its padding token's.
        longest -= int(config.pad_token_id) + 1
    own = getattr(tokenizer, "model_max_length", None)
    context = min(longest, own) if isinstance(own, int) else longest
    padding = None if tokenizer is not None else getattr(config, "pad_token_id", None)
    pad_to = longest if known.pads else None
    return HubTokens(tokenizer, vocabulary=table.num_embeddings, context=context, pad_to=pad_to, padding=padding)


def wrap_hub(model: Any, processor: Any = None, tokenizer: Any = None, name: str = "transformers") -> DualEncoder:
    """A dual encoder around a transformers model object; the model itself stays as it is.

    `processor` is the model's own (`AutoProcessor`), or its image processor or feature extractor beside a `tokenizer`;
    without them only model-ready tensors can be explained. Raises `InputError` for models of another kind.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    known = MODELS.get(kind) if isinstance(kind, str) else None
    if known is None or not hasattr(model, known.text.module) or not hasattr(model, known.left.module):
        raise InputError(f"{type(model).__name__} ({kind}) is no dual encoder of the known ones: {_known()}")
    if known.left.projection is not None and not hasattr(model, known.left.projection):
        raise InputError(f"{type(model).__name__} has no contrastive head: load it as {known.name}")
    tokenizer = tokenizer if tokenizer is not None else getattr(processor, "tokenizer", None)
    left: Encoder
    if kind == "clap":
        extractor = getattr(processor, "feature_extractor", processor)
        left = HubAudioEncoder(model, known.left, extractor)
    else:
        if known.naflex and not sizes_can_be_read():
            raise InputError(
                f"{type(model).__name__} reads sizes out of tensors while it runs, which torch {torch.__version__} does not "
                "let a model do that is differentiated forward: use a later torch"
            )
        left = HubImageEncoder(model, known.left, _images(model, known, processor), naflex=known.naflex)
    text = HubTextEncoder(model, known.text, _tokens(model, known, tokenizer))
    read = {"clap": ("logit_scale_a", torch.exp), "align": ("temperature", torch.reciprocal)}
    scale, change = read.get(str(kind), ("logit_scale", torch.exp))
    return DualEncoder(
        left,
        text,
        name=name,
        logit_scale=lambda: number(model, scale, change),
        logit_bias=lambda: number(model, "logit_bias") or 0.0,
    )


class HubAudioEncoder(_Hub, AudioEncoder):
    """CLAP's audio tower, a Swin transformer over the spectrogram folded into a square; layer L is stage L's input."""

    # Stages halve their grids, so that none can be passed over.
    chained = False

    def outputs(self) -> Any:
        """Not known: what follows the stages reads more than their hidden states."""
        return None

    def __init__(self, model: Any, tower: Tower, extractor: Any) -> None:
        _Hub.__init__(self, model, tower)
        self.extractor = extractor
        inner = self.module.tower.audio_encoder
        self.chunks: int = inner.freq_ratio
        self.channels = 4 if inner.enable_fusion else 1

    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """The projected embeddings of log-mel spectrograms (batch, channel, frame, band)."""
        # With feature fusion the processor calls a clip by itself long, whatever its length.
        longer = torch.full((len(tensors), 1), self.channels == 4, device=tensors.device)
        return self._read(module, module.tower(input_features=tensors, is_longer=longer))


def _known() -> str:
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
            raise InputError(f"hf:{name} is a {kind!r} model, not one of the known dual encoders: {_known()}")
        model = getattr(transformers, MODELS[kind].name).from_pretrained(folder).eval()
        processor = transformers.AutoProcessor.from_pretrained(folder)
    return wrap_hub(model, processor, name=f"hf:{name}")
