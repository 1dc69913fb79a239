"""The style that all charts share: colours, type, axes, legends and strokes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from textwrap import fill
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.figure import Figure

from secondsight.visual.saving import printable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
"""The palette of Okabe and Ito, its yellow darkened for white paper."""

DASHES = ("-", "--", ":", "-.")
"""Line styles of a group's members, in their order."""

BEFORE_AND_AFTER = {"before": "--", "after": "-"}
"""Line styles of a model before and after fine-tuning, as in [M25] Fig. 5."""


class Stroke(NamedTuple):
    """How a line is drawn."""

    colour: str
    dash: str


_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    # Names of models, classes and settings are not mathtext.
    "text.parse_math": False,
}
"""Type of 7 to 8 points, as papers require."""


def with_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A drawing function that uses the common style, whatever matplotlib's settings are."""

    @wraps(draw)
    def draw_with_style(*args: Any, **options: Any) -> Figure:
        with rc_context(_STYLE):
            return draw(*args, **options)

    return draw_with_style


def axes_of(width: float = 5.2, height: float = 3.1) -> tuple[Figure, Any]:
    """A figure of that many inches, and its only axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    set_frame(axes)
    return figure, axes


def set_frame(axes: Any) -> None:
    """A frame of two sides and a pale grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e5e5e5", linewidth=0.5)
    axes.set_axisbelow(True)


def add_legend(axes: Any, title: str = "") -> None:
    """A legend above the data, in as many columns as the names leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        axes.set_title(title, loc="left")
        return
    # Characters that fit on a line: type of 7 points is about half as wide as high.
    room = int((axes.figure.get_size_inches()[0] - 1.0) * 72 / 7 / 0.55)
    lines = [fill(label, room - 8) for label in labels]
    columns = max(1, min(len(lines), room // (max(map(len, lines)) + 8)))
    rows = sum(line.count("\n") + 1 for line in lines) if columns == 1 else -(-len(lines) // columns)
    # The figure grows by the height of the names, so that the data keep theirs.
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.15 * (rows - 1))
    axes.legend(handles, lines, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns,
                title=title or None, alignment="left", borderaxespad=0.3)  # fmt: skip


def colours(count: int) -> list[str]:
    """That many colours; they repeat after the palette's last."""
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def strokes(names: Iterable[Any], dashes: Mapping[str, str] | None = None) -> list[Stroke]:
    """The stroke of every name: a colour each; of pairs (group, member) a colour for each group, a dash for each member.

    `dashes` gives members' line styles; by default the first is solid and the next ones are dashed, dotted, and both.
    """
    groups: dict[Any, str] = {}
    members = dict(dashes or {})
    drawn = []
    for name in names:
        group, member = name if isinstance(name, tuple) else (name, "")
        colour = groups.setdefault(group, COLOURS[len(groups) % len(COLOURS)])
        drawn.append(Stroke(colour, members.setdefault(member, DASHES[len(members) % len(DASHES)])))
    return drawn


def series_name(name: Any) -> str:
    """A name, or a pair of them, as a legend shows it."""
    return printable(", ".join(map(str, name)) if isinstance(name, tuple) else name)
