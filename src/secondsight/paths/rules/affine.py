"""Affine operations without a map of their own, and derivatives of operations without a rule, both by torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from secondsight.paths.linear_maps import Affine, LinearMap
from secondsight.paths.rules.move import Edge, Move

aten = torch.ops.aten

AFFINE: set[Any] = {
    aten.index.Tensor, aten.index_select.default, aten.gather.default, aten.roll.default, aten.flip.default,
    aten.constant_pad_nd.default, aten.reflection_pad2d.default, aten.replication_pad2d.default,
    aten.reflection_pad1d.default, aten.replication_pad1d.default, aten.reflection_pad3d.default,
    aten.replication_pad3d.default, aten.rot90.default, aten.diag_embed.default, aten.take.default,
    aten.masked_select.default, aten.avg_pool3d.default, aten.upsample_linear1d.default, aten.upsample_trilinear3d.default,
    aten.upsample_nearest1d.default, aten.upsample_nearest3d.default, aten._upsample_nearest_exact1d.default,
    aten._upsample_nearest_exact2d.default, aten._upsample_nearest_exact3d.default, aten.col2im.default,
    aten.avg_pool2d.default, aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default,
    aten.upsample_bicubic2d.default, aten.upsample_bilinear2d.default, aten.upsample_nearest2d.default,
    aten._upsample_bicubic2d_aa.default, aten._upsample_bilinear2d_aa.default, aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default, aten.im2col.default, aten.unfold.default, aten.select_scatter.default,
    aten.slice_scatter.default, aten.index_put.default, aten.scatter.src, aten.scatter.value, aten.stack.default,
    aten.cumsum.default, aten.tril.default, aten.triu.default, aten.neg.default, aten.repeat.default, aten.diagonal.default,
    aten.index_add.default, aten.scatter_add.default, aten.fill.Scalar, aten.fill.Tensor, aten.zero.default,
}  # fmt: skip


def affine(move: Move) -> list[Edge]:
    """Any affine operation, differentiated by torch."""
    move.require_same()
    return list(by_torch(move, Affine))


def by_torch(move: Move, jacobian: Callable[[Callable[[Tensor], Tensor], Tensor], LinearMap]) -> Iterator[Edge]:
    """Edges from every argument that depends on the input to every output, each a function of its argument alone."""
    operation = move.after
    for output, target in enumerate(operation.targets):
        for position, source in enumerate(operation.sources):
            if target is None or source is None:
                continue

            def function(z: Tensor, position: int = position, output: int = output) -> Tensor:
                leaves = list(operation.arguments)
                leaves[position] = z
                arguments, keywords = operation.nested(leaves)
                result = operation.function(*arguments, **keywords)
                outputs = result if isinstance(result, (tuple, list)) else [result]
                return outputs[output]

            yield Edge(source, target, jacobian(function, operation.arguments[position]))
