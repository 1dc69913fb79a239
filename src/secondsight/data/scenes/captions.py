"""Captions of scenes from a small grammar, with the span of every noun, and captions with one mistake."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from secondsight.data.scenes.compose import BIG, SMALL, Scene
from secondsight.data.scenes.world import COLOURS, PATTERNS, PLACES, classes

OPENERS = ("", "", "", "a photo of ", "a picture of ", "an image of ", "we see ", "there is ")
LINKS = (" and ", " with ", " next to ", " near ", " beside ")
OPPOSITE = {
    " to the left of ": " to the right of ",
    " to the right of ": " to the left of ",
    " above ": " below ",
    " below ": " above ",
}
"""Relations between centres, and their opposites."""

NUMBERS = ("", "", "two", "three", "four")


@dataclass(frozen=True)
class Noun:
    """A phrase for some of a scene's `objects`, by their indices: "two big dogs"."""

    name: str
    objects: tuple[int, ...]
    size: str = ""

    def text(self) -> tuple[str, int]:
        """The phrase, and the index of its noun's first character."""
        many = len(self.objects) > 1
        word = classes()[self.name].plural if many else self.name
        size = f"{self.size} " if self.size else ""
        if many:
            lead = NUMBERS[len(self.objects)] + " " + size
        elif self.name in ("skis", "scissors"):
            lead = size
        else:
            lead = ("an " if (size or word)[0] in "aeiou" else "a ") + size
        return lead + word, len(lead)


Part = str | Noun


@dataclass(frozen=True)
class Caption:
    """A caption as parts: nouns, and the text between them; the last part may name the background."""

    parts: tuple[Part, ...]

    def text(self) -> str:
        """The caption."""
        return "".join(p.text()[0] if isinstance(p, Noun) else p for p in self.parts)

    def spans(self) -> list[tuple[Noun, tuple[int, int]]]:
        """The characters of every noun (without article, number or size)."""
        spans, end = [], 0
        for part in self.parts:
            if isinstance(part, Noun):
                text, lead = part.text()
                spans.append((part, (end + lead, end + len(text))))
                end += len(text)
            else:
                end += len(part)
        return spans

    def part_span(self, index: int) -> tuple[int, int]:
        """The characters of a part, without spaces around it."""
        start = len(Caption(self.parts[:index]).text())
        part = self.parts[index]
        text = part.text()[0] if isinstance(part, Noun) else part
        return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def nouns(scene: Scene) -> list[Noun]:
    """A phrase for every class of the scene, in the order of the objects."""
    indices: dict[str, list[int]] = {}
    for i, item in enumerate(scene.objects):
        indices.setdefault(item.name, []).append(i)
    return [Noun(name, tuple(objects)) for name, objects in indices.items()]


def describe(scene: Scene, rng: random.Random, *, every: bool = False, plain: bool = False) -> Caption:
    """A true caption: objects in any order, sometimes with size, relation and background.

    Unless `every`, objects may be left out. `plain` leaves out sizes, relations and background.
    """
    phrases = nouns(scene)
    rng.shuffle(phrases)
    if not every and len(phrases) > 1 and rng.random() < 0.4:
        phrases = phrases[: rng.randint(1, len(phrases) - 1)]
    if not plain:
        phrases = [_with_size(scene, noun, rng) for noun in phrases]
    opener = rng.choice(OPENERS)
    if opener == "there is " and len(phrases[0].objects) > 1:
        opener = "there are "
    parts: list[Part] = [opener, phrases[0]]
    relation = (
        "" if plain or len(phrases) < 2 or rng.random() < 0.5 else clear_relation(scene, phrases[0], phrases[1], rng)
    )
    rest = phrases[1:]
    if relation:
        parts += [relation, rest[0]]
        rest = rest[1:]
        joins = [", with ", " and "] if len(rest) > 1 else [", with "]
    else:
        joins = [", "] * (len(rest) - 1) + [rng.choice(LINKS) if len(rest) == 1 else " and "]
    for join, noun in zip(joins, rest, strict=False):
        parts += [join, noun]
    if not plain and rng.random() < 0.35:
        parts.append(background_words(scene))
    return Caption(tuple(p for p in parts if p))


def _with_size(scene: Scene, noun: Noun, rng: random.Random) -> Noun:
    size = size_word(scene, noun)
    return replace(noun, size=size) if size and rng.random() < 0.35 else noun


def size_word(scene: Scene, noun: Noun) -> str:
    """The word "big" or "small" where all of a noun's objects are; else empty."""
    sides = [scene.objects[i].side for i in noun.objects]
    return "big" if min(sides) >= BIG else "small" if max(sides) <= SMALL else ""


def clear_relation(scene: Scene, first: Noun, second: Noun, rng: random.Random) -> str:
    """A relation that clearly holds between two single objects, or nothing."""
    if len(first.objects) > 1 or len(second.objects) > 1:
        return ""
    a, b = scene.objects[first.objects[0]], scene.objects[second.objects[0]]
    (ax, ay), (bx, by) = a.centre, b.centre
    clear = max(a.side, b.side) / 2
    true = []
    if abs(ax - bx) > max(clear, abs(ay - by) * 0.7):
        true.append(" to the left of " if ax < bx else " to the right of ")
    if abs(ay - by) > max(clear, abs(ax - bx) * 0.7):
        true.append(" above " if ay < by else " below ")
    return rng.choice(true) if true else ""


def background_words(scene: Scene) -> str:
    """The end of a caption that names the scene's background; empty where it has no words."""
    kind = scene.background.kind
    if kind in PLACES:
        return " " + PLACES[kind]
    if kind in PATTERNS:
        return " on " + PATTERNS[kind]
    if kind == "plain":
        colour = scene.background.colours[0]
        return f" on a{'n' if colour[0] in 'aeiou' else ''} {colour} background"
    return ""


@dataclass(frozen=True)
class WrongCaption:
    """A caption with one wrong part: the span it has here, the span it replaces in the right one, the kind of change."""

    caption: Caption
    span: tuple[int, int]
    replaced: tuple[int, int]
    kind: str


def wrong_captions(scene: Scene, caption: Caption, rng: random.Random) -> list[WrongCaption]:
    """One wrong caption of each kind that the caption allows.

    "replace_object": one noun becomes another class of its supercategory that is not in the scene. "swap_relation": left
    and right, above and below. "swap_size": big and small. "swap_place": another background.
    """
    options: dict[str, list[tuple[int, Part]]] = {}
    for i, part in enumerate(caption.parts):
        if isinstance(part, Noun):
            names = _absent_classes(scene, part.name)
            if names:
                options.setdefault("replace_object", []).append((i, replace(part, name=rng.choice(names))))
            if part.size:
                swapped = "small" if part.size == "big" else "big"
                options.setdefault("swap_size", []).append((i, replace(part, size=swapped)))
        elif part in OPPOSITE:
            options.setdefault("swap_relation", []).append((i, OPPOSITE[part]))
    background = background_words(scene)
    if background and caption.parts[-1] == background:
        options["swap_place"] = [(len(caption.parts) - 1, rng.choice(_different_backgrounds(background)))]
    captions = []
    for kind, replacements in options.items():
        index, part = rng.choice(replacements)
        wrong = Caption((*caption.parts[:index], part, *caption.parts[index + 1 :]))
        if kind == "replace_object":
            replaced, span = _noun_span(caption, index), _noun_span(wrong, index)
        else:
            replaced, span = caption.part_span(index), wrong.part_span(index)
        captions.append(WrongCaption(wrong, span, replaced, kind))
    return captions


def _noun_span(caption: Caption, index: int) -> tuple[int, int]:
    number = sum(isinstance(p, Noun) for p in caption.parts[:index])
    return caption.spans()[number][1]


def _absent_classes(scene: Scene, name: str) -> list[str]:
    """Classes of the same supercategory that are not in the scene; for "person", any class if there are none."""
    present = {item.name for item in scene.objects}
    group = classes()[name].group
    absent = [cls for cls in classes().values() if cls.name not in present]
    similar = [cls.name for cls in absent if cls.group == group]
    return similar or ([cls.name for cls in absent] if group == "person" else [])


def _different_backgrounds(background: str) -> list[str]:
    places = [f" {place}" for place in PLACES.values()]
    colours = [f" on a{'n' if c[0] in 'aeiou' else ''} {c} background" for c in sorted(COLOURS)]
    patterns = [f" on {pattern}" for pattern in PATTERNS.values()]
    options: Sequence[str] = next(o for o in (places, colours, patterns) if background in o)
    return [option for option in options if option != background]


def words() -> list[str]:
    """Every word that can occur in a caption, sorted."""
    text = " ".join(
        [
            *(f"{t.name} {t.plural}" for t in classes().values()),
            *OPENERS,
            "there are",
            *LINKS,
            *OPPOSITE,
            *NUMBERS,
            "a an big small on background , with",
            *PLACES.values(),
            *PATTERNS.values(),
            *COLOURS,
        ]
    )
    return sorted(set(text.split()))
