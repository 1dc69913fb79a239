"""The difference of two explanations of one pair, by two models, methods or layers, on common features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import common
from secondsight.algebra.outcome import joint_outcome


def difference(first: Interactions, second: Interactions) -> Interactions:
    """What `first` sees more than `second` in one pair: the differences of similarity, four terms, effects and matrix.

    If the features differ, both explanations are first expressed in common ones, keeping all sums: the cells of the finer
    grid, over which every cell is distributed by overlap; the words of the text; and one feature for all special
    positions and for what only one of the models sees. Raises `InputError` if the two do not explain the same pair.
    """
    left, left_shares = common(first.left_layout, second.left_layout)
    right, right_shares = common(first.right_layout, second.right_layout)
    dtype = torch.promote_types(first.matrix.dtype, second.matrix.dtype)

    def regrid(pair: Interactions, rows: Tensor | None, columns: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        matrix = _apply(columns, _apply(rows, pair.matrix.double().cpu()).T).T
        left_effects, right_effects = pair.left_effects.double().cpu(), pair.right_effects.double().cpu()
        return matrix, _apply(rows, left_effects), _apply(columns, right_effects)

    minuend, subtrahend = (
        regrid(first, left_shares[0], right_shares[0]),
        regrid(second, left_shares[1], right_shares[1]),
    )
    matrix, left_effects, right_effects = ((a - b).to(dtype) for a, b in zip(minuend, subtrahend, strict=True))
    return Interactions(
        attributions=matrix,
        left_effects=left_effects,
        right_effects=right_effects,
        base=first.base - second.base,
        similarity=first.similarity - second.similarity,
        left_layout=left,
        right_layout=right,
        about={"difference": [dict(first.about), dict(second.about)], **_joint_names(first, second)},
        quantity="difference",
        outcomes=(
            joint_outcome([first.outcomes[0], second.outcomes[0]]),
            joint_outcome([first.outcomes[1], second.outcomes[1]]),
        ),
    )


def _apply(shares: Tensor | None, values: Tensor) -> Tensor:
    return values if shares is None else shares @ values


def _joint_names(first: Interactions, second: Interactions) -> dict[str, Any]:
    """Model, method and scale of both; "a − b" if they differ."""
    names = {}
    for key in ("model", "method", "scale"):
        a, b = first.about.get(key), second.about.get(key)
        if a is not None and b is not None:
            names[key] = a if a == b else f"{a} − {b}"
    return names
