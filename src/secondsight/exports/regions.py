"""The regions of an image that words were matched with, as masks and as COCO's JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from secondsight.algebra.layout import GridLayout
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.algebra.interactions import Interactions


@dataclass(frozen=True)
class MatchedRegion:
    """A connected region of the left image that a selection of the right side was matched with.

    `label` is the selection as text, `span` its characters where it is a word. `box` is x0, y0, x1, y1 in whole pixels of the
    original image, `mask` (height, width) the region within the box. `score` is the region's share of the positive part of the
    selection's map, in 0 … 1.
    """

    label: str
    span: tuple[int, int] | None
    box: tuple[int, int, int, int]
    mask: Bool[np.ndarray, "height width"]
    score: float

    @property
    def area(self) -> int:
        """Pixels of the region."""
        return int(self.mask.sum())


def regions(
    pair: Interactions, selections: Sequence[Any] | None = None, *, threshold: float = 0.5
) -> list[MatchedRegion]:
    """The connected regions where each selection's map is at least `threshold` times its maximum, in 0 … 1, best score first.

    Without `selections` of the right side every word of its text is one. The map is that of `pair.heatmap`, in pixels of the
    original image; a selection whose map is positive nowhere has no region. Needs scipy. Raises `InputError` for a left side
    that is no single image, and for other thresholds.
    """
    if not isinstance(pair.left_layout, GridLayout):
        raise InputError(f"regions need one image on the left side, not {pair.left_layout.modality}")
    if not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
        raise InputError(f"threshold={threshold!r} must be above 0 and at most 1, a share of the map's maximum")
    ndimage = _scipy()
    result = []
    for label, span, selection in _named(pair, selections):
        heat = pair.heatmap(selection).detach().double().cpu().numpy()
        largest = float(heat.max())
        if not largest > 0:
            continue
        numbered, _ = ndimage.label(heat >= threshold * largest)
        positive = float(heat[heat > 0].sum())
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), 1):
            mask = numbered[rows, columns] == number
            score = float(heat[rows, columns][mask].sum()) / positive
            box = (columns.start, rows.start, columns.stop, rows.stop)
            result.append(MatchedRegion(label, span, box, mask, score))
    return sorted(result, key=lambda region: -region.score)


def to_coco(
    pair: Interactions,
    selections: Sequence[Any] | None = None,
    *,
    threshold: float = 0.5,
    image_id: int = 1,
    file_name: str = "",
) -> dict[str, Any]:
    """The regions of `regions` as a dictionary in COCO's format, for json.dump and for pycocotools.

    A category is a word; an annotation has its `bbox` (x, y, width, height), `area`, run-length `segmentation` and `score`, so
    that `annotations` also serve `COCO.loadRes`. `image_id` and `file_name` are written as they are given. Needs scipy and
    pycocotools.
    """
    word_regions = regions(pair, selections, threshold=threshold)
    assert isinstance(pair.left_layout, GridLayout)  # it has regions
    width, height = pair.left_layout.image_size
    names = list(dict.fromkeys(label for label, _, _ in _named(pair, selections)))
    annotations = []
    for number, region in enumerate(word_regions, 1):
        x0, y0, x1, y1 = region.box
        annotation = {
            "id": number,
            "image_id": image_id,
            "category_id": names.index(region.label) + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": region.area,
            "segmentation": _run_lengths(region, width, height),
            "iscrowd": 0,
            "score": region.score,
        }
        annotations.append(annotation if region.span is None else {**annotation, "span": list(region.span)})
    return {
        "info": {
            "description": f"regions matched with words of {pair.right_layout.text or pair.right_layout.modality!r}"
        },
        "images": [{"id": image_id, "file_name": file_name, "width": width, "height": height}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": annotations,
    }


def _named(pair: Interactions, selections: Sequence[Any] | None) -> list[tuple[str, tuple[int, int] | None, Any]]:
    """Selections with their names and characters."""
    if selections is None:
        words = [word for word in pair.right_layout.words if word.features and any(c.isalnum() for c in word.text)]
        if not words:
            raise InputError(f"the right side is {pair.right_layout.modality} without words: give selections")
        return [(word.text, (word.start, word.end), list(word.features)) for word in words]
    if isinstance(selections, str) or not isinstance(selections, Sequence):
        raise InputError(f"selections={selections!r} must be a list, such as ['dog', 'frisbee']")
    return [(selection if isinstance(selection, str) else str(selection), None, selection) for selection in selections]


def _run_lengths(region: MatchedRegion, width: int, height: int) -> dict[str, Any]:
    try:
        from pycocotools import mask as masks
    except ImportError as missing:
        raise InputError("COCO's format needs pycocotools: pip install 'secondsight[eval]'") from missing
    whole = np.zeros((height, width), dtype=np.uint8, order="F")
    x0, y0, x1, y1 = region.box
    whole[y0:y1, x0:x1] = region.mask
    encoded = masks.encode(whole)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _scipy() -> Any:
    try:
        from scipy import ndimage
    except ImportError as missing:
        raise InputError("regions need scipy: pip install 'secondsight[eval]'") from missing
    return ndimage
