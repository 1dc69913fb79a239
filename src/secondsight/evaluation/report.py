"""What a run leaves behind: records as parquet, tables as CSV and JSON, figures, and one HTML page with everything."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from secondsight.evaluation.grounding import Failures
from secondsight.evaluation.run import Record, Run, image_layout
from secondsight.inputs.images import open_image
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder
from secondsight.visual import charts
from secondsight.visual.colours import faded, limit_of, overlay
from secondsight.visual.saving import written

_THUMBNAIL = 260


class Results(dict[str, pd.DataFrame]):
    """An experiment's tables by name; `records` are what they were made of, `out` is the folder of the report.

    `figures` are matplotlib figures by name, as the report shows them; `secondsight.visual.save` writes one for a
    paper.
    """

    def __init__(self, run: Run, tables: dict[str, pd.DataFrame], figures: dict[str, Figure], out: Path) -> None:
        super().__init__(tables)
        self.records, self.figures, self.out, self._run = run.frame, figures, out, run

    def gallery(self, most: int = 12) -> Figure:
        """The cases that the report shows, with their maps, the object's box, PGE and what was proposed."""
        found = []
        for record in self._run.experiment.gallery(self._run.frame)[:most]:
            content = thumbnail(self._run, record)
            if content is not None:
                parts = [str(record.get("words", "")), f"PGE {record['energy']:.2f}" if "energy" in record else ""]
                text = ", ".join(part for part in (*parts, str(record.get("category") or "")) if part)
                found.append((Image.open(io.BytesIO(content)), text))
        return charts.gallery(found)


def write(run: Run, out: Path) -> Results:
    """Write everything about a run under `out`/NAME and return its tables and figures."""
    place = out / run.experiment.name
    ensure_folder(place)
    tables = run.experiment.tables(run.frame)
    figures = run.experiment.figures(run.frame)
    buffer = io.BytesIO()
    stored = run.frame.copy()
    for column in stored.columns:
        # Parquet has one type a column; lists and mixtures are kept as JSON.
        if stored[column].map(lambda v: isinstance(v, (list, tuple, dict))).any():
            stored[column] = stored[column].map(lambda v: json.dumps(v) if isinstance(v, (list, tuple, dict)) else v)
    stored.to_parquet(buffer, index=False)
    _write(place / "records.parquet", buffer.getvalue())
    for name, table in tables.items():
        _write(place / f"{_file(name)}.csv", table.to_csv(index=_named(table)).encode())
    drawn = {name: _inline(figure) for name, figure in figures.items()}
    for name, figure in figures.items():
        _write(place / f"{_file(name)}.svg", drawn[name])
        _write(place / f"{_file(name)}.png", written(figure, "png", 160))
    summary = {
        "experiment": run.experiment.name,
        "data": run.data.summary(),
        "settings": {one.label: one.spec for one in run.settings},
        "options": run.experiment.options(),
        "captions": run.frame["key"].nunique(),
        "problems": run.problems,
        "tables": {name: _plain(table) for name, table in tables.items()},
    }
    _write(place / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode())
    _write(place / "report.html", _page(run, tables, drawn, summary).encode())
    return Results(run, tables, figures, place)


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as file:
        file.write(content)


def _file(name: str) -> str:
    return name.replace(" ", "-")


def _named(table: pd.DataFrame) -> bool:
    """Whether rows have names worth writing."""
    return not isinstance(table.index, pd.RangeIndex)


def with_names(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its rows' names, if it has any, as a first column."""
    return table.reset_index(names="setting") if _named(table) else table


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    shown = with_names(table)
    rows: list[dict[str, Any]] = json.loads(shown.to_json(orient="records", double_precision=12))
    return rows


def _inline(figure: Figure) -> bytes:
    return written(figure, "svg")


def shown_value(value: Any) -> str:
    """A cell as people read it."""
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return "–"
        number = float(value)
        return f"{number:.3f}" if abs(number) >= 1e-3 or number == 0 else f"{number:.1e}"
    return "–" if value is None else str(value)


def _table(table: pd.DataFrame, most: int = 120, longest: int = 20) -> str:
    """A table with at most `most` rows; folded away where it has more than `longest`."""
    shown = with_names(table)
    head = "".join(f"<th>{escape(str(column))}</th>" for column in shown.columns)
    rows = []
    for row in shown.head(most).itertuples(index=False):
        cells = []
        for value in row:
            number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
            cells.append(f"<td{' class=n' if number else ''}>{escape(shown_value(value))}</td>")
        rows.append("<tr>" + "".join(cells) + "</tr>")
    more = f"<p class=small>{len(shown) - most} more rows in the CSV file</p>" if len(shown) > most else ""
    made = f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{more}"
    return f"<details><summary>{len(shown)} rows</summary>{made}</details>" if len(shown) > longest else made


def thumbnail(run: Run, record: Record) -> bytes | None:
    """The record's map over its image with the object's box, as PNG; None where the input is not at hand."""
    example = run.examples.get(record["key"])
    setting = next((one for one in run.settings if one.label == record["setting"]), None)
    if example is None or setting is None:
        return None
    e = setting.explain(example)[0]
    layout = image_layout(e.left_layout)
    try:
        heat = layout.heatmap(e.toward_left(tuple(record["span"]))).double().numpy()
    except InputError:
        return None
    picture = open_image(example.image)
    pixels = faded(np.asarray(picture, dtype=np.float64)).astype(np.float64)
    colour = overlay(heat, limit_of(heat))
    mixed = pixels * (1 - colour[..., 3:]) + 255 * colour[..., :3] * colour[..., 3:]
    image = Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))
    scale = _THUMBNAIL / image.width
    image = image.resize((_THUMBNAIL, max(round(image.height * scale), 1)), Image.Resampling.LANCZOS)
    corners = [v * scale for v in record["box"]]
    draw = ImageDraw.Draw(image)
    draw.rectangle(corners, outline=(255, 255, 255), width=4)
    draw.rectangle(corners, outline=(0, 0, 0), width=2)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _gallery(run: Run) -> str:
    records = run.experiment.gallery(run.frame)
    if not records:
        return ""
    confirm = isinstance(run.experiment, Failures)
    cards = []
    for number, record in enumerate(records):
        image = thumbnail(run, record)
        if image is None:
            continue
        example = run.examples[record["key"]]
        start, end = record["span"]
        text = example.caption
        caption = f"{escape(text[:start])}<mark>{escape(text[start:end])}</mark>{escape(text[end:])}"
        facts = f"PGE {record['energy']:.2f}, {'hit' if record['hit'] else 'miss'}, {escape(record['setting'])}"
        choice = ""
        if confirm:
            options = "".join(
                f"<option{' selected' if kind == record['category'] else ''}>{kind}</option>"
                for kind in (*Failures.kinds, "no failure", "wrong annotation")
            )
            key = escape(json.dumps([record["setting"], record["key"], record["words"]]), quote=True)
            choice = (
                f'<label>category <select data-case="{key}" data-proposed="{escape(record["category"])}">{options}'
                "</select></label>"
            )
        source = base64.b64encode(image).decode()
        alt = escape(f"attribution of {record['words']!r}", quote=True)
        cards.append(
            f'<figure id="case-{number}"><img alt="{alt}" src="data:image/png;base64,{source}">'
            f"<figcaption>{caption}<br><span class=small>{facts}</span>{choice}</figcaption></figure>"
        )
    title = "Failures: confirm or correct" if confirm else "Examples"
    button = "<p><button id=save type=button>Save the categories as JSON</button></p>" if confirm else ""
    note = "<p class=small>White and black: the object's box. Red raises the similarity, blue lowers it.</p>"
    return f"<h2>{title}</h2>{note}{button}<div class=cards>{''.join(cards)}</div>"


_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:1100px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.15em;margin-top:2em}
.small{color:#555;font-size:.85em}.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.87em}th,td{padding:.25em .7em;border-bottom:1px solid #ddd;text-align:left;
vertical-align:top;white-space:nowrap}th{border-bottom:2px solid #999}td.n{text-align:right;font-variant-numeric:tabular-nums}
.figures{display:flex;flex-wrap:wrap;gap:1em}.figures>div{flex:1 1 420px;max-width:620px}
.figures svg{width:100%;height:auto}
.cards{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0;width:260px}figure img{display:block;width:100%}
figcaption{font-size:.87em;margin-top:.3em}mark{background:#ffe08a}label{display:block;margin-top:.3em}
details{margin:.6em 0}
"""

_SCRIPT = """
document.getElementById('save')?.addEventListener('click', () => {
  const cases = [...document.querySelectorAll('select[data-case]')].map(s => {
    const [setting, key, words] = JSON.parse(s.dataset.case);
    return {setting, key, words, proposed: s.dataset.proposed, category: s.value};
  });
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(cases, null, 1)], {type: 'application/json'}));
  link.download = 'categories.json';
  link.click();
});
"""


def _page(run: Run, tables: dict[str, pd.DataFrame], drawn: dict[str, bytes], summary: dict[str, Any]) -> str:
    name = run.experiment.name
    first = (type(run.experiment).__doc__ or "").strip().split("\n\n")
    settings = "".join(
        f"<li><b>{escape(one.label)}</b> <code class=small>{escape(json.dumps(one.spec))}</code></li>"
        for one in run.settings
    )
    options = ", ".join(f"{key} = {value}" for key, value in run.experiment.options().items())
    figures = "".join(f"<div>{svg[svg.index(b'<svg') :].decode()}</div>" for svg in drawn.values())
    problems = "".join(f"<li>{escape(key)}: {escape(why)}</li>" for key, why in list(run.problems.items())[:200])
    left = f"<details><summary>{len(run.problems)} entries could not be used</summary><ul>{problems}</ul></details>"
    body = f"""<p class=small>{escape(summary["data"])}. {summary["captions"]} captions looked at. {escape(options)}.</p>
<ul>{settings}</ul>
{left if run.problems else ""}
{_tables(tables)}
<h2>Figures</h2><div class=figures>{figures or "<p>none</p>"}</div>
{_gallery(run)}
<script>{_SCRIPT}</script>"""
    return _framed(name, " ".join(" ".join(first).split()), body)


def _tables(tables: Mapping[str, pd.DataFrame]) -> str:
    return "".join(f"<h2>{_titled(title)}</h2>{_table(table)}" for title, table in tables.items())


def _titled(title: str) -> str:
    return escape(title[:1].upper() + title[1:])


def _framed(title: str, about: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)} · secondsight</title><style>{_STYLE}</style></head><body>
<h1>{_titled(title)}</h1>
<p>{escape(about)}</p>
{body}</body></html>
"""


def overview(
    title: str,
    about: str,
    tables: Mapping[str, pd.DataFrame],
    place: Path,
    figures: Mapping[str, Figure] | None = None,
) -> str:
    """One HTML page over several runs under `place`: tables, figures, and links to every run's own report."""
    drawn = "".join(
        f"<div>{svg[svg.index(b'<svg') :].decode()}</div>" for svg in map(_inline, (figures or {}).values())
    )
    reports = sorted(p.relative_to(place).as_posix() for p in place.glob("*/**/report.html"))
    links = "".join(f'<li><a href="{escape(p)}">{escape(p.removesuffix("/report.html"))}</a></li>' for p in reports)
    shown = f"<h2>Figures</h2><div class=figures>{drawn}</div>" if drawn else ""
    # What the page is about comes first and is never folded.
    first, *others = tables
    head = f"<h2>{_titled(first)}</h2>{_table(tables[first], longest=1000)}"
    rest = _tables({title: tables[title] for title in others})
    return _framed(title, about, f"{head}{rest}{shown}<h2>Reports</h2><ul>{links}</ul>")
