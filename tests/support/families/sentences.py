"""Families of sentence-transformers."""

from __future__ import annotations

import tempfile
from typing import Any

import sentence_transformers as st
import torch
import transformers as hub
from sentence_transformers.sentence_transformer import modules
from torch import Tensor, nn

import secondsight as ss
import vocabularies
from families.example import CAPTIONS, Example, family, settled, text_config

_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _sentences(
    dtype: torch.dtype, model: nn.Module, tokenizer: Any, pooling: str, *following: nn.Module, **options: Any
) -> Example:
    # The library builds its transformer module from a folder only, which it may read again when it is saved.
    _FOLDERS.append(tempfile.TemporaryDirectory())
    path = _FOLDERS[-1].name
    settled(model, torch.float32).save_pretrained(path)
    tokenizer.save_pretrained(path)
    transformer = modules.Transformer(path, max_seq_length=40)
    pool = modules.Pooling(model.config.hidden_size, pooling_mode=pooling, include_prompt=False)
    host = st.SentenceTransformer(modules=[transformer, pool, *following], device="cpu", **options).eval().to(dtype)
    normalised = isinstance(following[-1], modules.Normalize) if following else False

    def encode(text: str) -> Tensor:
        return host.encode(text, convert_to_tensor=True).clone()

    return Example(ss.wrap(host), host, CAPTIONS, CAPTIONS[::-1], encode, encode, normalised=normalised)


@family
def st_minilm_mean(dtype: torch.dtype) -> Example:
    """MiniLM, mean, normalised"""
    tokenizer = vocabularies.bert()
    return _sentences(
        dtype, hub.BertModel(hub.BertConfig(**text_config(tokenizer))), tokenizer, "mean", modules.Normalize()
    )


@family
def st_mpnet_dense(dtype: torch.dtype) -> Example:
    """MPNet, mean, dense layer"""
    tokenizer = vocabularies.roberta()
    model = hub.MPNetModel(hub.MPNetConfig(**text_config(tokenizer)))
    return _sentences(dtype, model, tokenizer, "mean", modules.Dense(24, 16))


@family
def st_roberta_cls_dot(dtype: torch.dtype) -> Example:
    """RoBERTa, first token, dot product"""
    tokenizer = vocabularies.roberta()
    model = hub.RobertaModel(hub.RobertaConfig(**text_config(tokenizer), type_vocab_size=1))
    return _sentences(dtype, model, tokenizer, "cls", modules.Dense(24, 20), similarity_fn_name="dot")


@family
def st_bert_weighted_prompt(dtype: torch.dtype) -> Example:
    """BERT, weighted mean, prompt"""
    tokenizer = vocabularies.bert()
    model = hub.BertModel(hub.BertConfig(**text_config(tokenizer)))
    prompts = dict(prompts={"query": "a photo of: "}, default_prompt_name="query")
    return _sentences(dtype, model, tokenizer, "weightedmean", **prompts)


@family
def st_qwen_last(dtype: torch.dtype) -> Example:
    """Qwen, last token"""
    tokenizer = vocabularies.sentencepiece()
    sizes = dict(
        hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    )
    config = hub.Qwen3Config(vocab_size=len(tokenizer), head_dim=6, max_position_embeddings=40, **sizes)
    return _sentences(dtype, hub.Qwen3Model(config), tokenizer, "lasttoken", modules.Normalize(), truncate_dim=12)
