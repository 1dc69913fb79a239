"""An explanation in the terminal: the words' scores as bars, the four terms, the error."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from PIL import Image
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secondsight.algebra.layout import Box, Layout, word_scores
from secondsight.explanation import Explanation
from secondsight.visual.colours import limit_of, map_over_photo
from secondsight.visual.headline import headline
from secondsight.visual.sentences import convergence_warning

_BAR = 24
"""Characters of the longest bar."""


def terminal(
    e: Explanation,
    scores: list[tuple[str, float]] | None = None,
    title: str | None = None,
    *,
    selection: Any = None,
    box: Box | None = None,
    columns: int = 0,
) -> RenderableType:
    """What `secondsight explain` prints, of a `selection` of the right side or a `box` of the left picture if given.

    `scores` replaces the totals of the words, for example by those of the box.

    If `columns` is positive, the photograph comes first, so many characters wide, under the map of a selection of the right
    side.
    """
    parts: list[RenderableType] = []
    if columns and e.left_layout.kind == "image" and isinstance(e.left_input, Image.Image):
        parts += [picture(e, selection, columns), Text("")]
    if e.parts and isinstance(e.right_input, tuple):
        names = [repr(text) if isinstance(text, str) else "this one" for text in e.right_input]
        first, second = (f"{name} ({part.similarity:.4f})" for name, part in zip(names, e.parts, strict=True))
        parts.append(Text(f"why {first} rather than {second}"))
    parts.append(Text(headline(e, selection, box), style="bold"))
    if e.right_layout.words:
        values = _with_signs(e.right_layout, scores if scores is not None else e.words)
        parts.append(_words_table(values, title or f"words × {_side_title(e.left_layout)}"))
    if e.left_layout.words:
        values = word_scores(e.left_layout, e.toward_left(None))
        parts.append(_words_table(values, f"words × {_side_title(e.right_layout)}"))
    parts.append(_terms_table(e))
    warning = convergence_warning(e)
    if warning:
        parts.append(Text(warning, style="bold yellow"))
    return Group(*parts)


def picture(e: Explanation, selection: Any = None, columns: int = 48) -> Text:
    """The left photograph under a selection's map, `columns` characters wide; a character shows two pixels, as a half block."""
    width, height = e.left_input.size
    rows = max(2, 2 * round(columns * height / width / 2))
    values = e.heatmap(selection)
    small = e.left_input.resize((columns, rows), Image.Resampling.BOX)
    heat = F.adaptive_avg_pool2d(values.detach().cpu().float()[None, None], (rows, columns))[0, 0].numpy()
    pixels = map_over_photo(small, heat)
    blocks = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            blocks.append("▀", f"rgb({above[0]},{above[1]},{above[2]}) on rgb({below[0]},{below[1]},{below[2]})")
        blocks.append("\n")
    return blocks


def _with_signs(layout: Layout, scores: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Words with the sign of their text if a side joins several."""
    if len(layout.parts) == 1:
        return scores
    signs = [
        "+" if sign > 0 else "−" for part, sign in zip(layout.parts, layout.signs, strict=True) for _ in part.words
    ]
    return [(f"{sign} {word}", value) for sign, (word, value) in zip(signs, scores, strict=True)]


def _side_title(layout: Layout) -> str:
    """A whole side in a title: "whole image", or the text itself."""
    text = " − ".join(part.text or "text" for part in layout.parts if part.words)
    return text or f"whole {layout.modality}"


def _words_table(scores: list[tuple[str, float]], title: str) -> Table:
    # As Text, so that a caption is not read as rich's markup.
    table = Table(title=Text(title), title_justify="left", box=None, padding=(0, 1), title_style="bold")
    table.add_column("word", no_wrap=True)
    table.add_column("interaction", justify="right")
    table.add_column("")
    limit = limit_of([value for _, value in scores])
    for word, value in scores:
        length = max(round(abs(value) / limit * _BAR), 1 if value else 0)
        table.add_row(
            Text(word),
            f"{value:+.4f}",
            Text(("█" if value > 0 else "░") * length, style="red" if value > 0 else "blue"),
        )
    return table


def _terms_table(e: Explanation) -> Table:
    table = Table(
        title="four terms", title_justify="left", box=None, padding=(0, 1), title_style="bold", show_header=False
    )
    table.add_column("", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", style="dim")
    left, right = e.left_layout.modality, e.right_layout.modality
    meanings = (
        f"of an empty {left} and an empty {right}",
        f"what the {left} adds by itself",
        f"what the {right} adds by itself",
        "what only both together add, word by word above",
    )
    for (name, value), meaning in zip(e.terms.labels(), meanings, strict=True):
        table.add_row(name, f"{value:+.4f}", meaning)
    table.add_row("sum", f"{e.terms.total:+.4f}", end_section=True)
    table.add_row(Text(e.quantity, style="bold"), Text(f"{e.similarity:+.4f}", style="bold"), "the model's own number")
    table.add_row("error", f"{e.error:.1e}", "how far the sum is from it, not how right it is")
    return table
