"""Findings: sentences with a test of significance, and the files that list them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from secondsight.evaluation.report import overview
from secondsight.evaluation.tables import cell_text, markdown, plain_rows
from secondsight.support.files import atomic

LEVEL = 0.001
"""A finding holds if its direction is as stated and p is below this."""


@dataclass(frozen=True)
class Finding:
    """A sentence, its source, the observation in words, and a test: cases, p, and whether the direction is as stated."""

    finding: str
    source: str
    observation: str
    cases: int
    p: float
    direction: bool

    @property
    def holds(self) -> bool:
        """Whether the direction is as stated and significant."""
        return self.direction and self.p < LEVEL

    @property
    def verdict(self) -> str:
        """yes, no (something else is significant), or unclear."""
        return "yes" if self.holds else "no" if self.p < LEVEL else "unclear"


def higher(finding: str, source: str, measure: str, a: Any, b: Any) -> Finding:
    """Whether paired scores `a` are above `b`; Wilcoxon's signed ranks, two-sided."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    differ = bool(np.any(a != b))
    p = float(stats.wilcoxon(a, b).pvalue) if len(a) > 5 and differ else 1.0
    median, mean = float(np.median(a - b)), float(np.mean(a - b))
    observation = f"median {measure} {cell_text(float(np.median(a)))} against {cell_text(float(np.median(b)))}"
    return Finding(finding, source, observation, len(a), p, median > 0 or (median == 0 and mean > 0))


def more_hits(finding: str, source: str, a: Any, b: Any) -> Finding:
    """Whether paired hits `a` are more than `b`; the sign test on the cases that differ."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    up, down = int((a > b).sum()), int((a < b).sum())
    p = float(stats.binomtest(up, up + down).pvalue) if up + down else 1.0
    return Finding(finding, source, f"PGA {a.mean():.3f} against {b.mean():.3f}", len(a), p, up > down)


def mostly(finding: str, source: str, truths: Any) -> Finding:
    """Whether something is true of more than half of the cases; binomial test."""
    true = np.asarray(truths, bool)
    p = float(stats.binomtest(int(true.sum()), len(true)).pvalue) if len(true) else 1.0
    share = float(true.mean()) if len(true) else float("nan")
    return Finding(finding, source, f"{share:.1%} of the cases", len(true), p, share > 0.5)


def as_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """Findings with their verdicts, one in each row."""
    return pd.DataFrame(
        [
            {
                "finding": f.finding,
                "source": f.source,
                "here": f.observation,
                "cases": f.cases,
                "p": f.p,
                "holds": f.verdict,
            }
            for f in findings
        ]
    )


def write_findings(
    folder: Path, findings: pd.DataFrame, tables: Mapping[str, pd.DataFrame], model: str, title: str, about: str
) -> None:
    """Write findings.csv, .json, .md and .html, the last with links to the reports in the folder."""
    everything = {"findings": findings, **tables}
    facts = {"model": model, "findings": findings.to_dict("records")}
    facts["tables"] = {name: plain_rows(table) for name, table in tables.items()}
    sections = [f"## {name.capitalize()}\n\n{markdown(table)}" for name, table in everything.items()]
    contents = {
        "findings.csv": findings.to_csv(index=False),
        "findings.json": json.dumps(facts, indent=1, ensure_ascii=False),
        "findings.md": "\n".join(sections),
        "findings.html": overview(title, about, everything, folder),
    }
    for name, content in contents.items():
        with atomic(folder / name) as file:
            file.write(content.encode())
