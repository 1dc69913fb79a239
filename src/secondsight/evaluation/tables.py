"""Tables as people read them: cells as text, rows as plain values, Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def has_row_names(table: pd.DataFrame) -> bool:
    """Whether the index names the rows and does not merely count them."""
    return not isinstance(table.index, pd.RangeIndex)


def with_row_names(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the names of its rows, if they have any, as a first column."""
    return table.reset_index(names="setting") if has_row_names(table) else table


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as plain values that JSON can hold."""
    rows: list[dict[str, Any]] = json.loads(with_row_names(table).to_json(orient="records", double_precision=12))
    return rows


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name as JSON can hold them: Python's for NumPy's, None for NaN."""
    plain = {str(name): value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: None if value != value else value for name, value in plain.items()}


def cell_text(value: Any) -> str:
    """A cell as text: three decimals, or two digits of a small number."""
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return "–"
        number = float(value)
        return f"{number:.3f}" if abs(number) >= 1e-3 or number == 0 else f"{number:.1e}"
    return "–" if value is None else str(value)


def is_number(value: Any) -> bool:
    """Whether a cell is aligned as a number."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def markdown(table: pd.DataFrame) -> str:
    """A table in GitHub's Markdown."""
    readable = with_row_names(table)
    rows = [[str(column) for column in readable.columns], ["---"] * len(readable.columns)]
    rows += [[cell_text(value) for value in row] for row in readable.itertuples(index=False)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
