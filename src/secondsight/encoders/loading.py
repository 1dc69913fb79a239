"""Loading weights by name, with one clear sentence where that fails."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from secondsight.support.errors import InputError

Made = TypeVar("Made")

_OFFLINE = {
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
    "ConnectError",
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "TimeoutError",
    "MaxRetryError",
    "NameResolutionError",
    "URLError",
    "gaierror",
}
"""Errors, by name because they belong to several libraries, that say that nobody could be asked."""

_SAYS_SO = ("couldn't connect to", "cannot find the requested files", "failed to download")


@contextmanager
def loading(name: str, local: str) -> Iterator[None]:
    """Keep the user's random state while a model is built, and say in one sentence what went wrong."""
    try:
        # Building a model draws its random initial weights; the user's random state is not ours to move.
        with torch.random.fork_rng(), _without_waiting():
            yield
    except InputError:
        raise
    except Exception as problem:
        raise unreachable(name, problem, local) from problem


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Where the hub's name cannot even be looked up, use what is cached at once instead of trying again for a minute."""
    # Part of every library that has hub names; open_clip needs it too.
    constants: Any = import_module("huggingface_hub.constants")
    was, log = constants.HF_HUB_OFFLINE, logging.getLogger("huggingface_hub")
    level = log.level
    try:
        # Behind a proxy names are looked up elsewhere.
        if not was and not getproxies():
            try:
                socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
            except OSError:
                constants.HF_HUB_OFFLINE = True
        # What went wrong is said once, by the error.
        log.setLevel(logging.ERROR)
        yield
    finally:
        constants.HF_HUB_OFFLINE = was
        log.setLevel(level)


def saved_folder(prefix: str, name: str, *files: str) -> str:
    """A name as the library wants it, user folders expanded; `InputError` for a folder that has none of the files."""
    if not name:
        raise InputError(f"{prefix}: needs a hub name or a local folder behind the colon")
    folder = os.path.expanduser(name)
    if name.startswith((".", "/", "~")) and not os.path.isdir(folder):
        raise InputError(f"the folder {name!r} does not exist: give one that save_pretrained wrote")
    if os.path.isdir(folder) and not any(os.path.exists(os.path.join(folder, file)) for file in files):
        raise InputError(f"the folder {name!r} has no {' or '.join(files)}: give one that save_pretrained wrote")
    return folder


def unreachable(name: str, problem: Exception, local: str) -> InputError:
    """The error for weights that are not here: `local` says how to name a copy on this machine."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    text = f"{type(problem).__name__}: {lines[0].strip() if lines else 'no reason given'}"[:300]
    chain: list[BaseException] = []
    cause: BaseException | None = problem
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    names = {c.__name__ for one in chain for c in type(one).__mro__}
    if names & {"RepositoryNotFoundError", "RemoteEntryNotFoundError"} and not names & _OFFLINE:
        return InputError(f"the hub has no model {name!r}: check the name, or use {local}")
    if names & _OFFLINE or any(words in str(problem).lower() for words in _SAYS_SO):
        return InputError(
            f"the weights of {name!r} are not on this machine and the hub cannot be reached: "
            f"use {local} or the offline model 'builtin'"
        )
    return InputError(f"{name!r} cannot be loaded ({text}): check the checkpoint and its architecture")


def number(model: nn.Module, name: str, change: Callable[[Tensor], Tensor] = lambda t: t) -> float | None:
    """A scalar parameter of a model through `change`; None where it has none."""
    value: Any = getattr(model, name, None)
    return float(change(value.detach().double())) if isinstance(value, Tensor) and value.numel() == 1 else None
