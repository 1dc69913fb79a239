"""Small tokenizers of every kind, made here: real ones come from hubs."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

import open_clip
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

CORPUS = (
    "a cup of coffee and a spoon on a wooden table",
    "two dogs play with a red frisbee in the park",
    "a photo of a cat",
    "a photo of a dog, seen from above",
    "the sound of rain on a roof",
)


def _fast(tokenizer: Tokenizer, **special_tokens: str | int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special_tokens)


@cache
def clip() -> CLIPTokenizer:
    """CLIP's own vocabulary, which open_clip carries, cut to its first merges."""
    path = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1:2001]
    symbols = list(open_clip.tokenizer.bytes_to_unicode().values())
    symbols += [s + "</w>" for s in symbols] + ["".join(line.split()) for line in lines]
    vocab = {s: i for i, s in enumerate(dict.fromkeys([*symbols, "<|startoftext|>", "<|endoftext|>"]))}
    return CLIPTokenizer(vocab=vocab, merges=[tuple(line.split()) for line in lines], model_max_length=24)


@cache
def bert() -> PreTrainedTokenizerFast:
    """Pieces of lower-case words between [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    return _fast(tokenizer, **names, model_max_length=24)


@cache
def roberta() -> PreTrainedTokenizerFast:
    """Pairs of bytes between <s> and </s>, spaces being part of the words behind them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.decoder = decoders.ByteLevel()
    names = dict(bos_token="<s>", cls_token="<s>", pad_token="<pad>", eos_token="</s>", sep_token="</s>")
    return _fast(tokenizer, **names, unk_token="<unk>", mask_token="<mask>", model_max_length=24)


@cache
def sentencepiece() -> PreTrainedTokenizerFast:
    """As T5's, which SigLIP uses: words, then an end token, no start."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.decoder = decoders.Metaspace()
    return _fast(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=40)


def byte_pairs(padding: str, end: str, start: str, *others: str) -> PreTrainedTokenizerFast:
    """Pairs of bytes as large language models have them, nothing being put around a text; made anew for every call."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = [padding, end, start, *others]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340 + len(special), special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    names = dict(pad_token=padding, eos_token=end, bos_token=start, extra_special_tokens=list(others))
    return _fast(tokenizer, **names)
