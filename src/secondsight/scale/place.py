"""Where a model runs and in which precision."""

from __future__ import annotations

import torch

from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import brief

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def placed(model: DualEncoder, device: str | None = None, precision: str | None = None) -> DualEncoder:
    """The model itself, moved to a device and to a precision of its weights; None leaves what is.

    In half precision the host model's forward passes are halved, the decomposition itself runs in float32. Raises
    `InputError` for what this machine has not.
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
