"""`secondsight explain` and `secondsight compare`: one pair, by one method or by several."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secondsight.cli.common import (
    Model,
    Quiet,
    Truncate,
    check_photograph,
    check_writable,
    out,
    parse_box,
    plain_errors,
    print_written,
    spinner,
)
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

Box = tuple[float, float, float, float]

_ENDINGS = (".html", ".png", ".svg", ".pdf", ".json", ".npz")

Photo = Annotated[str, typer.Argument(help="Image file; a text or sound file for other pairs.", metavar="PHOTO")]
Caption = Annotated[str, typer.Argument(help="Text, in quotes; or a second image file.", metavar="CAPTION")]
Against = Annotated[
    list[str] | None,
    typer.Option(help="Why CAPTION rather than this one; the best of several; may be repeated."),
]
Select = Annotated[str | None, typer.Option(help="Words whose heatmap to show first; x0,y0,x1,y1 on a second image.")]
BoxText = Annotated[
    str | None, typer.Option(help="x0,y0,x1,y1 in pixels of the photo: score words for it, or the second image.")
]
MethodName = Annotated[str, typer.Option(help="See: secondsight methods.")]
Layer = Annotated[str | None, typer.Option(help="Block whose input is attributed, input, or grounded; or LEFT,RIGHT.")]
Quadrature = Annotated[
    str | None, typer.Option(help="gauss-legendre, clenshaw-curtis, gauss-kronrod, trapezoid, riemann.")
]
Steps = Annotated[int | None, typer.Option(help="Fixed number of nodes; default: as many as --tol needs.")]
Tolerance = Annotated[float | None, typer.Option(help="Relative residual, or standard error, to reach.")]
Strategy = Annotated[str | None, typer.Option(help="auto, pooled, forward, reverse, paired.")]
MethodOption = Annotated[
    list[str] | None, typer.Option(help="Any other option of the method as NAME=VALUE; may be repeated.")
]
Scale = Annotated[str, typer.Option(help="similarity, or logit.")]
Files = Annotated[
    list[Path] | None, typer.Option("--out", help="Write .html, .png, .svg, .pdf or .npz; may be repeated.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write every number as JSON; - for the terminal.")]


def explain(
    photo: Photo,
    caption: Caption,
    model: Model = "builtin",
    against: Against = None,
    select: Select = None,
    box: BoxText = None,
    method: MethodName = "grounded",
    layer: Layer = None,
    quadrature: Quadrature = None,
    steps: Steps = None,
    tol: Tolerance = None,
    strategy: Strategy = None,
    option: MethodOption = None,
    scale: Scale = "similarity",
    truncate: Truncate = False,
    out_file: Files = None,
    json_file: JsonFile = None,
    quiet: Quiet = False,
) -> None:
    """Explain one pair: the words' scores and the four terms here, pictures and numbers as files."""
    with plain_errors():
        region = None if box is None else parse_box(box)
        json_to_terminal = str(json_file) == "-"
        files = [*(out_file or []), *([] if json_file is None or json_to_terminal else [json_file])]
        _check_outputs(out_file or [], None if json_to_terminal else json_file)
        _check_inputs(model, photo, caption, against or [])
        with spinner("loading libraries"):
            from secondsight.encoders.registry import load
            from secondsight.explanation import explain as explain_pair
            from secondsight.methods import method_of_text
            from secondsight.methods.options import parse_layer, parse_options

        options = dict(
            layer=None if layer is None else parse_layer(layer),
            quadrature=quadrature,
            steps=steps,
            tol=tol,
            strategy=strategy,
        )
        explicit = {name: value for name, value in options.items() if value is not None}
        explainer = method_of_text(method, **parse_options(option or []) | explicit)
        with spinner(f"loading {model}"):
            dual = load(model)
        with spinner("explaining"):
            e = explain_pair(dual, photo, caption, explainer, against=against, scale=scale, truncate=truncate)
            # Both fail on bad input, so they come before anything is printed or written.
            selection = _selection(select, e)
            scores = _word_scores(e, region)
            for path in files:
                e.save(path, selection, box=region)
        if json_to_terminal:
            print(json.dumps(e.to_json(), ensure_ascii=False))
        elif not quiet:
            _print(e, selection, region, scores, select, box)
            for path in files:
                print_written(path)


def _check_outputs(pictures: list[Path], numbers: Path | None) -> None:
    for path in pictures:
        check_writable(path, _ENDINGS, "--out")
    check_writable(numbers, (".json",), "--json")


def _check_inputs(model: str, photo: str, caption: str, rivals: list[str]) -> None:
    """Refuse unknown models, empty captions, missing files and damaged photographs before the libraries are loaded."""
    from secondsight.encoders.names import known_name

    known_name(model)
    if not caption.strip():
        raise InputError("the caption is empty: give at least one word")
    from secondsight.inputs.kinds import missing, possible_kinds

    for text in (photo, caption, *rivals):
        if "text" not in possible_kinds(text) and not os.path.exists(text):
            raise InputError(missing(text))
        check_photograph(text, text == photo and model.startswith(("builtin", "scenes", "open_clip:")))


def _selection(select: str | None, e: Explanation) -> Any:
    """What --select means: words of a text, a box of a second image."""
    boxed = select is not None and e.right_layout.modality == "image"
    selection = parse_box(select, "--select") if boxed and select is not None else select
    e.right_layout.select(selection)
    return selection


def _word_scores(e: Explanation, region: Box | None) -> list[tuple[str, float]] | None:
    """Words scored for a box; None without a box and for two images, which have a map instead."""
    if region is None:
        return None
    if {e.left_layout.modality, e.right_layout.modality} != {"image"}:
        return list(e.box(*region))
    e.left_layout.select(region)
    return None


def _print(
    e: Explanation,
    selection: Any,
    region: Box | None,
    scores: list[tuple[str, float]] | None,
    select: str | None,
    box: str | None,
) -> None:
    from secondsight.visual.terminal import terminal

    title = f"words × box {box}" if region else None
    # Colours and half blocks are for people; a pipe gets the tables only.
    wide = min(56, out.width) if out.is_terminal and out.color_system not in (None, "standard") else 0
    out.print(terminal(e, scores, title, selection=selection, columns=wide))
    if region and scores is None:
        out.print(_strongest_cell(e.T, region, f"box {box}"))
    if select is not None:
        out.print(_strongest_cell(e, selection, repr(select)))


def _strongest_cell(e: Explanation, selection: Any, title: str) -> str:
    """Where a selection of the right side matched most, in original pixels of the left."""
    from secondsight.algebra.layout import GridLayout

    values = e.toward_left(selection)
    total = f"{title} × whole {e.left_layout.modality}: {float(values[e.left_layout.visible].sum()):+.4f}"
    if not isinstance(e.left_layout, GridLayout):
        return total
    cell = int(e.left_layout.view(values).flatten().argmax())
    x0, y0, x1, y1 = (round(float(v)) for v in e.left_layout.cell_boxes()[cell])
    return f"{total}, strongest in the cell {x0},{y0},{x1},{y1}"


def compare(
    photo: Annotated[str, typer.Argument(help="Image file.", metavar="PHOTO")],
    caption: Annotated[str, typer.Argument(help="Text, in quotes.", metavar="CAPTION")],
    out_file: Annotated[Path, typer.Option("--out", help="Write .png, .svg or .pdf.")],
    select: Annotated[list[str] | None, typer.Option(help="Words for a row of maps; may be repeated.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="A column; may be repeated; default: every method. NAME:OPTION=VALUE,…")
    ] = None,
    model: Model = "builtin",
    truncate: Truncate = False,
) -> None:
    """Explain one pair by several methods: a picture with a column for every method, a row for every selection."""
    with plain_errors():
        check_writable(out_file, (".png", ".svg", ".pdf"), "--out")
        with spinner("loading libraries"):
            from secondsight.encoders.registry import load
            from secondsight.explanation import explain as explain_pair
            from secondsight.methods import METHODS, method_of_text
            from secondsight.support.files import atomic
            from secondsight.visual.figures import method_grid

        explainers = [method_of_text(text) for text in method or sorted(METHODS)]
        with spinner(f"loading {model}"):
            dual = load(model)
        rows: list[str | None] = [*(select or [])] or [None]
        explanations = []
        for explainer in explainers:
            with spinner(f"explaining by {explainer.name}"):
                e = explain_pair(dual, photo, caption, explainer, truncate=truncate)
                for selection in rows:
                    e.right_layout.select(selection)
            explanations.append(e)
            _print_summary(explainer.name, e)
        figure = method_grid(explanations, rows)
        with atomic(out_file) as file:
            figure.savefig(file, format=out_file.suffix[1:].lower(), dpi=200)
        print_written(out_file)


def _print_summary(name: str, e: Explanation) -> None:
    """One line for one method: the interaction, the error and what it cost."""
    spent = e.about.get("left", {})
    cost = next((f"{spent[unit]} {unit}" for unit in ("encodings", "passes", "evaluations") if unit in spent), "")
    error = f"error {e.error:.1e}, {e.about['seconds']:.1f} s, {cost}"
    out.print(f"{name:22} interaction {e.terms.interaction:+.4f}, {error}")
