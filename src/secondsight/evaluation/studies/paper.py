"""The paper's own experiments on your copy of its data: our numbers beside those that [M25] states."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from secondsight.data import KINDS, open_data
from secondsight.data.grounded import GroundedDataset
from secondsight.encoders.registry import load
from secondsight.evaluation.evaluate import evaluate
from secondsight.evaluation.experiments import EXPERIMENTS
from secondsight.evaluation.report import overview
from secondsight.evaluation.run import Progress, slug
from secondsight.methods import IntegratedJacobian
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, brief
from secondsight.visual.charts import bars, distributions

if TYPE_CHECKING:
    from secondsight.training import Recipe

MEASURES = {
    "pointing": ("PGA", "median PGE"),
    "discrimination": ("own positive", "cross negative"),
    "hard-negatives": ("δS negative", "δA negative"),
}
"""The measures of every experiment for which the paper states numbers."""

ABOUT = (
    "Our numbers beside those that the paper's text states; a published number is a mean over models where it says so."
)

Energies = dict[str, dict[str, np.ndarray]]
"""PGE of all cases, by kind of data and model."""


class Configuration(TypedDict):
    """Models by name, experiments by kind of data, and rows of data, model, fine-tuning, measure and published value."""

    models: dict[str, str]
    experiments: dict[str, list[str]]
    published: list[list[Any]]


def configuration(path: str | os.PathLike[str] | None = None) -> Configuration:
    """The package's configuration, or that of a YAML file of the same form."""
    try:
        if path is None:
            text = files("secondsight.evaluation.studies").joinpath("paper.yaml").read_text(encoding="utf-8")
        else:
            text = Path(path).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise InputError(f"{str(path)!r} cannot be read as YAML ({brief(problem)})") from problem
    fault = _fault(content)
    if fault:
        raise InputError(f"{str(path)!r} {fault}")
    return {
        "models": content["models"],
        "experiments": content.get("experiments", {}),
        "published": content.get("published", []),
    }


def _fault(content: Any) -> str:
    """Why a configuration cannot be used; empty if it can."""
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict) or not models or not _all_texts([*models, *models.values()]):
        return "needs 'models', names with what ss.load takes"
    unknown = [key for key in content if key not in Configuration.__annotations__]
    if unknown:
        return f"has an unknown key {str(unknown[0])[:40]!r}; known: models, experiments, published"
    experiments = content.get("experiments", {})
    if not isinstance(experiments, dict) or not all(map(_is_experiment_list, experiments.items())):
        return "needs lists of experiments by kind of data under 'experiments'"
    unlisted = next((name for names in experiments.values() for name in names if name not in EXPERIMENTS), None)
    if unlisted is not None:
        return f"names an unknown experiment {unlisted[:40]!r}; known: {', '.join(sorted(EXPERIMENTS))}"
    rows = content.get("published", [])
    if not isinstance(rows, list) or not all(map(_is_published, rows)):
        return "needs rows of data, model, fine-tuning, measure and value under 'published'"
    return ""


def _is_experiment_list(item: tuple[Any, Any]) -> bool:
    kind, names = item
    return isinstance(names, list) and _all_texts([kind, *names])


def _is_published(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 5 and _all_texts(row[:4]) and type(row[4]) in (int, float)


def _all_texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def paper(
    data: Sequence[str],
    out: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    models: Mapping[str, str] | None = None,
    train: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Every model on every data set, before and, with `train`, after fine-tuning on that data; [M25] Tables 1-4.

    `data` are names that `open_data` takes, at most one of each kind; `models` maps names to what `ss.load` takes, by
    default those of the configuration. Reports go to `out`/DATA/MODEL and the table of all to `out`/paper.html, .csv and
    .json, with the published number if the paper's text states one. Weights that are not cached come from the hub; an
    `InputError` names those that cannot be fetched.
    """
    plan = configuration(config)
    # Data before weights, as a mistake in its name shows at once.
    datasets = _open_datasets(data)
    training = open_data(train) if train else None
    folder = Path(out)
    rows: list[dict[str, Any]] = []
    energies: Energies = {}
    for name, spec in (models or plan["models"]).items():
        for state, checkpoint in _states(spec, training, folder / "tuned" / slug(name), recipe, seed):
            model, label = load(checkpoint), f"{name}, {state}"
            for kind, experiment in _pairs(datasets, plan):
                results = evaluate(
                    experiment,
                    datasets[kind],
                    [(checkpoint, model)],
                    [(label, IntegratedJacobian())],
                    out=folder / kind / slug(label),
                    limit=limit,
                    seed=seed,
                    progress=progress,
                )
                overall = results["overall"].iloc[0]
                row = {"data": kind, "model": name, "fine-tuning": state}
                measures = MEASURES.get(experiment, ())
                rows += [{**row, "measure": measure, "ours": float(overall[measure])} for measure in measures]
                if experiment == "pointing":
                    energies.setdefault(kind, {})[label] = results.records.energy.dropna().to_numpy()
    table = with_published(pd.DataFrame(rows), plan["published"])
    _write_table(folder, table, energies)
    return table


def _open_datasets(data: Sequence[str]) -> dict[str, GroundedDataset]:
    """The data sets by kind; a path alone counts as JSONL."""
    prefixes = [spec.partition(":")[0] for spec in data]
    kinds = [prefix if prefix in KINDS else "jsonl" for prefix in prefixes]
    if not data or len(set(kinds)) < len(kinds):
        raise InputError("'paper' needs data sets of different kinds: --data coco:… --data flickr30k:… --data hnc:…")
    return {kind: open_data(spec) for kind, spec in zip(kinds, data, strict=True)}


def _states(
    spec: str, training: GroundedDataset | None, folder: Path, recipe: Recipe | None, seed: int
) -> list[tuple[str, str]]:
    """The model's names for `ss.load` before and, with training data, after fine-tuning."""
    if training is None:
        return [("before", spec)]
    # Imported late because fine-tuning needs another extra.
    from secondsight.training import Recipe, finetune, tuned_name

    checkpoint = finetune(spec, training, folder, recipe or Recipe(seed=seed))
    return [("before", spec), ("after", tuned_name(spec, checkpoint))]


def _pairs(datasets: Mapping[str, GroundedDataset], plan: Configuration) -> Iterator[tuple[str, str]]:
    """Every kind of data with each of its experiments."""
    for kind in datasets:
        for experiment in plan["experiments"].get(kind, ["pointing"]):
            yield kind, experiment


def _write_table(folder: Path, table: pd.DataFrame, energies: Energies) -> None:
    page = overview("the paper's models", ABOUT, {"all": table}, folder, _figures(energies, table))
    rows = json.loads(table.to_json(orient="records"))
    contents = {
        "paper.csv": table.to_csv(index=False),
        "paper.html": page,
        "paper.json": json.dumps(rows, indent=1, ensure_ascii=False),
    }
    for name, content in contents.items():
        with atomic(folder / name) as file:
            file.write(content.encode())


def _figures(energies: Energies, table: pd.DataFrame) -> dict[str, Figure]:
    """All models together: distributions of PGE, and every measure by model, before and after fine-tuning."""
    figures = {
        f"PGE {kind}": distributions(by_model, f"PGE on {kind}: positive attribution in the box")
        for kind, by_model in energies.items()
    }
    for (kind, measure), group in table.groupby(["data", "measure"], sort=False):
        wide = group.pivot_table(index="model", columns="fine-tuning", values="ours", sort=False)
        figures[f"{kind} {measure}"] = bars(wide, f"{measure} on {kind}")
    return figures


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
