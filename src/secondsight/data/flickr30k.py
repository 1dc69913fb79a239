"""Flickr30k Entities: sentences with marked phrases, and their boxes in XML."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from secondsight.data.grounded import (
    Box,
    EntryError,
    GroundedCaption,
    GroundedDataset,
    Phrase,
    Region,
    check_image,
    existing_folder,
    parse_box,
)
from secondsight.support.errors import InputError

_PHRASE = re.compile(r"\[/EN#(\d+)(/\S*)?\s+([^\]]*)\]")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_IMAGE_FOLDERS = ("flickr30k-images", "flickr30k_images", "images")

_LONGEST_ID = 200
"""Longer ids cannot be file names, and looking them up raises an `OSError`."""


class Flickr30k(GroundedDataset):
    """Captions with all annotated phrases; `folder` holds Sentences/ID.txt and Annotations/ID.xml.

    `images` is the folder of ID.jpg, by default flickr30k-images, flickr30k_images or images in or beside `folder`.
    `split` reads the image ids in SPLIT.txt ("train", "val", "test"); None reads all. A phrase's label is its type
    (people, clothing, …), the first if it has several; phrases without a box (nobox, scenes) are not listed.
    """

    def __init__(self, folder: str | Path, split: str | None = None, *, images: str | Path | None = None) -> None:
        self.folder = existing_folder(folder, "Flickr30k")
        if not (self.folder / "Sentences").is_dir():
            raise InputError(f"Flickr30k: {str(folder)!r} has no folder Sentences")
        self.images = existing_folder(images, "Flickr30k") if images else self._images()
        super().__init__("Flickr30k" if split is None else f"Flickr30k {split}")
        self.entries: list[tuple[str, int]] = []
        for image_id in self._image_ids(split):
            file = self.folder / "Sentences" / f"{image_id}.txt"
            if len(image_id) > _LONGEST_ID or not file.is_file():
                self.problems[image_id[:40]] = "missing sentences"
                continue
            self.entries += [(image_id, number) for number in range(len(self._sentences(image_id)))]
        self._cached_boxes: tuple[str, dict[str, list[Box]]] | None = None

    def _image_ids(self, split: str | None) -> list[str]:
        if split is None:
            return sorted((f.stem for f in (self.folder / "Sentences").glob("*.txt")), key=lambda s: (len(s), s))
        file = self.folder / f"{split}.txt"
        if not file.is_file():
            available = ", ".join(sorted(f.stem for f in self.folder.glob("*.txt"))) or "none"
            raise InputError(f"Flickr30k: no split file {file.name}; known: {available}")
        text = file.read_text(encoding="utf-8-sig", errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def _images(self) -> Path:
        folders = [parent / name for parent in (self.folder, self.folder.parent) for name in _IMAGE_FOLDERS]
        return next((folder for folder in folders if folder.is_dir()), folders[0])

    def _sentences(self, image_id: str) -> list[str]:
        text = (self.folder / "Sentences" / f"{image_id}.txt").read_text(encoding="utf-8-sig", errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    def __len__(self) -> int:
        return len(self.entries)

    def key(self, index: int) -> str:
        """IMAGE#SENTENCE."""
        return "#".join(str(part) for part in self.entries[index])

    def read(self, index: int) -> GroundedCaption:
        """One sentence without its marks, and its phrases that have boxes."""
        image_id, number = self.entries[index]
        marked = self._sentences(image_id)[number].strip()
        file = self.images / f"{image_id}.jpg"
        check_image(file)
        boxes = self._boxes(image_id)
        caption, end, phrases = "", 0, []
        # Several phrases of a caption may name one entity, whose boxes are listed as regions once.
        regions: dict[str, list[Region]] = {}
        for match in _PHRASE.finditer(marked):
            caption += marked[end : match.start()]
            start = len(caption)
            caption += match.group(3).strip()
            end = match.end()
            entity, label = match.group(1), (match.group(2) or "/other").split("/")[1]
            if entity in boxes and len(caption) > start:
                phrases.append(Phrase((start, len(caption)), tuple(boxes[entity]), label))
                regions[entity] = [Region(entity, box, label) for box in boxes[entity]]
        caption += marked[end:]
        if not caption.strip():
            raise EntryError("empty caption")
        objects = tuple(region for entity_regions in regions.values() for region in entity_regions)
        return GroundedCaption(f"{image_id}#{number}", image_id, file, caption, tuple(phrases), objects)

    def _boxes(self, image_id: str) -> dict[str, list[Box]]:
        """Boxes by entity; the last image's are cached for its next caption."""
        if self._cached_boxes is not None and self._cached_boxes[0] == image_id:
            return self._cached_boxes[1]
        file = self.folder / "Annotations" / f"{image_id}.xml"
        if not file.is_file():
            raise EntryError("missing annotations")
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as problem:
            raise EntryError(f"unreadable annotations: {problem}") from None
        boxes: dict[str, list[Box]] = defaultdict(list)
        for item in root.iter("object"):
            for element in item.iter("bndbox"):
                corners = [element.findtext(name) for name in _CORNERS]
                box = parse_box([corner for corner in corners if corner is not None])
                for name in item.findall("name"):
                    if box is not None and name.text:
                        boxes[name.text.strip()].append(box)
        self._cached_boxes = (image_id, dict(boxes))
        return self._cached_boxes[1]
