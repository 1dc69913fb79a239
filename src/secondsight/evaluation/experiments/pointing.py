"""Pointing: whether a phrase's map highlights its object ([M25] Table 1, Fig. 4-6)."""

from __future__ import annotations

from itertools import permutations
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation.experiments.base import Record, groups, of_kind
from secondsight.evaluation.experiments.grounding import Grounding
from secondsight.evaluation.setting import Setting
from secondsight.evaluation.statistics import almost_stochastic_order, standardised_difference
from secondsight.visual.charts import class_bars, distributions

EPSILON = 0.01
"""Below this ε_min a setting counts as almost stochastically larger ([M25])."""

CONFIDENCE = 0.999

LEAST = 5
"""Cases that a class needs under both settings, to have a standardised difference."""


class Pointing(Grounding):
    """Does a phrase's map point at its object? PGA and PGE, over all and by class ([M25] Table 1, Fig. 4-6)."""

    name: ClassVar[str] = "pointing"

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each case, and one for each reason for skipping phrases."""
        cases, skipped = self.judged_cases(setting, example)
        records: list[Record] = [{"kind": "case", **self.score(setting, case, example)} for case in cases]
        return records + [{"kind": "skipped", "reason": r, "count": count} for r, count in sorted(skipped.items())]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Over all cases, by class, skipped phrases, and every pair of settings compared."""
        cases = of_kind(frame, "case")
        tables = {"overall": self.summaries(cases), "classes": self.classes(cases)}
        skipped = of_kind(frame, "skipped")
        if len(skipped):
            counts = groups(skipped, ["setting", "reason"])["count"].sum().astype(int)
            tables["left out"] = counts.reset_index()
        orders = self.orders(cases)
        if len(orders):
            tables["almost stochastic order"] = orders
        return tables

    @staticmethod
    def summaries(cases: pd.DataFrame) -> pd.DataFrame:
        """PGA, PGE and chance of every setting."""
        rows = []
        for setting, group in groups(cases, "setting"):
            values = {
                "cases": len(group),
                "PGA": group.hit.mean(),
                "median PGE": group.energy.median(),
                "mean PGE": group.energy.mean(),
                "PGE above 0.8": (group.energy > 0.8).mean(),
                "chance": group.chance.mean(),
                "mean error": group.error.mean(),
            }
            rows.append(pd.Series(values).rename(setting))
        return pd.DataFrame(rows).astype({"cases": int})

    @staticmethod
    def classes(cases: pd.DataFrame) -> pd.DataFrame:
        """PGA and PGE by setting and class."""
        rows = [
            {
                "setting": setting,
                "class": label,
                "cases": len(group),
                "PGA": group.hit.mean(),
                "mean PGE": group.energy.mean(),
                "sd PGE": group.energy.std(ddof=0),
                "mean area": group.chance.mean(),
            }
            for (setting, label), group in groups(cases, ["setting", "label"])
        ]
        return pd.DataFrame(rows)

    def orders(self, cases: pd.DataFrame) -> pd.DataFrame:
        """Whether one setting's PGE is almost stochastically larger than another's, for every pair."""
        return stochastic_orders(cases, "energy", "PGE", self.seed)

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Cumulative distributions of PGE, and bars of the classes."""
        cases = of_kind(frame, "case")
        energies = {setting: group.energy.to_numpy() for setting, group in groups(cases, "setting")}
        figures = {"energy": distributions(energies, "PGE: positive attribution in the box")}
        classes = self.classes(cases)
        if classes["class"].nunique() > 1:
            gains = None
            if len(energies) == 2:
                gains = class_gains(cases, "setting").set_index("class")["standardised difference"].to_dict()
            figures["classes"] = class_bars(classes, "mean PGE", "sd PGE", gains=gains)
        return figures

    def gallery(self, frame: pd.DataFrame) -> list[Record]:
        """The best, the quartiles and the worst of each setting."""
        return quartile_cases(of_kind(frame, "case"), "energy")


def stochastic_orders(cases: pd.DataFrame, measure: str, name: str, seed: int) -> pd.DataFrame:
    """Whether one setting's values of a measure are almost stochastically larger than another's, for every pair.

    `measure` is a column of `cases` and `name` what the table calls it.
    """
    rows = []
    for a, b in permutations(cases.setting.unique(), 2):
        scores = common_cases(cases, a, b, measure)
        if len(scores) > 1:
            epsilon = almost_stochastic_order(scores[a], scores[b], confidence=CONFIDENCE, seed=seed)
            row = {f"{name} of": a, "above that of": b, "cases": len(scores), "epsilon": epsilon}
            rows.append({**row, f"at {EPSILON}": epsilon <= EPSILON})
    return pd.DataFrame(rows)


def quartile_cases(cases: pd.DataFrame, measure: str) -> list[Record]:
    """The cases of each setting with the best, the worst and the quartiles of a measure."""
    records: list[Record] = []
    for _, group in groups(cases, "setting"):
        ordered = group.sort_values([measure, "key", "words"])
        n = len(ordered)
        places = sorted({n - 1, 3 * n // 4, n // 2, n // 4, 0} & set(range(n)), reverse=True)
        records += [ordered.iloc[i].to_dict() for i in places]
    return records


def class_gains(cases: pd.DataFrame, by: str) -> pd.DataFrame:
    """Mean PGE of every class under the first and the last value of a column, and the standardised mean difference.

    Classes with few cases are left out; the largest difference comes first ([M25] Figs. 6, 19).
    """
    names = list(dict.fromkeys(cases[by]))
    columns = ["class", "cases", str(names[0]), str(names[-1]), "standardised difference"]
    rows = []
    for label, group in groups(cases, "label"):
        first, last = (group[group[by] == name].energy for name in (names[0], names[-1]))
        if min(len(first), len(last)) >= LEAST and len(names) > 1:
            d = standardised_difference(last, first)
            rows.append(dict(zip(columns, (label, len(first), first.mean(), last.mean(), d), strict=True)))
    table = pd.DataFrame(rows, columns=columns).dropna()
    return table.sort_values("standardised difference", ascending=False, ignore_index=True)


def common_cases(cases: pd.DataFrame, a: str, b: str, measure: str = "energy") -> pd.DataFrame:
    """A measure of two settings on the cases that both judged."""
    with_names = cases.assign(case=cases["key"] + cases["words"] + cases["span"].astype(str))
    table = with_names.pivot_table(index="case", columns="setting", values=measure, aggfunc="first", sort=False)
    return table[[a, b]].dropna()
