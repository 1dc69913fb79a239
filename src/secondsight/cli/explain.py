"""`secondsight explain` and `secondsight compare`: one pair, by one method or by several."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secondsight.cli.common import (
    Device,
    Model,
    Precision,
    Quiet,
    Truncate,
    check_photograph,
    check_writable,
    out,
    parse_box,
    plain_errors,
    print_written,
    spinner,
    warn,
)
from secondsight.cli.edits import How, check_edit, edited
from secondsight.cli.many import explain_pairs, is_many, read_pairs
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.explanation import Explanation
    from secondsight.model import DualEncoder

Box = tuple[float, float, float, float]

_ENDINGS = (".html", ".png", ".svg", ".pdf", ".json", ".npz", ".csv", ".parquet")

Photo = Annotated[
    str,
    typer.Argument(
        help="Image file; a folder, or a .csv or .jsonl list with photo and caption; or a text.", metavar="PHOTO"
    ),
]
Caption = Annotated[
    str | None,
    typer.Argument(help="Text, in quotes; or a second image file. Lists may have their own.", metavar="CAPTION"),
]
Against = Annotated[
    list[str] | None,
    typer.Option(help="Explain why CAPTION rather than this one; may be repeated, then the best of them."),
]
Select = Annotated[
    str | None,
    typer.Option(
        help="Whole words of the caption whose map to show first, or their characters (11-14); x0,y0,x1,y1 on a second image."
    ),
]
BoxText = Annotated[
    str | None, typer.Option(help="x0,y0,x1,y1 in pixels of the photo: score words for it, or the second image.")
]
MethodName = Annotated[str, typer.Option(help="See: secondsight methods.")]
Layer = Annotated[
    str | None,
    typer.Option(
        help="Where in the model to look: a number (-1 is the last block), input, grounded or output; or IMAGE,TEXT."
    ),
]
Quadrature = Annotated[
    str | None,
    typer.Option(
        help="How integrated-jacobian adds up: gauss-legendre, clenshaw-curtis, gauss-kronrod, trapezoid, riemann."
    ),
]
Steps = Annotated[
    int | None, typer.Option(help="At how many points integrated-jacobian looks; default: as many as --tol needs.")
]
Tolerance = Annotated[float | None, typer.Option(help="How exact sums have to be, such as 0.001.")]
Strategy = Annotated[
    str | None, typer.Option(help="How integrated-jacobian computes: auto, pooled, forward, reverse, paired.")
]
MethodOption = Annotated[
    list[str] | None, typer.Option(help="Any other option of the method as NAME=VALUE; may be repeated.")
]
Scale = Annotated[str, typer.Option(help="The number to explain: similarity, or logit, what the model makes of it.")]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        help="Write .html, .png, .svg, .pdf, .npz, .csv or .parquet; may be repeated. For many photographs: a folder.",
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(help="Words of the caption to leave out: what the number would be, as predicted; may be repeated."),
]
WithoutBox = Annotated[
    list[str] | None,
    typer.Option(help="x0,y0,x1,y1 of the photo to leave out, with or without words; may be repeated."),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Really leave that out and encode again: the measured number as well.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help="Endings of the files in that folder; may be repeated; default: html."),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write every number as JSON; - for the terminal.")]


def explain(
    photo: Photo,
    caption: Caption = None,
    model: Model = "builtin",
    against: Against = None,
    select: Select = None,
    box: BoxText = None,
    without: Without = None,
    without_box: WithoutBox = None,
    verify: Verify = False,
    how: How = "replaced",
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
    formats: Formats = None,
    device: Device = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """Explain a photograph and a caption: every word's score here, pictures and numbers as files. Or many, from a list."""
    with plain_errors():
        many = is_many(photo)
        if many:
            _check_many(photo, out_file, json_file, formats, box or against or without or without_box)
        check_edit([*(without or []), *(without_box or [])], verify)
        region = None if box is None else parse_box(box)
        json_to_terminal = str(json_file) == "-"
        files = [*(out_file or []), *([] if json_file is None or json_to_terminal else [json_file])]
        pairs = read_pairs(photo, caption) if many else []
        if not many:
            _check_outputs(out_file or [], None if json_to_terminal else json_file)
            _check_inputs(model, photo, caption, against or [])
        with spinner("loading libraries"):
            from secondsight.encoders.registry import load
            from secondsight.explanation import explain as explain_pair
            from secondsight.methods import method_of_text
            from secondsight.methods.options import parse_layer, parse_options
            from secondsight.support.files import ensure_folder

        block = None if layer is None else parse_layer(layer)
        options = dict(layer=block, quadrature=quadrature, steps=steps, tol=tol, strategy=strategy)
        explicit = {name: value for name, value in options.items() if value is not None}
        explainer = method_of_text(method, **parse_options(option or []) | explicit)
        with spinner(f"loading {model}"):
            dual = _placed(load(model), device, precision)
        if many:

            def explain_file(file: str, text: str) -> Explanation:
                return explain_pair(dual, file, text, explainer, scale=scale, truncate=truncate)

            folder = ensure_folder(files[0])
            if explain_pairs(pairs, explain_file, folder, formats or ["html"], select, quiet):
                raise typer.Exit(1)
            return
        with spinner(_activity(caption)):
            e = explain_pair(dual, photo, caption, explainer, against=against, scale=scale, truncate=truncate)
            # Both fail on bad input, so they come before anything is printed or written.
            selection = _selection(select, e)
            scores = _word_scores(e, region)
            edit = edited(e, dual, without, without_box, verify=verify, how=how)
            if edit is not None:
                e = replace(e, about={**e.about, "edit": edit.to_json()})
            for path in files:
                e.save(path, selection, box=region)
        if json_to_terminal:
            print(json.dumps(e.to_json(), ensure_ascii=False))
        elif not quiet:
            _print(e, selection, region, scores, select, box)
            if edit is not None:
                out.print(edit.sentence, soft_wrap=True)
            for path in files:
                print_written(path)


def _placed(dual: DualEncoder, device: str | None, precision: str | None) -> DualEncoder:
    """The model on its device and in its precision; the module that moves it is imported only where it is needed."""
    if device is None and precision is None:
        return dual
    from secondsight.scale.place import move_model

    return move_model(dual, device, precision)


def _check_many(
    photo: str, out_file: list[Path] | None, json_file: Path | None, formats: list[str] | None, single: Any
) -> None:
    if len(out_file or []) != 1 or (out_file or [Path()])[0].suffix.lower() in _ENDINGS:
        raise InputError(
            f"{photo!r} is a folder or a list: give one folder for the files of its photographs, --out FOLDER"
        )
    if json_file is not None or single:
        raise InputError("--json, --box, --against and --without are for one pair: with many, use --format json")
    for ending in formats or []:
        if f".{ending}" not in _ENDINGS:
            raise InputError(f"unknown --format {ending!r}; known: {', '.join(e[1:] for e in _ENDINGS)}")


def _check_outputs(pictures: list[Path], numbers: Path | None) -> None:
    for path in pictures:
        check_writable(path, _ENDINGS, "--out")
    check_writable(numbers, (".json",), "--json")


def _check_inputs(model: str, photo: str, caption: str | None, rivals: list[str]) -> None:
    """Refuse unknown models, missing captions and files, and damaged photographs before the libraries are loaded."""
    from secondsight.encoders.names import known_name

    known_name(model)
    if caption is None:
        raise InputError(f"there is no caption for {photo!r}: give one in quotes behind it")
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
    selection: Any = parse_box(select, "--select") if boxed and select is not None else select
    offsets = re.fullmatch(r"(\d+)-(\d+)", select or "")
    if offsets and offsets[0] not in (e.right_layout.text or ""):
        selection = int(offsets[1]), int(offsets[2])
    e.toward_left(selection)
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
    out.print(terminal(e, scores, title, selection=selection, box=region, columns=wide))
    if region and scores is None:
        out.print(_strongest_cell(e.T, region, f"box {box}"))
    if select is not None:
        out.print(_strongest_cell(e, selection, repr(select)))
        if region and scores is not None:
            both = e.toward_left(selection) @ e.left_layout.select(region).to(e.left_effects)
            out.print(f"{select!r} × box {box}: {float(both):+.4f}")


def _activity(caption: str | None) -> str:
    """What the spinner says: a long caption takes as long as it has words."""
    words = len((caption or "").split())
    return "explaining" if words < 40 else f"explaining {words} words, which takes a while"


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
        pair = dual.fitting(photo, caption)
        if pair.left.kind != "image":
            raise InputError(
                "compare draws maps over a picture, and there is none on the left: run secondsight explain with every --method"
            )
        # What is wrong with the inputs is wrong for every method.
        pair.left.prepare([photo])
        pair.right.prepare([caption], truncate=truncate)
        rows: list[str | None] = [*(select or [])] or [None]
        explanations = []
        for explainer in explainers:
            try:
                with spinner(f"explaining by {explainer.name}"):
                    e = explain_pair(dual, photo, caption, explainer, truncate=truncate)
            except InputError as problem:
                if method:
                    raise
                warn(f"without {explainer.name}: {problem}")
                continue
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
