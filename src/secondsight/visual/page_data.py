"""What the view shows, as plain data: the cases with their sides, matrix and terms."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from secondsight.algebra.layout import Box, TokenLayout
from secondsight.explanation import comparable, contrast
from secondsight.support.errors import InputError
from secondsight.visual.colours import SCALES
from secondsight.visual.details import details
from secondsight.visual.page_sides import Pictures, side_data, start_of, sum_groups
from secondsight.visual.sentences import convergence_warning, first_order_note, meanings, special_shares
from secondsight.visual.template import template

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

_MAX_NAME = 48
"""Characters of a case's name; the whole text is shown beside it anyway."""


def page_data(e: Explanation | Sequence[Explanation], selection: Any = None, box: Box | None = None) -> dict[str, Any]:
    """What the view shows, as plain data: every case with both sides, its matrix over cells and words, its terms.

    Several explanations, for example of several captions, are cases between which the reader switches. Two of one left
    input also get a case for their difference, and a margin the two explanations that it is the difference of. Groups are
    grid cells, or words (sums over their tokens); special features are left out and their share is noted. `selection` and
    `box` are what is picked at first on the right and on the left side. A case's "carried" is what would go with each group:
    its effect alone and its interactions with all of the other side, special features included. Matrices are base64 of
    little-endian float32, row by row. `alternatives` are the cases whose similarities the view compares.
    """
    pictures = Pictures()
    choices = _named_explanations(e)
    cases = [
        _case(explanation, name, pictures, selection if i == 0 else None, box)
        for i, (name, explanation) in enumerate(choices)
    ]
    scales = [{"name": name, "positive": plus, "negative": minus} for name, (plus, minus) in SCALES.items()]
    alternatives = _alternatives([explanation for _, explanation in choices])
    return {"cases": cases, "alternatives": alternatives, "pictures": pictures.sources, "scales": scales}


def _alternatives(explanations: Sequence[Explanation]) -> list[int]:
    """The cases between which the model decides: one left input with different texts, by one model and method."""
    indices = [i for i, e in enumerate(explanations) if isinstance(e.right_layout, TokenLayout)]
    ranked = [explanations[i] for i in indices]
    texts = {e.right_layout.text for e in ranked if isinstance(e.right_layout, TokenLayout)}
    if len(texts) < max(2, len(ranked)) or any(e.quantity != "similarity" for e in ranked):
        return []
    return indices if all(comparable(ranked[0], e) for e in ranked[1:]) else []


def _named_explanations(e: Explanation | Sequence[Explanation]) -> list[tuple[str, Explanation]]:
    """The explanations to show, each with the name by which the reader chooses it."""
    explanations = list(e) if isinstance(e, Sequence) else [e]
    if not explanations:
        raise InputError("a page needs at least one explanation")
    cases = _distinct(explanations)
    if len(explanations) == 1 and explanations[0].parts:
        return [("difference", explanations[0]), *_distinct(explanations[0].parts)]
    if len(explanations) == 2 and all(len(explanation.right_layout.parts) == 1 for explanation in explanations):
        first, second = explanations
        if comparable(first, second):
            # Both matrices are shown anyway; computed before the difference is formed, they are computed only once.
            _ = first.matrix, second.matrix
            cases.append(("difference", contrast(first, second)))
    return cases


def _distinct(explanations: Sequence[Explanation]) -> list[tuple[str, Explanation]]:
    """Explanations with their names, numbered where several have one, such as one query's with several pages."""
    names = [_name(e) for e in explanations]
    return [
        (f"{number}: {name}" if names.count(name) > 1 else name, e)
        for number, (name, e) in enumerate(zip(names, explanations, strict=True), 1)
    ]


def _name(e: Explanation) -> str:
    inputs = (*_as_tuple(e.right_input), *_as_tuple(e.left_input))
    text = next((content for content in inputs if isinstance(content, str)), "this pair")
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 1].rstrip() + "…"


def _as_tuple(inputs: Any) -> tuple[Any, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _case(e: Explanation, name: str, pictures: Pictures, selection: Any, box: Box | None) -> dict[str, Any]:
    left, left_owners = side_data(e.left_layout, e.left_input, pictures)
    right, right_owners = side_data(e.right_layout, e.right_input, pictures)
    features = e.matrix.double().cpu()
    rows = sum_groups(features, left_owners, left["groups"])
    matrix = sum_groups(rows.T, right_owners, right["groups"]).T
    sides = (
        (e.left_effects.double().cpu(), features.sum(1), left_owners, left["groups"]),
        (e.right_effects.double().cpu(), features.sum(0), right_owners, right["groups"]),
    )
    return {
        "name": name,
        "left": left,
        "right": right,
        "matrix": _encode(matrix),
        "alone": [_encode(sum_groups(effects, owners, groups)) for effects, _, owners, groups in sides],
        "carried": [_encode(sum_groups(effects + sums, owners, groups)) for effects, sums, owners, groups in sides],
        "start": [start_of(e.left_layout, left, box), start_of(e.right_layout, right, selection)],
        "similarity": e.similarity,
        "terms": [[name, value] for name, value in e.terms.labels()],
        "hidden": e.terms.interaction - float(matrix.sum()),
        "error": e.error,
        "called": e.quantity,
        "order": e.order,
        "meanings": meanings(e),
        "note": _note(e),
        "details": template("details.html").render(tables=details(e)),
        "warning": convergence_warning(e),
    }


def _encode(values: Tensor) -> str:
    return base64.b64encode(values.detach().numpy().astype("<f4").tobytes()).decode()


def _note(e: Explanation) -> str:
    """How the explanation was computed, and how much of it the view hides."""
    modalities = e.left_layout.modality, e.right_layout.modality
    names = modalities if modalities[0] != modalities[1] else (f"left {modalities[0]}", f"right {modalities[1]}")
    computations = [
        f"{name} layer {outcome.layer}, {outcome.nodes} nodes"
        for outcome, name in zip(e.outcomes, names, strict=True)
        if outcome is not None and outcome.nodes is not None
    ]
    origin = f"{e.about.get('model', 'model')}, {e.about.get('method', 'method')}"
    lines = [", ".join([origin, *computations]), first_order_note(e), *special_shares(e)]
    return ". ".join(line for line in lines if line)
