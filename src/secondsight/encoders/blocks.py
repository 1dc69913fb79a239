"""Standard blocks of the host libraries, described for the closed form.

Each description reads a block's parts by their names in its library. Whether the result is what the host computes is
checked by its numbers when it is used; blocks made up otherwise give None and take another strategy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from open_clip.transformer import AttentionalPooler, ResidualAttentionBlock
from torch import Tensor, nn

from secondsight.paths.kinks import KINKED
from secondsight.paths.pooled import PooledBlock
from secondsight.paths.tails import Affine, Chain, Function, Gain, Mlp, Norm, Residual, Step

Parts = dict[str, Any]


def precise(module: Any, dtype: torch.dtype) -> Any:
    """The module or parameter itself, or a copy of it in `dtype` where its own precision is another."""
    if module is None or isinstance(module, Tensor):
        return None if module is None else module.detach().to(dtype)
    if all(p.dtype == dtype for p in module.parameters()):
        return module
    return copy.deepcopy(module).to(dtype)


def linear(module: Any, dtype: torch.dtype) -> Affine:
    """A linear layer as a stage."""
    return Affine(precise(module.weight, dtype), precise(module.bias, dtype))


def norm(module: Any, dtype: torch.dtype) -> Step | None:
    """A layer norm over the last axis, or an identity, as a stage; None for any other module."""
    if isinstance(module, nn.Identity):
        return Chain(())
    if not isinstance(module, nn.LayerNorm) or len(module.normalized_shape) != 1:
        return None
    return Norm(precise(module.weight, dtype), precise(module.bias, dtype), module.eps)


def stage(part: Any, dtype: torch.dtype) -> Step | None:
    """Any module, projection matrix (width, joint) or None that maps rows by themselves; None where it has kinks."""
    if part is None:
        return Chain(())
    if isinstance(part, Tensor):
        return Affine(precise(part, dtype).T)
    if isinstance(part, nn.Linear):
        return linear(part, dtype)
    if isinstance(part, nn.Module) and any(isinstance(m, KINKED) for m in part.modules()):
        return None
    known = norm(part, dtype) if isinstance(part, nn.Module) else None
    return known or Function(precise(part, dtype) if isinstance(part, nn.Module) else part)


def _mlp(first: Any, activation: Any, last: Any, dtype: torch.dtype) -> Step | None:
    """Linear, elementwise activation, linear; None for anything else and for activations with kinks."""
    if type(first) is not nn.Linear or type(last) is not nn.Linear or isinstance(activation, KINKED):
        return None
    if isinstance(activation, nn.Module) and any(True for _ in activation.parameters()):
        return None
    return Mlp(linear(first, dtype), activation, linear(last, dtype))


def _separate(attention: Any, names: Sequence[str], dtype: torch.dtype) -> Parts | None:
    parts = [getattr(attention, name, None) for name in names]
    if any(type(part) is not nn.Linear for part in parts):
        return None
    return dict(zip(("query", "key", "value", "out"), (linear(part, dtype) for part in parts), strict=True))


def _fused(qkv: Any, out: Any, dtype: torch.dtype) -> Parts | None:
    if type(qkv) is not nn.Linear or type(out) is not nn.Linear:
        return None
    return _split(qkv.weight, qkv.bias, dtype) | {"out": linear(out, dtype)}


def _split(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Parts:
    biases = (None,) * 3 if bias is None else precise(bias, dtype).chunk(3)
    names = ("query", "key", "value")
    return {n: Affine(w, b) for n, w, b in zip(names, precise(weight, dtype).chunk(3), biases, strict=True)}


def _multihead(attention: Any, dtype: torch.dtype) -> Parts | None:
    """Projections of torch's own multi-head attention; None for any other."""
    if not isinstance(attention, nn.MultiheadAttention) or attention.bias_k is not None or attention.add_zero_attn:
        return None
    out = linear(attention.out_proj, dtype)
    if attention.in_proj_weight is not None:
        return {**_split(attention.in_proj_weight, attention.in_proj_bias, dtype), "out": out}
    weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    biases = (None,) * 3 if attention.in_proj_bias is None else precise(attention.in_proj_bias, dtype).chunk(3)
    names = ("query", "key", "value")
    return {n: Affine(precise(w, dtype), b) for n, w, b in zip(names, weights, biases, strict=True)} | {"out": out}


def _gain(module: Any, dtype: torch.dtype) -> Gain | None:
    gamma = getattr(module, "gamma", None)
    return Gain(precise(gamma, dtype)) if isinstance(gamma, Tensor) else None


def _before_norm(
    attention: Parts | None,
    heads: int,
    norms: Sequence[Any],
    mlp: Step | None,
    gains: Sequence[Any],
    dtype: torch.dtype,
) -> Parts | None:
    """x + gain·attention(norm(x)), then y + gain·mlp(norm(y))."""
    before, between = (norm(n, dtype) for n in norms)
    if attention is None or mlp is None or not isinstance(before, Norm) or between is None:
        return None
    first, second = (_gain(g, dtype) for g in gains)
    inner = Chain([between, mlp, *([second] if second else [])])
    return {
        **attention,
        "heads": heads,
        "norm": before,
        "gain": first.factor if first else None,
        "tail": Residual(inner),
    }


def _open_clip(block: Any, dtype: torch.dtype) -> Parts | None:
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return None
    parts = list(block.mlp.children())
    mlp = _mlp(parts[0], parts[1], parts[2], dtype) if len(parts) == 3 else None
    attention = _multihead(block.attn, dtype)
    return _before_norm(attention, block.attn.num_heads, (block.ln_1, block.ln_2), mlp, (block.ls_1, block.ls_2), dtype)


def _hub_before_norm(block: Any, dtype: torch.dtype) -> Parts | None:
    """CLIP, SigLIP, AltCLIP, Chinese-CLIP and BLIP towers of transformers."""
    names = ("layer_norm1", "self_attn", "layer_norm2", "mlp")
    if not all(hasattr(block, name) for name in names) or not hasattr(block.mlp, "fc1"):
        return None
    attention, mlp = block.self_attn, _mlp(block.mlp.fc1, block.mlp.activation_fn, block.mlp.fc2, dtype)
    projections = (
        _fused(attention.qkv, attention.projection, dtype)
        if hasattr(attention, "qkv")
        else _separate(attention, ("q_proj", "k_proj", "v_proj", "out_proj"), dtype)
    )
    return _before_norm(
        projections, attention.num_heads, (block.layer_norm1, block.layer_norm2), mlp, (None, None), dtype
    )


def _bert(block: Any, dtype: torch.dtype) -> Parts | None:
    """norm(x + attention(x)), then norm(y + mlp(y)): BERT and RoBERTa as in transformers."""
    if not hasattr(block, "intermediate") or not hasattr(getattr(block, "attention", None), "self"):
        return None
    inner, out = block.attention.self, block.attention.output
    projections = [getattr(inner, name, None) for name in ("query", "key", "value")]
    if any(type(p) is not nn.Linear for p in [*projections, out.dense]):
        return None
    # Relative positions enter the scores past the projections.
    if getattr(inner, "position_embedding_type", "absolute") not in (None, "absolute"):
        return None
    after, last = norm(out.LayerNorm, dtype), norm(block.output.LayerNorm, dtype)
    mlp = _mlp(block.intermediate.dense, block.intermediate.intermediate_act_fn, block.output.dense, dtype)
    if after is None or last is None or mlp is None:
        return None
    query, key, value = (linear(p, dtype) for p in projections)
    tail = Chain([after, Residual(mlp), last])
    heads: int = inner.num_attention_heads
    return {"query": query, "key": key, "value": value, "out": linear(out.dense, dtype), "heads": heads, "tail": tail}


def _timm(block: Any, dtype: torch.dtype) -> Parts | None:
    names = ("norm1", "attn", "ls1", "norm2", "mlp", "ls2")
    if type(block).__name__ != "Block" or not all(hasattr(block, name) for name in names):
        return None
    attention, mlp = block.attn, block.mlp
    plain = (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None), getattr(attention, "norm", None))
    if any(m is not None and not isinstance(m, nn.Identity) for m in (*plain, getattr(mlp, "norm", None))):
        return None
    if not hasattr(attention, "qkv") or not hasattr(mlp, "fc1"):
        return None
    feed = _mlp(mlp.fc1, mlp.act, mlp.fc2, dtype)
    projections = _fused(attention.qkv, attention.proj, dtype)
    return _before_norm(
        projections, attention.num_heads, (block.norm1, block.norm2), feed, (block.ls1, block.ls2), dtype
    )


_KNOWN = (_open_clip, _hub_before_norm, _bert, _timm)


def pooled_block(
    block: Any, pool: int, finish: Iterable[Any], dtype: torch.dtype, mask: Tensor | None = None
) -> PooledBlock | None:
    """The closed form of a last block read at position `pool`, `finish` being the modules that follow there.

    `mask` is what is added to the scores of that position's query. None for blocks that are not known, and where an
    activation with kinks follows: its derivative wants averaging, which the other strategies do.
    """
    parts = next((p for p in (read(block, dtype) for read in _KNOWN) if p is not None), None)
    rest = [stage(part, dtype) for part in finish]
    if parts is None or any(s is None for s in rest):
        return None
    tail = Chain([parts.pop("tail"), *(s for s in rest if s is not None)])
    return PooledBlock(pool, **parts, tail=tail, mask=None if mask is None else mask.to(dtype))


def _asked(query: Tensor, width: int) -> Affine:
    """A query that does not depend on the input."""
    return Affine(query.new_zeros(len(query), width), query)


def probe_block(block: Any, finish: Iterable[Any], dtype: torch.dtype) -> PooledBlock | None:
    """The closed form of an attention pool in which a learned probe asks: SigLIP's MAP head, CoCa's pooler, timm's.

    `finish` are the modules that follow the pool; None for pools that are not known.
    """
    rest = [stage(part, dtype) for part in finish]
    parts = _map_head(block, dtype) or _attentional_pooler(block, dtype) or _latent_pool(block, dtype)
    if parts is None or any(s is None for s in rest):
        return None
    tail = Chain([parts.pop("tail"), *(s for s in rest if s is not None)])
    return PooledBlock(0, **parts, tail=tail, residual=False)


def _map_head(block: Any, dtype: torch.dtype) -> Parts | None:
    """SigLIP's multihead attention pooling head in transformers."""
    if not hasattr(block, "probe") or not hasattr(block, "layernorm") or not hasattr(block, "mlp"):
        return None
    parts, inner = _multihead(block.attention, dtype), norm(block.layernorm, dtype)
    mlp = _mlp(block.mlp.fc1, block.mlp.activation_fn, block.mlp.fc2, dtype)
    if parts is None or inner is None or mlp is None:
        return None
    query = parts["query"](precise(block.probe, dtype)[0, 0])
    parts["query"] = _asked(query, parts["key"].weight.shape[1])
    return {**parts, "heads": block.attention.num_heads, "tail": Residual(Chain([inner, mlp]))}


def _attentional_pooler(block: Any, dtype: torch.dtype) -> Parts | None:
    """CoCa's pooler in open_clip, of whose queries the first is the embedding's."""
    if not isinstance(block, AttentionalPooler):
        return None
    parts, keys = _multihead(block.attn, dtype), norm(block.ln_k, dtype)
    if parts is None or not isinstance(keys, Norm):
        return None
    query = parts["query"](precise(block.ln_q, dtype)(precise(block.query, dtype))[0])
    parts["query"] = _asked(query, parts["key"].weight.shape[1])
    return {**parts, "heads": block.attn.num_heads, "norm": keys, "tail": Chain(())}


def _latent_pool(block: Any, dtype: torch.dtype) -> Parts | None:
    """timm's attention pool with one latent query."""
    if type(block).__name__ != "AttentionPoolLatent" or block.latent_len != 1 or block.pos_embed is not None:
        return None
    if not isinstance(block.q_norm, nn.Identity) or not isinstance(block.k_norm, nn.Identity):
        return None
    inner = norm(block.norm, dtype)
    mlp = None if block.mlp is None else _mlp(block.mlp.fc1, block.mlp.act, block.mlp.fc2, dtype)
    out = stage(block.proj, dtype)
    if not isinstance(out, Affine) or inner is None or (block.mlp is not None and mlp is None):
        return None
    query = precise(block.q, dtype)(precise(block.latent, dtype))[0, 0]
    both, biases = precise(block.kv.weight, dtype).chunk(2), (None, None)
    if block.kv.bias is not None:
        biases = precise(block.kv.bias, dtype).chunk(2)
    key, value = (Affine(w, b) for w, b in zip(both, biases, strict=True))
    tail: Step = Chain(()) if mlp is None else Residual(Chain([inner, mlp]))
    asked = _asked(query, key.weight.shape[1])
    return {"query": asked, "key": key, "value": value, "out": out, "heads": block.num_heads, "tail": tail}
