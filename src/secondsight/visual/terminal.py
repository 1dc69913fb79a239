"""An explanation in the terminal: the words' scores as bars, long texts by their sentences, the four terms, the error."""

from __future__ import annotations

from textwrap import shorten
from typing import Any

import torch.nn.functional as F
from PIL import Image
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from secondsight.algebra.layout import Box, Layout, word_scores
from secondsight.explanation import Explanation
from secondsight.visual.colours import limit_of, map_over_photo
from secondsight.visual.details import Details, axes
from secondsight.visual.headline import headline
from secondsight.visual.passages import LONG, Passage, is_long, passages, strongest_passages
from secondsight.visual.sentences import (
    assignment_summary,
    convergence_warning,
    cut_texts,
    first_order_note,
    special_shares,
)

_BAR = 24
"""Characters of the longest bar."""

_STRONGEST_PASSAGES, _STRONGEST_WORDS = 5, 20
"""Entries of the tables of a long text."""

_WHOLE = 1000
"""Words up to which a long text is shown as a whole, where there are colours."""

_TITLE = 60
"""Characters of a text in a title."""


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
        names = [repr(_short(text)) if isinstance(text, str) else "this one" for text in e.right_input]
        first, second = (f"{name} ({part.similarity:.4f})" for name, part in zip(names, e.parts, strict=True))
        parts.append(Text(f"why {first} rather than {second}"))
    parts.append(Text(headline(e, selection, box), style="bold"))
    if e.right_layout.words:
        of_side = title or f"words × {_side_title(e.left_layout)}"
        values = _with_signs(e.right_layout, scores if scores is not None else e.words)
        parts += _texts(e.right_layout, e.toward_right(box), values, of_side, columns > 0)
    if e.left_layout.words:
        of_side = f"words × {_side_title(e.right_layout)}"
        # A short text keeps the scores that do not depend on what is selected.
        picked = selection if is_long(e.left_layout) else None
        if picked is not None:
            of_side = f"words × {picked!r}"
        scored = e.toward_left(picked)
        parts += _texts(e.left_layout, scored, word_scores(e.left_layout, scored), of_side, columns > 0)
    parts.append(_terms_table(e))
    lines = (first_order_note(e), *special_shares(e), *cut_texts(e))
    parts += [Text(f"{line}.") for line in lines if line]
    for table in axes(e):
        parts += _titled(table.title, _plain_table(table))
    closest = assignment_summary(e)
    if closest:
        parts.append(Text(closest))
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
    text = " − ".join(_short(part.text or "text") for part in layout.parts if part.words)
    return text or f"whole {layout.modality}"


def _short(text: str) -> str:
    return text if len(text) <= _TITLE and "\n" not in text else shorten(text, _TITLE, placeholder="…")


def _texts(
    layout: Layout, values: Tensor, scores: list[tuple[str, float]], title: str, coloured: bool
) -> list[RenderableType]:
    """The words of a side as a table; of many the strongest, below the strongest sentences of every long text."""
    parts: list[RenderableType] = []
    for part, part_values in zip(layout.parts, layout.split(values.detach().cpu()), strict=True):
        if is_long(part):
            parts += _passages_table(part, part_values, title)
            if coloured and len(part.words) <= _WHOLE:
                parts += [Text(), _coloured_text(part, Passage(0, len(part.words), ""), part_values), Text()]
    if len(scores) <= LONG:
        return [*parts, *_titled(title, _words_table(scores))]
    strongest = sorted(scores, key=lambda score: -abs(score[1]))[:_STRONGEST_WORDS]
    return [*parts, *_titled(f"the {_STRONGEST_WORDS} strongest of {len(scores)} {title}", _words_table(strongest))]


def _titled(title: str, table: Table) -> list[RenderableType]:
    """A table below its title, which is as wide as the terminal."""
    # As Text, so that a caption is not read as rich's markup.
    return [Text(title, style="bold"), table]


def _plain_table(details: Details) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in details.columns:
        table.add_column(name, no_wrap=True)
    for row in details.rows:
        table.add_row(*map(Text, row))
    return table


def _passages_table(layout: Layout, values: Tensor, title: str) -> list[RenderableType]:
    """The strongest sentences of a long text, their words in colour."""
    count = len(passages(layout))
    strongest = strongest_passages(layout, values, _STRONGEST_PASSAGES)
    heading = f"the {len(strongest)} strongest of {count} {title.replace('words', 'sentences', 1)}"
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column("", justify="right", no_wrap=True, vertical="top")
    table.add_column("")
    for passage, value in strongest:
        sentence = _coloured_text(layout, passage, values)
        table.add_row(f"{value:+.4f}", Text(" ").join(sentence.split("\n")))
    return _titled(heading, table)


def _coloured_text(layout: Layout, passage: Passage, values: Tensor) -> Text:
    """A stretch of a text with its own line breaks; the stronger a word, the more it stands out."""
    scores = [value for _, value in word_scores(layout, values)]
    limit, text, end = limit_of(scores), Text(), None
    for word, score in list(zip(layout.words, scores, strict=True))[passage.first : passage.end]:
        if end is not None:
            text.append(" " if layout.text is None else layout.text[end : word.start])
        share, colour = abs(score) / limit, "red" if score > 0 else "blue"
        text.append(word.text, f"bold {colour}" if share > 0.5 else colour if share > 0.15 else "")
        end = word.end
    return text


def _words_table(scores: list[tuple[str, float]]) -> Table:
    table = Table(box=None, padding=(0, 1))
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
    if e.order == 1:
        table.title = "first order"
        table.add_row("sum of the map", f"{e.terms.interaction:+.4f}", "in units of the method's own")
        table.add_row(
            Text(e.quantity, style="bold"), Text(f"{e.similarity:+.4f}", style="bold"), "the model's own number"
        )
        return table
    left, right = e.left_layout.modality, e.right_layout.modality
    blank = f"of two empty {left}s" if left == right else f"of an empty {left} and an empty {right}"
    if left == right:
        left, right = f"left {left}", f"right {right}"
    shown = float(e.toward_left(None)[e.left_layout.visible].sum())
    hides = abs(e.terms.interaction - shown) >= 5e-5
    meanings = (
        blank,
        f"what the {left} adds by itself",
        f"what the {right} adds by itself",
        f"what only both together add{'' if hides else ', word by word above'}",
    )
    for (name, value), meaning in zip(e.terms.labels(), meanings, strict=True):
        table.add_row(name, f"{value:+.4f}", meaning)
    if hides:
        table.add_row("  of it shown", f"{shown:+.4f}", "word by word above; the rest lies in special positions")
    table.add_row("sum", f"{e.terms.total:+.4f}", end_section=True)
    table.add_row(Text(e.quantity, style="bold"), Text(f"{e.similarity:+.4f}", style="bold"), "the model's own number")
    table.add_row("error", f"{e.error:.1e}", "how far the sum is from it, not how right it is")
    return table
