"""Late-interaction models: small random ones in the configurations that checkpoints have."""

from __future__ import annotations

import string
import tempfile
from collections.abc import Callable
from typing import Any

import sentence_transformers as st
import torch
import transformers as hub
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch import nn

import vocabularies
from families.example import settled, text_config

_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []

LATE: dict[str, Callable[[torch.dtype], st.MultiVectorEncoder]] = {}


def late(build: Callable[[torch.dtype], st.MultiVectorEncoder]) -> Callable[[torch.dtype], st.MultiVectorEncoder]:
    """List a builder under its function's name; its docstring is the model's title in the docs."""
    LATE[build.__name__.replace("_", "-")] = build
    return build


def multi_vector(
    model: nn.Module, tokenizer: Any, dtype: torch.dtype, *, skip: str = "", prompts: Any = None, **options: Any
) -> st.MultiVectorEncoder:
    """A MultiVectorEncoder of a projection to 12 dimensions; `options` are its transformer's, or `similarity_fn_name`."""
    similarity = options.pop("similarity_fn_name", None)
    _FOLDERS.append(tempfile.TemporaryDirectory())
    path = _FOLDERS[-1].name
    settled(model, torch.float32).save_pretrained(path)
    tokenizer.save_pretrained(path)
    torch.manual_seed(1)
    parts = [
        Transformer(path, max_seq_length=options.pop("longest", 30), **options),
        Dense(24, 12, bias=False, activation_function=nn.Identity(), module_input_name="token_embeddings"),
        MultiVectorMask(skiplist_words=list(skip)),
        Normalize(module_input_name="token_embeddings"),
    ]
    host = st.MultiVectorEncoder(modules=parts, device="cpu", prompts=prompts, similarity_fn_name=similarity)
    return host.eval().to(dtype)


def _bert(dtype: torch.dtype, **options: Any) -> st.MultiVectorEncoder:
    tokenizer = vocabularies.bert()
    return multi_vector(hub.BertModel(hub.BertConfig(**text_config(tokenizer))), tokenizer, dtype, **options)


@late
def st_late_plain(dtype: torch.dtype) -> st.MultiVectorEncoder:
    """BERT, MaxSim"""
    return _bert(dtype)


@late
def st_late_colbert(dtype: torch.dtype) -> st.MultiVectorEncoder:
    """BERT, MaxSim; prompts, unattended expansion, punctuation skipped"""
    expansion = {"strategy": "fixed", "length": 24, "attend": False}
    prompts = {"query": "a photo of: ", "document": "the sound: "}
    return _bert(dtype, skip=string.punctuation, prompts=prompts, query_expansion=expansion)


@late
def st_late_mean(dtype: torch.dtype) -> st.MultiVectorEncoder:
    """RoBERTa, MeanMaxSim; expansion that is attended, with the end token"""
    tokenizer = vocabularies.roberta()
    model = hub.RobertaModel(hub.RobertaConfig(**text_config(tokenizer, positions=48), type_vocab_size=1))
    expansion = {"strategy": "min", "length": 12, "attend": True, "token": "</s>"}
    return multi_vector(model, tokenizer, dtype, query_expansion=expansion, similarity_fn_name="meanmaxsim", longest=40)
