"""How much memory is free, and what to do when it runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psutil
import torch

from secondsight.support.errors import InputError

Result = TypeVar("Result")

_CHUNK_DIVISOR = 16
"""How many times smaller chunks become once they have not fitted into memory."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the machine or a GPU ran out of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """`InputError` with the remedies, in place of whatever exception says that memory ran out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(
            "not enough memory for a single input: use a later layer, fewer steps, a smaller model or image"
        ) from error


def retry_smaller(run: Callable[[], Result], run_smaller: Callable[[], Result]) -> Result:
    """Return `run()`, or `run_smaller()`, which should need less, when memory runs out; `InputError` if both fail."""
    try:
        return run()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    # Outside the handler: the traceback would keep the tensors that did not fit alive.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with memory_errors_explained():
        return run_smaller()


def retry_in_smaller_chunks(run: Callable[[int], Result]) -> Result:
    """Return `run(chunk_divisor)`: with 1, then, when memory runs out, with 16 for chunks so many times smaller."""
    return retry_smaller(lambda: run(1), lambda: run(_CHUNK_DIVISOR))


def free_memory(device: torch.device) -> float:
    """Free bytes on a device."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)
