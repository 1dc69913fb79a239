"""Two scenes that differ in which of two objects is where, and their captions of the same words, in Winoground's form."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

from PIL import Image

from secondsight.data.compositional.schema import Comparison, Comparisons
from secondsight.data.grounded import Phrase, Region
from secondsight.data.masks import box_of, mask_of
from secondsight.data.scenes import Scenes, classes, open_scenes
from secondsight.data.scenes.captions import LINKS, Caption, Noun, Part, clear_relation, nouns, size_word
from secondsight.data.scenes.compose import Scene, draw

TAGS = ("relation", "size", "number")
"""What tells the two objects of a caption apart."""


def scene_pairs(scenes: Scenes) -> Comparisons:
    """As many comparisons as there are scenes, of the same style, size and seed; the same on any machine.

    The second scene is the first one with the drawings of two classes exchanged, and so is its caption: "a dog to the left of
    a cat", "a big dog and a small cat", "two dogs and a cat".
    """
    name = f"scene pairs ({scenes.style}, seed {scenes.seed})"
    return Comparisons(name, (_comparison(scenes, number) for number in range(scenes.count)))


def open_scene_pairs(style_count: str, seed: str | None = None) -> Comparisons:
    """The comparisons of a name `STYLE[/COUNT]` and a seed, as of `open_scenes`."""
    return scene_pairs(open_scenes(style_count, seed))


def _comparison(scenes: Scenes, number: int) -> Comparison:
    rng = random.Random(f"scene pair/{scenes.seed}/{number}")
    tag = TAGS[number % len(TAGS)]
    caption = None
    while caption is None:
        scene = scenes.random_scene(rng)
        caption = _caption(scene, tag, rng)
    first, second = (part.name for part in caption.parts if isinstance(part, Noun))
    names = {first: second, second: first}
    exchanged = replace(
        scene, objects=tuple(replace(item, name=names.get(item.name, item.name)) for item in scene.objects)
    )
    swapped = Caption(
        tuple(replace(part, name=names[part.name]) if isinstance(part, Noun) else part for part in caption.parts)
    )
    drawings = [draw(s, scenes.style, scenes.size) for s in (scene, exchanged)]
    regions = [
        tuple(
            Region(item.name, box_of(mask), classes()[item.name].group, visible=share, mask=mask_of(mask))
            for item, mask, share in zip(s.objects, drawing.masks, drawing.visible, strict=True)
        )
        for s, drawing in zip((scene, exchanged), drawings, strict=True)
    ]
    phrases = [
        tuple(Phrase(span, tuple(boxes[i].box for i in noun.objects), noun.name) for noun, span in text.spans())
        for text, boxes in zip((caption, swapped), regions, strict=True)
    ]
    return Comparison(
        f"{number:05d}",
        tuple(f"pair-{scenes.style}-{scenes.seed}-{scenes.size}-{number:05d}-{i}" for i in range(2)),
        tuple(Image.fromarray(drawing.pixels) for drawing in drawings),
        (caption.text(), swapped.text()),
        ((0,), (1,)),
        (tag,),
        phrases=tuple(phrases),
        regions=tuple(regions),
    )


def _caption(scene: Scene, tag: str, rng: random.Random) -> Caption | None:
    """A caption of two classes that is true only while they are not exchanged; None where the scene has none of this tag."""
    pairs = list(permutations(nouns(scene), 2))
    rng.shuffle(pairs)
    for first, second in pairs:
        link: Part = rng.choice(LINKS)
        if tag == "relation":
            link = clear_relation(scene, first, second, rng)
        elif tag == "size":
            first, second = (replace(noun, size=size_word(scene, noun)) for noun in (first, second))
        differ = {"relation": bool(link), "size": {first.size, second.size} == {"big", "small"}}
        if differ.get(tag, len(first.objects) != len(second.objects)):
            return Caption((first, link, second))
    return None
