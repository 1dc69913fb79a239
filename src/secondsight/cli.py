"""The command line: `secondsight explain PHOTO "CAPTION"`, `secondsight models`, `secondsight methods`."""

from __future__ import annotations

import ast
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from secondsight.support.errors import AdapterError, InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Explain dual encoders: which part of a caption matched which part of an image, by how much, and how exactly.",
    rich_markup_mode=None,
)

out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def _fail(message: str) -> NoReturn:
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    raise typer.Exit(2)


@contextmanager
def _plainly() -> Iterator[None]:
    """Bad input ends with one sentence and exit code 2; warnings are one line each."""

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        # Other libraries' housekeeping is not the user's business.
        if category.__module__.startswith("secondsight") or category is UserWarning:
            err.print(Text.assemble(("warning: ", "yellow"), str(message).splitlines()[0]), soft_wrap=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", module=r"(?!secondsight)")
        warnings.showwarning = show  # type: ignore[assignment]  # the rest of its arguments are not used
        try:
            yield
        except (InputError, AdapterError) as problem:
            _fail(str(problem))
        except KeyboardInterrupt:
            err.print("stopped")
            raise typer.Exit(130) from None
        except MemoryError:
            _fail("not enough memory: use a smaller model, image or number of steps")


@contextmanager
def _progress(what: str) -> Iterator[None]:
    """A spinner on the error stream while something takes its time; nothing where nobody watches."""
    if err.is_terminal:
        with err.status(what):
            yield
    else:
        yield


def _layer(value: str) -> int | str | tuple[int | str, ...]:
    try:
        parts: list[int | str] = [v if v == "input" else int(v) for v in (part.strip() for part in value.split(","))]
    except ValueError:
        parts = []
    if len(parts) in (1, 2):
        return parts[0] if len(parts) == 1 else tuple(parts)
    raise InputError(f"--layer {value!r} is neither a number or 'input' nor two of them as LEFT,RIGHT")


def _box(value: str, option: str = "--box") -> tuple[float, float, float, float]:
    try:
        numbers = [float(v) for v in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise InputError(f"{option} {value!r} is not four numbers x0,y0,x1,y1 in pixels of the photo")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _options(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE, the value a Python literal or else a word."""
    made = {}
    for one in given:
        name, found, value = one.partition("=")
        if not found or not name.isidentifier():
            raise InputError(f"--option {one!r} is not NAME=VALUE")
        try:
            made[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            made[name] = value
    return made


def _method(named: str, **more: Any) -> Any:
    """NAME or NAME:OPTION=VALUE,… with `more` options, which count before those of the name."""
    from secondsight.methods import method_named

    name, _, options = named.partition(":")
    return method_named(name, **_options(options.split(",") if options else []) | more)


def _writable(path: Path | None, endings: tuple[str, ...], option: str) -> None:
    """Refuse before any work what could not be written after it."""
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise InputError(f"{option} {str(path)!r} must end in {', '.join(endings)}")
    if not path.parent.is_dir():
        raise InputError(f"{option} {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    if path.is_dir():
        raise InputError(f"{option} {str(path)!r} is a folder: give a file name")


@app.command()
def explain(
    photo: Annotated[str, typer.Argument(help="Image file; a text or sound file for other pairs.", metavar="PHOTO")],
    caption: Annotated[str, typer.Argument(help="Text, in quotes; or a second image file.", metavar="CAPTION")],
    model: Annotated[str, typer.Option(help="See: secondsight models.")] = "builtin",
    against: Annotated[
        list[str] | None, typer.Option(help="Why CAPTION rather than this one; the best of several; may be repeated.")
    ] = None,
    select: Annotated[
        str | None, typer.Option(help="Words whose heatmap to show first; x0,y0,x1,y1 on a second image.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="x0,y0,x1,y1 in pixels of the photo: score words for it, or the second image.")
    ] = None,
    method: Annotated[str, typer.Option(help="See: secondsight methods.")] = "integrated-jacobian",
    layer: Annotated[str | None, typer.Option(help="Block whose input is attributed, or input; or LEFT,RIGHT.")] = None,
    quadrature: Annotated[
        str | None, typer.Option(help="gauss-legendre, clenshaw-curtis, gauss-kronrod, trapezoid, riemann.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Fixed number of nodes; default: as many as --tol needs.")] = None,
    tol: Annotated[float | None, typer.Option(help="Relative residual, or standard error, to reach.")] = None,
    strategy: Annotated[str | None, typer.Option(help="auto, pooled, forward, reverse, paired.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Any other option of the method as NAME=VALUE; may be repeated.")
    ] = None,
    scale: Annotated[str, typer.Option(help="similarity, or logit.")] = "similarity",
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut captions longer than the context.")] = False,
    out_file: Annotated[
        list[Path] | None, typer.Option("--out", help="Write .html, .png, .svg, .pdf or .npz; may be repeated.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every number as JSON; - for the terminal.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Explain one pair: the words' scores and the four terms here, pictures and numbers as files."""
    with _plainly():
        region = None if box is None else _box(box)
        to_terminal = json_file is not None and str(json_file) == "-"
        for path in out_file or []:
            _writable(path, (".html", ".png", ".svg", ".pdf", ".json", ".npz"), "--out")
        if not to_terminal:
            _writable(json_file, (".json",), "--json")
        if not caption.strip():
            raise InputError("the caption is empty: give at least one word")
        from secondsight.inputs.kinds import possible_kinds

        for given in (photo, caption, *(against or [])):
            if "text" not in possible_kinds(given) and not os.path.exists(given):
                raise InputError(f"{given!r} does not exist")
        with _progress("loading libraries"):
            from secondsight.encoders.registry import load
            from secondsight.explanation import explain as explain_pair
            from secondsight.visual.terminal import terminal

        named = dict(
            layer=None if layer is None else _layer(layer),
            quadrature=quadrature,
            steps=steps,
            tol=tol,
            strategy=strategy,
        )
        chosen = _method(method, **_options(option or []) | {k: v for k, v in named.items() if v is not None})
        with _progress(f"loading {model}"):
            dual = load(model)
        with _progress("explaining"):
            e = explain_pair(dual, photo, caption, chosen, against=against, scale=scale, truncate=truncate)
            # Both fail on bad input, so they come before anything is printed or written.
            picked = _selection(select, e)
            e.right_layout.select(picked)
            scores = _scores(e, region) if region else None
            for path in out_file or []:
                e.save(path, picked, box=region)
            if json_file is not None and not to_terminal:
                e.save(json_file)
        if to_terminal:
            import json

            print(json.dumps(e.to_json(), ensure_ascii=False))
        elif not quiet:
            title = f"words × box {box}" if region else None
            # Colours and half blocks are for people; a pipe gets the tables alone.
            wide = min(56, out.width) if out.is_terminal and out.color_system not in (None, "standard") else 0
            out.print(terminal(e, scores, title, selection=picked, wide=wide))
            if region and scores is None:
                out.print(_strongest(e.T, region, f"box {box}"))
            if select is not None:
                out.print(_strongest(e, picked, repr(select)))
            for written in [*(out_file or []), *([json_file] if json_file else [])]:
                out.print(f"wrote {written}", soft_wrap=True)


def _selection(select: str | None, e: Any) -> Any:
    """What --select means: words of a text, a box of a second image."""
    return _box(select, "--select") if select is not None and e.right_layout.modality == "image" else select


def _scores(e: Any, region: tuple[float, float, float, float]) -> list[tuple[str, float]] | None:
    """Words scored for a box; None for a second image, which has a map instead."""
    if {e.left_layout.modality, e.right_layout.modality} != {"image"}:
        return list(e.box(*region))
    e.left_layout.select(region)
    return None


def _strongest(e: Any, selection: Any, named: str) -> str:
    """Where a selection of the right side matched most, in original pixels of the left."""
    from secondsight.algebra.layout import GridLayout

    values = e.toward_left(selection)
    total = f"{named} × whole {e.left_layout.modality}: {float(values[e.left_layout.visible].sum()):+.4f}"
    if not isinstance(e.left_layout, GridLayout):
        return total
    cell = int(e.left_layout.view(values).flatten().argmax())
    x0, y0, x1, y1 = (round(float(v)) for v in e.left_layout.cell_boxes()[cell])
    return f"{total}, strongest in the cell {x0},{y0},{x1},{y1}"


@app.command()
def compare(
    photo: Annotated[str, typer.Argument(help="Image file.", metavar="PHOTO")],
    caption: Annotated[str, typer.Argument(help="Text, in quotes.", metavar="CAPTION")],
    out_file: Annotated[Path, typer.Option("--out", help="Write .png, .svg or .pdf.")],
    select: Annotated[list[str] | None, typer.Option(help="Words for a row of maps; may be repeated.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="A column; may be repeated; default: every method. NAME:OPTION=VALUE,…")
    ] = None,
    model: Annotated[str, typer.Option(help="See: secondsight models.")] = "builtin",
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut captions longer than the context.")] = False,
) -> None:
    """Explain one pair by several methods: a picture with a column for every method, a row for every selection."""
    with _plainly():
        _writable(out_file, (".png", ".svg", ".pdf"), "--out")
        with _progress("loading libraries"):
            from secondsight.encoders.registry import load
            from secondsight.explanation import explain as explain_pair
            from secondsight.methods import METHODS
            from secondsight.support.files import atomic
            from secondsight.visual.figures import method_grid

        chosen = [_method(named) for named in method or sorted(METHODS)]
        with _progress(f"loading {model}"):
            dual = load(model)
        rows: list[Any] = [*(select or [])] or [None]
        made = []
        for one in chosen:
            with _progress(f"explaining by {one.name}"):
                made.append(explain_pair(dual, photo, caption, one, truncate=truncate))
                for selection in rows:
                    made[-1].right_layout.select(selection)
            e = made[-1]
            spent = e.about.get("left", {})
            cost = next((f"{spent[k]} {k}" for k in ("encodings", "passes", "evaluations") if k in spent), "")
            error = f"error {e.error:.1e}, {e.about['seconds']:.1f} s, {cost}"
            out.print(f"{one.name:22} interaction {e.terms.interaction:+.4f}, {error}")
        figure = method_grid(made, rows)
        with atomic(out_file) as file:
            figure.savefig(file, format=out_file.suffix[1:].lower(), dpi=200)
        out.print(f"wrote {out_file}", soft_wrap=True)


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(help="See: secondsight experiments; or paper, scenes-paper.", metavar="NAME")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for records, tables, figures and the report.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="KIND:PATH[#PART], or a path; see: secondsight experiments. Several for paper."),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="May be repeated; default: builtin.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME:OPTION=VALUE,…; may be repeated; 'all' for every method.")
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="A layer, LEFT,RIGHT, or 'all' of the image side; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Look at the first captions only.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    rule: Annotated[str, typer.Option(help="How maps meet boxes: pixel, centre, touch.")] = "pixel",
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the experiment as NAME=VALUE; may be repeated.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: pairs are explained by a cluster first.")] = "local",
    address: Annotated[str | None, typer.Option(help="The Ray cluster; default: Ray on this machine.")] = None,
    actors: Annotated[int, typer.Option(help="Ray workers that explain.", min=1)] = 1,
    gpus: Annotated[float, typer.Option(help="GPUs of each of them.", min=0)] = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Run an experiment on a data set: tables here, and a report in a folder; starts again where it was stopped."""
    with _plainly():
        with _progress("loading libraries"):
            from secondsight.encoders.registry import load
            from secondsight.evaluation import EXPERIMENTS
            from secondsight.evaluation import evaluate as run
            from secondsight.evaluation.studies.paper import paper
            from secondsight.methods import METHODS

        watched = err.is_terminal and not quiet

        def tell(label: str, done: int, whole: int) -> None:
            if watched:
                err.print(f"\r{label}: {done} of {whole}", end="" if done < whole else "\n", soft_wrap=True)

        if name == "scenes-paper":
            from secondsight.evaluation.studies.scenes import scenes_paper

            _none_of(name, data=data, method=method, layer=layer, limit=limit)
            if model is not None and len(model) > 1:
                raise InputError("'scenes-paper' looks at one model: give one --model")
            table = scenes_paper(
                out_dir, model=(model or ["scenes"])[0], seed=seed, progress=tell, **_options(option or [])
            )
            if not quiet:
                out.print(_plain_table("what holds in the scenes' world", table.drop(columns=["source", "cases"])))
                out.print(f"wrote {out_dir / 'findings.html'}", soft_wrap=True)
            return
        if not data:
            raise InputError(f"{name!r} needs data: give --data; see: secondsight experiments")
        if name == "paper":
            named_models = {one: one for one in model} if model else None
            table = paper(
                data, out_dir, models=named_models, limit=limit, seed=seed, progress=tell, **_options(option or [])
            )
            if not quiet:
                out.print(_plain_table("ours beside the published numbers", table))
                out.print(f"wrote {out_dir / 'paper.html'}", soft_wrap=True)
            return
        if name not in EXPERIMENTS:
            raise InputError(
                f"unknown experiment {name!r}; known: {', '.join(sorted(EXPERIMENTS))}, paper, scenes-paper"
            )
        if len(data) > 1:
            raise InputError(f"{name!r} looks at one data set: give one --data")
        named = sorted(METHODS) if method == ["all"] else method or []
        methods = [(one, _method(one)) for one in named]
        layers = ["all"] if layer == ["all"] else [_layer(one) for one in layer or []]
        chosen = model or ["builtin"]
        if engine not in ("local", "ray"):
            raise InputError(f"unknown engine {engine!r}; known: local, ray")
        if engine == "ray":
            _ray_engine().explain_with_ray(
                name, data[0], chosen, methods, layers=layers, out=out_dir, limit=limit, address=address, actors=actors,
                gpus=gpus, progress=lambda done, whole: tell("explaining", done, whole), seed=seed, rule=rule,
                **_options(option or []),
            )  # fmt: skip
        with _progress(f"loading {', '.join(chosen)}"):
            models = [(one, load(one)) for one in chosen]
        tables = run(
            name, data[0], models, methods, layers=layers, out=out_dir, limit=limit, seed=seed, rule=rule, progress=tell,
            **_options(option or []),
        )  # fmt: skip
        if not quiet:
            for title in [t for t in tables if t not in ("classes", "failures")]:
                out.print(_plain_table(title, tables[title]))
            out.print(f"wrote {out_dir / name / 'report.html'}", soft_wrap=True)


def _none_of(name: str, **given: Any) -> None:
    """`InputError` for options that an experiment with its own data and methods does not take."""
    wrong = [option for option, value in given.items() if value]
    if wrong:
        raise InputError(f"{name!r} chooses its own data and methods: leave out --{wrong[0]}")


def _plain_table(title: str, table: Any) -> Any:
    """A data frame as the terminal shows it; a wide one with few rows stands on its side."""
    from rich.table import Table

    from secondsight.evaluation.report import shown_value, with_names

    shown = with_names(table)
    columns, rows = (
        list(map(str, shown.columns)),
        [list(map(shown_value, row)) for row in shown.itertuples(index=False)],
    )
    made = Table(title=title, title_justify="left", box=None, header_style="bold")
    if len(columns) > 6 and len(rows) <= 4:
        columns, *rows = [list(line) for line in zip(columns, *rows, strict=True)]
    for number, column in enumerate(columns):
        made.add_column(column, no_wrap=not number, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


@app.command()
def finetune(
    data: Annotated[str, typer.Option(help="KIND:PATH[#PART], or a path; see: secondsight experiments.")],
    model: Annotated[str, typer.Option(help="open_clip:ARCHITECTURE/TAG_OR_PATH, or scenes.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for checkpoints, log and report.")],
    epochs: Annotated[int, typer.Option(help="Times through the data.")] = 5,
    batch: Annotated[int, typer.Option(help="Pairs in a batch, of all processes together.")] = 64,
    lr: Annotated[float, typer.Option(help="Learning rate after the warm-up.")] = 1e-5,
    start_lr: Annotated[float, typer.Option(help="Learning rate before it.")] = 1e-7,
    warm_up: Annotated[int | None, typer.Option(help="Steps of the rise; default: the first epoch's.")] = None,
    final_lr: Annotated[
        float | None, typer.Option(help="Learning rate of the last step, to which it falls; default: it stays.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="AdamW's.")] = 1e-4,
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
    limit: Annotated[int | None, typer.Option(help="Use the first pairs only.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of pairs.")] = 0,
    evaluate_on: Annotated[
        str | None, typer.Option("--evaluate", help="Data on which to compare grounding before and after.")
    ] = None,
    evaluate_limit: Annotated[int | None, typer.Option(help="Captions of it to look at.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Fine-tune an open_clip model, or the scenes model, on captions, and compare what it grounds before and after."""
    with _plainly():
        with _progress("loading libraries"):
            from secondsight.data import open_data
            from secondsight.encoders.registry import load
            from secondsight.evaluation import evaluate as run
            from secondsight.training import Recipe, tuned_name
            from secondsight.training import finetune as tune

        recipe = Recipe(epochs, batch, lr, start_lr, warm_up, weight_decay, precision, seed, final_lr)
        opened = open_data(data)
        judged = open_data(evaluate_on) if evaluate_on else None
        watched = err.is_terminal and not quiet

        def tell(step: int, whole: int, loss: float) -> None:
            if watched:
                err.print(f"\rstep {step} of {whole}, loss {loss:.4f}", end="" if step < whole else "\n")

        final = tune(model, opened, out_dir, recipe, limit=limit, progress=tell)
        if not quiet:
            out.print(f"wrote {final}", soft_wrap=True)
        if judged is not None:
            both = [("before", load(model)), ("after", load(tuned_name(model, final)))]
            tables = run("compare", judged, both, out=out_dir, limit=evaluate_limit, seed=seed)
            if not quiet:
                out.print(_plain_table("overall", tables["overall"]))
                out.print(f"wrote {out_dir / 'compare' / 'report.html'}", soft_wrap=True)


@app.command("scenes")
def export_scenes(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for images and annotations in COCO's format.")],
    n: Annotated[int, typer.Option("--n", help="How many scenes.")] = 200,
    style: Annotated[str, typer.Option(help="noto, twemoji or fluent.")] = "noto",
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 0,
    captions: Annotated[int, typer.Option(help="Captions a scene.")] = 1,
    size: Annotated[int, typer.Option(help="Pixels of the square images.")] = 96,
    split: Annotated[str, typer.Option(help="The split's name in the files.")] = "val",
) -> None:
    """Draw scenes with known objects, captions, boxes and masks, as a data set in COCO's format."""
    with _plainly():
        with _progress("loading libraries"):
            from secondsight.data.scenes import Scenes, export_coco
        made = Scenes(n, style=style, seed=seed, captions=captions, size=size)
        with _progress(f"drawing {n} scenes"):
            place = export_coco(made, out_dir, split)
        out.print(f"wrote {place}: read it as --data coco:{place}#{split}", soft_wrap=True)


@app.command()
def decompose(
    data: Annotated[str, typer.Option(help="photos:FOLDER, texts:FILE, or a data set; see: secondsight experiments.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the stores: OUT/image, OUT/text.")],
    model: Annotated[str, typer.Option(help="See: secondsight models.")] = "builtin",
    side: Annotated[str, typer.Option(help="image, text or both.")] = "both",
    method: Annotated[str, typer.Option(help="NAME or NAME:OPTION=VALUE,…")] = "integrated-jacobian",
    dtype: Annotated[str, typer.Option(help="How vectors are kept: float16, int8 or float32.")] = "float16",
    limit: Annotated[int | None, typer.Option(help="The first inputs only.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Inputs at once; default: what fits.", min=1)] = None,
    max_memory: Annotated[float | None, typer.Option(help="GB for that; default: a quarter of what is free.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images.", min=0)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …")] = None,
    precision: Annotated[str | None, typer.Option(help="Of the model's weights: float32, bf16 or fp16.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for several machines.")] = "local",
    address: Annotated[str | None, typer.Option(help="The Ray cluster; default: Ray on this machine.")] = None,
    actors: Annotated[int, typer.Option(help="Ray workers that decompose.", min=1)] = 1,
    gpus: Annotated[float, typer.Option(help="GPUs of each of them.", min=0)] = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Keep the contributions of many inputs on disk, to explain any pair without the model; goes on where it was stopped."""
    with _plainly():
        if side not in ("image", "text", "both"):
            raise InputError(f"unknown side {side!r}; known: image, text, both")
        if engine not in ("local", "ray"):
            raise InputError(f"unknown engine {engine!r}; known: local, ray")
        with _progress("loading libraries"):
            from secondsight.encoders.registry import load
            from secondsight.scale import decompose as run
            from secondsight.scale import open_source, open_store
            from secondsight.scale.place import placed
            from secondsight.support.files import ensure_folder

        chosen = _method(method)
        kinds = ["image", "text"] if side == "both" else [side]
        prefix = data.partition(":")[0]
        kinds = [k for k in kinds if (prefix, k) not in (("photos", "text"), ("texts", "image"))] or kinds
        with _progress("reading the data"):
            sources = [open_source(data, kind).first(limit) for kind in kinds]
        memory = None if max_memory is None else max_memory * 1e9
        ensure_folder(out_dir)
        dual = None
        if engine == "local":
            with _progress(f"loading {model}"):
                dual = placed(load(model), device, precision)
        for source in sources:
            place = out_dir / source.kind
            tell = _telling(source.kind, quiet)
            if dual is not None:
                report = run(
                    source, dual, place, chosen, dtype=dtype, batch=batch, max_memory=memory, workers=workers, progress=tell
                )  # fmt: skip
            else:
                report = _ray_engine().decompose_with_ray(
                    source, model, place, chosen, dtype=dtype, address=address, actors=actors, gpus=gpus, batch=batch,
                    max_memory=memory, device=device, precision=precision, progress=tell,
                )  # fmt: skip
            if err.is_terminal and not quiet:
                err.print()
            for key, problem in report.problems.items():
                err.print(Text.assemble(("left out: ", "yellow"), f"{key}: {problem}"), soft_wrap=True)
            if not quiet:
                facts = open_store(place).summary()
                out.print(
                    f"{place}: {facts['entries']} entries, {facts['bytes'] / 1e6:.1f} MB; {report.done} new, "
                    f"{report.skipped} were there, {len(report.problems)} left out; largest residual "
                    f"{facts['largest residual']:.1e}, rounding {facts['largest rounding']:.1e}",
                    soft_wrap=True,
                )


def _ray_engine() -> Any:
    try:
        from secondsight.scale import ray_engine
    except ModuleNotFoundError as missing:
        raise InputError(f"--engine ray needs {missing.name}: pip install 'secondsight[scale]'") from None
    return ray_engine


def _telling(kind: str, quiet: bool) -> Any:
    """Progress with throughput and time left, on one line that is written over."""
    if quiet or not err.is_terminal:
        return None

    def tell(report: Any) -> None:
        left = report.left
        wait = (
            f", {left / 60:.0f} min left" if 90 < left < float("inf") else f", {left:.0f} s left" if left <= 90 else ""
        )
        done = report.done + report.skipped + len(report.problems)
        err.print(f"\r{kind}: {done} of {report.whole}, {report.rate:.1f} a second{wait}    ", end="")

    return tell


@app.command()
def search(
    store: Annotated[Path, typer.Argument(help="A store of decompose, such as OUT/image.")],
    query: Annotated[
        str, typer.Argument(help="What to look for: a text, in quotes; an image file for stores of texts.")
    ],
    model: Annotated[str, typer.Option(help="The store's model, for the query.")] = "builtin",
    k: Annotated[int, typer.Option("-k", help="How many.", min=1)] = 5,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …")] = None,
    precision: Annotated[str | None, typer.Option(help="As the store's: float32, bf16 or fp16.")] = None,
) -> None:
    """The entries of a store that match a query best, why each does, and which words carry the ranking."""
    with _plainly():
        with _progress("loading libraries"):
            from secondsight.algebra.layout import word_scores, words_of
            from secondsight.encoders.registry import load
            from secondsight.scale import open_store
            from secondsight.scale import search as found_in
            from secondsight.scale.place import placed
            from secondsight.scale.search import query_of, words_of_ranking
        opened = open_store(store)
        with _progress(f"loading {model}"):
            dual = placed(load(model), device, precision)
        hits = found_in(opened, query_of(opened, dual, query), k)
        for place, hit in enumerate(hits, 1):
            line = Text.assemble((f"{place:3} {hit.similarity:+.4f} ", "bold"), hit.key)
            pair = hit.pair
            if words_of(pair.right_layout):
                scores = word_scores(pair.right_layout, pair.toward_right(None))
                line.append("  " + ", ".join(f"{word} {value:+.3f}" for word, value in scores), "dim")
            out.print(line, soft_wrap=True)
        if len(hits) > 1 and words_of(hits[0].query.layout):
            scores = words_of_ranking(hits)
            out.print("words above the rest: " + ", ".join(f"{w} {v:+.4f}" for w, v in scores), soft_wrap=True)


@app.command()
def verify(store: Annotated[Path, typer.Argument(help="A store of decompose, such as OUT/image.")]) -> None:
    """Read a whole store and its checksums; exit code 1 where something is damaged."""
    with _plainly():
        from secondsight.scale import open_store

        opened = open_store(store)
        problems = opened.verify()
        for problem in problems:
            err.print(problem, soft_wrap=True)
        facts = opened.summary()
        out.print(f"{facts['entries']} entries, {len(problems)} damaged", soft_wrap=True)
        if problems:
            raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[
        list[str] | None, typer.Option(help="Offered models, the first by default; may be repeated.")
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="A folder of photographs for the search.")] = None,
    host: Annotated[str, typer.Option(help="Address; others than 127.0.0.1 let other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 8337,
    seconds: Annotated[float, typer.Option(help="What one explanation may take.", min=1)] = 120.0,
    megabytes: Annotated[float, typer.Option(help="What one request may send.", min=0.1)] = 32.0,
) -> None:
    """Serve the app on this machine: photos and captions in the browser, a JSON API, a search through a folder."""
    with _plainly():
        with _progress("loading libraries"):
            try:
                from secondsight.server import Limits, create_app
                from secondsight.server import serve as run
                from secondsight.server.app import LOOPBACK
            except ImportError as missing:
                raise InputError(f"the app needs {missing.name}: pip install 'secondsight[web]'") from None
            from secondsight.encoders.registry import known_name
        names = model or ["builtin"]
        for name in names:
            known_name(name)
        own = host in LOOPBACK
        limits = Limits(body=round(megabytes * 2**20), seconds=seconds)
        made = create_app(names, photos=photos, limits=limits, hosts=LOOPBACK if own else None)
        shown = f"[{host}]" if ":" in host else host
        out.print(f"http://{shown}:{port}  (Ctrl-C stops)", soft_wrap=True)
        if not own:
            err.print(Text.assemble(("warning: ", "yellow"), "anybody who can reach this address can use it"))
        run(made, host, port)


@app.command()
def experiments() -> None:
    """List the experiments and the kinds of data."""
    with _plainly():
        from secondsight.data import KINDS
        from secondsight.evaluation import EXPERIMENTS

        for name, experiment in sorted(EXPERIMENTS.items()):
            summary = (experiment.__doc__ or "").strip().splitlines()[0]
            out.print(Text.assemble((name, "bold"), f"\n  {summary}"), soft_wrap=True)
        about = "The models of [M25] Tables 1-4 on your data, beside the published numbers."
        out.print(Text.assemble(("paper", "bold"), f"\n  {about}"), soft_wrap=True)
        about = "All experiments on the scenes model in its own world, and which of the paper's findings hold there."
        out.print(Text.assemble(("scenes-paper", "bold"), f"\n  {about}"), soft_wrap=True)
        out.print(Text.assemble(("--data", "bold"), *(f"\n  {kind.help}" for kind in KINDS.values())), soft_wrap=True)


@app.command()
def doctor() -> None:
    """What this installation has and what it misses; for bug reports. Exit code 1 where something is broken."""
    with _plainly():
        with _progress("looking"):
            from secondsight.doctor import report
        lines, broken = report()
        for name, found in lines:
            out.print(Text.assemble((f"{name:18}", "bold"), found), soft_wrap=True)
        for problem in broken:
            err.print(Text.assemble(("broken: ", "bold red"), problem), soft_wrap=True)
        if broken:
            raise typer.Exit(1)


@app.command()
def models() -> None:
    """List the kinds of models and how to name them."""
    from secondsight.encoders.registry import FAMILIES

    for family in FAMILIES:
        out.print(Text.assemble((family.example, "bold"), f"\n  {family.about}"), soft_wrap=True)
    out.print(
        Text.assemble(("in Python", "bold"), "\n  ss.wrap(model_object, preprocess, tokenizer), ss.TorchEncoder(...)")
    )


@app.command()
def methods() -> None:
    """List the methods."""
    from secondsight.methods import METHODS

    for name, method in sorted(METHODS.items()):
        summary = (method.__doc__ or "").strip().splitlines()[0]
        out.print(Text.assemble((name, "bold"), f"\n  {summary}"), soft_wrap=True)


def _version(value: bool) -> bool:
    if value:
        from importlib.metadata import version

        out.print(f"secondsight {version('secondsight')}")
        raise typer.Exit()
    return value


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `secondsight` command."""
    # Set before any of them is imported: no library of ours needs the hub to explain with local weights, and their
    # progress bars belong to nobody here.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # What went wrong is said once, by us.
    logging.disable(logging.ERROR)
    try:
        app()
    except BrokenPipeError:
        # The reader of our output has left (head, less); that is no error.
        sys.stderr.close()
        raise SystemExit(0) from None
