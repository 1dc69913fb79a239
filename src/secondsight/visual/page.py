"""One self-contained HTML file: data from `page_data`, the view from the files beside this one. Nothing is fetched."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from secondsight.algebra.layout import Box, GridLayout, Layout, SpectrogramLayout, owners_in
from secondsight.explanation import comparable, contrast
from secondsight.support.errors import InputError
from secondsight.support.files import atomic
from secondsight.visual.colours import SCALES
from secondsight.visual.sentences import convergence_warning

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_PARTS = {"image": "patch", "audio": "part of the sound"}

_FINEST = 64
"""Cells a side that the page shows; finer maps, as of single pixels, are summed to these."""

_NAME = 48
"""Characters of a case's name; the whole text stands beside it anyway."""

_LONGEST = 1280
"""Pixels of the longer side of the embedded picture; boxes stay in original pixels."""


def page_data(e: Explanation | Sequence[Explanation], selection: Any = None, box: Box | None = None) -> dict[str, Any]:
    """The view's content as plain data: every case with both sides, its matrix over cells and words, and its terms.

    Several explanations, as of several captions, are cases that the reader switches between. Two explanations of one left
    input come with their difference, and a margin with the two explanations it is made of.

    Groups are grid cells, or words (sums over their tokens); special features are left out and their share is noted.
    `selection` and `box` are picked on the right and the left side at first. Matrices are base64 of little-endian float32,
    row by row.
    """
    named_explanations, pictures = _cases(e), _Pictures()
    cases = [
        _case(explanation, name, pictures, selection if i == 0 else None, box)
        for i, (name, explanation) in enumerate(named_explanations)
    ]
    scales = [{"name": name, "positive": plus, "negative": minus} for name, (plus, minus) in SCALES.items()]
    return {"cases": cases, "pictures": pictures.sources, "scales": scales}


def _cases(e: Explanation | Sequence[Explanation]) -> list[tuple[str, Explanation]]:
    """The explanations to choose from, with their names."""
    explanations = [e] if not isinstance(e, Sequence) else list(e)
    if not explanations:
        raise InputError("a page needs at least one explanation")
    if len(explanations) == 1 and explanations[0].parts:
        return [("difference", explanations[0]), *((_name(part), part) for part in explanations[0].parts)]
    cases = [(_name(explanation), explanation) for explanation in explanations]
    if len(explanations) == 2 and all(len(explanation.right_layout.parts) == 1 for explanation in explanations):
        first, second = explanations
        if comparable(first, second):
            # Both matrices are shown anyway; computed first, they serve the difference too.
            _ = first.matrix, second.matrix
            cases.append(("difference", contrast(first, second)))
    return cases


def _name(e: Explanation) -> str:
    text = next((t for t in (*_inputs(e.right_input), *_inputs(e.left_input)) if isinstance(t, str)), "this pair")
    return text if len(text) <= _NAME else text[: _NAME - 1].rstrip() + "…"


class _Pictures:
    """Every picture once, however many cases show it."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self._known: dict[int, int] = {}
        self._kept: list[Any] = []

    def add(self, display: Image.Image) -> int:
        """The picture's index in `sources`."""
        if id(display) not in self._known:
            # A reference is held so that no later picture gets the same id; equal pictures share one source.
            self._kept.append(display)
            source = _picture(display)
            if source not in self.sources:
                self.sources.append(source)
            self._known[id(display)] = self.sources.index(source)
        return self._known[id(display)]


def _case(e: Explanation, name: str, pictures: _Pictures, selection: Any, box: Any) -> dict[str, Any]:
    left, left_owner = _side(e.left_layout, e.left_input, pictures)
    right, right_owner = _side(e.right_layout, e.right_input, pictures)
    rows = _grouped(e.matrix.double().cpu(), left_owner, left["groups"])
    matrix = _grouped(rows.T, right_owner, right["groups"]).T
    effects = (e.left_effects, left_owner, left), (e.right_effects, right_owner, right)
    return {
        "name": name,
        "left": left,
        "right": right,
        "matrix": _packed(matrix),
        "alone": [_packed(_grouped(v.double().cpu(), owner, side["groups"])) for v, owner, side in effects],
        "start": [start_of(e.left_layout, left, box), start_of(e.right_layout, right, selection)],
        "similarity": e.similarity,
        "terms": [[name, value] for name, value in e.terms.labels()],
        "hidden": e.terms.interaction - float(matrix.sum()),
        "error": e.error,
        "called": e.quantity,
        "note": _note(e),
        "warning": convergence_warning(e),
    }


def _packed(values: Tensor) -> str:
    return base64.b64encode(values.detach().numpy().astype("<f4").tobytes()).decode()


def start_of(layout: Layout, side: dict[str, Any], selection: Any, weights: Tensor | None = None) -> Any:
    """What is picked on a side at first: a box, words, a list of these for joined inputs, or None."""
    if selection is None and weights is None:
        return None
    weights = layout.select(selection) if weights is None else weights
    if len(layout.parts) > 1:
        split = zip(layout.parts, side["parts"], layout.split(weights), strict=True)
        return [
            start_of(part, part_side, None, weight) if bool(weight.any()) else None for part, part_side, weight in split
        ]
    if side["kind"] == "text":
        return [i for i, features in enumerate(_members(layout)) if features and bool(weights[features].any())]
    if isinstance(layout, GridLayout) and isinstance(selection, tuple):
        return [float(v) for v in selection]
    heights = weights.detach().cpu()
    view = layout.view(heights).flip(0) if isinstance(layout, SpectrogramLayout) else layout.view(heights)
    rows, columns = view.any(1).nonzero().flatten().tolist(), view.any(0).nonzero().flatten().tolist()
    if not rows:
        # Special features have no place to be framed.
        return None
    (x0, y0, x1, y1), (down, across) = side["frame"], view.shape
    wide, tall = (x1 - x0) / across, (y1 - y0) / down
    return [x0 + columns[0] * wide, y0 + rows[0] * tall, x0 + (columns[-1] + 1) * wide, y0 + (rows[-1] + 1) * tall]


def _grouped(values: Tensor, owner: Tensor, groups: int) -> Tensor:
    """Rows summed by group; rows without a group are left out."""
    out = values.new_zeros(groups + 1, *values.shape[1:])
    return out.index_add(0, owner, values)[:groups]


def _side(layout: Layout, display: Any, pictures: _Pictures) -> tuple[dict[str, Any], Tensor]:
    """A side as plain data, and the group of every feature; the number of groups where it belongs to none."""
    if len(layout.parts) > 1:
        return _joined_side(layout, display, pictures)
    if isinstance(layout, GridLayout):
        # All coarser cells hold equally many finer ones, as sums over more cells would look like stronger ones.
        coarse = layout.coarsen(_FINEST)
        side = _grid_side(coarse.grid, layout.image_size, layout.frame, pictures.add(display), "the explained picture")
        return {**side, "groups": coarse.size}, owners_in(layout, coarse)
    if isinstance(layout, SpectrogramLayout):
        spectrum = layout.coarsen(_FINEST)
        # Pictures begin at the top, spectrograms at the lowest band.
        groups = torch.full((spectrum.size + 1,), spectrum.size)
        groups[spectrum.cells.flip(0).flatten()] = torch.arange(spectrum.size)
        side = _sound_side(layout, spectrum.grid, display, pictures)
        return {**side, "groups": spectrum.size}, groups[owners_in(layout, spectrum)]
    members, side = _text_side(layout)
    owner = torch.full((layout.size,), len(members))
    for group, features in enumerate(members):
        owner[features] = group
    return {**side, "groups": len(members)}, owner


def _joined_side(layout: Layout, inputs: Any, pictures: _Pictures) -> tuple[dict[str, Any], Tensor]:
    """The sides of all parts, their groups one after another, and the group of every feature."""
    parts = [_side(part, display, pictures) for part, display in zip(layout.parts, layout.each(inputs), strict=True)]
    sides = [{**side, "sign": sign} for (side, _), sign in zip(parts, layout.signs, strict=True)]
    count, first = sum(side["groups"] for side in sides), 0
    owner = torch.full((layout.size,), count)
    for (side, groups), features in zip(parts, layout.split(torch.arange(layout.size)), strict=True):
        owner[features] = torch.where(groups < side["groups"], groups + first, count)
        first += side["groups"]
    return {"kind": "joined", "parts": sides, "groups": count}, owner


def _grid_side(
    grid: tuple[int, int], size: tuple[int, int], frame: tuple[float, ...], source: int, alt: str
) -> dict[str, Any]:
    return {
        "kind": "image",
        "grid": list(grid),
        "size": list(size),
        "frame": list(frame),
        "source": source,
        "alt": alt,
    }


def _sound_side(
    layout: SpectrogramLayout, grid: tuple[int, int], levels: np.ndarray, pictures: _Pictures
) -> dict[str, Any]:
    """Sound as the picture of its spectrogram, high bands above, with what its width lasts."""
    low, high = float(levels.min()), float(levels.max())
    grey = ((levels[::-1] - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    picture = Image.fromarray(grey).resize((960, 320), Image.Resampling.BILINEAR).convert("RGB")
    side = _grid_side(grid, picture.size, (0.0, 0.0, *picture.size), pictures.add(picture), "the sound's spectrogram")
    return {**side, "seconds": layout.seconds}


def _members(layout: Layout) -> list[list[int]]:
    """The features of every word, or every visible feature by itself where there are no words."""
    return [list(word.features) for word in layout.words] or [[i] for i in layout.visible]


def _text_side(layout: Layout) -> tuple[list[list[int]], dict[str, Any]]:
    members, text = _members(layout), layout.text
    words = [(w.text, w.start, w.end) for w in layout.words] or [(str(i), 0, 0) for i in layout.visible]
    end_of_tokens = max((offset[1] for offset in layout.offsets if offset is not None), default=0)
    return members, {
        "kind": "text",
        "text": text,
        # JavaScript counts UTF-16 units; see _utf16.
        "words": [
            {
                "text": word,
                "start": _utf16(text, start),
                "end": _utf16(text, end),
                "cut": not features,
                # A word may have no token of its own because its letters are part of a neighbour's.
                "shared": not features and start < end_of_tokens,
            }
            for (word, start, end), features in zip(words, members, strict=True)
        ],
    }


def _utf16(text: str | None, offset: int) -> int:
    """An offset in code points as one in the UTF-16 units that JavaScript counts."""
    return offset if text is None else len(text[:offset].encode("utf-16-le")) // 2


def _picture(display: Image.Image) -> str:
    picture = display.copy()
    picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _note(e: Explanation) -> str:
    left, right = e.special_share()
    about = e.about
    kinds = e.left_layout.modality, e.right_layout.modality
    names = kinds if kinds[0] != kinds[1] else (f"left {kinds[0]}", f"right {kinds[1]}")
    sides = [
        f"{name} layer {outcome.layer}, {outcome.nodes} nodes"
        for outcome, name in zip(e.outcomes, names, strict=True)
        if outcome is not None and outcome.nodes is not None
    ]
    hidden = [
        f"{share:.0%} of all interaction (by size) lies in {name} positions that are not a {_PARTS.get(kind, 'word')}"
        for share, kind, name in zip((left, right), kinds, names, strict=True)
        if share > 0.005
    ]
    origin = f"{about.get('model', 'model')}, {about.get('method', 'method')}"
    signs = f"Red or orange raises the {e.quantity}, blue or purple lowers it."
    return ". ".join([", ".join([origin, *sides]), *hidden, signs])


def render_page(e: Explanation | Sequence[Explanation], selection: Any = None, box: Box | None = None) -> str:
    """The whole page as one string."""
    return rendered(page_data(e, selection, box))


def rendered(data: dict[str, Any]) -> str:
    """The page for data of `page_data`."""
    # "<" is the only character that could end the data's script element early.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    texts = [text for case in data["cases"] for side in ("left", "right") for text in _texts(case[side])]
    return _template("page.html").render(
        title=" / ".join(dict.fromkeys(texts)) or "explanation",
        style=Markup(web_file("view.css")),
        script=Markup(web_file("view.js")),
        data=Markup(text),
    )


@cache
def _template(name: str) -> Template:
    loader = PackageLoader("secondsight.visual", "web")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    ).get_template(name)


def _texts(side: dict[str, Any]) -> list[str]:
    """The texts that a side shows."""
    if side["kind"] == "joined":
        return [text for part in side["parts"] for text in _texts(part)]
    return [side["text"]] if side.get("text") else []


_MODULES = ("state", "colours", "boxes", "dom", "image", "text", "joined", "tables", "drawing", "toolbar", "view")
"""The modules of the view's script, each after those whose constants it uses when it is loaded."""

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./\w+\.js";\n', re.M)
_COMMENT = re.compile(r"^ *//.*\n", re.M)


def web_file(name: str) -> str:
    """A file of the view as pages carry it; `view.js` is all modules in one, without imports and comment lines."""
    if name == "view.js":
        return "".join(_COMMENT.sub("", _IMPORT.sub("", _read(f"{module}.js"))) for module in _MODULES)
    return _read(name)


def _read(name: str) -> str:
    return (files("secondsight.visual") / "web" / name).read_text(encoding="utf-8")


def _inputs(display: Any) -> tuple[Any, ...]:
    return display if isinstance(display, tuple) else (display,)


def save_page(
    e: Explanation | Sequence[Explanation],
    path: str | os.PathLike[str],
    selection: Any = None,
    box: Box | None = None,
) -> None:
    """Write the page; it appears only when it is complete."""
    content = render_page(e, selection, box).encode()
    with atomic(path) as file:
        file.write(content)


def embed_page(e: Explanation | Sequence[Explanation], selection: Any = None, box: Box | None = None) -> str:
    """The page in a frame of its own, for notebooks: its styles and keys stay inside."""
    return _template("frame.html").render(page=render_page(e, selection, box))
