"""What methods that read attention share: an input after its forward pass, with the attention of every block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import EVERY_TOKEN, Context, check_finite
from secondsight.inputs.prepared import Prepared
from secondsight.methods.first_order import EncodedInput, FirstOrder
from secondsight.paths.recorded_attention import Attention, AttentionRecorder
from secondsight.support.errors import InputError
from secondsight.support.guard import differentiable

if TYPE_CHECKING:
    from secondsight.model import Side

_REMEDY = "use a method for any encoder, such as method='grounded'"


@dataclass(frozen=True, eq=False)
class AttentiveInput(EncodedInput):
    """One input with what its attention was while the host encoded it.

    `attentions` are those of the blocks and of an attention pool, from the front, over the positions of `layout`. `outputs`
    (position, width) is what leaves every block, where a method asks for it.
    """

    attentions: Sequence[Attention]
    context: Context
    outputs: Sequence[Tensor] = ()

    @cached_property
    def pooled_rows(self) -> list[int]:
        """The rows of the last attention that the embedding is read from: the class or end token, all where it is a mean."""
        gradient = gradients(self.embedding.double().sum(), [self.attentions[-1].output])[0]
        rows = list(range(gradient.shape[-2]))
        if self.attentions[-1].square:
            rows = rows[: self.layout.size]
        return [row for row in rows if bool(gradient[..., row, :].any())]

    def rows_of(self, attention: Attention) -> list[int]:
        """The pooled rows of an attention; all rows of the blocks before an attention pool."""
        if attention.square and not self.attentions[-1].square:
            return list(range(self.layout.size))
        return self.pooled_rows

    def probabilities(self, attention: Attention) -> Tensor:
        """An attention's probabilities (head, query, key) over the layout's positions."""
        return self.cut(attention.probabilities, attention)

    def through_blocks(self, matrices: Sequence[Tensor], start: int) -> Tensor:
        """The pooled rows of a product of matrices (query, key), one for each attention from the block `start` on: (row, key).

        Those of an attention pool are its matrix times the product of the blocks'.
        """
        size, number = self.layout.size, resolved_start(start, len(matrices))
        product = torch.eye(size, dtype=matrices[0].dtype, device=matrices[0].device)
        for matrix, attention in zip(matrices[number:], self.attentions[number:], strict=True):
            product = (matrix if attention.square else matrix[self.pooled_rows]) @ product
        return product[self.pooled_rows] if self.attentions[-1].square else product

    def cut(self, values: Tensor, attention: Attention) -> Tensor:
        """Values of queries and keys (head, query, key), without those behind the layout's last position."""
        values, size = values.reshape(values.shape[-3:]), self.layout.size
        return values[:, :size, :size] if attention.square else values[..., :size]


class AttentionMethod(FirstOrder[AttentiveInput]):
    """A first-order method that reads attention; a subclass says how attention becomes a map.

    `reads_outputs` says that it needs what leaves the blocks too.
    """

    reads_outputs: ClassVar[bool] = False

    @property
    def last_blocks(self) -> int | None:
        """How many blocks' attention it reads, from the end; None for that of all."""
        return None

    def encode(self, side: Side, prepared: Prepared) -> AttentiveInput:
        """The host's forward pass with its attention recorded; `InputError` for encoders that have none to read."""
        encoder = side.encoder
        if encoder.pool == EVERY_TOKEN:
            raise InputError(
                f"a late-interaction model has no embedding whose attention {self.name!r} could read: use "
                "method='last-layer', or model.similarity_map(query, document)"
            )
        if any(weight.is_inference() for weight in encoder.module.parameters()):
            raise InputError(
                "the model's weights were made in torch.inference_mode(), and have no gradients: load it outside"
            )
        # Neither can a gradient pass tensors that were made there.
        tensor = prepared.tensor.clone() if prepared.tensor.is_inference() else prepared.tensor
        outputs: list[Tensor] = []
        with differentiable(), AttentionRecorder() as recorder:
            if self.reads_outputs:
                states, outputs = encoder.features_of_blocks(tensor)
            else:
                states = encoder.features(tensor, encoder.depth - 1)[0]
        check_finite(encoder, states.embedding.detach(), prepared.tensor)
        layout = encoder.layout(prepared, encoder.depth - 1, states)
        attentions = recorder.attentions
        if self.last_blocks is None and 0 < len(attentions) < encoder.depth:
            raise InputError(
                f"of the {encoder.depth} blocks of this {encoder.kind} encoder only {len(attentions)} show their "
                f"attention, and {self.name!r} needs that of all: {_REMEDY}, or 'grad-eclip'"
            )
        _check(side, layout, attentions[-(self.last_blocks or len(attentions)) :])
        return AttentiveInput(side, layout, states.embedding, attentions, states.context, outputs)


def resolved_start(start: int, count: int) -> int:
    """A block by its number, from the front or from the end; `InputError` for one that is not there."""
    if not -count <= start < count:
        raise InputError(f"start={start!r} is not one of the {count} blocks: use −{count} … {count - 1}")
    return start % count


def gradients(value: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a number, zero where it does not depend on a tensor; the graph stays, and no weight's `grad` changes.

    Raises `InputError` for a model that overwrites what its gradient needs.
    """
    try:
        parts = torch.autograd.grad(value, list(of), retain_graph=True, allow_unused=True, materialize_grads=True)
    except RuntimeError as problem:
        if "inplace operation" not in str(problem):
            raise
        raise InputError(f"the model overwrites numbers that its gradient needs: {_REMEDY}") from problem
    return list(parts)


def _check(side: Side, layout: Layout, attentions: Sequence[Attention]) -> None:
    """`InputError` unless all attentions are over the positions of the layout, and behind these nothing is seen."""
    kind = side.encoder.kind
    if not attentions:
        raise InputError(f"this {kind} encoder has no attention to read: {_REMEDY}")
    for attention in attentions:
        shape, size = attention.probabilities.shape, layout.size
        whole = shape[-1] == size or (attention.square and shape[-1] > size)
        if (len(shape) == 4 and shape[0] != 1) or not whole:
            raise InputError(
                f"the attention {tuple(shape)} of this {kind} encoder is not over its {size} positions, but over windows, "
                f"groups or other inputs: {_REMEDY}"
            )
        if bool(attention.probabilities.detach()[..., :size, size:].any()):
            raise InputError(f"this {kind} encoder reads positions that have no feature: {_REMEDY}")
