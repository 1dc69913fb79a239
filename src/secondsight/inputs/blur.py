"""Pixels of their surroundings: blurred, or the mean of a ring around them."""

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


def ring_mean(pixels: Tensor, inner: int, outer: int) -> Tensor:
    """Of every pixel of (batch, channel, height, width), the mean of those at most `outer` and more than `inner` away.

    Distances are the larger of rows and columns, so that the ring is a square without a smaller square; what lies outside
    the image does not count.
    """
    values = pixels.double()
    values = torch.cat([values, torch.ones_like(values[:, :1])], 1)
    # A last channel of ones counts the pixels of each ring.
    sums = _window_sums(values, outer) - _window_sums(values, inner)
    return (sums[:, :-1] / sums[:, -1:].clamp(min=1)).to(pixels.dtype)


def _window_sums(values: Tensor, reach: int) -> Tensor:
    """Sums over the square of pixels at most `reach` away."""
    size = 2 * reach + 1
    rows = F.avg_pool2d(values, (size, 1), 1, (reach, 0))
    return F.avg_pool2d(rows, (1, size), 1, (0, reach)) * size**2
