"""How much memory there is, and whether it ran out."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch

from secondsight.support.errors import InputError

Made = TypeVar("Made")


def out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that memory ran out, of the machine or of a GPU."""
    if isinstance(problem, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(problem, RuntimeError) and any(
        words in str(problem) for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


def retry_smaller(run: Callable[[], Made], again: Callable[[], Made] | None = None) -> Made:
    """What `run` gives; where memory runs out, what `again` gives, which should need less; `InputError` after that."""
    try:
        return run()
    except (MemoryError, RuntimeError) as problem:
        if not out_of_memory(problem):
            raise
        if again is None:
            raise InputError(
                "not enough memory for a single input: use a later layer, fewer steps, a smaller model or image"
            ) from problem
    # Outside of the handler, whose traceback keeps alive what did not fit.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return retry_smaller(again)


def sparing(method: Callable[..., Made]) -> Callable[..., Made]:
    """A method that is called once more with `self.smaller` = 16, chunks so many times smaller, where memory runs out."""

    @wraps(method)
    def tried(self: Any, *args: Any) -> Made:
        def smaller() -> Made:
            self.smaller = 16
            return method(self, *args)

        return retry_smaller(lambda: method(self, *args), smaller if self.smaller == 1 else None)

    return tried


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024.0
    except OSError:
        pass
    return 4.0 * 2**30
