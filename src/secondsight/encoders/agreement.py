"""Whether a similarity that is explained is the one that the host library itself gives."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from secondsight.encoders.base import in_half_precision
from secondsight.support.errors import AdapterError

_ALLOWED = 1e-4
_ALLOWED_HALF = 3e-2
"""Relative differences, for models in half precision the larger one."""


def require_agreement(host: float, ours: float, size: float, modules: Iterable[nn.Module], what: str) -> None:
    """`AdapterError` unless a similarity is the host's, up to a share of `size`; `what` names the similarity."""
    if not abs(host - ours) <= (_ALLOWED_HALF if any(map(in_half_precision, modules)) else _ALLOWED) * size:
        raise AdapterError(
            f"{what} is {host:.4f} in its own library and {ours:.4f} by the parts that are explained: the model does more "
            "than these show, so describe its sides with ss.TorchEncoder"
        )
