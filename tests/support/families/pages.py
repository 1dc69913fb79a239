"""Page retrieval models of transformers: ColPali, ColQwen2, ColModernVBert."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hub
from PIL import Image, ImageDraw
from torch import Tensor

import secondsight as ss
import vocabularies
from families.example import Example, settled
from secondsight.encoders.families.transformers.encoders import sizes_can_be_read

QUERIES = ["the revenue of a year", "a cup of coffee"]
SIDE = 32
VISION = dict(hidden_size=24, intermediate_size=32, num_attention_heads=3, num_hidden_layers=2, image_size=SIDE)
LANGUAGE = dict(hidden_size=24, intermediate_size=32, num_attention_heads=3, num_key_value_heads=3, num_hidden_layers=2)


PAGES: dict[str, Callable[[torch.dtype], Example]] = {}


def pages(build: Callable[[torch.dtype], Example]) -> Callable[[torch.dtype], Example]:
    """List a builder under its function's name; its docstring is the model's title in the docs."""
    PAGES[build.__name__.replace("_", "-")] = build
    return build


def page(width: int = 120, height: int = 150) -> Image.Image:
    """A page with a heading, lines of text, and a table."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    draw.text((width * 0.1, height * 0.05), "Report", fill="black")
    for line in range(4):
        y = height * (0.22 + 0.06 * line)
        draw.line((width * 0.1, y, width * (0.9 - 0.1 * (line % 2)), y), fill=(70, 70, 70))
    for row in range(3):
        for column in range(2):
            x, y = width * (0.1 + 0.4 * column), height * (0.55 + 0.12 * row)
            draw.rectangle((x, y, x + width * 0.4, y + height * 0.12), outline="black")
    draw.text((width * 0.12, height * 0.56), "revenue", fill=(160, 0, 0))
    return image


def _example(host: Any, processor: Any, dtype: torch.dtype) -> Example:
    host = settled(host, dtype, sharpness=0.6)

    def vectors(batch: Any) -> Tensor:
        with torch.no_grad():
            return host(**batch.to(dtype)).embeddings[0]

    return Example(
        ss.wrap(host, processor),
        host,
        [page(), page(150, 110)],
        QUERIES,
        lambda image: vectors(processor.process_images([image])),
        lambda text: vectors(processor.process_queries([text])),
        parts=(processor,),
    )


@pages
def hf_colpali(dtype: torch.dtype) -> Example:
    """ColPali"""
    tokenizer = vocabularies.byte_pairs("<pad>", "<eos>", "<bos>", "<image>")
    images = hub.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    images.image_seq_length = 16
    processor = hub.ColPaliProcessor(images, tokenizer)
    vlm = hub.PaliGemmaConfig(
        vision_config=VISION | dict(model_type="siglip_vision_model", patch_size=8, vision_use_head=False),
        text_config=LANGUAGE | dict(model_type="gemma", head_dim=8, vocab_size=len(tokenizer)),
        image_token_id=processor.image_token_id,
        projection_dim=24,
    )
    return _example(hub.ColPaliForRetrieval(hub.ColPaliConfig(vlm_config=vlm, embedding_dim=8)), processor, dtype)


@pages
def hf_colqwen2(dtype: torch.dtype) -> Example:
    """ColQwen2"""
    names = ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>")
    tokenizer = vocabularies.byte_pairs(*names)
    images = hub.Qwen2VLImageProcessor(patch_size=4, min_pixels=16 * 16, max_pixels=24 * 32)
    processor = hub.ColQwen2Processor(images, tokenizer)
    vlm = hub.Qwen2VLConfig(
        vision_config=dict(depth=2, embed_dim=24, num_heads=3, mlp_ratio=2, patch_size=4, hidden_size=24),
        text_config=LANGUAGE
        | dict(vocab_size=len(tokenizer), rope_parameters=dict(rope_type="default", mrope_section=[1, 1, 2])),
        image_token_id=processor.image_token_id,
    )
    return _example(hub.ColQwen2ForRetrieval(hub.ColQwen2Config(vlm_config=vlm, embedding_dim=8)), processor, dtype)


@pages
def hf_colmodernvbert(dtype: torch.dtype) -> Example:
    """ColModernVBert"""
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    names = ("<pad>", "<sep>", "<cls>", "<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    tokenizer = vocabularies.byte_pairs(*names, *tiles)
    side = 16
    images = hub.Idefics3ImageProcessor(size={"longest_edge": 2 * side}, max_image_size={"longest_edge": side})
    processor = hub.ColModernVBertProcessor(images, tokenizer, image_seq_len=4)
    vlm = hub.ModernVBertConfig(
        vision_config=VISION | dict(model_type="siglip_vision_model", image_size=side, patch_size=4),
        text_config=LANGUAGE
        | dict(
            model_type="modernbert",
            vocab_size=len(tokenizer),
            pad_token_id=0,
            eos_token_id=1,
            sep_token_id=1,
            bos_token_id=2,
            cls_token_id=2,
        ),
        image_token_id=processor.image_token_id,
        pixel_shuffle_factor=2,
    )
    config = hub.ColModernVBertConfig(vlm_config=vlm, embedding_dim=8)
    return _example(hub.ColModernVBertForRetrieval(config), processor, dtype)


if not sizes_can_be_read():  # an old torch, in which ColQwen2 is refused in a sentence
    del PAGES["hf-colqwen2"]


def save(example: Example, folder: Path) -> None:
    """A model and its processor, as a hub has them."""
    example.host.save_pretrained(folder)
    # Saving writes the processor's name into the tokenizer object.
    copy.deepcopy(example.parts[0]).save_pretrained(folder)
