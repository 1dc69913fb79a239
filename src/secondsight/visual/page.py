"""One self-contained HTML file: data from `page_data`, the view from the files beside this one. Nothing is fetched."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from secondsight.files import atomic
from secondsight.layout import GridLayout, JoinedLayout, Layout, SpectrogramLayout, TokenLayout, words_of

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_PARTS = {"image": "patch", "audio": "part of the sound"}

_FINEST = 64
"""Cells a side that the page shows; finer maps, as of single pixels, are summed to these."""

_LONGEST = 1280
"""Pixels of the longer side of the embedded picture; boxes stay in original pixels."""


def page_data(e: Explanation, selection: Any = None) -> dict[str, Any]:
    """What the page shows, as plain data: both sides, the matrix over cells and words, the terms, the error.

    Groups are grid cells, or words (sums over their tokens); special features are left out and their share is noted.
    """
    left, left_owner = _side(e.left_layout, e.left_input)
    right, right_owner = _side(e.right_layout, e.right_input)
    matrix = _grouped(_grouped(e.matrix.double().cpu(), left_owner, left["groups"]).T, right_owner, right["groups"]).T
    start: list[Any] = []
    if selection is not None:
        weights = e.right_layout.select(selection).double()
        sizes = _grouped(torch.ones_like(weights), right_owner, right["groups"])
        shares = _grouped(weights, right_owner, right["groups"]) / sizes.clamp(min=1)
        # Cells by their covered share, words as wholes.
        cells = right["kind"] == "image"
        start = [[int(i), float(shares[i])] if cells else int(i) for i in shares.nonzero().flatten()]
        if cells and isinstance(selection, tuple) and len(selection) == 4:
            right["box"] = [float(v) for v in selection]
    return {
        "left": left,
        "right": right,
        "matrix": [[float(f"{v:.5g}") for v in row] for row in matrix.tolist()],
        "start": start,
        "similarity": e.similarity,
        "terms": [[name, value] for name, value in e.terms.labels()],
        "error": e.error,
        "called": e.called,
        "note": _note(e),
    }


def _grouped(values: Tensor, owner: Tensor, groups: int) -> Tensor:
    """Rows summed by their group; those that belong to none are left out."""
    out = values.new_zeros(groups + 1, *values.shape[1:])
    return out.index_add(0, owner, values)[:groups]


def _side(layout: Layout, shown: Any) -> tuple[dict[str, Any], Tensor]:
    """A side as plain data, and the group of every feature; the number of groups where it belongs to none."""
    if isinstance(layout, JoinedLayout):
        made = [_side(part, own) for part, own in zip(layout.parts, layout.each(shown), strict=True)]
        sides = [{**side, "sign": sign} for (side, _), sign in zip(made, layout.signs, strict=True)]
        groups, owners, first = sum(side["groups"] for side in sides), [], 0
        for side, own in made:
            owners.append(torch.where(own < side["groups"], own + first, groups))
            first += side["groups"]
        return {"kind": "joined", "parts": sides, "groups": groups}, torch.cat(owners)
    if isinstance(layout, GridLayout):
        grid, of_cells = _coarser(layout.grid)
        side = _grid_side(grid, layout.image_size, layout.frame, _picture(shown), "the explained picture")
        members = _listed(of_cells, layout.visible)
    elif isinstance(layout, SpectrogramLayout):
        grid, of_cells = _coarser(layout.grid)
        # Pictures begin at the top, spectrograms at the lowest band.
        features = layout.view(torch.arange(layout.size, dtype=torch.float64)).flip(0).flatten().long().tolist()
        members = _listed(of_cells, features)
        side = _sound_side(layout, grid, shown)
    else:
        members, side = _text_side(layout)
    owner = torch.full((layout.size,), len(members))
    for group, features in enumerate(members):
        owner[features] = group
    return {**side, "groups": len(members)}, owner


def _coarser(grid: tuple[int, int]) -> tuple[tuple[int, int], list[int]]:
    """A grid of at most `_FINEST` cells a side, and which of its cells every old one falls into."""
    rows, columns = (min(n, _FINEST) for n in grid)
    of_rows = torch.arange(grid[0]) * rows // grid[0]
    of_columns = torch.arange(grid[1]) * columns // grid[1]
    return (rows, columns), (of_rows[:, None] * columns + of_columns).flatten().tolist()


def _listed(of_cells: list[int], features: list[int]) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(max(of_cells, default=-1) + 1)]
    for cell, feature in zip(of_cells, features, strict=True):
        members[cell].append(feature)
    return members


def _grid_side(
    grid: tuple[int, int], size: tuple[int, int], frame: tuple[float, ...], source: str, alt: str
) -> dict[str, Any]:
    return {
        "kind": "image",
        "grid": list(grid),
        "size": list(size),
        "frame": list(frame),
        "source": source,
        "alt": alt,
    }


def _sound_side(layout: SpectrogramLayout, grid: tuple[int, int], levels: np.ndarray) -> dict[str, Any]:
    """Sound as the picture of its spectrogram, high bands above, with what its width lasts."""
    low, high = float(levels.min()), float(levels.max())
    grey = ((levels[::-1] - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    picture = Image.fromarray(grey).resize((960, 320), Image.Resampling.BILINEAR).convert("RGB")
    side = _grid_side(
        layout.grid, picture.size, (0.0, 0.0, *picture.size), _picture(picture), "the sound's spectrogram"
    )
    return {**side, "seconds": layout.seconds}


def _text_side(layout: Layout) -> tuple[list[list[int]], dict[str, Any]]:
    words = [(w.text, w.start, w.end, list(w.features)) for w in words_of(layout)]
    if not isinstance(layout, TokenLayout):
        words = [(str(i), 0, 0, [i]) for i in layout.visible]
    text = layout.text if isinstance(layout, TokenLayout) else None
    return [features for *_, features in words], {
        "kind": "text",
        "text": text,
        # Offsets count characters, as JavaScript's do outside the rarer planes; see _utf16.
        "words": [{"text": t, "start": _utf16(text, s), "end": _utf16(text, n), "cut": not m} for t, s, n, m in words],
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
        f"{name} layer {about[side]['layer']}, {about[side]['steps']} nodes"
        for side, name in zip(("left", "right"), named, strict=True)
        if {"layer", "steps"} <= set(about.get(side, {}))
    ]
    hidden = [
        f"{share:.0%} of all interaction (by size) lies in {name} positions that are no {_PARTS.get(kind, 'word')}"
        for share, kind, name in zip((left, right), kinds, named, strict=True)
        if share > 0.005
    ]
    what = f"{about.get('model', 'model')}, {about.get('method', 'method')}"
    return ". ".join([", ".join([what, *sides]), *hidden]) + ". Red raises the similarity, blue lowers it."


def render_page(e: Explanation, selection: Any = None) -> str:
    """The whole page as one string."""
    web = files("secondsight.visual") / "web"
    # "<" is the only character that could end the data's script element early.
    data = json.dumps(page_data(e, selection), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    texts = [t for t in (*_inputs(e.left_input), *_inputs(e.right_input)) if isinstance(t, str)]
    title = " / ".join(texts) or "explanation"
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


def _inputs(shown: Any) -> tuple[Any, ...]:
    return shown if isinstance(shown, tuple) else (shown,)


def save_page(e: Explanation, path: str | os.PathLike[str], selection: Any = None) -> None:
    """Write the page; it appears only when it is complete."""
    content = render_page(e, selection).encode()
    with atomic(path) as file:
        file.write(content)


def embed_page(e: Explanation) -> str:
    """The page in a frame of its own, for notebooks: its styles and keys stay inside."""
    source = html.escape(render_page(e), quote=True)
    return f'<iframe srcdoc="{source}" style="width:100%;height:820px;border:0" title="secondsight"></iframe>'
