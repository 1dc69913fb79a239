"""The same pair seen by two models, methods or layers: their explanations on common features, and the difference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout, Layout, TokenLayout
from secondsight.algebra.outcome import joint_outcome
from secondsight.support.errors import InputError

MAX_CELLS = 10_000
"""Cells of a grid that is laid onto another one; the weights between two such grids take 800 MB."""


def difference(first: Interactions, second: Interactions) -> Interactions:
    """What `first` sees more than `second` of one pair: similarity, four terms, effects and matrix subtracted.

    Where the features differ both are first laid onto common ones without losing anything: cells of the finer grid, each
    old cell spread by its overlap; words of the text; all special positions, and what one model sees and the other does
    not, together as one. Raises `InputError` where the two do not show the same pair.
    """
    left, from_left = common(first.left_layout, second.left_layout)
    right, from_right = common(first.right_layout, second.right_layout)
    dtype = torch.promote_types(first.matrix.dtype, second.matrix.dtype)

    def laid(pair: Interactions, which: int) -> tuple[Tensor, Tensor, Tensor]:
        rows, columns = from_left[which], from_right[which]
        matrix = _lay(columns, _lay(rows, pair.matrix.double().cpu()).T).T
        return matrix, _lay(rows, pair.left_effects.double().cpu()), _lay(columns, pair.right_effects.double().cpu())

    matrix, left_effects, right_effects = (
        (a - b).to(dtype) for a, b in zip(laid(first, 0), laid(second, 1), strict=True)
    )
    return Interactions(
        attributions=matrix,
        left_effects=left_effects,
        right_effects=right_effects,
        base=first.base - second.base,
        similarity=first.similarity - second.similarity,
        left_layout=left,
        right_layout=right,
        about={"difference": [dict(first.about), dict(second.about)], **_named(first, second)},
        quantity="difference",
        outcomes=(
            joint_outcome([first.outcomes[0], second.outcomes[0]]),
            joint_outcome([first.outcomes[1], second.outcomes[1]]),
        ),
    )


def _lay(share: Tensor | None, values: Tensor) -> Tensor:
    return values if share is None else share @ values


def _named(first: Interactions, second: Interactions) -> dict[str, Any]:
    """Model and method of both, once where they are the same."""
    names = {}
    for key in ("model", "method", "scale"):
        a, b = first.about.get(key), second.about.get(key)
        if a is not None and b is not None:
            names[key] = a if a == b else f"{a} − {b}"
    return names


def common(first: Layout, second: Layout) -> tuple[Layout, tuple[Tensor | None, Tensor | None]]:
    """A layout that both fit, and for each the share of every old feature in every new one, (new, old).

    Columns sum to 1; None where nothing changes. Raises `InputError` for layouts of different inputs.
    """
    if first == second:
        return first, (None, None)
    if isinstance(first, GridLayout) and isinstance(second, GridLayout):
        return _common_grid(first, second)
    if isinstance(first, TokenLayout) and isinstance(second, TokenLayout):
        return _common_words(first, second)
    if first.kind == second.kind:
        raise InputError("the features of the two explanations differ and have no common layout")
    raise InputError(f"two explanations of {first.kind} and {second.kind} are not of the same pair")


def _common_grid(first: GridLayout, second: GridLayout) -> tuple[Layout, tuple[Tensor | None, Tensor | None]]:
    if first.image_size != second.image_size:
        raise InputError(
            f"the two explanations show images of {first.image_size[0]}×{first.image_size[1]} and "
            f"{second.image_size[0]}×{second.image_size[1]} pixels: both must be of the same photograph"
        )
    if max(len(first.visible), len(second.visible)) > MAX_CELLS:
        raise InputError(
            f"grids of {first.grid[0]}×{first.grid[1]} and {second.grid[0]}×{second.grid[1]} are too fine to be laid onto "
            "one another: explain at a block's input instead of layer='input'"
        )
    finer = first if len(first.visible) >= len(second.visible) else second
    cells = len(finer.visible)
    layout = GridLayout(cells + 1, {cells: "special"}, finer.grid, finer.image_size, finer.frame)
    return layout, (_spread(first, finer), _spread(second, finer))


def _spread(old: GridLayout, new: GridLayout) -> Tensor:
    """Share of every old cell's area in every new cell; the last row takes special features and area outside."""
    a, b = old.cell_boxes().double(), new.cell_boxes().double()
    low, high = torch.maximum(a[None, :, :2], b[:, None, :2]), torch.minimum(a[None, :, 2:], b[:, None, 2:])
    area = (a[:, 2:] - a[:, :2]).prod(-1)
    share = (high - low).clamp(min=0).prod(-1) / area
    return _with_rest(share, old)


def _common_words(first: TokenLayout, second: TokenLayout) -> tuple[Layout, tuple[Tensor | None, Tensor | None]]:
    if first.text is None or second.text is None:
        raise InputError("token ids without their text cannot be compared across tokenizers: give the caption itself")
    if first.text != second.text:
        raise InputError(f"the two explanations are of different texts, {first.text!r} and {second.text!r}")
    words = first.words
    places = tuple((w.start, w.end) for w in words)
    layout = TokenLayout(
        len(words) + 1, {len(words): "special"}, (*(w.text for w in words), "…"), (*places, None), first.text
    )
    return layout, (_gather(first), _gather(second))


def _gather(old: TokenLayout) -> Tensor:
    share = torch.zeros(len(old.words), old.size, dtype=torch.float64)
    for row, word in enumerate(old.words):
        share[row, list(word.features)] = 1.0
    return _with_rest(share[:, old.visible], old)


def _with_rest(share: Tensor, old: Layout) -> Tensor:
    """Shares (new, visible) as (new + 1, all old features): whatever is missing of a feature goes to the last row."""
    whole = torch.zeros(len(share) + 1, old.size, dtype=torch.float64)
    whole[:-1, old.visible] = share
    whole[-1] = 1 - whole[:-1].sum(0)
    return whole
