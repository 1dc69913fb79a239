"""The device a model runs on, and the precision of its weights."""

from __future__ import annotations

import torch

from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import brief

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def move_model(model: DualEncoder, device: str | None = None, precision: str | None = None) -> DualEncoder:
    """Move a model in place to a device and to a precision of its weights, and return it; None changes nothing.

    Half precision speeds up the host model's forward passes; the decomposition itself stays in float32. Raises `InputError`
    for a device that this machine lacks.
    """
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    try:
        for side in (model.left, model.right):
            side.encoder.module.to(device=device, dtype=None if precision is None else PRECISIONS[precision])
    except (RuntimeError, AssertionError) as problem:
        if device is None:
            raise
        raise InputError(f"device {device!r} cannot be used here ({brief(problem)})") from problem
    return model
