"""Attention of long sequences as one operation of a tape.

Taken apart, attention leaves several matrices (head, position, position) on the tape. As one operation it leaves queries, keys
and values, so that memory grows with the length and not with its square.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

_LARGE = 2**20
"""Probabilities of all heads from which on attention is one operation: before, taking it apart is faster."""


def fused_attention() -> AbstractContextManager[None]:
    """Attention kernels without derivatives of forward mode, whose memory grows with the length alone where there are any."""
    context: AbstractContextManager[None] = sdpa_kernel(
        [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    )
    return context


@torch.library.custom_op(
    "secondsight::attention",
    mutates_args=(),
    schema="(Tensor states, Tensor? mask, bool causal, float scale) -> Tensor",
)
def attention(states: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    """Softmax attention of `states` (…, position, 3 · width): queries, keys and values beside each other."""
    query, key, value = states.chunk(3, -1)
    with fused_attention():
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale).clone()


class AttentionAsOne(TorchFunctionMode):
    """Runs large self-attention as `attention`, for a tape that has a rule for it; all else runs as it is."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return _run(*args, **kwargs)
        return function(*args, **kwargs)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Ends the mode; an error that is under way stays the one that is raised."""
        try:
            super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]  # torch has no types there
        except RuntimeError:
            # A signal can come while torch has put its modes aside, so that there is none to end.
            if kind is None:
                raise


def _run(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    probabilities = query.shape[:-1].numel() * query.shape[-2]
    alike = query.shape == key.shape == value.shape and query.ndim > 2
    if not alike or dropout_p or probabilities < _LARGE or not _all_see(attn_mask):
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    result: Tensor = torch.ops.secondsight.attention(torch.cat([query, key, value], -1), attn_mask, is_causal, scale)
    return result


def _all_see(mask: Tensor | None) -> bool:
    """Whether every query may look at some position."""
    visible = None if mask is None else mask if mask.dtype == torch.bool else mask > -math.inf
    return visible is None or bool(visible.any(-1).all())
