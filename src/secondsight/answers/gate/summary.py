"""A gate's summary in Markdown, short enough for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from secondsight.answers.gate.compare import Comparison
from secondsight.answers.gate.moves import Move
from secondsight.evaluation.tables import markdown
from secondsight.support.files import one_line

if TYPE_CHECKING:
    from secondsight.answers.gate.cases import Cases

ROWS = 8
"""Rows of the table of what moved."""

EXAMPLES = 3
"""Pairs that the summary shows in words."""


SINGULAR = {"whole": "", "classes": "class", "words": "word"}


def title_of(compared: Comparison) -> str:
    """The verdict in one line."""
    worse = [move for move in compared.moved("worse") if move.subject.kind in compared.fail_on]
    names = [move.subject.name for move in worse[:3]]
    what = ", ".join(names) + (f" and {len(worse) - 3} more" if len(worse) > 3 else "")
    if compared.passed:
        better = len(compared.moved("better"))
        return "Gate passed: nothing got worse" + (f", {better} got better" if better else "")
    if not worse:
        return f"Gate failed: {len(compared.fallen)} single pairs got worse"
    return f"Gate failed: worse in {what}"


def summarise(compared: Comparison, overall: pd.DataFrame, cases: Cases, command: str) -> str:
    """At most thirty lines: verdict, what moved, how often the right one ranks first, three examples, how to reproduce."""
    tested = sum(move.tested for move in compared.moves)
    untested = len(compared.moves) - tested
    too_few = f" {untested} classes and words have too few images to be tested." if untested else ""
    lines = [
        f"## {title_of(compared)}",
        "",
        f"`{compared.names[0]}` → `{compared.names[1]}` on {len(compared.collections[0])} pairs of {compared.images} images: "
        f"{tested} tests, the chance of any false alarm at most {compared.alpha:g}; changes up to {compared.tolerance:g} "
        f"spreads are tolerated.{too_few}",
        "",
    ]
    moved = [*compared.moved("worse"), *compared.moved("better")]
    if moved:
        lines += [*_table(compared, moved[:ROWS]).splitlines()]
        lines += [f"… and {len(moved) - ROWS} more in report.html."] if len(moved) > ROWS else []
        lines.append("")
    shares = [
        f"{name} {row['before']:.3f} → {row['after']:.3f}" for name, row in overall.iterrows() if name != "similarity"
    ]
    lines += ["; ".join(shares) + ".", ""]
    examples = _examples(compared, cases)
    if examples:
        lines += [*(f"- {cases.pair_sentence(number)}" for number in examples), ""]
    lines.append(f"Reproduce: `{command}`" if command else "Details: report.html")
    return "\n".join(lines) + "\n"


def _table(compared: Comparison, moved: Sequence[Move]) -> str:
    rows = [
        {
            "moved": one_line(move.subject.name, 40),
            "kind": SINGULAR[move.subject.kind],
            "images": move.images,
            "before": f"{move.before:.2f}",
            "after": f"{move.after:.2f}",
            "verdict": move.verdict(compared.alpha),
            "p": f"{move.adjusted:.2g}",
        }
        for move in moved
    ]
    return markdown(pd.DataFrame(rows))


def _examples(compared: Comparison, cases: Cases) -> list[int]:
    """The pairs that show the strongest moves to the worse best, then single pairs that fell."""
    strongest = [cases.strongest(move)[0] for move in compared.moved("worse") if move.subject.kind != "whole"]
    return list(dict.fromkeys([*strongest, *compared.fallen]))[:EXAMPLES]
