"""The naive chain of mean Jacobians: dense, and every one of them integrated by many nodes."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from secondsight.paths.tape import Operation, record

NODES = 64

aten = torch.ops.aten

KINKS = (-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0)
"""Where the derivatives of the elementwise operations jump that tests use."""

KINKED = {
    aten.relu.default, aten.leaky_relu.default, aten.hardtanh.default, aten.hardswish.default, aten.hardsigmoid.default,
    aten.clamp.default, aten.clamp_min.default, aten.clamp_max.default, aten.abs.default, aten.elu.default,
    aten.threshold.default, aten.celu.default, aten.softshrink.default,
    aten.linalg_vector_norm.default, aten._prelu_kernel.default,
}  # fmt: skip

CHOOSING = {
    aten.maximum.default, aten.minimum.default, aten.max.dim, aten.min.dim, aten.amax.default, aten.amin.default,
    aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default, aten.adaptive_max_pool2d.default,
    aten.adaptive_max_pool3d.default, aten.max.default, aten.min.default,
}  # fmt: skip


def chained(function: Callable[[Tensor], Tensor], start: Tensor, end: Tensor) -> Tensor:
    """The product of all operations' mean Jacobians, (*output, *input): ∫ f'(z₀ + α Δz) dα for each, multiplied."""
    runs: list[list[Operation]] = [[], []]
    for point, run in zip((start, end), runs, strict=True):
        value, number = record(function, point, run.append)
    moves = {0: torch.eye(start.numel(), dtype=start.dtype)}
    for before, after in zip(*runs, strict=True):
        assert before.function is after.function
        for target, row in zip((t for t in after.targets if t is not None), mean_jacobians(before, after), strict=True):
            tracked = [source for source in after.sources if source is not None]
            moves[target] = sum(j.double() @ moves[source] for j, source in zip(row, tracked, strict=True))
    return moves[number].reshape(*value.shape, *start.shape)


def mean_jacobians(before: Operation, after: Operation) -> list[list[Tensor]]:
    """One matrix for every output and argument that depends on the input; a/b is a · b⁻¹, two operations."""
    if after.function is aten.div.Tensor and after.sources[1] is not None:
        return [_quotient(before, after)]
    positions = [k for k, source in enumerate(after.sources) if source is not None]
    first, second = ([operation.arguments[k] for k in positions] for operation in (before, after))

    def at(alpha: Tensor) -> list[Tensor]:
        leaves = list(after.arguments)
        for k, a, b in zip(positions, first, second, strict=True):
            leaves[k] = torch.where(a == b, a, a + alpha.to(a.dtype) * (b - a))
        return leaves

    def run(*points: Tensor) -> tuple[Tensor, ...]:
        leaves = list(after.arguments)
        for k, point in zip(positions, points, strict=True):
            leaves[k] = point
        arguments, keywords = after.nested(leaves)
        result = after.function(*arguments, **keywords)
        outputs = result if isinstance(result, (tuple, list)) else [result]
        return tuple(y.flatten() for y, target in zip(outputs, after.targets, strict=True) if target is not None)

    def jacobian(alpha: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        points = [at(alpha)[k] for k in positions]
        return jacrev(run, argnums=tuple(range(len(positions))))(*points)

    totals: list[list[Tensor]] | None = None
    count = 2 if after.function in CHOOSING else 8 if after.function in KINKED else NODES
    alpha, weights = nodes_between(breaks(after.function, first, second), count)
    for nodes, w in zip(alpha.split(512), weights.split(512), strict=True):
        try:
            rows = vmap(jacobian)(nodes)
        except RuntimeError:  # an operation that cannot be batched
            single = [jacobian(node) for node in nodes]
            rows = [[torch.stack(parts) for parts in zip(*row, strict=True)] for row in zip(*single, strict=True)]
        part = [
            [torch.tensordot(w.to(j.dtype), j, 1).reshape(j.shape[1], math.prod(j.shape[2:])) for j in row]
            for row in rows
        ]
        totals = part if totals is None else [
            [a + b for a, b in zip(*pair, strict=True)] for pair in zip(totals, part, strict=True)
        ]  # fmt: skip
    assert totals is not None
    return totals


def _quotient(before: Operation, after: Operation) -> list[Tensor]:
    """The product's mean Jacobian between (a, b⁻¹) at both points, and for b that of the reciprocal before it."""
    shape = after.outputs[0].shape
    (a0, b0), (a1, b1) = (
        [torch.as_tensor(z, dtype=torch.float64) for z in operation.arguments[:2]] for operation in (before, after)
    )
    alpha, weights = nodes_between([0.0, 0.5, 1.0], NODES)
    result = []
    if after.sources[0] is not None:
        inverse = (1 / b0 + (1 / b1 - 1 / b0) * 0.5).expand(shape)
        result.append(inverse.reshape(-1, 1) * _broadcasting(a0, shape))
    slope = sum(w * -1 / (b0 + t * (b1 - b0)).square() for t, w in zip(alpha, weights, strict=True))
    result.append((slope * (a0 + a1) / 2).expand(shape).reshape(-1, 1) * _broadcasting(b0, shape))
    return result


def _broadcasting(z: Tensor, shape: torch.Size) -> Tensor:
    """The matrix that expands z to a shape."""
    return jacrev(lambda t: t.expand(shape).flatten())(z).reshape(-1, z.numel())


def breaks(function: object, first: list[Tensor], second: list[Tensor]) -> list[float]:
    """Where on [0, 1] a derivative jumps: entries pass a kink, or each other."""
    start, end = (torch.cat([z.flatten() for z in points]).double() for points in (first, second))
    if function in CHOOSING:
        start, end = (torch.cat([z, z.new_zeros(1)])[:, None] - z for z in (start, end))
    elif function in KINKED:
        start, end = (z[:, None] - torch.tensor(KINKS, dtype=z.dtype) for z in (start, end))
    else:
        return [0.0, 0.5, 1.0]
    crossing = start / (start - end)
    inside = crossing[(crossing > 0) & (crossing < 1)].unique()
    return [0.0, *inside.tolist(), 1.0]


def nodes_between(edges: list[float], count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes of every piece, and their weights."""
    points, sizes = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(count))
    left = torch.tensor(edges[:-1], dtype=torch.float64)
    width = torch.tensor(edges[1:], dtype=torch.float64) - left
    alpha = left[:, None] + width[:, None] * (points + 1) / 2
    return alpha.flatten(), (width[:, None] * sizes / 2).flatten()
