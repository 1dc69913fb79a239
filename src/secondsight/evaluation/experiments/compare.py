"""Compare: pointing of several settings, class by class."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd

from secondsight.evaluation.experiments.pointing import Pointing


class Compare(Pointing):
    """Two or more settings on the same cases: pointing, class by class, and which is almost stochastically larger."""

    name: ClassVar[str] = "compare"
    min_settings: ClassVar[int] = 2

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Pointing's tables, and differences of class means from the first setting."""
        tables = super().tables(frame)
        settings = list(dict.fromkeys(tables["classes"].setting))
        means = tables["classes"].pivot_table(index="class", columns="setting", values="mean PGE", sort=False)[settings]
        changes = means.sub(means[settings[0]], axis=0)[settings[1:]].add_suffix(f", less {settings[0]}")
        return {**tables, "differences of mean PGE": changes.reset_index()}
