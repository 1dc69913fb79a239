"""Whether a similarity that is explained is the one that the host library itself gives."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from secondsight.support.errors import AdapterError

_ALLOWED = 1e-4
_ALLOWED_HALF = 3e-2
"""Relative differences, for models in half precision the larger one."""


def is_half(modules: Iterable[nn.Module]) -> bool:
    """Whether some of the weights are in half precision."""
    return any(p.dtype in (torch.float16, torch.bfloat16) for module in modules for p in module.parameters())


def require_agreement(host: float, ours: float, size: float, modules: Iterable[nn.Module], what: str) -> None:
    """`AdapterError` unless a similarity is the host's, up to a share of `size`; `what` names the similarity."""
    if not abs(host - ours) <= (_ALLOWED_HALF if is_half(modules) else _ALLOWED) * size:
        raise AdapterError(
            f"{what} is {host:.4f} in its own library and {ours:.4f} by the parts that are explained: the model does more "
            "than these show, so describe its sides with ss.TorchEncoder"
        )
