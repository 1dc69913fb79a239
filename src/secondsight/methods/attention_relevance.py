"""Generic attention relevance of Chefer, Gur and Wolf (2021), for a tower of self-attention at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secondsight.methods.attention_maps import AttentionMethod, AttentiveInput, gradients
from secondsight.support.errors import InputError


@dataclass(frozen=True, eq=False)
class AttentionRelevance(AttentionMethod):
    """Attention relevance (Chefer, Gur and Wolf 2021, "GAME"): attention weighted by its gradient, block after block.

    Ā_l = mean_h (∇A_l ⊙ A_l)⁺ (Eq. 5), R starts as the identity and R ← R + Ā_l R (Eq. 6); the map is the pooled row of
    R − I, so that the pooled position does not count itself, or the mean of all rows where the embedding is a mean of
    positions. An attention pool gives Ā R. `start` is the first block that counts, from the front or the end: −1 is what the
    authors' code does for CLIP. The gradient is that of `scale` times the similarity: the larger the scale, the more
    products of several blocks count; 100 makes it CLIP's logit, as in the authors' code.
    """

    start: int = 0
    scale: float = 1.0

    name: ClassVar[str] = "attention-relevance"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scale > 0:
            raise InputError(f"scale={self.scale!r} must be positive")

    def map_of(self, encoded: AttentiveInput, partner: Tensor) -> Tensor:
        """The mean of the pooled rows of R − I."""
        logit = self.scale * encoded.similarity(partner)
        slopes = gradients(logit, [attention.probabilities for attention in encoded.attentions])
        matrices = []
        for attention, slope in zip(encoded.attentions, slopes, strict=True):
            weighted = (attention.probabilities.detach() * slope).clamp(min=0)
            matrix = encoded.cut(weighted, attention).double().mean(0)
            # R + Ā R is (I + Ā) R; an attention pool adds nothing to what it reads.
            matrices.append(matrix + torch.eye(len(matrix)).to(matrix) if attention.square else matrix)
        relevance = encoded.through_blocks(matrices, self.start)
        if encoded.attentions[-1].square:
            relevance[range(len(relevance)), encoded.pooled_rows] -= 1
        return relevance.mean(0)
