"""A raw input made ready for a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from secondsight.support.errors import InputError


@dataclass(frozen=True, eq=False)
class Prepared:
    """One input, ready for the model: a tensor with a batch axis of 1, what to show of it, and where its parts lie."""

    tensor: Tensor
    shown: Any
    place: Any


def own_reference(which: Tensor, tensor: Tensor) -> Tensor:
    """The user's reference as the input's kind of tensor; `InputError` for another shape."""
    if which.shape != tensor.shape:
        raise InputError(f"the reference {tuple(which.shape)} does not have the input's shape {tuple(tensor.shape)}")
    return which.to(tensor)


def as_list(inputs: Any) -> list[Any]:
    """Several inputs as a list: an iterable of raw inputs, or a model-ready batch split along its first axis."""
    if isinstance(inputs, Tensor):
        return [inputs] if inputs.ndim == 1 else list(inputs.split(1))
    if isinstance(inputs, Mapping):
        # A processor's or tokenizer's output, one row an input.
        rows = {k: v.split(1) for k, v in inputs.items() if isinstance(v, Tensor)}
        return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    if isinstance(inputs, (str, bytes)) or type(inputs).__name__ == "ndarray" or not isinstance(inputs, Iterable):
        raise InputError(f"contributions take several inputs: give a list, not {type(inputs).__name__}")
    return list(inputs)
