"""Token embeddings as contributions: the similarity maps ITSM-O and ITSM-H of Li et al. (2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.outcome import Outcome
from secondsight.encoders.base import ATTENTION_POOL, EVERY_TOKEN, check_finite
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.model import Side

_BATCH_FLOATS = 2**24
"""Numbers in the sequences that go through the projection at once."""


@dataclass(frozen=True, eq=False)
class TokenEmbeddings(Method):
    """Contributions U_i = every position's own embedding: the last hidden states through final norm and projection.

    `hidden=False` takes the output of the last block (ITSM-O), `hidden=True` its input (ITSM-H; [M25] §4.2). A position's
    embedding is what the model would make of an input whose positions were all alike, so that means, class tokens and
    attention pools all pool it to itself; a last block that changes the hidden states' width is part of that. `unit`
    normalises each, which makes attributions of pairs cosines. Nothing is
    integrated and nothing adds up; the references are zero.
    """

    hidden: bool = False
    unit: bool = False

    name: ClassVar[str] = "token-embeddings"
    adds_up: ClassVar[bool] = False

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input; one forward pass each."""
        with untouched(side.encoder.module):
            return [self._embed_positions(side, prepared) for prepared in inputs]

    def _embed_positions(self, side: Side, prepared: Prepared) -> Contributions:
        encoder = side.encoder
        if encoder.pool == EVERY_TOKEN:
            raise InputError(
                "a late-interaction model compares token embeddings itself: use layer='output' with the usual method, or "
                "model.similarity_map(query, document)"
            )
        # The last hidden states, and the layer whose head pools and projects them.
        head_layer = encoder.depth - 1 if encoder.pool == ATTENTION_POOL else encoder.depth
        output = encoder.features(prepared.tensor, head_layer)[0]
        check_finite(encoder, output.embedding, prepared.tensor)
        states, layer, context_states = output, encoder.depth - 1, output
        if self.hidden:
            layer = max(head_layer - 1, 0)
            states = encoder.features(prepared.tensor, layer)[0]
            if states.hidden.shape != output.hidden.shape:
                # A block that changes the width, as stages of convolutions do, belongs to the projection.
                context_states, head_layer = states, layer
        head, positions = encoder.head(head_layer, context_states.context, encoder.dtype()), len(context_states.hidden)
        batch = max(1, _BATCH_FLOATS // context_states.hidden.numel())
        alike = [part[:, None].expand(-1, positions, -1) for part in states.hidden.split(batch)]
        vectors = torch.cat([head(part) for part in alike])
        check_finite(encoder, vectors, None)
        vectors = F.normalize(vectors, dim=-1) if self.unit else vectors
        embedding = output.embedding
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
