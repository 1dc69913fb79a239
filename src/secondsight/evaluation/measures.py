"""Measures of explanations on plain arrays, so that maps from any source can be scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from secondsight.algebra.layout import GridLayout
from secondsight.methods.base import one_of
from secondsight.support.errors import InputError

RULES = ("pixel", "centre", "touch")
"""How cells of a map are matched with boxes; see `inside`."""

Box = Sequence[float]


def grid_of(map_: Any, size: tuple[int, int], frame: Box | None = None) -> tuple[Tensor, GridLayout]:
    """A (rows, columns) map as values, and their layout in an image of `size` (width, height).

    `frame` is the part of the image that the map covers, x0, y0, x1, y1 in pixels; the whole by default. Raises
    `InputError` unless the map is a finite matrix.
    """
    values = torch.as_tensor(np.asarray(map_), dtype=torch.float64)
    if values.ndim != 2 or not values.numel():
        raise InputError(f"a map needs rows and columns; this one has the shape {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise InputError("the map has NaN or infinite values")
    x0, y0, x1, y1 = (float(v) for v in (frame or (0, 0, *size)))
    rows, columns = values.shape
    return values, GridLayout(rows * columns, {}, (rows, columns), (int(size[0]), int(size[1])), (x0, y0, x1, y1))


def inside(
    map_: Any, boxes: Sequence[Box], size: tuple[int, int], frame: Box | None = None, rule: str = "pixel"
) -> Any:
    """The map's values as the rule measures them, and whether each lies in one of the boxes: two arrays of one shape.

    "pixel" upsamples the map bilinearly to the image, as it is displayed; "centre" counts a cell as inside a box if its
    centre is, "touch" if they overlap at all. A map of the image's own size is not resampled.
    """
    one_of("rule", rule, RULES)
    values, layout = grid_of(map_, size, frame)
    width, height = size
    if rule == "pixel":
        if tuple(values.shape) != (height, width):
            values = layout.heatmap(values.flatten())
        centres = torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5
        within = torch.zeros(height, width, dtype=torch.bool)
        for x0, y0, x1, y1 in boxes:
            rows, columns = (centres[0] > y0) & (centres[0] < y1), (centres[1] > x0) & (centres[1] < x1)
            within |= rows[:, None] & columns[None]
        return values.numpy(), within.numpy()
    cells = layout.cell_boxes().double()
    within = torch.zeros(len(cells), dtype=torch.bool)
    for x0, y0, x1, y1 in boxes:
        if rule == "centre":
            x, y = (cells[:, 0] + cells[:, 2]) / 2, (cells[:, 1] + cells[:, 3]) / 2
            within |= (x > x0) & (x < x1) & (y > y0) & (y < y1)
        else:
            within |= (cells[:, 0] < x1) & (cells[:, 2] > x0) & (cells[:, 1] < y1) & (cells[:, 3] > y0)
    return values.numpy(), within.reshape(values.shape).numpy()


def pointing(
    map_: Any, boxes: Sequence[Box], size: tuple[int, int], frame: Box | None = None, rule: str = "pixel"
) -> float:
    """Whether the highest value lies in a box (PGA): 1 or 0, and of several equal ones the share that does.

    The highest value need not be positive.
    """
    return share_of_highest(*inside(map_, boxes, size, frame, rule))


def energy(
    map_: Any, boxes: Sequence[Box], size: tuple[int, int], frame: Box | None = None, rule: str = "pixel"
) -> float:
    """Positive attribution in the boxes over positive attribution everywhere (PGE), 0 … 1; 0 where none is positive."""
    return share_of_positive(*inside(map_, boxes, size, frame, rule))


def share_of_highest(values: Any, within: Any) -> float:
    """Whether the highest of the values lies within; of several equal ones the share that does."""
    values, within = np.asarray(values), np.asarray(within)
    return float(within[values == values.max()].mean())


def share_of_positive(values: Any, within: Any) -> float:
    """Positive values within over positive values everywhere, 0 … 1; 0 where none is positive."""
    positive = np.clip(np.asarray(values), 0, None)
    total = positive.sum()
    return float(positive[np.asarray(within)].sum() / total) if total > 0 else 0.0


def signed_share(
    map_: Any, boxes: Sequence[Box], size: tuple[int, int], frame: Box | None = None, rule: str = "centre"
) -> float:
    """Attribution in the boxes over all attribution's absolute sum, −1 … 1: collage pointing when a box is a quadrant."""
    values, within = inside(map_, boxes, size, frame, rule)
    total = np.abs(values).sum()
    return float(values[within].sum() / total) if total > 0 else 0.0


def pixels_of(map_: Any, mask: Any, valid: Any = None, frame: Box | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The map's values at the pixels that count, and whether the object has each: two vectors for the measures of masks.

    `mask` (height, width) says which pixels the object has, `valid` which are annotated (all by default), and `frame` which
    part of the image the map covers. A pixel counts if it is annotated and its centre lies in the frame. The map is
    upsampled bilinearly to the image. Raises `InputError` unless some pixels count and `valid` has the mask's shape.
    """
    within = np.asarray(mask, dtype=bool)
    if within.ndim != 2:
        raise InputError(f"a mask needs rows and columns; this one has the shape {within.shape}")
    height, width = within.shape
    whole = (0, 0, width, height)
    values, counted = inside(map_, [frame or whole], (width, height), frame)
    if valid is not None:
        if np.shape(valid) != within.shape:
            raise InputError(
                f"valid has the shape {np.shape(valid)}, and the mask {within.shape}: they must be the same"
            )
        counted = counted & np.asarray(valid, dtype=bool)
    if not counted.any():
        raise InputError("no annotated pixel of the mask lies in the map's frame")
    return values[counted], within[counted]


class Agreement(NamedTuple):
    """Numbers of pixels of a map above a threshold and of an object: in both, in the map only, the object only, neither."""

    both: int
    map_only: int
    object_only: int
    neither: int

    @property
    def iou(self) -> float:
        """Intersection over union of map and object, 0 … 1."""
        union = self.both + self.map_only + self.object_only
        return self.both / union if union else 0.0

    @property
    def mean_iou(self) -> float:
        """Mean of object's and background's intersection over union, 0 … 1; one that neither has is left out."""
        wrong = self.map_only + self.object_only
        return float(np.mean([right / (right + wrong) for right in (self.both, self.neither) if right + wrong]))

    @property
    def pixel_accuracy(self) -> float:
        """Share of pixels on which map and object agree, 0 … 1."""
        return (self.both + self.neither) / sum(self)


def agreement(values: Any, within: Any, threshold: float | str = 0.5) -> Agreement:
    """How a map agrees with an object if values above a threshold are taken as the object's.

    Values are scaled to 0 … 1 first. The threshold is a number, usually 0.5, or "mean" for their mean, as in the published
    code of Chefer et al. (2021), "Transformer Interpretability Beyond Attention Visualization". Equal values are all
    background. Over a data set they add up the four numbers and take mean IoU and pixel accuracy of the sums.
    """
    scaled, within = _scaled(values), np.asarray(within, dtype=bool)
    level = scaled.mean() if threshold == "mean" else float(threshold)
    above = scaled > level
    counts = (above & within, above & ~within, ~above & within, ~above & ~within)
    return Agreement(*(int(count.sum()) for count in counts))


def average_precision(values: Any, within: Any, *, both_classes: bool = False) -> float:
    """Average precision of the pixels as a ranking of the object's, which needs no threshold, 0 … 1.

    Σ (recallₙ − recallₙ₋₁) precisionₙ over the distinct values from the highest on, as scikit-learn's. With `both_classes`
    the background's pixels are ranked by one minus the scaled values in the same list, as in the published code of Chefer et
    al. (2021). NaN without a pixel of the object. The chance level is the object's share of the pixels, or one half.
    """
    scores, labels = np.asarray(values, dtype=np.float64).ravel(), np.asarray(within, dtype=bool).ravel()
    if both_classes:
        scaled = _scaled(scores)
        scores, labels = np.concatenate([scaled, 1 - scaled]), np.concatenate([labels, ~labels])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    # Equal values are not ranked among themselves: only the last of them counts.
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    if not len(hits) or not hits[-1]:
        return float("nan")
    precision, gained = hits[last] / (last + 1), np.diff(hits[last], prepend=0)
    return float((precision * gained).sum() / hits[-1])


def _scaled(values: Any) -> np.ndarray:
    """Values scaled to 0 … 1; equal ones are 0."""
    x = np.asarray(values, dtype=np.float64)
    low, high = x.min(), x.max()
    return (x - low) / (high - low) if high > low else np.zeros_like(x)


def curve_area(similarities: Sequence[float], shares: Sequence[float] | None = None) -> float:
    """Area under a curve of similarity over the share of features removed or inserted, 0 … 1, by trapezoids."""
    y = np.asarray(similarities, dtype=np.float64)
    x = np.linspace(0, 1, len(y)) if shares is None else np.asarray(shares, dtype=np.float64)
    if y.ndim != 1 or len(y) < 2 or x.shape != y.shape:
        raise InputError("a curve needs two or more values, and as many shares")
    return float(np.trapezoid(y, x))


def correlation(predicted: Any, actual: Any) -> float:
    """Pearson's correlation; NaN where either is constant. With masks' similarities this is faithfulness."""
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (predicted, actual))
    if a.shape != b.shape or len(a) < 2:
        raise InputError("a correlation needs two sequences of the same length, at least 2")
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / size) if size > 0 else float("nan")


def rank_correlation(a: Any, b: Any) -> float:
    """Spearman's correlation, that of the values' ranks; NaN where either is constant."""
    return correlation(*(stats.rankdata(np.asarray(v, dtype=np.float64).ravel()) for v in (a, b)))


def kendall_correlation(a: Any, b: Any) -> float:
    """Kendall's τ-b, by pairs that both order alike; NaN where either is constant."""
    return float(stats.kendalltau(*(np.asarray(v, dtype=np.float64).ravel() for v in (a, b))).statistic)


def r_squared(predicted: Any, actual: Any, weights: Any = None) -> float:
    """1 − Σ w (actual − predicted)² / Σ w (actual − their mean)²: the share of the variance that the predictions explain.

    Predictions count as they are, without fitting a slope or an offset: 1 where all are right, 0 for predicting the mean, and
    below it without a limit. `weights`, one for each value, are equal by default. NaN where all actual values are equal.
    """
    p, a = (np.asarray(v, dtype=np.float64).ravel() for v in (predicted, actual))
    w = np.ones_like(a) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    if not a.shape == p.shape == w.shape or len(a) < 2:
        raise InputError("R² needs sequences of the same length, at least 2")
    spread = (w * (a - (w * a).sum() / w.sum()) ** 2).sum()
    return float(1 - (w * (a - p) ** 2).sum() / spread) if spread > 0 else float("nan")


def sparseness(map_: Any) -> float:
    """The Gini index of the absolute attributions, 0 (all equal) … 1 − 1/n (one of n has everything); 0 of a zero map.

    Source: Chalasani et al. 2020, after Hurley and Rickard 2009. Maps of other numbers of cells are not quite comparable.
    """
    sizes = np.sort(np.abs(_finite(map_)))
    total, n = sizes.sum(), len(sizes)
    return float(1 - 2 * (sizes / total) @ (n - np.arange(1, n + 1) + 0.5) / n) if total > 0 else 0.0


def complexity(map_: Any) -> float:
    """The entropy of the shares of the absolute attributions, in nats: 0 (one cell) … ln n (all equal); NaN of a zero map.

    Source: Bhatt et al. 2020.
    """
    sizes = np.abs(_finite(map_))
    shares = sizes[sizes > 0] / sizes.sum() if sizes.any() else np.full(1, np.nan)
    return float(-(shares * np.log(shares)).sum())


def max_sensitivity(map_: Any, changed: Sequence[Any]) -> float:
    """The largest relative change of a map, max ‖changed − map‖ / ‖map‖, over maps of slightly changed inputs.

    NaN of a zero map. Source: Yeh et al. 2019, relative to the map so that methods of any scale compare.
    """
    before = _finite(map_)
    differences = [_finite(values) for values in changed]
    if not differences or any(len(values) != len(before) for values in differences):
        raise InputError("max-sensitivity needs at least one changed map, each of the map's own size")
    size = np.linalg.norm(before)
    return float(max(np.linalg.norm(values - before) for values in differences) / size) if size > 0 else float("nan")


def _finite(map_: Any) -> np.ndarray:
    """A map's values in a row; `InputError` for none, or for NaN or infinity."""
    values = np.asarray(map_, dtype=np.float64).ravel()
    if not len(values) or not np.isfinite(values).all():
        raise InputError("a map needs at least one value, and only finite ones")
    return values


def clip_box(box: Box, frame: Box) -> tuple[float, float, float, float] | None:
    """The part of a box inside a frame; None if there is none."""
    x0, y0 = max(float(box[0]), float(frame[0])), max(float(box[1]), float(frame[1]))
    x1, y1 = min(float(box[2]), float(frame[2])), min(float(box[3]), float(frame[3]))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def area(box: Box) -> float:
    """Width times height."""
    return max(float(box[2]) - float(box[0]), 0.0) * max(float(box[3]) - float(box[1]), 0.0)


def overlap(a: Box, b: Box) -> float:
    """Share of `a` that lies in `b`, 0 … 1."""
    intersection = clip_box(a, b)
    return 0.0 if intersection is None or not area(a) else area(intersection) / area(a)
