"""`secondsight gate`: may this checkpoint replace that one? For continuous integration of embedding models."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from secondsight.cli.common import Device, Precision, Quiet, check_folder, out, plain_errors, progress_line, spinner

Names = Annotated[str, typer.Option(help="What fails when it got worse: whole, classes, words, pairs; by commas.")]


def gate(
    before: Annotated[str, typer.Argument(help="The model in use; see: secondsight models.")],
    after: Annotated[str, typer.Argument(help="The model that may replace it.")],
    pairs: Annotated[str, typer.Option(help="A list of photo,caption or of two texts, or a data set.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the report and the stores.")] = Path("gate"),
    alpha: Annotated[float, typer.Option(help="Largest chance of any false alarm.")] = 0.01,
    tolerance: Annotated[float, typer.Option(help="Mean change that is tolerated, in spreads.")] = 0.1,
    fail_on: Names = "whole,classes,words",
    method: Annotated[str | None, typer.Option(help="NAME or NAME:OPTION=VALUE,…; default: collection.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Markdown file; default: OUT/summary.md.")] = None,
    limit: Annotated[int | None, typer.Option(help="The first pairs only.", min=1)] = None,
    device: Device = None,
    precision: Precision = None,
    quiet: Quiet = False,
) -> None:
    """Fail (exit code 1) where a new checkpoint got worse on your pairs: altogether, in a class, at a word."""
    with plain_errors():
        check_folder(out_dir)
        with spinner("loading libraries"):
            from secondsight.answers.gate import collect_pairs, open_pairs
            from secondsight.answers.gate import gate as run
            from secondsight.answers.gate.compare import check_options
            from secondsight.cli.common import check_writable
            from secondsight.encoders.registry import load
            from secondsight.methods import method_of_text
            from secondsight.scale.place import move_model
            from secondsight.support.files import atomic

        kinds = [name.strip() for name in fail_on.split(",") if name.strip()]
        check_options(alpha, tolerance, kinds)
        check_writable(summary, (".md",), "--summary")
        explainer = None if method is None else method_of_text(method)
        data = open_pairs(pairs)
        stores = out_dir / "stores"
        write = progress_line(quiet)

        def progress(label: str, done: int, whole: int) -> None:
            write(f"{label}: {done} of {whole}", done >= whole)

        models = []
        for name in (before, after):
            with spinner(f"loading {name}"):
                models.append(move_model(load(name), device, precision))
        old, new = [collect_pairs(data, m, stores, explainer, limit=limit, progress=progress) for m in models]
        result = run(
            old, new, out_dir,
            alpha=alpha, tolerance=tolerance, fail_on=kinds, names=(before, after),
            command=_command(before, after, pairs, alpha, tolerance, kinds, method, limit, precision), progress=progress,
        )  # fmt: skip
        if summary is not None:
            with atomic(summary) as file:
                file.write(result.summary.encode())
        if not quiet:
            out.print(escape(result.summary), soft_wrap=True)
            out.print(f"wrote {out_dir / 'report.html'}", soft_wrap=True)
        if not result.passed:
            raise typer.Exit(1)


def _command(
    before: str,
    after: str,
    pairs: str,
    alpha: float,
    tolerance: float,
    kinds: list[str],
    method: str | None,
    limit: int | None,
    precision: str | None,
) -> str:
    """The command line that says the same."""
    words = ["secondsight", "gate", before, after, "--pairs", pairs, "--alpha", f"{alpha:g}"]
    words += ["--tolerance", f"{tolerance:g}", "--fail-on", ",".join(kinds)]
    for option, value in (("--method", method), ("--limit", limit), ("--precision", precision)):
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)
