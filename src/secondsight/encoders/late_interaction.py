"""Late interaction (ColBERT, ColPali): a vector for every token, compared by the sum of every query token's best match.

With the assignment of document tokens to query tokens held, MaxSim = Σ_q Q_q·D_{d(q)} is one inner product of two vectors,
so that everything which holds for a similarity of two embeddings holds for it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from secondsight.algebra.assignment import TokenPairing
from secondsight.algebra.layout import Layout
from secondsight.encoders.base import (
    EVERY_TOKEN,
    Context,
    Encoder,
    Head,
    Reference,
    States,
    check_finite,
    sharing_weights,
)
from secondsight.encoders.host import HostEncoder, shape_or_class
from secondsight.inputs.prepared import Prepared
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import untouched

ZERO = "zero"
"""The reference at the layer "output"."""


class HostVectors(NamedTuple):
    """The host's own vectors of all positions of an input, the positions that it compares, and what each position is."""

    vectors: Float[Tensor, "token width"]
    compared: Int[Tensor, " compared"]
    layout: Layout


class LateInteractionEncoder(HostEncoder):
    """One side of a late-interaction model: say which vectors the host compares, and which tokens it leaves out.

    `role` is "query" or "document", `mean` says that the model takes the mean of best matches. The embedding is the vectors
    at the positions `choice` one after another, times `weight`; without a choice those of all positions, zero for tokens
    that are left out.
    """

    role: str
    pool = EVERY_TOKEN
    choice: Tensor | None = None
    weight: float = 1.0
    mean: bool = False

    @abstractmethod
    def token_vectors(self, module: Any, tensors: Tensor) -> Float[Tensor, "batch token width"]:
        """The vectors of all positions as the host compares them: projected and normalised where the host does so."""

    def compared(self, tensors: Tensor) -> Bool[Tensor, "batch token"] | None:
        """Which positions the host compares; None for all of them."""
        return None

    def output_layout(self, prepared: Prepared, states: States) -> Layout:
        """What each token vector is; by default what the last block's positions are."""
        return self.layout(prepared, self.depth - 1, states)

    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """The vectors that the similarity multiplies, flattened: (batch, joint)."""
        vectors = self.token_vectors(module, tensors)
        return self.chosen(self.zeroed(vectors, tensors) if self.choice is None else vectors)

    def zeroed(
        self, vectors: Float[Tensor, "batch token width"], tensors: Tensor
    ) -> Float[Tensor, "batch token width"]:
        """The vectors of some inputs, with zeros for tokens that the host leaves out."""
        compared = self.compared(tensors)
        return vectors if compared is None else vectors * compared[..., None].to(vectors.dtype)

    def chosen(self, vectors: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch joint"]:
        """The vectors at the chosen positions, times the weight, one after another."""
        if self.choice is not None:
            vectors = vectors[:, self.choice.to(vectors.device)]
        return (vectors if self.weight == 1 else vectors * self.weight).flatten(1)

    def choosing(self, choice: Tensor, weight: float = 1.0) -> LateInteractionEncoder:
        """The same encoder with the vectors at these positions as its embedding."""
        encoder = sharing_weights(self)
        encoder.choice, encoder.weight = choice, weight
        return encoder

    def output_encoder(self) -> OutputEncoder:
        """A new encoder that sees this one from its token vectors: the layer "output"."""
        return OutputEncoder(self)

    def compared_positions(self, context: Context) -> Int[Tensor, " compared"]:
        """The positions of an input that the host compares."""
        compared = self.compared(context.tensor)
        return torch.arange(context.shape[0]) if compared is None else compared[0].nonzero()[:, 0].cpu()

    def host_vectors(self, prepared: Prepared) -> HostVectors:
        """What the host makes of an input; `InputError` where it compares none of it, or where numbers are not finite."""
        output = self.output_encoder()
        with untouched(self.module):
            states = output.features(prepared.tensor, 0)[0]
            compared, layout = self.compared_positions(states.context), output.layout(prepared, 0, states)
        check_finite(self, states.hidden, prepared.tensor)
        if not len(compared):
            raise InputError(f"the model compares no token of this {self.role}: give more words")
        return HostVectors(states.hidden.cpu(), compared, layout)


class OutputEncoder(Encoder):
    """A late-interaction encoder seen from its token vectors, which are its only layer; the reference is zero.

    Choosing vectors is linear, so contributions cost nothing and are exact: every token's vector itself.
    """

    depth = 1
    references = (ZERO,)
    pool = EVERY_TOKEN

    def __init__(self, encoder: LateInteractionEncoder) -> None:
        super().__init__()
        self.encoder, self.kind = encoder, encoder.kind
        self.module: nn.Module = encoder.module

    def label(self, layer: int) -> str:
        """The name of the only layer."""
        return "output"

    def pairing(self, context: Context) -> TokenPairing | None:
        """Outside of a pair, where no vectors are chosen yet: how to choose them."""
        encoder = self.encoder
        if encoder.choice is not None:
            return None
        return TokenPairing(encoder.role, tuple(encoder.compared_positions(context).tolist()), encoder.mean)

    def _joined(self, vectors: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch joint"]:
        """The chosen vectors one after another, or, outside of a pair, the sum of all."""
        return vectors.sum(1) if self.encoder.choice is None else self.encoder.chosen(vectors)

    def in_precision(self, dtype: torch.dtype, module: nn.Module | None = None) -> Any:
        """The copy of the encoder itself, which is shared."""
        return self.encoder.in_precision(dtype, module)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """As the encoder itself."""
        return self.encoder.prepare(raw, truncate=truncate)

    def reference(self, prepared: Prepared, choice: str | Tensor | None, seed: int) -> Tensor:
        """The input itself, whose vectors `reference_features` sets to zero; `InputError` for any other reference."""
        if choice not in (None, ZERO):
            raise InputError("at layer 'output' the reference is zero: leave out reference=, or choose another layer")
        return prepared.tensor

    def reference_key(self, context: Context) -> Hashable:
        """Zeros depend on nothing but the shape."""
        return context.shape

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """The host's token vectors, zero for tokens that it leaves out."""
        encoder, tensors = self.encoder, self.to_model(tensors)
        vectors = _checked(encoder.token_vectors(encoder.module, tensors), len(tensors))
        vectors = encoder.zeroed(vectors, tensors).to(self.dtype())
        return [
            States(row.clone(), embedding, Context(tensor[None], tuple(row.shape)))
            for row, embedding, tensor in zip(vectors, self._joined(vectors), tensors, strict=True)
        ]

    def reference_features(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """Vectors of zero."""
        zeros = torch.zeros(context.shape, dtype=self.dtype(), device=self.device())
        return Reference(zeros, self._joined(zeros[None])[0])

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The choice of vectors, or their sum."""
        return self._joined

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Every token."""
        return self.encoder.output_layout(prepared, states)


def _checked(vectors: object, batch: int) -> Tensor:
    """The token vectors; `AdapterError` for anything but a row of vectors per input."""
    if not isinstance(vectors, Tensor) or vectors.ndim != 3 or len(vectors) != batch:
        raise AdapterError(
            f"the model gave {shape_or_class(vectors)} for {batch} inputs: token vectors (batch, token, width) are needed"
        )
    return vectors
