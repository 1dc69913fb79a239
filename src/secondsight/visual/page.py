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
    """What the view shows, as plain data: every case with both sides, its matrix over cells and words, its terms.

    Several explanations, as of several captions, are cases that the reader switches between; two of one left input get
    their difference as well, and so does a margin get the two that it is made of. Groups are grid cells, or words (sums
    over their tokens); special features are left out and their share is noted. `selection` and `box` are what the right
    and the left side begin with. Matrices are base64 of little-endian float32, row by row.
    """
    shown, pictures = _cases(e), _Pictures()
    made = [_case(one, name, pictures, selection if i == 0 else None, box) for i, (name, one) in enumerate(shown)]
    scales = [{"name": name, "positive": plus, "negative": minus} for name, (plus, minus) in SCALES.items()]
    return {"cases": made, "pictures": pictures.sources, "scales": scales}


def _cases(e: Explanation | Sequence[Explanation]) -> list[tuple[str, Explanation]]:
    """What can be shown, each with the name that the reader chooses it by."""
    given = [e] if not isinstance(e, Sequence) else list(e)
    if not given:
        raise InputError("a page needs at least one explanation")
    if len(given) == 1 and given[0].parts:
        return [("difference", given[0]), *((_name(part), part) for part in given[0].parts)]
    cases = [(_name(one), one) for one in given]
    if len(given) == 2 and all(len(one.right_layout.parts) == 1 for one in given):
        first, second = given
        if comparable(first, second):
            # Computed once, before the difference takes hold of them; each is shown anyway.
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

    def add(self, shown: Image.Image) -> int:
        """Its place in `sources`."""
        if id(shown) not in self._known:
            # Kept, so that no other picture gets its id; equal ones of other explanations are the same file.
            self._kept.append(shown)
            source = _picture(shown)
            if source not in self.sources:
                self.sources.append(source)
            self._known[id(shown)] = self.sources.index(source)
        return self._known[id(shown)]


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
    """What a side begins with: a box, words, one of these for each input that it joins, or nothing."""
    if selection is None and weights is None:
        return None
    weights = layout.select(selection) if weights is None else weights
    if len(layout.parts) > 1:
        split = zip(layout.parts, side["parts"], layout.split(weights), strict=True)
        return [start_of(part, own, None, weight) if bool(weight.any()) else None for part, own, weight in split]
    if side["kind"] == "text":
        return [i for i, features in enumerate(_members(layout)) if features and bool(weights[features].any())]
    if isinstance(layout, GridLayout) and isinstance(selection, tuple):
        return [float(v) for v in selection]
    heights = weights.detach().cpu()
    seen = layout.view(heights).flip(0) if isinstance(layout, SpectrogramLayout) else layout.view(heights)
    rows, columns = seen.any(1).nonzero().flatten().tolist(), seen.any(0).nonzero().flatten().tolist()
    if not rows:
        # Special features have no place to be framed.
        return None
    (x0, y0, x1, y1), (down, across) = side["frame"], seen.shape
    wide, tall = (x1 - x0) / across, (y1 - y0) / down
    return [x0 + columns[0] * wide, y0 + rows[0] * tall, x0 + (columns[-1] + 1) * wide, y0 + (rows[-1] + 1) * tall]


def _grouped(values: Tensor, owner: Tensor, groups: int) -> Tensor:
    """Rows summed by their group; those that belong to none are left out."""
    out = values.new_zeros(groups + 1, *values.shape[1:])
    return out.index_add(0, owner, values)[:groups]


def _side(layout: Layout, shown: Any, pictures: _Pictures) -> tuple[dict[str, Any], Tensor]:
    """A side as plain data, and the group of every feature; the number of groups where it belongs to none."""
    if len(layout.parts) > 1:
        return _joined_side(layout, shown, pictures)
    if isinstance(layout, GridLayout):
        # All coarser cells hold equally many finer ones, as sums over more cells would look like stronger ones.
        coarse = layout.coarsen(_FINEST)
        side = _grid_side(coarse.grid, layout.image_size, layout.frame, pictures.add(shown), "the explained picture")
        return {**side, "groups": coarse.size}, owners_in(layout, coarse)
    if isinstance(layout, SpectrogramLayout):
        spectrum = layout.coarsen(_FINEST)
        # Pictures begin at the top, spectrograms at the lowest band.
        groups = torch.full((spectrum.size + 1,), spectrum.size)
        groups[spectrum.cells.flip(0).flatten()] = torch.arange(spectrum.size)
        side = _sound_side(layout, spectrum.grid, shown, pictures)
        return {**side, "groups": spectrum.size}, groups[owners_in(layout, spectrum)]
    members, side = _text_side(layout)
    owner = torch.full((layout.size,), len(members))
    for group, features in enumerate(members):
        owner[features] = group
    return {**side, "groups": len(members)}, owner


def _joined_side(layout: Layout, inputs: Any, pictures: _Pictures) -> tuple[dict[str, Any], Tensor]:
    """The sides of all parts, their groups one after another, and the group of every feature."""
    parts = [_side(part, shown, pictures) for part, shown in zip(layout.parts, layout.each(inputs), strict=True)]
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
    named = [(w.text, w.start, w.end) for w in layout.words] or [(str(i), 0, 0) for i in layout.visible]
    seen = max((offset[1] for offset in layout.offsets if offset is not None), default=0)
    return members, {
        "kind": "text",
        "text": text,
        # Offsets count characters, as JavaScript's do outside the rarer planes; see _utf16.
        "words": [
            {
                "text": word,
                "start": _utf16(text, start),
                "end": _utf16(text, end),
                "cut": not features,
                # A word may have no token of its own because its letters are part of a neighbour's.
                "shared": not features and start < seen,
            }
            for (word, start, end), features in zip(named, members, strict=True)
        ],
    }


def _utf16(text: str | None, offset: int) -> int:
    """An offset in code points as one in the UTF-16 units that JavaScript counts."""
    return offset if text is None else len(text[:offset].encode("utf-16-le")) // 2


def _picture(shown: Image.Image) -> str:
    picture = shown.copy()
    picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _note(e: Explanation) -> str:
    left, right = e.special_share()
    about = e.about
    kinds = e.left_layout.modality, e.right_layout.modality
    named = kinds if kinds[0] != kinds[1] else (f"left {kinds[0]}", f"right {kinds[1]}")
    sides = [
        f"{name} layer {outcome.layer}, {outcome.nodes} nodes"
        for outcome, name in zip(e.outcomes, named, strict=True)
        if outcome is not None and outcome.nodes is not None
    ]
    hidden = [
        f"{share:.0%} of all interaction (by size) lies in {name} positions that are no {_PARTS.get(kind, 'word')}"
        for share, kind, name in zip((left, right), kinds, named, strict=True)
        if share > 0.005
    ]
    what = f"{about.get('model', 'model')}, {about.get('method', 'method')}"
    signs = f"Red or orange raises the {e.quantity}, blue or purple lowers it."
    return ". ".join([", ".join([what, *sides]), *hidden, signs])


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


def _inputs(shown: Any) -> tuple[Any, ...]:
    return shown if isinstance(shown, tuple) else (shown,)


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
