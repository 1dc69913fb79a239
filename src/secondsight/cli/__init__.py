"""The command line: `secondsight explain PHOTO "CAPTION"`, `secondsight models`, `secondsight methods`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from secondsight.cli import about, audit, evaluate, explain, finetune, gate, scale, search, serve
from secondsight.cli.common import out

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="See why a model such as CLIP thinks that a photograph and a caption belong together: which word, and where.",
    rich_markup_mode=None,
)

EXAMPLES: dict[Callable[..., None], str] = {
    explain.explain: 'secondsight explain photo.jpg "a cup of coffee" --select coffee --out explanation.html',
    explain.compare: 'secondsight compare photo.jpg "a cup" --method grounded --method occlusion --out methods.png',
    evaluate.evaluate: "secondsight evaluate pointing --data coco:coco#val2017 --limit 50 --out results",
    audit.audit: "secondsight audit --data coco:coco#val2017 --out audit",
    gate.gate: "secondsight gate scenes scenes --pairs scenes:noto/40 --out gate",
    finetune.finetune: "secondsight finetune --data coco:coco#train2017 --model scenes --out tuned",
    finetune.scenes: "secondsight scenes --out world --n 100",
    scale.decompose: "secondsight decompose --data photos:photos --out store",
    search.search: 'secondsight search store/image "a dog"',
    scale.verify: "secondsight verify store/image",
    serve.serve: "secondsight serve --photos photos",
    about.experiments: "secondsight experiments",
    about.doctor: "secondsight doctor",
    about.models: "secondsight models",
    about.methods: "secondsight methods",
}
"""Every command, in the order of the list, with the line that ends its help."""

for command, example in EXAMPLES.items():
    app.command(epilog=f"Example: {example}")(command)


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
        try:
            app()
        finally:
            # What is still to be printed fails here, where the failure gets a sentence.
            sys.stdout.flush()
    except BrokenPipeError:
        # The program that reads our output (head, less) has ended, which is not an error.
        sys.stderr.close()
        raise SystemExit(0) from None
    except OSError as problem:
        _abandon_output()
        reason = os.strerror(problem.errno or 0).lower()
        sys.stderr.write(f"error: the output cannot be written ({reason}): send it somewhere else\n")
        raise SystemExit(2) from None


def _abandon_output() -> None:
    """Let nothing more be written at the interpreter's end, which would fail once more with a message of its own."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
