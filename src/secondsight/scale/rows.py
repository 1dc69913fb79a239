"""One input's contributions as a row of an Arrow table: halves or bytes, what rounding cost, and a checksum."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import Layout
from secondsight.support.errors import InputError

DTYPES = ("float16", "int8", "float32")


def schema(joint: int) -> pa.Schema:
    """The columns: `vectors` are row-major (features, joint) numbers, `steps` what one unit of them is worth."""
    wide = pa.list_(pa.float32(), joint)
    return pa.schema(
        [
            ("key", pa.string()),
            ("checksum", pa.uint32()),
            ("embedding", wide),
            ("reference", wide),
            ("scale", pa.float64()),
            ("residual", pa.float32()),
            ("rounding", pa.float32()),
            ("layout", pa.string()),
            ("about", pa.string()),
            ("steps", pa.large_binary()),
            ("vectors", pa.large_binary()),
        ]
    )


def packed(key: str, made: Contributions, dtype: str) -> dict[str, Any]:
    """A row. `rounding` is ‖stored − U‖ / ‖U‖; what rounding adds to a pair's error shows in that pair's error."""
    u = made.vectors.detach().cpu().float().numpy()
    if not sound(made):
        raise InputError(f"the contributions of {key!r} hold NaN or infinity")
    steps, stored = _rounded(u, dtype)
    back = stored.astype(np.float32) * steps
    size = float(np.linalg.norm(u))
    row = {
        "key": key,
        "embedding": made.embedding.detach().cpu().float().numpy(),
        "reference": made.reference_embedding.detach().cpu().float().numpy(),
        "scale": float(made.scale),
        "residual": made.relative_residual,
        "rounding": float(np.linalg.norm(back - u)) / size if size else 0.0,
        "layout": json.dumps(made.layout.to_json(), ensure_ascii=False),
        "about": json.dumps(dict(made.about)),
        "steps": steps.astype("<f4").tobytes(),
        "vectors": stored.tobytes(),
    }
    return {**row, "checksum": checksum(row)}


def sound(made: Contributions) -> bool:
    """Whether all numbers are finite."""
    return all(bool(torch.isfinite(t).all()) for t in (made.vectors, made.embedding, made.reference_embedding))


def _rounded(u: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """What a unit is worth, a number a feature (features, 1), and the numbers themselves."""
    largest = np.abs(u).max(1, keepdims=True, initial=0.0).astype(np.float32)
    if dtype == "int8":
        steps = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
        return steps, np.clip(np.rint(u / steps), -127, 127).astype("i1")
    # A power of two changes no digit; halves reach neither far up nor far down.
    exponent = math.frexp(float(largest.max(initial=0.0)))[1]
    steps = np.full_like(largest, np.ldexp(1.0, exponent) if dtype == "float16" else 1.0)
    return steps, (u / steps).astype("<f2" if dtype == "float16" else "<f4")


def checksum(row: Mapping[str, Any]) -> int:
    """CRC-32 of everything else in the row."""
    found = 0
    for name in ("key", "layout", "about"):
        found = zlib.crc32(row[name].encode(), found)
    for name in ("embedding", "reference"):
        found = zlib.crc32(np.ascontiguousarray(row[name], dtype="<f4").tobytes(), found)
    found = zlib.crc32(np.float64(row["scale"]).tobytes(), found)
    for name in ("residual", "rounding"):
        found = zlib.crc32(np.float32(row[name]).tobytes(), found)
    for name in ("steps", "vectors"):
        found = zlib.crc32(row[name], found)
    return found


def unpacked(row: Mapping[str, Any], dtype: str, space: str) -> Contributions:
    """The contributions of a row."""
    layout = Layout.from_json(json.loads(row["layout"]))
    kind = {"float16": "<f2", "int8": "i1", "float32": "<f4"}[dtype]
    stored = np.frombuffer(row["vectors"], kind).reshape(layout.size, -1)
    steps = np.frombuffer(row["steps"], "<f4")[:, None]
    about = {**json.loads(row["about"]), "rounding": row["rounding"]}
    return Contributions(
        factor=torch.from_numpy(stored.astype(np.float32) * steps),
        embedding=torch.from_numpy(np.array(row["embedding"], np.float32)),
        reference_embedding=torch.from_numpy(np.array(row["reference"], np.float32)),
        layout=layout,
        scale=row["scale"],
        about=about,
        space=space,
    )
