"""A folder of photographs, decomposed once; queries rank them and map their words without the image encoder."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
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

_MOST = 4096
"""Photographs whose vectors are kept in memory."""

_NODES = 4
"""Nodes of the path integral: a folder waits for it, and maps change by less than their colours show."""

_SIDE = 420
"""Pixels of a thumbnail's longer side."""


@dataclass(frozen=True)
class Photo:
    """A photograph, its thumbnail and its contribution vectors."""

    name: str
    small: Image.Image
    jpeg: bytes
    vectors: Contributions


class Photos:
    """The photographs of a folder and its subfolders, in the order of their paths.

    Raises `InputError` where the folder is none, is empty or holds too many.
    """

    def __init__(self, folder: Path) -> None:
        self.paths = photographs(folder)
        if len(self.paths) > _MOST:
            raise InputError(f"{str(folder)!r} holds {len(self.paths)} photographs, more than {_MOST}")
        self.photos: list[Photo] = []
        self.looked_at = 0
        self.skipped: list[str] = []

    def steps(self, model: DualEncoder) -> Iterator[None]:
        """Decompose one photograph after the other; those that cannot be read are listed in `skipped`."""
        for name, path in self.paths.items():
            try:
                self.photos.append(_photo(name, path, model))
            except (InputError, AdapterError, MemoryError) as problem:
                log.warning("skipped: %s", problem)
                self.skipped.append(name)
            self.looked_at += 1
            yield

    def search(self, model: DualEncoder, query: str, limit: int) -> dict[str, Any]:
        """The best photographs for a query, each with what the view shows of it."""
        right = model.pair("image", "text").right
        prepared = right.encoder.prepare(query)
        words = right.contributions([query])[0]
        photos = list(self.photos)
        direction = words.embedding.double() * words.scale
        similar = [float(photo.vectors.embedding.double() @ direction) * photo.vectors.scale for photo in photos]
        ranked = sorted(range(len(photos)), key=lambda i: (-similar[i], i))
        hits = []
        for number in ranked[:limit]:
            photo = photos[number]
            pair = photo.vectors @ words
            shown = page_data(with_inputs(pair, photo.small, prepared.shown))
            # The thumbnail comes from its own address.
            hits.append(
                {"photo": number, "name": photo.name, "similarity": pair.similarity, "view": {**shown, "pictures": []}}
            )
        return {"query": query, "photos": len(photos), "hits": hits}


def _photo(name: str, path: Path, model: DualEncoder) -> Photo:
    image = open_image(path)
    vectors = model.pair("image", "text").left.contributions([image], IntegratedJacobian(steps=_NODES))[0]
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return Photo(name, small, buffer.getvalue(), vectors)
