"""LeGrad: how sensitive every block's own contribution to the similarity is to its attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from secondsight.encoders.base import ATTENTION_POOL
from secondsight.methods.attention_maps import AttentionMethod, AttentiveInput, gradients, resolved_start
from secondsight.methods.base import one_of
from secondsight.paths.recorded_attention import Attention, AttentionRecorder

POOLED = ("mean", "model")


@dataclass(frozen=True, eq=False)
class LeGrad(AttentionMethod):
    """LeGrad (Bousselham et al. 2024): the positive gradient of every block's similarity with respect to its attention.

    What leaves a block is embedded as if it were the last, through final norm and projection, and its similarity to the
    partner is differentiated by the block's attention: the map is Σ_l mean_h mean_i (∂s_l / ∂A_l,h,i)⁺. `pooled` "mean" embeds
    the mean of all positions, as the authors' code does; "model" pools as the model does, so that with a class token only its
    row counts. Under an attention pool s_l is the similarity of what the pool makes of block l's output, and the derivative is
    by the pool's attention. `start` is the first block that counts, from the front or the end: 0 for all, −2 in the
    authors' code. The map is not scaled to 0 … 1.
    """

    start: int = 0
    pooled: str = "mean"

    name: ClassVar[str] = "legrad"
    reads_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("pooled", self.pooled, POOLED)

    def map_of(self, encoded: AttentiveInput, partner: Tensor) -> Tensor:
        """The sum over the blocks."""
        total = torch.zeros(encoded.layout.size, dtype=torch.float64, device=encoded.embedding.device)
        for number in range(resolved_start(self.start, len(encoded.outputs)), len(encoded.outputs)):
            attention, embedding = self._embedded(encoded, number)
            slope = gradients(encoded.similarity(partner, embedding), [attention.probabilities])[0]
            slope = encoded.cut(slope, attention).clamp(min=0).double()
            # Of a pool with several queries the embedding is read from some.
            total += (slope if attention.square else slope[:, encoded.pooled_rows]).mean((0, 1))
        return total

    def _embedded(self, encoded: AttentiveInput, number: int) -> tuple[Attention, Tensor]:
        """The attention that forms a block's embedding, its own or the pool's, and this embedding."""
        encoder, output = encoded.side.encoder, encoded.outputs[number]
        head = encoder.head_of_blocks(encoded.context, encoder.dtype())
        if self.pooled == "mean" and encoder.pool != ATTENTION_POOL:
            # Positions that are all alike are pooled to what they are.
            output = output.mean(0, keepdim=True).expand(len(output), -1)
        with AttentionRecorder() as recorder:
            embedding = head(output[None])[0]
        return (recorder.attentions[-1] if encoder.pool == ATTENTION_POOL else encoded.attentions[number]), embedding
