"""Measure how often the heaviest concept within an object's box is the object's class; write the table into docs/matched.md.

    python scripts/concepts_table.py COCO [--settings]

COCO is a folder in COCO's format, as for `secondsight.data.Coco`, for the builtin model; the scenes come with the package.
`--settings` prints the rows of several settings instead.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import secondsight as ss
from secondsight.concepts import Vocabulary, concepts
from secondsight.data import Coco, Scenes
from secondsight.data.grounded import GroundedCaption
from secondsight.data.scenes.world import classes

PAGE = Path(__file__).parents[1] / "docs" / "matched.md"
CASES = 120
SMALLEST = 0.05
"""The share of the picture that an object must cover to be a case."""

DISTRACTORS = (
    *("sky", "grass", "water", "road", "wall", "floor", "snow", "sand", "tree", "building", "mountain", "window"),
    *("door", "table", "cloth", "fence", "rock", "flower", "sign", "light"),
)
"""What photographs are full of, beside COCO's classes."""


def objects(dataset: Iterable[GroundedCaption], most: int) -> list[tuple[Any, str, Any]]:
    """(image, class, box) of the largest object of every class in every picture, at most `most`."""
    cases: list[tuple[Any, str, Any]] = []
    seen: set[str] = set()
    for entry in dataset:
        if entry.image_key in seen or len(cases) >= most:
            continue
        seen.add(entry.image_key)
        picture = entry.image if isinstance(entry.image, Image.Image) else Image.open(entry.image).convert("RGB")
        largest: dict[str, tuple[float, Any]] = {}
        for region in entry.regions:
            x0, y0, x1, y1 = region.box
            area = (x1 - x0) * (y1 - y0)
            if not region.crowd and area > largest.get(region.label, (0.0,))[0]:
                largest[region.label] = (area, region.box)
        least = SMALLEST * picture.width * picture.height
        cases += [(picture, label, box) for label, (area, box) in largest.items() if area >= least]
    return cases[:most]


def hits(sides: Sequence[Any], partner: Any, cases: Sequence[Any], words: Vocabulary, penalty: float) -> str:
    """The end of a row: in how many cases the heaviest concept, the heaviest five, and the nearest word are right."""
    counts, rests, split = [0, 0, 0], [], None
    for left, (_, label, box) in zip(sides, cases, strict=True):
        if split is None or split.pair.left_contributions is not left:
            split = concepts(left @ partner, words, penalty=penalty)
            rests.append(split.rest_share)
        ranked = [word for word, _ in split.within(box)]
        within_box = left.layout.cover(box).double() @ left.vectors.double()
        nearest = words.words[int((words.vectors @ within_box).argmax())]
        for place, hit in enumerate((label in ranked[:1], label in ranked[:5], label == nearest)):
            counts[place] += hit
    first, five, dense = (f"{count} of {len(cases)}" for count in counts)
    return f"{first} | {five} | {dense} | {sum(rests) / len(rests):.0%} |"


def rows(
    name: str, cases: Sequence[Any], words: Sequence[str], settings: Sequence[tuple[bool, float]]
) -> Iterator[str]:
    """The rows of a model: the preset of one pair and that of stores, with every setting."""
    model = ss.load(name)
    for method in ("last-layer", "grounded"):
        sides: list[Any] = []
        for number, (picture, _, _) in enumerate(cases):
            known = number and picture is cases[number - 1][0]
            sides.append(sides[-1] if known else model.image.contributions([picture], method)[0])
        partner = model.text.contributions(["a photograph"], method)[0]
        for center, penalty in settings:
            vocabulary = Vocabulary.encode(model, words, center=center)
            told = method if len(settings) == 1 else f"{method}, center={center}, penalty={penalty}"
            yield f"| {name} | {told} | {len(words)} | {hits(sides, partner, cases, vocabulary, penalty)}"


def table(coco: str, settings: Sequence[tuple[bool, float]]) -> str:
    """Rows for the scenes model and the builtin one."""
    data = Coco(coco)
    names = [str(category["name"]) for category in data.categories.values()]
    lines = [
        "| model | preset | words | heaviest concept | among five | nearest word | rest |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, dataset, words in (
        ("scenes", Scenes(100, seed=11), list(classes())),
        ("builtin", data, list(dict.fromkeys([*names, *DISTRACTORS]))),
    ):
        for row in rows(name, objects(dataset, CASES), words, settings):
            print(row, flush=True)
            lines.append(row)
    return "\n".join(lines)


if __name__ == "__main__":
    if "--settings" in sys.argv:
        table(sys.argv[1], [(center, penalty) for center in (True, False) for penalty in (0.3, 0.1, 0.03, 0.01)])
        sys.exit()
    marker = r"(<!-- concepts: scripts/concepts_table.py -->\n).*?(\n<!-- /concepts -->)"
    measured, before = table(sys.argv[1], [(True, 0.1)]), PAGE.read_text()
    after, count = re.subn(marker, lambda match: match[1] + measured + match[2], before, flags=re.S)
    assert count == 1, "docs/matched.md has lost its markers"
    PAGE.write_text(after)
    print(f"wrote {PAGE}")
