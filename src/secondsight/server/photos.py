"""A folder of photographs, decomposed once; queries rank them and map their words without the image encoder."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.data import photographs
from secondsight.explanation import with_inputs
from secondsight.inputs.images import open_image
from secondsight.methods import IntegratedJacobian
from secondsight.model import DualEncoder
from secondsight.scale import search
from secondsight.support.errors import AdapterError, InputError
from secondsight.visual.page_data import page_data

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
    """The photographs of a folder and its subfolders, in the order of their paths; entries for `secondsight.scale.search`.

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

    def keys(self) -> list[str]:
        """The numbers of the decomposed photographs, as strings."""
        return [str(number) for number in range(len(self.photos))]

    @property
    def embeddings(self) -> Float[Tensor, "photo joint"]:
        """Embeddings times their scale."""
        return torch.stack([photo.vectors.embedding.double() * photo.vectors.scale for photo in self.photos])

    def __getitem__(self, key: str) -> Contributions:
        return self.photos[int(key)].vectors

    def search(self, model: DualEncoder, query: str, limit: int) -> dict[str, Any]:
        """The best photographs for a query, each with what the view shows of it."""
        side = model.pair("image", "text").right
        caption = side.encoder.prepare(query).display
        words = side.contributions([query])[0]
        hits = []
        for hit in search(self, words, limit) if self.photos else []:
            photo = self.photos[int(hit.key)]
            pair = hit.pair
            view = page_data(with_inputs(pair, photo.small, caption))
            # The app fetches the thumbnail from its own address.
            view["pictures"] = []
            hits.append({"photo": int(hit.key), "name": photo.name, "similarity": pair.similarity, "view": view})
        return {"query": query, "photos": len(self.photos), "hits": hits}


def _decompose(name: str, path: Path, model: DualEncoder) -> Photo:
    image = open_image(path)
    vectors = model.pair("image", "text").left.contributions([image], IntegratedJacobian(steps=_NODES))[0]
    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return Photo(name, small, buffer.getvalue(), vectors)
