"""Attribution of a caption's span to an image: as a map, or summed over a box."""

from __future__ import annotations

import numpy as np

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout, Layout
from secondsight.data.grounded import Box
from secondsight.support.errors import InputError


def image_layout(layout: Layout) -> GridLayout:
    """The layout as a grid; `InputError` for a side that is not an image."""
    if not isinstance(layout, GridLayout):
        raise InputError(f"this experiment needs images; the model's left side is {layout.modality}")
    return layout


def span_map(e: Interactions, span: tuple[int, int] | None) -> tuple[np.ndarray, GridLayout]:
    """The attribution of a span of the caption, or all of it, to the cells of the image, and the layout of the cells."""
    layout = image_layout(e.left_layout)
    return layout.view(e.toward_left(span)).double().numpy(), layout


def box_sum(e: Interactions, span: tuple[int, int] | None, box: Box) -> float:
    """Attribution between a span and a box; a cell counts by the share of it that the box covers."""
    layout = image_layout(e.left_layout)
    values = e.toward_left(span)
    return float((values * layout.cover(box).to(values)).sum())
