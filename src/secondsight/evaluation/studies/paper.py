"""The paper's own experiments on your copy of its data: our numbers beside those that [M25] states."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from secondsight.data import KINDS, open_data
from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.encoders.registry import load
from secondsight.evaluation.evaluate import evaluate
from secondsight.evaluation.experiments.failures import Failures
from secondsight.evaluation.experiments.pointing import CONFIDENCE, class_gains
from secondsight.evaluation.report import Results, overview
from secondsight.evaluation.run import Progress, slug
from secondsight.evaluation.statistics import almost_stochastic_order
from secondsight.evaluation.studies.paper_examples import example_figures
from secondsight.evaluation.studies.paper_figures import energies_before_and_after, write_figures
from secondsight.evaluation.studies.paper_methods import IN_CURVES, METHODS, OURS
from secondsight.evaluation.studies.paper_plan import Configuration, configuration
from secondsight.evaluation.studies.paper_records import Collected
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import atomic
from secondsight.visual.charts import bars

if TYPE_CHECKING:
    from secondsight.training import Recipe

MEASURES = {
    "pointing": ("PGA", "median PGE"),
    "discrimination": ("own positive", "cross negative"),
    "hard-negatives": ("δS negative", "δA negative"),
    "failures": ("failures", *(f"failures: {category}" for category in Failures.categories)),
}
"""The measures of every experiment for which the paper states numbers."""

ABOUT = (
    "Our numbers beside those that the paper's text states; a published number is a mean over models where it says so."
)

FIGURES_ABOUT = (
    "Every kind of figure of the paper, from the runs beside this page. Examples are the captions whose phrases are grounded "
    "best, and the wrong words that lower the attribution most."
)


def paper(
    data: Sequence[str],
    out: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    models: Mapping[str, str] | None = None,
    train: str | None = None,
    limit: int | None = None,
    limits: Mapping[str, int] | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
    about: str = "",
) -> pd.DataFrame:
    """Every model on every data set, before and, with `train`, after fine-tuning on that data; [M25] Tables 1-4.

    `data` are names that `open_data` takes, at most one of each kind; `models` maps names to what `ss.load` takes, by
    default those of the configuration; `limit` bounds the captions of every run, `limits` those of experiments, beside the
    configuration's. Reports go to `out`/DATA/MODEL and the table of all to `out`/paper.html, .csv and
    .json, with the published number if the paper's text states one; every kind of figure of the paper to `out`/figures.html,
    under the sentence `about`, and to `out`/figures/ as SVG and PNG. Weights that are not cached come from the hub; an
    `InputError` names those that cannot be fetched.
    """
    plan = configuration(config)
    plan["limits"] = {**plan["limits"], **(limits or {})}
    # Data before weights, as a mistake in its name shows at once.
    datasets = _open_datasets(data)
    training = open_data(train) if train else None
    folder = Path(out)
    study = _Study(plan, datasets, folder, limit, seed, progress)
    named = models or plan["models"]
    for name, spec in named.items():
        states = _states(spec, training, folder / "tuned" / slug(name), recipe, seed, progress)
        for state, checkpoint in states:
            model = load(checkpoint)
            study.run(name, state, model)
            if (state, checkpoint) == states[-1]:
                study.compare_methods(name, state, model)
                if name == next(iter(named)):
                    study.draw_examples(name, state, model)
    table = with_published(pd.DataFrame(study.rows), plan["published"])
    table = with_order(table, study.collected.pointing_cases(), seed)
    gains = gains_by_class(study.collected.pointing_cases(), plan["largest_gains"])
    _write_table(folder, table, gains, study.collected)
    write_figures(folder, study.collected, about or FIGURES_ABOUT)
    return table


@dataclass
class _Study:
    """Runs and what they gave: rows of the table, and what figures are drawn from."""

    plan: Configuration
    datasets: Mapping[str, GroundedDataset]
    folder: Path
    limit: int | None
    seed: int
    progress: Progress | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    collected: Collected = field(default_factory=Collected)
    captions: dict[str, Mapping[str, GroundedCaption]] = field(default_factory=dict)

    def run(self, name: str, state: str, model: DualEncoder) -> None:
        """Every experiment on every kind of data, for one model before or after fine-tuning."""
        for kind, experiment in _pairs(self.datasets, self.plan):
            results = self._evaluate(kind, experiment, name, state, model, {OURS: METHODS[OURS]})
            row = {"data": kind, "model": name, "fine-tuning": state}
            self.rows += [{**row, "measure": m, "ours": v} for m, v in measured(experiment, results).items()]
            self.collected.add(experiment, results, kind, name, state)
            self.captions.setdefault(kind, {})
            self.captions[kind] = {**self.captions[kind], **results.examples}

    def compare_methods(self, name: str, state: str, model: DualEncoder) -> None:
        """The paper's other methods beside its own, for the experiments of the plan."""
        methods = {method: METHODS[method] for method in IN_CURVES}
        for kind, experiment in _pairs(self.datasets, self.plan):
            if experiment in self.plan["baselines"]:
                results = self._evaluate(kind, experiment, name, state, model, methods)
                self.collected.add(experiment, results, kind, name, state, several=True)

    def draw_examples(self, name: str, state: str, model: DualEncoder) -> None:
        """Figures of single pairs, on the first data whose phrases were judged."""
        cases = self.collected.pointing_cases()
        if not len(cases):
            return
        kind = cases.data.iloc[0]

        def of_model(records: pd.DataFrame) -> pd.DataFrame:
            ours = (records.data == kind) & (records.model == name) & (records.state == state) if len(records) else []
            return records[ours] if len(records) else records

        negatives = of_model(self.collected.of("hard-negatives"))
        self.collected.examples |= example_figures(model, of_model(cases), negatives, self.captions[kind])

    def _evaluate(
        self, kind: str, experiment: str, name: str, state: str, model: DualEncoder, methods: Mapping[str, Method]
    ) -> Results:
        label = f"{name}, {state}"
        several = len(methods) > 1
        most = [self.limit, self.plan["limits"].get(experiment)]
        most += [self.plan["limits"].get("baselines")] if several else []
        return evaluate(
            experiment,
            self.datasets[kind],
            [(label, model)],
            list(methods.items()),
            out=self.folder / kind / (slug(label) + ("-methods" if several else "")),
            limit=min((n for n in most if n is not None), default=None),
            seed=self.seed,
            progress=self.progress,
        )


def measured(experiment: str, results: Results) -> dict[str, float]:
    """The measures of an experiment for which the paper states numbers."""
    if experiment == "failures":
        counts = results["categories"].iloc[0]
        failed = int(counts["failures"])
        shares = {
            f"failures: {name}": counts[name] / failed if failed else float("nan") for name in Failures.categories
        }
        return {"failures": failed / counts["cases"], **shares}
    return {name: float(results["overall"].iloc[0][name]) for name in MEASURES.get(experiment, ())}


def _open_datasets(data: Sequence[str]) -> dict[str, GroundedDataset]:
    """The data sets by kind; a path alone counts as JSONL."""
    prefixes = [spec.partition(":")[0] for spec in data]
    kinds = [prefix if prefix in KINDS else "jsonl" for prefix in prefixes]
    if not data or len(set(kinds)) < len(kinds):
        raise InputError("'paper' needs data sets of different kinds: --data coco:… --data flickr30k:… --data hnc:…")
    return {kind: open_data(spec) for kind, spec in zip(kinds, data, strict=True)}


def _states(
    spec: str,
    training: GroundedDataset | None,
    folder: Path,
    recipe: Recipe | None,
    seed: int,
    progress: Progress | None,
) -> list[tuple[str, str]]:
    """The model's names for `ss.load` before and, with training data, after fine-tuning."""
    if training is None:
        return [("before", spec)]
    # Imported late because fine-tuning needs another extra.
    from secondsight.training import Recipe, finetune, tuned_name

    tell = (lambda step, total, loss: progress(f"fine-tuning {spec}", step, total)) if progress else None
    checkpoint = finetune(spec, training, folder, recipe or Recipe(seed=seed), progress=tell)
    return [("before", spec), ("after", tuned_name(spec, checkpoint))]


def _pairs(datasets: Mapping[str, GroundedDataset], plan: Configuration) -> Iterator[tuple[str, str]]:
    """Every kind of data with each of its experiments."""
    for kind in datasets:
        for experiment in plan["experiments"].get(kind, ["pointing"]):
            yield kind, experiment


def _write_table(folder: Path, table: pd.DataFrame, gains: pd.DataFrame, collected: Collected) -> None:
    tables = {"all": table, **({"gains by class": gains} if len(gains) else {})}
    page = overview("the paper's models", ABOUT, tables, folder, _figures(collected, table))
    rows = json.loads(table.to_json(orient="records"))
    contents = {
        "paper.csv": table.to_csv(index=False),
        "paper.html": page,
        "paper.json": json.dumps(rows, indent=1, ensure_ascii=False),
        **({"gains-by-class.csv": gains.to_csv(index=False)} if len(gains) else {}),
    }
    for name, content in contents.items():
        with atomic(folder / name) as file:
            file.write(content.encode())


def _figures(collected: Collected, table: pd.DataFrame) -> dict[str, Figure]:
    """All models together: distributions of PGE, and every measure by model, before and after fine-tuning."""
    figures = {f"PGE {kind}": figure for kind, figure in energies_before_and_after(collected).items()}
    for (kind, measure), group in table.groupby(["data", "measure"], sort=False):
        if not measure.startswith("failures: "):
            wide = group.pivot_table(index="model", columns="fine-tuning", values="ours", sort=False)
            figures[f"{kind} {measure}"] = bars(wide, f"{measure} on {kind}")
    return figures


def gains_by_class(cases: pd.DataFrame, stated: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Standardised mean differences of PGE by class for each model, and whether the paper names the class."""
    named = {(kind, model): set(classes) for kind, model, classes in stated}
    tables = []
    for (kind, model), group in cases.groupby(["data", "model"], sort=False) if len(cases) else ():
        table = class_gains(group, "state")
        table.insert(0, "model", model)
        table.insert(0, "data", kind)
        mentioned = named.get((kind, model), set())
        tables.append(table.assign(**{"named by the paper": ["yes" if c in mentioned else "" for c in table["class"]]}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def with_order(table: pd.DataFrame, cases: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The table with ε_min of "fine-tuning raises PGE almost stochastically" beside the gain of the median PGE.

    The paper calls gains significant at ε_min ≤ 0.01 with p < 0.001.
    """

    def order(row: pd.Series) -> float:
        if (row["fine-tuning"], row["measure"]) != ("gain", "median PGE"):
            return float("nan")
        group = cases[(cases.data == row["data"]) & (cases.model == row["model"])]
        before, after = (group[group.state == state].energy for state in ("before", "after"))
        return almost_stochastic_order(after, before, confidence=CONFIDENCE, seed=seed)

    return table.assign(epsilon=[order(row) for _, row in table.iterrows()])


def with_published(table: pd.DataFrame, published: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """The table with the gains of fine-tuning appended, and the paper's number if it states one."""
    gains = []
    for (kind, name, measure), group in table.groupby(["data", "model", "measure"], sort=False):
        ours = group.set_index("fine-tuning")["ours"]
        if {"before", "after"} <= set(ours.index):
            row = {"data": kind, "model": name, "fine-tuning": "gain", "measure": measure}
            gains.append({**row, "ours": float(ours["after"] - ours["before"])})
    rows = pd.concat([table, pd.DataFrame(gains)], ignore_index=True) if gains else table
    stated = {(kind, model, state, measure): float(value) for kind, model, state, measure, value in published}

    def published_value(row: pd.Series) -> float:
        key = (row["fine-tuning"], row["measure"])
        for_any = stated.get((row["data"], "any", *key), float("nan"))
        return stated.get((row["data"], row["model"], *key), for_any)

    return rows.assign(published=[published_value(row) for _, row in rows.iterrows()])
