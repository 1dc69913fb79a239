"""The attention of a host model while it runs: queries, keys, probabilities, values and outputs, with autograd's graph.

Fused attention shows none of these, so that it is computed here in its plain form, which gives the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SOFTMAX = frozenset({F.softmax, torch.softmax, Tensor.softmax})
_PRODUCTS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm})


@dataclass(frozen=True, eq=False)
class Attention:
    """One attention of a batch of one: tensors of the host's own graph, ([1,] head, query or key, …).

    `probabilities` ([1,] head, query, key) weight `value` ([1,] head, key, width) in `output` ([1,] head, query, width).
    `query` and `key` ([1,] head, position, width) are None where the host multiplies them out of sight.
    """

    probabilities: Tensor
    value: Tensor
    output: Tensor
    query: Tensor | None = None
    key: Tensor | None = None

    @property
    def square(self) -> bool:
        """Whether the positions attend to each other; an attention pool has queries of its own."""
        return self.probabilities.shape[-2] == self.probabilities.shape[-1]


class AttentionRecorder(TorchFunctionMode):
    """Records every attention that is computed while it is active, in order, as torch's fused operations or written out.

    Written out means a softmax over the last axis whose result a matrix product takes. The probabilities are part of
    the graph even where no weight of the model needs a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attentions: list[Attention] = []
        # The operands of the last product, by the shape of their result, and the shape of the last softmax.
        self._scores: tuple[torch.Size, Tensor, Tensor] | None = None
        self._expected: torch.Size | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        if function is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        if function in _PRODUCTS:
            return self._product(function, args, kwargs)
        if function is torch.baddbmm:
            result = function(*args, **kwargs)
            self._scores = (result.shape, args[1], args[2]) if len(args) == 3 else None
            return result
        result = function(*args, **kwargs)
        if function in _SOFTMAX:
            self._expected = result.shape
        return result

    def _product(self, function: Any, args: Any, kwargs: Any) -> Any:
        """A product of scores, or of probabilities with values."""
        pair = len(args) == 2 and all(isinstance(x, Tensor) and x.ndim > 2 for x in args)
        takes_probabilities = pair and args[0].shape == self._expected
        if takes_probabilities and not args[0].requires_grad:
            args[0].requires_grad_()
        result = function(*args, **kwargs)
        if takes_probabilities:
            query = key = None
            if self._scores is not None and self._scores[0] == self._expected:
                # The host has transposed the keys for its product.
                query, key = self._scores[1], self._scores[2].mT
            self.attentions.append(Attention(args[0], args[1], result, query, key))
            self._expected = None
        elif pair:
            self._scores = (result.shape, *args)
        return result

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """`F.scaled_dot_product_attention`, written out."""
        del dropout_p  # models are explained in evaluation mode
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
        scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if masked else scores + attn_mask
        half = scores.dtype in (torch.float16, torch.bfloat16)
        probabilities = scores.softmax(-1, dtype=torch.float32 if half else None).to(value.dtype)
        if not probabilities.requires_grad:
            probabilities.requires_grad_()
        output = probabilities @ value
        self.attentions.append(Attention(probabilities, value, output, query, key))
        return output

    def _multi_head(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        training: bool = True,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None,
        k_proj_weight: Tensor | None = None,
        v_proj_weight: Tensor | None = None,
        static_k: Tensor | None = None,
        static_v: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`F.multi_head_attention_forward` of (position, batch, width), written out; keys added to the input's stay unseen."""
        if bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or query.ndim != 3:
            return F.multi_head_attention_forward(
                query, key, value, embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias, bias_k, bias_v,
                add_zero_attn, dropout_p, out_proj_weight, out_proj_bias, training, key_padding_mask, need_weights,
                attn_mask, use_separate_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, static_k, static_v,
                average_attn_weights, is_causal,
            )  # fmt: skip
        weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
        if in_proj_weight is not None and not use_separate_proj_weight:
            weights = in_proj_weight.chunk(3)
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        # (batch, head, position, width)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        mask = _joint_mask(attn_mask, key_padding_mask, num_heads, query.dtype)
        output = self._fused(q, k, v, mask)
        result = F.linear(output.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
        if not need_weights:
            return result, None
        probabilities = self.attentions[-1].probabilities
        return result, probabilities.mean(1) if average_attn_weights else probabilities


def _joint_mask(mask: Tensor | None, padding: Tensor | None, heads: int, dtype: torch.dtype) -> Tensor | None:
    """Both masks of `F.multi_head_attention_forward`, in which True is hidden, as numbers to add to the scores."""

    def added(x: Tensor) -> Tensor:
        return torch.zeros_like(x, dtype=dtype).masked_fill(x, -math.inf) if x.dtype == torch.bool else x

    joint = None if mask is None else added(mask)
    if joint is not None and joint.ndim == 3:
        joint = joint.unflatten(0, (-1, heads))
    if padding is None:
        return joint
    hidden = added(padding)[:, None, None]
    return hidden if joint is None else joint + hidden
