"""Token embeddings as contributions: the similarity maps ITSM-O and ITSM-H of Li et al. (2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F

from secondsight.algebra.contributions import Contributions
from secondsight.encoders.base import ATTENTION_POOL, States, check_finite
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.model import Side

_TOGETHER = 2**24
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

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input; one forward pass each."""
        with untouched(side.encoder.module):
            return [self._one(side, prepared) for prepared in inputs]

    def _one(self, side: Side, prepared: Prepared) -> Contributions:
        encoder = side.encoder
        out, layer = self._output(side, prepared)
        shown, at, reader = out, encoder.depth - 1, out
        if self.hidden:
            at = max(layer - 1, 0)
            shown = encoder.features(prepared.tensor, at)[0]
            if shown.hidden.shape != out.hidden.shape:
                # A block that changes the width, as stages of convolutions do, belongs to the projection.
                reader, layer = shown, at
        check_finite(side.encoder, out.embedding, prepared.tensor)
        head, positions = encoder.head(layer, reader.context, encoder.dtype()), len(reader.hidden)
        together = max(1, _TOGETHER // reader.hidden.numel())
        alike = [part[:, None].expand(-1, positions, -1) for part in shown.hidden.split(together)]
        vectors = torch.cat([head(part) for part in alike])
        check_finite(side.encoder, vectors, None)
        vectors = F.normalize(vectors, dim=-1) if self.unit else vectors
        scale = 1 / float(out.embedding.double().norm()) if side.cosine and not self.unit else 1.0
        about = {"layer": "hidden" if self.hidden else "output", "encodings": 1}
        layout = encoder.layout(prepared, at, shown)
        return Contributions(vectors, out.embedding, torch.zeros_like(out.embedding), layout, scale, about)

    @staticmethod
    def _output(side: Side, prepared: Prepared) -> tuple[States, int]:
        """The last hidden states, and the layer whose head pools and projects them."""
        encoder = side.encoder
        last = encoder.depth - 1
        if encoder.pool == ATTENTION_POOL:
            return encoder.features(prepared.tensor, last)[0], last
        return encoder.features(prepared.tensor, encoder.depth)[0], encoder.depth
