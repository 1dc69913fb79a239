"""Loading weights by name, with one clear sentence where that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from secondsight.errors import InputError

Made = TypeVar("Made")

_OFFLINE = (
    "connect",
    "resolve",
    "network",
    "offline",
    "timed out",
    "httpsconnection",
    "cannot find the requested files",
    "is not a local folder and is not a valid model identifier",
    "is not the path to a directory",
)


@contextmanager
def loading(name: str, local: str) -> Iterator[None]:
    """Keep the user's random state while a model is built, and say in one sentence what went wrong."""
    try:
        # Building a model draws its random initial weights; the user's random state is not ours to move.
        with torch.random.fork_rng():
            yield
    except InputError:
        raise
    except Exception as problem:
        raise unreachable(name, problem, local) from problem


def unreachable(name: str, problem: Exception, local: str) -> InputError:
    """The error for weights that are not here: `local` says how to name a copy on this machine."""
    text = f"{type(problem).__name__}: {problem}".splitlines()[0][:300]
    if isinstance(problem, (ConnectionError, TimeoutError)) or any(w in f"{text} {problem}".lower() for w in _OFFLINE):
        return InputError(
            f"the weights of {name!r} are not on this machine and the hub cannot be reached: "
            f"use {local} or the offline model 'builtin'"
        )
    return InputError(f"{name!r} cannot be loaded ({text}): check the checkpoint and its architecture")


def needed(package: str, extra: str, load: Callable[[], Made]) -> Made:
    """What `load` imports; `InputError` with the remedy where the package is missing."""
    try:
        return load()
    except ImportError as problem:
        raise InputError(
            f"this model needs the package {package}, which is not installed: pip install 'secondsight[{extra}]'"
        ) from problem


def number(model: nn.Module, name: str, change: Callable[[Tensor], Tensor] = lambda t: t) -> float | None:
    """A scalar parameter of a model through `change`; None where it has none."""
    value: Any = getattr(model, name, None)
    return float(change(value.detach().double())) if isinstance(value, Tensor) and value.numel() == 1 else None
