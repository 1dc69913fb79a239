"""Grad-ECLIP: values of the last attention, weighted by the similarity's gradient and by keys like the pooled query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from secondsight.methods.attention_maps import AttentionMethod, AttentiveInput, gradients
from secondsight.methods.base import one_of
from secondsight.paths.recorded_attention import Attention
from secondsight.support.errors import InputError

SPATIAL = ("cosine", "softmax", "none")


@dataclass(frozen=True, eq=False)
class GradEclip(AttentionMethod):
    """Grad-ECLIP (Zhao et al. 2024): gradient × value at every position, weighted by how alike query and key are.

    H_i = ReLU(Σ_c w_c λ_i v_ic). The channel weights w are the gradient of the similarity with respect to what the
    pooled position takes out of the last attention, all heads beside each other and before its output projection; v_i are
    the values. The spatial weight λ_i loosens the softmax: the cosine of the pooled query and key i, shifted and scaled to
    0 … 1 over the patches of an image, or over all tokens of a text. `spatial` "softmax" takes the attention itself
    instead, "none" a constant 1. `layers` is the number of last blocks whose terms are summed before the ReLU, 1 as in the
    paper for images. Where the embedding is a mean of positions, the terms of all their queries are summed.
    """

    layers: int = 1
    spatial: str = "cosine"

    name: ClassVar[str] = "grad-eclip"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("spatial", self.spatial, SPATIAL)
        if self.layers < 1:
            raise InputError(f"layers={self.layers!r} must be at least 1")

    @property
    def last_blocks(self) -> int:
        """See `layers`."""
        return self.layers

    def map_of(self, encoded: AttentiveInput, partner: Tensor) -> Tensor:
        """The terms of the last blocks, summed and cut off at zero."""
        return self.terms(encoded, partner).clamp(min=0)

    def terms(self, encoded: AttentiveInput, partner: Tensor) -> Tensor:
        """Σ_c w_c λ_i v_ic (feature,) before the ReLU."""
        attentions = self._last(encoded)
        outputs = [attention.output for attention in attentions]
        total = torch.zeros(encoded.layout.size, dtype=torch.float64, device=encoded.embedding.device)
        weights = gradients(encoded.similarity(partner), outputs)
        for attention, gradient in zip(attentions, weights, strict=True):
            rows = encoded.rows_of(attention)
            # (head, row, key): what every head's values give to the similarity's first-order change.
            products = _heads(gradient)[:, rows] @ _heads(attention.value)[:, : encoded.layout.size].mT
            if self.spatial == "softmax":
                products = products * encoded.probabilities(attention).detach().double()[:, rows]
            summed = products.sum(0)
            total += (summed * self._loosened(encoded, attention)[rows] if self.spatial == "cosine" else summed).sum(0)
        return total

    def _last(self, encoded: AttentiveInput) -> list[Attention]:
        attentions = list(encoded.attentions[-self.layers :])
        if len(attentions) < self.layers:
            raise InputError(
                f"layers={self.layers!r} is more than the {len(attentions)} blocks of this encoder: ask for fewer"
            )
        return attentions

    def _loosened(self, encoded: AttentiveInput, attention: Attention) -> Tensor:
        """λ (query, key): cosines of queries and keys, each query's from 0 to 1."""
        if attention.query is None or attention.key is None:
            raise InputError("this model's queries and keys are out of sight: use spatial='softmax'")
        query, key = (F.normalize(_wide(x), dim=-1) for x in (attention.query, attention.key))
        cosines, layout = query @ key[: encoded.layout.size].T, encoded.layout
        compared = cosines if encoded.side.kind == "text" else cosines[:, layout.visible]
        lowest, highest = compared.amin(1, keepdim=True), compared.amax(1, keepdim=True)
        # A single position is as near as any.
        return torch.where(highest > lowest, (cosines - lowest) / (highest - lowest), 1.0)


def _heads(x: Tensor) -> Tensor:
    """(head, position, width) in double precision, without the batch."""
    return x.detach().double().reshape(x.shape[-3:])


def _wide(x: Tensor) -> Tensor:
    """(position, head · width): the heads beside each other."""
    return _heads(x).transpose(0, 1).flatten(1)
