"""Flickr30k Entities: sentences with marked phrases, and their boxes in XML."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from secondsight.data.grounded import (
    Box,
    Broken,
    GroundedCaption,
    GroundedDataset,
    Phrase,
    Region,
    check_image,
    folder_of,
    usable_box,
)
from secondsight.support.errors import InputError

_PHRASE = re.compile(r"\[/EN#(\d+)(/\S*)?\s+([^\]]*)\]")


class Flickr30k(GroundedDataset):
    """Captions with all annotated phrases; `folder` holds Sentences/ID.txt and Annotations/ID.xml.

    `images` is the folder of ID.jpg, by default flickr30k-images, flickr30k_images or images in or beside `folder`.
    `split` takes the image ids in SPLIT.txt ("train", "val", "test"); None takes all. A phrase's label is its type
    (people, clothing, …), of several the first; phrases without a box (nobox, scenes) have none and stay in the caption.
    """

    def __init__(self, folder: str | Path, split: str | None = None, *, images: str | Path | None = None) -> None:
        self.folder = folder_of(folder, "Flickr30k")
        if not (self.folder / "Sentences").is_dir():
            raise InputError(f"Flickr30k: {str(folder)!r} has no folder Sentences")
        self.images = folder_of(images, "Flickr30k") if images else self._images()
        super().__init__("Flickr30k" if split is None else f"Flickr30k {split}")
        if split is None:
            ids = sorted((f.stem for f in (self.folder / "Sentences").glob("*.txt")), key=lambda s: (len(s), s))
        else:
            listed = self.folder / f"{split}.txt"
            if not listed.is_file():
                known = sorted(f.stem for f in self.folder.glob("*.txt"))
                raise InputError(f"Flickr30k: no split file {listed.name}; known: {', '.join(known) or 'none'}")
            text = listed.read_text(encoding="utf-8-sig", errors="replace")
            ids = [line.strip() for line in text.splitlines() if line.strip()]
        self.entries: list[tuple[str, int]] = []
        for one in ids:
            file = self.folder / "Sentences" / f"{one}.txt"
            if len(one) > 200 or not file.is_file():  # longer names are no file's, and an error to ask for
                self.problems[one[:40]] = "missing sentences"
                continue
            self.entries += [(one, number) for number in range(len(self._sentences(one)))]
        self._parsed: tuple[str, dict[str, list[Box]]] | None = None

    def _images(self) -> Path:
        names = ("flickr30k-images", "flickr30k_images", "images")
        places = [parent / name for parent in (self.folder, self.folder.parent) for name in names]
        return next((place for place in places if place.is_dir()), places[0])

    def _sentences(self, one: str) -> list[str]:
        text = (self.folder / "Sentences" / f"{one}.txt").read_text(encoding="utf-8-sig", errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    def _count(self) -> int:
        return len(self.entries)

    def _key(self, index: int) -> str:
        return "#".join(str(part) for part in self.entries[index])

    def _boxes(self, one: str) -> dict[str, list[Box]]:
        """Boxes by entity; those of an image are kept for its next caption."""
        if self._parsed is not None and self._parsed[0] == one:
            return self._parsed[1]
        file = self.folder / "Annotations" / f"{one}.xml"
        found: dict[str, list[Box]] = defaultdict(list)
        if not file.is_file():
            raise Broken("missing annotations")
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as problem:
            raise Broken(f"unreadable annotations: {problem}") from None
        for item in root.iter("object"):
            for place in item.iter("bndbox"):
                corners = [place.findtext(name) for name in ("xmin", "ymin", "xmax", "ymax")]
                box = usable_box([v for v in corners if v is not None])
                for name in item.findall("name"):
                    if box is not None and name.text:
                        found[name.text.strip()].append(box)
        self._parsed = (one, dict(found))
        return self._parsed[1]

    def _read(self, index: int) -> GroundedCaption:
        one, number = self.entries[index]
        marked = self._sentences(one)[number].strip()
        file = self.images / f"{one}.jpg"
        check_image(file)
        boxes = self._boxes(one)
        caption, phrases, at, regions = "", [], 0, {}
        for match in _PHRASE.finditer(marked):
            caption += marked[at : match.start()]
            start = len(caption)
            caption += match.group(3).strip()
            at = match.end()
            entity, label = match.group(1), (match.group(2) or "/other").split("/")[1]
            if entity in boxes and len(caption) > start:
                phrases.append(Phrase((start, len(caption)), tuple(boxes[entity]), label))
                # Several phrases of a caption may name one entity, whose boxes are one region each.
                regions[entity] = [Region(entity, box, label) for box in boxes[entity]]
        caption += marked[at:]
        if not caption.strip():
            raise Broken("empty caption")
        listed = tuple(region for found in regions.values() for region in found)
        return GroundedCaption(f"{one}#{number}", one, file, caption, tuple(phrases), listed)
