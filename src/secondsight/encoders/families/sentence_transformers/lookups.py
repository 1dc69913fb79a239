"""sentence-transformers models without a transformer: texts as means of static embeddings, or as counts of words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from secondsight.encoders.base import Context
from secondsight.encoders.families.sentence_transformers.sides import SentenceEncoder, kind_of
from secondsight.inputs.offsets import spelled_offsets
from secondsight.inputs.prepared import Prepared, Tokenized
from secondsight.inputs.texts import HubTokens, Tokens, check_length, quoted, unpadded
from secondsight.support.errors import InputError

LOOKUPS = ("StaticEmbedding", "WordEmbeddings", "BoW", "SparseStaticEmbedding")
"""First modules that look every token up by itself."""

_NO_LIMIT = 10**9


class Table(nn.Module):
    """A table's rows (batch, position, width) for token ids; the id behind the last row gives zeros."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position width"]:
        """The rows."""
        weight: Any = self.embedding.weight
        known = ids < len(weight)
        return F.embedding(ids * known, weight) * known[:, :, None]


class WordAxes(nn.Module):
    """Every token as its weight on an axis of its own; with `once`, repeated tokens share the weight of one."""

    weights: Tensor

    def __init__(self, first: Any) -> None:
        super().__init__()
        self.once = not getattr(first, "cumulative_term_frequency", False)
        if kind_of(first) == "BoW":
            self.register_buffer("weights", torch.tensor(first.weights, dtype=torch.float32))
        else:
            self.first = first

    def forward(self, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position word"]:
        """The weights, of zeros for the id behind the last word."""
        weights = self.first.weight if hasattr(self, "first") else self.weights
        known = ids < len(weights)
        words = ids * known
        values = weights[words] * known
        if self.once:
            values = values / (ids[:, :, None] == ids[:, None, :]).sum(2)
        return F.one_hot(words, len(weights)) * values[:, :, None]


class _Mean(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows.mean(1)


class _Sum(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows.sum(1)


class Lookup(nn.Module):
    """The first module in two steps: rows of a table, and what is made of them, whose input can be attributed."""

    def __init__(self, first: Any) -> None:
        super().__init__()
        kind = kind_of(first)
        self.table: nn.Module
        self.following: nn.Module
        self.output = "sentence_embedding"
        if kind == "StaticEmbedding":
            self.table, self.following = Table(first.embedding), _Mean()
        elif kind == "WordEmbeddings":
            self.table, self.following, self.output = Table(first.emb_layer), nn.Identity(), "token_embeddings"
        else:
            self.table, self.following = WordAxes(first), _Sum()

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """The host's features with the module's output."""
        return {**features, self.output: self.following(self.table(features["input_ids"]))}


class WordTokens(Tokens):
    """Texts split at white space, as sentence-transformers' own word tokenizers do it; unknown words are left out."""

    def __init__(self, tokenizer: Any, *, prompt: str, context: int, padding: int | None) -> None:
        words = list(tokenizer.get_vocab())
        size = len(words) + (padding is None)
        super().__init__(vocabulary=size, context=context, padding=len(words) if padding is None else padding)
        self.tokenizer, self.prompt, self.words = tokenizer, prompt, words

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text, model-ready ids (1, length), or a dictionary with "input_ids" and perhaps "attention_mask"."""
        return super().prepare(unpadded(raw) if isinstance(raw, Mapping) else raw, truncate=truncate)

    def tokenize(self, text: str, truncate: bool) -> Prepared:
        """See `Tokens.tokenize`; `InputError` for a text of which no word is known."""
        ids: list[int] = self.tokenizer.tokenize(self.prompt + text)
        prompt = self.prompt_tokens()
        if len(ids) <= prompt:
            raise InputError(f"the model knows none of the words of {quoted(text)}: give others")
        if not truncate:
            check_length(quoted(text), len(ids), self.context)
        ids = ids[: self.context]
        special = dict.fromkeys(range(min(prompt, len(ids))), "prompt")
        tokens = tuple(map(self.spell, ids))
        offsets = spelled_offsets(text, tokens, special)
        return Prepared(torch.tensor([ids]), text, Tokenized(text, tokens, offsets, special))

    def prompt_tokens(self) -> int:
        """See `Tokens.prompt_tokens`."""
        return len(self.tokenizer.tokenize(self.prompt)) if self.prompt else 0

    def known_text(self, text: str) -> str:
        """The text, or the first words of the vocabulary where none of its own is known."""
        if self.tokenizer.tokenize(text):
            return text
        # Tokenizers may have words that they leave out.
        return " ".join(islice((word for word in self.words if self.tokenizer.tokenize(word)), 3))

    def spell(self, token: int) -> str:
        """See `Tokens.spell`."""
        return self.words[token] if token < len(self.words) else ""

    def special_tokens(self, ids: Sequence[int]) -> dict[int, str]:
        """Padding only."""
        return {i: "padding" for i, token in enumerate(ids) if token == self.padding}


class LookupEncoder(SentenceEncoder):
    """A text as the rows of a table, one layer deep: the reference is a text of rows of zeros."""

    chained = True
    output_suffices = False

    def __init__(self, parts: Sequence[nn.Module], task: str, prompt: str, kept: int | None = None) -> None:
        first: Any = parts[0]
        self._tokens = lookup_tokens(first, prompt)
        super().__init__([Lookup(first), *parts[1:]], task, prompt, kept)
        self.lexical = len(parts) == 1 and kind_of(first) in ("BoW", "SparseStaticEmbedding")
        if self.mode == "none":
            self.pool = "mean" if kind_of(first) == "StaticEmbedding" else "sum"

    def tokens_of(self, first: Any) -> Tokens:
        """See `lookup_tokens`."""
        return self._tokens

    def known_text(self, text: str) -> str:
        """See `WordTokens.known_text`."""
        return self.tokens.known_text(text) if isinstance(self.tokens, WordTokens) else text

    def blocks(self, module: nn.ModuleList) -> Sequence[nn.Module]:
        """What follows the table."""
        lookup: Any = module[0]
        return [lookup.following]

    def last_block(self, module: nn.ModuleList, context: Context, dtype: torch.dtype) -> None:
        """None: there is no block of a transformer."""

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The table."""
        table: nn.Module = self.in_precision(dtype)[0].table
        return table


def lookup_tokens(first: Any, prompt: str) -> Tokens:
    """The tokenizer of a first module that looks tokens up."""
    tokenizer, longest = first.tokenizer, getattr(first, "max_seq_length", None) or math.inf
    context = int(min(longest, _NO_LIMIT))
    if hasattr(tokenizer, "word2idx"):
        return WordTokens(tokenizer, prompt=prompt, context=context, padding=0 if hasattr(first, "emb_layer") else None)
    if kind_of(first) == "WordEmbeddings":
        raise InputError(
            f"WordEmbeddings with a {kind_of(tokenizer)} do not say where their words are: use a WhitespaceTokenizer"
        )
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        from transformers import PreTrainedTokenizerFast

        limits = tokenizer.truncation or {}
        context = int(limits.get("max_length", context))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    size = first.embedding.num_embeddings if hasattr(first, "embedding") else len(first.weight)
    return HubTokens(tokenizer, vocabulary=size + 1, context=context, padding=size, prompt=prompt, bare=True)
