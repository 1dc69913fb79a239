"""A folder of photographs, decomposed once; queries rank them and map their words without the image encoder."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from secondsight.algebra.contributions import Contributions
from secondsight.data import photographs
from secondsight.explanation import with_inputs
from secondsight.inputs.images import open_image
from secondsight.methods import IntegratedJacobian
from secondsight.model import DualEncoder
from secondsight.support.errors import AdapterError, InputError
from secondsight.visual.page import page_data

log = logging.getLogger("secondsight.server")

_MAX_PHOTOS = 4096
"""Photographs whose vectors are kept in memory."""

_NODES = 4
"""Nodes of the path integral: fast, and more nodes change the maps by less than their colours show."""

_THUMBNAIL = 420
"""Pixels of a thumbnail's longer side."""


@dataclass(frozen=True)
class Photo:
    """A photograph's thumbnail (`small`, and as a JPEG file) and its contribution vectors."""

    name: str
    small: Image.Image
    jpeg: bytes
    vectors: Contributions


class Photos:
    """The photographs of a folder and its subfolders, in the order of their paths.

    Raises `InputError` for a folder that does not exist, is empty or holds too many.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = photographs(folder)
        if len(self.paths) > _MAX_PHOTOS:
            raise InputError(f"{str(folder)!r} holds {len(self.paths)} photographs, more than {_MAX_PHOTOS}")
        self.photos: list[Photo] = []
        self.processed = 0
        self.skipped: list[str] = []

    def steps(self, load: Callable[[], DualEncoder]) -> Iterator[None]:
        """Load the model, then decompose one photograph a step; unreadable ones are listed in `skipped`."""
        model = load()
        yield
        for name, path in self.paths.items():
            try:
                self.photos.append(_decompose(name, path, model))
            except (InputError, AdapterError, MemoryError) as problem:
                log.warning("skipped: %s", problem)
                self.skipped.append(name)
            self.processed += 1
            yield

    def search(self, model: DualEncoder, query: str, limit: int) -> dict[str, Any]:
        """The best photographs for a query, each with what the view shows of it."""
        side = model.pair("image", "text").right
        caption = side.encoder.prepare(query).display
        words = side.contributions([query])[0]
        photos = list(self.photos)
        direction = words.embedding.double() * words.scale
        similarities = [float(photo.vectors.embedding.double() @ direction) * photo.vectors.scale for photo in photos]
        ranking = sorted(range(len(photos)), key=lambda number: (-similarities[number], number))
        hits = []
        for number in ranking[:limit]:
            photo = photos[number]
            pair = photo.vectors @ words
            view = page_data(with_inputs(pair, photo.small, caption))
            # The app fetches the thumbnail from its own address.
            view["pictures"] = []
            hits.append({"photo": number, "name": photo.name, "similarity": pair.similarity, "view": view})
        return {"query": query, "photos": len(photos), "hits": hits}


def _decompose(name: str, path: Path, model: DualEncoder) -> Photo:
    image = open_image(path)
    vectors = model.pair("image", "text").left.contributions([image], IntegratedJacobian(steps=_NODES))[0]
    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return Photo(name, small, buffer.getvalue(), vectors)
