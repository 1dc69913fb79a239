"""The scenes' world as a study uses it: the model under test, experiments on scenes, and cases of several runs paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from secondsight.data.scenes import Scenes
from secondsight.encoders.registry import load
from secondsight.evaluation.experiments import EXPERIMENTS
from secondsight.evaluation.experiments.base import of_kind
from secondsight.evaluation.report import write_report
from secondsight.evaluation.run import Progress, Run, run
from secondsight.evaluation.setting import Layer, settings
from secondsight.methods import IntegratedJacobian, Method
from secondsight.model import DualEncoder

if TYPE_CHECKING:
    from secondsight.training import Recipe

TRAINING_SEED = 1_000_003
"""What the seed of scenes for fine-tuning is above that of the scenes for measuring."""

SIZES = {
    "methods": 24,
    "pointing": 300,
    "layers": 24,
    "pairs": 300,
    "paths": 12,
    "masks": 12,
    "references": 60,
    "train": 6144,
}
"""The captions of each part, and the scenes of fine-tuning."""

Tables = dict[str, pd.DataFrame]


@dataclass
class World:
    """The model under test and its name, the folder of all results, and how much is computed.

    `share` scales the number of captions, `masks` is the number of masks of each input (None: every method's and
    experiment's own), `nodes` that of the paths from earlier layers, which have no closed form.
    """

    model: DualEncoder
    name: str
    out: Path
    seed: int = 0
    share: float = 1.0
    masks: int | None = None
    nodes: int = 8
    progress: Progress | None = None

    def size(self, part: str) -> int:
        """The number of captions of a part."""
        return max(round(SIZES[part] * self.share), 4)

    @property
    def middle(self) -> int:
        """The middle layer of the image side."""
        return self.model.left.encoder.depth // 2

    def path(self, layer: Layer = -1) -> IntegratedJacobian:
        """The method for earlier layers: a fixed number of nodes, whatever their error."""
        return IntegratedJacobian(steps=self.nodes, layer=layer)

    def run(
        self,
        experiment: str,
        style: str,
        methods: Sequence[tuple[str, Method]] = (),
        *,
        part: str,
        folder: str,
        models: Sequence[tuple[str, DualEncoder]] = (),
        layers: Sequence[Layer] = (),
        **options: Any,
    ) -> tuple[Run, Tables]:
        """Run one experiment on scenes of one style and write its report; the run and its tables."""
        limit = self.size(part)
        # Some captions cannot be judged, so there are more scenes than the limit.
        data = Scenes(3 * limit, style=style, seed=self.seed)
        combinations = settings(models or [(self.name, self.model)], methods, layers)
        for setting in combinations:
            setting.cache = self.out / "pairs"
        place = self.out / folder
        instance = EXPERIMENTS[experiment](seed=self.seed, **options)
        finished = run(instance, data, combinations, place, limit=limit, progress=self.progress)
        return finished, write_report(finished, place)


def scene_cases(frame: pd.DataFrame) -> pd.DataFrame:
    """Cases under names that are the same in every style: scenes of one seed differ only in their drawings."""
    cases = of_kind(frame, "case").copy()
    number = cases.key.str.extract(r"-(\d+/\d+-\d+)$")[0]
    return cases.assign(case=number + " " + cases.words + " " + cases.span.map(str)).set_index("case")


def on_common_cases(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames on the cases of their intersection."""
    common = a.index.intersection(b.index)
    return a.loc[common], b.loc[common]


def paired_values(frame: pd.DataFrame, a: str, b: str, value: str = "energy") -> tuple[np.ndarray, np.ndarray]:
    """A value under two settings, on the cases that have it under both."""
    records = frame[frame[value].notna()]
    cases = records.assign(case=records.key + (" " + records.span.map(str) if "span" in records else ""))
    by_setting = cases.pivot_table(index="case", columns="setting", values=value, sort=False).dropna(subset=[a, b])
    return by_setting[a].to_numpy(), by_setting[b].to_numpy()


def recipe_for_scenes(seed: int) -> Recipe:
    """How the scenes model is fine-tuned on another style."""
    # Imported late because fine-tuning needs another extra.
    from secondsight.training import Recipe

    return Recipe(epochs=2, batch=32, lr=8e-4, start_lr=8e-6, warm_up=20, seed=seed, final_lr=0.0)


def fine_tuned(world: World) -> DualEncoder:
    """The model after fine-tuning on the new style, in scenes of another seed."""
    # Imported late because fine-tuning needs another extra.
    from secondsight.training import finetune, tuned_name

    data = Scenes(max(world.size("train"), 64), style="twemoji", seed=world.seed + TRAINING_SEED)
    recipe = recipe_for_scenes(world.seed)
    tell = world.progress
    progress = (lambda step, total, loss: tell("fine-tuning", step, total)) if tell else None
    checkpoint = finetune(world.name, data, world.out / "tuned", recipe, progress=progress)
    return load(tuned_name(world.name, checkpoint))
