"""One input's contributions as a row of an Arrow table: rounded vectors, typed facts and a checksum.

Vectors are nested lists of numbers, so that polars, pandas and other readers of Arrow see numbers too.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from secondsight.algebra.assignment import TokenPairing
from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import Layout
from secondsight.algebra.outcome import Outcome
from secondsight.support.errors import InputError

Row = Mapping[str, Any]

_NUMBERS = {"float16": pa.float16(), "int8": pa.int8(), "float32": pa.float32()}

DTYPES = tuple(_NUMBERS)

_FACTS = {
    "key": pa.string(),
    "scale": pa.float64(),
    "residual": pa.float64(),
    "rounding": pa.float64(),
    "method": pa.string(),
    "layer": pa.string(),
    "reference": pa.string(),
    "converged": pa.bool_(),
    "tolerance": pa.float64(),
    "nodes": pa.int64(),
    "cost": pa.int64(),
    "layout": pa.string(),
    "about": pa.string(),
}
"""Numbers and texts of a row. Those of `Outcome` have its names, and are null where contributions carry none."""

_OUTCOME = ("method", "layer", "reference", "converged", "tolerance", "nodes", "cost")
_PAIRING = "pairing"
"""Where a row's `about` holds how its vectors are multiplied."""

_TEXT_DIGEST = "text_digest"
"""Where a row's `about` holds the digest of the text that was decomposed."""

_ARRAYS = ("embedding", "reference_embedding", "step_sizes", "vectors")


def schema(joint: int, dtype: str) -> pa.Schema:
    """The columns of a store with `joint` dimensions.

    `vectors` (feature, joint) are stored in `dtype`; multiplied by their feature's `step_sizes` they are the contributions.
    """
    joint_vector = pa.list_(pa.float32(), joint)
    return pa.schema(
        {
            **_FACTS,
            "embedding": joint_vector,
            "reference_embedding": joint_vector,
            "step_sizes": pa.list_(pa.float32()),
            "vectors": pa.list_(pa.list_(_NUMBERS[dtype], joint)),
            "checksum": pa.uint32(),
        }
    )


def pack_row(key: str, contributions: Contributions, dtype: str) -> Row:
    """A row of a store. `rounding` is ‖stored − U‖ / ‖U‖; a pair's `error` includes what rounding adds to it."""
    if not is_finite(contributions):
        raise InputError(f"the contributions of {key!r} hold NaN or infinity")
    u = contributions.vectors.detach().cpu().float().numpy()
    steps, rounded = _round(u, dtype)
    length = float(np.linalg.norm(u))
    row = {
        "residual": contributions.outcome.residual if contributions.outcome else contributions.relative_residual,
        "key": key,
        "scale": float(contributions.scale),
        "rounding": float(np.linalg.norm(rounded.astype(np.float32) * steps - u)) / length if length else 0.0,
        "layout": json.dumps(contributions.layout.to_json(), ensure_ascii=False),
        "about": json.dumps({**contributions.about, **_pack_pairing(contributions)}),
        **_pack_outcome(contributions.outcome),
        "embedding": contributions.embedding.detach().cpu().float().numpy(),
        "reference_embedding": contributions.reference_embedding.detach().cpu().float().numpy(),
        "step_sizes": steps[:, 0],
        "vectors": rounded,
    }
    return {**row, "checksum": checksum(row)}


def _pack_pairing(contributions: Contributions) -> dict[str, Any]:
    return {} if contributions.pairing is None else {_PAIRING: contributions.pairing.to_json()}


def _pack_outcome(outcome: Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return dict.fromkeys(_OUTCOME)
    return {**{name: getattr(outcome, name) for name in _OUTCOME}, "layer": str(outcome.layer)}


def _unpack_outcome(row: Row) -> Outcome | None:
    if row["method"] is None:
        return None
    layer = row["layer"]
    return Outcome(
        **{**{name: row[name] for name in _OUTCOME}, "layer": int(layer) if layer.lstrip("-").isdigit() else layer},
        residual=row["residual"],
    )


def is_finite(contributions: Contributions) -> bool:
    """Whether all numbers are finite."""
    tensors = (contributions.vectors, contributions.embedding, contributions.reference_embedding)
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _round(u: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Step sizes (feature, 1) and the vectors in units of them."""
    largest = np.abs(u).max(1, keepdims=True, initial=0.0).astype(np.float32)
    if dtype == "int8":
        steps = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
        return steps, np.clip(np.rint(u / steps), -127, 127).astype("i1")
    # float16 has a small range. Scaling by a power of two changes the exponent only.
    exponent = math.frexp(float(largest.max(initial=0.0)))[1]
    steps = np.full_like(largest, np.ldexp(1.0, exponent) if dtype == "float16" else 1.0)
    return steps, (u / steps).astype("<f2" if dtype == "float16" else "<f4")


def checksum(row: Row) -> int:
    """CRC-32 of everything else in the row."""
    crc = zlib.crc32(json.dumps([row[name] for name in _FACTS], ensure_ascii=False).encode())
    for name in _ARRAYS:
        crc = zlib.crc32(np.ascontiguousarray(row[name]).data, crc)
    return crc


def text_digest(text: str) -> str:
    """A short digest of a text, by which a store tells that the text under a key is another one now."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def with_digest(contributions: Contributions, text: str) -> Contributions:
    """The contributions of a text with its digest, for `pack_row`."""
    return replace(contributions, about={**contributions.about, _TEXT_DIGEST: text_digest(text)})


def unpack_row(row: Row, space: str) -> Contributions:
    """The contributions of a row, which belong to a store's `space`."""
    layout = Layout.from_json(json.loads(row["layout"]))
    rounded = row["vectors"].reshape(layout.size, -1)
    about = json.loads(row["about"])
    pairing = TokenPairing.from_json(about.pop(_PAIRING, None))
    about.pop(_TEXT_DIGEST, None)
    return Contributions(
        factor=torch.from_numpy(np.multiply(rounded, row["step_sizes"][:, None], dtype=np.float32)),
        embedding=torch.from_numpy(row["embedding"].copy()),
        reference_embedding=torch.from_numpy(row["reference_embedding"].copy()),
        layout=layout,
        scale=row["scale"],
        about={**about, "rounding": row["rounding"]},
        outcome=_unpack_outcome(row),
        space=space,
        pairing=pairing,
    )


def table_of(rows: Sequence[Row], dtype: str) -> pa.Table:
    """Rows as a table."""
    columns = schema(len(rows[0]["embedding"]), dtype)
    return pa.table([_column(field.type, [row[field.name] for row in rows]) for field in columns], columns)


def _column(kind: pa.DataType, values: Sequence[Any] | np.ndarray) -> pa.Array:
    if pa.types.is_list(kind):
        offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), _column(kind.value_type, np.concatenate(values)))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(values), kind.value_type), kind.list_size)
    return pa.array(values, kind)


class Part:
    """The rows of one part file, with its columns looked up once: random access reads a row in microseconds."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        batch = table.combine_chunks().to_batches()[0]
        self._facts = {name: batch.column(name) for name in (*_FACTS, "checksum")}
        self._arrays = {name: _flat(batch.column(name)) for name in _ARRAYS}

    def text_digest(self, index: int) -> str | None:
        """The digest of a row's text; None where there is none."""
        digest: str | None = json.loads(self._facts["about"][index].as_py()).get(_TEXT_DIGEST)
        return digest

    def row(self, index: int) -> Row:
        """A row; its arrays are flat views of the file's memory."""
        facts = {name: column[index].as_py() for name, column in self._facts.items()}
        arrays = {name: numbers[ends[index] : ends[index + 1]] for name, (numbers, ends) in self._arrays.items()}
        return {**facts, **arrays}


def _flat(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of a column of (nested) lists, and where each row's begin and the last one's end."""
    ends = np.arange(len(column) + 1)
    while pa.types.is_nested(column.type):
        ends = column.offsets.to_numpy()[ends] if pa.types.is_list(column.type) else ends * column.type.list_size
        column = column.values
    return column.to_numpy(zero_copy_only=True), ends
