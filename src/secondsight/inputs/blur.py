"""Blurred pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(pixels: Tensor, deviation: float) -> Tensor:
    """Pixels (batch, channel, height, width) under a Gaussian of this standard deviation, in pixels.

    The kernel ends a quarter of the shorter side away from its centre and adds up to one; edges are mirrored.
    """
    reach = min(pixels.shape[-2:]) // 4
    distances = torch.arange(-reach, reach + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = torch.exp(-0.5 * (distances / deviation) ** 2)
    kernel = kernel / kernel.sum()
    channels = pixels.shape[1]
    padded = F.pad(pixels, [reach] * 4, mode="reflect")
    rows = F.conv2d(padded, kernel[:, None].expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(rows, kernel.expand(channels, 1, 1, -1), groups=channels)
