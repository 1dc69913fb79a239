"""A store: contributions on disk, found by key in well under a millisecond, complete or not there at all.

A folder with store.json (what was decomposed by what) and parts, which are Arrow IPC files: an open columnar format that is
read in place, so that one row costs one row. A part appears by being renamed, under a name made of its keys, so a run that
is killed leaves whole parts, and one that is repeated writes the same ones.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.encoders.fingerprint import fingerprint
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.scale.rows import DTYPES, checksum, packed, schema, unpacked
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, brief, ensure_folder, load_json, reading

FORMAT = "secondsight-store-1"


class Store:
    """Contributions by key, read from disk when they are asked for; every row's checksum is looked at when it is read.

    `facts` say which model (with a fingerprint of its weights), method and side made them, and how they are rounded.
    `store[a] @ other[b]` explains a pair; stores of different models or methods refuse each other.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.facts = load_json(self.folder / "store.json") if (self.folder / "store.json").exists() else {}
        if self.facts.get("format") != FORMAT:
            raise InputError(f"{str(folder)!r} is no store of contributions: make one with secondsight decompose")
        if self.facts.get("dtype") not in DTYPES or not isinstance(self.facts.get("space"), str):
            raise InputError(f"{str(self.folder / 'store.json')!r} is damaged: decompose into another folder")
        self._parts: dict[str, pa.Table] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._embeddings: Tensor | None = None
        self.refresh()

    def refresh(self) -> None:
        """Look for parts that were added since."""
        for path in sorted(self.folder.glob("part-*.arrow")):
            if path.name in self._parts:
                continue
            table = _table(path)
            self._parts[path.name] = table
            for i, key in enumerate(table["key"].to_pylist()):
                # Two runs at once may have made the same row.
                self._places.setdefault(key, (path.name, i))
            self._embeddings = None

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> Contributions:
        if key not in self._places:
            raise InputError(f"{str(self.folder)!r} has no {key!r}; it has {len(self)} entries")
        with reading(self.folder, "contributions"):
            return unpacked(self._row(key), self.facts["dtype"], self.facts["space"])

    def keys(self) -> list[str]:
        """All keys, in the order of the parts."""
        return list(self._places)

    def get(self, key: str, default: Any = None) -> Any:
        """The contributions of that key, or `default`."""
        if key not in self:
            return default
        return self[key]

    def _row(self, key: str) -> dict[str, Any]:
        part, index = self._places[key]
        table = self._parts[part]
        try:
            row = {name: _value(table[name], index) for name in table.column_names}
            sound = checksum(row) == row["checksum"]
        except (
            pa.ArrowException,
            UnicodeDecodeError,
            IndexError,
            OverflowError,
            ValueError,
            TypeError,
            AttributeError,
        ):
            sound = False
        if not sound:
            raise InputError(
                f"{key!r} in {str(self.folder / part)!r} is damaged: delete that part and decompose again, which makes "
                "only what is missing"
            )
        return row

    @property
    def embeddings(self) -> Float[Tensor, "entry joint"]:
        """All embeddings in the order of the keys, times their scale (unit vectors where the similarity is a cosine)."""
        if self._embeddings is None:
            order: dict[str, list[int]] = {}
            for part, index in self._places.values():
                order.setdefault(part, []).append(index)
            found = []
            for part, indices in order.items():
                table = self._parts[part]
                rows = np.concatenate(
                    [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in table["embedding"].chunks]
                )
                rows = rows.reshape(len(table), -1)[indices]
                found.append(rows * table["scale"].to_numpy()[indices, None].astype(np.float32))
            self._embeddings = torch.from_numpy(np.concatenate(found) if found else np.zeros((0, 0), np.float32))
        return self._embeddings

    def summary(self) -> dict[str, Any]:
        """How many entries and bytes, the largest residual and what rounding cost at most."""
        residual = [pc.max(t["residual"]).as_py() for t in self._parts.values()]
        rounding = [pc.max(t["rounding"]).as_py() for t in self._parts.values()]
        return {
            "entries": len(self),
            "parts": len(self._parts),
            "bytes": sum((self.folder / name).stat().st_size for name in self._parts),
            "largest residual": max(residual, default=0.0),
            "largest rounding": max(rounding, default=0.0),
        }

    def verify(self) -> list[str]:
        """Read everything; one sentence for every damaged entry."""
        problems = []
        for key in self:
            try:
                self._row(key)
            except InputError as problem:
                problems.append(str(problem))
        return problems


def open_store(folder: str | os.PathLike[str]) -> Store:
    """The store in a folder; raises `InputError` where there is none or a part is no part."""
    return Store(folder)


def create_store(
    folder: str | os.PathLike[str], model: DualEncoder, method: Method, side: int, dtype: str = "float16"
) -> Store:
    """A new store, or the one that is there if it was made by the same model, method and side.

    Raises `InputError` where another one is there.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    place = Path(folder)
    facts = described(model, method, side, dtype)
    if (place / "store.json").exists():
        store = Store(place)
        other = [name for name in facts if name != "joint" and store.facts.get(name) != facts[name]]
        if other:
            was, now = store.facts.get(other[0]), facts[other[0]]
            raise InputError(
                f"{str(folder)!r} was made with another {other[0]} ({was!r}, not {now!r}): choose another folder"
            )
        return store
    # What a killed run left of its first file is no content.
    if place.exists() and (not place.is_dir() or any(not p.name.startswith(".store.json.") for p in place.iterdir())):
        raise InputError(f"{str(folder)!r} is there and is no store: choose another folder")
    ensure_folder(place)
    with atomic(place / "store.json") as file:
        file.write(json.dumps(facts, indent=1, ensure_ascii=False).encode())
    return Store(place)


def described(model: DualEncoder, method: Method, side: int, dtype: str) -> dict[str, Any]:
    """The facts of a store. Stores of one `space` may be multiplied: the same weights, similarity and method."""
    options = {name: repr(value) for name, value in vars(method).items() if not name.startswith("_")}
    for name, value in options.items():
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise InputError(f"a store's method must be one that can be written down: {name} is {value[:60]}") from None
    weights = fingerprint(model)
    named = json.dumps([weights, model.cosine, method.name, options], sort_keys=True)
    return {
        "format": FORMAT,
        "model": model.name,
        "weights": weights,
        "cosine": model.cosine,
        "method": {"name": method.name, "options": options},
        "side": (model.left, model.right)[side].kind,
        "dtype": dtype,
        "precision": str(next(model.left.encoder.module.parameters()).dtype).removeprefix("torch."),
        "space": hashlib.sha256(named.encode()).hexdigest()[:16],
    }


def write_part(folder: Path, first: int, keys: Sequence[str], made: Sequence[Contributions], dtype: str) -> Path:
    """Write a part: it is there whole, or not at all. `first` is where its first key stands in its source."""
    rows = [packed(key, one, dtype) for key, one in zip(keys, made, strict=True)]
    joint = len(made[0].embedding)
    columns = schema(joint)
    table = pa.table(
        {name: _column(columns.field(name).type, [row[name] for row in rows]) for name in columns.names}, columns
    )
    digest = hashlib.sha256("\0".join(keys).encode()).hexdigest()[:16]
    path = folder / f"part-{first:010d}-{digest}.arrow"
    with atomic(path) as file:
        with pa.ipc.new_file(file, columns) as writer:
            writer.write_table(table)
        file.flush()
        os.fsync(file.fileno())
    return path


def _column(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(values), pa.float32()), kind.list_size)
    return pa.array(values, kind)


def _value(column: pa.ChunkedArray, index: int) -> Any:
    scalar = column[index]
    if pa.types.is_fixed_size_list(scalar.type):
        return scalar.values.to_numpy(zero_copy_only=False)
    if pa.types.is_large_binary(scalar.type):
        return scalar.as_buffer()
    return scalar.as_py()


def _table(path: Path) -> pa.Table:
    """A part, mapped into memory: nothing is read before it is asked for."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        missing = set(schema(1).names) - set(table.column_names)
        if missing:
            raise pa.ArrowInvalid(f"no column {min(missing)}")
        # Offsets that lead outside the file must not be followed.
        table.validate(full=True)
        _ = table["key"].to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError, MemoryError, OverflowError) as problem:
        raise InputError(
            f"{str(path)!r} is damaged ({brief(problem)}): delete it and decompose again, which makes only "
            "what is missing"
        ) from problem
    return table
