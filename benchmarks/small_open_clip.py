"""open_clip's configurations made small: random weights, narrow towers of few blocks, the architecture itself as it was.

Kept are pooling, norms, activation, class tokens, masks, projections, convolutional stems, CoCa's pool and class token, and
the kind of timm trunk and of hub text model. Tokenizers that come from a hub are replaced by small ones of the same kind.
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import open_clip
import timm
import torch
import transformers
from PIL import Image
from timm.models.vitamin import VitCfg, VitConvCfg
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import vocabularies
from families import settled

PHOTO = Path(__file__).parents[1] / "examples" / "coffee.jpg"

WIDTH = 32
EMBEDDING = 16
PATCHES = 4
"""Patches along an image's side, of towers that cut it into patches."""

_BLOCKS = {"embed_dim": WIDTH, "depth": 3, "num_heads": 4}
_STEM = VitCfg((8, 16, WIDTH), (1, 1, 1), 8, VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6), "1d")
TRUNKS: dict[str, tuple[int, dict[str, Any]]] = {
    "convnext": (96, {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, WIDTH)}),
    "fastvit_mci[012]": (96, {"layers": (1, 1, 2, 1), "embed_dims": (8, 16, 16, WIDTH)}),
    "fastvit_mci[34]": (128, {"layers": (1, 1, 2, 1, 1), "embed_dims": (8, 16, 16, WIDTH, WIDTH)}),
    "swin": (64, {"img_size": 64, "depths": (2, 1, 2, 1), "embed_dim": 8, "num_heads": (1, 2, 2, 4), "window_size": 4}),
    # The width of its convolutional stem is fixed.
    "vit_base_mci": (64, {"img_size": 64, "depth": 2}),
    "vitamin": (64, {"img_size": 64, "embed_cfg": _STEM, **_BLOCKS}),
    "vit_relpos": (0, {"rel_pos_dim": 16, **_BLOCKS}),
    "vit_pe_core": (0, {"attn_pool_num_heads": 4, **_BLOCKS}),
    "(vit|eva)": (0, _BLOCKS),
}
"""How timm's trunks whose names begin so are made small: the image's size (0: `PATCHES` along a side), timm's options."""


def small_open_clip(name: str) -> tuple[nn.Module, Any, Any]:
    """A small model of one of open_clip's configurations with random weights, its preprocessing and its tokenizer."""
    config = open_clip.get_model_config(name)
    vision, trunk = _vision(config["vision_cfg"])
    text = _text(config["text_cfg"])
    # Without a projection the trunk's width is the embedding's.
    embedding = WIDTH if vision.get("timm_proj") == "none" else EMBEDDING
    options = {"vision_cfg": vision, "text_cfg": text, "embed_dim": embedding}
    if "multimodal_cfg" in config:
        small = {"width": 16, "heads": 2, "layers": 1, "attn_pooler_heads": 2}
        options["multimodal_cfg"] = config["multimodal_cfg"] | small
    with _trunks_with(trunk):
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, load_weights=False, pretrained_image=False, pretrained_text=False, **options
        )
    settled(model, torch.float32)
    _fit_batch_norms(model.visual, preprocess(Image.open(PHOTO).convert("RGB"))[None])
    return model, preprocess, _tokenizer(text)


def _fit_batch_norms(tower: nn.Module, pixels: Tensor) -> None:
    """Statistics of batch norms as training leaves them; with random ones activations grow without bound."""
    norms = [module for module in tower.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    if norms:
        with torch.no_grad():
            tower(torch.cat([pixels, -pixels]))
    tower.eval()


def _vision(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The image tower's configuration, and the options of its timm trunk."""
    name = config.get("timm_model_name")
    if name is not None:
        size, trunk = next(value for pattern, value in TRUNKS.items() if re.match(pattern, name))
        if not size:
            size = PATCHES * int(re.search(r"patch(\d+)", name)[1])
            trunk = trunk | {"img_size": size}
        return dict(config) | {"image_size": size, "timm_model_pretrained": False}, trunk
    if isinstance(config["layers"], list):
        return dict(config) | {"layers": [1, 1, 2, 1], "width": 8, "image_size": 96}, {}
    small = {"layers": 3, "width": WIDTH, "head_width": 8, "image_size": PATCHES * config["patch_size"]}
    return dict(config) | small | ({"attn_pooler_queries": 8} if config.get("attentional_pool") else {}), {}


@contextmanager
def _trunks_with(options: Mapping[str, Any]) -> Iterator[None]:
    """timm builds its models with these options, which open_clip's configurations have no place for."""
    create = timm.create_model
    with mock.patch.object(timm, "create_model", lambda name, **given: create(name, **given, **options)):
        yield


# Text ----------------------------------------------------------------------------------------------------------------

_BERT = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3}
_MT5 = {"d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 3}
_M2M = {"d_model": 24, "encoder_ffn_dim": 40, "encoder_layers": 3, "encoder_attention_heads": 3}
_M2M |= {"decoder_layers": 1, "decoder_attention_heads": 3}
_ONE_TYPE = {"max_position_embeddings": 514, "type_vocab_size": 1}
HUB_MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "roberta": ("RobertaConfig", _BERT | _ONE_TYPE, "roberta"),
    "xlm": ("XLMRobertaConfig", _BERT | _ONE_TYPE, "roberta"),
    "bert": ("BertConfig", _BERT, "bert"),
    "mt5": ("MT5Config", _MT5, "sentencepiece"),
    "nllb": ("M2M100Config", _M2M, "roberta"),
    "ViT": ("SiglipTextConfig", _BERT, "sentencepiece"),
}
"""How the hub's text models and tokenizers whose names begin so are made small: configuration, sizes, kind of vocabulary."""


def _text(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text tower's configuration; what comes from a hub comes from a folder instead."""
    width, heads = (WIDTH, 4) if config.get("proj_type") == "none" else (24, 3)
    small = dict(config) | {"hf_model_pretrained": False, "layers": 3, "width": width, "heads": heads}
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if key in config:
            small[key], small["vocab_size"] = _hub_folder(config[key].split("/")[-1])
    return small


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _hub_folder(name: str) -> tuple[str, int]:
    """A folder with a small model's configuration and a small tokenizer, as a hub has them, and the number of tokens."""
    kind, sizes, vocabulary = next(value for prefix, value in HUB_MODELS.items() if name.startswith(prefix))
    tokenizer = getattr(vocabularies, vocabulary)()
    ids = {key: getattr(tokenizer, key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    _FOLDERS.append(tempfile.TemporaryDirectory())
    folder = _FOLDERS[-1].name
    getattr(transformers, kind)(vocab_size=len(tokenizer), **sizes, **ids).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, len(tokenizer)


def _tokenizer(config: Mapping[str, Any]) -> Any:
    """The tokenizer of a text tower's configuration, as open_clip makes it."""
    length = config.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    if "hf_tokenizer_name" not in config:
        return open_clip.SimpleTokenizer(context_length=length)
    options = config.get("tokenizer_kwargs", {})
    return open_clip.tokenizer.HFTokenizer(config["hf_tokenizer_name"], context_length=length, **options)


# Names ---------------------------------------------------------------------------------------------------------------

_TRUNK_NAMES = {
    "convnext": "ConvNeXt",
    "eva": "EVA",
    "fastvit": "FastViT",
    "swin": "Swin",
    "vit_base_mci": "ViT with a convolutional stem",
    "vit_pe_core": "PE",
    "vit_relpos": "ViT with relative positions",
    "vitamin": "ViTamin",
    "vit": "ViT",
}


def towers(name: str) -> tuple[str, str]:
    """What a configuration's image and text tower are, in a few words."""
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    trunk = vision.get("timm_model_name")
    if trunk is not None:
        image = "timm " + next(title for prefix, title in _TRUNK_NAMES.items() if trunk.startswith(prefix))
    else:
        image = "ModifiedResNet" if isinstance(vision["layers"], list) else "ViT"
    hub = text.get("hf_model_name")
    words = "transformer" if hub is None else hub.split("/")[-1]
    return image, f"{words}, CoCa" if "multimodal_cfg" in config else words
