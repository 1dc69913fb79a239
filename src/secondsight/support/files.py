"""Writing files so that nothing half-written stays behind, and reading arrays without running what they carry."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from secondsight.support.errors import InputError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def no_room(path: str | os.PathLike[str], problem: OSError) -> str:
    """The sentence for a disk that takes no more."""
    return f"cannot write {str(path)!r}: {os.strerror(problem.errno or 0).lower()}; make room or choose another place"


unfinished: set[Path] = set()
"""Files that are being written; who ends the process without unwinding it removes them."""


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only when the block ends well."""
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"cannot write {str(path)!r}: the folder {str(target.parent)!r} does not exist")
    if target.is_dir():
        raise InputError(f"cannot write {str(path)!r}: it is a folder, give a file name")
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as problem:
        raise InputError(f"cannot write {str(path)!r}: {problem.strerror}; choose another place") from problem
    temporary = Path(name)
    unfinished.add(temporary)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; an ordinary open() would not
        temporary.replace(target)
    except OSError as problem:
        if problem.errno not in _NO_ROOM:
            raise
        raise InputError(no_room(path, problem)) from problem
    finally:
        temporary.unlink(missing_ok=True)
        unfinished.discard(temporary)


def ensure_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made with those above it where it is missing; `InputError` where it cannot be."""
    place = Path(path)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        why = (
            "a file is in its place" if isinstance(problem, FileExistsError | NotADirectoryError) else problem.strerror
        )
        raise InputError(f"cannot make the folder {str(path)!r} ({why}): choose another place") from problem
    return place


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """One process at a time: `InputError` where another one is writing to this folder. It leaves an empty `.lock` there."""
    lock = FileLock(Path(folder) / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another run is writing to {str(folder)!r}: wait for it, or choose another folder") from None
    except OSError as problem:
        raise InputError(no_room(folder, problem)) from problem
    try:
        yield
    finally:
        lock.release()


@contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Whatever goes wrong while a file's content is taken apart is the file's fault, said in one sentence."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as problem:
        raise InputError(f"{str(path)!r} holds no {what}, or a damaged one ({brief(problem)})") from problem


def one_line(given: object, most: int = 80) -> str:
    """As much of something strange as belongs into a sentence."""
    return " ".join(str(given)[:most].split())


def brief(problem: BaseException) -> str:
    """What an exception says, as much of it as belongs into a sentence: some repeat the whole file."""
    return f"{type(problem).__name__}: {(str(problem).splitlines() or [''])[0][:120]}"


def packaged(resource: Traversable, digest: str, package: str = "secondsight") -> bytes:
    """The bytes of a file that a package carries; `InputError` where its SHA-256 is another than `digest`."""
    data = resource.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise InputError(f"{str(resource)!r} is not the package's file (SHA-256 {found}): reinstall {package}")
    return data


def save_arrays(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and plain data as one .npz."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    with atomic(path) as file:
        np.savez_compressed(file, facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]  # numpy types the mapping as its own keyword


def load_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_arrays` wrote; `InputError` for a missing or foreign file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            tensors = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "facts"}
            return tensors, json.loads(archive["facts"].tobytes())
    except FileNotFoundError as problem:
        raise InputError(f"{str(path)!r} does not exist") from problem
    except Exception as problem:
        raise InputError(f"{str(path)!r} is no .npz written by secondsight ({brief(problem)})") from problem


def load_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object; `InputError` for a missing or foreign file."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise InputError(f"{str(path)!r} does not exist") from problem
    except (ValueError, RecursionError, OSError) as problem:
        raise InputError(f"{str(path)!r} is no JSON file ({brief(problem)})") from problem
    if not isinstance(data, dict):
        raise InputError(f"{str(path)!r} is no JSON object")
    return data
