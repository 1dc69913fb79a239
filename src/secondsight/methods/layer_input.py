"""One input where a layer sees it, beside its reference; and the base of methods that look there."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.factors import Factor
from secondsight.algebra.layout import Layout
from secondsight.algebra.outcome import Outcome
from secondsight.encoders.base import Encoder, Head, Reference, States, check_finite
from secondsight.encoders.input_layer import at_layer
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Layer, Method, Sides, for_side, reference_label
from secondsight.paths.pooled import PooledBlock
from secondsight.support.errors import InputError
from secondsight.support.guard import differentiable, untouched

if TYPE_CHECKING:
    from secondsight.model import Side

_BATCH = 16
"""Inputs that go through the host model together."""


@dataclass(frozen=True, eq=False)
class LayerInput:
    """One input at one layer: its hidden states, its embedding, those of its reference, and the way from one to the other.

    `unit` says that embeddings are taken as unit vectors, which is how a cosine is decomposed inside its normalisation.
    Everything about the reference is computed when it is first asked for.
    """

    side: Side
    encoder: Encoder
    layer: int
    prepared: Prepared
    states: States
    reference_choice: str | Tensor | None
    seed: int
    unit: bool

    @cached_property
    def hidden(self) -> Float[Tensor, "position width"]:
        """Hidden states that enter the layer."""
        return self.states.hidden

    @cached_property
    def embedding(self) -> Float[Tensor, " joint"]:
        """The embedding that the host model itself gives."""
        return self._normalized(self.states.embedding)

    @cached_property
    def head(self) -> Head:
        """The function (node, position, width) → (node, joint) from the layer on."""
        head = self.encoder.head(self.layer, self.states.context, self.hidden.dtype)
        return (lambda x: F.normalize(head(x), dim=-1)) if self.unit else head

    @cached_property
    def reference_states(self) -> Reference:
        """The reference at this layer, shared by all inputs that have the same one."""
        tensor = self.encoder.reference(self.prepared, self.reference_choice, self.seed)
        reference = self.encoder.reference_at(tensor, self.layer, self.states.context)
        check_finite(self.encoder, reference.hidden, tensor)
        return reference

    @cached_property
    def reference(self) -> Float[Tensor, "position width"]:
        """The reference's hidden states."""
        return self.reference_states.hidden

    @cached_property
    def reference_embedding(self) -> Float[Tensor, " joint"]:
        """The reference's embedding, pooled where the input is pooled."""
        return self.head(self.reference[None])[0]

    @cached_property
    def pooled_block(self) -> PooledBlock | None:
        """The closed form's description of what follows; None where there is none at this layer."""
        reference = self.reference_states
        if reference.block == "unknown":
            reference.block = self.encoder.closed_form(self.layer, self.states.context, self.hidden.dtype)
        return reference.block

    @cached_property
    def layout(self) -> Layout:
        """What each position is."""
        return self.encoder.layout(self.prepared, self.layer, self.states)

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) of a feature map, None for other hidden states."""
        shape = self.states.context.shape
        return (shape[1], shape[2]) if len(shape) == 3 else None

    @cached_property
    def layer_label(self) -> int | str:
        """The layer as users name it."""
        return self.encoder.label(self.layer)

    @cached_property
    def reference_label(self) -> str:
        """The reference as users name it, "tensor" for their own."""
        return reference_label(self.encoder.references, self.reference_choice)

    def contributions(
        self,
        factor: Factor | Tensor,
        embedding: Tensor,
        reference_embedding: Tensor,
        outcome: Outcome,
        about: Mapping[str, Any],
    ) -> Contributions:
        """Vectors of the positions as this side's contributions, scaled so that products are similarities."""
        scale = 1.0
        if self.side.cosine and not self.unit:
            size = float(embedding.double().norm())
            if not size:
                raise InputError(
                    f"the {self.side.kind} encoder gave an embedding of zeros, which has no cosine: check the input"
                )
            scale = 1 / size
        pairing = self.encoder.pairing(self.states.context)
        return Contributions(
            factor,
            embedding,
            reference_embedding,
            self.layout,
            scale,
            about,
            outcome=outcome,
            # Token vectors meet those of any partner; other vectors of such a model belong to one pair.
            space=self.side.space if pairing is None else None,
            pairing=pairing,
        )

    def _normalized(self, embedding: Tensor) -> Tensor:
        return F.normalize(embedding, dim=-1) if self.unit else embedding


class LayerMethod(Method):
    """A method that gives every position of a layer its vector: a subclass defines `vectors` and its options.

    Options that the base understands, each for both sides or a (left, right) pair: `layer` (default −1), `reference`
    (default: the kind's usual one), and for both sides together `normalize` ("outside" or "inside") and `seed`.
    """

    layer: Sides[Layer] = -1
    reference: Sides[str | Tensor | None] = None
    normalize: str = "outside"
    seed: int = 0
    from_zero: ClassVar[bool] = False
    """Whether vectors are to add up to the embedding itself and not to its difference from the reference's."""

    @abstractmethod
    def vectors(self, x: LayerInput) -> Float[Tensor, "position joint"]:
        """The contribution vectors of one input's positions."""

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input; the host model runs in batches, and leaves as it came."""
        with untouched(side.encoder.module):
            return [self.contribute(x) for x in self.layer_inputs(side, inputs)]

    def contribute(self, x: LayerInput) -> Contributions:
        """Contributions of one input."""
        with differentiable():
            vectors = self.vectors(x)
            embedding = x.embedding
            start = torch.zeros_like(embedding) if self.from_zero else x.reference_embedding
        check_finite(x.encoder, vectors, None)
        difference = (embedding - start).double()
        missed = float((difference - vectors.double().sum(0)).norm()) / (float(difference.norm()) or 1.0)
        reference = "zero" if self.from_zero else x.reference_label
        outcome = Outcome(self.name, x.layer_label, reference, missed, cost=self.cost(x))
        return x.contributions(vectors, embedding, start, outcome, {"layer": x.layer_label, "passes": outcome.cost})

    def cost(self, x: LayerInput) -> int:
        """Passes through the layers above that `vectors` takes."""
        return 1

    def layer_inputs(self, side: Side, inputs: Sequence[Prepared]) -> Iterator[LayerInput]:
        """The inputs where the method's layer sees them."""
        layer, reference = for_side(side, self.layer, self.reference)
        encoder, number = at_layer(side.encoder, layer)
        unit = self.normalize == "inside" and side.cosine
        for batch in _same_shapes(inputs):
            states = encoder.features(torch.cat([p.tensor for p in batch]), number)
            for prepared, state in zip(batch, states, strict=True):
                check_finite(encoder, state.embedding, prepared.tensor)
                yield LayerInput(side, encoder, number, prepared, state, reference, self.seed, unit)


def _same_shapes(inputs: Sequence[Prepared]) -> Iterator[list[Prepared]]:
    """Neighbouring inputs of one shape and type, at most `_BATCH` together, in order."""
    batch: list[Prepared] = []
    for prepared in inputs:
        tensor = prepared.tensor
        if batch and (
            len(batch) == _BATCH or (batch[0].tensor.shape, batch[0].tensor.dtype) != (tensor.shape, tensor.dtype)
        ):
            yield batch
            batch = []
        batch.append(prepared)
    if batch:
        yield batch
