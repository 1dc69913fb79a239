"""Files that appear only when they are complete, and that are read without running code from them."""

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


def no_room(path: str | os.PathLike[str], error: OSError) -> str:
    """The message for a disk that is full, read-only or broken."""
    return f"cannot write {str(path)!r}: {os.strerror(error.errno or 0).lower()}; make room or choose another place"


unfinished: set[Path] = set()
"""Files that are being written; code that ends the process without unwinding the stack must remove them."""


def _followed(path: Path) -> Path:
    """Where a symbolic link points to; the path itself where it is none."""
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot write {str(path)!r}: the link leads back to itself; choose another name") from error


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only if the block ends without an exception."""
    # A link stays one: what it points to is written, as open() would.
    target = _followed(Path(path))
    if not target.parent.is_dir():
        raise InputError(f"cannot write {str(path)!r}: the folder {str(target.parent)!r} does not exist")
    if target.is_dir():
        raise InputError(f"cannot write {str(path)!r}: it is a folder, give a file name")
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}; choose another place") from error
    temporary = Path(name)
    unfinished.add(temporary)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp creates private files, open() does not
        temporary.replace(target)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise InputError(no_room(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)
        unfinished.discard(temporary)


def ensure_folder(path: str | os.PathLike[str]) -> Path:
    """Create the folder and its parents if they are missing; `InputError` if that fails."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file is in its place" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise InputError(f"cannot make the folder {str(path)!r} ({reason}): choose another place") from error
    return folder


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Let one process at a time write to a folder: `InputError` for a second one. Leaves an empty `.lock` in the folder."""
    lock = FileLock(Path(folder) / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another run is writing to {str(folder)!r}: wait for it, or choose another folder") from None
    except OSError as error:
        raise InputError(no_room(folder, error)) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def reading(path: str | os.PathLike[str], content: str) -> Iterator[None]:
    """Turn every error from parsing a file into an `InputError` that names the file and what it should hold."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"{str(path)!r} holds no {content}, or a damaged one ({brief(error)})") from error


def one_line(value: object, most: int = 80) -> str:
    """The beginning of a value on one line, for a message."""
    return " ".join(str(value)[:most].split())


def shortened(value: object, most: int = 60) -> str:
    """A value as messages name it: its representation, or its type where that is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a representation of the user's own can fail in any way
        text = ""
    return text if 0 < len(text) <= most else f"<{type(value).__name__}>"


def brief(error: BaseException) -> str:
    """The type and the beginning of the first line of an exception: some repeat the whole file."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


def packaged(resource: Traversable, digest: str, package: str = "secondsight") -> bytes:
    """The bytes of a file that a package carries; `InputError` if its SHA-256 is not `digest`."""
    data = resource.read_bytes()
    actual = hashlib.sha256(data).hexdigest()
    if actual != digest:
        raise InputError(f"{str(resource)!r} is not the package's file (SHA-256 {actual}): reinstall {package}")
    return data


def save_record(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and plain data exactly, as .npz or .json by the file's suffix; `InputError` for any other suffix.

    `facts["format"]` names the format, such as "secondsight-interactions-2".
    """
    suffix = Path(path).suffix
    if suffix not in (".npz", ".json"):
        content = _content(facts["format"])
        raise InputError(f"cannot save {content} as {str(path)!r}: the name must end in .npz or .json")
    with atomic(path) as file:
        if suffix == ".json":
            file.write(json.dumps(json_record(tensors, facts), ensure_ascii=False, allow_nan=False).encode())
        else:
            arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
            np.savez_compressed(file, facts=np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]  # numpy types the mapping as its own keyword


def load_record(path: str | os.PathLike[str], format_name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts that `save_record` wrote; `InputError` for anything but a file of this format."""
    content = _content(format_name)
    with reading(path, content):
        tensors, facts = _load_npz(path) if Path(path).suffix == ".npz" else ({}, load_json(path))
        stored_format = str(facts.get("format"))
        if stored_format.rpartition("-")[0] == format_name.rpartition("-")[0] != "" and stored_format != format_name:
            raise InputError(
                f"{str(path)!r} holds {content} in the format {one_line(stored_format)} of another version of secondsight: "
                "compute and save them again"
            )
        if stored_format != format_name:
            raise InputError(f"{str(path)!r} holds no {content}")
        for name, dtype in facts.get("dtypes", {}).items():
            tensors[name] = torch.tensor(facts.pop(name), dtype=getattr(torch, dtype))
        return tensors, facts


def json_record(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts and tensors as one JSON object: tensors as nested lists under their names, their types under "dtypes".

    Decimal floats are read back to the same bits.
    """
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    return {**facts, **{name: tensor.tolist() for name, tensor in tensors.items()}, "dtypes": dtypes}


def _content(format_name: str) -> str:
    return format_name.split("-")[1]


def _load_npz(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            tensors = {name: torch.from_numpy(archive[name]) for name in archive.files if name != "facts"}
            return tensors, json.loads(archive["facts"].tobytes())
    except FileNotFoundError as error:
        raise InputError(f"{str(path)!r} does not exist") from error
    except Exception as error:
        raise InputError(f"{str(path)!r} is not an .npz file written by secondsight ({brief(error)})") from error


def load_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object; `InputError` for a missing file or any other content."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{str(path)!r} does not exist") from error
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a JSON file ({brief(error)})") from error
    if not isinstance(data, dict):
        raise InputError(f"{str(path)!r} is not a JSON object")
    return data
