"""More families of transformers: CLIP's kin, and models that hold a dual encoder beside something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import transformers as hub
from torch import Tensor, nn

import secondsight as ss
import vocabularies
from families.example import CAPTIONS, TEXT, VISION, Example, family, resized, settled, text_config
from families.hub import wrapped

SQUARE = {"size": {"height": 32, "width": 32}}
IMAGES = VISION | dict(image_size=32, num_hidden_layers=2)
SHORT = dict(num_hidden_layers=2)


@family
def hf_metaclip_2(dtype: torch.dtype) -> Example:
    """MetaCLIP 2"""
    tokenizer = vocabularies.roberta()
    config = hub.MetaClip2Config(
        vision_config=IMAGES, text_config=text_config(tokenizer, eos_token_id=2, **SHORT), projection_dim=16
    )
    return wrapped(hub.MetaClip2Model(config), resized(32), tokenizer, dtype)


@family
def hf_clipseg(dtype: torch.dtype) -> Example:
    """CLIPSeg, its CLIP"""
    tokenizer = vocabularies.clip()
    vision, text = IMAGES | dict(image_size=48), text_config(tokenizer, 24, **SHORT)
    config = hub.CLIPSegConfig(vision_config=vision, text_config=text, projection_dim=16)
    return wrapped(hub.CLIPSegModel(config), hub.ViTImageProcessor(**SQUARE), tokenizer, dtype)


def _detector(config: type, model: type, images: Any, dtype: torch.dtype) -> Example:
    tokenizer = vocabularies.clip()
    sizes = config(vision_config=IMAGES, text_config=text_config(tokenizer, 24, **SHORT), projection_dim=16)
    return wrapped(model(sizes), images, tokenizer, dtype)


@family
def hf_owlvit(dtype: torch.dtype) -> Example:
    """OWL-ViT, whole images"""
    return _detector(hub.OwlViTConfig, hub.OwlViTModel, hub.OwlViTImageProcessor(**SQUARE), dtype)


@family
def hf_owlv2(dtype: torch.dtype) -> Example:
    """OWLv2, whole images"""
    example = _detector(hub.Owlv2Config, hub.Owlv2Model, hub.Owlv2ImageProcessor(**SQUARE), dtype)
    # Its processor blurs before it resizes, which takes long for large pictures.
    return replace(example, left=[photograph.resize((120, 90)) for photograph in example.left])


@family
def hf_groupvit(dtype: torch.dtype) -> Example:
    """GroupViT"""
    tokenizer = vocabularies.clip()
    groups = dict(depths=[2, 1, 1], num_group_tokens=[5, 3, 0], num_output_groups=[5, 3, 3])
    sizes = dict(projection_dim=16, projection_intermediate_dim=20)
    config = hub.GroupViTConfig(vision_config=IMAGES | groups, text_config=text_config(tokenizer, 24, **SHORT), **sizes)
    return wrapped(hub.GroupViTModel(config), resized(32), tokenizer, dtype)


@family
def hf_flava(dtype: torch.dtype) -> Example:
    """FLAVA, contrastive heads"""
    tokenizer = vocabularies.bert()
    text = text_config(tokenizer, hidden_size=32, num_attention_heads=4, **SHORT)
    sizes = dict(image_config=IMAGES, text_config=text, multimodal_config=IMAGES, hidden_size=32, projection_dim=16)
    config = hub.FlavaConfig(**sizes)
    images = hub.FlavaImageProcessor(**SQUARE, do_center_crop=False)
    example = wrapped(hub.FlavaModel(config), images, tokenizer, dtype)
    # Its features are the projections of all positions; the contrastive logits read the first.
    left, right = example.host_left, example.host_right
    return replace(example, host_left=lambda image: left(image)[0], host_right=lambda text: right(text)[0])


@family
def hf_aimv2(dtype: torch.dtype) -> Example:
    """AIMv2"""
    tokenizer = vocabularies.clip()
    vision = IMAGES | dict(use_head=True, is_native=False)
    config = hub.Aimv2Config(vision_config=vision, text_config=text_config(tokenizer, 24, **SHORT), projection_dim=16)
    # Other implementations leave out the causal mask of texts that come alone.
    host = hub.Aimv2Model._from_config(config, attn_implementation="eager")
    return wrapped(host, resized(32), tokenizer, dtype)


@family
def hf_tipsv2(dtype: torch.dtype) -> Example:
    """TIPSv2"""
    tokenizer = vocabularies.sentencepiece()
    vision = IMAGES | dict(num_register_tokens=2, mlp_ratio=2)
    del vision["intermediate_size"]
    text = text_config(tokenizer, 40, hidden_size=32, num_attention_heads=4, **SHORT)
    config = hub.Tipsv2Config(vision_config=vision, text_config=text)
    return wrapped(hub.Tipsv2Model(config), hub.Tipsv2ImageProcessor(**SQUARE), tokenizer, dtype)


def _joined(vision: Any, text: Any, images: Any, tokenizer: Any, dtype: torch.dtype) -> Example:
    """A model put together from any two towers."""
    host = hub.VisionTextDualEncoderModel(vision_model=vision, text_model=text)
    return wrapped(host, images, tokenizer, dtype)


@family
def hf_joined_vit_bert(dtype: torch.dtype) -> Example:
    """VisionTextDualEncoder of ViT and BERT"""
    tokenizer = vocabularies.bert()
    vision = hub.ViTModel(hub.ViTConfig(**IMAGES, pooler_output_size=32))
    text = hub.BertModel(hub.BertConfig(**text_config(tokenizer, **SHORT)))
    return _joined(vision, text, hub.ViTImageProcessor(**SQUARE), tokenizer, dtype)


@family
def hf_joined_dinov2_roberta(dtype: torch.dtype) -> Example:
    """VisionTextDualEncoder of DINOv2 and RoBERTa"""
    tokenizer = vocabularies.roberta()
    config = hub.Dinov2WithRegistersConfig(**IMAGES, num_register_tokens=2, mlp_ratio=2)
    text = hub.RobertaModel(hub.RobertaConfig(**text_config(tokenizer, **SHORT), type_vocab_size=1))
    return _joined(hub.Dinov2WithRegistersModel(config), text, resized(32), tokenizer, dtype)


@family
def hf_joined_swin_mpnet(dtype: torch.dtype) -> Example:
    """VisionTextDualEncoder of Swin and MPNet"""
    tokenizer = vocabularies.roberta()
    sizes = dict(image_size=32, patch_size=4, embed_dim=12, depths=[1, 2], num_heads=[2, 4], window_size=4)
    text = hub.MPNetModel(hub.MPNetConfig(**text_config(tokenizer, **SHORT)))
    return _joined(hub.SwinModel(hub.SwinConfig(**sizes)), text, hub.ViTImageProcessor(**SQUARE), tokenizer, dtype)


@family
def hf_dpr(dtype: torch.dtype) -> Example:
    """DPR, question and context encoder"""
    tokenizer = vocabularies.bert()
    config = hub.DPRConfig(**text_config(tokenizer, **SHORT), projection_dim=16)
    question: Any = settled(hub.DPRQuestionEncoder(config), dtype)
    context: Any = settled(hub.DPRContextEncoder(config), dtype, seed=1)

    def embedded(model: Any) -> Callable[[str], Tensor]:
        return lambda text: model(**tokenizer(text, return_tensors="pt")).pooler_output[0]

    model = ss.wrap((question, context), tokenizer=tokenizer)
    host = nn.ModuleList([question, context])
    sides = (embedded(question), embedded(context))
    return Example(model, host, CAPTIONS, CAPTIONS[::-1], *sides, parts=(tokenizer,))


def blip2_host(dtype: torch.dtype) -> Any:
    """BLIP-2 for retrieval, with five query tokens."""
    text = TEXT | SHORT | dict(hidden_size=32, num_attention_heads=4, encoder_hidden_size=32, vocab_size=200)
    config = hub.Blip2Config(
        vision_config=IMAGES,
        qformer_config=text | dict(use_qformer_text_input=True, cross_attention_frequency=2),
        num_query_tokens=5,
        image_text_hidden_size=16,
    )
    return settled(hub.Blip2ForImageTextRetrieval(config), dtype)
