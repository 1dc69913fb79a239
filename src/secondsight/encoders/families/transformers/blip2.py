"""BLIP-2's image-text contrast: a text's one vector against those of the image's query tokens, of which the best counts.

That is late interaction with a query of one vector: with the best query token held, the similarity is an inner product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from secondsight.algebra.layout import Layout, TokenLayout
from secondsight.encoders.base import States
from secondsight.encoders.host import Parts
from secondsight.encoders.host_image import HostImageEncoder
from secondsight.encoders.host_text import HostTextEncoder
from secondsight.encoders.late_interaction import LateInteractionEncoder
from secondsight.encoders.late_model import LateInteraction
from secondsight.inputs.images import ImageInput
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import HubTokens, longest_text
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from transformers import Blip2ForImageTextRetrieval


class Blip2Image(LateInteractionEncoder, HostImageEncoder):
    """The image tower, whose blocks are the layers, and the vectors of the Q-Former's query tokens that read it."""

    role = "document"

    def __init__(self, model: Blip2ForImageTextRetrieval, images: ImageInput) -> None:
        parts = Parts(
            tower=model.vision_model,
            queries=model.query_tokens,
            qformer=model.qformer,
            projection=model.vision_projection,
        )
        config = model.config.vision_config
        patch, size = (config.patch_size,) * 2, (config.image_size,) * 2
        super().__init__(parts, images, special=("class",), patch=patch, size=size)

    def blocks(self, module: Parts) -> Sequence[nn.Module]:
        """The image tower's blocks."""
        return list(module.tower.encoder.layers)

    def token_vectors(self, module: Parts, tensors: Tensor) -> Float[Tensor, "batch token width"]:
        """The projected and normalised vectors of the query tokens."""
        seen = module.tower(pixel_values=tensors).last_hidden_state
        everything = torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device)
        output = module.qformer(
            query_embeds=module.queries.expand(len(seen), -1, -1),
            encoder_hidden_states=seen,
            encoder_attention_mask=everything,
        )
        return F.normalize(module.projection(output.last_hidden_state.to(module.projection.weight.dtype)), dim=-1)

    def output_layout(self, prepared: Prepared, states: States) -> Layout:
        """The query tokens, which lie nowhere in the image."""
        return Layout(len(states.hidden))


class Blip2Text(LateInteractionEncoder, HostTextEncoder):
    """The text side, whose one vector is that of the Q-Former's first token."""

    role = "query"

    def __init__(self, model: Blip2ForImageTextRetrieval, tokens: HubTokens) -> None:
        parts = Parts(embeddings=model.embeddings, qformer=model.qformer, projection=model.text_projection)
        super().__init__(parts, tokens)

    def blocks(self, module: Parts) -> Sequence[nn.Module]:
        """The Q-Former's blocks."""
        return list(module.qformer.encoder.layer)

    def token_vectors(self, module: Parts, tensors: Tensor) -> Float[Tensor, "batch token width"]:
        """The projected and normalised vector of the first token."""
        embeds = module.embeddings(input_ids=tensors)
        output = module.qformer(query_embeds=embeds, query_length=0, attention_mask=torch.ones_like(tensors))
        first = output.last_hidden_state[:, :1].to(module.projection.weight.dtype)
        return F.normalize(module.projection(first), dim=-1)

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The word embeddings."""
        table: nn.Module = self.in_precision(dtype).embeddings.word_embeddings
        return table

    def output_layout(self, prepared: Prepared, states: States) -> Layout:
        """The whole text as one token."""
        text = prepared.tokenized.text
        span = None if text is None else (0, len(text))
        return TokenLayout(1, {}, (text or "text",), (span,), text)


def wrap_blip2(model: Blip2ForImageTextRetrieval, images: ImageInput, tokenizer: Any, name: str) -> LateInteraction:
    """A model of image-text retrieval with its own contrast, the head for pairs left aside."""
    config = model.config.qformer_config
    tokens = HubTokens(
        tokenizer,
        vocabulary=model.embeddings.word_embeddings.num_embeddings,
        context=longest_text(tokenizer, config.max_position_embeddings),
        padding=None if tokenizer is not None else config.pad_token_id,
    )
    left, right = Blip2Image(model, images), Blip2Text(model, tokens)

    def host(query: Prepared, document: Prepared) -> float:
        ids, pixels = right.to_model(query.tensor), left.to_model(document.tensor)
        if model.config.image_token_index is not None:
            # Its processor writes a place for every query token before the text; the contrast leaves them out.
            ids = F.pad(ids, (model.config.num_query_tokens, 0), value=model.config.image_token_index)
        with untouched(model):
            output = model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
        return float(output.logits_per_image)

    return LateInteraction(left, right, name=name, host=host)
