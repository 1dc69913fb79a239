"""Images from whatever the user has, and where a preprocessing puts their pixels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from secondsight.algebra.layout import GridLayout
from secondsight.inputs.blur import gaussian_blur, ring_mean
from secondsight.inputs.photographs import image_of_bytes as image_of_bytes
from secondsight.inputs.photographs import open_image as open_image
from secondsight.inputs.prepared import Placement, Prepared, matching_reference
from secondsight.support.errors import AdapterError, AssumptionWarning, InputError
from secondsight.support.files import brief

IMAGE_REFERENCES = ("black", "mean", "noise", "blur", "local-mean")

Preprocess = Callable[[Image.Image], Tensor]

_CACHED_PLACEMENTS = 256


def measure(preprocess: Preprocess, image_size: tuple[int, int]) -> Placement:
    """Where a preprocessing puts an image's pixels, measured by sending coordinate ramps through it.

    Works for any resizing, cropping and padding without knowing the transform; exact to about 0.1 pixel. Raises
    `InputError` for a preprocessing that is random, flips or rotates, because no box of the original corresponds to it.
    """
    if min(image_size) < 64:
        # A ramp of a few pixels is mostly edge. Resizing to a fixed size does not care how large the original was.
        factor = -(-64 // min(image_size))
        larger = measure(preprocess, (image_size[0] * factor, image_size[1] * factor))
        x0, y0, x1, y1 = (v / factor for v in larger.frame)
        return Placement(image_size, (x0, y0, x1, y1))
    width, height = image_size
    ramp = np.zeros((height, width, 3), dtype=np.uint8)
    ramp[..., 0] = np.round(255 * (np.arange(width) + 0.5) / width)
    ramp[..., 1] = np.round(255 * (np.arange(height) + 0.5) / height)[:, None]
    output, repeated = preprocess(Image.fromarray(ramp)), preprocess(Image.fromarray(ramp))
    if output.shape != repeated.shape or not torch.equal(output, repeated):
        raise InputError("the preprocessing is random: give the model's validation transform")
    levels(preprocess)  # refuses what gives no pictures
    low, high = (preprocess(Image.new("RGB", image_size, colour)) for colour in ("black", "white"))
    # Padding is the same whatever the image and carries no coordinate; of a cell at its edge only a part does.
    span, values = ((t - low)[:2].double().numpy() for t in (high, output))
    padding = span < 0.5 * span.max()
    share = np.ma.masked_array(values / np.where(padding, 1, span), padding)
    x0, x1 = _edges(_median(share[0], 0), width)
    y0, y1 = _edges(_median(share[1], 1), height)
    return Placement(image_size, (x0, y0, x1, y1))


def _median(share: np.ma.MaskedArray, axis: int) -> np.ndarray:
    """Medians along an axis; NaN where everything is masked."""
    medians: np.ndarray = np.ma.median(share, axis=axis).filled(np.nan)  # type: ignore[no-untyped-call]  # numpy's lacks types
    return medians


def _edges(share: np.ndarray, size: int) -> tuple[float, float]:
    """Edges, in original pixels, of a row of output pixels that saw these shares of the original's extent."""
    # Saturated ends carry no coordinate.
    measured = np.flatnonzero((share > 1.5 / size) & (share < 1 - 1.5 / size) & (share > 0.01) & (share < 0.99))
    if len(measured) < 2:
        raise InputError("the preprocessing keeps too little of the image to tell where its pixels go")
    slope, start = np.polyfit(measured, share[measured], 1)
    if slope <= 0 or np.abs(start + slope * measured - share[measured]).max() > 0.02:
        raise InputError("the preprocessing flips, rotates or bends the image: give the model's validation transform")
    first, last = (start - slope / 2) * size, (start + slope * (len(share) - 0.5)) * size
    # The ramps have 8 bits: positions that are the image's edge within that precision are the edge.
    near = max(0.3, size / 1000)
    first, last = (next((e for e in (0.0, float(size)) if abs(v - e) < near), float(v)) for v in (first, last))
    return first, last


def levels(preprocess: Preprocess) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """The values that a preprocessing gives black and white pixels."""
    low, high = (_pixels(preprocess, Image.new("RGB", (64, 64), colour)) for colour in ("black", "white"))
    middle = (slice(None), low.shape[1] // 2, low.shape[2] // 2)
    if bool((high[middle] <= low[middle]).any()):
        raise AdapterError("the preprocessing does not map white above black: its colours cannot be understood")
    return low[middle], high[middle]


def _pixels(preprocess: Preprocess, image: Image.Image) -> Tensor:
    """What a preprocessing makes of an image; `InputError` for what is none, such as a tokenizer in its place."""
    remedy = "give a function from a PIL image to a tensor (3, height, width), and a tokenizer as tokenizer="
    try:
        pixels = preprocess(image)
    except Exception as problem:
        raise InputError(f"preprocess= cannot read an image ({brief(problem)}): {remedy}") from problem
    if not isinstance(pixels, Tensor):
        raise InputError(f"preprocess= makes {type(pixels).__name__} of an image: {remedy}")
    if pixels.ndim != 3 or pixels.shape[0] != 3:
        raise InputError(f"the preprocessing must give (3, height, width), not {tuple(pixels.shape)}: {remedy}")
    return pixels


class ImageInput:
    """How one model's images are prepared: its preprocessing, or the mean and deviation of model-ready pixels."""

    def __init__(
        self,
        preprocess: Preprocess | None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        assumed: bool = False,
    ) -> None:
        self.preprocess, self.assumed = preprocess, assumed
        if preprocess is not None:
            self.low, self.high = levels(preprocess)
            self._placements: dict[tuple[int, int], Placement] = {}
        else:
            m, s = torch.tensor(mean or (0.0,) * 3), torch.tensor(std or (1.0,) * 3)
            self.low, self.high = -m / s, (1 - m) / s

    def prepare(self, raw: object) -> Prepared:
        """A raw image through the preprocessing; a tensor (1, 3, H, W) or (3, H, W) as it is."""
        if isinstance(raw, Tensor):
            return self._ready(raw)
        if self.preprocess is None:
            raise InputError(
                "this model came without preprocessing: pass preprocess=, or pixels as a (1, 3, H, W) tensor"
            )
        image = open_image(raw)
        return Prepared(self.preprocess(image)[None], image, self.placement(image.size))

    def placement(self, size: tuple[int, int]) -> Placement:
        """Where the preprocessing puts images of this size; measured once for every size."""
        assert self.preprocess is not None  # the caller checked
        if size not in self._placements:
            if len(self._placements) >= _CACHED_PLACEMENTS:
                self._placements.clear()
            self._placements[size] = measure(self.preprocess, size)
        return self._placements[size]

    def _ready(self, pixels: Tensor) -> Prepared:
        pixels = pixels[None] if pixels.ndim == 3 else pixels
        if pixels.ndim != 4 or pixels.shape[:2] != (1, 3) or not pixels.is_floating_point():
            raise InputError(
                f"a tensor {tuple(pixels.shape)} of {pixels.dtype} is not a model-ready image: (1, 3, height, width) of "
                "normalised floats is needed; raw pixels go in as a PIL image or an array"
            )
        if not bool(torch.isfinite(pixels).all()):
            raise InputError("the pixels contain NaN or infinity")
        low, high = (level.to(pixels)[:, None, None] for level in (self.low, self.high))
        image = (((pixels[0] - low) / (high - low)).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        height, width = pixels.shape[-2:]
        frame = (0.0, 0.0, float(width), float(height))
        return Prepared(pixels, Image.fromarray(image), Placement((width, height), frame))

    def reference(self, prepared: Prepared, choice: object, seed: int) -> Tensor:
        """Black pixels (default), or those of a name of `IMAGE_REFERENCES`, or of the user's own image.

        "mean" is the input's mean colour, "noise" Gaussian, "blur" the input under a wide Gaussian. "local-mean" gives every
        pixel the mean of what lies around it, from an eighth to a quarter of the shorter side away: a patch is filled by its
        surroundings without itself, which stands in for in-painting.
        """
        pixels = prepared.tensor
        if choice is not None and not isinstance(choice, str):
            return matching_reference(choice if isinstance(choice, Tensor) else self.prepare(choice).tensor, pixels)
        if choice is None or choice == "black":
            if self.assumed:
                warnings.warn(
                    "the model does not say how its pixels are normalised; its family's usual mean and deviation make "
                    "the black reference: pass preprocess= or reference= to be sure",
                    AssumptionWarning,
                    stacklevel=2,
                )
            return self.low.to(pixels)[None, :, None, None].expand_as(pixels).clone()
        if choice == "mean":
            return pixels.mean((-2, -1), keepdim=True).expand_as(pixels).clone()
        if choice == "noise":
            generator = torch.Generator().manual_seed(seed)
            return torch.randn(pixels.shape, generator=generator).to(pixels)
        if choice == "blur":
            # Wide enough to wash out objects: an eighth of the side is one standard deviation.
            return gaussian_blur(pixels, min(pixels.shape[-2:]) / 8)
        if choice == "local-mean":
            side = min(pixels.shape[-2:])
            return ring_mean(pixels, side // 8, max(side // 4, side // 8 + 1))
        raise InputError(
            f"unknown image reference {choice!r}; known: {', '.join(IMAGE_REFERENCES)}, or an image or tensor of your own"
        )


def grid_layout(placement: Placement, grid: tuple[int, int], special: dict[int, str]) -> GridLayout:
    """The layout of a grid of cells over what the model sees."""
    return GridLayout(grid[0] * grid[1] + len(special), special, grid, placement.image_size, placement.frame)


def check_size(pixels: Tensor, size: tuple[int, ...]) -> None:
    """`InputError` for pixels of a size that the model does not take."""
    height, width = pixels.shape[-2:]
    if (height, width) != tuple(size):
        raise InputError(f"pixels of {height}×{width} do not fit this model, which takes {size[0]}×{size[1]}")
