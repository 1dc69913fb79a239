"""`explain`: one pair, and what a person wants to do with the result."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from secondsight.algebra.interactions import Interactions, margin
from secondsight.algebra.layout import Box
from secondsight.inputs.kinds import check_no_file
from secondsight.inputs.prepared import Prepared
from secondsight.methods import Method, as_method
from secondsight.methods.base import one_of
from secondsight.model import DualEncoder
from secondsight.support.errors import ConvergenceWarning, InputError
from secondsight.support.files import shortened
from secondsight.support.memory import memory_errors_explained

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from secondsight.algebra.edit import Edit
    from secondsight.concepts import Concepts


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Interactions):
    """Interactions of one pair together with its inputs, so that they can be shown.

    `left_input` and `right_input` are what the sides show: an RGB image, a text, samples of sound, None for model-ready
    token ids, or a tuple of such where a side joins several inputs. `parts` are the two explanations whose difference a
    margin is, first and subtracted one; a saved margin comes back without them. `model` is its name, `scale` "similarity" or
    "logit".
    """

    left_input: Any = None
    right_input: Any = None
    parts: tuple[Explanation, ...] = ()
    model: str = ""
    scale: str = "similarity"

    @property
    def interactions(self) -> Interactions:
        """The numbers alone, without the inputs."""
        return Interactions(**{f.name: getattr(self, f.name) for f in fields(Interactions)})

    @property
    def T(self) -> Explanation:  # as tensors name it
        """The same pair with its sides exchanged: `e.T[box]` is the map over the right side for a box of the left image."""
        turned = with_inputs(super().T, self.right_input, self.left_input)
        return replace(turned, parts=tuple(part.T for part in self.parts))

    def __sub__(self, subtracted: Interactions) -> Explanation:
        """What this model, method or layer sees more than another of the same pair, see `secondsight.algebra.difference`."""
        if isinstance(subtracted, Explanation) and not all(
            _same(first, second)
            for first, second in ((self.left_input, subtracted.left_input), (self.right_input, subtracted.right_input))
        ):
            raise InputError(
                "a difference needs one pair explained twice; for two inputs use explain(..., against=...) or "
                "left @ (right_1 - right_2)"
            )
        pair = super().__sub__(subtracted)
        return pair if pair is NotImplemented else with_inputs(pair, self.left_input, self.right_input)

    def without(
        self,
        selection: Any = None,
        *,
        left: Any = None,
        verify: bool = False,
        how: str = "replaced",
        model: DualEncoder | str | None = None,
        inputs: tuple[Any, Any] | None = None,
        seed: int = 0,
    ) -> Edit:
        """What the pair would be without words, a box or positions of the right side, and of the left one: an `Edit`.

        The number is predicted by linear algebra. `verify` really removes the part and encodes again by `model`, the
        explained one unless given: `how` "replaced" puts the method's reference in its place (black or mean pixels,
        padding), "deleted" strikes words from a text, which is tokenised anew, and "layer" replaces the hidden states that
        enter the explained layer. Special positions, selected by their indices, exist at a layer only. `inputs` are the
        two inputs where they were model-ready, `seed` that of a noise reference. See docs/edits.md.
        """
        from secondsight.edits import edit

        return edit(self, selection, left, verify=verify, how=how, model=model, inputs=inputs, seed=seed)

    def plot(self, selection: Any = None, **options: Any) -> Figure:
        """A matplotlib figure: heatmap of a selection of words above, the caption coloured below ([M25] Figure 1)."""
        from secondsight.visual.figures import plot

        return plot(self, selection, **options)

    def concepts(self, vocabulary: Any, model: DualEncoder | str | None = None, **options: Any) -> Concepts:
        """The left side's vectors as sparse sums of the vectors of words; see `secondsight.concepts.concepts`."""
        from secondsight.concepts import concepts

        return concepts(self, vocabulary, model, **options)

    def to_pandas(self, *, special: bool = True) -> pd.DataFrame:
        """The matrix as a long table, a row for every left and right feature; see `secondsight.exports.tables.to_pandas`."""
        from secondsight.exports.tables import to_pandas

        return to_pandas(self, special=special)

    def to_coco(self, selections: Sequence[Any] | None = None, **options: Any) -> dict[str, Any]:
        """Regions matched with words, in COCO's format; see `secondsight.exports.regions.to_coco`."""
        from secondsight.exports.regions import to_coco

        return to_coco(self, selections, **options)

    def to_fiftyone(self, selection: Any = None, **options: Any) -> dict[str, Any]:
        """A heatmap and regions as labels of FiftyOne; see `secondsight.exports.fiftyone_labels.to_fiftyone`."""
        from secondsight.exports.fiftyone_labels import to_fiftyone

        return to_fiftyone(self, selection, **options)

    def save(self, path: Any, selection: Any = None, *, box: Box | None = None) -> None:
        """Write .html (self-contained, interactive), .png, .svg or .pdf (the figure), .json or .npz (the numbers),
        .csv or .parquet (the table).

        `selection` of the right side and `box` of the left image are what the page or figure shows first. Raises
        `InputError` for other endings.
        """
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"cannot write {shortened(path)}: give the name of a file")
        suffix = Path(path).suffix.lower()
        if suffix in (".json", ".npz"):
            super().save(path)
        elif suffix == ".html":
            from secondsight.visual.page import save_page

            save_page(self, path, selection, box)
        elif suffix in (".csv", ".parquet"):
            from secondsight.exports.tables import save_table

            save_table(self, path)
        elif suffix in (".png", ".svg", ".pdf"):
            from secondsight.visual.figures import save_figure

            save_figure(self, path, selection, box)
        else:
            raise InputError(
                f"cannot write {str(path)!r}: the name must end in .html, .png, .svg, .pdf, .json, .npz, .csv or .parquet"
            )

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


def _same(first: Any, second: Any) -> bool:
    """Whether two shown inputs are equal."""
    if isinstance(first, Image.Image) and isinstance(second, Image.Image):
        return first.size == second.size and np.array_equal(np.asarray(first), np.asarray(second))
    if isinstance(first, tuple) and isinstance(second, tuple):
        return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second, strict=True))
    return np.array_equal(first, second) if isinstance(first, np.ndarray) else bool(first == second)


def with_inputs(pair: Interactions, left: Any, right: Any) -> Explanation:
    """A pair's numbers together with what its sides show."""
    values = {f.name: getattr(pair, f.name) for f in fields(Interactions)}
    return Explanation(**values, left_input=left, right_input=right)


def explain(
    model: DualEncoder | str,
    left: Any,
    right: Any,
    method: Method | type[Method] | str | None = None,
    *,
    against: Any = None,
    scale: str = "similarity",
    truncate: bool = False,
) -> Explanation:
    """Explain one pair: which feature of `left` matched which of `right`, by how much, and how exactly it adds up.

    `left` and `right` are a path, PIL image, array or text as the model's sides take them, or model-ready tensors with a
    batch axis of 1. Two images or two texts are explained by the model's one side for both. `model` may be a name as in
    `load`; the one that was named last stays loaded. `method` is a method, or the name of one or of a preset
    (`secondsight.methods.presets`): "grounded", the default, "last-layer" or "paper"; options may follow as on the command
    line, as in "banzhaf:budget=64,seed=1".

    `against` asks a contrastive question: why `right` rather than this input, or, of a list (the other classes of a
    zero-shot classifier), rather than the one that matches best. The explained number is then the margin
    s(left, right) − s(left, against); `about["similarities"]` has both.

    `scale` "similarity" explains the cosine (or dot product), "logit" multiplies it by the model's logit scale and adds
    its bias. `truncate` allows captions longer than the model's context to be cut. Raises `InputError` for inputs that
    cannot be used.
    """
    method = as_method(method)
    one_of("scale", scale, ("similarity", "logit"))
    if not isinstance(model, DualEncoder):
        from secondsight.encoders.registry import as_model

        model = as_model(model)
    if scale == "logit" and model.logit_scale is None:
        raise InputError(f"{model.name!r} has no logit scale: use scale='similarity'")
    model = model.fitting(left, right)
    contestants = _as_rivals(against)
    for side, inputs in ((model.left, [left]), (model.right, [right, *contestants])):
        if side.kind == "text":
            for raw in inputs:
                check_no_file(raw)
    a = model.left.encoder.prepare(left, truncate=truncate)
    b = model.right.encoder.prepare(right, truncate=truncate)
    rivals = _without(b, [model.right.encoder.prepare(raw, truncate=truncate) for raw in contestants])
    candidates = [b, _most_similar(model, a, rivals)] if rivals else [b]
    explanations = explain_prepared(model, a, candidates, method, scale)
    return contrast(*explanations) if rivals else explanations[0]


def explain_prepared(
    model: DualEncoder, a: Prepared, partners: Sequence[Prepared], method: Method, scale: str = "similarity"
) -> list[Explanation]:
    """`explain` for inputs that are prepared: one left input with each of several right ones, the left computed once.

    Warns (`ConvergenceWarning`) where a fixed number of nodes was too small.
    """
    started = time.perf_counter()
    with memory_errors_explained():
        pairs = model.interactions(method, a, partners)
    seconds = time.perf_counter() - started
    if scale == "logit":
        pairs = [scaled(pair, float(model.logit_scale or 1.0), model.logit_bias) for pair in pairs]
    origin = {"method": method.name, "model": model.name, "measure": model.measure, "scale": scale}
    facts = {**origin, "seconds": round(seconds, 4)}
    explanations = []
    for pair, b in zip(pairs, partners, strict=True):
        fixed = [outcome for outcome in pair.outcomes if outcome is not None and outcome.fixed_nodes]
        if fixed and not pair.converged:
            residual = max(outcome.residual for outcome in fixed)
            warnings.warn(
                f"the fixed number of nodes leaves an error of {pair.error:.1e} beside an interaction of "
                f"{pair.terms.interaction:.1e}, and a relative residual of {residual:.1e}: use more steps, or steps=None for "
                "as many as the tolerance needs",
                ConvergenceWarning,
                stacklevel=3,
            )
        explanation = with_inputs(replace(pair, about={**facts, **pair.about}), a.display, b.display)
        explanations.append(replace(explanation, model=model.name, scale=scale))
    return explanations


def comparable(first: Explanation, second: Explanation) -> bool:
    """Whether two explanations are of one left input, by one model and method at one layer and scale."""

    def origin(e: Explanation) -> tuple[Any, ...]:
        methods = [None if outcome is None else (outcome.method, outcome.layer) for outcome in e.outcomes]
        return (e.model, e.scale, *methods)

    alike = first.left_layout == second.left_layout and origin(first) == origin(second)
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
    inputs = (first.left_input, (first.right_input, second.right_input))
    return replace(with_inputs(replace(pair, about=about), *inputs), parts=(first, second))


def _without(b: Prepared, rivals: list[Prepared]) -> list[Prepared]:
    """Drops the input itself from the rivals, since a list of all classes includes it."""
    remaining = [r for r in rivals if r.tensor.shape != b.tensor.shape or not torch.equal(r.tensor, b.tensor)]
    if rivals and not remaining:
        raise InputError("against= names only the input itself: give at least one rival")
    return remaining


def _as_rivals(against: Any) -> list[Any]:
    if against is None:
        return []
    if isinstance(against, (set, frozenset)):
        rivals = sorted(against)
    elif isinstance(against, list) or (isinstance(against, tuple) and all(isinstance(raw, str) for raw in against)):
        rivals = list(against)
    else:
        rivals = [against]
    if not rivals:
        raise InputError("against=[] names no rival: give at least one, or leave it out")
    return rivals


def _most_similar(model: DualEncoder, a: Prepared, rivals: list[Prepared]) -> Prepared:
    """The rival with the largest similarity."""
    if len(rivals) == 1:
        return rivals[0]
    return rivals[int(model.similarities(a, rivals).argmax())]


def scaled(pair: Interactions, factor: float, bias: float = 0.0) -> Interactions:
    """The same pair with every number times `factor`, and `bias` added to the similarity and its base."""
    return replace(
        pair,
        attributions=pair.attributions * torch.tensor(factor, dtype=pair.left_effects.dtype)
        if isinstance(pair.attributions, torch.Tensor)
        else pair.attributions * factor,
        left_effects=pair.left_effects * factor,
        right_effects=pair.right_effects * factor,
        base=pair.base * factor + bias,
        standard_errors=None if pair.standard_errors is None else pair.standard_errors * abs(factor),
        similarity=pair.similarity * factor + bias,
        right_contributions=None if pair.right_contributions is None else pair.right_contributions * factor,
    )
