"""The tables of a comparison of explanations: one row for each setting, tests of the differences, and files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from secondsight.evaluation.experiments.base import groups, of_kind
from secondsight.evaluation.report import overview
from secondsight.evaluation.run import Run
from secondsight.evaluation.setting import Setting
from secondsight.evaluation.statistics import almost_stochastic_order, bootstrap_interval, holm, sign_flip_p
from secondsight.evaluation.tables import cell_text, markdown, plain_rows
from secondsight.support.files import atomic

LEVEL = 0.05
"""The chance of any wrong statement in the table of differences."""

READING = {
    "PGA, PGE": "share of phrases whose map is highest in the object's box, and the median share of positive attribution "
    "in it, on the cases that all settings judged; 95 % intervals, images drawn anew",
    "error": "median difference between the similarity and its four terms, in units of the similarity",
    "faithfulness": "median correlation of predicted with actual similarity of masked inputs",
    "CII, CTI": "similarity while the strongest features of the image (text) are put in, median area; higher is better",
    "CID, CTD": "while they are taken away; lower is better",
    "collage": "mean signed share of attribution in the right one of four images",
    "negatives": "share of wrong words whose attribution to the object's box is below the right word's",
    "sanity": "median rank correlation with the maps of the same model with shuffled weights; near 0 is better",
    "references, seeds": "median correlation of maps under two references of the image, and under a random one's seeds",
    "passes": "median time of an explanation in forward passes of the pair",
}
"""What the columns of the Markdown table mean."""


def overall(runs: Mapping[str, Run], seed: int) -> pd.DataFrame:
    """One row for each setting: what it is, pointing with intervals, and every measure that could judge it."""
    pointing = runs["pointing"]
    hits, energies, images = common_scores(pointing)
    columns = measure_columns(runs)
    rows = []
    for setting in pointing.settings:
        label = setting.label
        hit_low, hit_high = bootstrap_interval(hits[label], images, seed=seed)
        energy_low, energy_high = bootstrap_interval(energies[label], images, np.median, seed=seed)
        row = {"setting": label, **described(pointing, setting), "cases": len(hits)}
        row |= {"PGA": hits[label].mean(), "PGA low": hit_low, "PGA high": hit_high}
        row |= {"median PGE": energies[label].median(), "PGE low": energy_low, "PGE high": energy_high}
        rows.append(row | {name: float(values.get(label, float("nan"))) for name, values in columns.items()})
    return pd.DataFrame(rows)


def common_scores(pointing: Run) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Hits and PGE by case and setting, on the cases that every setting judged, and each case's image."""
    cases = of_kind(pointing.frame, "case")
    cases = cases.assign(case=cases["key"] + " " + cases["span"].map(str))
    labels = [setting.label for setting in pointing.settings]
    hits, energies = (
        cases.pivot_table(index="case", columns="setting", values=value, sort=False)[labels].dropna()
        for value in ("hit", "energy")
    )
    key_of = dict(zip(cases["case"], cases["key"], strict=True))
    return hits, energies, np.array([pointing.examples[key_of[case]].image_key for case in hits.index])


def described(pointing: Run, setting: Setting) -> dict[str, str]:
    """A setting's method with its unusual options, its layers and its references, as users name them."""
    method = setting.method
    usual: dict[str, Any] = {f.name: f.default for f in fields(method)} if is_dataclass(method) else {}
    values = {name: getattr(method, name) for name in usual if name not in ("layer", "reference")}
    options = [f"{name}={value}" for name, value in values.items() if value != usual[name]]
    outcomes = setting.explain(next(iter(pointing.examples.values())))[0].outcomes
    layers = [str(outcome.layer) if outcome else "–" for outcome in outcomes]
    references = [outcome.reference if outcome else "–" for outcome in outcomes]
    return {
        "method": f"{method.name} ({', '.join(options)})" if options else method.name,
        "layer": " / ".join(layers),
        "reference": " / ".join(references if len(set(references)) > 1 else references[:1]),
    }


def measure_columns(runs: Mapping[str, Run]) -> dict[str, Mapping[str, float]]:
    """Every other measure's values by the setting's label; a measure that did not run has none."""

    def by_setting(name: str, kind: str | None = None) -> Any:
        if name not in runs:
            return None
        frame = runs[name].frame
        return groups(frame if kind is None else of_kind(frame, kind), "setting")

    def medians(grouped: Any, column: str) -> Mapping[str, float]:
        return {} if grouped is None else dict(grouped[column].median())

    collage, negatives, sanity = by_setting("collage"), by_setting("hard-negatives"), by_setting("sanity", "case")
    rank = medians(sanity, "rank_correlation")
    return {
        "error": medians(by_setting("pointing", "case"), "error"),
        "faithfulness": medians(by_setting("faithfulness"), "correlation"),
        **{name: medians(by_setting("perturbation", name), "area") for name in ("CII", "CID", "CTI", "CTD")},
        "collage": {} if collage is None else dict(collage["share"].mean()),
        "negatives": {} if negatives is None else dict(negatives["delta_attribution"].apply(share_below_zero)),
        "sanity": {label.removesuffix(", shuffled weights"): v for label, v in rank.items() if not np.isnan(v)},
        "references": medians(by_setting("references", "pair"), "correlation"),
        "seeds": medians(by_setting("references", "seeds"), "correlation"),
        "passes": medians(by_setting("cost"), "passes"),
    }


def share_below_zero(changes: pd.Series) -> float:
    """The share of the changes that are negative; NaN if there are none."""
    values = changes.astype(float).dropna()
    return float((values < 0).mean()) if len(values) else float("nan")


def differences(pointing: Run, against: str, seed: int) -> pd.DataFrame:
    """Every setting against the first or the best one on the same cases, with tests.

    Intervals and p-values take all cases of an image together; p-values are corrected for the number of rows (Holm), and the
    confidence of ε for the number of bounds.
    """
    hits, energies, images = common_scores(pointing)
    labels = [setting.label for setting in pointing.settings]
    base = labels[0] if against == "first" else str(energies.mean()[labels].idxmax())
    compared = [setting for setting in pointing.settings if setting.label != base]
    confidence = 1 - LEVEL / max(2 * len(compared), 1)
    rows = []
    for setting in compared:
        label = setting.label
        gain, more_hits = energies[label] - energies[base], hits[label] - hits[base]
        low, high = bootstrap_interval(gain, images, seed=seed)
        above, below = (
            almost_stochastic_order(energies[a], energies[b], confidence=confidence, seed=seed)
            for a, b in ((label, base), (base, label))
        )
        rows.append(
            {
                "setting": label,
                "against": base,
                "cases": len(gain),
                "PGA, difference": more_hits.mean(),
                "p of PGA": sign_flip_p(more_hits, images, seed=seed),
                "mean PGE, difference": gain.mean(),
                "low": low,
                "high": high,
                "p of PGE": sign_flip_p(gain, images, seed=seed),
                "ε above": above,
                "ε below": below,
            }
        )
    table = pd.DataFrame(rows)
    for column in ("p of PGA", "p of PGE") if rows else ():
        table[column] = holm(table[column].tolist())
    return table


def write_comparison(folder: Path, runs: Mapping[str, Run], tables: Mapping[str, pd.DataFrame], model: str) -> None:
    """Write overall.csv, differences.csv, methods.json, methods.md and methods.html."""
    pointing = runs["pointing"]
    captions = {name: int(finished.frame["key"].nunique()) for name, finished in runs.items()}
    about = (
        f"{pointing.data.summary()}. Model {model}, rule {pointing.experiment.rule}, seed {pointing.experiment.seed}. "
        f"Captions: {', '.join(f'{name} {count}' for name, count in captions.items())}."
    )
    facts = {"about": about, "tables": {name: plain_rows(table) for name, table in tables.items()}}
    readable = {name: table for name, table in tables.items() if len(table)}
    contents = {
        "overall.csv": tables["overall"].to_csv(index=False),
        "differences.csv": tables["differences"].to_csv(index=False),
        "methods.json": json.dumps(facts, indent=1, ensure_ascii=False),
        "methods.md": as_markdown(about, tables),
        "methods.html": overview("which explanation is right?", about, readable, folder),
    }
    for name, content in contents.items():
        with atomic(folder / name) as file:
            file.write(content.encode())


def as_markdown(about: str, tables: Mapping[str, pd.DataFrame]) -> str:
    """All tables for a page, intervals in the cells, and what the columns mean."""
    table = tables["overall"]
    compact = table[["method", "layer", "reference"]].copy()
    compact["PGA"] = [with_interval(*row) for row in table[["PGA", "PGA low", "PGA high"]].to_numpy()]
    compact["PGE"] = [with_interval(*row) for row in table[["median PGE", "PGE low", "PGE high"]].to_numpy()]
    for name in table.columns[list(table.columns).index("PGE high") + 1 :]:
        compact[name] = [cell_text(float(value)) for value in table[name]]
    compact["passes"] = [cell_text(value) if np.isnan(value) else f"{value:.1f}" for value in table["passes"]]
    parts = [about, markdown(compact), "\n".join(f"- {name}: {text}." for name, text in READING.items())]
    compared = tables["differences"]
    if len(compared):
        base = compared["against"].iloc[0]
        words = (
            f"Differences from `{base}` on the same {compared['cases'].iloc[0]} cases. p: signs of whole images flipped, "
            f"Holm's correction. ε: a PGE is almost stochastically larger (above) or smaller (below) where it is under 0.5."
        )
        columns = compared.drop(columns=["against", "cases", "low", "high"])
        interval = compared[["mean PGE, difference", "low", "high"]].to_numpy()
        columns["mean PGE, difference"] = [with_interval(*row) for row in interval]
        parts += [words, markdown(columns)]
    if len(tables["notes"]):
        parts.append("\n".join(f"- {note}" for note in tables["notes"]["note"]))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def with_interval(value: float, low: float, high: float) -> str:
    """A number and its interval."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
