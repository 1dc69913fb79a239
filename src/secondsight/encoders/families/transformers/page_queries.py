"""Queries of page retrieval models: a text within the prompt that the model's processor puts around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from secondsight.encoders.host_text import HostTextEncoder
from secondsight.encoders.late_interaction import LateInteractionEncoder
from secondsight.inputs.prepared import Prepared, Tokenized
from secondsight.inputs.texts import HubTokens, check_length, quoted
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

AUGMENTATION = "augmentation"
"""Special tokens behind a query in which the model may put what it adds to it; the host compares them too."""


class QueryTokens(HubTokens):
    """Queries as a processor makes them: a prompt, the text, and augmentation tokens."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        tokenizer, config = processor.tokenizer, model.config.get_text_config()
        if not tokenizer.is_fast:
            raise InputError(
                f"{type(tokenizer).__name__} does not say where its tokens lie in a text: use the fast one"
            )
        start = tokenizer.bos_token if model.config.model_type == "colpali" else ""
        super().__init__(
            tokenizer,
            vocabulary=model.vlm.get_input_embeddings().num_embeddings,
            context=config.max_position_embeddings,
            prompt=f"{start}{processor.query_prefix}",
        )
        self.processor = processor

    def tokenize(self, text: str, truncate: bool) -> Prepared:
        """See `Tokens.tokenize`; what is cut is the end of the text, not what follows it."""
        ids, spans, special = self._encode(text)
        if len(ids) > self.context:
            words = [i for i in range(len(ids)) if i not in special]
            excess = len(ids) - self.context
            if not truncate or excess >= len(words):
                check_length(quoted(text), len(ids), self.context)
            ids, spans, special = self._encode(text[: spans[words[-excess]][0] - len(self.prompt)])
        tokens, offsets = tuple(map(self.spell, ids)), self._offsets(text, text, spans, special, len(ids))
        return Prepared(torch.tensor([ids]), text, Tokenized(text, tokens, offsets, special))

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]], dict[int, str]]:
        """Token ids, their (start, end) in the text within its prompt, and the special ones by position."""
        encoding = self.processor.process_queries([text], return_offsets_mapping=True)
        ids: list[int] = encoding["input_ids"][0].tolist()
        spans = [(start, end) for start, end in encoding["offset_mapping"][0].tolist()]
        special, last = self.special_tokens(ids), len(self.prompt) + len(text)
        for i, (start, end) in enumerate(spans):
            if end <= len(self.prompt) or start >= last:
                special.setdefault(i, "prompt")
        return (
            ids,
            [(0, 0) if i in special else (start, min(end, last)) for i, (start, end) in enumerate(spans)],
            special,
        )

    def special_tokens(self, ids: Sequence[int]) -> dict[int, str]:
        """See `Tokens.special_tokens`."""
        augmentation = self.tokenizer.convert_tokens_to_ids(self.processor.query_augmentation_token)
        special = super().special_tokens(ids)
        return special | {i: AUGMENTATION for i, token in enumerate(ids) if token == augmentation}


class QueryEncoder(LateInteractionEncoder, HostTextEncoder):
    """Queries, through the blocks of the language model; every token is compared, the prompt's too."""

    role = "query"

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, language_path: str) -> None:
        self.language_path = language_path
        super().__init__(model, QueryTokens(model, processor))
        # Whether the model wants to be told that all of a query may look at all of it.
        self.typed = model.config.model_type == "colpali"

    def blocks(self, module: nn.Module) -> Sequence[nn.Module]:
        """The language model's blocks."""
        return list(module.get_submodule(self.language_path).children())

    def token_vectors(self, module: Any, tensors: Tensor) -> Tensor:
        """See `LateInteractionEncoder.token_vectors`."""
        types = {"token_type_ids": torch.zeros_like(tensors)} if self.typed else {}
        vectors: Tensor = module(input_ids=tensors, attention_mask=torch.ones_like(tensors), **types).embeddings
        return vectors

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The language model's token embeddings."""
        table: nn.Module = self.in_precision(dtype).vlm.get_input_embeddings()
        return table
