"""One experiment from data to report: `secondsight evaluate` as a function."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secondsight.data import open_data
from secondsight.data.grounded import GroundedDataset
from secondsight.data.stsb import SentencePairs, open_sentence_pairs
from secondsight.evaluation.experiments import EXPERIMENTS
from secondsight.evaluation.report import Results, write_report
from secondsight.evaluation.run import Progress, run
from secondsight.evaluation.setting import Layer, settings
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError


def evaluate(
    name: str,
    data: str | Path | GroundedDataset,
    models: Sequence[tuple[str, DualEncoder]],
    methods: Sequence[tuple[str, Method]] = (),
    *,
    layers: Sequence[Layer] = (),
    out: str | os.PathLike[str],
    limit: int | None = None,
    seed: int = 0,
    rule: str = "pixel",
    progress: Progress | None = None,
    **options: Any,
) -> Results:
    """Run the experiment `name` and write its report under `out`; returns its tables, figures and gallery.

    `data` is a data set or a name that `open_data` takes, of pairs of texts `open_sentence_pairs`; `models` and `methods` are
    (name, object) pairs; `limit` bounds the number of captions; `rule` decides which values of a map lie in a box
    (`measures.inside`); `options` are those of the experiment. A run that was stopped continues when it is started again with
    the same `out`.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {name!r}; known: {', '.join(sorted(EXPERIMENTS))}")
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit!r} must be at least 1")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(out)!r} is a file: give a folder")
    texts = EXPERIMENTS[name].pairs_of_texts
    dataset = (open_sentence_pairs if texts else open_data)(data) if isinstance(data, str | Path) else data
    if isinstance(dataset, SentencePairs) != texts:
        raise InputError(
            f"{name!r} looks at {'pairs of sentences' if texts else 'images'}, and {dataset.name!r} has others"
        )
    try:
        experiment = EXPERIMENTS[name](rule=rule, seed=seed, **options)
    except TypeError as problem:
        raise InputError(f"the experiment {name!r} cannot be made with these options ({problem})") from problem
    combinations = settings(models, methods, layers, pairs_of_texts=texts)
    if len(combinations) < experiment.min_settings:
        raise InputError(f"{name!r} needs {experiment.min_settings} settings: give another model, method or layer")
    return write_report(run(experiment, dataset, combinations, folder, limit=limit, progress=progress), folder)
