"""Loading weights by name, with one clear sentence where that fails."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from secondsight.encoders.wrappers import class_names
from secondsight.support.errors import InputError

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
"""Errors of a missing connection; by name, because they belong to several libraries."""

_OFFLINE_WORDS = ("couldn't connect to", "cannot find the requested files", "failed to download")


@contextmanager
def loading(name: str, local: str) -> Iterator[None]:
    """Keep the user's random state while a model is built, and turn every error into one sentence."""
    try:
        # Building a model draws random initial weights, which must not move the user's random state.
        with torch.random.fork_rng(), _without_waiting():
            yield
    except InputError:
        raise
    except Exception as problem:
        raise loading_error(name, problem, local) from problem


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Use the cache at once where the hub's address cannot be found, instead of retrying for a minute."""
    # Installed with every library that knows hub names, open_clip among them.
    constants: Any = import_module("huggingface_hub.constants")
    offline, log = constants.HF_HUB_OFFLINE, logging.getLogger("huggingface_hub")
    level = log.level
    try:
        # A proxy looks up addresses itself.
        if not offline and not getproxies():
            try:
                socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
            except OSError:
                constants.HF_HUB_OFFLINE = True
        # The error itself says what went wrong.
        log.setLevel(logging.ERROR)
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
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


def loading_error(name: str, problem: Exception, local: str) -> InputError:
    """The error for a model that cannot be loaded: `local` says how to name a copy on this machine."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    text = f"{type(problem).__name__}: {lines[0].strip() if lines else 'no reason given'}"[:300]
    chain: list[BaseException] = []
    cause: BaseException | None = problem
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    names = set().union(*map(class_names, chain))
    if names & {"RepositoryNotFoundError", "RemoteEntryNotFoundError"} and not names & _OFFLINE:
        return InputError(f"the hub has no model {name!r}: check the name, or use {local}")
    if names & _OFFLINE or any(words in str(problem).lower() for words in _OFFLINE_WORDS):
        return InputError(
            f"the weights of {name!r} are not on this machine and the hub cannot be reached: "
            f"use {local} or the offline model 'builtin'"
        )
    if "weights_only" in str(problem) or "UnpicklingError" in names:
        return InputError(
            f"{name!r} cannot be loaded: its file holds more than weights, which could run code, or is damaged; "
            "give one saved as safetensors, or as a state_dict"
        )
    return InputError(f"{name!r} cannot be loaded ({text}): check the checkpoint and its architecture")


def number(model: nn.Module, name: str, change: Callable[[Tensor], Tensor] = lambda t: t) -> float | None:
    """A scalar parameter of a model through `change`; None where it has none."""
    value: Any = getattr(model, name, None)
    return float(change(value.detach().double())) if isinstance(value, Tensor) and value.numel() == 1 else None
