"""An explanation in the terminal: the words' scores as bars, the four terms, the error."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from secondsight.explanation import Explanation
from secondsight.layout import TokenLayout
from secondsight.visual.colours import limit_of

_BAR = 24


def terminal(e: Explanation, scores: list[tuple[str, float]] | None = None, title: str | None = None) -> RenderableType:
    """What `secondsight explain` prints. `scores` replaces the words' totals (for a box, say)."""
    parts: list[RenderableType] = []
    if isinstance(e.right_layout, TokenLayout):
        parts.append(_words(scores if scores is not None else e.words, title or "words × whole image"))
    parts.append(_terms(e))
    return Group(*parts)


def _words(scores: list[tuple[str, float]], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), title_style="bold")
    table.add_column("word", no_wrap=True)
    table.add_column("interaction", justify="right")
    table.add_column("")
    limit = limit_of([value for _, value in scores])
    for word, value in scores:
        length = max(round(abs(value) / limit * _BAR), 1 if value else 0)
        table.add_row(Text(word), f"{value:+.4f}", Text("█" * length, style="red" if value > 0 else "blue"))
    return table


def _terms(e: Explanation) -> Table:
    table = Table(
        title="four terms", title_justify="left", box=None, padding=(0, 1), title_style="bold", show_header=False
    )
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in e.terms.labels():
        table.add_row(name, f"{value:+.4f}")
    table.add_row("sum", f"{e.terms.total:+.4f}", end_section=True)
    table.add_row(Text("similarity", style="bold"), Text(f"{e.similarity:+.4f}", style="bold"))
    table.add_row("error", f"{e.error:.1e}")
    return table
