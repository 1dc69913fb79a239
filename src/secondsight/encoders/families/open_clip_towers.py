"""Towers of open_clip beyond its standard ones: timm trunks, attentional pools, class tokens in texts, hub text models."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secondsight.algebra.layout import Layout, TokenLayout
from secondsight.encoders.base import ATTENTION_POOL, Context, States
from secondsight.encoders.blocks import pooled_block, probe_block
from secondsight.encoders.host import HostEncoder, HostImageEncoder, text_blocks
from secondsight.inputs.images import ImageInput
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import TEXT_REFERENCES, HubTokens, Tokenized, unpadded
from secondsight.support.errors import InputError


def _first(out: Any) -> Tensor:
    """The embedding, of towers that return their tokens beside it too."""
    embedding: Tensor = out[0] if isinstance(out, tuple) else out
    return embedding


POOLS = {
    "tok": "first token",
    "token": "first token",
    "avg": "mean",
    "first": "first token",
    "last": "last token",
    "argmax": "end token",
    "eos": "end token",
    "ClsPooler": "first token",
    "ClsLastHiddenStatePooler": "first token",
    "MeanPooler": "mean",
    "MaxPooler": "maximum",
}
"""What the library's names of poolings say."""


class PooledVisionEncoder(HostImageEncoder):
    """An open_clip VisionTransformer with an attentional pool (CoCa), which is its last block."""

    pool = ATTENTION_POOL

    def __init__(self, visual: Any, images: ImageInput) -> None:
        super().__init__(
            visual,
            images,
            special=("class",),
            patch=tuple(visual.patch_size),
            size=tuple(visual.image_size),
        )

    def blocks(self, module: Any) -> Sequence[nn.Module]:
        """Residual blocks, then the pool; pools beside one another are left to what follows the blocks."""
        pool = [] if module.attn_pool_contrastive is not None else [module.attn_pool]
        return [*module.transformer.resblocks, *pool]

    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """The projected embeddings of pixels."""
        return _first(module(tensors))

    def block_of(self, module: Any, context: Context, dtype: torch.dtype) -> Any:
        """The pool, of whose queries the first makes the embedding."""
        if module.attn_pool_contrastive is not None or module.pool_type != "tok":
            return None
        return probe_block(module.attn_pool, (module.ln_post, module.proj), dtype)


class TimmEncoder(HostImageEncoder):
    """An open_clip image tower around a timm trunk: transformers with their blocks and attention pool, else stages."""

    def __init__(self, tower: Any, images: ImageInput) -> None:
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

    def blocks(self, module: Any) -> Sequence[nn.Module]:
        """The trunk's blocks or stages, and its attention pool where it has one."""
        trunk = module.trunk
        for name in ("blocks", "stages", "layers"):
            if isinstance(getattr(trunk, name, None), (nn.Sequential, nn.ModuleList)):
                pool = getattr(trunk, "attn_pool", None)
                return [*getattr(trunk, name), *([] if pool is None else [pool])]
        raise InputError(f"the trunk {type(trunk).__name__} has no blocks or stages: describe it with ss.TorchEncoder")

    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """The projected embeddings of pixels."""
        return _first(module(tensors))

    def block_of(self, module: Any, context: Context, dtype: torch.dtype) -> Any:
        """The attention pool, or the last block where the class token is read."""
        trunk = module.trunk
        if type(trunk).__name__ != "VisionTransformer":
            return None
        if trunk.attn_pool is not None:
            return probe_block(trunk.attn_pool, (trunk.fc_norm, trunk.head, module.head), dtype)
        if trunk.global_pool != "token":
            return None
        return pooled_block(trunk.blocks[-1], 0, (trunk.norm, trunk.fc_norm, trunk.head, module.head), dtype)


class HostTextEncoder(HostEncoder):
    """An open_clip text tower whose mask depends on the input: hub models, CoCa's class token at the end, padding masks.

    A hub model never sees the padding, which is not kept; the others are given inputs of their whole context.
    """

    kind = "text"
    references = TEXT_REFERENCES
    contextual = True

    def __init__(self, tower: Any, tokens: HubTokens | Any) -> None:
        self.hub = hasattr(tower, "pooler")
        super().__init__(tower)
        self.tokens = tokens
        self.padding: int = tower.config.pad_token_id if self.hub else tower.pad_id
        how = type(tower.pooler).__name__ if self.hub else tower.pool_type
        # CoCa's texts end with a class token of their own, whatever the pool is called.
        self.pool = "last token" if getattr(tower, "cls_emb", None) is not None else POOLS.get(how, how)
        # T5's blocks hand relative positions down from the first.
        self.chained = not (self.hub and "t5" in tower.config.model_type)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text through the tokenizer, or model-ready token ids (1, length)."""
        prepared: Prepared = self.tokens.prepare(raw, truncate=truncate)
        if self.hub:
            kept = unpadded({"input_ids": prepared.tensor, "attention_mask": prepared.tensor != self.padding}).shape[1]
            return Prepared(prepared.tensor[:, :kept], prepared.shown, prepared.place.cut(kept))
        return prepared

    def blocks(self, module: Any) -> Sequence[nn.Module]:
        """The transformer's blocks."""
        return list(module.transformer.resblocks) if not self.hub else text_blocks(module.transformer)

    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """The projected embeddings of token ids."""
        return _first(module(tensors))

    def block_of(self, module: Any, context: Context, dtype: torch.dtype) -> Any:
        """The last block of a hub model whose first position is read."""
        if not self.hub or type(module.pooler).__name__ not in ("ClsPooler", "ClsLastHiddenStatePooler"):
            return None
        inner = (
            getattr(module.transformer, "pooler", None) if getattr(module.pooler, "use_pooler_output", False) else None
        )
        pooler = () if inner is None else (lambda y: inner(y[:, None]),)
        return pooled_block(self.blocks(module)[-1], 0, (*pooler, module.proj), dtype)

    def token_embedding(self, dtype: torch.dtype) -> Any:
        """The tower's token embeddings."""
        module = self.in_precision(dtype)
        return module.transformer.get_input_embeddings() if self.hub else module.token_embedding

    def pooling(self, context: Context) -> Hashable:
        """The input's length, its padding, and where its highest id or end is, one of which may be pooled."""
        ids = context.tensor[0]
        ends = int((ids == getattr(self.module, "eos_id", -1)).int().argmax())
        return len(ids), tuple((ids == self.padding).tolist()), int(ids.argmax()), ends

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """Padding between start and end, or see `text_reference`."""
        reference: Tensor = self.tokens.reference(prepared, which)
        return reference

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """The tokens, and behind them the class token where the tower adds one."""
        place: Tokenized = prepared.place
        size, known = len(states.hidden), len(place.tokens)
        if size == known:
            return place.layout(size)
        extra = size - known
        special = place.special | dict.fromkeys(range(known, size), "class")
        tokens = (*place.tokens, *["class"] * extra)
        return TokenLayout(size, special, tokens, (*place.offsets, *[None] * extra), place.text)
