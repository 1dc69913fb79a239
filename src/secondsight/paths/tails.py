"""What follows a pooled query, one row at a time, with its derivatives written out.

A tail has one row per node, but tangents or cotangents for hundreds of positions. Written out, they are plain matrix
products over all of them at once, with the primal computed once and kept; generic differentiation costs more in
overhead here than the whole explanation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vjp, vmap

Rows = Float[Tensor, "node width"]


@runtime_checkable
class Derivative(Protocol):
    """A derivative at given rows: maps tangents forward and cotangents back, both (…, node, width)."""

    def forward(self, t: Tensor) -> Tensor:
        """Tangents of the output."""

    def backward(self, g: Tensor) -> Tensor:
        """Cotangents of the input."""


@runtime_checkable
class Step(Protocol):
    """One step of a tail."""

    def linearise(self, y: Rows, t: Rows) -> tuple[Tensor, Tensor, Derivative]:
        """The value at y, what the tangent t becomes, and the derivative at y.

        Value and tangent go together because weights are read from memory once for both.
        """


@dataclass(frozen=True)
class _ProductDerivative:
    """Elementwise factor."""

    slope: Tensor

    def forward(self, t: Tensor) -> Tensor:
        return t * self.slope

    backward = forward


@dataclass(frozen=True)
class _Chain:
    parts: Sequence[Derivative]

    def forward(self, t: Tensor) -> Tensor:
        for part in self.parts:
            t = part.forward(t)
        return t

    def backward(self, g: Tensor) -> Tensor:
        for part in reversed(self.parts):
            g = part.backward(g)
        return g


@dataclass(frozen=True)
class Chain:
    """Stages one after the other."""

    stages: Sequence[Step]

    def linearise(self, y: Rows, t: Rows) -> tuple[Tensor, Tensor, Derivative]:
        """See `Step.linearise`."""
        parts = []
        for stage in self.stages:
            y, t, part = stage.linearise(y, t)
            parts.append(part)
        return y, t, _Chain(parts)


@dataclass(frozen=True)
class _SumDerivative:
    inner: Derivative

    def forward(self, t: Tensor) -> Tensor:
        return t + self.inner.forward(t)

    def backward(self, g: Tensor) -> Tensor:
        return g + self.inner.backward(g)


@dataclass(frozen=True)
class Residual:
    """y + stages(y)."""

    inner: Step

    def linearise(self, y: Rows, t: Rows) -> tuple[Tensor, Tensor, Derivative]:
        """See `Step.linearise`."""
        value, tangent, part = self.inner.linearise(y, t)
        return y + value, t + tangent, _SumDerivative(part)


@dataclass(frozen=True)
class Affine:
    """x ↦ weight x + bias; weight (out, in), bias (out,) or None."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"] | None = None

    def __call__(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The map applied to the last axis."""
        return F.linear(x, self.weight, self.bias)

    def forward(self, t: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """The map without its bias."""
        return F.linear(t, self.weight)

    def backward(self, g: Float[Tensor, "*batch out"]) -> Float[Tensor, "*batch in"]:
        """The transposed map."""
        return g @ self.weight

    def linearise(self, y: Rows, t: Rows) -> tuple[Tensor, Tensor, Derivative]:
        """See `Step.linearise`."""
        mapped = self.forward(torch.cat([y, t]))
        value, tangent = mapped[: len(y)], mapped[len(y) :]
        return value if self.bias is None else value + self.bias, tangent, self


@dataclass(frozen=True)
class Gain:
    """Elementwise multiplication by a vector (LayerScale)."""

    factor: Float[Tensor, " width"]

    def linearise(self, y: Rows, t: Rows) -> tuple[Tensor, Tensor, Derivative]:
        """See `Step.linearise`."""
        return y * self.factor, t * self.factor, _ProductDerivative(self.factor)


@dataclass(frozen=True)
class _NormDerivative:
    unit: Tensor  # (y − mean)/σ
    inverse: Tensor  # 1/σ, (node, 1)
    weight: Tensor | None
    centred: bool

    def _project(self, t: Tensor) -> Tensor:
        along = (t * self.unit).mean(-1, keepdim=True) * self.unit
        t = t - t.mean(-1, keepdim=True) if self.centred else t
        return (t - along) * self.inverse

    def forward(self, t: Tensor) -> Tensor:
        t = self._project(t)
        return t if self.weight is None else t * self.weight

    def backward(self, g: Tensor) -> Tensor:
        return self._project(g if self.weight is None else g * self.weight)


@dataclass(frozen=True)
class Norm:
    """Layer norm over the last axis, or RMS norm where `centred` is False."""

    weight: Float[Tensor, " width"] | None
    bias: Float[Tensor, " width"] | None
    eps: float
    centred: bool = True

    def linearise(self, y: Rows, t: Rows) -> tuple[Tensor, Tensor, Derivative]:
        """See `Step.linearise`."""
        c = y - y.mean(-1, keepdim=True) if self.centred else y
        inverse = (c.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        unit = c * inverse
        value = unit if self.weight is None else unit * self.weight
        value = value if self.bias is None else value + self.bias
        part = _NormDerivative(unit, inverse, self.weight, self.centred)
        return value, part.forward(t), part


def _sloped(function: Callable[[Tensor], Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope of an elementwise function, by one ordinary backward pass."""
    with torch.enable_grad():
        x = y.detach().requires_grad_()
        value = function(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


@dataclass(frozen=True)
class _MlpDerivative:
    first: Affine
    slope: Tensor
    last: Affine

    def forward(self, t: Tensor) -> Tensor:
        return self.last.forward(self.first.forward(t).mul_(self.slope))

    def backward(self, g: Tensor) -> Tensor:
        return self.first.backward(self.last.backward(g).mul_(self.slope))


@dataclass(frozen=True)
class Mlp:
    """Affine, any elementwise activation, affine; one stage, so that the wide middle is touched once."""

    first: Affine
    function: Callable[[Tensor], Tensor]
    last: Affine

    def linearise(self, y: Rows, t: Rows) -> tuple[Tensor, Tensor, Derivative]:
        """See `Step.linearise`."""
        y, t, _ = self.first.linearise(y, t)
        value, slope = _sloped(self.function, y)
        value, tangent, _ = self.last.linearise(value, t * slope)
        return value, tangent, _MlpDerivative(self.first, slope, self.last)


@dataclass(frozen=True)
class _UnitDerivative:
    unit: Tensor
    inverse: Tensor

    def forward(self, t: Tensor) -> Tensor:
        return (t - (t * self.unit).sum(-1, keepdim=True) * self.unit) * self.inverse

    backward = forward


@dataclass(frozen=True)
class Unit:
    """Division by the Euclidean norm."""

    def linearise(self, y: Rows, t: Rows) -> tuple[Tensor, Tensor, Derivative]:
        """See `Step.linearise`."""
        inverse = 1 / y.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        part = _UnitDerivative(y * inverse, inverse)
        return y * inverse, part.forward(t), part


@dataclass(frozen=True)
class _FunctionDerivative:
    function: Callable[[Tensor], Tensor]
    at: Tensor

    def forward(self, t: Tensor) -> Tensor:
        along = vmap(lambda row: jvp(self.function, (self.at,), (row,))[1])
        out: Tensor = along(t.flatten(0, -3)).unflatten(0, t.shape[:-2]) if t.ndim > 2 else along(t[None])[0]
        return out

    def backward(self, g: Tensor) -> Tensor:
        back = vjp(self.function, self.at)[1]
        along = vmap(lambda row: back(row)[0])
        out: Tensor = along(g.flatten(0, -3)).unflatten(0, g.shape[:-2]) if g.ndim > 2 else along(g[None])[0]
        return out


@dataclass(frozen=True)
class Function:
    """Any differentiable function that maps every row by itself, differentiated by torch."""

    function: Callable[[Tensor], Tensor]

    def linearise(self, y: Rows, t: Rows) -> tuple[Tensor, Tensor, Derivative]:
        """See `Step.linearise`."""
        value, tangent = jvp(self.function, (y,), (t,))[:2]
        return value, tangent, _FunctionDerivative(self.function, y)
