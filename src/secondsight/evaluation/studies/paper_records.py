"""What the paper's figures are drawn from: the records of all runs, and pictures of single cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from secondsight.evaluation.experiments.base import of_kind
from secondsight.evaluation.experiments.failures import FAILED, Failures
from secondsight.evaluation.report import Results

EXAMPLES = 5
"""Pictures of each category of failures."""

Gallery = Mapping[str, Sequence[tuple[Image.Image, str]]]
"""Pictures with texts, by category."""


@dataclass
class Collected:
    """Records of every run by experiment, with columns "data", "model", "state" and "setting" (the method's name).

    `baselines` are those of several methods on one model; `failures` are pictures by data, model and state; `examples` are
    figures of single pairs by the number that they have in the paper.
    """

    frames: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    baselines: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    failures: dict[tuple[str, str, str], Gallery] = field(default_factory=dict)
    examples: dict[str, dict[str, Figure]] = field(default_factory=dict)

    def add(
        self, experiment: str, results: Results, kind: str, model: str, state: str, *, several: bool = False
    ) -> None:
        """Keep a run's records; with `several` they are of more than one method."""
        frame = results.records.assign(data=kind, model=model, state=state)
        (self.baselines if several else self.frames).setdefault(experiment, []).append(frame)
        if experiment == "failures":
            self.failures[kind, model, state] = failure_gallery(results)

    def of(self, experiment: str, *, several: bool = False) -> pd.DataFrame:
        """All records of an experiment; an empty table if it was not run."""
        frames = (self.baselines if several else self.frames).get(experiment, [])
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def pointing_cases(self) -> pd.DataFrame:
        """The judged phrases of all models."""
        records = self.of("pointing")
        return of_kind(records, "case") if len(records) else records


def failure_gallery(results: Results) -> dict[str, list[tuple[Image.Image, str]]]:
    """The clearest failures of each category, as maps over their images."""
    records = results.records
    failed = records[records.energy < FAILED].sort_values(["energy", "key"])
    rows: dict[str, list[tuple[Image.Image, str]]] = {}
    for category in Failures.categories:
        examples = failed[failed.category == category].head(EXAMPLES).to_dict("records")
        pictures = [(results.picture(record), f"{record['words']}, PGE {record['energy']:.2f}") for record in examples]
        rows[category] = [(picture, text) for picture, text in pictures if picture is not None]
    return {category: pictures for category, pictures in rows.items() if pictures}


def replaced_objects(negatives: pd.DataFrame) -> pd.DataFrame:
    """The wrong captions in which an object's name was replaced; all, where none is marked as such."""
    replaced = negatives[negatives.kind.str.startswith("replace_obj")]
    return replaced if len(replaced) else negatives
