"""Ray's workers on this machine."""

import os
from pathlib import Path


def workers(name: str) -> list[int]:
    """Processes of Ray's workers whose title has `name`."""
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if title.startswith("ray::") and name in title:
            pids.append(int(pid))
    return pids
