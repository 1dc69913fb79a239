"""open_clip models: ViT and ModifiedResNet image towers, transformer text towers."""

from __future__ import annotations

import difflib
import json
import os
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.hf_model import HFTextEncoder
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer, VisionTransformer
from safetensors import safe_open
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import ATTENTION_POOL, Context, Encoder, Head, Reference, States
from secondsight.encoders.blocks import linear, pooled_block
from secondsight.encoders.families.open_clip_towers import POOLS, HostTextEncoder, PooledVisionEncoder, TimmEncoder
from secondsight.encoders.loading import loading, number
from secondsight.inputs.images import IMAGE_REFERENCES, ImageInput, Preprocess, grid_layout
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import (
    TEXT_REFERENCES,
    HubTokens,
    Tokenized,
    byte_offsets,
    check_ids,
    check_range,
    check_text,
    ready_ids,
    text_reference,
    too_long,
)
from secondsight.model import DualEncoder
from secondsight.paths.pooled import PooledBlock
from secondsight.paths.tails import Chain
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import capturing

Tokenizer = Callable[[list[str]], Tensor]


def _run_blocks(transformer: Any, first: int, mask: Tensor | None) -> Head:
    def run(x: Tensor) -> Tensor:
        x = x if transformer.batch_first else x.transpose(0, 1)
        for block in transformer.resblocks[first:]:
            x = block(x, attn_mask=mask)
        return x if transformer.batch_first else x.transpose(0, 1)

    return run


def _captured(block: Any, run: Callable[[], Any], named: str) -> tuple[Tensor, dict[str, Any], Tensor]:
    """The first input and keyword arguments of a block during `run`, and what `run` returned."""
    seen: dict[str, Any] = {}
    with capturing(block, seen):
        out = run()
    if not seen.get("args"):
        raise AdapterError(f"the {named} never called its block: a compiled or scripted model cannot be explained")
    return seen["args"][0], seen["kwargs"], out[0] if isinstance(out, tuple) else out


class VisionEncoder(Encoder):
    """An open_clip VisionTransformer; positions are the class token and the patches, row by row."""

    kind = "image"
    references = IMAGE_REFERENCES

    def __init__(self, visual: VisionTransformer, images: ImageInput) -> None:
        super().__init__()
        self.module, self.images = visual, images
        self.pool = POOLS.get(visual.pool_type, visual.pool_type)
        self.depth = len(visual.transformer.resblocks)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """An image through the model's preprocessing, or model-ready pixels of the model's size."""
        prepared = self.images.prepare(raw)
        _check_size(prepared, tuple(self.module.image_size))
        return prepared

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Hidden states entering block `layer` for a batch of pixels."""
        block = self.module.transformer.resblocks[layer]
        own = self.module.conv1.weight
        hidden, _, out = _captured(block, lambda: self.module(tensors.to(own)), "image tower")
        hidden = (hidden if self.module.transformer.batch_first else hidden.transpose(0, 1)).to(self.dtype())
        return [
            States(h, e.to(self.dtype()), Context(t[None], tuple(h.shape)))
            for h, e, t in zip(hidden, out, tensors, strict=True)
        ]

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """Blocks from `layer` on, pooling and projection."""
        visual = self.in_precision(dtype)
        run, projection = _run_blocks(visual.transformer, layer, None), visual.proj

        def head(x: Tensor) -> Tensor:
            pooled = visual._pool(run(x))[0]
            return pooled if projection is None else pooled @ projection

        return head

    def outputs(self) -> Any:
        """The last block."""
        return self.module.transformer.resblocks[-1]

    def pooled(self, layer: int, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The closed form where the class token pools in the last block."""
        visual = self.in_precision(dtype)
        if layer != self.depth - 1 or visual.pool_type != "tok":
            return None
        return pooled_block(visual.transformer.resblocks[-1], 0, (visual.ln_post, visual.proj), dtype)

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """See `ImageInput.reference`."""
        return self.images.reference(prepared, which, seed)

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The tower itself."""
        return _embedding(self.in_precision(dtype))

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """The class token, then the patches."""
        return grid_layout(prepared.place, tuple(self.module.grid_size), {0: "class"})


def _embedding(tower: Any) -> Callable[[Tensor], Tensor]:
    """A tower's embedding alone, where it returns its tokens too."""

    def embedding(tensors: Tensor) -> Tensor:
        out = tower(tensors)
        found: Tensor = out[0] if isinstance(out, tuple) else out
        return found

    return embedding


class ResNetEncoder(Encoder):
    """An open_clip ModifiedResNet: stages 0-3, then the attention pool (4), whose first position is the mean token."""

    kind = "image"
    references = IMAGE_REFERENCES
    depth = 5

    def __init__(self, visual: ModifiedResNet, images: ImageInput) -> None:
        super().__init__()
        self.module, self.images = visual, images
        self.pool = ATTENTION_POOL

    @staticmethod
    def _blocks(visual: Any) -> list[Any]:
        return [visual.layer1, visual.layer2, visual.layer3, visual.layer4, visual.attnpool]

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """An image through the model's preprocessing, or model-ready pixels of the model's size."""
        prepared = self.images.prepare(raw)
        size = self.module.image_size
        _check_size(prepared, tuple(size) if isinstance(size, (tuple, list)) else (size, size))
        return prepared

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Feature maps entering a stage, or the mean token and the cells as the attention pool sees them."""
        block = self._blocks(self.module)[layer]
        hidden, _, out = _captured(block, lambda: self.module(tensors.to(self.module.conv1.weight)), "image tower")
        shape = tuple(hidden.shape[1:])
        hidden = hidden.to(self.dtype()).flatten(2).mT
        if layer == self.depth - 1:
            place = self.module.attnpool.positional_embedding.to(hidden)
            hidden = torch.cat([hidden.mean(1, keepdim=True), hidden], 1) + place
        return [
            States(h.clone(), e.to(self.dtype()), Context(t[None], shape))
            for h, e, t in zip(hidden, out, tensors, strict=True)
        ]

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The stages from `layer` on and the attention pool."""
        *stages, pool = self._blocks(self.in_precision(dtype))[layer:]
        if layer == self.depth - 1:
            return lambda x: _attend(pool, x)
        grid = context.shape[1:]

        def head(x: Tensor) -> Tensor:
            # Some first layers of a stage are in-place; the hidden states are the caller's.
            y = x.mT.unflatten(2, grid).clone()
            for stage in stages:
                y = stage(y)
            out: Tensor = pool(y)
            return out

        return head

    def pooled(self, layer: int, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The attention pool: the mean token asks, the projection is all that follows."""
        if layer != self.depth - 1:
            return None
        pool = self.in_precision(dtype).attnpool
        query, key, value, out = (linear(p, dtype) for p in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj))
        return PooledBlock(0, query, key, value, out, pool.num_heads, tail=Chain(()), residual=False)

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """See `ImageInput.reference`."""
        return self.images.reference(prepared, which, seed)

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The tower itself."""
        return _embedding(self.in_precision(dtype))

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """The stage's cells, behind the mean token at the attention pool."""
        special = {0: "mean"} if layer == self.depth - 1 else {}
        _, rows, columns = states.context.shape
        return grid_layout(prepared.place, (rows, columns), special)


def _attend(pool: Any, x: Tensor) -> Tensor:
    """The attention pool on its tokens; only the mean token's query is read."""

    def split(y: Tensor) -> Tensor:
        return y.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)

    query, key, value = split(pool.q_proj(x[:, :1])), split(pool.k_proj(x)), split(pool.v_proj(x))
    z = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    out: Tensor = pool.c_proj(z[:, 0])
    return out


def _check_size(prepared: Prepared, size: tuple[int, ...]) -> None:
    if prepared.tensor.shape[-2:] != size:
        height, width = prepared.tensor.shape[-2:]
        raise InputError(f"pixels of {height}×{width} do not fit this model, which takes {size[0]}×{size[1]}")


class _TextParts(nn.Module):
    """A text tower's modules and parameters by themselves: guarding them need not walk the image tower too."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        for name in ("token_embedding", "transformer", "ln_final"):
            self.add_module(name, getattr(tower, name))
        for name in ("positional_embedding", "text_projection", "attn_mask"):
            value = getattr(tower, name, None)
            if isinstance(value, nn.Module):
                self.add_module(name, value)
            elif isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)


class ClipTokens:
    """Texts as open_clip's tokenizers make them, padded to the tower's context; None leaves only model-ready ids.

    `ends` says that texts begin with a start token and end where the tower pools, as CLIP's do; `padding` is the id that
    fills the rest.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        vocabulary: int,
        context: int,
        padding: int,
        ends: Callable[[Tensor], int] | None,
        starts: bool,
    ) -> None:
        self.tokenizer, self.vocabulary, self.context, self.padding = tokenizer, vocabulary, context, padding
        self.ends, self.starts = ends, starts

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A caption, or model-ready token ids (1, length)."""
        if isinstance(raw, Tensor):
            ids = check_ids(raw)
            check_range(ids, self.vocabulary)
            if ids.shape[1] > self.context:
                raise too_long("ids", ids.shape[1], self.context)
            return ready_ids(ids, self._spell, self._special(ids[0]))
        text = check_text(raw)
        if self.tokenizer is None:
            raise InputError(
                "this model came without a tokenizer: pass tokenizer=, or token ids as a (1, length) tensor"
            )
        ids = self.tokenizer([text])
        tokens = tuple(self._spell(int(i)) for i in ids[0])
        special = self._special(ids[0])
        simple = self.tokenizer
        if not isinstance(simple, SimpleTokenizer):
            return self._by_hub(text, ids, truncate) or Prepared(
                ids, text, Tokenized(None, tokens, (None,) * len(tokens), special)
            )
        needed = simple.encode(text)
        if len(needed) + 2 > ids.shape[1] and not truncate:
            raise too_long(text, len(needed) + 2, ids.shape[1])
        kept = needed[: ids.shape[1] - 2]
        pieces = [bytes(simple.byte_decoder[c] for c in simple.decoder[i].removesuffix("</w>")) for i in kept]
        offsets = (None, *byte_offsets(text, simple.clean_fn(text), pieces))
        offsets += (None,) * (ids.shape[1] - len(offsets))
        return Prepared(ids, text, Tokenized(text, tokens, offsets, special))

    def _by_hub(self, text: str, ids: Tensor, truncate: bool) -> Prepared | None:
        """The same ids with their places in the text, where they are a plain hub tokenizer's."""
        inner, clean = getattr(self.tokenizer, "tokenizer", None), getattr(self.tokenizer, "clean_fn", None)
        if not getattr(inner, "is_fast", False) or clean is None:
            return None
        size = ids.shape[1]
        hub = HubTokens(inner, vocabulary=self.vocabulary, context=size, pad_to=size, clean=clean)
        prepared = hub.prepare(text, truncate=truncate)
        return prepared if torch.equal(prepared.tensor, ids) else None

    def reference(self, prepared: Prepared, which: str | Tensor | None) -> Tensor:
        """Padding between start and end, or see `text_reference`."""
        special: dict[int, str] = prepared.place.special
        keep = [i for i, name in sorted(special.items()) if name != "padding"]
        return text_reference(prepared.tensor, which, keep=keep, padding=self.padding)

    def _spell(self, token: int) -> str:
        decoder = getattr(self.tokenizer, "decoder", None)
        if isinstance(decoder, dict):
            return str(decoder.get(token, token)).removesuffix("</w>")
        inner: Any = getattr(self.tokenizer, "tokenizer", None)
        return str(inner.convert_ids_to_tokens(token)) if hasattr(inner, "convert_ids_to_tokens") else str(token)

    def _special(self, ids: Tensor) -> dict[int, str]:
        """Start, end and padding by position."""
        if self.ends is not None:
            end = self.ends(ids)
            return {**dict.fromkeys(range(end + 1, len(ids)), "padding"), 0: "start", end: "end"}
        # Other poolings say nothing of where the words end; the padding behind them does.
        words = int((ids != self.padding).nonzero().max()) + 1 if bool((ids != self.padding).any()) else 0
        return dict.fromkeys(range(words, len(ids)), "padding") | ({0: "start"} if self.starts else {})


class TextEncoder(Encoder):
    """An open_clip text transformer. Under a causal mask, positions after the pooled one are dropped: they cannot matter."""

    kind = "text"
    references = TEXT_REFERENCES

    def __init__(self, host: Any, tower: Any, tokenizer: Tokenizer | None, pool_type: str, eos: int | None) -> None:
        super().__init__()
        # In a plain CLIP the text tower's parts are the model's own attributes; in the others it is a module.
        self.host, self.tower, self.module = host, tower, _TextParts(tower)
        self.pool_type, self.eos = pool_type, eos
        self.pool = POOLS.get(pool_type, pool_type)
        self.depth = len(tower.transformer.resblocks)
        self.tokens = clip_tokens(tower, tokenizer, pool_type, lambda ids: self._pool(ids[None])[0])

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A caption through the tokenizer, or model-ready token ids (1, length)."""
        return self.tokens.prepare(raw, truncate=truncate)

    def _pool(self, ids: Tensor) -> list[int]:
        """The pooled position of every row."""
        if self.pool_type == "first":
            return [0] * len(ids)
        if self.pool_type == "last":
            return [ids.shape[1] - 1] * len(ids)
        if self.pool_type == "argmax":
            return [int(i) for i in ids.argmax(-1)]
        if self.pool_type == "eos":
            return [int(i) for i in ids.eq(self.eos or 0).int().argmax(-1)]
        raise AdapterError(f"text pooling {self.pool_type!r} is not known: open_clip has first, last, argmax and eos")

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Hidden states entering block `layer` for a batch of token ids, without positions that cannot matter."""
        tensors = tensors.to(self.device())
        hidden, mask, embeddings = self._run(tensors, layer)
        states = []
        for ids, row, embedding, pool in zip(tensors, hidden, embeddings, self._pool(tensors), strict=True):
            causal = mask is not None and bool(torch.isneginf(mask.float()[pool, pool + 1 :]).all())
            length = pool + 1 if causal else len(row)
            # A copy, as a view would keep the whole batch in memory.
            row = row[:length].clone()
            context = Context(ids[None], tuple(row.shape), pool, None if mask is None else mask[:length, :length])
            states.append(States(row, embedding, context))
        return states

    def reference_features(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """The reference's hidden states, as many as the input has."""
        tensor = tensor.to(self.device())
        hidden, _, embeddings = self._run(tensor, layer)
        same = self._pool(tensor)[0] == context.pool
        return Reference(hidden[0, : context.shape[0]].clone(), embeddings[0] if same else None)

    def _run(self, ids: Tensor, layer: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Hidden states entering a block, its attention mask, and the embeddings."""
        transformer = self.tower.transformer
        hidden, kwargs, out = _captured(transformer.resblocks[layer], lambda: self.host.encode_text(ids), "text tower")
        hidden = (hidden if transformer.batch_first else hidden.transpose(0, 1)).to(self.dtype())
        mask: Tensor | None = kwargs.get("attn_mask")
        if mask is not None and mask.ndim != 2:
            raise AdapterError("this text tower gives every input its own attention mask: it is not supported yet")
        return hidden, mask, out.to(self.dtype())

    def pooling(self, context: Context) -> Hashable:
        """The pooled position and the number of positions; the mask is the model's own."""
        return context.pool, context.shape

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """Blocks from `layer` on, pooling at the input's position, and projection."""
        parts = self.in_precision(dtype)
        mask = None if context.mask is None else context.mask.to(dtype)
        run, projection = _run_blocks(parts.transformer, layer, mask), parts.text_projection

        def head(x: Tensor) -> Tensor:
            y = parts.ln_final(run(x)[:, context.pool])
            if projection is None:
                return y
            out: Tensor = projection(y) if isinstance(projection, nn.Module) else y @ projection
            return out

        return head

    def outputs(self) -> Any:
        """The last block."""
        return self.module.transformer.resblocks[-1]

    def pooled(self, layer: int, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The closed form at the last block."""
        if layer != self.depth - 1:
            return None
        parts = self.in_precision(dtype)
        assert context.pool is not None  # set by `features`
        row = None if context.mask is None else context.mask[context.pool]
        finish = (parts.ln_final, parts.text_projection)
        return pooled_block(parts.transformer.resblocks[-1], context.pool, finish, dtype, row)

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """Padding between start and end, or see `text_reference`."""
        return self.tokens.reference(prepared, which)

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The host's own function of token ids."""
        encode: Callable[[Tensor], Tensor] = self.in_precision(dtype, self.host).encode_text
        return encode

    def token_embedding(self, dtype: torch.dtype) -> Any:
        """The host's token embeddings."""
        host = self.in_precision(dtype, self.host)
        return (host if self.tower is self.host else host.text).token_embedding

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Start, words, end, and padding where the model sees it."""
        tokenized: Tokenized = prepared.place
        return tokenized.layout(len(states.hidden))


def clip_tokens(tower: Any, tokenizer: Any, pool_type: str, pool: Callable[[Tensor], int]) -> ClipTokens:
    """How texts are prepared for one of open_clip's own text towers."""
    return ClipTokens(
        tokenizer,
        vocabulary=tower.token_embedding.num_embeddings,
        context=len(tower.positional_embedding) - (getattr(tower, "cls_emb", None) is not None),
        padding=getattr(tower, "pad_id", 0),
        ends=pool if pool_type in ("argmax", "eos") else None,
        starts=pool_type == "first",
    )


def _image_encoder(visual: Any, images: ImageInput) -> Encoder:
    if isinstance(visual, VisionTransformer):
        return VisionEncoder(visual, images) if visual.attn_pool is None else PooledVisionEncoder(visual, images)
    if isinstance(visual, ModifiedResNet):
        return ResNetEncoder(visual, images)
    if isinstance(visual, TimmModel):
        return TimmEncoder(visual, images)
    raise InputError(
        f"the image tower {type(visual).__name__} is not supported by name: describe it with ss.TorchEncoder"
    )


def _text_encoder(model: Any, tokenizer: Any) -> Encoder:
    if isinstance(model, open_clip.CLIP):
        return TextEncoder(model, model, tokenizer, model.text_pool_type, getattr(model, "text_eos_id", None))
    tower = getattr(model, "text", None)
    if isinstance(tower, HFTextEncoder):
        inner = getattr(tokenizer, "tokenizer", tokenizer)
        config, clean = tower.config, getattr(tokenizer, "clean_fn", None)
        longest = getattr(tokenizer, "context_length", None) or getattr(config, "max_position_embeddings", None) or 512
        vocabulary = tower.transformer.get_input_embeddings().num_embeddings
        padding = config.pad_token_id
        tokens = HubTokens(inner, vocabulary=vocabulary, context=longest, padding=padding, clean=clean)
        return HostTextEncoder(tower, tokens)
    if isinstance(tower, TextTransformer):
        # Where padding is masked per input, and a class token is put behind it, the host itself is the head.
        if tower.cls_emb is None and not tower.use_pad_mask:
            return TextEncoder(model, tower, tokenizer, tower.pool_type, tower.eos_id)

        def end(ids: Tensor) -> int:
            return int(ids.argmax()) if tower.pool_type == "argmax" else int((ids == tower.eos_id).int().argmax())

        return HostTextEncoder(tower, clip_tokens(tower, tokenizer, tower.pool_type, end))
    raise InputError(
        f"the text tower of {type(model).__name__} is not supported by name: describe it with ss.TorchEncoder"
    )


def wrap_open_clip(
    model: Any, preprocess: Preprocess | None = None, tokenizer: Tokenizer | None = None, name: str = "open_clip"
) -> DualEncoder:
    """A dual encoder around an open_clip model object; the model itself stays as it is.

    Without `preprocess` or `tokenizer` only model-ready tensors can be explained. Raises `InputError` for towers of
    another kind.
    """
    visual = model.visual
    mean, std = getattr(visual, "image_mean", None), getattr(visual, "image_std", None)
    assumed = preprocess is None and (mean is None or std is None)
    if assumed:
        mean, std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    images = ImageInput(preprocess, mean, std, assumed=assumed)
    image, text = _image_encoder(visual, images), _text_encoder(model, tokenizer)
    return DualEncoder(
        image,
        text,
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
            architecture, pretrained=weights or None, cache_dir=cache_dir, **_made_for(architecture, weights)
        )
        tokenizer = open_clip.get_tokenizer(architecture)
    return model, preprocess, tokenizer


_KEPT = ("force_quick_gelu", "image_mean", "image_std", "image_interpolation", "image_resize_mode")

FACTS = "secondsight"
"""Where a fine-tuned checkpoint says how its model was made and its images prepared."""


def _made_for(architecture: str, weights: str) -> dict[str, Any]:
    """What weights were trained with and their architecture's name does not say.

    OpenAI's, DFN's and MetaCLIP's weights want quick-GELU, which some plain names leave out; checkpoints that
    `secondsight finetune` wrote say it themselves.
    """
    if weights.endswith(".safetensors") and os.path.isfile(weights):
        with safe_open(weights, framework="pt") as file:
            own: dict[str, Any] = json.loads((file.metadata() or {}).get(FACTS, "{}"))
        return {key: tuple(v) if isinstance(v, list) else v for key, v in own.items() if key in _KEPT}
    tag = weights
    config = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    return {"force_quick_gelu": True} if config.get("quick_gelu") else {}


def _check_name(architecture: str, weights: str) -> None:
    known = open_clip.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, 3, 0.5) or known[:3]
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
