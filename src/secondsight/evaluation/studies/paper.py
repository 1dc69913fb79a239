"""The paper's own experiments on one's copy of its data: our numbers beside those that [M25] states."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from secondsight.data import KINDS, open_data
from secondsight.encoders.registry import load
from secondsight.evaluation.report import overview
from secondsight.evaluation.run import EXPERIMENTS, slug
from secondsight.methods import IntegratedJacobian
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, brief

MEASURES = {
    "pointing": ("PGA", "median PGE"),
    "discrimination": ("own positive", "cross negative"),
    "hard-negatives": ("δS negative", "δA negative"),
}


def configuration(path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The models, experiments and published numbers; the package's own, or a YAML file of the same form."""
    try:
        text = (
            files("secondsight.evaluation.studies").joinpath("paper.yaml").read_text()
            if path is None
            else Path(path).read_text(encoding="utf-8")
        )
        made = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise InputError(f"{str(path)!r} cannot be read as YAML ({brief(problem)})") from problem
    wrong = _misshapen(made)
    if wrong:
        raise InputError(f"{str(path)!r} {wrong}")
    return {"experiments": {}, "published": [], **made}


def _misshapen(made: Any) -> str:
    """What a configuration lacks or has too much of; empty where it can be used."""
    models = made.get("models") if isinstance(made, dict) else None
    if not isinstance(models, dict) or not models or not all(_texts([*models, *models.values()])):
        return "needs 'models', names with what ss.load takes"
    unknown = [key for key in made if key not in ("models", "experiments", "published")]
    if unknown:
        return f"has an unknown key {str(unknown[0])[:40]!r}; known: models, experiments, published"
    chosen = made.get("experiments", {})
    if not isinstance(chosen, dict) or not all(isinstance(v, list) and all(_texts([k, *v])) for k, v in chosen.items()):
        return "needs lists of experiments by kind of data under 'experiments'"
    named = next((one for v in chosen.values() for one in v if one not in EXPERIMENTS), None)
    if named is not None:
        return f"names an unknown experiment {named[:40]!r}; known: {', '.join(sorted(EXPERIMENTS))}"
    rows = made.get("published", [])
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 5 and all(_texts(row[:4])) and type(row[4]) in (int, float)
        for row in rows
    ):
        return "needs rows of data, model, fine-tuning, measure and value under 'published'"
    return ""


def _texts(values: Sequence[Any]) -> Iterator[bool]:
    return (isinstance(value, str) for value in values)


def paper(
    data: Sequence[str],
    out: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    models: Mapping[str, str] | None = None,
    train: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    recipe: Any = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> pd.DataFrame:
    """Every model on every data set, before and, with `train`, after fine-tuning on that data; [M25] Tables 1-4.

    `data` are what `open_data` opens, each of a kind once; `models` are names with what `ss.load` takes, by default those
    of the configuration. Reports go to `out`/DATA/MODEL, the table of all to `out`/paper.html, .csv and .json, with the
    published number where the paper's text gives one. Hub weights are needed where they are not cached: the error says
    which.
    """
    from secondsight.evaluation import evaluate
    from secondsight.training import Recipe, finetune, tuned_name

    known = configuration(config)
    chosen = dict(models or known["models"])
    kinds = [one.partition(":")[0] if one.partition(":")[0] in KINDS else "jsonl" for one in data]
    if not data or len(set(kinds)) < len(kinds):
        raise InputError("'paper' needs data sets of different kinds: --data coco:… --data flickr30k:… --data hnc:…")
    # Data first: it is read sooner than weights are fetched, and either is an end.
    opened = {kind: open_data(one) for kind, one in zip(kinds, data, strict=True)}
    training = open_data(train) if train else None
    place = Path(out)
    rows: list[dict[str, Any]] = []
    energies: dict[str, dict[str, Any]] = {}
    for name, spec in chosen.items():
        states = [("before", spec)]
        if training is not None:
            tuned = finetune(spec, training, place / "tuned" / slug(name), recipe or Recipe(seed=seed))
            states.append(("after", tuned_name(spec, tuned)))
        for state, wanted in states:
            model = load(wanted)
            for kind, one in opened.items():
                for experiment in known["experiments"].get(kind, ["pointing"]):
                    label = f"{name}, {state}"
                    tables = evaluate(
                        experiment,
                        one,
                        [(wanted, model)],
                        [(label, IntegratedJacobian())],
                        out=place / kind / slug(label),
                        limit=limit,
                        seed=seed,
                        progress=progress,
                    )
                    row = tables["overall"].iloc[0]
                    if experiment == "pointing":
                        records = pd.read_parquet(place / kind / slug(label) / "pointing" / "records.parquet")
                        energies.setdefault(kind, {})[label] = records.energy.dropna().to_numpy()
                    found = {"data": kind, "model": name, "fine-tuning": state}
                    rows += [{**found, "measure": m, "ours": float(row[m])} for m in MEASURES.get(experiment, ())]
    table = with_published(pd.DataFrame(rows), known["published"])
    with atomic(place / "paper.csv") as file:
        file.write(table.to_csv(index=False).encode())
    about = "Our numbers beside those that the paper's text states; a published number is a mean over models where it says so."
    with atomic(place / "paper.html") as file:
        file.write(overview("the paper's models", about, {"all": table}, place, _figures(energies, table)).encode())
    with atomic(place / "paper.json") as file:
        file.write(json.dumps(json.loads(table.to_json(orient="records")), indent=1, ensure_ascii=False).encode())
    return table


def _figures(energies: Mapping[str, Mapping[str, Any]], table: pd.DataFrame) -> dict[str, Figure]:
    """All models together: distributions of PGE, and every measure by model, before and after."""
    from secondsight.visual.charts import bars, distributions

    made = {
        f"PGE {kind}": distributions(named, f"PGE on {kind}: positive attribution in the box")
        for kind, named in energies.items()
    }
    for (kind, measure), group in table.groupby(["data", "measure"], sort=False):
        wide = group.pivot_table(index="model", columns="fine-tuning", values="ours", sort=False)
        made[f"{kind} {measure}"] = bars(wide, f"{measure} on {kind}")
    return made


def with_published(table: pd.DataFrame, published: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """The table with gains of fine-tuning appended, and the paper's number where it states one."""
    gains = []
    for (kind, name, measure), group in table.groupby(["data", "model", "measure"], sort=False):
        both = group.set_index("fine-tuning")["ours"]
        if {"before", "after"} <= set(both.index):
            found = {"data": kind, "model": name, "fine-tuning": "gain", "measure": measure}
            gains.append({**found, "ours": float(both["after"] - both["before"])})
    whole = pd.concat([table, pd.DataFrame(gains)], ignore_index=True) if gains else table
    stated = {(kind, model, state, measure): float(value) for kind, model, state, measure, value in published}

    def of(row: pd.Series) -> float:
        key = (row["fine-tuning"], row["measure"])
        return stated.get((row["data"], row["model"], *key), stated.get((row["data"], "any", *key), float("nan")))

    return whole.assign(published=[of(row) for _, row in whole.iterrows()])
