"""`secondsight audit`: what a model confuses, ignores and over-uses on a whole collection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from secondsight.cli.common import (
    Device,
    Precision,
    Quiet,
    check_folder,
    plain_errors,
    print_answer,
    progress_line,
    spinner,
)
from secondsight.support.errors import InputError


def audit(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the report, its tables and the stores.")],
    data: Annotated[
        str | None,
        typer.Option(help="KIND:PATH[#PART], or a path; see: secondsight experiments. May be left out for stores."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Default: builtin. Given twice, an earlier model and the one to audit. With stores their model, which encodes "
            "exchanged captions."
        ),
    ] = None,
    store_image: Annotated[
        Path | None, typer.Option(help="A store of images of decompose, in place of decomposing.")
    ] = None,
    store_text: Annotated[Path | None, typer.Option(help="The store of their captions.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="NAME or NAME:OPTION=VALUE,…; default: collection, or token vectors where there are."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="The expected share of false claims in a section.")] = 0.05,
    limit: Annotated[int | None, typer.Option(help="The first captions only.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    device: Device = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """What a model confuses, ignores and over-uses on a data set, as sentences with their cases; continues where it stopped."""
    with plain_errors():
        _check_options(data, model, method, limit, store_image, store_text)
        check_folder(out_dir)
        with spinner("loading libraries"):
            from secondsight.answers import open_collection
            from secondsight.answers.audit import audit as run
            from secondsight.answers.audit import audit_collection
            from secondsight.answers.significance import check_alpha
            from secondsight.data import open_data
            from secondsight.encoders.registry import load
            from secondsight.methods import method_of_text
            from secondsight.scale.place import move_model
        check_alpha(alpha)
        explainer = None if method is None else method_of_text(method)
        progress = _progress(quiet)
        if store_image is not None and store_text is not None:
            collection = open_collection(store_image, store_text, data)
            with spinner(f"loading {model[0] if model else 'stores'}"):
                theirs = move_model(load(model[0]), device, precision) if model else None
            answer = audit_collection(collection, out_dir, model=theirs, alpha=alpha, seed=seed, progress=progress)
        else:
            names, dataset = model or ["builtin"], open_data(data or "")
            with spinner(f"loading {' and '.join(names)}"):
                *before, dual = [move_model(load(name), device, precision) for name in names]
            answer = run(
                dataset, dual, out_dir, against=before[0] if before else None, method=explainer, limit=limit,
                alpha=alpha, seed=seed, progress=progress,
            )  # fmt: skip
        if not quiet:
            print_answer(answer)


def _check_options(
    data: str | None,
    model: list[str] | None,
    method: str | None,
    limit: int | None,
    store_image: Path | None,
    store_text: Path | None,
) -> None:
    """Refuse what cannot work before any model loads."""
    if (store_image is None) != (store_text is None):
        raise InputError("--store-image and --store-text belong together: give both")
    if store_image is None and data is None:
        raise InputError("nothing to look at: give --data, or --store-image and --store-text")
    if model is not None and len(model) > 2:
        raise InputError(f"an audit compares two models, not {len(model)}: give --model once or twice")
    if store_image is not None and model is not None and len(model) > 1:
        raise InputError("stores were made by one model: give that --model, or none")
    unused = next((name for name, value in (("method", method), ("limit", limit)) if value), None)
    if store_image is not None and unused is not None:
        raise InputError(f"stores were made with one method and number of captions: leave out --{unused}")


def _progress(quiet: bool) -> Callable[[str, int, int], None]:
    write = progress_line(quiet)
    return lambda doing, done, whole: write(f"{doing}: {done} of {whole}    ", done >= whole)
