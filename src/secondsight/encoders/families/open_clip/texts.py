"""Text towers of open_clip: its own transformers, and models of transformers inside it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from secondsight.algebra.layout import Layout, TokenLayout
from secondsight.encoders.base import Context, Encoder, Head, Reference, States
from secondsight.encoders.blocks import pooled_block
from secondsight.encoders.host import Parts, first_tensor, outputs_of
from secondsight.encoders.host_text import HostTextEncoder, text_blocks
from secondsight.inputs.offsets import byte_offsets
from secondsight.inputs.prepared import Prepared, Tokenized
from secondsight.inputs.texts import TEXT_REFERENCES, HubTokens, Tokens, check_length, quoted, unpadded
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.files import brief
from secondsight.support.guard import capturing, observing

if TYPE_CHECKING:
    from secondsight.paths.pooled import PooledBlock

Tokenizer = Callable[[list[str]], Tensor]
Host: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP | open_clip.CoCa

POOLS = {
    "tok": "first token",
    "token": "first token",
    "avg": "mean",
    "first": "first token",
    "last": "last token",
    "argmax": "end token",
    "eos": "end token",
    "ClsPooler": "first token",
    "ClsLastHiddenStatePooler": "first token",
    "MeanPooler": "mean",
    "MaxPooler": "maximum",
}
"""In words, what open_clip's names of poolings mean."""


class ClipTokens(Tokens):
    """Texts as open_clip's tokenizers make them, padded to the tower's context; None leaves only model-ready ids.

    `end_of` gives the end position of token ids where texts begin with a start token and end where the tower pools, as
    CLIP's do; `has_start` says that texts of other towers begin with a start token.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        vocabulary: int,
        context: int,
        padding: int,
        end_of: Callable[[Tensor], int] | None,
        has_start: bool,
    ) -> None:
        super().__init__(vocabulary=vocabulary, context=context, padding=padding)
        self.tokenizer, self.end_of, self.has_start = tokenizer, end_of, has_start

    def tokenize(self, text: str, truncate: bool) -> Prepared:
        """See `Tokens.tokenize`."""
        ids = self._ids(text)
        if not isinstance(self.tokenizer, SimpleTokenizer):
            return self._by_hub(text, ids, truncate) or self._without_offsets(text, ids)
        numbers, size = self.tokenizer.encode(text), ids.shape[1]
        if not truncate:
            check_length(quoted(text), len(numbers) + 2, size)
        pieces = [self._bytes(number) for number in numbers[: size - 2]]
        offsets = (None, *byte_offsets(text, self.tokenizer.clean_fn(text), pieces))
        offsets += (None,) * (size - len(offsets))
        source = self._without_offsets(text, ids).tokenized
        return Prepared(ids, text, Tokenized(text, source.tokens, offsets, source.special))

    def _ids(self, text: str) -> Tensor:
        """The tokenizer's ids (1, length); `InputError` for a tokenizer that is not one of open_clip's for this model."""
        remedy = f"open_clip.get_tokenizer(…, context_length={self.context}) makes one for this model"
        try:
            ids = self.tokenizer([text])
        except Exception as problem:
            raise InputError(f"the tokenizer cannot read a list of texts ({brief(problem)}): {remedy}") from problem
        if not isinstance(ids, Tensor) or ids.ndim != 2 or len(ids) != 1 or ids.shape[1] > self.context:
            given = tuple(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
            raise InputError(f"the tokenizer gives {given}, not token ids (1, {self.context}): {remedy}")
        return ids

    def _bytes(self, token: int) -> bytes:
        spelling = self.tokenizer.decoder[token].removesuffix("</w>")
        return bytes(self.tokenizer.byte_decoder[character] for character in spelling)

    def _without_offsets(self, text: str, ids: Tensor) -> Prepared:
        numbers = [int(i) for i in ids[0]]
        tokens = tuple(map(self.spell, numbers))
        return Prepared(ids, text, Tokenized(None, tokens, (None,) * len(tokens), self.special_tokens(numbers)))

    def _by_hub(self, text: str, ids: Tensor, truncate: bool) -> Prepared | None:
        """The same ids with their places in the text, where open_clip only passes them on from a fast tokenizer."""
        inner, clean = getattr(self.tokenizer, "tokenizer", None), getattr(self.tokenizer, "clean_fn", None)
        if not getattr(inner, "is_fast", False) or clean is None:
            return None
        size = ids.shape[1]
        hub = HubTokens(inner, vocabulary=self.vocabulary, context=size, pad_to=size, clean=clean)
        prepared = hub.prepare(text, truncate=truncate)
        return prepared if torch.equal(prepared.tensor, ids) else None

    def spell(self, token: int) -> str:
        """See `Tokens.spell`."""
        decoder = getattr(self.tokenizer, "decoder", None)
        if isinstance(decoder, dict):
            return str(decoder.get(token, token)).removesuffix("</w>")
        inner: Any = getattr(self.tokenizer, "tokenizer", None)
        return str(token) if not hasattr(inner, "convert_ids_to_tokens") else str(inner.convert_ids_to_tokens(token))

    def special_tokens(self, ids: Sequence[int]) -> dict[int, str]:
        """See `Tokens.special_tokens`."""
        if self.end_of is not None:
            end = self.end_of(torch.tensor(ids))
            return {**dict.fromkeys(range(end + 1, len(ids)), "padding"), 0: "start", end: "end"}
        # Other poolings do not tell where the words end; the padding behind them does.
        words = max((i + 1 for i, token in enumerate(ids) if token != self.padding), default=0)
        return dict.fromkeys(range(words, len(ids)), "padding") | ({0: "start"} if self.has_start else {})


class ClipTextEncoder(Encoder):
    """An open_clip text transformer. Under a causal mask, positions after the pooled one are dropped: they cannot matter."""

    # The one head that is written out. The host itself would run all 77 positions of a caption of 15 tokens: ten times
    # the time at the last and at the middle layer of ViT-B/32's text tower.
    kind = "text"
    references = TEXT_REFERENCES

    def __init__(
        self, host: Host, tower: Host | TextTransformer, tokenizer: Tokenizer | None, pool_type: str, eos: int | None
    ) -> None:
        super().__init__()
        # In a plain CLIP the text tower's parts are the model's own attributes; in the others it is a module.
        names = ("token_embedding", "transformer", "ln_final", "positional_embedding", "text_projection", "attn_mask")
        self.parts = Parts(**{name: getattr(tower, name, None) for name in names})
        self.module: nn.Module = self.parts
        self.host, self.tower_is_host = host, tower is host
        self.pool_type, self.eos = pool_type, eos
        self.pool = POOLS.get(pool_type, pool_type)
        self.depth = len(self.parts.transformer.resblocks)
        self.tokens = clip_tokens(tower, tokenizer, pool_type, lambda ids: self._pools(ids[None])[0])

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A caption through the tokenizer, or model-ready token ids (1, length)."""
        return self.tokens.prepare(raw, truncate=truncate)

    def reference(self, prepared: Prepared, choice: str | Tensor | None, seed: int) -> Tensor:
        """See `Tokens.reference`."""
        return self.tokens.reference(prepared, choice)

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Hidden states entering block `layer` for a batch of token ids, without positions that cannot matter."""
        tensors = self.to_model(tensors)
        hidden, mask, embeddings = self._run(tensors, layer)
        states = []
        for ids, row, embedding, pool in zip(tensors, hidden, embeddings, self._pools(tensors), strict=True):
            causal = mask is not None and bool(torch.isneginf(mask.float()[pool, pool + 1 :]).all())
            length = pool + 1 if causal else len(row)
            # A copy, as a view would keep the whole batch in memory.
            row = row[:length].clone()
            context = Context(ids[None], tuple(row.shape), pool, None if mask is None else mask[:length, :length])
            states.append(States(row, embedding, context))
        return states

    def features_of_blocks(self, tensor: Tensor) -> tuple[States, list[Tensor]]:
        """See `Encoder.features_of_blocks`."""
        with outputs_of(self.parts.transformer.resblocks) as outputs:
            states = self.features(tensor, self.depth - 1)[0]
        return states, [self._swapped(output)[0, : len(states.hidden)].to(self.dtype()) for output in outputs]

    def reference_features(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """The reference's hidden states, as many as the input has."""
        tensor = self.to_model(tensor)
        hidden, _, embeddings = self._run(tensor, layer)
        same_pool = self._pools(tensor)[0] == context.pool
        return Reference(hidden[0, : context.shape[0]].clone(), embeddings[0] if same_pool else None)

    def reference_key(self, context: Context) -> Hashable:
        """The pooled position and the number of positions; the mask is the model's own."""
        return context.pool, context.shape

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """Blocks from `layer` on, pooling at the input's position, and projection."""
        parts = self.in_precision(dtype)
        mask = None if context.mask is None else context.mask.to(dtype)
        projection = parts.text_projection

        def head(x: Tensor) -> Tensor:
            x = self._swapped(x)
            for block in parts.transformer.resblocks[layer:]:
                x = block(x, attn_mask=mask)
            y = parts.ln_final(self._swapped(x)[:, context.pool])
            if projection is None:
                return y
            return projection(y) if isinstance(projection, nn.Module) else y @ projection

        return head

    def last_block(self, module: Parts, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The last block, read at the pooled position."""
        assert context.pool is not None  # set by `features`
        row = None if context.mask is None else context.mask[context.pool]
        finish = (module.ln_final, module.text_projection)
        return pooled_block(module.transformer.resblocks[-1], context.pool, finish, dtype, row)

    def attention_block(self, dtype: torch.dtype) -> PooledBlock | None:
        """See `Encoder.attention_block`."""
        return pooled_block(self.in_precision(dtype).transformer.resblocks[-1], 0, (), dtype)

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The host's own function of token ids."""
        encode: Callable[[Tensor], Tensor] = self.in_precision(dtype, self.host).encode_text
        return encode

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The host's token embeddings."""
        host = self.in_precision(dtype, self.host)
        table: nn.Module = (host if self.tower_is_host else host.text).token_embedding
        return table

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Start, words, end, and padding where the model sees it."""
        return prepared.tokenized.layout(len(states.hidden))

    def _pools(self, ids: Tensor) -> list[int]:
        """The pooled position of every row."""
        if self.pool_type == "first":
            return [0] * len(ids)
        if self.pool_type == "last":
            return [ids.shape[1] - 1] * len(ids)
        if self.pool_type == "argmax":
            return [int(i) for i in ids.argmax(-1)]
        if self.pool_type == "eos":
            return [int(i) for i in ids.eq(self.eos or 0).int().argmax(-1)]
        raise AdapterError(f"text pooling {self.pool_type!r} is not known: open_clip has first, last, argmax and eos")

    def _run(self, ids: Tensor, layer: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Hidden states entering a block (or leaving the last one), the attention mask, and the embeddings."""
        blocks = self.parts.transformer.resblocks
        arguments: dict[str, Any] = {}
        outputs: list[Any] = []
        with capturing(blocks[min(layer, self.depth - 1)], arguments), observing(blocks[-1], outputs.append):
            embeddings = first_tensor(self.host.encode_text(ids)).to(self.dtype())
        if not arguments.get("args"):
            raise AdapterError(
                "the text tower never called its block: a compiled or scripted model cannot be explained"
            )
        mask: Tensor | None = arguments["kwargs"].get("attn_mask")
        if mask is not None and mask.ndim != 2:
            raise AdapterError("this text tower gives every input its own attention mask: it is not supported yet")
        hidden = outputs[0] if layer == self.depth else arguments["args"][0]
        return self._swapped(hidden).to(self.dtype()), mask, embeddings

    def _swapped(self, x: Tensor) -> Tensor:
        """Between (batch, position, width) and what the transformer takes, which may have positions first."""
        return x if self.parts.transformer.batch_first else x.transpose(0, 1)


class MaskedTextEncoder(HostTextEncoder):
    """An open_clip text tower whose mask depends on the input: CoCa's class token at the end, padding masks.

    Inputs have the tower's whole context.
    """

    def __init__(self, tower: TextTransformer, tokens: Tokens) -> None:
        super().__init__(tower, tokens)
        # CoCa's texts end with a class token of their own, whatever the pool is called.
        self.pool = "last token" if tower.cls_emb is not None else POOLS.get(tower.pool_type, tower.pool_type)
        self.padding: int = tower.pad_id
        self.eos: int = getattr(tower, "eos_id", -1)

    def blocks(self, module: TextTransformer) -> Sequence[nn.Module]:
        """The transformer's blocks."""
        return list(module.transformer.resblocks)

    def encode(self, module: TextTransformer, tensors: Tensor) -> Tensor:
        """The projected embeddings of token ids."""
        return first_tensor(module(tensors))

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The tower's token embeddings."""
        table: nn.Module = self.in_precision(dtype).token_embedding
        return table

    def reference_key(self, context: Context) -> Hashable:
        """The input's length, its padding, and where its highest id and its end are, one of which may be pooled."""
        ids = context.tensor[0]
        return len(ids), tuple((ids == self.padding).tolist()), int(ids.argmax()), int((ids == self.eos).int().argmax())

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """The tokens, and behind them the class token where the tower adds one."""
        source = prepared.tokenized
        size, length = len(states.hidden), len(source.tokens)
        if size <= length:
            return source.layout(size)
        extra = size - length
        special = source.special | dict.fromkeys(range(length, size), "class")
        tokens, offsets = (*source.tokens, *["class"] * extra), (*source.offsets, *[None] * extra)
        return TokenLayout(size, special, tokens, offsets, source.text)


class HubInsideEncoder(HostTextEncoder):
    """A text model of transformers inside open_clip. It never sees the padding, which is not kept."""

    def __init__(self, tower: HFTextEncoder, tokens: Tokens) -> None:
        # T5's blocks hand relative positions down from the first.
        self.chained = "t5" not in tower.config.model_type
        super().__init__(tower, tokens)
        self.pool = POOLS.get(type(tower.pooler).__name__, type(tower.pooler).__name__)
        self.padding: int = tower.config.pad_token_id

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A text through the tokenizer, or model-ready token ids (1, length)."""
        prepared = self.tokens.prepare(raw, truncate=truncate)
        ids = unpadded({"input_ids": prepared.tensor, "attention_mask": prepared.tensor != self.padding})
        length = ids.shape[1]
        return Prepared(prepared.tensor[:, :length], prepared.display, prepared.tokenized.cut(length))

    def blocks(self, module: HFTextEncoder) -> Sequence[nn.Module]:
        """The transformer's blocks."""
        return text_blocks(module.transformer)

    def encode(self, module: HFTextEncoder, tensors: Tensor) -> Tensor:
        """The projected embeddings of token ids."""
        return first_tensor(module(tensors))

    def last_block(self, module: HFTextEncoder, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The last block where its first position is read."""
        if type(module.pooler).__name__ not in ("ClsPooler", "ClsLastHiddenStatePooler"):
            return None
        reads_pooler = getattr(module.pooler, "use_pooler_output", False)
        inner = getattr(module.transformer, "pooler", None) if reads_pooler else None
        pooler = () if inner is None else (lambda y: inner(y[:, None]),)
        return pooled_block(self.blocks(module)[-1], 0, (*pooler, module.proj), dtype)

    def reference_key(self, context: Context) -> Hashable:
        """The input's length, and where ids of its own are padding, which is masked."""
        ids = context.tensor[0]
        return len(ids), tuple((ids == self.padding).tolist())

    def token_embedding(self, dtype: torch.dtype) -> nn.Module:
        """The model's token embeddings."""
        table: nn.Module = self.in_precision(dtype).transformer.get_input_embeddings()
        return table


def clip_tokens(tower: Any, tokenizer: Any, pool_type: str, end_of: Callable[[Tensor], int]) -> ClipTokens:
    """How texts are prepared for one of open_clip's own text towers."""
    return ClipTokens(
        tokenizer,
        vocabulary=tower.token_embedding.num_embeddings,
        context=len(tower.positional_embedding) - (getattr(tower, "cls_emb", None) is not None),
        padding=getattr(tower, "pad_id", 0),
        end_of=end_of if pool_type in ("argmax", "eos") else None,
        has_start=pool_type == "first",
    )


def _hub_tokens(tower: HFTextEncoder, tokenizer: Any) -> HubTokens:
    config = tower.config
    context = getattr(tokenizer, "context_length", None) or getattr(config, "max_position_embeddings", None) or 512
    return HubTokens(
        getattr(tokenizer, "tokenizer", tokenizer),
        vocabulary=tower.transformer.get_input_embeddings().num_embeddings,
        context=context,
        padding=config.pad_token_id,
        clean=getattr(tokenizer, "clean_fn", None),
    )


def text_encoder(model: nn.Module, tokenizer: Tokenizer | None) -> Encoder:
    """The encoder of an open_clip model's text tower; `InputError` for towers of another kind."""
    if isinstance(model, open_clip.CLIP):
        return ClipTextEncoder(model, model, tokenizer, model.text_pool_type, getattr(model, "text_eos_id", None))
    tower = getattr(model, "text", None)
    if isinstance(tower, HFTextEncoder):
        return HubInsideEncoder(tower, _hub_tokens(tower, tokenizer))
    if not isinstance(tower, TextTransformer):
        raise InputError(
            f"the text tower of {type(model).__name__} is not supported by name: describe it with ss.TorchEncoder"
        )
    if tower.cls_emb is None and not tower.use_pad_mask:
        return ClipTextEncoder(model, tower, tokenizer, tower.pool_type, tower.eos_id)

    def end_of(ids: Tensor) -> int:
        return int(ids.argmax()) if tower.pool_type == "argmax" else int((ids == tower.eos_id).int().argmax())

    return MaskedTextEncoder(tower, clip_tokens(tower, tokenizer, tower.pool_type, end_of))
