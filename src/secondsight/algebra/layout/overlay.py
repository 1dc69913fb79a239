"""Two layouts of one input: features in common, and which feature of one lies in which of the other."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from secondsight.algebra.layout.base import Layout
from secondsight.support.errors import InputError


def common(first: Layout, second: Layout) -> tuple[Layout, tuple[Tensor | None, Tensor | None]]:
    """A layout for the features of both, and for each of the two its shares in the new features, (new, old).

    The columns of the shares sum to 1: the last feature takes what lies in no other. None where nothing changes. Raises
    `InputError` for layouts of different inputs.
    """
    if first == second:
        return first, (None, None)
    if first.kind != second.kind:
        raise InputError(f"two explanations of {first.kind} and {second.kind} are not of the same pair")
    layout = first.common_layout(second)
    return layout, (_complete(first.shares_in(layout)), _complete(second.shares_in(layout)))


def _complete(shares: Float[Tensor, "new old"]) -> Float[Tensor, "new old"]:
    shares[-1] = 1 - shares[:-1].sum(0)
    return shares


def owners_in(fine: Layout, coarse: Layout) -> Int[Tensor, " feature"]:
    """The feature of a coarser layout in which every feature lies; `coarse.size` for features that lie in none.

    Grids are divided evenly, whatever their frames: both must cover the same part of the input. Features of texts keep
    their position. Raises `InputError` for layouts of different kinds.
    """
    if fine.kind != coarse.kind:
        raise InputError(f"features of {fine.kind} do not lie in those of {coarse.kind}")
    owners = torch.full((fine.size,), coarse.size)
    if fine.cells.ndim == coarse.cells.ndim == 2:
        rows, columns = (torch.arange(n) * m // n for n, m in zip(fine.cells.shape, coarse.cells.shape, strict=True))
        owners[fine.cells] = coarse.cells[rows[:, None], columns]
        return owners
    if max(coarse.visible, default=0) >= fine.size:
        raise InputError(f"{fine.size} features of {fine.kind} do not hold the {coarse.size} of another layout")
    # Positions that only one layout has, such as a class token behind the text, belong to none.
    count = min(coarse.size, fine.size)
    owners[:count] = torch.arange(count)
    return owners
