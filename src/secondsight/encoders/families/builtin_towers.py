"""The two networks of the builtin model, plainly in torch: libraries that hold hundreds of others take seconds to import.

Parameters are named as in the libraries (timm's EfficientNet, transformers' BERT), so that weights fit and stores of
vectors stay valid; a test compares every layer's numbers with theirs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STAGES = ((3, 1, 16, 1), (3, 2, 24, 3), (5, 2, 48, 3), (3, 2, 88, 4), (5, 1, 120, 4), (5, 2, 208, 5), (3, 1, 352, 1))
"""Kernel, stride, channels and blocks of each stage of EfficientNet-lite2."""

_STEM, _HEAD, _CLASSES, _EXPANSION = 32, 1280, 1000, 6


class SamePadded(nn.Conv2d):
    """A strided convolution with TensorFlow's padding: as much as ⌈size / stride⌉ outputs need, an odd pixel at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of feature maps (batch, channel, row, column)."""
        pads: list[int] = []
        for size, kernel, stride in zip(reversed(x.shape[-2:]), self.kernel_size, self.stride, strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


def _convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride > 1:
        return SamePadded(before, after, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=False)


class Table(nn.Embedding):
    """An embedding whose weights are read from a file: drawing them at random would import torch's compiler."""

    def reset_parameters(self) -> None:
        """Leave the weights as they are."""


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Separable(nn.Module):
    """The first block: a convolution of every channel by itself, then one across channels."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = _convolution(before, before, kernel, groups=before), _norm(before)
        self.conv_pw, self.bn2 = _convolution(before, after, 1), _norm(after)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (batch, channel, row, column)."""
        return self.bn2(self.conv_pw(self.act(self.bn1(self.conv_dw(x)))))


class InvertedResidual(nn.Module):
    """More channels, a convolution of every channel by itself, fewer channels; plus the input where shapes agree."""

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = before * _EXPANSION
        self.conv_pw, self.bn1 = _convolution(before, wide, 1), _norm(wide)
        self.conv_dw, self.bn2 = _convolution(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self.conv_pwl, self.bn3 = _convolution(wide, after, 1), _norm(after)
        self.act = nn.ReLU6()
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (batch, channel, row, column)."""
        wide = self.act(self.bn2(self.conv_dw(self.act(self.bn1(self.conv_pw(x))))))
        step = self.bn3(self.conv_pwl(wide))
        return step + x if self.residual else step


class EfficientNetLite2(nn.Module):
    """EfficientNet-lite2 (Tan and Le 2019; the variant without squeeze-and-excitation, with ReLU6)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = _convolution(3, _STEM, 3, 2), _norm(_STEM)
        stages: list[nn.Module] = []
        widths = (_STEM, *(width for _, _, width, _ in _STAGES))
        for (before, after), (kernel, stride, _, count) in zip(pairwise(widths), _STAGES, strict=True):
            first = InvertedResidual(before, after, kernel, stride) if stages else Separable(before, after, kernel)
            later = [InvertedResidual(after, after, kernel, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *later))
        self.blocks, self.act = nn.Sequential(*stages), nn.ReLU6()
        self.conv_head, self.bn2 = _convolution(widths[-1], _HEAD, 1), _norm(_HEAD)
        self.classifier = nn.Linear(_HEAD, _CLASSES)

    def forward_features(self, pixels: Tensor) -> Tensor:
        """Feature maps (batch, 1280, row, column) of pixels (batch, 3, height, width) in −1 … 1."""
        x = self.blocks(self.act(self.bn1(self.conv_stem(pixels))))
        return self.act(self.bn2(self.conv_head(x)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (batch, class) of ImageNet's classes."""
        return self.classifier(self.forward_features(pixels).mean((2, 3)))


def _dense_norm(before: int, after: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(before, after), "LayerNorm": nn.LayerNorm(after, eps=1e-12)})


class BertLayer(nn.Module):
    """Self-attention and a two-layer perceptron, each added to its input and normalised afterwards."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        projections = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.attention = nn.ModuleDict({"self": projections, "output": _dense_norm(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner), "intermediate_act_fn": nn.GELU()})
        self.output = _dense_norm(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states (batch, position, width); every position attends to all."""
        projections, after = (cast(nn.ModuleDict, self.attention[name]) for name in ("self", "output"))
        q, k, v = (
            projections[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = after["LayerNorm"](after["dense"](mixed) + x)
        step = self.output["dense"](self.intermediate["intermediate_act_fn"](self.intermediate["dense"](x)))
        return self.output["LayerNorm"](step + x)


class MiniLM(nn.Module):
    """The transformer of all-MiniLM-L6-v2 (Wang et al. 2020): BERT with six narrow layers, for one unpadded text a row."""

    vocabulary, context = 30522, 512

    def __init__(self, width: int = 384, inner: int = 1536, heads: int = 12, depth: int = 6) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": Table(self.vocabulary, width, padding_idx=0),
                "position_embeddings": Table(self.context, width),
                "token_type_embeddings": Table(2, width),
                "LayerNorm": nn.LayerNorm(width, eps=1e-12),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(BertLayer(width, inner, heads) for _ in range(depth))})

    def layers(self) -> list[nn.Module]:
        """The layers, in the order of the forward pass."""
        return list(self.encoder["layer"].children())

    def forward(self, ids: Tensor) -> Tensor:
        """Hidden states (batch, position, width) of token ids (batch, position)."""
        embeddings = self.embeddings
        positions = torch.arange(ids.shape[1], device=ids.device)
        sorts = embeddings["token_type_embeddings"](torch.zeros_like(ids))
        x = embeddings["word_embeddings"](ids) + sorts + embeddings["position_embeddings"](positions)
        x = embeddings["LayerNorm"](x)
        for layer in self.layers():
            x = layer(x)
        return x
