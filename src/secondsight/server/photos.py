"""A folder of photographs, decomposed once; queries rank them and map their words without the image encoder."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from secondsight.scale import Hit, OrdinaryQueries, ordinary_captions, search
from secondsight.scale.usual import embedding_sum
from secondsight.server.jobs import until_done
from secondsight.support.errors import AdapterError, InputError
from secondsight.visual.page_data import page_data

log = logging.getLogger("secondsight.server")

_MAX_PHOTOS = 4096
"""Photographs whose vectors are kept in memory."""

_NODES = 4
"""Nodes of the path integral: fast, and more nodes change the maps by less than their colours show."""

_THUMBNAIL = 420
"""Pixels of a thumbnail's longer side."""

_CAPTIONS_AT_ONCE = 8
"""Ordinary captions encoded in one step of the background work."""

NOTICES = {
    "builtin": "The builtin model knows objects, those of ImageNet's 1000 kinds: animals, food, vehicles, furniture, tools. It "
    "does not know people, relations (on, behind, holding), colours, counts or actions; for these start the app with a "
    "CLIP model (--model).",
    "scenes": "The scenes model knows drawn scenes of its own small world, not photographs.",
}
"""What a search by a model is good for, by the model's name."""


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
        self.ordinary: OrdinaryQueries | None = None

    def steps(self, load: Callable[[], DualEncoder]) -> Iterator[None]:
        """Load the model, encode ordinary captions, then decompose one photograph a step; unreadable ones are `skipped`."""
        model = yield from until_done(load)
        yield
        side, captions = model.pair("image", "text").right, ordinary_captions()
        total: Tensor = torch.zeros((), dtype=torch.float64)
        for first in range(0, len(captions), _CAPTIONS_AT_ONCE):
            part = captions[first : first + _CAPTIONS_AT_ONCE]
            total = total + (yield from until_done(partial(embedding_sum, side, part)))
            yield
        self.ordinary = OrdinaryQueries(total / len(captions), len(captions))
        for name, path in self.paths.items():
            try:
                self.photos.append((yield from until_done(partial(_decompose, name, path, model))))
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

    def file(self, number: int) -> Path:
        """The file of a decomposed photograph; raises `InputError` where there is none of that number."""
        if not 0 <= number < len(self.photos):
            raise InputError(f"there is no photograph {number} in this folder")
        return self.paths[self.photos[number].name]

    def search(self, model: DualEncoder, query: str, limit: int, rank: str) -> dict[str, Any]:
        """The best photographs for a query, each with what the view shows of it and how close it usually is."""
        caption, hits = self._hits(model, query, limit, rank)
        answer = {"query": query, "photos": len(self.photos), "rank": rank}
        return {**answer, "captions": len(ordinary_captions()), "hits": [self._card(hit, caption) for hit in hits]}

    def compare(self, model: DualEncoder, query: str, first: int, second: int, rank: str) -> dict[str, Any]:
        """Why one photograph leads another for a query: the parts of the lead, and the view of the margin."""
        for number in (first, second):
            self.file(number)
        caption, hits = self._hits(model, query, len(self.photos), rank)
        by_number = {int(hit.key): hit for hit in hits}
        # The one that leads is the first.
        pair = sorted((by_number[first], by_number[second]), key=lambda hit: -hit.score)
        lead, photos = pair[0].compare(pair[1]), [self.photos[int(hit.key)] for hit in pair]
        names = photos[0].name, photos[1].name
        about = {**lead.margin.about, "model": model.name, "method": IntegratedJacobian.name}
        margin = replace(lead.margin, about=about)
        view = page_data(with_inputs(margin, tuple(photo.small for photo in photos), caption))
        for part, name in zip(view["cases"][0]["left"]["parts"], names, strict=True):
            part["name"] = name
        return {**lead.to_json(), "sentence": lead.sentence(names), "names": names, "view": view}

    def _hits(self, model: DualEncoder, query: str, limit: int, rank: str) -> tuple[Any, list[Hit]]:
        """The query as the view shows it, and the hits."""
        side = model.pair("image", "text").right
        caption = side.encoder.prepare(query).display
        if not self.photos:
            return caption, []
        words = side.contributions([query])[0]
        return caption, search(self, words, limit, rank=rank, ordinary=self.ordinary)

    def _card(self, hit: Hit, caption: Any) -> dict[str, Any]:
        photo = self.photos[int(hit.key)]
        view = page_data(with_inputs(hit.pair, photo.small, caption))
        # The app fetches the thumbnail from its own address.
        view["pictures"] = []
        usual = None if hit.usual is None else asdict(hit.usual)
        numbers = {"score": hit.score, "similarity": hit.similarity, "usual": usual}
        return {"photo": int(hit.key), "name": photo.name, **numbers, "view": view}


def _decompose(name: str, path: Path, model: DualEncoder) -> Photo:
    image = open_image(path)
    vectors = model.pair("image", "text").left.contributions([image], IntegratedJacobian(steps=_NODES))[0]
    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return Photo(name, small, buffer.getvalue(), vectors)
