"""MaskCLIP and its kin: what every position by itself puts through the last attention, compared by cosines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.algebra.outcome import Outcome
from secondsight.encoders.base import ATTENTION_POOL, EVERY_TOKEN, Encoder, States, check_finite
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method, one_of
from secondsight.methods.token_embeddings import embed_alone
from secondsight.paths.pooled import PooledBlock
from secondsight.paths.tails import Chain, Residual, Step
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.model import Side

SELF_ATTENTION = {"values": (), "identity": (), "clearclip": ("query",), "sclip": ("query", "key")}
"""By variant, the projections whose inner products with themselves replace those of queries and keys."""

WHOLE_BLOCK = ("identity", "sclip")
"""Variants that keep the last block's residual connections and feed-forward layer."""


@dataclass(frozen=True, eq=False)
class MaskClip(Method):
    """Unit vectors of every position, read through the last block's values: MaskCLIP's maps (Zhou, Loy and Dai 2022).

    U_i is out(value(norm(x_i))) of the position's own hidden state x_i in the last block, then the model's final norm and
    projection; attributions of pairs are cosines. `variant` "values" (default) is that, without the block's residual
    connections and feed-forward layer; "identity" keeps these, as MaskCLIP's published code does for CLIP's transformers;
    "clearclip" (Lan et al. 2024) is "values" mixed by softmax(qqᵀ/√d); "sclip" (Wang et al. 2024) is "identity" mixed by
    softmax(qqᵀ/√d) + softmax(kkᵀ/√d). Texts are not mixed. Attention pools (CLIP's ResNets, SigLIP) are read
    through the pool's values, and have no variants. `text` "tokens" (default) gives each token its vector; "embedding" shares
    out the text's embedding evenly among its words, so that the map over an image is the published one of a prompt,
    whatever is selected; of two texts it tells nothing. Nothing adds up; the references are zero.
    """

    variant: str = "values"
    text: str = "tokens"

    name: ClassVar[str] = "mask-clip"
    adds_up: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("variant", self.variant, tuple(SELF_ATTENTION))
        one_of("text", self.text, ("tokens", "embedding"))

    @property
    def order(self) -> int:  # type: ignore[override]  # of this class it depends on an option
        """1 where a text is its embedding alone."""
        return 1 if self.text == "embedding" else 2

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input; one forward pass each.

        Raises `InputError` for encoders whose last layer is no attention that is known, and for late interaction.
        """
        with untouched(side.encoder.module):
            return [self._contribute(side, prepared) for prepared in inputs]

    def interactions(self, left: Side, right: Side, a: Prepared, partners: Sequence[Prepared]) -> list[Interactions]:
        """Interactions of one left input with each of several right ones."""
        pairs = super().interactions(left, right, a, partners)
        return pairs if self.order == 2 else [replace(pair, about={**pair.about, "order": 1}) for pair in pairs]

    def _contribute(self, side: Side, prepared: Prepared) -> Contributions:
        encoder = side.encoder
        if encoder.pool == EVERY_TOKEN:
            raise InputError("a late-interaction model compares token embeddings itself: use token-embeddings")
        layer = encoder.depth - 1
        state = encoder.features(prepared.tensor, layer)[0]
        check_finite(encoder, state.embedding, prepared.tensor)
        layout = encoder.layout(prepared, layer, state)
        embedding = F.normalize(state.embedding, dim=-1) if side.cosine else state.embedding
        if side.kind == "text" and self.text == "embedding":
            shares = torch.zeros(layout.size, 1, dtype=embedding.dtype, device=embedding.device)
            shares[layout.visible] = 1 / len(layout.visible)
            vectors = shares * F.normalize(state.embedding, dim=-1)
        else:
            vectors = F.normalize(self._positions(encoder, state, mixed=side.kind != "text"), dim=-1)
        check_finite(encoder, vectors, None)
        residual = float((embedding.double() - vectors.double().sum(0)).norm() / embedding.double().norm())
        label = encoder.label(layer)
        return Contributions(
            vectors,
            embedding,
            torch.zeros_like(embedding),
            layout,
            about={"layer": label, "encodings": 1},
            outcome=Outcome(self.name, label, "zero", residual, cost=1),
        )

    def _positions(self, encoder: Encoder, state: States, *, mixed: bool) -> Float[Tensor, "position joint"]:
        """Every position's vector in the joint space, not normalised."""
        layer, dtype = encoder.depth - 1, state.hidden.dtype
        if encoder.pool == ATTENTION_POOL:
            if SELF_ATTENTION[self.variant]:
                raise InputError(
                    f"variant={self.variant!r} mixes positions of a block, and this {encoder.kind} encoder ends in an "
                    "attention pool: use variant='values'"
                )
            return embed_alone(encoder, layer, state, state.hidden)
        block = encoder.attention_block(dtype)
        if block is None:
            remedy = "text='embedding' or token-embeddings" if encoder.kind == "text" else "token-embeddings"
            raise InputError(
                f"this {encoder.kind} encoder does not end in a block of attention that is known: use {remedy}"
            )
        projections = SELF_ATTENTION[self.variant] if mixed else ()
        rows = _read(block, state.hidden, projections, whole=self.variant in WHOLE_BLOCK)
        return embed_alone(encoder, encoder.depth, state, rows)


def _read(
    block: PooledBlock, hidden: Float[Tensor, "position width"], projections: Sequence[str], *, whole: bool
) -> Float[Tensor, "position width"]:
    """A block's output where every position sees itself, or those of which its projections are alike."""
    x = hidden if block.norm is None else _value(block.norm, hidden)
    values = block.value(x)
    if projections:
        weights = torch.stack([_self_attention(block, getattr(block, name)(x)) for name in projections]).sum(0)
        values = (weights @ _by_head(block, values)).transpose(0, 1).flatten(1)
    out = block.out(values)
    out = out if block.gain is None else out * block.gain
    return _value(block.tail, hidden + out) if whole else _value(_without_residuals(block.tail), out)


def _by_head(block: PooledBlock, x: Float[Tensor, "position width"]) -> Float[Tensor, "head position channel"]:
    return x.unflatten(-1, (block.heads, -1)).transpose(0, 1)


def _self_attention(
    block: PooledBlock, projected: Float[Tensor, "position width"]
) -> Float[Tensor, "head position position"]:
    """Attention of queries, or of keys, to themselves."""
    x = _by_head(block, projected)
    return (x @ x.mT / math.sqrt(x.shape[-1])).softmax(-1)


def _value(step: Step, x: Float[Tensor, "position width"]) -> Float[Tensor, "position width"]:
    return step.linearise(x, torch.zeros_like(x))[0]


def _without_residuals(tail: Step) -> Step:
    """What follows attention in a block, without residual connections and what lies in them; norms after them stay."""
    if isinstance(tail, Residual):
        return Chain(())
    return Chain([_without_residuals(step) for step in tail.stages]) if isinstance(tail, Chain) else tail
