"""A run's report: records as parquet, tables as CSV and JSON, figures, and one HTML page with everything."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from secondsight.data.grounded import Box, GroundedCaption
from secondsight.evaluation.experiments.base import Record
from secondsight.evaluation.maps import image_layout
from secondsight.evaluation.run import Run
from secondsight.evaluation.tables import cell_text, has_row_names, is_number, plain_rows, with_row_names
from secondsight.inputs.images import open_image
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder
from secondsight.visual import charts
from secondsight.visual.colours import limit_of, map_over_photo
from secondsight.visual.saving import encode_figure

THUMBNAIL = 260
"""Width of the gallery's pictures in pixels."""

LISTED_PROBLEMS = 200
"""The number of problems that a report lists."""

NO_CATEGORY = ("no failure", "wrong annotation")
"""What a person may choose besides the experiment's categories."""


def strong(text: str) -> str:
    """A text between two asterisks on either side, as in Markdown, as a bold part of a page."""
    marked = len(text) > 4 and text.startswith("**") and text.endswith("**")
    return Markup("<strong>{}</strong>").format(text[2:-2]) if marked else text


TEMPLATES = Environment(
    loader=PackageLoader("secondsight.evaluation"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""Frames and parts of pages."""
TEMPLATES.filters |= {"cell_text": cell_text, "with_row_names": with_row_names, "strong": strong}
TEMPLATES.tests["numeric"] = is_number


class Results(dict[str, pd.DataFrame]):
    """An experiment's tables by name; `records` are all its records and `out` is the folder of the report.

    `figures` are the report's matplotlib figures by name; `secondsight.visual.save` writes one for a paper. `left_out` has the
    settings that gave nothing, and why.
    """

    def __init__(self, run: Run, tables: dict[str, pd.DataFrame], figures: dict[str, Figure], out: Path) -> None:
        super().__init__(tables)
        self.records, self.figures, self.out, self._run = run.frame, figures, out, run
        self.left_out = run.left_out

    @property
    def examples(self) -> Mapping[str, GroundedCaption]:
        """The captions looked at by the records' "key"."""
        return self._run.examples

    def picture(self, record: Record) -> Image.Image | None:
        """A record's map over its image, with the object's box; None if the input is not at hand."""
        return thumbnail(self._run, record)

    def gallery(self, most: int = 12) -> Figure:
        """The report's first cases: their maps, the object's box, PGE and the proposed category."""
        pictures = []
        for record in self._run.experiment.gallery(self._run.frame)[:most]:
            picture = thumbnail(self._run, record)
            if picture is not None:
                energy = f"PGE {record['energy']:.2f}" if "energy" in record else ""
                facts = record.get("facts", energy)
                parts = [str(record.get("words", "")), facts, str(record.get("category") or "")]
                pictures.append((picture, ", ".join(part for part in parts if part)))
        return charts.gallery(pictures)


def write_report(run: Run, out: Path) -> Results:
    """Write everything about a run under `out`/NAME and return its tables and figures."""
    folder = ensure_folder(out / run.experiment.name)
    tables = run.experiment.tables(run.frame)
    figures = run.experiment.figures(run.frame)
    write_bytes(folder / "records.parquet", parquet(run.frame))
    for name, table in tables.items():
        write_bytes(folder / f"{file_name(name)}.csv", table.to_csv(index=has_row_names(table)).encode())
    drawings = {name: encode_figure(figure, "svg") for name, figure in figures.items()}
    for name, figure in figures.items():
        write_bytes(folder / f"{file_name(name)}.svg", drawings[name])
        write_bytes(folder / f"{file_name(name)}.png", encode_figure(figure, "png", 160))
    summary = {
        "experiment": run.experiment.name,
        "data": run.data.summary(),
        "settings": {setting.label: setting.spec for setting in run.settings},
        "options": run.experiment.options(),
        "captions": run.frame["key"].nunique(),
        "left out": run.left_out,
        "problems": run.problems,
        "tables": {name: plain_rows(table) for name, table in tables.items()},
    }
    write_bytes(folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False).encode())
    write_bytes(folder / "report.html", _report_page(run, tables, drawings).encode())
    return Results(run, tables, figures, folder)


def overview(
    title: str,
    about: str,
    tables: Mapping[str, pd.DataFrame],
    folder: Path,
    figures: Mapping[str, Figure] | None = None,
) -> str:
    """An HTML page over several runs under `folder`: tables, figures, and links to each run's report.

    The first table is never folded.
    """
    links = [path.name for path in folder.glob("photographs.html")]
    links += sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/**/report.html"))
    drawings = [inline_svg(encode_figure(figure, "svg")) for figure in (figures or {}).values()]
    template = TEMPLATES.get_template("overview.html.j2")
    return template.render(title=title, about=about, tables=tables, figures=drawings, links=links)


def _report_page(run: Run, tables: Mapping[str, pd.DataFrame], drawings: Mapping[str, bytes]) -> str:
    about = (type(run.experiment).__doc__ or "").strip().split("\n\n")
    options = ", ".join(f"{name} = {value}" for name, value in run.experiment.options().items())
    captions = run.frame["key"].nunique()
    return TEMPLATES.get_template("report.html.j2").render(
        title=run.experiment.name,
        about=" ".join(" ".join(about).split()),
        facts=f"{run.data.summary()}. {captions} captions looked at. {options}.",
        outline="contour" if run.experiment.contours else "box",
        settings={setting.label: json.dumps(setting.spec) for setting in run.settings},
        left_out=run.left_out,
        problems=dict(list(run.problems.items())[:LISTED_PROBLEMS]),
        problem_count=len(run.problems),
        tables=tables,
        figures=[inline_svg(drawing) for drawing in drawings.values()],
        cards=list(filter(None, (_card(run, record) for record in run.experiment.gallery(run.frame)))),
        categories=[*run.experiment.categories, *NO_CATEGORY] if run.experiment.categories else [],
    )


def _card(run: Run, record: Record) -> dict[str, Any] | None:
    """A gallery's case for the template; None if its image is not at hand."""
    picture = thumbnail(run, record)
    if picture is None:
        return None
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    captions = [
        (caption[:start], caption[start:end], caption[end:])
        for caption, (start, end) in _shown_captions(run.examples[record["key"]], record)
    ]
    facts = record.get("facts") or f"PGE {record['energy']:.2f}, {'hit' if record['hit'] else 'miss'}"
    return {
        "source": base64.b64encode(buffer.getvalue()).decode(),
        "alt": f"attribution of {record['words']!r}",
        "captions": captions,
        "facts": f"{facts}, {record['setting']}",
        "case": json.dumps([record["setting"], record["key"], record["words"]]),
        "category": record.get("category"),
    }


def _shown_captions(example: GroundedCaption, record: Record) -> list[tuple[str, tuple[int, int]]]:
    """A record's caption with its span, and the other caption of the same image that stands "also" beside it."""
    captions = [(example.caption, record["span"])]
    return [*captions, (record["also"]["caption"], record["also"]["span"])] if "also" in record else captions


def thumbnail(run: Run, record: Record, width: int = THUMBNAIL) -> Image.Image | None:
    """The record's map over its image, with the object's boxes or contour; None if the input is not at hand.

    A caption that is "also" shown has its map beside the first, in colours of the same scale.
    """
    example = run.examples.get(record["key"])
    setting = next((setting for setting in run.settings if setting.label == record["setting"]), None)
    if example is None or setting is None:
        return None
    heats = []
    try:
        for caption, (start, end) in _shown_captions(example, record):
            e, selection = setting.explain_span(replace(example, caption=caption), (start, end))
            heats.append(image_layout(e.left_layout).heatmap(e.toward_left(selection)).double().numpy())
    except InputError:
        return None
    photo, limit = open_image(example.image), limit_of(heats)
    shown: dict[str, Any] = {"boxes": [record["box"]] if "box" in record else record["boxes"]}
    if run.experiment.contours:
        masks = [r.mask.array() for r in example.regions if r.label == record["label"] and r.mask is not None]
        shown = {"masks": masks}
    pictures = [
        small_picture(Image.fromarray(map_over_photo(photo, heat, limit)), width=width, **shown) for heat in heats
    ]
    row = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * picture.width, 0))
    return row


def small_picture(
    photo: Image.Image,
    heat: np.ndarray | None = None,
    boxes: Sequence[Box | list[float]] = (),
    width: int = THUMBNAIL,
    others: Sequence[Box | list[float]] = (),
    masks: Sequence[np.ndarray] = (),
) -> Image.Image:
    """A photograph `width` pixels wide, under the colours of a map of its size if there is one, with boxes on it.

    Those of `others` are orange. Of `masks`, which have the photograph's size, the contours are drawn.
    """
    image = photo if heat is None else Image.fromarray(map_over_photo(photo, heat))
    scale = width / image.width
    image = image.resize((width, max(round(image.height * scale), 1)), Image.Resampling.LANCZOS)
    for box in others:
        _draw_box(image, box, scale, (255, 150, 0))
    for box in boxes:
        _draw_box(image, box, scale)
    for mask in masks:
        _draw_contour(image, mask)
    return image


def _draw_box(
    image: Image.Image, box: Box | list[float], scale: float, colour: tuple[int, int, int] = (255, 255, 255)
) -> None:
    corners = [corner * scale for corner in box]
    draw = ImageDraw.Draw(image)
    # Thinner in small pictures, where a thick line would hide the object.
    line = 2 if image.width > 150 else 1
    draw.rectangle(corners, outline=colour, width=2 * line)
    draw.rectangle(corners, outline=(0, 0, 0), width=line)


def _draw_contour(image: Image.Image, mask: np.ndarray) -> None:
    """A black line in a white one along the mask's edge, of the same widths as a box's."""
    shape = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).resize(image.size).point(lambda v: 255 * (v > 127))
    for size, colour in ((5, (255, 255, 255)), (3, (0, 0, 0))):
        line = ImageChops.difference(
            shape.filter(ImageFilter.MaxFilter(size)), shape.filter(ImageFilter.MinFilter(size))
        )
        image.paste(colour, mask=line)


def parquet(frame: pd.DataFrame) -> bytes:
    """A table as a Parquet file; as a column of Parquet has one type, lists and objects are stored as JSON."""
    frame = frame.copy()
    for column in frame.columns:
        if frame[column].map(lambda value: isinstance(value, (list, tuple, dict))).any():
            frame[column] = frame[column].map(
                lambda value: json.dumps(value) if isinstance(value, (list, tuple, dict)) else value
            )
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def inline_svg(svg: bytes) -> Markup:
    """An SVG file as an element of a page."""
    return Markup(svg[svg.index(b"<svg") :].decode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, which appears when it is whole."""
    with atomic(path) as file:
        file.write(content)


def file_name(name: str) -> str:
    """The name of a table or figure as a part of a file's name."""
    return name.replace(" ", "-")
