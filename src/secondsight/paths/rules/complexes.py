"""Rules of complex numbers, which stand for pairs of real ones: what rotary positions need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secondsight.paths.linear_maps import Derivative, LinearMap, Scale
from secondsight.paths.rules.affine import by_torch
from secondsight.paths.rules.move import RULES, Edge, Move, NoRule, rule
from secondsight.paths.rules.strided import Transposed

aten = torch.ops.aten


class AsComplex(LinearMap):
    """Pairs along the last axis as complex numbers; cotangents of a complex number are a pair too."""

    def push(self, t: Tensor) -> Tensor:
        """Complex numbers."""
        return torch.view_as_complex(t.contiguous())

    def pull(self, g: Tensor) -> Tensor:
        """Pairs."""
        return torch.view_as_real(g.resolve_conj())


@dataclass(frozen=True, eq=False)
class Rotation(LinearMap):
    """Times complex constants, whose transpose is their conjugate."""

    source: torch.Size
    target: torch.Size
    factor: Tensor

    def push(self, t: Tensor) -> Tensor:
        """Times the constants."""
        return Scale(self.source, self.target, self.factor).push(t)

    def pull(self, g: Tensor) -> Tensor:
        """Times their conjugates."""
        return Scale(self.source, self.target, self.factor.conj()).pull(g)


@rule(aten.view_as_complex.default, aten.view_as_real.default)
def reinterpret(move: Move) -> list[Edge]:
    """Pairs of real numbers as complex ones, and back."""
    to_complex = move.after.function is aten.view_as_complex.default
    return move.first(AsComplex() if to_complex else Transposed(AsComplex()))


_LINEAR = {
    aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.dim, aten.transpose.int,
    aten.permute.default, aten.expand.default, aten.select.int, aten.slice.Tensor, aten.split.Tensor, aten.unbind.int,
    aten.cat.default, aten.clone.default, aten.alias.default,
}  # fmt: skip


def edges_of(move: Move) -> list[Edge]:
    """The edges of an operation on complex numbers: those above, products with constants, and moves."""
    function = move.after.function
    if function in (aten.view_as_complex.default, aten.view_as_real.default) or function in _LINEAR:
        return RULES[function](move)
    if move.standing:
        return list(by_torch(move, Derivative))
    tracked = [k for k, source in enumerate(move.after.sources) if source is not None]
    if function is aten.mul.Tensor and len(tracked) == 1:
        rotated, factor = (move.points(k)[1] for k in (tracked[0], 1 - tracked[0]))
        if rotated.is_complex() and isinstance(factor, Tensor):
            move.require_same()
            return [move.edge(move.sources[tracked[0]], Rotation(rotated.shape, move.results[1].shape, factor))]
    raise NoRule("works with complex numbers")
