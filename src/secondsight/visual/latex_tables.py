"""Coloured words for papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from secondsight.algebra.layout import Box, word_scores
from secondsight.support.errors import InputError
from secondsight.visual.colours import limit_of, overlay

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{c: "\\" + c for c in "#$%&_{}"},
}


def latex(e: Explanation, selection: Any = None, *, box: Box | None = None) -> str:
    """The right side's words as LaTeX, each on the colour of its attribution to `box` (default: the whole left side).

    Words of `selection` are framed. Needs `\\usepackage{xcolor}`; with a caption of other scripts also a font that has
    them. Raises `InputError` where the right side has no words.
    """
    words = e.right_layout.words
    if not words:
        raise InputError(f"the right side is {e.right_layout.modality}, not text: use e.T for the other one")
    values = [value for _, value in word_scores(e.right_layout, e.toward_right(box))]
    selected = None if selection is None else e.right_layout.select(selection)
    limit, boxes = limit_of(values), []
    for word, value in zip(words, values, strict=True):
        *colour, alpha = overlay(np.array(value), limit, 0.75)
        red, green, blue = (1 - alpha + alpha * c for c in colour)
        ink = r"\color{white}" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.4 else ""
        shade = f"{{{red:.3f},{green:.3f},{blue:.3f}}}"
        text = "".join(_SPECIAL.get(c, c) for c in word.text)
        picked = selected is not None and bool(selected[list(word.features)].any())
        framed = r"\fcolorbox[rgb]{0.2,0.2,0.2}" if picked else r"\colorbox[rgb]"
        boxes.append(f"{framed}{shade}{{{ink}\\strut {text}}}")
    joined = len(e.right_layout.parts) > 1
    lines = _by_part(e, boxes) if joined else [boxes]
    body = "\\\\\n".join(" ".join(line) for line in lines)
    return "{\\setlength{\\fboxsep}{1.5pt}%\n" + body + "}"


def _by_part(e: Explanation, boxes: list[str]) -> list[list[str]]:
    """The words of every text that the side joins on a line of their own."""
    lines, first = [], 0
    for part in e.right_layout.parts:
        count = len(part.words)
        lines.append(boxes[first : first + count])
        first += count
    return lines
