"""`secondsight models`, `methods`, `experiments` and `doctor`: what there is, and what this installation has."""

from __future__ import annotations

from contextlib import suppress

import typer
from rich.text import Text

from secondsight.cli.common import err, first_line, out, plain_errors, print_titles, spinner
from secondsight.support.errors import InputError

USES = {
    "approximation": "Use this when you set the accuracy yourself: how fast sums become exact as more points are computed.",
    "collage": "Use this when you want a hard test of places: four photographs in one, does the map find the right quarter?",
    "compare": "Use this when you have two checkpoints, methods or layers: which points at objects better, class by class?",
    "compositionality": "Use this when you run Winoground, ARO and their like: who wins, and which words are to blame.",
    "cost": "Use this when time matters: seconds for each pair, and how many runs of the model that is.",
    "discrimination": "Use this when captions name two things: does each word light up its own object and not the other?",
    "edits": "Use this when you ask if scores can be trusted: do they predict what really taking words and boxes away does?",
    "failures": "Use this when you want to see where your model goes wrong: its worst cases, to look at and sort.",
    "faithfulness": "Use this when you ask if an explanation is true to the model: does it predict what hiding parts does?",
    "hard-negatives": "Use this when you want to know what one wrong word in a caption changes, and where.",
    "joint-perturbation": "Use this when image and text should be judged in one ranking: are the best parts of both kept last?",
    "perturbation": "Use this when you ask if the strongest parts matter most: they are taken away, or put in, step by step.",
    "pointing": "Use this when you have boxes of objects: does a word's map point at its object? The usual first test.",
    "references": "Use this when you doubt what stands for an empty photograph or caption: how much do maps depend on it?",
    "sanity": "Use this when you suspect that maps ignore the model: do they change when its weights are scrambled?",
    "segmentation": "Use this when you have masks of objects: does a word's map cover its object's pixels, and no others?",
    "sensitivity": "Use this when you ask if maps are steady and sparse: how far do they move when pixels hardly change?",
    "sts": "Use this when a model compares texts: which words carry its agreement with people? --data stsb:FILE.",
}
"""When to use which experiment; those of the user's own are listed with their first line."""


def experiments() -> None:
    """What `secondsight evaluate` can find out, when to use which, and the kinds of data."""
    with plain_errors():
        from secondsight.data import KINDS

        lines = dict(USES)
        with suppress(InputError, ImportError):  # the list does not need what running them needs
            from secondsight.evaluation import EXPERIMENTS

            lines = {name: USES.get(name) or first_line(kind) for name, kind in sorted(EXPERIMENTS.items())}
        print_titles(lines)
        print_titles(
            {
                "methods": "Use this when you have to choose a method: all of them on your data, by all measures.",
                "rivals": "Use this when you compare with methods of others: who is surely better at what, and at what cost.",
                "paper": "Use this when you repeat the published study: its models on your data, beside its numbers.",
                "scenes-paper": "Use this when you have no data: all experiments in a drawn world, where the right answer "
                "is known.",
                "scenes-figures": "Use this when you want to see every kind of figure of the published study, without data: "
                "two models in the drawn world, before and after fine-tuning.",
                "retrieval": "Use this when texts should find images: recall both ways, and why each miss is one.",
                "zero-shot": "Use this when images have classes: accuracy by prompts, and why wrong answers are wrong; --data "
                "folder:DIR with a folder per class, labels:FILE.csv or .jsonl with image and label, or objects with boxes.",
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
    """The ways to explain a pair, and when to use which; the first is the default."""
    from secondsight.methods.uses import method_lines

    print_titles(method_lines())
