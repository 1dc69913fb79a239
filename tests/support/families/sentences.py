"""Families of sentence-transformers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import sentence_transformers as st
import torch
import transformers as hub
from sentence_transformers.sentence_transformer import modules
from sentence_transformers.sparse_encoder import modules as sparse
from torch import Tensor, nn

import secondsight as ss
import vocabularies
from families.example import CAPTIONS, FAMILIES, Example, family, photographs, save_hub, settled, text_config

_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _transformer(model: nn.Module, tokenizer: Any, seed: int = 0, **options: Any) -> modules.Transformer:
    # The library builds its transformer module from a folder only, which it may read again when it is saved.
    _FOLDERS.append(tempfile.TemporaryDirectory())
    path = _FOLDERS[-1].name
    settled(model, torch.float32, seed).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return modules.Transformer(path, max_seq_length=40, **options)


def _bert(seed: int = 0) -> modules.Transformer:
    tokenizer = vocabularies.bert()
    return _transformer(hub.BertModel(hub.BertConfig(**text_config(tokenizer))), tokenizer, seed)


def _example(dtype: torch.dtype, parts: list[nn.Module], kind: Any = st.SentenceTransformer, **options: Any) -> Example:
    """Queries left and documents right, as the host's own functions embed them."""
    host = kind(modules=parts, device="cpu", **options).eval().to(dtype)
    dense = {"convert_to_sparse_tensor": False} if kind is st.SparseEncoder else {}

    def query(text: str) -> Tensor:
        return host.encode_query(text, convert_to_tensor=True, **dense).clone()

    def document(text: str) -> Tensor:
        return host.encode_document(text, convert_to_tensor=True, **dense).clone()

    normalised = isinstance(parts[-1], modules.Normalize)
    return Example(ss.wrap(host), host, CAPTIONS, CAPTIONS[::-1], query, document, normalised=normalised)


def _sentences(
    dtype: torch.dtype, model: nn.Module, tokenizer: Any, pooling: str, *following: nn.Module, **options: Any
) -> Example:
    pool = modules.Pooling(model.config.hidden_size, pooling_mode=pooling, include_prompt=False)
    return _example(dtype, [_transformer(model, tokenizer), pool, *following], **options)


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
    """BERT, weighted mean, prompt of queries not pooled"""
    tokenizer = vocabularies.bert()
    model = hub.BertModel(hub.BertConfig(**text_config(tokenizer)))
    return _sentences(dtype, model, tokenizer, "weightedmean", prompts={"query": "a photo of: "})


@family
def st_bert_two_prompts(dtype: torch.dtype) -> Example:
    """BERT, mean, prompts of queries and passages (E5)"""
    prompts = {"query": "a cup of: ", "document": "the sound of: "}
    return _example(dtype, [_bert(), modules.Pooling(24, pooling_mode="mean")], prompts=prompts)


@family
def st_router_first(dtype: torch.dtype) -> Example:
    """two transformers behind a router, normalised"""
    sides = [[_bert(seed), modules.Pooling(24, pooling_mode=mode)] for seed, mode in ((0, "mean"), (1, "cls"))]
    return _example(dtype, [modules.Router.for_query_document(*sides), modules.Normalize()])


@family
def st_router_last(dtype: torch.dtype) -> Example:
    """one transformer, two dense layers behind a router"""
    torch.manual_seed(0)
    heads = [[modules.Dense(24, 16)], [modules.Dense(24, 16)]]
    pool = modules.Pooling(24, pooling_mode="mean")
    return _example(dtype, [_bert(), pool, modules.Router.for_query_document(*heads)])


@family
def st_qwen_last(dtype: torch.dtype) -> Example:
    """Qwen, last token"""
    tokenizer = vocabularies.sentencepiece()
    sizes = dict(
        hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    )
    config = hub.Qwen3Config(vocab_size=len(tokenizer), head_dim=6, max_position_embeddings=40, **sizes)
    return _sentences(dtype, hub.Qwen3Model(config), tokenizer, "lasttoken", modules.Normalize(), truncate_dim=12)


@family
def st_static(dtype: torch.dtype) -> Example:
    """static embeddings, mean"""
    tokenizer = vocabularies.bert()
    torch.manual_seed(0)
    return _example(dtype, [modules.StaticEmbedding(tokenizer, embedding_dim=16), modules.Normalize()])


@family
def st_static_query(dtype: torch.dtype) -> Example:
    """static embeddings of queries, MiniLM for documents, truncated"""
    torch.manual_seed(0)
    static = modules.StaticEmbedding(vocabularies.bert(), embedding_dim=24)
    documents = [_bert(), modules.Pooling(24, pooling_mode="mean")]
    return _example(dtype, [modules.Router.for_query_document([static], documents)], truncate_dim=16)


@family
def st_word_embeddings(dtype: torch.dtype) -> Example:
    """word embeddings, weighted, mean"""
    torch.manual_seed(0)
    words = ["<pad>", *dict.fromkeys(" ".join(vocabularies.CORPUS).replace(",", "").split())]
    tokenizer = modules.tokenizer.WhitespaceTokenizer(words, stop_words=[])
    table = modules.WordEmbeddings(tokenizer, torch.randn(len(words), 16), max_seq_length=40)
    weights = modules.WordWeights(words, {word: 1 / len(word) for word in words})
    return _example(dtype, [table, weights, modules.Pooling(16, pooling_mode="mean")])


@family
def st_bag_of_words(dtype: torch.dtype) -> Example:
    """bag of words"""
    words = list(dict.fromkeys(" ".join(vocabularies.CORPUS).replace(",", "").split()))
    return _example(dtype, [modules.BoW(words, {word: len(word) / 4 for word in words})])


def _masked_words(seed: int = 0) -> modules.Transformer:
    tokenizer = vocabularies.bert()
    model = hub.BertForMaskedLM(hub.BertConfig(**text_config(tokenizer)))
    return _transformer(model, tokenizer, seed, transformer_task="fill-mask")


@family
def st_splade(dtype: torch.dtype) -> Example:
    """SPLADE, maximum"""
    return _example(dtype, [_masked_words(), sparse.SpladePooling("max")], st.SparseEncoder)


@family
def st_splade_inference_free(dtype: torch.dtype) -> Example:
    """SPLADE of documents, sum; static weights of the words of queries"""
    torch.manual_seed(0)
    tokenizer = vocabularies.bert()
    query = [sparse.SparseStaticEmbedding(tokenizer, torch.rand(len(tokenizer)))]
    document = [_masked_words(), sparse.SpladePooling("sum", activation_function="log1p_relu")]
    return _example(dtype, [modules.Router.for_query_document(query, document)], st.SparseEncoder)


def _multimodal(dtype: torch.dtype, name: str, **options: Any) -> Example:
    """A dual encoder of transformers as sentence-transformers runs it; images left, texts right."""
    example = FAMILIES[name](torch.float32)
    _FOLDERS.append(tempfile.TemporaryDirectory())
    save_hub(example, Path(_FOLDERS[-1].name))
    host = st.SentenceTransformer(modules=[modules.Transformer(_FOLDERS[-1].name), modules.Normalize()], **options)
    host = host.eval().to(dtype)

    def encode(raw: Any) -> Tensor:
        return host.encode(raw, convert_to_tensor=True).clone()

    return Example(ss.wrap(host), host, photographs(), CAPTIONS, encode, encode, normalised=True, parts=example.parts)


@family
def st_clip(dtype: torch.dtype) -> Example:
    """CLIP inside, images and texts"""
    return _multimodal(dtype, "hf-clip")


@family
def st_siglip_cut(dtype: torch.dtype) -> Example:
    """SigLIP inside, truncated"""
    return _multimodal(dtype, "hf-siglip", truncate_dim=16)
