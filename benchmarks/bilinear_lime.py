"""What the weight of a sample and the filling change in bilinear LIME, on drawn scenes.

    python benchmarks/bilinear_lime.py [--cases 12] [--samples 1000] [--out DIR]

Before: samples weighted by the closeness of their masks. After: by the cosine similarities of their embeddings ([M25] Eq. 19).
Dropped patches take the image's own mean colour, as in the paper, or black. Prints a Markdown table: pointing (PGA, median
PGE), areas under the perturbation curves, and the correlation of predicted with actual similarities under masks. A case takes
nine seconds a row on one core. A run that was stopped goes on where the same --out is given.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd

import secondsight as ss
from secondsight.evaluation import evaluate
from secondsight.evaluation.tables import markdown

WORLD = "scenes:noto/130#7"


def settings(samples: int) -> list[tuple[str, ss.Method]]:
    """Bilinear LIME by weight and filling, and the default method beside it."""
    rows: list[tuple[str, ss.Method]] = [
        (
            f"{closeness}, {filling}",
            ss.BilinearLime(samples=samples, closeness=closeness, reference=(filling, None)),
        )
        for closeness, filling in (("masks", "mean"), ("embeddings", "mean"), ("embeddings", "black"))
    ]
    return [*rows, ("grounded", ss.methods.as_method("grounded"))]


def measured(out: Path, cases: int, samples: int) -> pd.DataFrame:
    """One row a setting."""
    models, methods = [("scenes", ss.load("scenes"))], settings(samples)

    def overall(experiment: str) -> pd.DataFrame:
        results = evaluate(experiment, WORLD, models, methods, out=out, limit=cases, rule="centre")
        table = results["overall"]
        return table.set_index("setting") if "setting" in table else table

    pointing, perturbation, faithfulness = (overall(name) for name in ("pointing", "perturbation", "faithfulness"))
    areas = perturbation[["CID", "CII", "CTD", "CTI"]]
    table = pointing[["cases", "PGA", "median PGE"]].join(areas).join(faithfulness[["median"]])
    return table.rename(columns={"median": "faithfulness"}).rename_axis("weight, filling").reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description="bilinear LIME before and after Eq. 19, on scenes")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(markdown(measured(arguments.out or Path(folder), arguments.cases, arguments.samples)))


if __name__ == "__main__":
    main()
