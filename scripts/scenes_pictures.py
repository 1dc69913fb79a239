"""Pictures of scenes and of their explanations: python scripts/scenes_pictures.py [--count 8] [--out docs/scenes.png].

One column for each scene: the image, and the map of one noun of its caption over it, with the object's box. Styles alternate.
"""

import argparse
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import secondsight as ss
from secondsight.data import Scenes
from secondsight.methods import IntegratedJacobian
from secondsight.visual.colours import map_over_photo


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "scenes.png")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--styles", nargs="+", default=["noto"])
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--model", default="scenes")
    options = parser.parse_args()
    model = ss.load(options.model)
    worlds = [
        Scenes(options.first + options.count, style=style, seed=options.seed, size=192) for style in options.styles
    ]
    rows = -(-options.count // options.columns)
    figure = Figure(figsize=(1.75 * options.columns, 4.1 * rows), layout="constrained")
    axes = np.atleast_2d(figure.subplots(2 * rows, options.columns))
    for axis in axes.flat:
        axis.set_axis_off()
    for i in range(options.count):
        example = worlds[i % len(worlds)][options.first + i]
        e = ss.explain(model, example.image, example.caption, IntegratedJacobian(layer=(options.layer, -1)))
        phrase = max(example.phrases, key=lambda p: len(p.label))
        row, column = 2 * (i // options.columns), i % options.columns
        axes[row, column].imshow(example.image)
        axes[row, column].set_title("\n".join(textwrap.wrap(example.caption, 30)), fontsize=6)
        heat = e.heatmap(phrase.span).double().numpy()
        axes[row + 1, column].imshow(map_over_photo(example.image, heat))
        for x0, y0, x1, y1 in phrase.boxes:
            axes[row + 1, column].add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=0.8))
        axes[row + 1, column].set_title(example.words(phrase), fontsize=7, fontweight="bold")
    figure.savefig(options.out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
