"""What the commands share: consoles, one-sentence errors, progress, common options and their parsing."""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from secondsight.support.errors import AdapterError, InputError
from secondsight.support.progress import listening

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from secondsight.answers import Answer


out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Model = Annotated[str, typer.Option(help="See: secondsight models.")]
Truncate = Annotated[bool, typer.Option("--truncate", help="Cut captions longer than the context.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Data = Annotated[str, typer.Option(help="KIND:PATH[#PART], or a path; see: secondsight experiments.")]
Device = Annotated[str | None, typer.Option(help="Where to compute: cpu, cuda, cuda:1, …")]
Precision = Annotated[str | None, typer.Option(help="Of the model's weights: float32, bf16 or fp16.")]
Address = Annotated[str | None, typer.Option(help="The Ray cluster; default: Ray on this machine.")]
Gpus = Annotated[float, typer.Option(help="GPUs of each Ray worker.", min=0)]


def fail(message: str) -> NoReturn:
    """End the command with one sentence and exit code 2."""
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    raise typer.Exit(2)


def warn(message: str) -> None:
    """Print one line on the error stream."""
    err.print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Bad input ends with one sentence and exit code 2; warnings are one line each."""

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        # Users need not read other libraries' own warnings.
        if category.__module__.startswith("secondsight") or category is UserWarning:
            warn(str(message).splitlines()[0])

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", module=r"(?!secondsight)")
        warnings.showwarning = show  # type: ignore[assignment]  # the rest of its arguments are not used
        try:
            yield
        except (InputError, AdapterError) as problem:
            fail(str(problem))
        except KeyboardInterrupt:
            err.print("stopped")
            raise typer.Exit(130) from None
        except MemoryError:
            fail("not enough memory: use a smaller model, image or number of steps")


@contextmanager
def spinner(activity: str) -> Iterator[None]:
    """A spinner on the error stream during a slow step, with the share of it that is done as far as the step tells;
    nothing where that stream is not a terminal.
    """
    if err.is_terminal:
        with err.status(activity) as status, listening(lambda share: status.update(f"{activity}, {share:.0%}")):
            yield
    else:
        yield


def progress_line(quiet: bool) -> Callable[[str, bool], None]:
    """A function that writes a line over the one before and ends it when told; silent outside a terminal."""
    visible = err.is_terminal and not quiet

    def write(line: str, last: bool) -> None:
        if visible:
            err.print(f"\r{line}", end="\n" if last else "", soft_wrap=True)

    return write


def parse_box(value: str, option: str = "--box") -> tuple[float, float, float, float]:
    """x0,y0,x1,y1 as numbers."""
    try:
        numbers = [float(v) for v in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise InputError(f"{option} {value!r} is not four numbers x0,y0,x1,y1 in pixels of the photo")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def check_writable(path: Path | None, endings: tuple[str, ...], option: str) -> None:
    """Refuse an output file before any work if it cannot be written afterwards."""
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise InputError(f"{option} {str(path)!r} must end in {', '.join(endings)}")
    if not path.parent.is_dir():
        raise InputError(f"{option} {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    if path.is_dir():
        raise InputError(f"{option} {str(path)!r} is a folder: give a file name")
    try:
        # Permissions do not tell everything: a file without a name is made there, and vanishes.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        raise InputError(f"{option} {str(path)!r} cannot be written ({reason}): choose another place") from error


def check_photograph(path: str, known_image: bool) -> None:
    """Refuse a folder, an empty or a damaged file in place of a photograph, before any library of models is loaded.

    `known_image` says that the model takes the file for an image whatever its name ends in.
    """
    from secondsight.inputs.kinds import possible_kinds
    from secondsight.inputs.photographs import open_image

    if os.path.exists(path) and (known_image or possible_kinds(path) == {"image"}):
        with warnings.catch_warnings():
            # They come when the photograph is explained.
            warnings.simplefilter("ignore")
            open_image(path)


def check_engine(engine: str) -> None:
    """Refuse unknown engines."""
    if engine not in ("local", "ray"):
        raise InputError(f"unknown engine {engine!r}; known: local, ray")


def import_ray_engine() -> Any:
    """The module that runs on a Ray cluster."""
    try:
        from secondsight.scale import ray_engine
    except ModuleNotFoundError as missing:
        raise InputError(f"--engine ray needs {missing.name}: pip install 'secondsight[scale]'") from None
    return ray_engine


def print_written(path: Path) -> None:
    """Name a file that the command has written."""
    out.print(f"wrote {path}", soft_wrap=True)


def print_answer(answer: Answer) -> None:
    """Every section's claims, and where the report is: wrapped on a terminal, a claim a line elsewhere."""
    for section in answer.sections:
        out.print(Text(section.title, "bold"))
        sentences = [Text(claim.sentence) for claim in section.claims] or [Text(section.nothing, "dim")]
        for sentence in sentences:
            if out.is_terminal:
                out.print(Padding(sentence, (0, 0, 0, 2), expand=False), width=min(out.width, 100))
            else:
                out.print(Text("  ") + sentence, soft_wrap=True)
    print_written(answer.out / "report.html")


def check_folder(path: Path) -> None:
    """Refuse a file in place of the folder of results before any work."""
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {str(path)!r} is a file: give a folder")


def print_titles(entries: dict[str, str]) -> None:
    """Names in bold, each with its description on the next line."""
    for name, description in entries.items():
        out.print(Text.assemble((name, "bold"), f"\n  {description}"), soft_wrap=True)


def first_line(documented: Any) -> str:
    """The first line of a docstring."""
    return (documented.__doc__ or "").strip().splitlines()[0]


def plain_table(title: str, frame: pd.DataFrame) -> Table:
    """A data frame for the terminal; a wide one with few rows is transposed."""
    from rich.table import Table

    from secondsight.evaluation.tables import cell_text, with_row_names

    readable = with_row_names(frame)
    columns = [str(column) for column in readable.columns]
    rows = [[cell_text(value) for value in row] for row in readable.itertuples(index=False)]
    if len(columns) > 6 and len(rows) <= 4:
        columns, *rows = [list(line) for line in zip(columns, *rows, strict=True)]
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=not number, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
