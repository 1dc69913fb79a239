"""The table of rules: for every ATen operation, its mean Jacobian between two points as linear maps of its arguments.

A rule gets one operation as it ran at two points (`Move`) and gives the edges of the chain: for each argument that depends
on the input, the linear map to the output. An operation without a rule is refused by name, see `linearisation`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secondsight.paths.linear_maps import Derivative
from secondsight.paths.rules import attention, choices, complexes, functions, places, products, statistics, strided  # noqa: F401  # rules register themselves
from secondsight.paths.rules.affine import AFFINE, affine, by_torch
from secondsight.paths.rules.functions import elementwise
from secondsight.paths.rules.move import RULES, Edge, Move, NoRule, rule

__all__ = ["AFFINE", "RULES", "Edge", "Move", "NoRule", "edges_of", "rule"]


def edges_of(move: Move) -> list[Edge]:
    """The edges of an operation; `NoRule` where it has none."""
    function = move.after.function
    if any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in (*move.after.arguments, *move.after.outputs)):
        return complexes.edges_of(move)
    if function in RULES:
        if not move.standing:
            # A choice between two tensors may change.
            move.require_same(*((0,) if function is torch.ops.aten.where.self else ()))
        return RULES[function](move)
    if function in AFFINE:
        return affine(move)
    tracked = [source for source in move.after.sources if source is not None]
    if torch.Tag.pointwise in function.tags and len(tracked) == 1:
        return elementwise(move)
    if move.standing:
        return list(by_torch(move, Derivative))
    raise NoRule("has no rule")
