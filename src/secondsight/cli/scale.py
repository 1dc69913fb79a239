"""`secondsight decompose` and `verify`: stores of contributions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from secondsight.cli.common import (
    Address,
    Device,
    Gpus,
    Model,
    Quiet,
    check_engine,
    err,
    import_ray_engine,
    out,
    plain_errors,
    progress_line,
    spinner,
)
from secondsight.support.errors import InputError

StoreFolder = Annotated[Path, typer.Argument(help="A store of decompose, such as OUT/image.")]


def decompose(
    data: Annotated[str, typer.Option(help="photos:FOLDER, texts:FILE, or a data set; see: secondsight experiments.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the stores: OUT/image, OUT/text.")],
    model: Model = "builtin",
    side: Annotated[str, typer.Option(help="image, text or both.")] = "both",
    method: Annotated[
        str | None,
        typer.Option(help="NAME or NAME:OPTION=VALUE,…; default: last-layer, or token vectors where there are."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Storage type of the vectors: float16, int8 or float32.")] = "float16",
    limit: Annotated[int | None, typer.Option(help="The first inputs only.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Inputs at once; default: what fits.", min=1)] = None,
    max_memory: Annotated[float | None, typer.Option(help="GB for that; default: a quarter of what is free.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images.", min=0)] = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="Of the model's weights: float32, bf16 or fp16.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for several machines.")] = "local",
    address: Address = None,
    actors: Annotated[int, typer.Option(help="Ray workers that decompose.", min=1)] = 1,
    gpus: Gpus = 0.0,
    quiet: Quiet = False,
) -> None:
    """Store the contributions of many inputs, to explain any pair without the model; continues where it was stopped."""
    with plain_errors():
        kinds = _input_kinds(data, side)
        check_engine(engine)
        with spinner("loading libraries"):
            from secondsight.encoders.registry import load
            from secondsight.methods import method_of_text
            from secondsight.scale import decompose as run
            from secondsight.scale import open_source
            from secondsight.scale.place import move_model
            from secondsight.support.files import ensure_folder

        explainer = None if method is None else method_of_text(method)
        with spinner("reading the data"):
            sources = [open_source(data, kind).first(limit) for kind in kinds]
        ensure_folder(out_dir)
        dual = None
        if engine == "local":
            with spinner(f"loading {model}"):
                dual = move_model(load(model), device, precision)
        memory = None if max_memory is None else max_memory * 1e9
        common: dict[str, Any] = dict(dtype=dtype, batch=batch, max_memory=memory)
        for source in sources:
            folder, progress = out_dir / source.kind, _throughput(source.kind, quiet)
            if dual is not None:
                report = run(source, dual, folder, explainer, workers=workers, progress=progress, **common)
            else:
                report = import_ray_engine().decompose_with_ray(
                    source, model, folder, explainer, address=address, actors=actors, gpus=gpus, device=device,
                    precision=precision, progress=progress, **common,
                )  # fmt: skip
            _print_report(folder, report, quiet)


def _input_kinds(data: str, side: str) -> list[str]:
    """The kinds of input to decompose; folders of photographs and files of texts have only one."""
    if side not in ("image", "text", "both"):
        raise InputError(f"unknown side {side!r}; known: image, text, both")
    if side != "both":
        return [side]
    return {"photos": ["image"], "texts": ["text"]}.get(data.partition(":")[0], ["image", "text"])


def _throughput(kind: str, quiet: bool) -> Any:
    """Progress with throughput and time left."""
    write = progress_line(quiet)

    def progress(report: Any) -> None:
        left = report.left
        wait = (
            f", {left / 60:.0f} min left" if 90 < left < float("inf") else f", {left:.0f} s left" if left <= 90 else ""
        )
        processed = report.done + report.skipped + len(report.problems)
        write(f"{kind}: {processed} of {report.whole}, {report.rate:.1f} a second{wait}    ", False)

    return progress


def _print_report(folder: Path, report: Any, quiet: bool) -> None:
    from secondsight.scale import open_store

    if err.is_terminal and not quiet:
        err.print()
    for key, problem in report.problems.items():
        err.print(Text.assemble(("left out: ", "yellow"), f"{key}: {problem}"), soft_wrap=True)
    if not quiet:
        facts = open_store(folder).summary()
        out.print(
            f"{folder}: {facts['entries']} entries, {facts['bytes'] / 1e6:.1f} MB; {report.done} new, "
            f"{report.skipped} were there, {len(report.problems)} left out; largest residual "
            f"{facts['largest residual']:.1e}, rounding {facts['largest rounding']:.1e}",
            soft_wrap=True,
        )


def verify(store: StoreFolder) -> None:
    """Read a whole store and its checksums; exit code 1 where something is damaged."""
    with plain_errors():
        from secondsight.scale import open_store

        opened = open_store(store)
        problems = opened.verify()
        for problem in problems:
            err.print(problem, soft_wrap=True)
        facts = opened.summary()
        out.print(f"{facts['entries']} entries, {len(problems)} damaged", soft_wrap=True)
        if problems:
            raise typer.Exit(1)
