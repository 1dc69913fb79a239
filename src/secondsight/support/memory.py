"""How much memory is free, and what to do when it runs out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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


def peak_memory(work: Callable[[], object], device: torch.device) -> float | None:
    """Bytes that `work()` needs at most, beyond those in use before; None on systems that do not tell.

    On a GPU these are PyTorch's allocations there. On the CPU it is the high-water mark of the process's resident memory,
    which Linux lets a process reset, after the C library has given back what it keeps for later.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return float(torch.cuda.max_memory_allocated(device) - before)
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        work()
        return None
    before = _resident("VmRSS")
    work()
    return float(_resident("VmHWM") - before)


def _resident(field: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) * 1024
