"""Every kind of figure of the paper from the scenes' world: two models, before and after fine-tuning."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from secondsight.data.scenes import Scenes
from secondsight.evaluation.run import Progress
from secondsight.evaluation.studies.paper import paper
from secondsight.evaluation.studies.world import TRAINING_SEED, recipe_for_scenes
from secondsight.support.errors import InputError

CAPTIONS, TRAINING = 240, 1024
"""Captions to measure on, and scenes of each fine-tuning."""

LIMITS = {"perturbation": 40, "baselines": 40, "approximation": 20}
"""Captions of what takes longest."""

ABOUT = (
    "Every kind of figure of the paper, drawn in the scenes' world. Two models are measured on drawings of a style that is new "
    "to both (twemoji), before and after fine-tuning on it: A is the scenes model, B the same after more training on drawings "
    "of the style fluent. Examples are the captions whose phrases are grounded best, and the wrong words that lower the "
    "attribution most."
)


def scenes_figures(
    out: str | os.PathLike[str], *, share: float = 1.0, seed: int = 0, progress: Progress | None = None
) -> pd.DataFrame:
    """Write figures.html and paper.html under `out`, as `paper` does for photographs; returns the table of measures.

    `share` scales the numbers of captions and of scenes for fine-tuning; 1 takes about ten minutes on two cores. Continues
    where it was stopped.
    """
    if not 0 < share <= 10:
        raise InputError(f"share={share!r} must be above 0 and at most 10")
    # Imported late because fine-tuning needs another extra.
    from secondsight.training import finetune, tuned_name

    folder, scenes = Path(out), max(round(TRAINING * share), 32)
    limit = max(round(CAPTIONS * share), 6)
    tell = (lambda step, total, loss: progress("training model B", step, total)) if progress else None
    recipe = recipe_for_scenes(seed)
    data = Scenes(scenes, style="fluent", seed=seed + TRAINING_SEED)
    checkpoint = finetune("scenes", data, folder / "model B", recipe, progress=tell)
    return paper(
        # Some captions cannot be judged, so there are more scenes than the limit.
        [f"scenes:twemoji/{3 * limit}#{seed}"],
        folder,
        models={"A": "scenes", "B": tuned_name("scenes", checkpoint)},
        train=f"scenes:twemoji/{scenes}#{seed + TRAINING_SEED}",
        limit=limit,
        limits={name: max(round(count * share), 2) for name, count in LIMITS.items()},
        seed=seed,
        recipe=recipe,
        progress=progress,
        about=ABOUT,
    )
