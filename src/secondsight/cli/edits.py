"""What `explain` and `search` share for `--without` and `--verify`: parts taken away, predicted and measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secondsight.cli.common import out, parse_box
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.algebra.edit import Edit
    from secondsight.explanation import Explanation
    from secondsight.model import DualEncoder
    from secondsight.scale.search import EditedPlace, Place

How = Annotated[
    str,
    typer.Option(
        help="How --verify leaves out: replaced (by padding, black pixels or what else the method takes), deleted (words "
        "struck from the text), or layer (replaced where the method looks)."
    ),
]


def check_edit(selections: Sequence[str] | None, verify: bool) -> None:
    """Refuse --verify without anything to leave out."""
    if verify and not selections:
        raise InputError("--verify needs something to leave out: give --without or --without-box")


def parsed_selections(texts: Sequence[str], is_text: bool, option: str = "--without") -> list[Any]:
    """Words of a text as they are, boxes of a photograph as numbers."""
    return list(texts) if is_text else [parse_box(text, option) for text in texts]


def edited(
    e: Explanation,
    model: DualEncoder,
    without: Sequence[str] | None,
    boxes: Sequence[str] | None,
    **options: Any,
) -> Edit | None:
    """The explanation without words (or boxes of a second photograph) and boxes of the photograph; None for neither."""
    if not without and not boxes:
        return None
    right = parsed_selections(without, e.right_layout.modality == "text") if without else None
    left = parsed_selections(boxes, False, "--without-box") if boxes else None
    return e.without(right, left=left, model=model, **options)


def print_places(places: Sequence[EditedPlace], removed: str) -> None:
    """A table of ranks and scores: before, predicted, and measured where that was asked for."""
    from rich.table import Table

    columns = ("before", "predicted") if places[0].measured is None else ("before", "predicted", "measured")
    table = Table(title=f"ranks without {removed}", title_justify="left", box=None, header_style="bold")
    table.add_column("entry", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for place in places:
        table.add_row(place.key, *(_cell(getattr(place, column)) for column in columns))
    out.print(table)


def _cell(place: Place) -> str:
    return f"{place.rank}  {place.score:+.4f}"
