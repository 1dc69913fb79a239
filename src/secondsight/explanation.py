"""`explain`: one pair, and what a person wants to do with the result."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from secondsight.algebra.interactions import Interactions, margin
from secondsight.algebra.layout import Box
from secondsight.inputs.prepared import Prepared
from secondsight.methods import IntegratedJacobian, Method
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.memory import retry_smaller

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Interactions):
    """Interactions of one pair together with its inputs, so that they can be shown.

    `left_input` and `right_input` are what the sides show: an RGB image, a text, samples of sound, None for model-ready
    token ids, or a tuple of such where a side joins several inputs. `parts` are the two explanations whose difference a
    margin is, first and subtracted one; a saved margin comes back without them.
    """

    left_input: Any = None
    right_input: Any = None
    parts: tuple[Explanation, ...] = ()

    @property
    def interactions(self) -> Interactions:
        """The numbers alone, without the inputs."""
        return Interactions(**{f.name: getattr(self, f.name) for f in fields(Interactions)})

    @property
    def T(self) -> Explanation:  # as tensors name it
        """The same pair with its sides exchanged: `e.T[box]` is the map over the right side for a box of the left image."""
        turned = with_inputs(super().T, self.right_input, self.left_input)
        return replace(turned, parts=tuple(part.T for part in self.parts))

    def __sub__(self, other: Interactions) -> Explanation:
        """What this model, method or layer sees more than another of the same pair, see `secondsight.algebra.difference`."""
        if isinstance(other, Explanation) and not all(
            _same(own, its) for own, its in ((self.left_input, other.left_input), (self.right_input, other.right_input))
        ):
            raise InputError(
                "a difference needs one pair explained twice; for two inputs use explain(..., against=...) or "
                "left @ (right_1 - right_2)"
            )
        pair = super().__sub__(other)
        return pair if pair is NotImplemented else with_inputs(pair, self.left_input, self.right_input)

    def plot(self, selection: Any = None, **options: Any) -> Figure:
        """A matplotlib figure: heatmap of a selection of words above, the caption coloured below ([M25] Figure 1)."""
        from secondsight.visual.figures import plot

        return plot(self, selection, **options)

    def save(self, path: str | os.PathLike[str], selection: Any = None, *, box: Box | None = None) -> None:
        """Write .html (self-contained, interactive), .png, .svg or .pdf (the figure), .json or .npz (the numbers).

        `selection` of the right side and `box` of the left image are what the page or figure shows first. Raises
        `InputError` for other endings.
        """
        suffix = Path(path).suffix.lower()
        if suffix in (".json", ".npz"):
            super().save(path)
        elif suffix == ".html":
            from secondsight.visual.page import save_page

            save_page(self, path, selection, box)
        elif suffix in (".png", ".svg", ".pdf"):
            from secondsight.visual.figures import save_figure

            save_figure(self, path, selection, box)
        else:
            raise InputError(f"cannot write {str(path)!r}: the name must end in .html, .png, .svg, .pdf, .json or .npz")

    def widget(self, selection: Any = None, *, box: Box | None = None) -> Any:
        """The interactive view as a notebook widget that tells Python what is picked: see `secondsight.visual.widget.View`.

        Raises `InputError` without the extra `secondsight[notebook]`; the explanation itself is interactive without it.
        """
        try:
            from secondsight.visual.widget import View
        except ImportError as missing:
            raise InputError("the widget needs anywidget: pip install 'secondsight[notebook]'") from missing
        return View(self, selection, box=box)

    def _repr_html_(self) -> str:
        from secondsight.visual.page import embed_page

        return embed_page(self)


def _same(own: Any, its: Any) -> bool:
    if isinstance(own, Image.Image) and isinstance(its, Image.Image):
        return own.size == its.size and np.array_equal(np.asarray(own), np.asarray(its))
    if isinstance(own, tuple) and isinstance(its, tuple):
        return len(own) == len(its) and all(_same(a, b) for a, b in zip(own, its, strict=True))
    return np.array_equal(own, its) if isinstance(own, np.ndarray) else bool(own == its)


def with_inputs(pair: Interactions, left: Any, right: Any) -> Explanation:
    """A pair's numbers together with what its sides show."""
    values = {f.name: getattr(pair, f.name) for f in fields(Interactions)}
    return Explanation(**values, left_input=left, right_input=right)


def explain(
    model: DualEncoder,
    left: Any,
    right: Any,
    method: Method | None = None,
    *,
    against: Any = None,
    scale: str = "similarity",
    truncate: bool = False,
) -> Explanation:
    """Explain one pair: which feature of `left` matched which of `right`, by how much, and how exactly it adds up.

    `left` and `right` are a path, PIL image, array or text as the model's sides take them, or model-ready tensors with a
    batch axis of 1. Two images or two texts are explained by the model's one side for both. `method` defaults to
    `IntegratedJacobian()`.

    `against` asks a contrastive question: why `right` rather than this input, or, of a list (the other classes of a
    zero-shot classifier), rather than the one that matches best. The explained number is then the margin
    s(left, right) − s(left, against); `about["similarities"]` has both.

    `scale` "similarity" explains the cosine (or dot product), "logit" multiplies it by the model's logit scale and adds
    its bias. `truncate` allows captions longer than the model's context to be cut. Raises `InputError` for inputs that
    cannot be used.
    """
    method = method or IntegratedJacobian()
    if scale not in ("similarity", "logit"):
        raise InputError(f"unknown scale {scale!r}; known: similarity, logit")
    if scale == "logit" and model.logit_scale is None:
        raise InputError(f"{model.name!r} has no logit scale: use scale='similarity'")
    model = model.fitting(left, right)
    a = model.left.encoder.prepare(left, truncate=truncate)
    b = model.right.encoder.prepare(right, truncate=truncate)
    rivals = _others(b, [model.right.encoder.prepare(raw, truncate=truncate) for raw in _several(against)])
    made = explain_prepared(model, a, [b, _strongest(model, a, rivals)] if rivals else [b], method, scale)
    return contrast(*made) if rivals else made[0]


def explain_prepared(
    model: DualEncoder, a: Prepared, others: Sequence[Prepared], method: Method, scale: str = "similarity"
) -> list[Explanation]:
    """`explain` for inputs that are prepared: one left one with each of several right ones, the left computed once."""
    begun = time.perf_counter()
    pairs = retry_smaller(lambda: method.interactions(model.left, model.right, a, others))
    seconds = round(time.perf_counter() - begun, 4)
    about = {"method": method.name, "model": model.name, "scale": scale, "seconds": seconds}
    if scale == "logit":
        pairs = [scaled(pair, float(model.logit_scale or 1.0), model.logit_bias) for pair in pairs]
    return [
        with_inputs(replace(pair, about={**about, **pair.about}), a.display, b.display)
        for pair, b in zip(pairs, others, strict=True)
    ]


def comparable(first: Explanation, second: Explanation) -> bool:
    """Whether two explanations are of one left input, made by one model and method at one layer and scale."""

    def made(e: Explanation) -> tuple[Any, ...]:
        about = e.about
        layers = [about.get(side, {}).get("layer") for side in ("left", "right")]
        return (about.get("model"), about.get("method"), about.get("scale"), *layers)

    alike = first.left_layout == second.left_layout and made(first) == made(second)
    return alike and _same(first.left_input, second.left_input)


def contrast(first: Explanation, second: Explanation) -> Explanation:
    """Why the left input matches the first right one rather than the second; see `explain(..., against=)`.

    Raises `InputError` where the left sides differ, or what made the two.
    """
    if not comparable(first, second):
        raise InputError(
            "a contrast needs one left input, explained twice by one model and method at one layer and scale"
        )
    pair = margin(first, second)
    about = {**pair.about, "similarities": [first.similarity, second.similarity]}
    shown = with_inputs(replace(pair, about=about), first.left_input, (first.right_input, second.right_input))
    return replace(shown, parts=(first, second))


def _others(b: Prepared, rivals: list[Prepared]) -> list[Prepared]:
    """The rivals that are not the input itself, which a list of all classes contains."""
    others = [r for r in rivals if r.tensor.shape != b.tensor.shape or not torch.equal(r.tensor, b.tensor)]
    if rivals and not others:
        raise InputError("against= names only the input itself: give at least one rival")
    return others


def _several(against: Any) -> list[Any]:
    if against is None:
        return []
    several = isinstance(against, (list, set, frozenset)) or (
        isinstance(against, tuple) and all(isinstance(one, str) for one in against)
    )
    rivals = sorted(against) if isinstance(against, (set, frozenset)) else list(against) if several else [against]
    if not rivals:
        raise InputError("against=[] names no rival: give at least one, or leave it out")
    return rivals


def _strongest(model: DualEncoder, a: Prepared, rivals: list[Prepared]) -> Prepared:
    """The rival with the largest similarity."""
    if len(rivals) == 1:
        return rivals[0]
    anchor = model.left.embed_prepared([a])
    others = model.right.embed_prepared(rivals)
    if model.cosine:
        others = others / others.norm(dim=-1, keepdim=True)
    return rivals[int((others @ anchor[0]).argmax())]


def scaled(pair: Interactions, factor: float, bias: float = 0.0) -> Interactions:
    """The same pair with every number times `factor`, and `bias` added to the similarity and its base."""
    return replace(
        pair,
        attributions=pair.matrix * torch.tensor(factor, dtype=pair.matrix.dtype),
        left_effects=pair.left_effects * factor,
        right_effects=pair.right_effects * factor,
        base=pair.base * factor + bias,
        standard_errors=None if pair.standard_errors is None else pair.standard_errors * abs(factor),
        similarity=pair.similarity * factor + bias,
    )
