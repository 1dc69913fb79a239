"""Token embeddings as contributions: the similarity maps ITSM-O and ITSM-H of Li et al. (2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import Layout
from secondsight.algebra.outcome import Outcome
from secondsight.encoders.base import ATTENTION_POOL, EVERY_TOKEN, Encoder, States, check_finite
from secondsight.encoders.late_interaction import LateInteractionEncoder
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.model import Side

_BATCH_FLOATS = 2**24
"""Numbers in the sequences that go through the projection at once."""


@dataclass(frozen=True, eq=False)
class _Tokens:
    """One input's vectors that are compared as they are, its embedding and what each position is."""

    vectors: Float[Tensor, "position width"]
    embedding: Float[Tensor, " joint"]
    layout: Layout


@dataclass(frozen=True, eq=False)
class TokenEmbeddings(Method):
    """Contributions U_i = every position's own embedding: the last hidden states through final norm and projection.

    `hidden=False` takes the output of the last block (ITSM-O), `hidden=True` its input (ITSM-H; [M25] §4.2). A position's
    embedding is what the model would make of an input whose positions were all alike, so that means, class tokens and
    attention pools all pool it to itself; a last block that changes the hidden states' width is part of that. `unit`
    normalises each, which makes attributions of pairs cosines. `raw` takes the output of the last block itself, as
    sentence-transformers' `output_value="token_embeddings"` does, and is of pairs whose sides have one width. Of
    late-interaction models the vectors are those that the host compares, so that the matrix is `model.similarity_map`'s.
    Nothing is integrated and nothing adds up; the references are zero.
    """

    hidden: bool = False
    unit: bool = False
    raw: bool = False

    name: ClassVar[str] = "token-embeddings"
    adds_up: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden and self.raw:
            raise InputError("raw=True is the last block's output and hidden=True its input: leave out either")

    @property
    def factorises(self) -> bool:
        """Raw hidden states lie in no joint space, so that they are compared pair by pair."""
        return not self.raw

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input; one forward pass each. `InputError` for late interaction, and for `raw`."""
        with untouched(side.encoder.module):
            return [self._embed_positions(side, prepared) for prepared in inputs]

    def _embed_positions(self, side: Side, prepared: Prepared) -> Contributions:
        encoder = side.encoder
        if encoder.pool == EVERY_TOKEN:
            raise InputError(
                "a late-interaction model's token embeddings are compared pair by pair: use ss.explain or "
                "model.similarity_map(query, document)"
            )
        if self.raw:
            raise InputError("raw=True compares the hidden states of pairs: use ss.explain, or leave it out")
        # The last hidden states, and the layer whose head pools and projects them.
        head_layer = _head_layer(encoder)
        output = encoder.features(prepared.tensor, head_layer)[0]
        check_finite(encoder, output.embedding, prepared.tensor)
        states, layer, context_states = output, encoder.depth - 1, output
        if self.hidden:
            layer = max(head_layer - 1, 0)
            states = encoder.features(prepared.tensor, layer)[0]
            if states.hidden.shape != output.hidden.shape:
                # A block that changes the width, as stages of convolutions do, belongs to the projection.
                context_states, head_layer = states, layer
        vectors = embed_alone(encoder, head_layer, context_states, states.hidden)
        check_finite(encoder, vectors, None)
        embedding = output.embedding
        if self.unit:
            vectors = F.normalize(vectors, dim=-1)
            embedding = F.normalize(embedding, dim=-1) if side.cosine else embedding
        residual = float((embedding.double() - vectors.double().sum(0)).norm()) / float(embedding.double().norm())
        label = "hidden" if self.hidden else "output"
        return Contributions(
            vectors,
            embedding,
            torch.zeros_like(embedding),
            encoder.layout(prepared, layer, states),
            1 / float(embedding.double().norm()) if side.cosine and not self.unit else 1.0,
            {"layer": label, "encodings": 1},
            outcome=Outcome(self.name, label, "zero", residual, cost=1),
        )

    def interactions(self, left: Side, right: Side, a: Prepared, partners: Sequence[Prepared]) -> list[Interactions]:
        """Interactions of one left input with each of several right ones."""
        if not self.raw and left.encoder.pool != EVERY_TOKEN:
            return super().interactions(left, right, a, partners)
        anchor = self._tokens(left, a)
        return [self._compared(anchor, self._tokens(right, b)) for b in partners]

    def _tokens(self, side: Side, prepared: Prepared) -> _Tokens:
        """Vectors that need no projection: those that a late-interaction model compares, or the last hidden states."""
        encoder = side.encoder
        with untouched(encoder.module):
            if isinstance(encoder, LateInteractionEncoder):
                if self.hidden or self.raw:
                    raise InputError("a late-interaction model compares its outputs: leave out hidden= and raw=")
                output: Encoder = encoder.output_encoder()
                layer = 0
            else:
                output, layer = encoder, _head_layer(encoder)
            state = output.features(prepared.tensor, layer)[0]
            check_finite(encoder, state.hidden, prepared.tensor)
            layout = output.layout(prepared, min(layer, output.depth - 1), state)
        vectors = F.normalize(state.hidden, dim=-1) if self.unit else state.hidden
        embedding = F.normalize(state.embedding, dim=-1) if side.cosine else state.embedding
        return _Tokens(vectors.cpu(), embedding.cpu(), layout)

    def _compared(self, a: _Tokens, b: _Tokens) -> Interactions:
        widths = a.vectors.shape[1], b.vectors.shape[1]
        if widths[0] != widths[1]:
            raise InputError(
                f"raw=True compares hidden states of one width, and these have {widths[0]} and {widths[1]}: leave it out"
            )
        matrix = a.vectors @ b.vectors.T
        outcome = Outcome(self.name, "output", "zero", residual=1.0, cost=1)
        return Interactions(
            attributions=matrix,
            left_effects=matrix.new_zeros(a.layout.size),
            right_effects=matrix.new_zeros(b.layout.size),
            base=0.0,
            similarity=float(a.embedding.double() @ b.embedding.double()),
            left_layout=a.layout,
            right_layout=b.layout,
            about={side: {"layer": "output", "encodings": 1} for side in ("left", "right")},
            outcomes=(outcome, outcome),
        )


def _head_layer(encoder: Encoder) -> int:
    """The layer whose states are the last ones before anything is pooled."""
    return encoder.depth - 1 if encoder.pool == ATTENTION_POOL else encoder.depth


def embed_alone(
    encoder: Encoder, layer: int, state: States, rows: Float[Tensor, "position width"]
) -> Float[Tensor, "position joint"]:
    """Every row's embedding if all positions of an input were like it from `layer` on; `state` is an input's there."""
    head, positions = encoder.head(layer, state.context, encoder.dtype()), len(state.hidden)
    batch = max(1, _BATCH_FLOATS // state.hidden.numel())
    return torch.cat([head(part[:, None].expand(-1, positions, -1)) for part in rows.split(batch)])
