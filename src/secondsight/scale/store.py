"""A store: contributions on disk, found by key in well under a millisecond, each part complete or absent.

A store is a folder with store.json (which model and method made it) and part files in Arrow IPC, an open columnar format
that is read in place, so that reading one row costs one row. Part files appear by renaming, under names derived from their
keys: a killed run leaves only complete parts, and a repeated run writes the same ones.
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
from secondsight.scale.rows import DTYPES, Part, Row, checksum, pack_row, schema, table_of, text_digest, unpack_row
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, brief, ensure_folder, load_json, reading

FORMAT = "secondsight-store-2"


class Store:
    """Contributions by key, read from disk on access; every read checks the row's checksum.

    `facts` describe the model (with a fingerprint of its weights), method, side and dtype. `store[a] @ texts[b]` explains a
    pair; stores of different models or methods refuse to be multiplied.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.facts = _read_facts(self.folder)
        self._parts: dict[str, Part] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._columns: dict[str, Tensor] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look for parts that were added since."""
        for path in sorted(self.folder.glob("part-*.arrow")):
            if path.name in self._parts:
                continue
            part = _open_part(path, self.facts["dtype"])
            self._parts[path.name] = part
            for i, key in enumerate(part.table["key"].to_pylist()):
                # Two simultaneous runs may have written the same row.
                self._places.setdefault(key, (path.name, i))
            self._columns = {}

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
            return unpack_row(self._row(key), self.facts["space"])

    def keys(self) -> list[str]:
        """All keys, in the order of the parts."""
        return list(self._places)

    def parts(self) -> dict[str, list[str]]:
        """The keys of each part file, by its name; an entry that several simultaneous runs wrote is in one of them."""
        keys: dict[str, list[str]] = {}
        for key, (name, _) in self._places.items():
            keys.setdefault(name, []).append(key)
        return keys

    def get(self, key: str, default: Any = None) -> Any:
        """The contributions of that key, or `default`."""
        if key not in self:
            return default
        return self[key]

    def has_text(self, key: str, text: str) -> bool:
        """Whether the entry is that of this text; True for an entry that does not tell, of an earlier version or no text."""
        part, index = self._places[key]
        return self._parts[part].text_digest(index) in (None, text_digest(text))

    def table(self) -> pa.Table:
        """All rows as an Arrow table, mapped into memory; duplicates of simultaneous runs included."""
        return pa.concat_tables([part.table for part in self._parts.values()])

    def _row(self, key: str) -> Row:
        part, index = self._places[key]
        try:
            row = self._parts[part].row(index)
            intact = checksum(row) == row["checksum"]
        except (
            pa.ArrowException,
            UnicodeError,
            IndexError,
            OverflowError,
            ValueError,
            TypeError,
            AttributeError,
        ):
            intact = False
        if not intact:
            raise InputError(
                f"{key!r} in {str(self.folder / part)!r} is damaged: delete that file and decompose again, which "
                "recomputes only what is missing"
            )
        return row

    @property
    def embeddings(self) -> Float[Tensor, "entry joint"]:
        """All embeddings in the order of the keys, times their scale (unit vectors where the similarity is a cosine)."""
        return self._scaled("embedding")

    @property
    def reference_embeddings(self) -> Float[Tensor, "entry joint"]:
        """The embeddings of all entries' references in the order of the keys, times the entries' scale."""
        return self._scaled("reference_embedding")

    def _scaled(self, column: str) -> Float[Tensor, "entry joint"]:
        if column not in self._columns:
            scaled = []
            for name, keys in self.parts().items():
                table, rows = self._parts[name].table, [self._places[key][1] for key in keys]
                vectors = table[column].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
                scaled.append(vectors[rows] * table["scale"].to_numpy()[rows, None].astype(np.float32))
            self._columns[column] = torch.from_numpy(np.concatenate(scaled) if scaled else np.zeros((0, 0), np.float32))
        return self._columns[column]

    def summary(self) -> dict[str, Any]:
        """The number of entries, parts and bytes, the largest residual and the largest rounding."""
        residuals = [pc.max(part.table["residual"]).as_py() for part in self._parts.values()]
        roundings = [pc.max(part.table["rounding"]).as_py() for part in self._parts.values()]
        return {
            "entries": len(self),
            "parts": len(self._parts),
            "bytes": sum((self.folder / name).stat().st_size for name in self._parts),
            "largest residual": max(residuals, default=0.0),
            "largest rounding": max(roundings, default=0.0),
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


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / "store.json"
    facts = load_json(path) if path.exists() else {}
    written_as = facts.get("format")
    if isinstance(written_as, str) and written_as.startswith("secondsight-store-") and written_as != FORMAT:
        raise InputError(
            f"{str(folder)!r} is a store in the format {written_as!r} of another version of secondsight, which writes "
            f"{FORMAT!r} now: run secondsight decompose again, into another folder"
        )
    if written_as != FORMAT:
        sides = sorted(inner.parent.name for inner in folder.glob("*/store.json"))
        remedy = f"it holds one, {str(folder / sides[0])!r}" if sides else "create one with secondsight decompose"
        raise InputError(f"{str(folder)!r} is not a store of contributions: {remedy}")
    if facts.get("dtype") not in DTYPES or not isinstance(facts.get("space"), str):
        raise InputError(f"{str(path)!r} is damaged: decompose into another folder")
    return facts


def open_store(folder: str | os.PathLike[str]) -> Store:
    """The store in a folder; raises `InputError` if there is none or a part file is damaged."""
    return Store(folder)


def create_store(
    folder: str | os.PathLike[str], model: DualEncoder, method: Method, side: int, dtype: str = "float16"
) -> Store:
    """A new store, or the existing one if it has the same model, method, side and dtype.

    Raises `InputError` if the folder holds something else.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    path = Path(folder)
    facts = store_facts(model, method, side, dtype)
    if (path / "store.json").exists():
        store = Store(path)
        for name, value in facts.items():
            if store.facts.get(name) != value:
                raise InputError(
                    f"{str(folder)!r} was made with another {name} ({store.facts.get(name)!r}, not {value!r}): choose "
                    "another folder"
                )
        return store
    # A run that was killed while writing store.json leaves a temporary file.
    if path.exists() and (not path.is_dir() or any(not p.name.startswith(".store.json.") for p in path.iterdir())):
        raise InputError(f"{str(folder)!r} exists and is not a store: choose another folder")
    ensure_folder(path)
    with atomic(path / "store.json") as file:
        file.write(json.dumps(facts, indent=1, ensure_ascii=False).encode())
    return Store(path)


def store_facts(model: DualEncoder, method: Method, side: int, dtype: str) -> dict[str, Any]:
    """What store.json holds. Stores of one `space` can be multiplied: same weights, similarity and method."""
    options = {name: repr(value) for name, value in vars(method).items() if not name.startswith("_")}
    for name, literal in options.items():
        try:
            ast.literal_eval(literal)
        except (ValueError, SyntaxError):
            raise InputError(
                f"a store records its method as text, and {name}={literal[:60]} cannot be written down: give a name or a "
                "number"
            ) from None
    weights = fingerprint(model)
    stored = (model.left, model.right)[side]
    twins = model.left.kind == model.right.kind and model.left.encoder is not model.right.encoder
    origin = json.dumps([weights, model.cosine, method.name, options], sort_keys=True)
    return {
        "format": FORMAT,
        "model": model.name,
        "weights": weights,
        "cosine": model.cosine,
        "method": {"name": method.name, "options": options},
        "side": stored.kind,
        **({"encoder": stored.name} if twins else {}),
        "dtype": dtype,
        "precision": str(model.left.encoder.weights_dtype() or torch.float32).removeprefix("torch."),
        "space": hashlib.sha256(origin.encode()).hexdigest()[:16],
    }


def write_part(
    folder: Path, first: int, keys: Sequence[str], contributions: Sequence[Contributions], dtype: str
) -> Path:
    """Write a part file, which appears complete or not at all. `first` is the position of its first key in the source."""
    table = table_of([pack_row(key, entry, dtype) for key, entry in zip(keys, contributions, strict=True)], dtype)
    digest = hashlib.sha256("\0".join(keys).encode()).hexdigest()[:16]
    path = folder / f"part-{first:010d}-{digest}.arrow"
    with atomic(path) as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        file.flush()
        os.fsync(file.fileno())
    return path


def _open_part(path: Path, dtype: str) -> Part:
    """A part file, mapped into memory: rows are read on access."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        expected = schema(table.schema.field("embedding").type.list_size, dtype)
        if not table.schema.equals(expected):
            raise pa.ArrowInvalid("unexpected columns")
        # Offsets that lead outside the file must not be followed.
        table.validate(full=True)
        _ = table["key"].to_pylist()
        return Part(table)
    except (
        pa.ArrowException,
        OSError,
        UnicodeDecodeError,
        KeyError,
        IndexError,
        AttributeError,
        ValueError,
        MemoryError,
        OverflowError,
    ) as problem:
        raise InputError(
            f"{str(path)!r} is damaged ({brief(problem)}): delete it and decompose again, which recomputes only what is "
            "missing"
        ) from problem
