"""The report of an answer: claims in plain sentences, each with the cases that show it, and tables for programs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from secondsight.data.grounded import Box
from secondsight.evaluation.report import TEMPLATES, file_name, inline_svg, parquet, small_picture, write_bytes
from secondsight.evaluation.tables import has_row_names, markdown, plain_rows, plain_values
from secondsight.support.files import ensure_folder
from secondsight.visual.colours import limit_of, on_white
from secondsight.visual.saving import encode_figure

MOST_CASES = 6
"""Cases that a report shows of each claim."""

CASE_WIDTH = 200
"""The width of a case's picture in pixels."""

LEAST_WIDTH = 260
"""The width of a case with its text in pixels."""

_TEMPLATES = TEMPLATES.overlay(
    loader=ChoiceLoader([PackageLoader("secondsight.evaluation"), PackageLoader("secondsight.answers")])
)


@dataclass(frozen=True, eq=False)
class Case:
    """An example of a claim: a photograph under a map, the caption with its words' scores, and a line of facts.

    `heat` (height, width) has the photograph's size; None shows the photograph itself. `words` are (text, score) pieces that
    give the caption when they are joined; a score of None stays uncoloured. Both may be left out. `others` are boxes of other
    objects, drawn in orange; `width` is the picture's in pixels.
    """

    photo: Image.Image | None = None
    heat: np.ndarray | None = None
    boxes: Sequence[Box] = ()
    words: Sequence[tuple[str, float | None]] = ()
    facts: str = ""
    others: Sequence[Box] = ()
    width: int = CASE_WIDTH


@dataclass(frozen=True, eq=False)
class Claim:
    """A sentence about the model, the `cases` that show it, strongest first, and the numbers behind it for programs.

    Numbers may be NumPy's; NaN is null in the summary.
    """

    sentence: str
    cases: Sequence[Case] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a report: what it is about, its claims, its tables and figures by name.

    `nothing` is what the page says where there is no claim.
    """

    title: str
    about: str
    claims: Sequence[Claim] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    nothing: str = "Nothing was found."


class Answer(dict[str, pd.DataFrame]):
    """The tables of an answer by name; `claims` are its sentences and `out` is the folder with report.html."""

    def __init__(self, sections: Sequence[Section], out: Path) -> None:
        super().__init__({name: table for section in sections for name, table in section.tables.items()})
        self.sections, self.out = list(sections), out

    @property
    def claims(self) -> list[Claim]:
        """All claims, section by section."""
        return [claim for section in self.sections for claim in section.claims]

    def markdown(self) -> str:
        """The claims and tables in GitHub's Markdown."""
        parts = []
        for section in self.sections:
            parts.append(f"## {section.title}\n\n{section.about}\n")
            parts.append("".join(f"- {claim.sentence}\n" for claim in section.claims) or f"{section.nothing}\n")
            parts += [f"### {name}\n\n{markdown(table)}" for name, table in section.tables.items()]
        return "\n".join(parts)


def write_answer(
    out: Path,
    title: str,
    about: str,
    sections: Sequence[Section],
    facts: Mapping[str, Any],
    problems: Mapping[str, str] = {},
    *,
    in_short: int = 0,
) -> Answer:
    """Write report.html, summary.json, and every table as CSV and Parquet into the folder `out`.

    `facts` say what was looked at (data, model, method, options), as plain values; `problems` are inputs that could not be
    used, with the reason. The page begins with the first `in_short` of the `strongest_claims`.
    """
    folder = ensure_folder(out)
    answer = Answer(sections, folder)
    for name, table in answer.items():
        write_bytes(folder / f"{file_name(name)}.csv", table.to_csv(index=has_row_names(table)).encode())
        write_bytes(folder / f"{file_name(name)}.parquet", parquet(table))
    figures = {name: figure for section in sections for name, figure in section.figures.items()}
    drawings = {name: encode_figure(figure, "svg") for name, figure in figures.items()}
    for name, figure in figures.items():
        write_bytes(folder / f"{file_name(name)}.svg", drawings[name])
        write_bytes(folder / f"{file_name(name)}.png", encode_figure(figure, "png", 160))
    claims = [
        {"section": section.title, "sentence": claim.sentence, **plain_values(claim.numbers)}
        for section in sections
        for claim in section.claims
    ]
    tables = {name: plain_rows(table) for name, table in answer.items()}
    summary = {"facts": dict(facts), "claims": claims, "problems": dict(problems), "tables": tables}
    write_bytes(folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False).encode())
    page = _TEMPLATES.get_template("answer.html.j2").render(
        title=title,
        about=about,
        facts=facts,
        problems=problems,
        sections=[_shown(section, drawings) for section in sections],
        in_short=strongest_claims(sections)[:in_short],
    )
    write_bytes(folder / "report.html", page.encode())
    return answer


def strongest_claims(sections: Sequence[Section]) -> list[tuple[int, int, str]]:
    """(section, claim, sentence) of all claims: each section's first, then each one's second, and so on."""
    claims = [
        (rank, number, claim.sentence)
        for number, section in enumerate(sections)
        for rank, claim in enumerate(section.claims)
    ]
    return [(number, rank, sentence) for rank, number, sentence in sorted(claims)]


def _shown(section: Section, drawings: Mapping[str, bytes]) -> dict[str, Any]:
    """A section for the template."""
    claims = [
        {"sentence": claim.sentence, "cases": [_card(case) for case in claim.cases[:MOST_CASES]]}
        for claim in section.claims
    ]
    return {
        "title": section.title,
        "about": section.about,
        "claims": claims,
        "tables": section.tables,
        "figures": [inline_svg(drawings[name]) for name in section.figures],
        "nothing": section.nothing,
    }


def _card(case: Case) -> dict[str, Any]:
    source = ""
    if case.photo is not None:
        buffer = io.BytesIO()
        small_picture(case.photo, case.heat, case.boxes, case.width, case.others).save(buffer, "JPEG", quality=88)
        source = base64.b64encode(buffer.getvalue()).decode()
    limit = limit_of([score for _, score in case.words if score is not None])
    words = [_word(text, score, limit) for text, score in case.words]
    return {"source": source, "words": words, "facts": case.facts, "width": max(case.width, LEAST_WIDTH)}


def _word(text: str, score: float | None, limit: float) -> Any:
    if score is None:
        return text
    colour, _ = on_white(score, limit)
    red, green, blue = (round(255 * part) for part in colour)
    return Markup('<span style="background:rgb({},{},{})" title="{}">{}</span>').format(
        red, green, blue, f"{score:+.4f}", text
    )
