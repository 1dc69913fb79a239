"""Families of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers as hub
from torch import Tensor, nn

import secondsight as ss
import vocabularies
from families.example import (
    CAPTIONS,
    FAMILIES,
    VISION,
    Example,
    Pair,
    family,
    photographs,
    resized,
    settled,
    text_config,
)
from secondsight.encoders.families.transformers.encoders import sizes_can_be_read


def wrapped(model: nn.Module, images: Any, tokenizer: Any, dtype: torch.dtype, **padded: Any) -> Example:
    host: Any = settled(model, dtype)
    processor = Pair(images, tokenizer)

    def left(image: Any) -> Tensor:
        features = images(images=image, return_tensors="pt")
        return host.get_image_features(**{k: v.to(dtype) if v.is_floating_point() else v for k, v in features.items()})

    def right(text: str) -> Tensor:
        encoding = tokenizer(text, return_tensors="pt", **padded)
        keys = ("input_ids",) if padded else ("input_ids", "attention_mask")
        return host.get_text_features(**{k: encoding[k] for k in keys})

    def pooled(function: Callable[[Any], Any]) -> Callable[[Any], Tensor]:
        return lambda raw: function(raw).pooler_output[0]

    model = ss.wrap(host, processor)
    return Example(model, host, photographs(), CAPTIONS, pooled(left), pooled(right), parts=(images, tokenizer))


@family
def hf_clip(dtype: torch.dtype) -> Example:
    """CLIP"""
    tokenizer = vocabularies.clip()
    text = text_config(tokenizer, 24, hidden_act="quick_gelu")
    config = hub.CLIPConfig(vision_config=VISION | dict(hidden_act="quick_gelu"), text_config=text, projection_dim=16)
    return wrapped(hub.CLIPModel(config), resized(), tokenizer, dtype)


@family
def hf_siglip(dtype: torch.dtype) -> Example:
    """SigLIP"""
    tokenizer = vocabularies.sentencepiece()
    text = text_config(tokenizer, 40, projection_size=32)
    config = hub.SiglipConfig(vision_config=VISION, text_config=text)
    images = hub.SiglipImageProcessor(size={"height": 48, "width": 48})
    return wrapped(hub.SiglipModel(config), images, tokenizer, dtype, padding="max_length", max_length=40)


@family
def hf_siglip2_naflex(dtype: torch.dtype) -> Example:
    """SigLIP 2, NaFlex"""
    tokenizer = vocabularies.sentencepiece()
    vision = VISION | dict(num_patches=36)
    del vision["image_size"]
    config = hub.Siglip2Config(vision_config=vision, text_config=text_config(tokenizer, 40, projection_size=32))
    images = hub.Siglip2ImageProcessor(patch_size=8, max_num_patches=40)
    return wrapped(hub.Siglip2Model(config), images, tokenizer, dtype, padding="max_length", max_length=40)


@family
def hf_align(dtype: torch.dtype) -> Example:
    """ALIGN"""
    tokenizer = vocabularies.bert()
    vision = dict(
        image_size=32,
        hidden_dim=16,
        kernel_sizes=[3, 3],
        in_channels=[32, 16],
        out_channels=[16, 24],
        depthwise_padding=[],
        strides=[1, 2],
        num_block_repeats=[1, 2],
        expand_ratios=[1, 4],
        num_hidden_layers=3,
        width_coefficient=1.0,
        depth_coefficient=1.0,
    )
    config = hub.AlignConfig(vision_config=vision, text_config=text_config(tokenizer), projection_dim=24)
    images = hub.EfficientNetImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, rescale_offset=False, include_top=False
    )
    return wrapped(hub.AlignModel(config), images, tokenizer, dtype)


@family
def hf_altclip(dtype: torch.dtype) -> Example:
    """AltCLIP"""
    tokenizer = vocabularies.roberta()
    config = hub.AltCLIPConfig(
        vision_config=VISION, text_config=text_config(tokenizer, project_dim=20, type_vocab_size=1), projection_dim=16
    )
    return wrapped(hub.AltCLIPModel(config), resized(), tokenizer, dtype)


@family
def hf_chinese_clip(dtype: torch.dtype) -> Example:
    """Chinese-CLIP"""
    tokenizer = vocabularies.bert()
    config = hub.ChineseCLIPConfig(vision_config=VISION, text_config=text_config(tokenizer), projection_dim=16)
    return wrapped(hub.ChineseCLIPModel(config), resized(), tokenizer, dtype)


@family
def hf_blip(dtype: torch.dtype) -> Example:
    """BLIP, contrastive head"""
    tokenizer = vocabularies.bert()
    text = text_config(tokenizer, encoder_hidden_size=32)
    config = hub.BlipConfig(vision_config=VISION, text_config=text, image_text_hidden_size=16)
    host: Any = settled(hub.BlipForImageTextRetrieval(config), dtype)
    images = hub.BlipImageProcessor(size={"height": 48, "width": 48})

    def scores(image: Any, text: str) -> tuple[Tensor, Tensor]:
        vision = host.vision_model(images(images=image, return_tensors="pt")["pixel_values"].to(dtype))
        words = host.text_encoder(**tokenizer(text, return_tensors="pt").data)
        return host.vision_proj(vision[0][0, 0]), host.text_proj(words[0][0, 0])

    return Example(
        ss.wrap(host, Pair(images, tokenizer)),
        host,
        photographs(),
        CAPTIONS,
        lambda image: scores(image, CAPTIONS[0])[0],
        lambda text: scores(photographs()[0], text)[1],
        parts=(images, tokenizer),
    )


def sounds() -> list[np.ndarray]:
    """Two sounds of half a second and of a whole one, at 8 kHz."""
    t = np.arange(8000) / 8000
    generator = np.random.default_rng(0)
    return [np.sin(2 * np.pi * (300 + 900 * t) * t)[:4000], generator.normal(size=8000) * np.exp(-4 * t)]


def _clap(dtype: torch.dtype, fusion: bool) -> Example:
    tokenizer = vocabularies.roberta()
    audio = dict(
        spec_size=32,
        num_mel_bins=8,
        patch_size=4,
        patch_stride=[4, 4],
        patch_embeds_hidden_size=8,
        hidden_size=16,
        depths=[1, 2],
        num_attention_heads=[2, 4],
        window_size=4,
        enable_fusion=fusion,
        num_hidden_layers=2,
    )
    config = hub.ClapConfig(
        audio_config=audio, text_config=text_config(tokenizer, type_vocab_size=1), projection_dim=16
    )
    host: Any = settled(hub.ClapModel(config), dtype)
    extractor = hub.ClapFeatureExtractor(
        feature_size=8,
        sampling_rate=8000,
        hop_length=64,
        fft_window_size=256,
        max_length_s=1,
        frequency_max=4000,
        truncation="fusion" if fusion else "rand_trunc",
    )

    def left(sound: Any) -> Tensor:
        features = extractor(sound, sampling_rate=8000, return_tensors="pt")
        out = host.get_audio_features(features["input_features"].to(dtype), is_longer=features["is_longer"])
        return out.pooler_output[0]

    def right(text: str) -> Tensor:
        return host.get_text_features(**tokenizer(text, return_tensors="pt").data).pooler_output[0]

    model = ss.wrap(host, extractor, tokenizer)
    return Example(model, host, sounds(), CAPTIONS, left, right, normalised=True, parts=(extractor, tokenizer))


@family
def hf_clap(dtype: torch.dtype) -> Example:
    """CLAP"""
    return _clap(dtype, fusion=False)


@family
def hf_clap_fusion(dtype: torch.dtype) -> Example:
    """CLAP, feature fusion"""
    return _clap(dtype, fusion=True)


if not sizes_can_be_read():  # an old torch, which test_hosts asks for the sentence that says so
    del FAMILIES["hf-siglip2-naflex"]
