"""open_clip models: names, loading, and image towers (ViT, ModifiedResNet, timm)."""

from __future__ import annotations

import difflib
import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from safetensors import safe_open
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import ATTENTION_POOL, Context, Encoder, Head, States
from secondsight.encoders.blocks import linear, pooled_block, probe_block
from secondsight.encoders.families.open_clip.texts import POOLS, Tokenizer, text_encoder
from secondsight.encoders.host import first_tensor
from secondsight.encoders.host_image import HostImageEncoder
from secondsight.encoders.loading import loading, number
from secondsight.inputs.images import ImageInput, Preprocess, grid_layout
from secondsight.inputs.prepared import Prepared
from secondsight.model import DualEncoder
from secondsight.paths.pooled import PooledBlock
from secondsight.paths.tails import Chain
from secondsight.support.errors import InputError

FACTS = "secondsight"
"""The metadata key under which a fine-tuned checkpoint says how its model was made and its images prepared."""

_FACTS_USED = ("force_quick_gelu", "image_mean", "image_std", "image_interpolation", "image_resize_mode")


class VisionEncoder(HostImageEncoder):
    """An open_clip VisionTransformer; an attentional pool (CoCa) is its last block.

    Positions are the class token and the patches, row by row.
    """

    def __init__(self, visual: VisionTransformer, images: ImageInput) -> None:
        super().__init__(
            visual, images, special=("class",), patch=tuple(visual.patch_size), size=tuple(visual.image_size)
        )
        asks = visual.attn_pool is not None
        self.pool = ATTENTION_POOL if asks else POOLS.get(visual.pool_type, visual.pool_type)

    def blocks(self, module: VisionTransformer) -> Sequence[nn.Module]:
        """Residual blocks, then the pool; two pools side by side are left to what follows the blocks."""
        single = module.attn_pool is not None and module.attn_pool_contrastive is None
        return [*module.transformer.resblocks, *([module.attn_pool] if single else [])]

    def encode(self, module: VisionTransformer, tensors: Tensor) -> Tensor:
        """The projected embeddings of pixels."""
        # In open_clip's mixed precision only some weights, the first convolution among them, are in half precision.
        return first_tensor(module(tensors.to(module.conv1.weight.dtype)))

    def last_block(self, module: VisionTransformer, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The last block where the class token pools, or the pool, of whose queries the first makes the embedding."""
        if module.pool_type != "tok":
            return None
        if module.attn_pool is None:
            return pooled_block(module.transformer.resblocks[-1], 0, (module.ln_post, module.proj), dtype)
        if module.attn_pool_contrastive is not None:
            return None
        return probe_block(module.attn_pool, (module.ln_post, module.proj), dtype)


class ResNetEncoder(HostImageEncoder):
    """An open_clip ModifiedResNet: stages 0-3, then the attention pool (4), whose first position is the mean token."""

    pool = ATTENTION_POOL

    def __init__(self, visual: ModifiedResNet, images: ImageInput) -> None:
        size = visual.image_size
        super().__init__(visual, images, size=tuple(size) if isinstance(size, (tuple, list)) else (size, size))

    def blocks(self, module: ModifiedResNet) -> Sequence[nn.Module]:
        """The stages and the attention pool."""
        return [module.layer1, module.layer2, module.layer3, module.layer4, module.attnpool]

    def encode(self, module: ModifiedResNet, tensors: Tensor) -> Tensor:
        """The projected embeddings of pixels."""
        return first_tensor(module(tensors.to(module.conv1.weight.dtype)))

    # The pool makes its mean token itself. As a position of its own, which the closed form needs, it must be made here;
    # so the last layer has features and a head of its own.
    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Feature maps entering a stage, or the mean token and the cells as the attention pool sees them."""
        states = super().features(tensors, layer)
        if layer < self.depth - 1:
            return states
        offsets: Tensor = self.module.attnpool.positional_embedding  # type: ignore[union-attr, assignment]  # torch types parts of a module as tensors too
        return [
            States(_with_mean_token(state.hidden) + offsets.to(state.hidden), state.embedding, state.context)
            for state in states
        ]

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The stages from `layer` on and the attention pool."""
        if layer < self.depth - 1:
            return super().head(layer, context, dtype)
        pool = self.in_precision(dtype).attnpool
        return lambda x: _attend(pool, x)

    def last_block(self, module: ModifiedResNet, context: Context, dtype: torch.dtype) -> PooledBlock:
        """The attention pool: the mean token asks, the projection is all that follows."""
        pool = module.attnpool
        query, key, value, out = (linear(p, dtype) for p in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj))
        return PooledBlock(0, query, key, value, out, pool.num_heads, tail=Chain(()), residual=False)

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """The stage's cells, behind the mean token at the attention pool."""
        _, rows, columns = states.context.shape
        return grid_layout(prepared.placement, (rows, columns), {0: "mean"} if layer == self.depth - 1 else {})


def _with_mean_token(cells: Tensor) -> Tensor:
    return torch.cat([cells.mean(0, keepdim=True), cells])


def _attend(pool: AttentionPool2d, x: Tensor) -> Tensor:
    """The attention pool on its tokens; only the mean token's query is read."""

    def split(y: Tensor) -> Tensor:
        return y.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)

    query, key, value = split(pool.q_proj(x[:, :1])), split(pool.k_proj(x)), split(pool.v_proj(x))
    z = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    return pool.c_proj(z[:, 0])


class TimmEncoder(HostImageEncoder):
    """An open_clip image tower around a timm trunk: transformers with their blocks and attention pool, else stages."""

    def __init__(self, tower: TimmModel, images: ImageInput) -> None:
        trunk = tower.trunk
        self.channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
        side = tuple(tower.image_size)
        grid = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
        fixed = hasattr(trunk, "blocks")
        registers = getattr(trunk, "num_reg_tokens", 0) or 0
        first = (getattr(trunk, "num_prefix_tokens", 0) or 0) - registers
        super().__init__(
            tower,
            images,
            special=("class",) * first + ("register",) * registers,
            patch=(side[0] // grid[0], side[1] // grid[1]) if grid else None,
            size=side if fixed else None,
        )
        asks = getattr(trunk, "attn_pool", None) is not None
        self.pool = ATTENTION_POOL if asks else POOLS.get(getattr(trunk, "global_pool", ""), "mean")

    def blocks(self, module: TimmModel) -> Sequence[nn.Module]:
        """The trunk's blocks or stages, and its attention pool where it has one."""
        trunk = module.trunk
        for name in ("blocks", "stages", "layers"):
            if isinstance(getattr(trunk, name, None), (nn.Sequential, nn.ModuleList)):
                pool = getattr(trunk, "attn_pool", None)
                return [*getattr(trunk, name), *([] if pool is None else [pool])]
        raise InputError(f"the trunk {type(trunk).__name__} has no blocks or stages: describe it with ss.TorchEncoder")

    def encode(self, module: TimmModel, tensors: Tensor) -> Tensor:
        """The projected embeddings of pixels."""
        return first_tensor(module(tensors))

    def last_block(self, module: TimmModel, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The attention pool, or the last block where the class token is read."""
        trunk = module.trunk
        if type(trunk).__name__ != "VisionTransformer":
            return None
        if trunk.attn_pool is not None:
            return probe_block(trunk.attn_pool, (trunk.fc_norm, trunk.head, module.head), dtype)
        if trunk.global_pool != "token":
            return None
        return pooled_block(trunk.blocks[-1], 0, (trunk.norm, trunk.fc_norm, trunk.head, module.head), dtype)


def _image_encoder(visual: nn.Module, images: ImageInput) -> Encoder:
    if isinstance(visual, VisionTransformer):
        return VisionEncoder(visual, images)
    if isinstance(visual, ModifiedResNet):
        return ResNetEncoder(visual, images)
    if isinstance(visual, TimmModel):
        return TimmEncoder(visual, images)
    raise InputError(
        f"the image tower {type(visual).__name__} is not supported by name: describe it with ss.TorchEncoder"
    )


def wrap_open_clip(
    model: nn.Module, preprocess: Preprocess | None = None, tokenizer: Tokenizer | None = None, name: str = "open_clip"
) -> DualEncoder:
    """A dual encoder around an open_clip model object; the model itself stays as it is.

    Without `preprocess` or `tokenizer` only model-ready tensors can be explained. Raises `InputError` for towers of
    another kind.
    """
    visual: nn.Module = model.visual  # type: ignore[assignment]  # torch types parts of a module as tensors too
    mean, std = getattr(visual, "image_mean", None), getattr(visual, "image_std", None)
    assumed = preprocess is None and (mean is None or std is None)
    if assumed:
        mean, std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    images = ImageInput(preprocess, mean, std, assumed=assumed)
    return DualEncoder(
        _image_encoder(visual, images),
        text_encoder(model, tokenizer),
        name=name,
        logit_scale=lambda: number(model, "logit_scale", torch.exp),
        logit_bias=lambda: number(model, "logit_bias") or 0.0,
    )


def load_open_clip(name: str, cache_dir: str | None = None) -> DualEncoder:
    """A model by open_clip's names: "ViT-B-16/openai", "ViT-B-16//path/to/checkpoint.safetensors", "hf-hub:…".

    The part behind the first slash is a pretrained tag or a local checkpoint. Raises `InputError` for unknown names and
    where weights cannot be had.
    """
    model, preprocess, tokenizer = open_clip_parts(name, cache_dir)
    return wrap_open_clip(model, preprocess, tokenizer, f"open_clip:{name}")


def open_clip_parts(name: str, cache_dir: str | None = None) -> tuple[nn.Module, Preprocess, Any]:
    """The model object, its preprocessing and its tokenizer by open_clip's names, as `load_open_clip` takes them."""
    hub = name.startswith(("hf-hub:", "local-dir:"))
    architecture, _, weights = (name, "", "") if hub else name.partition("/")
    if not hub:
        _check_name(architecture, weights)
    with loading(f"open_clip:{name}", "a local checkpoint (open_clip:ARCHITECTURE/PATH)"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="QuickGELU mismatch")
        model, _, preprocess = open_clip.create_model_and_transforms(
            architecture, pretrained=weights or None, cache_dir=cache_dir, **_options(architecture, weights)
        )
        tokenizer = open_clip.get_tokenizer(architecture)
    return model, preprocess, tokenizer


def _options(architecture: str, weights: str) -> dict[str, Any]:
    """Options of the model that its weights were trained with and that the architecture's name leaves open.

    OpenAI's, DFN's and MetaCLIP's weights need quick-GELU, which some plain names leave out; checkpoints that
    `secondsight finetune` wrote carry their options.
    """
    if weights.endswith(".safetensors") and os.path.isfile(weights):
        with safe_open(weights, framework="pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {}).get(FACTS, "{}"))
        return {key: tuple(v) if isinstance(v, list) else v for key, v in facts.items() if key in _FACTS_USED}
    config = open_clip.get_pretrained_cfg(architecture, weights) if weights else {}
    return {"force_quick_gelu": True} if config.get("quick_gelu") else {}


def _check_name(architecture: str, weights: str) -> None:
    architectures = open_clip.list_models()
    if architecture not in architectures:
        near = difflib.get_close_matches(architecture, architectures, 3, 0.5) or architectures[:3]
        raise InputError(f"unknown open_clip architecture {architecture!r}; near it: {', '.join(near)}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not weights:
        listed = ", ".join(tags) or "none"
        raise InputError(
            f"'open_clip:{architecture}' names no weights: add /TAG (known: {listed}) or /PATH of a local checkpoint"
        )
    if weights not in tags and not os.path.isfile(weights):
        raise InputError(
            f"{weights!r} is neither a file nor one of {architecture}'s pretrained tags ({', '.join(tags) or 'none'})"
        )
