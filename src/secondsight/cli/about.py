"""`secondsight models`, `methods`, `experiments` and `doctor`: what there is, and what this installation has."""

from __future__ import annotations

import typer
from rich.text import Text

from secondsight.cli.common import err, first_line, out, plain_errors, print_titles, spinner


def experiments() -> None:
    """List the experiments and the kinds of data."""
    with plain_errors():
        from secondsight.data import KINDS
        from secondsight.evaluation import EXPERIMENTS

        print_titles({name: first_line(experiment) for name, experiment in sorted(EXPERIMENTS.items())})
        print_titles(
            {
                "methods": "Which explanation is right? Methods, layers and references on your data, by all measures.",
                "paper": "The models of [M25] Tables 1-4 on your data, beside the published numbers.",
                "scenes-paper": "All experiments on the scenes model in its own world, and which of the paper's "
                "findings hold there.",
                "--data": "\n  ".join(kind.help for kind in KINDS.values()),
            }
        )


def doctor() -> None:
    """What this installation has and what it misses; for bug reports. Exit code 1 where something is broken."""
    with plain_errors():
        with spinner("looking"):
            from secondsight.doctor import report
        findings, broken = report()
        for name, finding in findings:
            out.print(Text.assemble((f"{name:18}", "bold"), finding), soft_wrap=True)
        for problem in broken:
            err.print(Text.assemble(("broken: ", "bold red"), problem), soft_wrap=True)
        if broken:
            raise typer.Exit(1)


def models() -> None:
    """List the kinds of models and how to name them."""
    from secondsight.encoders.registry import FAMILIES

    print_titles({family.example: family.about for family in FAMILIES})
    print_titles({"in Python": "ss.wrap(model_object, preprocess, tokenizer), ss.TorchEncoder(...)"})


def methods() -> None:
    """List the methods."""
    from secondsight.methods import METHODS
    from secondsight.methods.presets import PRESET_LINES

    print_titles(PRESET_LINES)
    print_titles({name: first_line(method) for name, method in sorted(METHODS.items())})
