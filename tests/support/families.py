"""Every family that secondsight knows, as a small random model with the family's own preprocessing.

To add a family, add a builder to `FAMILIES`: the conformance suite and the generated table in docs/families.md follow.
"""

from __future__ import annotations

import copy
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import sentence_transformers as st
import torch
import transformers as hub
from PIL import Image
from sentence_transformers.sentence_transformer import modules
from timm.models import convnext, eva, swin_transformer, vision_transformer
from torch import Tensor, nn
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

import secondsight as ss
import vocabularies
from secondsight.encoders.families.transformers import sizes_can_be_read

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
CAPTIONS = ["a cup of coffee and a spoon on a wooden table", "two dogs play with a frisbee"]


@dataclass(frozen=True)
class Example:
    """A model with inputs of both sides, and the host's own embeddings of them, not normalised."""

    model: ss.DualEncoder
    host: nn.Module
    left: list[Any]
    right: list[Any]
    host_left: Callable[[Any], Tensor]
    host_right: Callable[[Any], Tensor]
    # Cosine models whose own functions normalise are compared after normalising both.
    normalised: bool = False
    # The image processor or feature extractor, and the tokenizer.
    parts: tuple[Any, ...] = ()


FAMILIES: dict[str, Callable[[torch.dtype], Example]] = {}


def family(build: Callable[[torch.dtype], Example]) -> Callable[[torch.dtype], Example]:
    """List a builder under its function's name; its docstring is the family's title in the docs."""
    FAMILIES[build.__name__.replace("_", "-")] = build
    return build


@cache
def photographs() -> list[Image.Image]:
    """Two photographs of different shapes."""
    whole = Image.open(PHOTO).convert("RGB")
    return [whole, whole.crop((whole.width // 2, 0, whole.width, whole.height)).resize((150, 240))]


def _settled(model: nn.Module, dtype: torch.dtype, seed: int = 0, sharpness: float = 1.5) -> nn.Module:
    """Weights of one size whatever the library's initialisation: sharp attention, far from linear."""
    generator = torch.Generator().manual_seed(seed)

    def random(tensor: Tensor, scale: float, middle: float = 0.0) -> None:
        tensor.copy_(middle + scale * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            random(parameter, sharpness / fan**0.5 if parameter.ndim > 1 else 0.3)
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                random(module.weight, 1.0)
            elif "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
                random(module.weight, 0.2, 1.0)
            if isinstance(module, nn.BatchNorm2d):
                random(module.running_mean, 0.2)
                module.running_var.fill_(1.0).add_(0.2)
        for name in ("logit_scale", "logit_scale_a", "logit_scale_t", "temperature"):
            if isinstance(getattr(model, name, None), Tensor):
                getattr(model, name).fill_(2.0)
    return model.eval().to(dtype)


# transformers -------------------------------------------------------------------------------------------------------

VISION = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=48, patch_size=8
)
TEXT = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3)


def _hub(model: nn.Module, images: Any, tokenizer: Any, dtype: torch.dtype, **padded: Any) -> Example:
    host: Any = _settled(model, dtype)
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


@dataclass
class Pair:
    """An image processor and a tokenizer together, as processors of transformers have them."""

    image_processor: Any
    tokenizer: Any


def _text(tokenizer: Any, positions: int = 32, **options: Any) -> dict[str, Any]:
    ids = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    ids |= dict(bos_token_id=tokenizer.bos_token_id)
    return TEXT | ids | dict(vocab_size=len(tokenizer), max_position_embeddings=positions) | options


def _resized(**options: Any) -> Any:
    return hub.CLIPImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}, **options)


@family
def hf_clip(dtype: torch.dtype) -> Example:
    """CLIP"""
    tokenizer = vocabularies.clip()
    text = _text(tokenizer, 24, hidden_act="quick_gelu")
    config = hub.CLIPConfig(vision_config=VISION | dict(hidden_act="quick_gelu"), text_config=text, projection_dim=16)
    return _hub(hub.CLIPModel(config), _resized(), tokenizer, dtype)


@family
def hf_siglip(dtype: torch.dtype) -> Example:
    """SigLIP"""
    tokenizer = vocabularies.sentencepiece()
    text = _text(tokenizer, 40, projection_size=32)
    config = hub.SiglipConfig(vision_config=VISION, text_config=text)
    images = hub.SiglipImageProcessor(size={"height": 48, "width": 48})
    return _hub(hub.SiglipModel(config), images, tokenizer, dtype, padding="max_length", max_length=40)


@family
def hf_siglip2_naflex(dtype: torch.dtype) -> Example:
    """SigLIP 2, NaFlex"""
    tokenizer = vocabularies.sentencepiece()
    vision = VISION | dict(num_patches=36)
    del vision["image_size"]
    config = hub.Siglip2Config(vision_config=vision, text_config=_text(tokenizer, 40, projection_size=32))
    images = hub.Siglip2ImageProcessor(patch_size=8, max_num_patches=40)
    return _hub(hub.Siglip2Model(config), images, tokenizer, dtype, padding="max_length", max_length=40)


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
    config = hub.AlignConfig(vision_config=vision, text_config=_text(tokenizer), projection_dim=24)
    images = hub.EfficientNetImageProcessor(
        size={"height": 32, "width": 32}, do_center_crop=False, rescale_offset=False, include_top=False
    )
    return _hub(hub.AlignModel(config), images, tokenizer, dtype)


@family
def hf_altclip(dtype: torch.dtype) -> Example:
    """AltCLIP"""
    tokenizer = vocabularies.roberta()
    config = hub.AltCLIPConfig(
        vision_config=VISION, text_config=_text(tokenizer, project_dim=20, type_vocab_size=1), projection_dim=16
    )
    return _hub(hub.AltCLIPModel(config), _resized(), tokenizer, dtype)


@family
def hf_chinese_clip(dtype: torch.dtype) -> Example:
    """Chinese-CLIP"""
    tokenizer = vocabularies.bert()
    config = hub.ChineseCLIPConfig(vision_config=VISION, text_config=_text(tokenizer), projection_dim=16)
    return _hub(hub.ChineseCLIPModel(config), _resized(), tokenizer, dtype)


@family
def hf_blip(dtype: torch.dtype) -> Example:
    """BLIP, contrastive head"""
    tokenizer = vocabularies.bert()
    text = _text(tokenizer, encoder_hidden_size=32)
    config = hub.BlipConfig(vision_config=VISION, text_config=text, image_text_hidden_size=16)
    host: Any = _settled(hub.BlipForImageTextRetrieval(config), dtype)
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
    config = hub.ClapConfig(audio_config=audio, text_config=_text(tokenizer, type_vocab_size=1), projection_dim=16)
    host: Any = _settled(hub.ClapModel(config), dtype)
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


# open_clip ----------------------------------------------------------------------------------------------------------

OPEN_VISION = {"image_size": 48, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8}
OPEN_TEXT = {"context_length": 24, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 3}


class HubTokenizer(open_clip.tokenizer.HFTokenizer):
    """open_clip's tokenizer around one of transformers that is already here."""

    def __init__(self, tokenizer: Any, context_length: int, clean: str = "whitespace") -> None:
        self.tokenizer, self.context_length = tokenizer, context_length
        self.tokenizer_mode, self.strip_sep_token = "", False
        self.clean_fn = open_clip.tokenizer.get_clean_fn(clean)


def _open(host: Any, dtype: torch.dtype, tokenizer: Any = None, size: int = 48, sharpness: float = 1.5) -> Example:
    host = _settled(host, dtype, sharpness=sharpness)
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
    config = hub.XLMRobertaConfig(**_text(tokenizer), type_vocab_size=1)
    return _hub_text(dtype, config, "mean_pooler", "mlp", tokenizer)


@family
def open_clip_bert_text(dtype: torch.dtype) -> Example:
    """BERT text tower"""
    tokenizer = vocabularies.bert()
    return _hub_text(dtype, hub.BertConfig(**_text(tokenizer)), "cls_pooler", "linear", tokenizer)


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


# sentence-transformers ----------------------------------------------------------------------------------------------


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def _sentences(
    dtype: torch.dtype, model: nn.Module, tokenizer: Any, pooling: str, *following: nn.Module, **options: Any
) -> Example:
    # The library builds its transformer module from a folder only, which it may read again when it is saved.
    _FOLDERS.append(tempfile.TemporaryDirectory())
    path = _FOLDERS[-1].name
    _settled(model, torch.float32).save_pretrained(path)
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
    return _sentences(dtype, hub.BertModel(hub.BertConfig(**_text(tokenizer))), tokenizer, "mean", modules.Normalize())


@family
def st_mpnet_dense(dtype: torch.dtype) -> Example:
    """MPNet, mean, dense layer"""
    tokenizer = vocabularies.roberta()
    model = hub.MPNetModel(hub.MPNetConfig(**_text(tokenizer)))
    return _sentences(dtype, model, tokenizer, "mean", modules.Dense(24, 16))


@family
def st_roberta_cls_dot(dtype: torch.dtype) -> Example:
    """RoBERTa, first token, dot product"""
    tokenizer = vocabularies.roberta()
    model = hub.RobertaModel(hub.RobertaConfig(**_text(tokenizer), type_vocab_size=1))
    return _sentences(dtype, model, tokenizer, "cls", modules.Dense(24, 20), similarity_fn_name="dot")


@family
def st_bert_weighted_prompt(dtype: torch.dtype) -> Example:
    """BERT, weighted mean, prompt"""
    tokenizer = vocabularies.bert()
    model = hub.BertModel(hub.BertConfig(**_text(tokenizer)))
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


def save_hub(example: Example, folder: Path) -> None:
    """A model of transformers and its processor, as a hub has them."""
    example.host.save_pretrained(folder)
    processor = getattr(hub, PROCESSOR_MAPPING_NAMES[example.host.config.model_type])
    # Saving writes the processor's name into the tokenizer object.
    processor(*copy.deepcopy(example.parts)).save_pretrained(folder)


if not sizes_can_be_read():  # an old torch, which test_hosts asks for the sentence that says so
    del FAMILIES["hf-siglip2-naflex"]
