"""Comparisons: images, captions, and which fits which; as a data set they are captions with their wrong ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from secondsight.data.grounded import (
    Box,
    EntryError,
    GroundedCaption,
    GroundedDataset,
    Negative,
    Phrase,
    Region,
    check_image,
)
from secondsight.data.negatives import changed_words
from secondsight.inputs.photographs import open_image
from secondsight.support.errors import InputError
from secondsight.support.files import brief, one_line


@dataclass(frozen=True)
class Comparison:
    """One or more images with two or more captions; `fits` has, for every image, the numbers of the captions that fit it.

    `image_keys` name the images. `tags` say what is tested, and `kinds` what was changed in each caption, where a benchmark
    tells that. Comparisons of one `group` also count together. `crops` are the parts of the images that are shown,
    x0, y0, x1, y1. `phrases` of every caption have their boxes in the first image that the caption fits; `regions` are the
    annotated objects of every image.
    """

    key: str
    image_keys: tuple[str, ...]
    images: tuple[Path | Image.Image, ...]
    captions: tuple[str, ...]
    fits: tuple[tuple[int, ...], ...]
    tags: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    group: str = ""
    crops: tuple[Box, ...] = ()
    phrases: tuple[tuple[Phrase, ...], ...] = ()
    regions: tuple[tuple[Region, ...], ...] = ()

    def check(self) -> Comparison:
        """The comparison itself; raises `EntryError` unless every image has a caption that fits and one that does not."""
        if not self.images or len(self.captions) < 2:
            raise EntryError("no image, or fewer than two captions")
        if not all(isinstance(caption, str) and caption.strip() for caption in self.captions):
            raise EntryError("empty caption")
        if len(self.fits) != len(self.images):
            raise EntryError("fits has not one list for every image")
        numbers = set(range(len(self.captions)))
        for fitting in self.fits:
            if not fitting or not set(fitting) < numbers:
                raise EntryError("an image lacks a caption that fits, or one that does not")
        for name in ("kinds", "phrases"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.captions):
                raise EntryError(f"{name} has not one entry for every caption")
        for name in ("image_keys", "crops", "regions"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.images):
                raise EntryError(f"{name} has not one entry for every image")
        return self

    def pairs(self) -> list[tuple[int, int]]:
        """(image, caption) of every caption that fits an image."""
        return [(image, caption) for image, fitting in enumerate(self.fits) for caption in fitting]

    def picture(self, image: int) -> Path | Image.Image:
        """An image as models see it; raises `EntryError` if its file is missing or no picture."""
        check_image(self.images[image])
        if not self.crops:
            return self.images[image]
        x0, y0, x1, y1 = self.crops[image]
        try:
            return open_image(self.images[image]).crop((round(x0), round(y0), round(x1), round(y1)))
        except InputError as problem:
            raise EntryError(str(problem)) from None

    def captions_of(self, image: int, caption: int) -> ComparedCaption:
        """A caption that fits an image, with all that do not as its negatives."""
        right, wrong = self.captions[caption], [c for c in range(len(self.captions)) if c not in self.fits[image]]
        first = next(number for number, fitting in enumerate(self.fits) if caption in fitting)
        name = self.image_keys[image]
        crop = "#" + ",".join(f"{corner:g}" for corner in self.crops[image]) if self.crops else ""
        return ComparedCaption(
            self.key if len(self.pairs()) == 1 else f"{self.key}/{image}/{caption}",
            name + crop,
            self.picture(image),
            right,
            self.phrases[caption] if self.phrases and first == image else (),
            self.regions[image] if self.regions else (),
            tuple(self._negative(right, number) for number in wrong),
            comparison=self,
            image_number=image,
            caption_number=caption,
            wrong_numbers=tuple(wrong),
        )

    def _negative(self, right: str, caption: int) -> Negative:
        before, after = changed_words(right, self.captions[caption])
        kind = self.kinds[caption] if self.kinds else next(iter(self.tags), "")
        return Negative(self.captions[caption], after, before, kind)


@dataclass(frozen=True)
class ComparedCaption(GroundedCaption):
    """A caption that fits an image of a comparison; `wrong_numbers` are its negatives' numbers among the captions."""

    comparison: Comparison | None = None
    image_number: int = 0
    caption_number: int = 0
    wrong_numbers: tuple[int, ...] = ()


class Comparisons(GroundedDataset):
    """Comparisons as a data set of captions: one entry for every image and caption that fits it, wrong ones as negatives.

    `comparisons` lists the usable ones.
    """

    def __init__(self, name: str, comparisons: Iterable[Comparison], problems: dict[str, str] | None = None) -> None:
        super().__init__(name, dict(problems or {}))
        self.comparisons = list(comparisons)
        self.entries = [(c, *pair) for c in self.comparisons for pair in c.pairs()]

    def __len__(self) -> int:
        return len(self.entries)

    def key(self, index: int) -> str:
        """The comparison's key."""
        return self.entries[index][0].key

    def read(self, index: int) -> ComparedCaption:
        """One caption with its image; all images of its comparison must exist."""
        comparison, image, caption = self.entries[index]
        for picture in comparison.images:
            check_image(picture)
        return comparison.captions_of(image, caption)


def read_comparisons(
    name: str, rows: Iterable[tuple[str, Any]], parse: Callable[[str, Any], Comparison]
) -> Comparisons:
    """Comparisons parsed from (key, row); rows that cannot be used become problems."""
    comparisons: dict[str, Comparison] = {}
    problems: dict[str, str] = {}
    for key, row in rows:
        try:
            comparison = parse(key, row).check()
            if comparison.key in comparisons:
                raise EntryError(f"the id {comparison.key!r} of another entry")
            comparisons[comparison.key] = comparison
        except EntryError as problem:
            problems[key] = one_line(problem, 300)
        except Exception as problem:
            problems[key] = f"entry of another form: {brief(problem)}"
    return Comparisons(name, comparisons.values(), problems)


def compared(example: GroundedCaption) -> ComparedCaption:
    """A caption with its negatives as part of a comparison: its own, or one of this image alone."""
    if isinstance(example, ComparedCaption) and example.comparison is not None:
        return example
    comparison = comparison_of(example)
    fields = {name: getattr(example, name) for name in GroundedCaption.__dataclass_fields__}
    return ComparedCaption(**fields, comparison=comparison, wrong_numbers=tuple(range(1, len(comparison.captions))))


def comparison_of(example: GroundedCaption) -> Comparison:
    """A caption with negatives, of any data set, as a comparison of one image whose first caption fits."""
    captions = (example.caption, *(negative.caption for negative in example.negatives))
    return Comparison(
        f"{example.image_key}/{example.key}",
        (example.image_key,),
        (example.image,),
        captions,
        ((0,),),
        kinds=("", *(negative.kind for negative in example.negatives)),
        phrases=(example.phrases, *[()] * len(example.negatives)),
        regions=(example.regions,),
    )
