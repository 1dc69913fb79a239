"""Sanity: maps must change when the model's weights are randomised (Adebayo et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pandas as pd
import torch

from secondsight.evaluation.experiments.base import of_kind
from secondsight.evaluation.experiments.pointing import Pointing
from secondsight.evaluation.setting import Setting
from secondsight.model import DualEncoder


class Sanity(Pointing):
    """Maps must change when weights are randomised: pointing of the model, and of it with random weights.

    Each setting also runs with the values of every parameter of both towers shuffled (`seed`), which keeps their
    distribution.
    """

    name: ClassVar[str] = "sanity"

    def variants(self, setting: Setting) -> Iterator[Setting]:
        """The setting, and the setting with shuffled weights."""
        yield setting
        spec = {**setting.spec, "shuffled weights": self.seed}
        model = shuffle_weights(setting.model, self.seed)
        yield replace(setting, model=model, spec=spec, label=f"{setting.label}, shuffled weights")

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Pointing of both; shuffled weights should be near chance."""
        return {"overall": self.summaries(of_kind(frame, "case"))}


def shuffle_weights(model: DualEncoder, seed: int) -> DualEncoder:
    """A copy of the model with the values of each parameter shuffled; the model itself is unchanged."""
    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    shuffled: set[int] = set()
    for side in (copied.left, copied.right):
        for parameter in side.encoder.module.parameters():
            if id(parameter) not in shuffled and parameter.ndim > 1:
                shuffled.add(id(parameter))
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                with torch.no_grad():
                    parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copied
