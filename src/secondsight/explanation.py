"""`explain`: one pair, and what a person wants to do with the result."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from secondsight.encoders.base import DualEncoder
from secondsight.errors import InputError
from secondsight.interactions import Interactions
from secondsight.methods import IntegratedJacobian, Method

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Explanation(Interactions):
    """Interactions of one pair together with its inputs, so that they can be shown.

    `left_input` and `right_input` are what the sides show: an RGB image, a text, or None for model-ready token ids.
    """

    left_input: Any = None
    right_input: Any = None

    @property
    def interactions(self) -> Interactions:
        """The numbers alone, without the inputs."""
        return Interactions(**{f.name: getattr(self, f.name) for f in fields(Interactions)})

    def plot(self, selection: Any = None, **options: Any) -> Figure:
        """A matplotlib figure: heatmap of a selection of words above, the caption coloured below ([M25] Figure 1)."""
        from secondsight.visual.figures import plot

        return plot(self, selection, **options)

    def save(self, path: str | os.PathLike[str], selection: Any = None) -> None:
        """Write .html (self-contained, interactive), .png, .svg or .pdf (the figure), .json or .npz (the numbers).

        `selection` is what the page or figure shows first. Raises `InputError` for other endings.
        """
        suffix = Path(path).suffix.lower()
        if suffix in (".json", ".npz"):
            super().save(path)
        elif suffix == ".html":
            from secondsight.visual.page import save_page

            save_page(self, path, selection)
        elif suffix in (".png", ".svg", ".pdf"):
            from secondsight.visual.figures import save_figure

            save_figure(self, path, selection)
        else:
            raise InputError(f"cannot write {str(path)!r}: the name must end in .html, .png, .svg, .pdf, .json or .npz")

    def _repr_html_(self) -> str:
        from secondsight.visual.page import embed_page

        return embed_page(self)


def explain(
    model: DualEncoder,
    left: Any,
    right: Any,
    method: Method | None = None,
    *,
    scale: str = "similarity",
    truncate: bool = False,
) -> Explanation:
    """Explain one pair: which feature of `left` matched which of `right`, by how much, and how exactly it adds up.

    `left` and `right` are a path, PIL image, array or text as the model's sides take them, or model-ready tensors with a
    batch axis of 1. `method` defaults to `IntegratedJacobian()`. `scale` "similarity" explains the cosine (or dot
    product), "logit" multiplies it by the model's logit scale and adds its bias. `truncate` allows captions longer than
    the model's context to be cut. Raises `InputError` for inputs that cannot be used.
    """
    method = method or IntegratedJacobian()
    if scale not in ("similarity", "logit"):
        raise InputError(f"unknown scale {scale!r}; known: similarity, logit")
    if scale == "logit" and model.logit_scale is None:
        raise InputError(f"{model.name!r} has no logit scale: use scale='similarity'")
    a = model.left.encoder.prepare(left, truncate=truncate)
    b = model.right.encoder.prepare(right, truncate=truncate)
    begun = time.perf_counter()
    pair = method.interactions(model.left, model.right, a, b)
    seconds = time.perf_counter() - begun
    if scale == "logit":
        pair = scaled(pair, float(model.logit_scale or 1.0), model.logit_bias)
    about = {"method": method.name, "model": model.name, "scale": scale, "seconds": round(seconds, 4), **pair.about}
    values = {f.name: getattr(pair, f.name) for f in fields(Interactions)} | {"about": about}
    return Explanation(**values, left_input=a.shown, right_input=b.shown)


def scaled(pair: Interactions, factor: float, bias: float = 0.0) -> Interactions:
    """The same pair with every number times `factor`, and `bias` added to the similarity and its base."""
    return replace(
        pair,
        attributions=pair.matrix * torch.tensor(factor, dtype=pair.matrix.dtype),
        left_effects=pair.left_effects * factor,
        right_effects=pair.right_effects * factor,
        base=pair.base * factor + bias,
        similarity=pair.similarity * factor + bias,
    )
