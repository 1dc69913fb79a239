"""Linear maps that a chain of mean Jacobians is made of, each with its transpose.

Tangents (row, *input) and cotangents (row, *output) have a leading axis of independent rows, so that hundreds of them
share one matrix product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vjp, vmap

Term = tuple[Tensor, Tensor, Tensor | None]
"""Left and right factors (…, rank, N) of a product of low rank, and weights (rank,) or None."""

_LARGE_PRODUCT = 2**24
"""Multiplications of a matrix product from which on it pays to look for rows of zeros."""

_SPARSE = 0.6
"""The largest share of rows that are not zero for which a matrix product leaves out the others."""


class LinearMap(ABC):
    """A linear map of one tensor to another."""

    @abstractmethod
    def push(self, t: Tensor) -> Tensor:
        """Tangents of the output for tangents of the input, both with an axis of rows in front."""

    @abstractmethod
    def pull(self, g: Tensor) -> Tensor:
        """Cotangents of the input for cotangents of the output."""


class Identity(LinearMap):
    """The tensor itself."""

    def push(self, t: Tensor) -> Tensor:
        """t."""
        return t

    def pull(self, g: Tensor) -> Tensor:
        """g."""
        return g


class Centre(LinearMap):
    """The input less its mean along the last axis."""

    def push(self, t: Tensor) -> Tensor:
        """Centred."""
        return t - t.mean(-1, keepdim=True)

    def pull(self, g: Tensor) -> Tensor:
        """Centred: the map is symmetric."""
        return self.push(g)


@dataclass(frozen=True, eq=False)
class Composed(LinearMap):
    """Several maps one after the other."""

    maps: Sequence[LinearMap]

    def push(self, t: Tensor) -> Tensor:
        """Through all of them."""
        for part in self.maps:
            t = part.push(t)
        return t

    def pull(self, g: Tensor) -> Tensor:
        """Back through all of them."""
        for part in reversed(self.maps):
            g = part.pull(g)
        return g


@dataclass(frozen=True, eq=False)
class Cast(LinearMap):
    """Another precision."""

    source: torch.dtype
    target: torch.dtype

    def push(self, t: Tensor) -> Tensor:
        """To the target's precision."""
        return t.to(self.target)

    def pull(self, g: Tensor) -> Tensor:
        """To the source's precision."""
        return g.to(self.source)


@dataclass(frozen=True, eq=False)
class Reshape(LinearMap):
    """The same numbers in another shape."""

    source: torch.Size
    target: torch.Size

    def push(self, t: Tensor) -> Tensor:
        """In the target's shape."""
        return t.reshape(len(t), *self.target)

    def pull(self, g: Tensor) -> Tensor:
        """In the source's shape."""
        return g.reshape(len(g), *self.source)


@dataclass(frozen=True, eq=False)
class Permute(LinearMap):
    """Axes in another order: output axis k is input axis `axes[k]`."""

    axes: tuple[int, ...]

    def push(self, t: Tensor) -> Tensor:
        """Permuted."""
        return t.permute(0, *(axis + 1 for axis in self.axes))

    def pull(self, g: Tensor) -> Tensor:
        """Permuted back."""
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return g.permute(0, *(axis + 1 for axis in inverse))


@dataclass(frozen=True, eq=False)
class Expand(LinearMap):
    """Broadcast to a larger shape; its transpose sums."""

    source: torch.Size
    target: torch.Size

    def push(self, t: Tensor) -> Tensor:
        """Broadcast."""
        return aligned(t, self.source, self.target).expand(len(t), *self.target)

    def pull(self, g: Tensor) -> Tensor:
        """Summed over the axes that were broadcast."""
        return summed_to(g, self.source)


@dataclass(frozen=True, eq=False)
class Slice(LinearMap):
    """A part of the input by basic indexing; its transpose puts the part among zeros."""

    source: torch.Size
    index: tuple[int | slice, ...]

    def push(self, t: Tensor) -> Tensor:
        """The part."""
        return t[(slice(None), *self.index)]

    def pull(self, g: Tensor) -> Tensor:
        """The part among zeros."""
        total = g.new_zeros(len(g), *self.source)
        self.pull_into(total, g)
        return total

    def pull_into(self, total: Tensor, g: Tensor) -> None:
        """Adds the part to a total, without writing zeros elsewhere."""
        total[(slice(None), *self.index)] += g


@dataclass(frozen=True, eq=False)
class Place(LinearMap):
    """The input as a part of a larger output, zeros elsewhere: the transpose of `Slice`."""

    target: torch.Size
    index: tuple[slice, ...]

    def push(self, t: Tensor) -> Tensor:
        """Among zeros."""
        placed = t.new_zeros(len(t), *self.target)
        placed[(slice(None), *self.index)] = t
        return placed

    def pull(self, g: Tensor) -> Tensor:
        """The part."""
        return g[(slice(None), *self.index)]


@dataclass(frozen=True, eq=False)
class Sum(LinearMap):
    """A factor times the sum over some axes of the input, which stay as axes of length 1."""

    source: torch.Size
    axes: tuple[int, ...]
    factor: float = 1.0

    def push(self, t: Tensor) -> Tensor:
        """Summed."""
        return t.sum([axis + 1 for axis in self.axes], keepdim=True) * self.factor

    def pull(self, g: Tensor) -> Tensor:
        """Spread out."""
        return (g * self.factor).expand(len(g), *self.source)


@dataclass(frozen=True, eq=False)
class Scale(LinearMap):
    """The input times a tensor, elementwise; both may be broadcast to the output's shape."""

    source: torch.Size
    target: torch.Size
    slope: Tensor | float

    def push(self, t: Tensor) -> Tensor:
        """Scaled."""
        scaled = aligned(t, self.source, self.target) * self.slope
        return scaled if scaled.shape[1:] == self.target else scaled.expand(len(t), *self.target)

    def pull(self, g: Tensor) -> Tensor:
        """Scaled, and summed over the axes that were broadcast."""
        return summed_to(g * self.slope, self.source)


@dataclass(frozen=True, eq=False)
class TimesMatrix(LinearMap):
    """The input (…, M, K) times a constant (…, K, N) from the right."""

    matrix: Tensor
    factor: float = 1.0

    def push(self, t: Tensor) -> Tensor:
        """t times the matrix."""
        return _times(t, self.matrix, self.factor)

    def pull(self, g: Tensor) -> Tensor:
        """g times its transpose."""
        return _times(g, self.matrix.mT, self.factor)


@dataclass(frozen=True, eq=False)
class MatrixTimes(LinearMap):
    """A constant (…, M, K) times the input (…, K, N)."""

    matrix: Tensor
    factor: float = 1.0

    def push(self, t: Tensor) -> Tensor:
        """The matrix times t."""
        return _scaled(self.matrix @ t, self.factor)

    def pull(self, g: Tensor) -> Tensor:
        """Its transpose times g."""
        return _scaled(self.matrix.mT @ g, self.factor)


@dataclass(frozen=True, eq=False)
class LowRank(LinearMap):
    """diagonal · t + Σ_m left_m (right_m · t) along the last axis: what softmax and norms come to.

    `diagonal` broadcasts to (…, N); `terms` have factors (…, rank, N) with `…` all axes of the input but the last.
    """

    diagonal: Tensor
    terms: Sequence[Term]

    def push(self, t: Tensor) -> Tensor:
        """Along the rows of the right factors, spread out by the left ones."""
        return self._apply(t, [(right, left, weights) for left, right, weights in self.terms])

    def pull(self, g: Tensor) -> Tensor:
        """The transpose: left and right exchanged."""
        return self._apply(g, self.terms)

    def _apply(self, t: Tensor, terms: Sequence[Term]) -> Tensor:
        result = (t * self.diagonal).contiguous()
        # Views with the vectors' other axes in front: one small matrix product for each, written where it belongs.
        flat, total = (x.reshape(len(x), -1, x.shape[-1]).transpose(0, 1) for x in (t, result))
        for against, along, weights in terms:
            coefficients = torch.bmm(flat, against.flatten(0, -3).mT)
            if weights is not None:
                coefficients *= weights
            total.baddbmm_(coefficients, along.flatten(0, -3))
        return result


@dataclass(frozen=True, eq=False)
class Choice(LinearMap):
    """Every output is a mixture of two inputs of one axis: weight · t[first] + (1 − weight) · t[second]."""

    source: torch.Size
    first: Tensor
    second: Tensor
    weight: Tensor

    def push(self, t: Tensor) -> Tensor:
        """Gathered from both places."""
        return self.weight * self._gather(t, self.first) + (1 - self.weight) * self._gather(t, self.second)

    def pull(self, g: Tensor) -> Tensor:
        """Scattered to both places."""
        total = g.new_zeros(len(g), *self.source)
        for index, weight in ((self.first, self.weight), (self.second, 1 - self.weight)):
            total.scatter_add_(-1, index.expand(g.shape), g * weight)
        return total

    def _gather(self, t: Tensor, index: Tensor) -> Tensor:
        return t.gather(-1, index.expand(len(t), *index.shape))


@dataclass(frozen=True, eq=False)
class Convolution(LinearMap):
    """A convolution with constant weights; `options` are ATen's, from stride to groups."""

    source: torch.Size
    weight: Tensor
    options: tuple[object, ...]

    def push(self, t: Tensor) -> Tensor:
        """Rows as further inputs of the batch."""
        out = torch.ops.aten.convolution(t.flatten(0, 1), self.weight, None, *self.options)
        return out.unflatten(0, (len(t), -1))

    def pull(self, g: Tensor) -> Tensor:
        """The convolution's gradient for its input."""
        like = g.new_empty(()).expand(len(g) * self.source[0], *self.source[1:])
        flat = g.flatten(0, 1).contiguous()
        back = torch.ops.aten.convolution_backward(flat, like, self.weight, None, *self.options, [True, False, False])[
            0
        ]
        return back.unflatten(0, (len(g), -1))


@dataclass(frozen=True, eq=False)
class Derivative(LinearMap):
    """The derivative of any function at a point, by torch."""

    function: Callable[[Tensor], Tensor]
    at: Tensor

    def push(self, t: Tensor) -> Tensor:
        """The Jacobian-vector product."""
        pushed: Tensor = vmap(lambda row: torch.func.jvp(self.function, (self.at,), (row,))[1])(t)
        return pushed

    def pull(self, g: Tensor) -> Tensor:
        """The vector-Jacobian product."""
        back = vjp(self.function, self.at)[1]
        pulled: Tensor = vmap(lambda row: back(row)[0])(g)
        return pulled


@dataclass(frozen=True, eq=False)
class Affine(Derivative):
    """Any affine function, differentiated by torch; `at` is where it was called."""

    def push(self, t: Tensor) -> Tensor:
        """f(t) − f(0)."""
        moved: Tensor = vmap(self.function)(t)
        constant = self.function(torch.zeros_like(self.at))
        # Constants such as a mask's −∞ do not move.
        return torch.where(constant.isfinite(), moved - constant, 0)


def aligned(t: Tensor, source: torch.Size, target: torch.Size) -> Tensor:
    """Rows of tensors with axes of length 1 after the rows, so that broadcasting to the target leaves rows alone."""
    extra = len(target) - len(source)
    return t.reshape(len(t), *[1] * extra, *source) if extra > 0 else t


def summed_to(g: Tensor, source: torch.Size) -> Tensor:
    """Rows of tensors summed over the axes along which `source` was broadcast."""
    extra = g.ndim - 1 - len(source)
    axes = [
        axis for axis in range(1, g.ndim) if axis <= extra or (source[axis - 1 - extra] == 1 and g.shape[axis] != 1)
    ]
    return g.sum(axes, keepdim=True).reshape(len(g), *source) if axes else g


def _scaled(t: Tensor, factor: float) -> Tensor:
    return t if factor == 1 else t * factor


def _times(t: Tensor, matrix: Tensor, factor: float) -> Tensor:
    """t (row, …, M, K) times a matrix (…, K, N); rows of zeros cost nothing where the matrix is the same for all."""
    if not any(matrix.stride()[:-2]):
        matrix = matrix[(0,) * (matrix.ndim - 2)]  # one matrix, spread out over a batch
    elif matrix.ndim > 2:
        return _scaled(t @ matrix, factor)
    flat = t.reshape(-1, t.shape[-1])
    if flat.numel() * matrix.shape[-1] < _LARGE_PRODUCT:
        return _scaled((flat @ matrix).reshape(*t.shape[:-1], matrix.shape[-1]), factor)
    # Behind a pooled position or an end token, whole rows of cotangents are zero.
    filled = flat.abs().amax(-1) > 0
    if int(filled.sum()) > _SPARSE * len(flat):
        product = flat @ matrix
    else:
        product = flat.new_zeros(len(flat), matrix.shape[-1])
        product[filled] = flat[filled] @ matrix
    return _scaled(product, factor).reshape(*t.shape[:-1], matrix.shape[-1])
