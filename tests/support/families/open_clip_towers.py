"""Families of open_clip."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import open_clip
import torch
import transformers as hub
from timm.models import convnext, eva, swin_transformer, vision_transformer
from torch import Tensor, nn

import secondsight as ss
import vocabularies
from families.example import CAPTIONS, Example, family, photographs, settled, text_config

OPEN_VISION = {"image_size": 48, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8}
OPEN_TEXT = {"context_length": 24, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 3}


class HubTokenizer(open_clip.tokenizer.HFTokenizer):
    """open_clip's tokenizer around one of transformers that is already here."""

    def __init__(self, tokenizer: Any, context_length: int, clean: str = "whitespace") -> None:
        self.tokenizer, self.context_length = tokenizer, context_length
        self.tokenizer_mode, self.strip_sep_token = "", False
        self.clean_fn = open_clip.tokenizer.get_clean_fn(clean)


def _open(host: Any, dtype: torch.dtype, tokenizer: Any = None, size: int = 48, sharpness: float = 1.5) -> Example:
    host = settled(host, dtype, sharpness=sharpness)
    preprocess = open_clip.image_transform(size, is_train=False)
    tokenizer = tokenizer or open_clip.SimpleTokenizer(context_length=24)

    def left(image: Any) -> Tensor:
        return host.encode_image(preprocess(image)[None].to(dtype), normalize=False)[0]

    def right(text: str) -> Tensor:
        return host.encode_text(tokenizer([text]), normalize=False)[0]

    return Example(ss.wrap(host, preprocess, tokenizer), host, photographs(), CAPTIONS, left, right)


def _plain(dtype: torch.dtype, vision: Any = (), text: Any = (), **options: Any) -> Example:
    cfg = (OPEN_VISION | dict(vision), OPEN_TEXT | dict(text))
    return _open(open_clip.CLIP(16, *cfg, **options), dtype)


@family
def open_clip_vit(dtype: torch.dtype) -> Example:
    """ViT (OpenAI, LAION, DataComp, CommonPool, DFN)"""
    return _plain(dtype)


@family
def open_clip_quick_gelu(dtype: torch.dtype) -> Example:
    """ViT with quick GELU (OpenAI, MetaCLIP, DFN)"""
    return _plain(dtype, quick_gelu=True)


@family
def open_clip_average_pool(dtype: torch.dtype) -> Example:
    """ViT with average pool, text read at its end id"""
    vision = {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
    return _plain(dtype, vision, {"pool_type": "eos", "eos_id": 49407})


@family
def open_clip_resnet(dtype: torch.dtype) -> Example:
    """ModifiedResNet (RN50 …)"""
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 32}
    return _open(open_clip.CLIP(16, vision, OPEN_TEXT), dtype, size=64)


def _timm(dtype: torch.dtype, trunk: nn.Module, text: Any = (), tokenizer: Any = None, proj: bool = False) -> Example:
    cfg = OPEN_TEXT | dict(text)
    host = open_clip.CustomTextCLIP(32 if proj else trunk.num_features, OPEN_VISION, cfg)
    tower = open_clip.timm_model.TimmModel("test_vit", trunk.num_features, image_size=48, pool="", proj="none")
    tower.trunk = trunk
    if proj:
        tower.head = nn.Sequential(
            OrderedDict(drop=nn.Dropout(0.0), proj=nn.Linear(trunk.num_features, 32, bias=False))
        )
    host.visual = tower
    return _open(host, dtype, tokenizer)


_TRUNK = dict(img_size=48, patch_size=8, embed_dim=32, depth=3, num_heads=4, num_classes=0)


@family
def open_clip_siglip(dtype: torch.dtype) -> Example:
    """SigLIP through timm"""
    trunk = vision_transformer.VisionTransformer(**_TRUNK, class_token=False, global_pool="map")
    text = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "context_length": 40, "vocab_size": 43}
    tokenizer = HubTokenizer(vocabularies.sentencepiece(), 40, clean="canonicalize")
    return _timm(dtype, trunk, text, tokenizer)


@family
def open_clip_timm_registers(dtype: torch.dtype) -> Example:
    """timm ViT with register tokens"""
    trunk = vision_transformer.VisionTransformer(**_TRUNK, reg_tokens=2, init_values=0.5)
    return _timm(dtype, trunk, proj=True)


@family
def open_clip_timm_average(dtype: torch.dtype) -> Example:
    """timm ViT with average pool"""
    trunk = vision_transformer.VisionTransformer(**_TRUNK, class_token=False, reg_tokens=1, global_pool="avg")
    return _timm(dtype, trunk)


@family
def open_clip_eva(dtype: torch.dtype) -> Example:
    """EVA through timm"""
    trunk = eva.Eva(
        **_TRUNK, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True, global_pool="token"
    )
    return _timm(dtype, trunk, proj=True)


@family
def open_clip_convnext(dtype: torch.dtype) -> Example:
    """ConvNeXt through timm"""
    trunk = convnext.ConvNeXt(depths=(1, 1, 1, 2), dims=(8, 12, 16, 24), num_classes=0, ls_init_value=0.5)
    return _timm(dtype, trunk, proj=True)


@family
def open_clip_swin(dtype: torch.dtype) -> Example:
    """Swin through timm"""
    trunk = swin_transformer.SwinTransformer(
        img_size=48, patch_size=4, window_size=3, embed_dim=16, depths=(1, 2), num_heads=(2, 4), num_classes=0
    )
    return _timm(dtype, trunk, proj=True)


@family
def open_clip_coca(dtype: torch.dtype) -> Example:
    """CoCa"""
    vision = OPEN_VISION | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
    text = OPEN_TEXT | {"embed_cls": True, "output_tokens": True}
    multimodal = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    return _open(open_clip.CoCa(16, multimodal, text, vision), dtype)


@family
def open_clip_padding_mask(dtype: torch.dtype) -> Example:
    """texts with a padding mask"""
    # Only the tower itself takes this option.
    host = open_clip.CustomTextCLIP(16, OPEN_VISION, OPEN_TEXT)
    host.text = open_clip.transformer.TextTransformer(
        24, 49408, 24, 3, 3, output_dim=16, no_causal_mask=True, use_pad_mask=True, pool_type="argmax"
    )
    return _open(host, dtype)


def _hub_text(dtype: torch.dtype, config: Any, pooler: str, proj: str, tokenizer: Any) -> Example:
    host = open_clip.CustomTextCLIP(16, OPEN_VISION, OPEN_TEXT)
    host.text = open_clip.hf_model.HFTextEncoder("", 16, config=config, pooler_type=pooler, proj_type=proj)
    return _open(host, dtype, HubTokenizer(tokenizer, 24))


@family
def open_clip_roberta_text(dtype: torch.dtype) -> Example:
    """RoBERTa text tower"""
    tokenizer = vocabularies.roberta()
    config = hub.XLMRobertaConfig(**text_config(tokenizer), type_vocab_size=1)
    return _hub_text(dtype, config, "mean_pooler", "mlp", tokenizer)


@family
def open_clip_bert_text(dtype: torch.dtype) -> Example:
    """BERT text tower"""
    tokenizer = vocabularies.bert()
    return _hub_text(dtype, hub.BertConfig(**text_config(tokenizer)), "cls_pooler", "linear", tokenizer)


@family
def open_clip_mt5_text(dtype: torch.dtype) -> Example:
    """mT5 text tower"""
    tokenizer = vocabularies.sentencepiece()
    config = hub.MT5Config(vocab_size=len(tokenizer), d_model=24, d_kv=8, d_ff=40, num_layers=3, num_heads=3)
    host = open_clip.CustomTextCLIP(16, OPEN_VISION, OPEN_TEXT)
    host.text = open_clip.hf_model.HFTextEncoder("", 16, config=config, pooler_type="mean_pooler", proj_type="linear")
    host.text.transformer = host.text.transformer.encoder
    # T5 does not divide its scores by the square root of their width.
    return _open(host, dtype, HubTokenizer(tokenizer, 40), sharpness=0.8)


@family
def open_clip_nllb_text(dtype: torch.dtype) -> Example:
    """NLLB text tower"""
    tokenizer = vocabularies.roberta()
    sizes = dict(d_model=24, encoder_layers=3, encoder_attention_heads=3, encoder_ffn_dim=40)
    sizes |= dict(decoder_layers=1, decoder_attention_heads=3)
    config = hub.M2M100Config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)
    host = open_clip.CustomTextCLIP(16, OPEN_VISION, OPEN_TEXT)
    host.text = open_clip.hf_model.HFTextEncoder("", 16, config=config, pooler_type="cls_pooler", proj_type="linear")
    host.text.transformer = host.text.transformer.encoder
    return _open(host, dtype, HubTokenizer(tokenizer, 24))
