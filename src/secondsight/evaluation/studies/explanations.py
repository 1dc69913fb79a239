"""Which explanation is right? Methods, layers and references on the same data, by every measure that needs no person."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from secondsight.data import open_data
from secondsight.data.grounded import GroundedDataset, ListedDataset
from secondsight.evaluation.experiments import EXPERIMENTS
from secondsight.evaluation.report import write_report
from secondsight.evaluation.run import Progress, Run, check_labels, run
from secondsight.evaluation.setting import Layer, Setting, settings
from secondsight.evaluation.studies.explanations_page import write_comparison
from secondsight.evaluation.studies.explanations_table import (
    BEST,
    FIRST,
    differences,
    few_images,
    overall,
    verdicts,
    wins,
)
from secondsight.evaluation.studies.photographs import write_photographs
from secondsight.methods import METHODS, PRESETS, Method, method_named, method_of_text
from secondsight.methods.base import one_of
from secondsight.methods.presets import DEFAULT
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import ensure_folder

Options = Mapping[str, Any]

NODES = {"middle": 8, "input": 16}
"""Nodes of the default paths that have no closed form, which could take minutes a pair until they reach a tolerance."""

OPTIONS: Mapping[str, Options] = {"references": {"seeds": 3}, "sensitivity": {"draws": 3}}
"""Options of experiments that differ from their usual ones: seeds of random references, and fewer draws of noise."""

RIVALS = (
    DEFAULT,
    "last-layer",
    "collection",
    "integrated-jacobian:layer=input,steps=8",
    "chained-jacobian",
    "waypoint-jacobian:steps=8",
    "banzhaf:budget=64",
    "occlusion",
    "bilinear-lime:samples=100",
    "jacobian-times-input",
    "token-embeddings",
    "token-embeddings:hidden=True",
    "token-embeddings:unit=True",
    "mask-clip",
    "mask-clip:text=embedding",
    "mask-clip:variant=clearclip",
    "mask-clip:variant=sclip",
    "grad-eclip",
    "legrad",
    "attention-relevance",
    "attention-rollout",
)
"""Methods that `rivals` sets against each other: this package's own at their usual layers, and those of others."""


@dataclass(frozen=True)
class Amounts:
    """The number of captions that each measure looks at besides pointing; 0 leaves the measure out."""

    segmentation: int = 1000
    faithfulness: int = 20
    joint_perturbation: int = 5
    perturbation: int = 10
    collage: int = 10
    hard_negatives: int = 10
    sanity: int = 10
    sensitivity: int = 2
    references: int = 4
    cost: int = 3

    def __post_init__(self) -> None:
        for name, amount in asdict(self).items():
            if type(amount) is not int or amount < 0:
                raise InputError(f"{name}={amount!r} must be a number of captions, or 0 to leave the measure out")


@dataclass
class Comparison:
    """What is compared on what: runs of single measures, and why a measure has nothing to say of a setting."""

    data: GroundedDataset
    settings: list[Setting]
    out: Path
    limit: int | None
    seed: int
    rule: str
    progress: Progress | None
    runs: dict[str, Run] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def measure(self, name: str, amount: int | None, **options: Any) -> Run | None:
        """Run one experiment under every setting that allows it, and write its report; None if none does."""
        bounds = [bound for bound in (self.limit, amount) if bound is not None]
        experiment = EXPERIMENTS[name](rule=self.rule, seed=self.seed, **options)
        tell = self.progress
        runs: list[Run] = []
        problems: dict[str, str] = {}
        for setting in self.settings:
            try:
                runs.append(
                    run(
                        experiment,
                        self.data,
                        [setting],
                        self.out,
                        limit=min(bounds, default=None),
                        progress=(lambda label, n, whole: tell(f"{name}, {label}", n, whole)) if tell else None,
                    )
                )
            except InputError as problem:
                problems[setting.label] = str(problem)
        if not runs and len(set(problems.values())) == 1:
            problems = dict.fromkeys(["every setting"], next(iter(problems.values())))
        self.notes += [f"{name}, {label}: {problem}" for label, problem in problems.items()]
        if not runs:
            return None
        self.runs[name] = together = joined(runs, problems)
        write_report(together, self.out)
        return together

    def tables(self, against: Sequence[str]) -> dict[str, pd.DataFrame]:
        """The tables of everything that was measured; a base that could not be judged becomes a note."""
        labels = [setting.label for setting in self.settings]
        known = [base for base in against if base in (FIRST, BEST, *labels)]
        self.notes += [
            f"nothing is tested against {base}, which could not be judged" for base in against if base not in known
        ]
        compared = differences(self.runs, known or [FIRST], self.seed)
        few = few_images(self.runs) if len(compared) else []
        self.notes += [f"too few images to be sure of any difference: {', '.join(few)}"] if few else []
        tables = {"overall": overall(self.runs, self.seed), "differences": compared}
        base = next((base for base in known if base != BEST), None)
        if base is not None:
            words = verdicts(compared, base)
            tables["where others win"] = wins(compared, base)
            tables["in words"] = pd.DataFrame({"setting": list(words), "verdict": list(words.values())})
        return tables | {"notes": pd.DataFrame({"note": self.notes})}


def joined(runs: Sequence[Run], left_out: Mapping[str, str]) -> Run:
    """Runs of one experiment under different settings as one run, and the settings that it left out with the reason."""
    frame = pd.concat([finished.frame for finished in runs], ignore_index=True)
    problems = {key: problem for finished in runs for key, problem in finished.problems.items()}
    variants = [setting for finished in runs for setting in finished.settings]
    reasons = dict(left_out)
    for finished in runs:
        reasons |= finished.left_out
    return Run(runs[0].experiment, frame, problems, variants, runs[0].data, runs[0].examples, reasons)


def default_methods(model: DualEncoder) -> list[tuple[str, Method]]:
    """Methods at the layers where they are commonly read, named as on the command line; unknown methods are left out."""
    depth = model.left.encoder.depth
    half, late = depth // 2, depth * 2 // 3
    middle: list[Options] = [
        {"layer": (block, text)} for block in dict.fromkeys((half, late)) for text in ("input", -1)
    ]
    defaults: dict[str, list[Options]] = {
        "integrated-jacobian": [
            {"layer": -1},
            {"layer": (late, "input"), "steps": NODES["middle"]},
            {"layer": ("input", "input"), "steps": NODES["input"]},
        ],
        "chained-jacobian": [{"layer": -1}, *middle, {"layer": 0}],
        "jacobian-times-input": [{}],
        "token-embeddings": [{}],
        "banzhaf": [{}],
    }
    available = [(name, options) for name, choices in defaults.items() if name in METHODS for options in choices]
    return [(command_text(name, options), method_named(name, **options)) for name, options in available]


def command_text(name: str, options: Options) -> str:
    """A method with its options as the command line takes them, such as "chained-jacobian:layer=4/input"."""
    texts = [
        f"{option}={'/'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for option, value in options.items()
    ]
    return f"{name}:{','.join(texts)}" if texts else name


def rival_methods() -> list[tuple[str, Method]]:
    """The methods of `RIVALS` that there are, named as on the command line."""
    known = [text for text in RIVALS if text.partition(":")[0] in (*PRESETS, *METHODS)]
    return [(text, method_of_text(text)) for text in known]


def compare_explanations(
    data: str | Path | GroundedDataset,
    model: tuple[str, DualEncoder],
    methods: Sequence[tuple[str, Method]] = (),
    *,
    layers: Sequence[Layer] = (),
    alone: Sequence[str] = (),
    out: str | os.PathLike[str],
    limit: int | None = None,
    seed: int = 0,
    rule: str = "pixel",
    against: str | Sequence[str] = FIRST,
    photographs: int = 10,
    name: str = "methods",
    progress: Progress | None = None,
    **amounts: int,
) -> dict[str, pd.DataFrame]:
    """Measure every method in every way, and write tables, pages and all reports under `out`.

    `model` is a (name, model) pair and `methods` are (name, method) pairs, by default `default_methods`; those whose names are
    in `alone` are looked at a second time on phrases as texts of their own. `limit` bounds the captions of every measure,
    `amounts` those of single ones (`Amounts`). Every setting is tested `against` the "first", the "best" one in each column, or
    settings by their labels. `photographs` cases stand beside each other on a page, 0 for none. A setting that a measure cannot
    judge has no number there and a line in "notes". Continues where it was stopped. Files begin with `name`. Returns the
    tables. Raises `InputError` if no setting can be judged.
    """
    bases = [against] if isinstance(against, str) else list(against)
    measures = [f.name for f in fields(Amounts)]
    for option in amounts:
        one_of("option", option, ("against", "photographs", *measures))
    captions = Amounts(**amounts)
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit!r} must be at least 1")
    if type(photographs) is not int or photographs < 0:
        raise InputError(f"photographs={photographs!r} must be a number of cases, or 0 to leave the page out")
    source = open_data(data) if isinstance(data, str | Path) else data
    combinations = settings([model], list(methods) or default_methods(model[1]), layers, alone)
    check_labels(combinations)
    for base in bases:
        one_of("against", base, (FIRST, BEST, *(setting.label for setting in combinations)))
    folder = ensure_folder(out)
    for setting in combinations:
        setting.cache = folder / "pairs"
    # Read once, as every measure goes through the captions.
    listed = ListedDataset(source.name, list(source), source.problems)
    comparison = Comparison(listed, combinations, folder, limit, seed, rule, progress)
    pointing = comparison.measure("pointing", None)
    if pointing is None:
        raise InputError(comparison.notes[0])
    comparison.settings = pointing.settings
    for measure in measures:
        amount = getattr(captions, measure)
        if amount:
            comparison.measure(measure.replace("_", "-"), amount, **OPTIONS.get(measure, {}))
    tables = comparison.tables(bases)
    if photographs:
        write_photographs(folder, pointing, tables["overall"], photographs, seed)
    write_comparison(folder, name, comparison.runs, tables, model[0])
    return tables


def rivals(
    data: str | Path | GroundedDataset,
    model: tuple[str, DualEncoder],
    methods: Sequence[tuple[str, Method]] = (),
    *,
    out: str | os.PathLike[str],
    against: str | Sequence[str] = (FIRST, BEST),
    **options: Any,
) -> dict[str, pd.DataFrame]:
    """This package's methods and those of others against each other: `compare_explanations` with `rival_methods`.

    The default method, which is always the first of them, is looked at twice: as it is used, and on phrases as texts of their
    own, as methods of first order are used. Every setting is tested against it and against the best in each column.
    """
    chosen, alone = explained_settings("rivals", model[1], methods)
    return compare_explanations(data, model, chosen, alone=alone, out=out, against=against, name="rivals", **options)


def explained_settings(
    name: str, model: DualEncoder, methods: Sequence[tuple[str, Method]]
) -> tuple[list[tuple[str, Method]], tuple[str, ...]]:
    """The methods that the study `name` looks at, and the names of those that it looks at on phrases alone too."""
    if name != "rivals":
        return list(methods) or default_methods(model), ()
    others = [(label, method) for label, method in methods or rival_methods() if label != DEFAULT]
    if not others:
        raise InputError(f"'rivals' sets other methods against {DEFAULT!r}: give another --method, or none for all")
    return [(DEFAULT, PRESETS[DEFAULT]), *others], (DEFAULT,)
