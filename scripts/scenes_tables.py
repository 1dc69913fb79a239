"""Puts a run of `secondsight evaluate scenes-paper` into docs/scenes.md: python scripts/scenes_tables.py FINDINGS."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd

from secondsight.evaluation.tables import markdown

PAGE = Path(__file__).parents[1] / "docs" / "scenes.md"
BEGIN, END = "<!-- made by scripts/scenes_tables.py -->\n", "<!-- end -->\n"
FIGURES = {
    "methods": ("methods/compare/energy.png", "PGE of every method: share of cases at or below"),
    "fine-tuning": ("fine-tuning/twemoji/compare/energy.png", "PGE in the new style, before and after fine-tuning"),
    "discrimination": (
        "discrimination/discrimination/attribution-1.png",
        "Attribution to the object's box and to the other object's box",
    ),
    "hard-negatives": ("hard-negatives/hard-negatives/change-1.png", "What a wrong caption changes"),
}


def main() -> None:
    source = Path(sys.argv[1])
    study = json.loads((source / "findings.json").read_text())
    findings = pd.DataFrame(study["findings"])
    findings["p"] = ["< 1e-15" if p < 1e-15 else f"{p:.0e}" if p < 0.001 else f"{p:.3f}" for p in findings["p"]]
    parts = [markdown(findings)]
    for title, rows in study["tables"].items():
        if title in ("classes by gain", "two objects") or title.startswith("failures by proposed"):
            continue
        parts.append(f"### {title[:1].upper()}{title[1:]}\n\n{markdown(pd.DataFrame(rows))}")
    for name, (file, about) in FIGURES.items():
        shutil.copy(source / file, PAGE.parent / "scenes" / f"{name}.png")
        parts.append(f"![{about}](scenes/{name}.png)\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(parts) + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
