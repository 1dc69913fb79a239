"""One self-contained HTML file: data from `page_data`, the view from the files beside this one. Nothing is fetched."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from secondsight.files import atomic
from secondsight.layout import GridLayout, Layout, TokenLayout

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_LONGEST = 1280
"""Pixels of the longer side of the embedded picture; boxes stay in original pixels."""


def page_data(e: Explanation, selection: Any = None) -> dict[str, Any]:
    """What the page shows, as plain data: both sides, the matrix over cells and words, the terms, the error.

    Groups are grid cells, or words (sums over their tokens); special features are left out and their share is noted.
    """
    left, pick_left = _side(e.left_layout, e.left_input)
    right, pick_right = _side(e.right_layout, e.right_input)
    matrix = pick_left @ e.matrix.double().cpu() @ pick_right.T
    start: list[int] = []
    if selection is not None:
        weights = e.right_layout.select(selection).double()
        start = [int(i) for i in ((pick_right @ weights) > 0).nonzero().flatten()]
    return {
        "left": left,
        "right": right,
        "matrix": [[float(f"{v:.5g}") for v in row] for row in matrix.tolist()],
        "start": start,
        "similarity": e.similarity,
        "terms": [[name, value] for name, value in e.terms.labels()],
        "error": e.error,
        "note": _note(e),
    }


def _side(layout: Layout, shown: Any) -> tuple[dict[str, Any], Tensor]:
    """A side as plain data, and the 0/1 matrix (groups, features) that sums features to its groups."""
    side: dict[str, Any]
    if isinstance(layout, GridLayout):
        side = {
            "kind": "image",
            "grid": list(layout.grid),
            "size": list(layout.image_size),
            "frame": list(layout.frame),
            "source": _picture(shown),
            "alt": "the explained picture",
        }
        members: list[list[int]] = [[i] for i in layout.visible]
    else:
        if isinstance(layout, TokenLayout):
            words = [(w.text, w.start, w.end, list(w.features)) for w in layout.words]
            text = layout.text
        else:
            words, text = [(str(i), 0, 0, [i]) for i in layout.visible], None
        members = [features for *_, features in words]
        side = {
            "kind": "text",
            "text": text,
            # Offsets count characters, as JavaScript's do outside the rarer planes; see _utf16.
            "words": [
                {"text": t, "start": _utf16(text, s), "end": _utf16(text, n), "cut": not m} for t, s, n, m in words
            ],
        }
    pick = torch.zeros(len(members), layout.size, dtype=torch.float64)
    for group, features in enumerate(members):
        pick[group, features] = 1.0
    return {**side, "groups": len(members)}, pick


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
    sides = [
        f"{kind} layer {about[side]['layer']}, {about[side]['steps']} nodes"
        for side, kind in (("left", e.left_layout.kind), ("right", e.right_layout.kind))
        if "layer" in about.get(side, {})
    ]
    hidden = [
        f"{share:.0%} of all interaction (by size) lies in {kind} positions that are no {part}"
        for share, kind, part in (
            (left, e.left_layout.kind, "patch" if isinstance(e.left_layout, GridLayout) else "word"),
            (right, e.right_layout.kind, "patch" if isinstance(e.right_layout, GridLayout) else "word"),
        )
        if share > 0.005
    ]
    what = f"{about.get('model', 'model')}, {about.get('method', 'method')}"
    return ". ".join([", ".join([what, *sides]), *hidden]) + ". Red raises the similarity, blue lowers it."


def render_page(e: Explanation, selection: Any = None) -> str:
    """The whole page as one string."""
    web = files("secondsight.visual") / "web"
    # "<" is the only character that could end the data's script element early.
    data = json.dumps(page_data(e, selection), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    title = e.right_input if isinstance(e.right_input, str) else "explanation"
    parts = {
        "title": html.escape(f"secondsight: {title}"),
        "style": (web / "page.css").read_text(encoding="utf-8"),
        "script": (web / "page.js").read_text(encoding="utf-8"),
        "data": data,
    }
    # Split once: a caption that spells {{script}} must stay a caption.
    pieces = (web / "page.html").read_text(encoding="utf-8").split("{{")
    out = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        out += [parts[name], rest]
    return "".join(out)


def save_page(e: Explanation, path: str | os.PathLike[str], selection: Any = None) -> None:
    """Write the page; it appears only when it is complete."""
    content = render_page(e, selection).encode()
    with atomic(path) as file:
        file.write(content)


def embed_page(e: Explanation) -> str:
    """The page in a frame of its own, for notebooks: its styles and keys stay inside."""
    source = html.escape(render_page(e), quote=True)
    return f'<iframe srcdoc="{source}" style="width:100%;height:820px;border:0" title="secondsight"></iframe>'
