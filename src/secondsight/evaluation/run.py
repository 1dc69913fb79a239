"""Running an experiment over a data set: every pair is explained once, and its records survive a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.evaluation.experiments.base import EXPERIMENTS, Experiment, Record
from secondsight.evaluation.journal import Journal
from secondsight.evaluation.setting import Setting
from secondsight.support.errors import InputError
from secondsight.support.files import ensure_folder, locked

Progress = Callable[[str, int, int], None]
"""Called with a setting's label, the number of captions done and their total."""


@dataclass
class Run:
    """A finished run: its experiment, all records, skipped captions with the reason, and everything it was run on.

    `left_out` has the settings that gave no record for any caption, and why.
    """

    experiment: Experiment
    frame: pd.DataFrame
    problems: dict[str, str]
    settings: list[Setting]
    data: GroundedDataset
    examples: dict[str, GroundedCaption]
    left_out: dict[str, str] = field(default_factory=dict)


def run(
    experiment: Experiment,
    data: GroundedDataset,
    settings: Sequence[Setting],
    out: str | os.PathLike[str],
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run an experiment under every setting, writing records to `out` as they are made; resumes an earlier run.

    `limit` bounds the number of captions that the experiment can use. Captions and images that cannot be used are listed in
    `problems`, settings that give nothing in `left_out`, and neither ends a run as long as enough settings remain.
    """
    check_models(experiment, settings)
    folder = ensure_folder(out)
    variants = [variant for setting in settings for variant in experiment.variants(setting)]
    check_labels(variants)
    examples = select_examples(experiment, data, limit)
    captions: dict[str, list[str]] = {}
    for example in examples:
        captions.setdefault(example.image_key, []).append(example.caption)
    rows: list[Record] = []
    problems: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for setting in variants:
        setting.cache = setting.cache or folder / "pairs"
        setting.captions = captions
        with open_journal(folder, experiment, data, setting) as journal:
            for count, example in enumerate(examples, 1):
                update_journal(journal, experiment, setting, example)
                if progress:
                    progress(setting.label, count, len(examples))
        records, unusable = read_journal(journal, examples)
        if records:
            rows += [{"setting": setting.label, **record} for record in records]
            problems |= unusable
        else:
            left_out[setting.label] = next(reversed(unusable.values()), "no phrase can be judged")
    judged = [variant for variant in variants if variant.label not in left_out]
    _check_enough(experiment, data, examples, judged, left_out)
    by_key = {example_key(example): example for example in examples}
    return Run(experiment, pd.DataFrame(rows), {**data.problems, **problems}, judged, data, by_key, left_out)


def _check_enough(
    experiment: Experiment,
    data: GroundedDataset,
    examples: Sequence[GroundedCaption],
    judged: Sequence[Setting],
    left_out: Mapping[str, str],
) -> None:
    """Raise `InputError` if the experiment has too few settings that gave records."""
    if not examples:
        unread = data.problems or not len(data) or not experiment.needs
        why = data.summary() if unread else f"no caption has {experiment.needs}"
        raise InputError(f"{data.name} has nothing that {experiment.name!r} can judge: {why}")
    if len(judged) < experiment.min_settings:
        label, why = next(iter(left_out.items()))
        if not judged:
            raise InputError(f"{data.name} has nothing that {experiment.name!r} can judge: {why}")
        raise InputError(
            f"{experiment.name!r} needs {experiment.min_settings} settings, and {label!r} gave nothing for any of "
            f"{len(examples)} captions: {why}"
        )


def check_models(experiment: Experiment, settings: Sequence[Setting]) -> None:
    """Raise `InputError` for a late-interaction model in an experiment that multiplies embeddings."""
    for setting in settings:
        if experiment.by_embeddings and not setting.model.factorises:
            able = ", ".join(name for name, kind in sorted(EXPERIMENTS.items()) if not kind.by_embeddings)
            raise InputError(
                f"{experiment.name!r} multiplies embeddings of changed inputs, and {setting.model.name!r} is late "
                f"interaction, which chooses its matches anew for every input: look at it by {able}"
            )


def check_labels(settings: Sequence[Setting]) -> None:
    """Raise `InputError` if two settings have the same label, as tables would mix them up."""
    labels = [setting.label for setting in settings]
    if len(set(labels)) < len(labels):
        raise InputError(f"two settings have the same name {max(labels, key=labels.count)!r}")


def select_examples(experiment: Experiment, data: GroundedDataset, limit: int | None) -> list[GroundedCaption]:
    """The first captions that the experiment can use, those of one image next to each other."""
    examples: list[GroundedCaption] = []
    for example in experiment.examples(data):
        if limit is not None and len(examples) >= limit:
            break
        if experiment.wants(example):
            examples.append(example)
    # An image's contributions are computed once if its captions follow each other.
    first: dict[str, int] = {}
    for index, example in enumerate(examples):
        first.setdefault(example.image_key, index)
    return sorted(examples, key=lambda example: first[example.image_key])


def example_key(example: GroundedCaption) -> str:
    """The name of a caption in records and problems."""
    return f"{example.image_key}/{example.key}"


@contextmanager
def open_journal(folder: Path, experiment: Experiment, data: GroundedDataset, setting: Setting) -> Iterator[Journal]:
    """The journal of an experiment under one setting, which no other process may write to meanwhile."""
    digest = hashlib.sha256(json.dumps([setting.label, setting.spec], sort_keys=True).encode()).hexdigest()[:8]
    place = ensure_folder(folder / experiment.name / f"{slug(setting.label)[:60]}-{digest}")
    head: dict[str, Any] = {"experiment": experiment.name, "data": data.name}
    options = experiment.options()
    if setting.filling:
        # Each filling has a journal of its own, whatever other fillings were asked for with it.
        options["fill"] = setting.filling
    head |= {"setting": setting.spec, "options": options}
    with locked(place), closing(Journal(place / "records.jsonl", head)) as journal:
        yield journal


def update_journal(journal: Journal, experiment: Experiment, setting: Setting, example: GroundedCaption) -> None:
    """Add a caption's records unless the journal has them; a caption that cannot be used becomes a "problem"."""
    key = example_key(example)
    if key in journal.records:
        return
    try:
        with torch.no_grad():
            records = experiment.records(setting, example)
    except InputError as problem:
        records = [{"problem": str(problem)}]
    journal.add(key, records)


def read_journal(journal: Journal, examples: Sequence[GroundedCaption]) -> tuple[list[Record], dict[str, str]]:
    """The records of these captions, each with its "key", and the captions that could not be used."""
    records: list[Record] = []
    problems: dict[str, str] = {}
    for key in map(example_key, examples):
        for record in journal.records[key]:
            if "problem" in record:
                problems[key] = record["problem"]
            else:
                records.append({"key": key, **record})
    return records, problems


def slug(text: str) -> str:
    """A label as a part of a file name."""
    return "".join(c if c.isalnum() else "-" for c in text).strip("-")
