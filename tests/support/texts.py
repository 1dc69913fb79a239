"""Explanations of long texts with random numbers, without a model."""

import re

import torch
from PIL import Image

import secondsight as ss
from secondsight.algebra.layout import GridLayout, Layout, TokenLayout

QUERY = "how much does it cost to moor overnight"

DOCUMENT = """The harbour was rebuilt after two storms. Mrs. Watts, who keeps the log, wrote it all down.

Boats and berths
Visitors may moor on the eastern side, where the bottom is soft mud. A berth costs twelve pounds a night! He keeps odd
hours; if the door is locked, leave the money in the tin.

- By train: to Oakley, then the bus, which runs every hour until seven in the evening.
- By car: leave the main road at the war memorial and follow the signs to the church.

The lighthouse is open on Sundays. Its keeper will show you the lamp, the books and the dent in the rail."""
"""Some 130 words and marks in eleven sentences and lines."""


def words_layout(text: str) -> TokenLayout:
    """Every word or mark a token."""
    offsets = tuple(match.span() for match in re.finditer(r"\w+|[^\w\s]+", text))
    tokens = tuple(text[start:end] for start, end in offsets)
    return TokenLayout(size=len(tokens), special={}, text=text, offsets=offsets, tokens=tokens)


def paired_inputs(left: str | Image.Image, right: str, seed: int = 0) -> ss.Explanation:
    """Two texts, or a photograph of 3 × 4 patches and a text."""
    layouts = [_layout(content) for content in (left, right)]
    rows, columns = (layout.size for layout in layouts)
    g = torch.Generator().manual_seed(seed)
    effects = [torch.randn(layout.size, generator=g) / 500 for layout in layouts]
    matrix = torch.randn(rows, columns, generator=g) / 500
    total = 0.1 + sum(float(effect.sum()) for effect in effects) + float(matrix.sum())
    return ss.Explanation(matrix, *effects, 0.1, total, *layouts, left_input=left, right_input=right)


def _layout(content: str | Image.Image) -> Layout:
    if isinstance(content, str):
        return words_layout(content)
    frame = (0.0, 0.0, float(content.width), float(content.height))
    return GridLayout(size=12, special={}, grid=(3, 4), image_size=content.size, frame=frame)
