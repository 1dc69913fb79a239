"""How much memory there is, and whether it ran out."""

from __future__ import annotations

from pathlib import Path

import torch


def out_of_memory(problem: BaseException) -> bool:
    """Whether an exception says that memory ran out, of the machine or of a GPU."""
    if isinstance(problem, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(problem, RuntimeError) and any(
        words in str(problem) for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


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
