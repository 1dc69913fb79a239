"""Attention rollout: how attention carries positions from block to block, whatever the partner is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secondsight.methods.attention_maps import AttentionMethod, AttentiveInput


@dataclass(frozen=True, eq=False)
class AttentionRollout(AttentionMethod):
    """Attention rollout (Abnar and Zuidema 2020): the product of the blocks' attention, half of each the residual stream.

    Â_l = ½ mean_h A_l + ½ I with rows that sum to 1, and the map is the pooled row of Â_L … Â_start; where the embedding
    is a mean of positions, the mean of the rows. An attention pool, which has no residual stream, multiplies with its own
    attention. The map is the same for every partner. `start` is the first block that counts, from the front or the end.
    """

    start: int = 0

    name: ClassVar[str] = "attention-rollout"
    passes: ClassVar[int] = 1

    def map_of(self, encoded: AttentiveInput, partner: Tensor) -> Tensor:
        """The mean of the pooled rows of the product."""
        del partner
        matrices = []
        for attention in encoded.attentions:
            matrix = encoded.probabilities(attention).detach().double().mean(0)
            if attention.square:
                matrix = (matrix + torch.eye(len(matrix)).to(matrix)) / 2
            matrices.append(matrix / matrix.sum(-1, keepdim=True))
        return encoded.through_blocks(matrices, self.start).mean(0)
