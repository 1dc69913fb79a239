"""Standard blocks of the host libraries, described for the closed form.

Each description reads the parts of a block by their names in its library. Whether the result is what the host computes is
checked by numbers when it is used; blocks with other parts give None and take another strategy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import torch
from open_clip.transformer import AttentionalPooler, ResidualAttentionBlock
from torch import Tensor, nn

from secondsight.paths.kinks import KINKED, has_kinks
from secondsight.paths.pooled import PooledBlock
from secondsight.paths.tails import Affine, Chain, Function, Gain, Mlp, Norm, Residual, Step

if TYPE_CHECKING:
    from timm.layers import AttentionPoolLatent
    from timm.models.vision_transformer import Block
    from transformers.models.aimv2.modeling_aimv2 import Aimv2AttentionPoolingHead
    from transformers.models.bert.modeling_bert import BertLayer
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer
    from transformers.models.flava.modeling_flava import FlavaLayer
    from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

Part: TypeAlias = nn.Module | Tensor | Callable[[Tensor], Tensor] | None
"""What may follow a block: a module or function that maps rows, a projection matrix (width, joint), or nothing."""

Module = TypeVar("Module", bound=nn.Module)


class Projections(NamedTuple):
    """The linear maps of an attention."""

    query: Affine
    key: Affine
    value: Affine
    out: Affine


def module_in(module: Module, dtype: torch.dtype) -> Module:
    """The module itself, or a copy of it in `dtype` where its own precision is another."""
    return module if all(p.dtype == dtype for p in module.parameters()) else copy.deepcopy(module).to(dtype)


def affine(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Affine:
    """A weight (out, in) and a bias as a step."""
    return Affine(weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype))


def linear(module: nn.Linear, dtype: torch.dtype) -> Affine:
    """A linear layer as a step."""
    return affine(module.weight, module.bias, dtype)


def norm(module: object, dtype: torch.dtype) -> Norm | Chain | None:
    """A layer norm over the last axis, or an identity, as a step; None for any other module."""
    if isinstance(module, nn.Identity):
        return Chain(())
    if not isinstance(module, nn.LayerNorm) or len(module.normalized_shape) != 1:
        return None
    # torch types them as given, but a norm may have neither.
    weight: Tensor | None = module.weight
    bias: Tensor | None = module.bias
    return Norm(
        None if weight is None else weight.detach().to(dtype),
        None if bias is None else bias.detach().to(dtype),
        module.eps,
    )


def step(part: Part, dtype: torch.dtype) -> Step | None:
    """What follows a block as a step; None for modules with kinks."""
    if part is None:
        return Chain(())
    if isinstance(part, Tensor):
        return affine(part.T, None, dtype)
    if isinstance(part, nn.Linear):
        return linear(part, dtype)
    if not isinstance(part, nn.Module):
        return Function(part)
    if has_kinks(part):
        return None
    return norm(part, dtype) or Function(module_in(part, dtype))


def pooled_block(
    block: nn.Module, pool: int, finish: Iterable[Part], dtype: torch.dtype, mask: Tensor | None = None
) -> PooledBlock | None:
    """The closed form of a last block read at position `pool`; the parts of `finish` follow there.

    `mask` is added to the scores of that position's query. None for unknown blocks, and where an activation with kinks
    follows: its derivative needs averaging, which the other strategies do.
    """
    readings = (read(block, dtype) for read in _READERS)
    description = next((reading for reading in readings if reading is not None), None)
    finished = _followed_by(description, finish, dtype)
    return finished and replace(finished, pool=pool, mask=None if mask is None else mask.to(dtype))


def probe_block(block: nn.Module, finish: Iterable[Part], dtype: torch.dtype) -> PooledBlock | None:
    """The closed form of an attention pool with a learned query: SigLIP's MAP head, CoCa's pooler, timm's.

    The parts of `finish` follow the pool; None for unknown pools.
    """
    readings = (read(block, dtype) for read in (_map_head, _key_value_head, _attentional_pooler, _latent_pool))
    description = next((reading for reading in readings if reading is not None), None)
    return _followed_by(description, finish, dtype)


def _followed_by(block: PooledBlock | None, finish: Iterable[Part], dtype: torch.dtype) -> PooledBlock | None:
    steps = [step(part, dtype) for part in finish]
    following = [s for s in steps if s is not None]
    if block is None or len(following) < len(steps):
        return None
    return replace(block, tail=Chain([block.tail, *following]))


def _mlp(first: object, activation: Callable[[Tensor], Tensor], last: object, dtype: torch.dtype) -> Mlp | None:
    """Linear, elementwise activation, linear; None for anything else and for activations with kinks."""
    if type(first) is not nn.Linear or type(last) is not nn.Linear or isinstance(activation, KINKED):
        return None
    if isinstance(activation, nn.Module) and any(True for _ in activation.parameters()):
        return None
    return Mlp(linear(first, dtype), activation, linear(last, dtype))


def _separate(layers: Iterable[object], dtype: torch.dtype) -> Projections | None:
    """Query, key, value and output layers, all of which must be linear."""
    steps = [linear(layer, dtype) for layer in layers if type(layer) is nn.Linear]
    return Projections(*steps) if len(steps) == 4 else None


def _fused(qkv: object, out: object, dtype: torch.dtype) -> Projections | None:
    if type(qkv) is not nn.Linear or type(out) is not nn.Linear:
        return None
    query, key, value = _thirds(qkv.weight, qkv.bias, dtype)
    return Projections(query, key, value, linear(out, dtype))


def _thirds(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> list[Affine]:
    """Query, key and value of one matrix for all three."""
    biases = (None,) * 3 if bias is None else bias.chunk(3)
    return [affine(w, b, dtype) for w, b in zip(weight.chunk(3), biases, strict=True)]


def _multihead(attention: object, dtype: torch.dtype) -> Projections | None:
    """Projections of torch's own multi-head attention; None for any other."""
    if not isinstance(attention, nn.MultiheadAttention) or attention.bias_k is not None or attention.add_zero_attn:
        return None
    out = linear(attention.out_proj, dtype)
    # torch types the fused weight as present; it is None where keys or values have a width of their own.
    fused: Tensor | None = attention.in_proj_weight
    if fused is not None:
        query, key, value = _thirds(fused, attention.in_proj_bias, dtype)
        return Projections(query, key, value, out)
    biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
    weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    query, key, value = (affine(w, b, dtype) for w, b in zip(weights, biases, strict=True))
    return Projections(query, key, value, out)


def _gain(module: nn.Module | None, dtype: torch.dtype) -> Gain | None:
    gamma = getattr(module, "gamma", getattr(module, "lambda1", None))
    return Gain(gamma.detach().to(dtype)) if isinstance(gamma, Tensor) else None


def _before_norm(
    projections: Projections | None,
    heads: int,
    norms: tuple[nn.Module, nn.Module],
    mlp: Mlp | None,
    gains: tuple[nn.Module | None, nn.Module | None],
    dtype: torch.dtype,
) -> PooledBlock | None:
    """x + gain·attention(norm(x)), then y + gain·mlp(norm(y))."""
    before, between = (norm(module, dtype) for module in norms)
    if projections is None or mlp is None or not isinstance(before, Norm) or between is None:
        return None
    first, second = (_gain(module, dtype) for module in gains)
    tail = Residual(Chain([between, mlp, *([second] if second else [])]))
    return PooledBlock(0, *projections, heads, tail, norm=before, gain=first.factor if first else None)


def _open_clip(block: nn.Module, dtype: torch.dtype) -> PooledBlock | None:
    if not isinstance(block, ResidualAttentionBlock) or hasattr(block, "ln_1_kv"):
        return None
    parts = list(block.mlp.children())
    mlp = _mlp(parts[0], parts[1], parts[2], dtype) if len(parts) == 3 else None
    norms, gains = (block.ln_1, block.ln_2), (block.ls_1, block.ls_2)
    return _before_norm(_multihead(block.attn, dtype), block.attn.num_heads, norms, mlp, gains, dtype)


_HUB_NORMS = (("layer_norm1", "layer_norm2"), ("layernorm_before", "layernorm_after"), ("norm1", "norm2"))


def _hub_before_norm(block: CLIPEncoderLayer, dtype: torch.dtype) -> PooledBlock | None:
    """Towers of transformers with norms before attention and MLP: CLIP and its kin, SigLIP, BLIP, ViT, DINOv2, TIPSv2."""
    names = next((pair for pair in _HUB_NORMS if all(hasattr(block, name) for name in pair)), None)
    attention: Any = getattr(block, "self_attn", None) or getattr(block, "attention", None)
    if names is None or attention is None or not hasattr(getattr(block, "mlp", None), "fc1"):
        return None
    if not hasattr(block.mlp, "activation_fn"):
        return None
    heads = getattr(attention, "num_heads", None) or getattr(attention, "num_attention_heads", None)
    projections = (
        _fused(attention.qkv, attention.projection, dtype)
        if hasattr(attention, "qkv")
        else _separate((_part(attention, n) for n in ("q_proj", "k_proj", "v_proj", "out_proj o_proj")), dtype)
    )
    mlp = _mlp(block.mlp.fc1, block.mlp.activation_fn, block.mlp.fc2, dtype)
    gains = (getattr(block, "layer_scale1", None), getattr(block, "layer_scale2", None))
    norms = (getattr(block, names[0]), getattr(block, names[1]))
    return None if heads is None else _before_norm(projections, heads, norms, mlp, gains, dtype)


def _part(module: nn.Module, names: str) -> object:
    """The first of the names that a module has; None where it has none."""
    return next((getattr(module, name) for name in names.split() if hasattr(module, name)), None)


def _flava(block: FlavaLayer, dtype: torch.dtype) -> PooledBlock | None:
    """FLAVA's blocks: norms before attention and MLP, the parts named as BERT's."""
    if not hasattr(block, "layernorm_before") or not hasattr(block, "intermediate"):
        return None
    inner: Any = getattr(block.attention, "attention", None)
    layers = [*(getattr(inner, name, None) for name in ("query", "key", "value")), block.attention.output.dense]
    mlp = _mlp(block.intermediate.dense, block.intermediate.intermediate_act_fn, block.output.dense, dtype)
    norms = (block.layernorm_before, block.layernorm_after)
    return _before_norm(_separate(layers, dtype), inner.num_attention_heads, norms, mlp, (None, None), dtype)


def _bert(block: BertLayer, dtype: torch.dtype) -> PooledBlock | None:
    """norm(x + attention(x)), then norm(y + mlp(y)): BERT and RoBERTa as in transformers."""
    if not hasattr(block, "intermediate") or not hasattr(getattr(block, "attention", None), "self"):
        return None
    inner, out = block.attention.self, block.attention.output
    layers = [getattr(inner, name, None) for name in ("query", "key", "value")]
    projections = _separate([*layers, out.dense], dtype)
    # Relative positions enter the scores past the projections.
    if projections is None or getattr(inner, "position_embedding_type", "absolute") not in (None, "absolute"):
        return None
    after, last = norm(out.LayerNorm, dtype), norm(block.output.LayerNorm, dtype)
    mlp = _mlp(block.intermediate.dense, block.intermediate.intermediate_act_fn, block.output.dense, dtype)
    # The builtin model's layers have it themselves.
    heads = getattr(inner, "num_attention_heads", None) or getattr(block, "heads", None)
    if after is None or last is None or mlp is None or heads is None:
        return None
    tail = Chain([after, Residual(mlp), last])
    return PooledBlock(0, *projections, heads, tail)


def _timm(block: Block, dtype: torch.dtype) -> PooledBlock | None:
    names = ("norm1", "attn", "ls1", "norm2", "mlp", "ls2")
    if type(block).__name__ != "Block" or not all(hasattr(block, name) for name in names):
        return None
    attention, mlp = block.attn, block.mlp
    inner_norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm", "norm")]
    if any(m is not None and not isinstance(m, nn.Identity) for m in (*inner_norms, getattr(mlp, "norm", None))):
        return None
    if not hasattr(attention, "qkv") or not hasattr(mlp, "fc1"):
        return None
    projections = _fused(attention.qkv, attention.proj, dtype)
    norms, gains = (block.norm1, block.norm2), (block.ls1, block.ls2)
    return _before_norm(projections, attention.num_heads, norms, _mlp(mlp.fc1, mlp.act, mlp.fc2, dtype), gains, dtype)


_READERS: tuple[Callable[[Any, torch.dtype], PooledBlock | None], ...] = (
    _open_clip,
    _hub_before_norm,
    _flava,
    _bert,
    _timm,
)


def _constant(query: Tensor, width: int) -> Affine:
    """A query that does not depend on the input."""
    return Affine(query.new_zeros(len(query), width), query)


def _map_head(block: SiglipMultiheadAttentionPoolingHead, dtype: torch.dtype) -> PooledBlock | None:
    """SigLIP's multihead attention pooling head in transformers."""
    if not hasattr(block, "probe") or not hasattr(block, "layernorm") or not hasattr(block, "mlp"):
        return None
    projections, inner = _multihead(block.attention, dtype), norm(block.layernorm, dtype)
    mlp = _mlp(block.mlp.fc1, block.mlp.activation_fn, block.mlp.fc2, dtype)
    if projections is None or inner is None or mlp is None:
        return None
    query = projections.query(block.probe.detach().to(dtype)[0, 0])
    projections = projections._replace(query=_constant(query, projections.key.weight.shape[1]))
    tail = Residual(Chain([inner, mlp]))
    return PooledBlock(0, *projections, block.attention.num_heads, tail, residual=False)


def _key_value_head(block: Aimv2AttentionPoolingHead, dtype: torch.dtype) -> PooledBlock | None:
    """AIMv2's attention pool: a learned query without a projection."""
    names = ("cls_token", "k_proj", "v_proj", "output_proj", "num_heads")
    if not all(hasattr(block, name) for name in names):
        return None
    key, value, out = (linear(m, dtype) for m in (block.k_proj, block.v_proj, block.output_proj))
    query = _constant(block.cls_token.detach().to(dtype)[0, 0], key.weight.shape[1])
    return PooledBlock(0, query, key, value, out, block.num_heads, Chain(()), residual=False)


def _attentional_pooler(block: nn.Module, dtype: torch.dtype) -> PooledBlock | None:
    """CoCa's pooler in open_clip, of whose queries the first is the embedding's."""
    if not isinstance(block, AttentionalPooler):
        return None
    projections, keys = _multihead(block.attn, dtype), norm(block.ln_k, dtype)
    if projections is None or not isinstance(keys, Norm):
        return None
    query = projections.query(module_in(block.ln_q, dtype)(block.query.detach().to(dtype))[0])
    projections = projections._replace(query=_constant(query, projections.key.weight.shape[1]))
    return PooledBlock(0, *projections, block.attn.num_heads, Chain(()), norm=keys, residual=False)


def _latent_pool(block: AttentionPoolLatent, dtype: torch.dtype) -> PooledBlock | None:
    """timm's attention pool with one latent query."""
    if type(block).__name__ != "AttentionPoolLatent" or block.latent_len != 1 or block.pos_embed is not None:
        return None
    if not isinstance(block.q_norm, nn.Identity) or not isinstance(block.k_norm, nn.Identity):
        return None
    inner, out = norm(block.norm, dtype), step(block.proj, dtype)
    mlp = None if block.mlp is None else _mlp(block.mlp.fc1, block.mlp.act, block.mlp.fc2, dtype)
    if not isinstance(out, Affine) or inner is None or (block.mlp is not None and mlp is None):
        return None
    query = module_in(block.q, dtype)(block.latent.detach().to(dtype))[0, 0]
    biases = (None, None) if block.kv.bias is None else block.kv.bias.chunk(2)
    key, value = (affine(w, b, dtype) for w, b in zip(block.kv.weight.chunk(2), biases, strict=True))
    tail: Step = Chain(()) if mlp is None else Residual(Chain([inner, mlp]))
    return PooledBlock(0, _constant(query, key.weight.shape[1]), key, value, out, block.num_heads, tail, residual=False)
