"""The tables of a comparison of explanations: one row for each setting, tests of the differences, and who wins where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import pandas as pd

from secondsight.evaluation.run import Run
from secondsight.evaluation.setting import Setting
from secondsight.evaluation.statistics import almost_stochastic_order, bootstrap_interval, holm, staged_sign_flip_p
from secondsight.evaluation.studies.columns import COLUMNS, Scores, column_values, paired_scores
from secondsight.support.errors import InputError

LEVEL = 0.05
"""The chance of any wrong statement in a table of differences from one setting."""

DRAWS, PROMISING = 99_999, 0.02
"""Random sign patterns of a test whose first thousand give at most that p: among hundreds of rows only a small p counts."""

FIRST, BEST = "first", "best"
"""What settings are tested against: the first, or the best one in each column."""


def overall(runs: Mapping[str, Run], seed: int) -> pd.DataFrame:
    """One row for each setting: what it is, and every column of `COLUMNS`, with intervals where cases are compared."""
    pointing = runs["pointing"]
    table = pd.DataFrame([{"setting": setting.label, **described(pointing, setting)} for setting in pointing.settings])
    for column in COLUMNS:
        values = column_values(column, runs)
        table[column.name] = [values.get(label, float("nan")) for label in table["setting"]]
        if column.quality:
            limits = intervals(paired_scores(column, runs), seed)
            for side, name in enumerate(("low", "high")):
                table[f"{column.name} {name}"] = [limits.get(label, (None, None))[side] for label in table["setting"]]
                table[f"{column.name} {name}"] = table[f"{column.name} {name}"].astype(float)
    table.insert(table.columns.get_loc("PGA"), "cases", len(paired_scores(COLUMNS[0], runs).values))
    return table


def intervals(scores: Scores, seed: int) -> dict[str, tuple[float, float]]:
    """95 % intervals of every setting's value, images drawn anew."""
    statistic, values = scores.column.statistic, scores.values
    if not len(values):
        return {}
    return {str(name): bootstrap_interval(values[name], scores.images, statistic, seed=seed) for name in values}


def described(pointing: Run, setting: Setting) -> dict[str, Any]:
    """A setting's method with its unusual options, its layers, references, order and whether it adds up."""
    method = setting.method
    usual: dict[str, Any] = {f.name: f.default for f in fields(method)} if is_dataclass(method) else {}
    values = {name: getattr(method, name) for name in usual if name not in ("layer", "reference")}
    options = [f"{name}={value}" for name, value in values.items() if value != usual[name]]
    outcomes = setting.explain(next(iter(pointing.examples.values())))[0].outcomes
    layers = [str(outcome.layer) if outcome else "–" for outcome in outcomes]
    references = [outcome.reference if outcome else "–" for outcome in outcomes]
    alone = ", phrase alone" if setting.phrases_alone and method.order > 1 else ""
    return {
        "method": (f"{method.name} ({', '.join(options)})" if options else method.name) + alone,
        "layer": " / ".join(layers),
        "reference": " / ".join(references if len(set(references)) > 1 else references[:1]),
        "order": method.order,
        "adds up": "yes" if method.adds_up else "no",
    }


def differences(runs: Mapping[str, Run], against: Sequence[str], seed: int) -> pd.DataFrame:
    """Every setting against others on the same cases, with tests, in every column of quality.

    `against` are "first", "best" (in each column) or labels of settings. Intervals and p-values take all cases of an image
    together; p-values are corrected for the number of rows with the same "base" (Holm), and the confidence of ε for the number
    of bounds of a column. "verdict" is "better" or "worse" where the corrected p is below `LEVEL`. Raises `InputError` for an
    unknown label.
    """
    labels = [setting.label for setting in runs["pointing"].settings]
    for base in against:
        if base not in (FIRST, BEST, *labels):
            raise InputError(f"unknown against {base!r}; known: {', '.join([FIRST, BEST, *labels])}")
    compared = [column for column in COLUMNS if column.quality]
    scores = [found for column in compared if len((found := paired_scores(column, runs)).values)]
    tables = []
    for base in dict.fromkeys(against):
        rows = [row for found in scores for row in _tests(found, labels[0] if base == FIRST else base, seed)]
        table = pd.DataFrame(rows)
        if rows:
            table.insert(0, "base", base)
            table["p"] = holm(table["p"].tolist())
            decided = table["p"] < LEVEL
            table["verdict"] = [
                ("better" if gain > 0 else "worse") if sure else "undecided"
                for gain, sure in zip(table.pop("gain"), decided, strict=True)
            ]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _tests(scores: Scores, base: str, seed: int) -> list[dict[str, Any]]:
    """One column's rows of `differences`; none if the base has no scores."""
    column, values = scores.column, scores.values
    if base == BEST:
        # Of means, as they are what the tests compare.
        base = str(column.gain(values).mean().idxmax())
    if base not in values:
        return []
    # A setting that differs in how it looks at phrases has the same numbers where whole captions are measured.
    compared = [str(label) for label in values if not (values[label] == values[base]).all()]
    confidence = 1 - LEVEL / max(2 * len(compared), 1)
    gains = column.gain(values)
    rows = []
    for label in compared:
        change = values[label] - values[base]
        low, high = bootstrap_interval(change, scores.images, seed=seed)
        better, worse = (
            almost_stochastic_order(gains[a], gains[b], confidence=confidence, seed=seed)
            for a, b in ((label, base), (base, label))
        )
        gain = gains[label] - gains[base]
        rows.append(
            {
                "measure": column.name,
                "setting": label,
                "against": base,
                "cases": len(values),
                "difference": float(change.mean()),
                "low": low,
                "high": high,
                "p": staged_sign_flip_p(gain, scores.images, draws=DRAWS, promising=PROMISING, seed=seed),
                "ε better": better,
                "ε worse": worse,
                "gain": float(gain.mean()),
            }
        )
    return rows


def few_images(runs: Mapping[str, Run]) -> list[str]:
    """The tested columns with so few images that no pattern of signs gives a p below `LEVEL`, each with their number."""
    names = []
    for column in COLUMNS:
        images = len(set(paired_scores(column, runs).images)) if column.quality else 0
        if images and 2.0 ** (1 - images) >= LEVEL:
            names.append(f"{column.name} ({images})")
    return names


def wins(compared: pd.DataFrame, base: str) -> pd.DataFrame:
    """Where another setting is surely better than `base`: the rows of `differences` that say so, strongest evidence first."""
    if not len(compared):
        return compared
    rows = compared[(compared["base"] == base) & (compared["verdict"] == "better")]
    columns = ["setting", "measure", "against", "cases", "difference", "low", "high", "p", "ε better"]
    return rows.sort_values(["p", "measure"], kind="stable")[columns].reset_index(drop=True)


def verdicts(compared: pd.DataFrame, base: str) -> dict[str, str]:
    """A sentence for each setting: where it is surely better than `base`, where worse, and where that is open."""
    rows = compared[compared["base"] == base] if len(compared) else compared
    sentences = {}
    for label, group in rows.groupby("setting", sort=False) if len(rows) else ():
        parts = []
        for verdict in ("better", "worse"):
            names = [
                f"{row['measure']} (p {_p_text(row['p'])})"
                for _, row in group[group["verdict"] == verdict].sort_values("p", kind="stable").iterrows()
            ]
            if names:
                parts.append(f"{verdict} at {', '.join(names)}")
        undecided = group[group["verdict"] == "undecided"]["measure"].tolist()
        if undecided:
            parts.append(f"undecided at {', '.join(undecided)}")
        sentences[str(label)] = f"against {group['against'].iloc[0]}: {'; '.join(parts)}"
    return sentences


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"
