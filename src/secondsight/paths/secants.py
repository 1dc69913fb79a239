"""Mean Jacobians of single operations between two points, in closed form or by nodes on their straight line.

Each gives J̄ = ∫ f'(z₀ + α Δz) dα, for which J̄ Δz = f(z₁) − f(z₀). Where the two points are the same, that is the derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from secondsight.paths.linear_maps import Choice, LowRank, Term

_NORM_NODES = 64
"""Nodes of a norm's integrals, which take one number per node and row: more cost nothing."""

_SOFTMAX_NODES = (4, 8, 16, 32, 64)
"""Nodes of a softmax until the rank-one correction is small, below `_SOFTMAX_MISS` of the largest rise."""

_SOFTMAX_NODES_IN_DOUBLE = (8, 16, 32, 64)

_SOFTMAX_MISS = 1e-3


@lru_cache(maxsize=32)
def _gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (nodes + 1) / 2, weights / 2


def _nodes(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss and Legendre on [0, 1], as tensors like another."""
    nodes, weights = _gauss(count)
    return torch.from_numpy(nodes).to(like), torch.from_numpy(weights).to(like)


def slope(function: Callable[[Tensor], Tensor], z: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
    """Rise over run of an elementwise function; its derivative at the middle where the run is too small to divide by.

    Over a run of the cube root of the precision, rise over run and the derivative at the middle are equally exact. A kink
    or a steep bend within such a run would break the sum, so where the derivative misses the rise by more than rounding,
    rise over run is taken after all.
    """
    if z[0] is z[1]:
        return _derivative(function, z[1]).nan_to_num_(0, 0, 0)
    run, rise = z[1] - z[0], y[1] - y[0]
    precision = torch.finfo(run.dtype).eps
    middle = (z[0] + z[1]).div_(2)
    secant = rise / run
    short = (run.abs() < precision ** (1 / 3)).flatten().nonzero().flatten()
    if len(short):
        steps, risen = run.take(short), rise.take(short)
        tangent = _derivative(function, middle.take(short))
        largest = torch.maximum(y[0].take(short).abs(), y[1].take(short).abs())
        exact = (tangent * steps - risen).abs() <= 8 * precision * largest
        secant = secant.put(short, torch.where(exact | (steps == 0), tangent, secant.take(short)))
    # What a mask holds at −∞ does not move.
    return secant if bool(torch.isfinite(secant.sum())) else secant.nan_to_num(0, 0, 0)


def _derivative(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The derivative of an elementwise function."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        (tangent,) = torch.autograd.grad(function(at).sum(), at)
    return tangent


def softmax(z: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> LowRank:
    """Along the last axis: diag(p̄) − ∫ p pᵀ, with as many nodes as make it right, and what is missing as rank one."""
    start, end = (_unmasked(point) for point in z)
    run, rise = end - start, y[1] - y[0]
    double = run.dtype == torch.float64
    allowed = (1e-13 if double else _SOFTMAX_MISS) * float(rise.abs().max())
    if allowed == 0:
        return LowRank(y[1], [(y[1][..., None, :], y[1][..., None, :], y[1].new_tensor([-1.0]))])
    for count in _SOFTMAX_NODES_IN_DOUBLE if double else _SOFTMAX_NODES:
        alpha, weights = _nodes(count, run)
        p = torch.stack([torch.softmax(torch.add(start, run, alpha=node), -1) for node in alpha.tolist()], -2)
        jacobian = LowRank(torch.einsum("m,...mn->...n", weights, p), [(p, p, -weights)])
        missing = rise - jacobian.push(run[None])[0]
        if float(missing.abs().max()) <= allowed:
            break
    return _corrected(jacobian, run, missing)


def _unmasked(z: Tensor) -> Tensor:
    """Logits with a finite number instead of −∞: a position that a mask hides has no probability and no tangent."""
    return z if bool(torch.isfinite(z.amin())) else z.clamp(min=torch.finfo(z.dtype).min / 8)


def norm(
    z: tuple[Tensor, Tensor],
    y: tuple[Tensor, Tensor],
    eps: float,
    centred: bool = True,
) -> LowRank:
    """(z − mean) / √(variance + eps) along the last axis, or z / √(mean square + eps) where `centred` is False.

    On a straight line c = c₀ + αΔc and σ² is a quadratic in α, so J̄ = ∫σ⁻¹ (I − 11ᵀ/n) − ∫ c cᵀ/(nσ³) is of rank three beside
    the diagonal, with four integrals of single numbers.
    """
    c0, c1 = (point - point.mean(-1, keepdim=True) for point in z) if centred else z
    step = c1 - c0
    size = c0.shape[-1]
    alpha, weights = _nodes(_NORM_NODES, c0.double())
    square, cross, moved = (
        (a * b).mean(-1, keepdim=True, dtype=torch.float64) for a, b in ((c0, c0), (c0, step), (step, step))
    )
    inverse = (square + 2 * alpha * cross + alpha.square() * moved + eps).rsqrt()
    cubes = inverse**3 * weights / size
    moments = [(cubes * alpha**power).sum(-1, keepdim=True).to(c0) for power in range(3)]
    diagonal = (inverse * weights).sum(-1, keepdim=True).to(c0)
    pair = torch.stack([c0, step], -2)
    matrix = torch.stack([torch.cat(moments[:2], -1), torch.cat(moments[1:], -1)], -2)
    left, right = -(matrix @ pair), pair
    if centred:
        ones = torch.ones_like(c0)[..., None, :]
        left, right = torch.cat([left, -diagonal[..., None] / size * ones], -2), torch.cat([right, ones], -2)
    jacobian = LowRank(diagonal, [(left, right, None)])
    run = z[1] - z[0]
    return _corrected(jacobian, run, y[1] - y[0] - jacobian.push(run[None])[0])


def length(z: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
    """The mean gradient ∫ z/‖z‖ dα of the Euclidean norm along the last axis; `y` keeps that axis with length 1."""
    run = z[1] - z[0]
    alpha, weights = _nodes(_NORM_NODES, z[0].double())
    square, cross, moved = (
        (a * b).sum(-1, keepdim=True, dtype=torch.float64) for a, b in ((z[0], z[0]), (z[0], run), (run, run))
    )
    inverse = (square + 2 * alpha * cross + alpha.square() * moved).clamp(min=1e-300).rsqrt() * weights
    gradient = z[0] * inverse.sum(-1, keepdim=True).to(run) + run * (inverse * alpha).sum(-1, keepdim=True).to(run)
    missing = y[1] - y[0] - (gradient * run).sum(-1, keepdim=True)
    return gradient + missing * run / _positive(run.square().sum(-1, keepdim=True))


def largest(z: tuple[Tensor, Tensor], index: tuple[Tensor, Tensor], source: torch.Size) -> Choice:
    """A maximum that moved from one entry of the last axis to another: the mixture of the two that gives the rise.

    `z` are the candidates (…, n) and `index` (…, output) where the maximum lies at either point.
    """
    run = z[1] - z[0]
    from_first, from_second = (run.gather(-1, place) for place in index)
    rise = z[1].gather(-1, index[1]) - z[0].gather(-1, index[0])
    return Choice(source, index[0], index[1], mixture(rise, from_first, from_second))


def mixture(rise: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The weight w in 0 … 1 with w · first + (1 − w) · second = rise; one half where the two are the same."""
    gap = first - second
    return torch.where(gap == 0, 0.5, (rise - second) / gap.masked_fill(gap == 0, 1)).clamp(0, 1)


def _corrected(jacobian: LowRank, run: Tensor, missing: Tensor) -> LowRank:
    """The Jacobian plus missing · runᵀ/‖run‖², so that it maps the run to the rise exactly (Broyden 1965)."""
    size = run.square().sum(-1, keepdim=True)
    left = (missing / _positive(size))[..., None, :]
    (first, second, weights), *_ = jacobian.terms
    if weights is None:
        terms: list[Term] = [(torch.cat([first, left], -2), torch.cat([second, run[..., None, :]], -2), None)]
    else:
        terms = [*jacobian.terms, (left, run[..., None, :], None)]
    return LowRank(jacobian.diagonal, terms)


def _positive(size: Tensor) -> Tensor:
    return size.masked_fill(size == 0, 1)
