"""Labels of FiftyOne (https://docs.voxel51.com): a heatmap and the regions that words were matched with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from secondsight.algebra.layout import GridLayout
from secondsight.exports.regions import regions
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.algebra.interactions import Interactions


def to_fiftyone(
    pair: Interactions, selection: Any = None, *, selections: Sequence[Any] | None = None, threshold: float = 0.5
) -> dict[str, Any]:
    """Labels for a sample of FiftyOne by the names of their fields, as `sample.update_fields` or a loop takes them.

    "heatmap" is a `fiftyone.Heatmap` of `pair.heatmap(selection)`, whose range is symmetric around zero; "regions" are
    `fiftyone.Detections` of the regions of `secondsight.exports.regions.regions` with their masks. Raises `InputError` without
    FiftyOne, which is not among the extras, and for a left side that is no single image.
    """
    try:
        import fiftyone
    except ImportError as missing:
        raise InputError("labels of FiftyOne need the package fiftyone: pip install fiftyone") from missing
    word_regions = regions(pair, selections, threshold=threshold)
    assert isinstance(pair.left_layout, GridLayout)  # it has regions
    width, height = pair.left_layout.image_size
    heat = pair.heatmap(selection).detach().float().cpu().numpy()
    limit = float(np.abs(heat).max()) or 1.0
    detections = []
    for region in word_regions:
        x0, y0, x1, y1 = region.box
        detections.append(
            fiftyone.Detection(
                label=region.label,
                bounding_box=[x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
                mask=region.mask,
                confidence=region.score,
            )
        )
    return {
        "heatmap": fiftyone.Heatmap(map=heat, range=[-limit, limit]),
        "regions": fiftyone.Detections(detections=detections),
    }
