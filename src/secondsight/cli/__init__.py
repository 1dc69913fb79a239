"""The command line: `secondsight explain PHOTO "CAPTION"`, `secondsight models`, `secondsight methods`."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from secondsight.cli import about, evaluate, explain, finetune, scale, search, serve
from secondsight.cli.common import out

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Explain dual encoders: which part of a caption matched which part of an image, by how much, and how exactly.",
    rich_markup_mode=None,
)

for command in (
    explain.explain,
    explain.compare,
    evaluate.evaluate,
    finetune.finetune,
    finetune.scenes,
    scale.decompose,
    search.search,
    scale.verify,
    serve.serve,
    about.experiments,
    about.doctor,
    about.models,
    about.methods,
):
    app.command()(command)


def _print_version(value: bool) -> bool:
    if value:
        from importlib.metadata import version

        out.print(f"secondsight {version('secondsight')}")
        raise typer.Exit()
    return value


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `secondsight` command."""
    # Set before these libraries are imported. Local weights need no hub, and its progress bars would mix with our output.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Errors are reported once, by this command.
    logging.disable(logging.ERROR)
    try:
        app()
    except BrokenPipeError:
        # The program that reads our output (head, less) has ended, which is not an error.
        sys.stderr.close()
        raise SystemExit(0) from None
