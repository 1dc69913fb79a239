"""The files of a comparison of explanations: tables for programs, for a page in Markdown, and for a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from secondsight.evaluation.report import overview, write_bytes
from secondsight.evaluation.run import Run
from secondsight.evaluation.studies.columns import COLUMNS, Column, best_value
from secondsight.evaluation.studies.explanations_table import LEVEL
from secondsight.evaluation.tables import cell_text, markdown, plain_rows
from secondsight.visual.saving import encode_figure
from secondsight.visual.scatter import scatter

SHOWN_INTERVALS = ("PGA", "PGE")
"""Columns whose intervals stand in the readable table; the CSV file has those of all that are tested."""

DRAWN = ("PGE", "mIoU", "faithfulness")
"""Quality that is drawn against cost, as far as it was measured."""

TITLES = {"methods": "which explanation is right?", "rivals": "explanations against each other"}
"""Titles of the pages, by the study's name."""


def write_comparison(
    folder: Path, name: str, runs: Mapping[str, Run], tables: Mapping[str, pd.DataFrame], model: str
) -> None:
    """Write overall.csv, differences.csv, quality-and-cost.svg and .png, and NAME.json, .md and .html."""
    pointing = runs["pointing"]
    captions = {experiment: int(finished.frame["key"].nunique()) for experiment, finished in runs.items()}
    about = (
        f"{pointing.data.summary()}. Model {model}, rule {pointing.experiment.rule}, seed {pointing.experiment.seed}. "
        f"Captions: {', '.join(f'{experiment} {count}' for experiment, count in captions.items())}."
    )
    facts = {"about": about, "tables": {name: plain_rows(table) for name, table in tables.items()}}
    figure = quality_and_cost(tables["overall"])
    figures = {} if figure is None else {"quality and cost": figure}
    for drawing in figures.values():
        for kind in ("svg", "png"):
            write_bytes(folder / f"quality-and-cost.{kind}", encode_figure(drawing, kind, 160))
    shown = readable(tables)
    contents = {
        "overall.csv": tables["overall"].to_csv(index=False),
        "differences.csv": tables["differences"].to_csv(index=False),
        f"{name}.json": json.dumps(facts, indent=1, ensure_ascii=False),
        f"{name}.md": as_markdown(about, shown),
        f"{name}.html": overview(TITLES[name], about, shown, folder, figures),
    }
    for file, content in contents.items():
        write_bytes(folder / file, content.encode())


def quality_and_cost(table: pd.DataFrame) -> Figure | None:
    """Quality against the cost in forward passes; None where no cost was measured."""
    panels = {}
    for column in COLUMNS:
        known = table[table[column.name].notna() & table["passes"].notna()]
        if column.name in DRAWN and len(known):
            points = zip(known["setting"], known["passes"], known[column.name], strict=True)
            panels[column.name] = {label: (cost, value) for label, cost, value in points}
    return scatter(panels, "forward passes of the pair") if panels else None


def readable(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables as people read them: numbers as text, the best of a column bold, one row for each setting."""
    shown = {"overall": _overall(tables["overall"])}
    compared = tables["differences"]
    for base, rows in compared.groupby("base", sort=False) if len(compared) else ():
        against = rows["against"].unique()
        name = f"differences from {against[0] if len(against) == 1 else f'the {base} in each column'}"
        shown[name] = _crossed(rows)
    shown |= {name: tables[name] for name in ("where others win", "in words", "notes") if name in tables}
    shown["what the columns mean"] = pd.DataFrame(
        {
            "column": [column.name for column in COLUMNS],
            "meaning": [column.meaning for column in COLUMNS],
            "better": [column.better for column in COLUMNS],
        }
    )
    return {name: table for name, table in shown.items() if len(table)}


def _overall(table: pd.DataFrame) -> pd.DataFrame:
    """The overall table without columns that nothing has."""
    compact = table[["setting", "method", "layer", "reference", "order", "adds up", "cases"]].copy()
    for column in COLUMNS:
        values = table[column.name]
        if not values.notna().any():
            continue
        best = best_value(column, values)
        cells = [_cell(column, row) for _, row in table.iterrows()]
        compact[column.name] = [
            f"**{cell}**" if value == best else cell for cell, value in zip(cells, values, strict=True)
        ]
    return compact


def _cell(column: Column, row: Any) -> str:
    value = float(row[column.name])
    if column.name in SHOWN_INTERVALS and not np.isnan(value):
        return with_interval(value, row[f"{column.name} low"], row[f"{column.name} high"])
    if column.experiment == "cost" and not np.isnan(value):
        return f"{value:.1f}" if value < 100 else f"{value:.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else cell_text(value)


def _crossed(rows: pd.DataFrame) -> pd.DataFrame:
    """Differences with one row for each setting and one column for each measure, sure ones bold."""
    measures = list(dict.fromkeys(rows["measure"]))
    table = pd.DataFrame({"setting": list(dict.fromkeys(rows["setting"]))})
    for measure in measures:
        cells = {}
        for _, row in rows[rows["measure"] == measure].iterrows():
            numbers = f"{row['difference']:+.3f}, p {row['p']:.2g}, ε {row['ε better']:.2f} / {row['ε worse']:.2f}"
            cells[row["setting"]] = f"**{numbers}**" if row["p"] < LEVEL else numbers
        table[measure] = [cells.get(label, "–") for label in table["setting"]]
    return table


def as_markdown(about: str, shown: Mapping[str, pd.DataFrame]) -> str:
    """All tables for a page, with what their cells mean."""
    parts = [about]
    for name, table in shown.items():
        if name == "notes":
            parts += ["## Notes", "\n".join(f"- {note}" for note in table["note"])]
            continue
        parts += [
            f"## {name[:1].upper()}{name[1:]}",
            *([CELLS] if name.startswith("differences") else []),
            markdown(table),
        ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


CELLS = (
    "Mean difference on the same cases; p: signs of whole images flipped, Holm's correction; bold below 0.05. ε: the setting "
    "is almost stochastically better / worse where the first / second number is under 0.5."
)
"""What a cell of a table of differences holds."""


def with_interval(value: float, low: float, high: float) -> str:
    """A number and its interval."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
