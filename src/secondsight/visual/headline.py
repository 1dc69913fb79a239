"""What stands out in an explanation, as one sentence in plain words: the title of figures, of the terminal, of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from secondsight.algebra.layout import Box, GridLayout, Layout
from secondsight.visual.passages import brief

if TYPE_CHECKING:
    from secondsight.algebra.interactions import Interactions

_ROWS, _COLUMNS, _TIMES = ("top", "", "bottom"), ("left", "", "right"), ("first", "second", "last")

_SHORT = 40
"""Characters of a text that a title quotes."""

_NOTHING = 5e-5
"""What is smaller is written as 0.0000 and has no direction."""


class Place(NamedTuple):
    """What has a name on a side: a word, or a ninth of a picture, with its features; `where` completes "most of all …"."""

    name: str
    where: str
    features: list[int]


def headline(e: Interactions, selection: Any = None, box: Box | None = None) -> str:
    """What matches best and where; of a `selection` of the right side or a `box` of the left, whether it raises or lowers.

    What would be written as 0.0000 does neither.

    The page writes the same sentence (`web/headline.js`) for whatever its reader picks.
    """
    number = f"the {e.quantity}"
    if selection is None and box is None:
        verdict = _verdict(e) if e.quantity == "margin" else ""
        best = _strongest(e, 1, e.toward_right(None), 1)
        if best is None:
            return f"{verdict}No word raises {number}." if verdict else f"Nothing matches: all of it lowers {number}."
        weights = torch.zeros(e.right_layout.size).to(e.left_effects)
        weights[best.features] = 1
        where = _strongest(e, 0, e.attributions @ weights, 1)
        if _unmatched(e):
            return f"The model sees no match here; closest is {best.name}{_most_of(where)}."
        does = "matches best" if e.quantity == "similarity" else f"raises {number} most"
        return f"{verdict}{_capital(best.name)} {does}{_most_of(where)}."
    left, right = _name(e.left_layout, box), _name(e.right_layout, selection)
    values = e.toward_left(selection)
    value = float(values @ e.left_layout.select(box).to(values))
    does = f"{_direction(value)} {number}"
    if box is not None and selection is not None:
        pictured = [layout.cells.ndim == 2 for layout in (e.left_layout, e.right_layout)]
        names = [right, left] if pictured == [True, False] else [left, right]
        return f"{_capital((' with ' if pictured[0] == pictured[1] else ' in ').join(names))} {does}."
    if abs(value) < _NOTHING:
        return f"{_capital(right if box is None else left)} {does}."
    side = 0 if box is None else 1
    where = _strongest(e, side, values if side == 0 else e.toward_right(box), -1 if value < 0 else 1)
    return f"{_capital(right if side == 0 else left)} {does}{_most_of(where)}."


def _direction(value: float) -> str:
    return "neither raises nor lowers" if abs(value) < _NOTHING else "lowers" if value < 0 else "raises"


def _unmatched(e: Interactions) -> bool:
    """Whether a picture and a text have less than the base, which is there without the content of either."""
    pictured = (e.left_layout.kind, e.right_layout.kind) == ("image", "text")
    return e.order != 1 and pictured and e.quantity == "similarity" and e.similarity < e.terms.base


def _verdict(e: Interactions) -> str:
    """Which of two sides of a margin fits better, by their texts where these are short."""
    texts = [part.text or "" for part in e.right_layout.parts]
    short = len(texts) == 2 and e.right_layout.signs[0] > 0 and all(0 < len(text) <= _SHORT for text in texts)
    first, second = (f"“{text}”" for text in texts) if short else ("the first", "the second")
    return f"{_capital(first)} fits {'worse' if e.similarity < 0 else 'better'} than {second}. "


def _strongest(e: Interactions, side: int, values: Tensor, sign: int) -> Place | None:
    """The word with the largest sum in the direction of `sign`, or the ninth of a picture with the largest cell; None where
    nothing goes that way.
    """
    layouts = (e.left_layout, e.right_layout)
    pictured = all(part.cells.ndim == 2 for layout in layouts for part in layout.parts)
    places = _places(layouts[side], ("left ", "right ")[side] if pictured else "")
    strength = torch.amax if all(part.cells.ndim == 2 for part in layouts[side].parts) else torch.sum
    strengths = [float(strength(sign * values.detach()[place.features])) for place in places]
    best = max(range(len(places)), key=strengths.__getitem__, default=None)
    return None if best is None or strengths[best] <= 0 else places[best]


def _places(layout: Layout, prefix: str) -> list[Place]:
    if len(layout.parts) > 1:
        places, first = [], 0
        for part, sign in zip(layout.parts, layout.signs, strict=True):
            kind = "text" if part.cells.ndim < 2 else "picture"
            other = "" if sign > 0 else f" (of the second {kind})"
            for name, where, features in _places(part, prefix):
                places.append(Place(name + other, where + other, [first + i for i in features]))
            first += part.size
        return places
    if layout.cells.ndim == 2:
        return _ninths(layout, prefix)
    words = [(word.text, list(word.features)) for word in layout.words] or [(str(i), [i]) for i in layout.visible]
    return [Place(f"“{text}”", f"through “{text}”", features) for text, features in words]


def _ninths(layout: Layout, prefix: str) -> list[Place]:
    """The ninths of a picture, by where the middles of the cells lie; of a sound the thirds of its time."""
    rows, columns = layout.cells.shape
    (width, height), (x0, y0, x1, y1) = (1.0, 1.0), (0.0, 0.0, 1.0, 1.0)
    if isinstance(layout, GridLayout):
        (width, height), (x0, y0, x1, y1) = layout.image_size, layout.frame
    ninths: dict[str, list[int]] = {}
    for row in range(rows):
        for column in range(columns):
            across = min(2, int(3 * (x0 + (column + 0.5) * (x1 - x0) / columns) / width))
            down = min(2, int(3 * (y0 + (row + 0.5) * (y1 - y0) / rows) / height))
            name = " ".join(part for part in (_ROWS[down], _COLUMNS[across]) if part) or "middle"
            where = (
                f"the {name} of the {prefix}picture"
                if isinstance(layout, GridLayout)
                else f"the {_TIMES[across]} third of the {prefix}sound"
            )
            ninths.setdefault(where, []).append(int(layout.cells[row, column]))
    return [Place(where, f"in {where}", features) for where, features in ninths.items()]


def _name(layout: Layout, selection: Any) -> str:
    """What is picked, in words."""
    if isinstance(selection, tuple) and len(selection) == 4 and layout.kind == "image":
        x0, y0, x1, y1 = selection
        return f"the box {x0:.0f}–{x1:.0f} × {y0:.0f}–{y1:.0f}"
    if selection is None or not layout.words:
        return "the selection"
    weights = layout.select(selection)
    return f"“{brief([word.text for word in layout.words if bool(weights[list(word.features)].any())])}”"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _most_of(place: Place | None) -> str:
    return f", most of all {place.where}" if place else ""
