"""One self-contained HTML file: `page_data` in a template with the view's style and script. It fetches nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from secondsight.algebra.layout import Box
from secondsight.support.files import atomic
from secondsight.visual.page_data import page_data
from secondsight.visual.template import template

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_SCRIPT_MODULES = (
    "state",
    "colours",
    "headline",
    "answer",
    "boxes",
    "dom",
    "legend",
    "image",
    "passages",
    "text",
    "joined",
    "tables",
    "drawing",
    "toolbar",
    "without",
    "view",
)
"""The modules of the view's script, each after those whose constants it uses while it is loaded."""

_TITLE = 100
"""Characters of a text in the page's title."""

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n', re.M)
_CSS_COMMENT = re.compile(r"/\*[\s\S]*?\*/")
_CSS_SPACE = re.compile(r"(?<=[a-z])(:) |\s*;?\s*(\})\s*|\s*([{;,])\s*")
_LITERAL = r"""
    "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*'
    | `(?:\\.|\$\{(?:`[^`]*`|\{[^}]*\}|[^`{}])*\}|[^`\\])*`
    | (?:(?<=[(=,:?])|(?<=[(=,:?]\ ))/(?![/*\s])(?:\\.|\[[^\]]*\]|[^/\n])+/
"""
_SCRIPT_PART = re.compile(
    rf"""(?P<kept>{_LITERAL})
    | \s*(?://[^\n]*|/\*[\s\S]*?\*/)\s*
    | (?:[;,]\s*(?=[\])}}]))?\s*(?P<mark>[{{}}()\[\],;:?=<>!&|*/%]|(?<![-+]\s)[-+](?!\s*[-+]))\s*
    | (?P<space>\s+)""",
    re.X,
)
"""Strings and patterns, which are kept; comments; marks with the spaces around them, which need none; other spaces."""


def _smaller(script: str) -> str:
    """A script, whose statements all end in semicolons, without comments and the spaces that it does not need."""
    return _SCRIPT_PART.sub(lambda part: part["kept"] or part["mark"] or (part["space"] and " ") or "", script)


def render_page(e: Explanation | Sequence[Explanation], selection: Any = None, box: Box | None = None) -> str:
    """The whole page as one string."""
    return render_page_data(page_data(e, selection, box))


def render_page_data(data: dict[str, Any]) -> str:
    """The page for data from `page_data`."""
    # An unescaped "<" could end the script element that holds the data.
    json_text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    texts = [text for case in data["cases"] for side in ("left", "right") for text in _texts(case[side])]
    return template("page.html").render(
        title=" / ".join(shorten(text, _TITLE, placeholder="…") for text in dict.fromkeys(texts)) or "explanation",
        style=Markup(web_file("view.css")),
        script=Markup(web_file("view.js")),
        data=Markup(json_text),
    )


def _texts(side: dict[str, Any]) -> list[str]:
    """The texts of a side."""
    if side["kind"] == "joined":
        return [text for part in side["parts"] for text in _texts(part)]
    return [side["text"]] if side.get("text") else []


def web_file(name: str) -> str:
    """A file of the view as it is embedded in pages; `view.js` joins all modules, without imports, comments and indentation."""
    if name == "view.js":
        return _smaller("".join(_IMPORT.sub("", _read(f"{module}.js")) for module in _SCRIPT_MODULES))
    return _CSS_SPACE.sub(r"\1\2\3", _CSS_COMMENT.sub("", _read(name))) if name.endswith(".css") else _read(name)


def _read(name: str) -> str:
    return (files("secondsight.visual") / "web" / name).read_text(encoding="utf-8")


def save_page(
    e: Explanation | Sequence[Explanation],
    path: str | os.PathLike[str],
    selection: Any = None,
    box: Box | None = None,
) -> None:
    """Write the page; the file appears only when it is complete."""
    content = render_page(e, selection, box).encode()
    with atomic(path) as file:
        file.write(content)


def embed_page(e: Explanation | Sequence[Explanation], selection: Any = None, box: Box | None = None) -> str:
    """The page in a frame, for notebooks: its styles and keyboard shortcuts stay inside."""
    return template("frame.html").render(page=render_page(e, selection, box))
