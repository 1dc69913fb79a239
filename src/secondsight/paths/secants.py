"""Mean Jacobians of single operations between two points, in closed form or by nodes on their straight line.

Each gives J̄ = ∫ f'(z₀ + α Δz) dα, for which J̄ Δz = f(z₁) − f(z₀). Where the two points are the same, that is the derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from secondsight.paths.linear_maps import Centre, Choice, Composed, LinearMap, LowRank

Points = tuple[Tensor, Tensor]
"""Values of a tensor at the reference and at the input: the same object twice for a derivative."""

_NORM_NODES = 64
"""Nodes of a norm's integrals, which take one number per node and row: more cost nothing."""

_ROUNDING = 16
"""Units of the precision that a norm may miss of its largest rise before that is mended."""

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


def slope(function: Callable[[Tensor], Tensor], z: Points, y: Points) -> Tensor:
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


def softmax(z: Points, y: Points, count: int | None = None) -> LowRank:
    """Along the last axis: diag(p̄) − ∫ p pᵀ, with what its nodes miss as rank one; `count` nodes, or as many as needed."""
    if z[0] is z[1]:
        return _softmax_derivative(y[1])
    start, end = (_unmasked(point) for point in z)
    run, rise = end - start, y[1] - y[0]
    largest = float(rise.abs().max()) if count is None else 1.0
    if largest == 0:
        return _softmax_derivative(y[1])
    for number in softmax_nodes(run.dtype) if count is None else (count,):
        p, weights, mean, missing = _softmax_nodes(start, run, rise, number)
        if count is None and enough(float(missing.abs().max()), largest, run.dtype):
            break
    step = run[..., None, :]
    along = missing[..., None, :] / _positive(step @ step.mT)
    return LowRank(mean, [(p, p, -weights), (along, step, None)])


def softmax_miss(z: Points, y: Points, count: int) -> tuple[float, float]:
    """The most that `count` nodes of a softmax miss of its rise, and the largest rise."""
    start, end = (_unmasked(point) for point in z)
    rise = y[1] - y[0]
    missing = _softmax_nodes(start, end - start, rise, count)[-1]
    return float(missing.abs().max()), float(rise.abs().max())


def softmax_nodes(dtype: torch.dtype) -> Sequence[int]:
    """How many nodes to try, one number after the other."""
    return _SOFTMAX_NODES_IN_DOUBLE if dtype == torch.float64 else _SOFTMAX_NODES


def enough(missing: float, largest: float, dtype: torch.dtype) -> bool:
    """Whether nodes of a softmax miss little of its largest rise."""
    return missing <= (1e-13 if dtype == torch.float64 else _SOFTMAX_MISS) * largest


def _softmax_nodes(start: Tensor, run: Tensor, rise: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Probabilities (…, node, N) at nodes, their weights and their mean, and what the mean Jacobian misses of the rise."""
    alpha, weights = _nodes(count, run)
    nodes = run.new_empty(count, *run.shape)
    mean, missing = torch.zeros_like(run), rise.clone()
    for node, weight, p in zip(alpha.tolist(), weights.tolist(), nodes, strict=True):
        torch.softmax(torch.add(start, run, alpha=node), -1, out=p)
        mean.add_(p, alpha=weight)
        missing.addcmul_(p, torch.linalg.vecdot(p, run)[..., None], value=weight)
    return nodes.movedim(0, -2), weights, mean, missing.addcmul_(mean, run, value=-1)


def _softmax_derivative(p: Tensor) -> LowRank:
    return LowRank(p, [(p[..., None, :], p[..., None, :], p.new_tensor([-1.0]))])


def _unmasked(z: Tensor) -> Tensor:
    """Logits with a finite number instead of −∞: a position that a mask hides has no probability and no tangent."""
    return z if bool(torch.isfinite(z.amin())) else z.clamp(min=torch.finfo(z.dtype).min / 8)


def norm(z: Points, eps: float, units: Callable[[], Points]) -> LinearMap:
    """(z − mean) / √(variance + eps) along the last axis; `units` gives its values at both points.

    On a straight line c = c₀ + αΔc and σ² is a quadratic in α, so after the mean is taken off, J̄ = ∫σ⁻¹ − ∫ c cᵀ/(nσ³) is of
    rank two beside the diagonal, with four integrals of single numbers. What their nodes miss of
    f(z₁) − f(z₀) = (σ₁⁻¹ − σ₀⁻¹) c₀ + σ₁⁻¹ Δc is a combination of the same two vectors, and goes into J̄ along Δc. What
    rounding misses of the units' rise, where a vector's deviation is small beside its mean, goes into J̄ along Δz.
    """
    centre = Centre()
    c0, c1 = (centre.push(point) for point in z)
    size = c0.shape[-1]
    if z[0] is z[1]:
        inverse = (c1.square().mean(-1, keepdim=True) + eps).rsqrt()
        jacobian = LowRank(inverse, [((-(inverse**3) / size * c1)[..., None, :], c1[..., None, :], None)])
        return Composed([centre, jacobian])
    matrix, diagonal = (x.to(c0) for x in _norm_integrals((c0, c1 - c0, c1), eps))
    right = _rows([c0, c1 - c0])
    inverse, terms = diagonal[..., None], [(matrix @ right, right, None)]
    chain = Composed([centre, LowRank(inverse, terms)])
    start, end = units()
    run, rise = z[1] - z[0], end - start
    missing = rise - chain.push(run[None])[0]
    if float(missing.abs().max()) <= _ROUNDING * torch.finfo(rise.dtype).eps * float(rise.abs().max()):
        return chain
    ones = torch.ones_like(run)[..., None, :]
    mean = (ones * (-inverse / size)[..., None], ones, None)
    along = missing / _positive(run.square().sum(-1, keepdim=True))
    return LowRank(inverse, [*terms, mean, (along[..., None, :], run[..., None, :], None)])


def _norm_integrals(points: tuple[Tensor, Tensor, Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """The matrix (…, 2, 2) between c₀ and Δc in a norm's mean Jacobian, and its diagonal ∫σ⁻¹, for c₀, Δc and c₁."""
    (c0, step, c1), size = points, points[0].shape[-1]
    pairs = ((c0, c0), (c0, step), (step, step), (c1, c1))
    square, cross, moved, last = (torch.linalg.vecdot(a, b).double() / size for a, b in pairs)
    alpha, weights = _nodes(_NORM_NODES, square)
    between = (moved[..., None] * alpha + 2 * cross[..., None]) * alpha
    inverse = (between + (square + eps)[..., None]).clamp_(min=1e-300).rsqrt()
    cubes = inverse * inverse * inverse
    powers = torch.stack([weights * alpha**power / -size for power in range(3)], -1)
    first, second, third = (cubes @ powers).unbind(-1)
    diagonal = inverse @ weights
    start, end = (square + eps).rsqrt(), (last + eps).rsqrt()
    from_first = end - start - size * (first * cross + second * moved)
    from_step = end - diagonal - size * (second * cross + third * moved)
    run = _positive(size * moved)
    matrix = torch.stack([first, second, second + from_first / run, third + from_step / run], -1)
    return matrix.unflatten(-1, (2, 2)), diagonal


def _rows(parts: Sequence[Tensor]) -> Tensor:
    """Tensors (…, N) as rows (…, part, N) of one; `torch.stack` takes ten times as long here."""
    stacked = parts[0].new_empty(*parts[0].shape[:-1], len(parts), parts[0].shape[-1])
    for number, part in enumerate(parts):
        stacked[..., number, :] = part
    return stacked


def length(z: Points, y: Points) -> Tensor:
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


def largest(z: Points, index: Points, source: torch.Size) -> Choice:
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


def _positive(size: Tensor) -> Tensor:
    return size.masked_fill(size == 0, 1)
