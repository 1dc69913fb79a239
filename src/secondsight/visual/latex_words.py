"""The words of a caption as LaTeX, each on its colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from secondsight.algebra.layout import Box, Layout, Word, word_scores
from secondsight.support.errors import InputError
from secondsight.visual.colours import limit_of, on_white

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    **{c: "\\" + c for c in "#$%&_{}"},
}


def latex(e: Explanation, selection: Any = None, *, box: Box | None = None) -> str:
    """The right side's words as LaTeX, each on the colour of its attribution to `box` (default: the whole left side).

    Words of `selection` are framed. Needs `\\usepackage{xcolor}`, and a font that has the caption's script. Raises
    `InputError` if the right side has no words.
    """
    layout = e.right_layout
    if not layout.words:
        raise InputError(f"the right side is {layout.modality}, not text: use e.T if the left side is a text")
    values = [value for _, value in word_scores(layout, e.toward_right(box))]
    weights = None if selection is None else layout.select(selection)
    limit = limit_of(values)
    boxes = [
        _colour_box(word, value, limit, weights is not None and bool(weights[list(word.features)].any()))
        for word, value in zip(layout.words, values, strict=True)
    ]
    body = "\\\\\n".join(" ".join(line) for line in _lines(layout, boxes))
    return "{\\setlength{\\fboxsep}{1.5pt}%\n" + body + "}"


def _colour_box(word: Word, value: float, limit: float, framed: bool) -> str:
    (red, green, blue), _ = on_white(value, limit)
    ink = r"\color{white}" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.4 else ""
    text = "".join(_ESCAPES.get(c, c) for c in word.text)
    command = r"\fcolorbox[rgb]{0.2,0.2,0.2}" if framed else r"\colorbox[rgb]"
    return f"{command}{{{red:.3f},{green:.3f},{blue:.3f}}}{{{ink}\\strut {text}}}"


def _lines(layout: Layout, boxes: list[str]) -> list[list[str]]:
    """The words of every text that the side joins, on a line each."""
    lines, first = [], 0
    for part in layout.parts:
        lines.append(boxes[first : first + len(part.words)])
        first += len(part.words)
    return lines
