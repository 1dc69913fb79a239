"""A pair as a long table: a row for every pair of a left and a right feature."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondsight.algebra.layout import GridLayout, Layout, TokenLayout
from secondsight.support.errors import InputError
from secondsight.support.files import atomic

if TYPE_CHECKING:
    import pandas as pd

    from secondsight.algebra.interactions import Interactions

ENDINGS = (".csv", ".parquet")
"""How the names of tables end."""

_KEYS = ("feature", "special")
"""Columns that both sides have, whatever they are."""


def to_pandas(pair: Interactions, *, special: bool = True) -> pd.DataFrame:
    """A pair's matrix as a long table, a row for every left and right feature; the sum of `value` is the interaction.

    `left_feature` and `right_feature` count the features of each side; `left_special` and `right_special` name special
    positions, which `special=False` leaves out. A cell of an image has its `row`, its `column` and its box `x0`, `y0`, `x1`,
    `y1` in pixels of the original, a cell of a spectrogram `row` and `column`. A token of a text has `token`, its `start` and
    `end` in the text, and the `word` that it belongs to with `word_start` and `word_end`, by which rows of one word can be
    summed. Where both sides have such columns, their names begin with `left_` and `right_`; inputs that are joined have a
    number, `part`. `value` is in units of the similarity; methods that sample have a `standard_error`. `attrs` holds the
    similarity and its terms. Raises `InputError` without pandas.
    """
    pd = _pandas()
    matrix = pair.matrix.double().cpu().numpy()
    left, right = (_features(layout, pd) for layout in (pair.left_layout, pair.right_layout))
    shared = set(left.columns) & set(right.columns) | set(_KEYS)
    rows, columns = (
        np.array(range(layout.size) if special else layout.visible, dtype=int)
        for layout in (pair.left_layout, pair.right_layout)
    )
    sides = []
    for name, side, indices in (
        ("left", left, np.repeat(rows, len(columns))),
        ("right", right, np.tile(columns, len(rows))),
    ):
        renamed = side.rename(columns={column: f"{name}_{column}" for column in shared})
        sides.append(renamed.iloc[indices].reset_index(drop=True))
    table = pd.concat(sides, axis=1)
    table["value"] = matrix[np.ix_(rows, columns)].reshape(-1)
    if pair.standard_errors is not None:
        table["standard_error"] = pair.standard_errors.double().cpu().numpy()[np.ix_(rows, columns)].reshape(-1)
    table.attrs = {"similarity": pair.similarity, "error": pair.error, **pair.terms.by_name()}
    return table


def save_table(pair: Interactions, path: str | os.PathLike[str]) -> None:
    """Write the table of `to_pandas` as .csv or .parquet; the file appears only when it is complete."""
    suffix = Path(path).suffix.lower()
    if suffix not in ENDINGS:
        raise InputError(f"cannot write {str(path)!r}: the name of a table must end in .csv or .parquet")
    table = to_pandas(pair)
    with atomic(path) as file:
        if suffix == ".csv":
            table.to_csv(file, index=False)
            return
        try:
            table.to_parquet(file, index=False)
        except ImportError as missing:
            raise InputError(
                "a .parquet file needs pyarrow: pip install 'secondsight[eval]', or write .csv"
            ) from missing


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as missing:
        raise InputError("a table needs pandas: pip install 'secondsight[eval]'") from missing
    return pandas


def _features(layout: Layout, pd: Any) -> Any:
    """A row for every feature: its number, the name of a special position, and where it lies."""
    if len(layout.parts) > 1:
        parts = [_places(part, pd).assign(part=number) for number, part in enumerate(layout.parts)]
        table = pd.concat(parts, ignore_index=True)
    else:
        table = _places(layout, pd)
    table.insert(0, "feature", range(layout.size))
    table.insert(1, "special", pd.array([layout.special.get(i) for i in range(layout.size)], dtype="string"))
    return table


def _places(layout: Layout, pd: Any) -> Any:
    """Where every feature of a single input lies; missing values at special positions."""
    columns: dict[str, Any] = {}
    if layout.cells.ndim == 2:
        features = layout.cells.flatten().numpy()
        across = layout.cells.shape[1]
        columns["row"], columns["column"] = (
            _of_cells(layout, features, place) for place in _grid(len(features), across)
        )
        if isinstance(layout, GridLayout):
            corners = zip(("x0", "y0", "x1", "y1"), layout.cell_boxes().double().T.numpy(), strict=True)
            columns |= {name: _of_cells(layout, features, values) for name, values in corners}
        table = pd.DataFrame(columns, index=range(layout.size))
        return table.astype({"row": "Int64", "column": "Int64"})
    if not isinstance(layout, TokenLayout):
        return pd.DataFrame(index=range(layout.size))
    words: list[Any] = [None] * layout.size
    for word in layout.words:
        for feature in word.features:
            words[feature] = word
    starts, ends = zip(*(offset or (None, None) for offset in layout.offsets), strict=True)
    columns = {
        "token": pd.array(layout.tokens, dtype="string"),
        "start": pd.array(starts, dtype="Int64"),
        "end": pd.array(ends, dtype="Int64"),
        "word": pd.array([word and word.text for word in words], dtype="string"),
        "word_start": pd.array([word and word.start for word in words], dtype="Int64"),
        "word_end": pd.array([word and word.end for word in words], dtype="Int64"),
    }
    return pd.DataFrame(columns)


def _grid(count: int, across: int) -> tuple[np.ndarray, np.ndarray]:
    """The row and the column of every cell, row by row."""
    rows, columns = np.divmod(np.arange(count), across)
    return rows, columns


def _of_cells(layout: Layout, features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of the cells as values of the features, NaN for those that are no cell."""
    result = np.full(layout.size, np.nan)
    result[features] = values
    return result
