"""`secondsight evaluate`: an experiment on a data set, or one of the studies that run many experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secondsight.cli.common import (
    Address,
    Gpus,
    Quiet,
    check_engine,
    check_folder,
    import_ray_engine,
    out,
    plain_errors,
    plain_table,
    print_answer,
    print_written,
    progress_line,
    spinner,
)
from secondsight.cli.zero_shot import run_zero_shot
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.evaluation.setting import Layer
    from secondsight.methods import Method

STUDIES = "methods, rivals, paper, scenes-paper, scenes-figures, retrieval, zero-shot"
"""What runs several experiments, or answers a question of its own."""


@dataclass(frozen=True)
class Request:
    """The options of one call."""

    name: str
    out_dir: Path
    data: list[str]
    models: list[str]
    methods: list[str]
    layers: list[str]
    limit: int | None
    seed: int
    rule: str
    options: dict[str, Any]
    engine: str
    address: str | None
    actors: int
    gpus: float
    quiet: bool
    assignments: Sequence[str] = ()

    def progress(self) -> Callable[[str, int, int], None]:
        """A function that shows how many records of a setting are done."""
        write = progress_line(self.quiet)
        return lambda label, count, whole: write(f"{label}: {count} of {whole}", count >= whole)

    def refuse_choices(self, what: str, others: Mapping[str, Any] | None = None) -> None:
        """Refuse what a study that brings its own data leaves no choice of, and `others`, values by option."""
        choices = {
            "data": self.data,
            **(others or {}),
            "method": self.methods,
            "layer": self.layers,
            "limit": self.limit,
        }
        for option, value in choices.items():
            if value:
                raise InputError(f"{self.name!r} chooses its own {what}: leave out --{option}")

    def check_single_data(self) -> None:
        """Refuse several data sets."""
        if len(self.data) > 1:
            raise InputError(f"{self.name!r} looks at one data set: give one --data")

    def parsed_methods(self) -> list[tuple[str, Method]]:
        """Every method with its text as the name."""
        from secondsight.methods import METHODS, method_of_text

        texts = sorted(METHODS) if self.methods == ["all"] else self.methods
        return [(text, method_of_text(text)) for text in texts]

    def parsed_layers(self) -> list[Layer]:
        """Every layer, or "all"."""
        from secondsight.methods.options import parse_layer

        return ["all"] if self.layers == ["all"] else [parse_layer(text) for text in self.layers]


def evaluate(
    name: Annotated[
        str,
        typer.Argument(help=f"See: secondsight experiments; or {STUDIES}.", metavar="NAME"),
    ],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for records, tables, figures and the report.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="KIND:PATH[#PART], or a path; see: secondsight experiments. Several for paper."),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="May be repeated; default: builtin.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME or NAME:OPTION=VALUE,…, such as integrated-jacobian:layer=4/input,reference=noise (LEFT/RIGHT, or "
            "one value for both); may be repeated; 'all' for every method."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="A layer, LEFT/RIGHT, or 'all' of the image side; may be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Look at the first captions only.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    rule: Annotated[str, typer.Option(help="How maps meet boxes: pixel, centre, touch.")] = "pixel",
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the experiment as NAME=VALUE; may be repeated.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: a cluster explains the pairs first.")] = "local",
    address: Address = None,
    actors: Annotated[int, typer.Option(help="Ray workers that explain.", min=1)] = 1,
    gpus: Gpus = 0.0,
    quiet: Quiet = False,
) -> None:
    """Run an experiment on a data set: tables here, a report in a folder; continues where it was stopped."""
    with plain_errors():
        if find_spec("pandas") is None:  # known before a minute of imports
            raise InputError("experiments need the package 'pandas': pip install 'secondsight[eval]'")
        check_folder(out_dir)
        with spinner("loading libraries"):
            import secondsight.evaluation  # noqa: F401  # the slow part of every import below
            from secondsight.methods.options import parse_options
        request = Request(
            name, out_dir, data or [], model or [], method or [], layer or [], limit, seed, rule,
            parse_options(option or []),
            engine, address, actors, gpus, quiet, option or [],
        )  # fmt: skip
        if name == "scenes-paper":
            _scenes_paper(request)
        elif name == "scenes-figures":
            _scenes_figures(request)
        elif name == "retrieval":
            _retrieval(request)
        elif not data:
            raise InputError(f"{name!r} needs data: give --data; see: secondsight experiments")
        elif name == "paper":
            _paper(request)
        elif name == "zero-shot":
            run_zero_shot(request)
        elif name in ("methods", "rivals"):
            _methods(request)
        else:
            _experiment(request)


def _scenes_paper(request: Request) -> None:
    from secondsight.evaluation.studies.scenes import scenes_paper

    request.refuse_choices("data and methods")
    if len(request.models) > 1:
        raise InputError("'scenes-paper' looks at one model: give one --model")
    (model,) = request.models or ["scenes"]
    table = scenes_paper(
        request.out_dir, model=model, seed=request.seed, progress=request.progress(), **request.options
    )
    if not request.quiet:
        out.print(plain_table("what holds in the scenes' world", table.drop(columns=["source", "cases"])))
        print_written(request.out_dir / "findings.html")


def _scenes_figures(request: Request) -> None:
    from secondsight.evaluation.studies.scenes_figures import scenes_figures

    request.refuse_choices("data and models", {"model": request.models})
    table = scenes_figures(request.out_dir, seed=request.seed, progress=request.progress(), **request.options)
    if not request.quiet:
        out.print(plain_table("the paper's measures in the scenes' world", table.drop(columns=["published"])))
        print_written(request.out_dir / "figures.html")


def _retrieval(request: Request) -> None:
    from secondsight.answers import open_collection
    from secondsight.answers.retrieval import retrieval
    from secondsight.encoders.registry import load

    request.check_single_data()
    for option, values in (("model", request.models), ("method", request.methods)):
        if len(values) > 1:
            raise InputError(f"'retrieval' looks at one {option}: give one --{option}")
    if request.layers:
        raise InputError("'retrieval' takes the layer with its method: --method NAME:layer=LAYER")
    options, data = dict(request.options), request.data[0] if request.data else None
    stores = [options.pop(side, None) for side in ("images", "texts")]
    unknown = sorted(set(options) - {"k", "explained", "alpha"})
    if unknown:
        raise InputError(f"'retrieval' has no option {unknown[0]!r}; it has k, explained, alpha, images, texts")
    common: dict[str, Any] = dict(limit=request.limit, seed=request.seed, progress=request.progress(), **options)
    if all(stores):
        answer = retrieval(open_collection(stores[0], stores[1], data), None, request.out_dir, **common)
    elif any(stores) or data is None:
        raise InputError("'retrieval' needs --data, or two stores: --option images=STORE --option texts=STORE")
    else:
        method = request.parsed_methods()[0][1] if request.methods else None
        (model_name,) = request.models or ["builtin"]
        with spinner(f"loading {model_name}"):
            model = load(model_name)
        answer = retrieval(data, model, request.out_dir, method=method, **common)
    if not request.quiet:
        print_answer(answer)


def _paper(request: Request) -> None:
    from secondsight.evaluation.studies.paper import paper

    models = {name: name for name in request.models} or None
    table = paper(
        request.data, request.out_dir, models=models, limit=request.limit, seed=request.seed,
        progress=request.progress(), **request.options,
    )  # fmt: skip
    if not request.quiet:
        out.print(plain_table("ours beside the published numbers", table))
        print_written(request.out_dir / "paper.html")
        print_written(request.out_dir / "figures.html")


def _methods(request: Request) -> None:
    from secondsight.encoders.registry import load
    from secondsight.evaluation.studies.explanations import compare_explanations, explained_settings, rivals

    request.check_single_data()
    name = request.name
    if len(request.models) > 1:
        raise InputError(f"{name!r} looks at one model: give one --model")
    check_engine(request.engine)
    (model_name,), (data,) = request.models or ["builtin"], request.data
    methods, layers = request.parsed_methods(), request.parsed_layers()
    with spinner(f"loading {model_name}"):
        model = load(model_name)
    if request.engine == "ray":
        chosen, alone = explained_settings(name, model, methods)
        _explain_with_ray(request, "pointing", [model_name], chosen, layers, alone=alone, rule=request.rule)
    study = rivals if name == "rivals" else compare_explanations
    tables = study(
        data, (model_name, model), methods, layers=layers, out=request.out_dir, limit=request.limit, seed=request.seed,
        rule=request.rule, progress=request.progress(), **request.options,
    )  # fmt: skip
    if not request.quiet:
        for title, table in tables.items():
            if title != "differences" and len(table):
                out.print(plain_table(title, table))
        for file in sorted(request.out_dir.glob("*.md")) + sorted(request.out_dir.glob("*.html")):
            print_written(file)


def _explain_with_ray(
    request: Request,
    experiment: str,
    models: list[str],
    methods: Sequence[tuple[str, Method]],
    layers: Sequence[Layer],
    **options: Any,
) -> None:
    progress = request.progress()
    import_ray_engine().explain_with_ray(
        experiment, request.data[0], models, methods, layers=layers, out=request.out_dir, limit=request.limit,
        seed=request.seed, address=request.address, actors=request.actors, gpus=request.gpus,
        progress=lambda count, whole: progress("explaining", count, whole), **options,
    )  # fmt: skip


def _experiment(request: Request) -> None:
    from secondsight.encoders.registry import load
    from secondsight.evaluation import EXPERIMENTS
    from secondsight.evaluation import evaluate as run

    name = request.name
    if name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {name!r}; known: {', '.join(sorted(EXPERIMENTS))}, {STUDIES}")
    request.check_single_data()
    methods, layers = request.parsed_methods(), request.parsed_layers()
    check_engine(request.engine)
    model_names = request.models or ["builtin"]
    (data,), progress = request.data, request.progress()
    common: dict[str, Any] = dict(
        layers=layers, out=request.out_dir, limit=request.limit, seed=request.seed, rule=request.rule, **request.options
    )
    if request.engine == "ray":
        _explain_with_ray(request, name, model_names, methods, layers, rule=request.rule, **request.options)
    with spinner(f"loading {', '.join(model_names)}"):
        models = [(model_name, load(model_name)) for model_name in model_names]
    tables = run(name, data, models, methods, progress=progress, **common)
    if not request.quiet:
        for title, table in tables.items():
            if title not in ("classes", "failures"):
                out.print(plain_table(title, table))
        for label, why in tables.left_out.items():
            out.print(f"left out: {label} gave nothing ({why})", markup=False)
        print_written(request.out_dir / name / "report.html")
