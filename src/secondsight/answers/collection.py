"""A collection: images and captions decomposed once into two stores, and which caption belongs to which image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.interactions import Interactions
from secondsight.data import open_data
from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.methods import Method
from secondsight.model import DualEncoder, Side
from secondsight.scale.decompose import Report, check_texts, decompose
from secondsight.scale.sources import Source, of_data
from secondsight.scale.store import Store, open_store
from secondsight.support.errors import InputError

DEFAULT = "collection"
"""The method of answers: images at their last layer, words before they are mixed."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(eq=False)
class Collection:
    """Two stores of one model and method, and the `pairs` (image key, caption key) that belong together.

    Everything about the pairs is algebra on the stores: n images and m captions cost n + m runs of the model, and only the
    rows that are looked at are in memory. `data` has the photographs, captions and boxes, where they are at hand.
    """

    images: Store
    texts: Store
    pairs: Sequence[tuple[str, str]]
    data: GroundedDataset | None = None
    problems: dict[str, str] = field(default_factory=dict)
    _entries: dict[str, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def interactions(self, number: int) -> Interactions:
        """Pair `number` in four terms: the image on the left, its caption on the right."""
        image, text = self.pairs[number]
        return self.images[image] @ self.texts[text]

    def __iter__(self) -> Iterator[Interactions]:
        return (self.interactions(number) for number in range(len(self)))

    def example(self, number: int) -> GroundedCaption:
        """The photograph, caption and boxes of pair `number`; `InputError` where the data is not at hand."""
        image, text = self.pairs[number]
        if self.data is None or text not in self._entries:
            raise InputError(f"the photograph {image!r} is not at hand: give the data that the stores were made of")
        example: GroundedCaption = self.data[self._entries[text]]
        return example

    @property
    def has_boxes(self) -> bool:
        """Whether the first hundred examples have an annotated object."""
        if self.data is None:
            return False
        return any(self.example(number).regions for number in range(min(len(self), 100)))

    def mean(self, side: str) -> Float[Tensor, " joint"]:
        """The mean of all embeddings of a side ("image" or "text") times their scales.

        An entry's product with it is its mean similarity to that side.
        """
        store = {"image": self.images, "text": self.texts}[side]
        return store.embeddings.double().mean(0)


def collect(
    data: str | Path | GroundedDataset,
    model: DualEncoder,
    out: str | os.PathLike[str],
    method: Method | type[Method] | str | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Collection:
    """Decompose a data set's images and captions into the stores OUT/image and OUT/text, and open them together.

    `method` is "collection" unless given. `limit` bounds the number of captions. Continues where an earlier call stopped.
    Captions whose image cannot be used, or that cannot be used themselves, are named in `problems`. Raises `InputError` for
    stores of another model or method.
    """
    dataset = open_data(data) if isinstance(data, str | Path) else data
    method = storable_method(model, method)
    images, texts = of_data(dataset, "image"), of_data(dataset, "text").first(limit)
    # Both are in the data's order: the images of the captions are those that come no later than the last caption.
    images = images.first(sum(number <= texts.entries[-1] for number in images.entries))
    folder = Path(out)
    problems: dict[str, str] = {}
    for source in (images, texts):
        report = decompose(
            source, model, folder / source.kind, method, progress=decomposing(f"{source.kind}s", progress)
        )
        problems |= report.problems
    collection = _paired(open_store(folder / "image"), open_store(folder / "text"), dataset, entries_of(texts))
    collection.problems = {**dataset.problems, **problems}
    return collection


def storable_method(model: DualEncoder, method: Method | type[Method] | str | None) -> Method:
    """The method of an answer, by default "collection"; token vectors of late interaction have a method of their own."""
    return model.storable(DEFAULT if method is None and model.factorises else method)


def decompose_texts(
    texts: Sequence[tuple[str, Side, Sequence[str], Sequence[str]]],
    model: DualEncoder,
    folder: Path,
    method: Method,
    progress: Progress | None,
) -> tuple[list[Store], dict[str, str]]:
    """A store in `folder` for each (name, side, keys, texts), and by key the texts that cannot be used."""
    stores: list[Store] = []
    problems: dict[str, str] = {}
    for name, side, keys, contents in texts:
        source = Source("text", keys, contents.__getitem__)
        report = decompose(
            source, model, folder / name, method, side=side, progress=decomposing(f"{name} texts", progress)
        )
        problems |= report.problems
        stores.append(open_store(folder / name))
    return stores, problems


def open_collection(
    images: str | os.PathLike[str] | Store,
    texts: str | os.PathLike[str] | Store,
    data: str | Path | GroundedDataset | None = None,
) -> Collection:
    """Two stores of one model as a collection; `data` is what they were made of, for photographs and boxes.

    A caption belongs to the image whose key its own key begins with, IMAGE/CAPTION, as `decompose` names those of a data
    set. Raises `InputError` for stores that cannot be multiplied, of which no caption belongs to an image, or that were made
    of other captions than the data has now.
    """
    left = images if isinstance(images, Store) else open_store(images)
    right = texts if isinstance(texts, Store) else open_store(texts)
    if data is None:
        return _paired(left, right, None, {})
    dataset = open_data(data) if isinstance(data, str | Path) else data
    captions = of_data(dataset, "text")
    check_texts(captions, right)
    return _paired(left, right, dataset, entries_of(captions))


def entries_of(texts: Source) -> dict[str, int]:
    """Where in its data set each caption of a source is, by the caption's key."""
    return dict(zip(texts.keys, texts.entries, strict=True))


def _paired(images: Store, texts: Store, data: GroundedDataset | None, entries: dict[str, int]) -> Collection:
    names = [repr(str(store.folder)) for store in (images, texts)]
    if images.facts["space"] != texts.facts["space"]:
        raise InputError(f"{' and '.join(names)} come from different models or methods: decompose both with the same")
    keys = [key for key in (entries or texts.keys()) if key in texts]
    pairs = [(image, key) for key in keys if (image := _image_key(key, images)) is not None]
    if not pairs:
        raise InputError(
            f"no caption of {names[1]} belongs to an image of {names[0]}: decompose both from one data set"
        )
    return Collection(images, texts, pairs, data, _entries=entries)


def _image_key(text_key: str, images: Store) -> str | None:
    """The image that a caption belongs to; captions of a data set are named IMAGE/CAPTION."""
    parts = text_key.split("/")
    candidates = ("/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
    return next((key for key in candidates if key in images), None)


def decomposing(what: str, progress: Progress | None) -> Callable[[Report], None] | None:
    """A callback for `decompose` that tells `progress` how far it is with `what`, such as "captions"."""
    if progress is None:
        return None
    return lambda report: progress(f"decomposing {what}", report.done + report.skipped, report.whole)
