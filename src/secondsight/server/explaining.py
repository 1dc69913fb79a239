"""What the worker computes for a question: explanations, their warnings, and the view of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import Layout
from secondsight.explanation import Explanation, explain_prepared, with_inputs
from secondsight.inputs.prepared import Prepared
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.server.jobs import Tell
from secondsight.server.questions import Checked, Limits, Models, Removal, decode
from secondsight.support.errors import InputError
from secondsight.support.progress import listening
from secondsight.visual.page_data import page_data

_MAX_PAIRS = 20_000_000
"""Feature pairs of one explanation; each takes eight bytes several times over."""


_LARGEST_KEPT = 8 * 2**20
"""Bytes of the pictures of a question that are kept, so that parts can be taken out of them later."""


@dataclass(frozen=True)
class Result:
    """Everything that later requests read; they run in other threads, and only the worker may use a model.

    `question` is what was asked, unless its pictures are too large to be kept.
    """

    interactions: list[Interactions]
    warnings: list[str]
    view: dict[str, Any]
    question: Checked | None = None

    @property
    def explanations(self) -> list[dict[str, Any]]:
        """Every number of every pair."""
        return [interactions.to_json() for interactions in self.interactions]


def explain_question(question: Checked, models: Models, limits: Limits, tell: Callable[[str], None]) -> Result:
    """Load, explain, and compute everything that the app shows; `tell` hears of each stage."""
    # Images are decoded only here, one request at a time: many large ones at once would fill the memory.
    left = decode(question.left, "image", limits)
    right = [decode(raw, "other_image", limits) for raw in question.right]
    model = models.get(question.model, tell)
    tell("explaining")
    progress = listening(lambda share: tell(f"explaining, {share:.0%}"))
    with warnings.catch_warnings(record=True) as caught, progress:
        warnings.simplefilter("always")
        explanations = _explanations(model, left, right, question)
        view = page_data(explanations, question.select)
    sentences = [str(warning.message) for warning in caught if _concerns_user(warning)]
    # The view has small pictures, so the photographs themselves can go. So can lazy matrices, which use the model.
    interactions = [replace(e.interactions, attributions=e.matrix) for e in explanations]
    view["question"] = {
        "model": question.model,
        "method": explanations[0].about.get("method", ""),
        "captions": [text for text in question.right if isinstance(text, str)],
        "example": question.example,
    }
    packed = sum(len(raw) for raw in (question.left, *question.right))
    return Result(interactions, list(dict.fromkeys(sentences)), view, question if packed <= _LARGEST_KEPT else None)


def measure_without(result: Result, removal: Removal, models: Models, limits: Limits, tell: Tell) -> dict[str, float]:
    """Take parts out of an explained pair and encode it again: words are struck from a text, a box takes the reference."""
    question = result.question
    if question is None:
        raise InputError("the picture was too large to be kept: explain a smaller one to take parts out of it")
    if removal.case >= len(result.interactions):
        raise InputError(f"there is no caption {removal.case}: the explanation has {len(result.interactions)}")
    pair = result.interactions[removal.case]
    inputs = (decode(question.left, "image", limits), decode(question.right[removal.case], "other_image", limits))
    parts = [
        _part(layout, chosen)
        for layout, chosen in ((pair.left_layout, removal.left), (pair.right_layout, removal.right))
    ]
    model = models.get(question.model, tell)
    tell("encoding without it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were told when the pair was explained
        shown = with_inputs(pair, *inputs)
        edit = shown.without(parts[1], left=parts[0], verify=True, how="deleted", model=model)
    assert edit.measured is not None  # asked for
    return {"similarity": edit.before, "predicted": edit.predicted, "measured": edit.measured}


def _part(layout: Layout, chosen: Sequence[float] | None) -> Any:
    """A box of a picture, or the features of words of a text."""
    if chosen is None:
        return None
    if not layout.words:
        return tuple(chosen)
    outside = [number for number in chosen if number % 1 or not 0 <= number < len(layout.words)]
    if outside:
        raise InputError(f"there is no word {outside[0]:g}: the text has {len(layout.words)}")
    return [feature for number in chosen for feature in layout.words[int(number)].features]


def _concerns_user(warning: warnings.WarningMessage) -> bool:
    """Whether a warning is this package's, or one about an image that was sent."""
    about_image = warning.category is UserWarning and str(warning.message).startswith(("image", "other_image"))
    return warning.category.__module__.startswith("secondsight") or about_image


def _explanations(model: DualEncoder, left: Any, right: list[Any], question: Checked) -> list[Explanation]:
    """Inputs are read by their type only: a caption that looks like a file's name is a caption."""
    kinds = tuple("text" if isinstance(raw, str) else "image" for raw in (left, right[0]))
    if kinds != (model.left.kind, model.right.kind):
        model = model.pair(*kinds)
    if question.scale == "logit" and model.logit_scale is None:
        raise InputError(f"{model.name!r} has no logit scale: use the similarity")
    prepared = model.left.encoder.prepare(left, truncate=question.truncate)
    candidates = [model.right.encoder.prepare(raw, truncate=question.truncate) for raw in right]
    _check_size(prepared, candidates, question.method)
    return explain_prepared(model, prepared, candidates, question.method, question.scale)


def _check_size(left: Prepared, right: Sequence[Prepared], method: Method) -> None:
    """Refuse a product of two sides with very many features: once begun, the time limit cannot stop it."""
    if getattr(method, "layer", None) == "input":
        pixels_or_tokens = [
            prepared.tensor.shape[-1] * (prepared.tensor.shape[-2] if prepared.tensor.ndim == 4 else 1)
            for prepared in (left, *right)
        ]
        rows, columns = pixels_or_tokens[0], max(pixels_or_tokens[1:])
        if rows * columns > _MAX_PAIRS:
            raise InputError(f"{rows} × {columns} pairs of features are too many here: choose a layer, such as 0")
