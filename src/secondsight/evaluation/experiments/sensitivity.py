"""Sensitivity: how far maps move when the image hardly changes (Yeh et al. 2019), and how sparse they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pandas as pd
import torch
from matplotlib.figure import Figure

from secondsight.data.grounded import GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Experiment, Record, check_count, groups
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.setting import Setting, Span
from secondsight.inputs.prepared import Prepared
from secondsight.support.errors import InputError
from secondsight.visual.charts import distributions


class Sensitivity(Experiment):
    """Do maps stay when the image hardly changes? Max-Sensitivity of phrases' maps (Yeh et al. 2019), and their sparseness.

    To every model-ready pixel uniform noise in −`radius` … `radius` is added, `draws` times (`seed`). A map's max-sensitivity
    is its largest relative change. The largest relative changes of the similarity and of the image's embedding stand beside
    it, as a map of a model that itself reacts to the noise should change too. Sparseness is the Gini index of a map's
    absolute values (Chalasani et al. 2020), complexity their entropy (Bhatt et al. 2020). Captions without phrases are looked
    at as a whole.
    """

    name: ClassVar[str] = "sensitivity"

    def __init__(self, *, radius: float = 0.02, draws: int = 10, **options: Any) -> None:
        super().__init__(**options)
        if isinstance(radius, bool) or not isinstance(radius, int | float) or not 0 < radius < float("inf"):
            raise InputError(f"radius={radius!r} must be a positive number, in units of the model-ready pixels")
        check_count("draws", draws)
        self.radius, self.draws = float(radius), draws

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each phrase."""
        spans: list[Span] = list(dict.fromkeys(phrase.span for phrase in example.phrases)) or [
            (0, len(example.caption))
        ]
        explained = {}
        for span in spans:
            try:
                explained[span] = setting.explain_span(example, span)
            except InputError as problem:
                cut = problem  # the phrase was cut from a long caption
        if not explained:
            raise cut
        image = setting.image(example.image)
        noisy = [noisy_image(image, self.radius, self.seed + draw) for draw in range(self.draws)]
        changed = [setting.explain_changed(example, other, list(explained)) for other in noisy]
        embedding_change = float("nan")
        if setting.model.factorises:
            embedding, *others = (v.cpu().numpy() for v in setting.model.left.embed_prepared([image, *noisy]))
            embedding_change = measures.max_sensitivity(embedding, others)
        records = []
        for number, (span, (e, selection)) in enumerate(explained.items()):
            map_, _ = span_map(e, selection)
            maps = [span_map(*pairs[number])[0] for pairs in changed]
            moves = [abs(pairs[number][0].similarity - e.similarity) for pairs in changed]
            records.append(
                {
                    "words": example.caption[span[0] : span[1]],
                    "span": list(span),
                    "max_sensitivity": measures.max_sensitivity(map_, maps),
                    "similarity": e.similarity,
                    "similarity_change": max(moves) / abs(e.similarity) if e.similarity else float("nan"),
                    "embedding_change": embedding_change,
                    "sparseness": measures.sparseness(map_),
                    "complexity": measures.complexity(map_),
                    "cells": map_.size,
                }
            )
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Medians of every setting, and its largest max-sensitivity."""
        rows = [
            {
                "setting": setting,
                "phrases": len(group),
                "max-sensitivity": group.max_sensitivity.median(),
                "largest": group.max_sensitivity.max(),
                "similarity's change": group.similarity_change.median(),
                "embedding's change": group.embedding_change.median(),
                "sparseness": group.sparseness.median(),
                "complexity": group.complexity.median(),
                "cells": int(group.cells.median()),
            }
            for setting, group in groups(frame, "setting")
        ]
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Cumulative distributions of max-sensitivity and of sparseness."""
        figures = {}
        for column, label in (
            ("max_sensitivity", "max-sensitivity: largest relative change of the map"),
            ("sparseness", "sparseness: Gini index of the map"),
        ):
            values = {str(setting): group[column].dropna().to_numpy() for setting, group in groups(frame, "setting")}
            values = {setting: v for setting, v in values.items() if len(v)}
            high = max((float(v.max()) for v in values.values()), default=1.0)
            figures[column.replace("_", "-")] = distributions(values, label, high=max(high, 1.0))
        return figures


def noisy_image(image: Prepared, radius: float, seed: int) -> Prepared:
    """The image with uniform noise in −radius … radius on every model-ready pixel."""
    noise = torch.rand(image.tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return replace(image, tensor=image.tensor + (radius * (2 * noise - 1)).to(image.tensor))
