"""Captions of scenes from a small grammar, with the place of every noun, and captions that are wrong by one thing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from secondsight.data.scenes.compose import BIG, SMALL, Scene
from secondsight.data.scenes.world import COLOURS, PATTERNS, PLACES, things

OPENERS = ("", "", "", "a photo of ", "a picture of ", "an image of ", "we see ", "there is ")
LINKS = (" and ", " with ", " next to ", " near ", " beside ")
OPPOSITE = {
    " to the left of ": " to the right of ",
    " to the right of ": " to the left of ",
    " above ": " below ",
    " below ": " above ",
}
"""Relations between centres, and what swapping makes of them."""

NUMBERS = ("", "", "two", "three", "four")


@dataclass(frozen=True)
class Noun:
    """A phrase for the objects `of` (indices into the scene's): "two big dogs"."""

    name: str
    of: tuple[int, ...]
    size: str = ""

    def text(self) -> tuple[str, int]:
        """The phrase, and where its noun begins."""
        thing = things()[self.name]
        many = len(self.of) > 1
        word = thing.plural if many else self.name
        size = f"{self.size} " if self.size else ""
        if many:
            lead = NUMBERS[len(self.of)] + " " + size
        elif self.name in ("skis", "scissors"):
            lead = size
        else:
            lead = ("an " if (size or word)[0] in "aeiou" else "a ") + size
        return lead + word, len(lead)


Part = str | Noun


@dataclass(frozen=True)
class Caption:
    """A caption as parts: nouns, and what stands between them; the last part may name the background."""

    parts: tuple[Part, ...]

    def text(self) -> str:
        """The caption."""
        return "".join(p.text()[0] if isinstance(p, Noun) else p for p in self.parts)

    def spans(self) -> list[tuple[Noun, tuple[int, int]]]:
        """The characters of every noun (without article, number or size)."""
        found, at = [], 0
        for part in self.parts:
            if isinstance(part, Noun):
                text, lead = part.text()
                found.append((part, (at + lead, at + len(text))))
                at += len(text)
            else:
                at += len(part)
        return found

    def part_span(self, index: int) -> tuple[int, int]:
        """The characters of a part, without spaces around it."""
        start = len(Caption(self.parts[:index]).text())
        part = self.parts[index]
        text = part.text()[0] if isinstance(part, Noun) else part
        return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def nouns(scene: Scene) -> list[Noun]:
    """A phrase for every class of the scene, in the order of the objects."""
    of: dict[str, list[int]] = {}
    for i, one in enumerate(scene.objects):
        of.setdefault(one.name, []).append(i)
    return [Noun(name, tuple(where)) for name, where in of.items()]


def describe(scene: Scene, rng: random.Random, *, every: bool = False, plain: bool = False) -> Caption:
    """A caption that is true: objects in any order, sometimes with size, relation and background.

    Unless `every`, objects may go unmentioned. `plain` leaves out sizes, relations and background.
    """
    said = nouns(scene)
    rng.shuffle(said)
    if not every and len(said) > 1 and rng.random() < 0.4:
        said = said[: rng.randint(1, len(said) - 1)]
    if not plain:
        said = [_sized(scene, noun, rng) for noun in said]
    opener = rng.choice(OPENERS)
    if opener == "there is " and len(said[0].of) > 1:
        opener = "there are "
    parts: list[Part] = [opener, said[0]]
    relation = "" if plain or len(said) < 2 or rng.random() < 0.5 else _relation(scene, said[0], said[1], rng)
    rest = said[1:]
    if relation:
        parts += [relation, rest[0]]
        rest = rest[1:]
        joins = [", with ", " and "] if len(rest) > 1 else [", with "]
    else:
        joins = [", "] * (len(rest) - 1) + [rng.choice(LINKS) if len(rest) == 1 else " and "]
    for join, noun in zip(joins, rest, strict=False):
        parts += [join, noun]
    if not plain and rng.random() < 0.35:
        parts.append(_where(scene))
    return Caption(tuple(p for p in parts if p))


def _sized(scene: Scene, noun: Noun, rng: random.Random) -> Noun:
    sides = [scene.objects[i].side for i in noun.of]
    size = "big" if min(sides) >= BIG else "small" if max(sides) <= SMALL else ""
    return replace(noun, size=size) if size and rng.random() < 0.35 else noun


def _relation(scene: Scene, first: Noun, second: Noun, rng: random.Random) -> str:
    """A relation that is clearly true of two single objects, or nothing."""
    if len(first.of) > 1 or len(second.of) > 1:
        return ""
    a, b = scene.objects[first.of[0]], scene.objects[second.of[0]]
    (ax, ay), (bx, by) = a.centre, b.centre
    clear = max(a.side, b.side) / 2
    true = []
    if abs(ax - bx) > max(clear, abs(ay - by) * 0.7):
        true.append(" to the left of " if ax < bx else " to the right of ")
    if abs(ay - by) > max(clear, abs(ax - bx) * 0.7):
        true.append(" above " if ay < by else " below ")
    return rng.choice(true) if true else ""


def _where(scene: Scene) -> str:
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
class Wrong:
    """A caption that is wrong by one part: what was replaced where, by what where, and the kind of change."""

    caption: Caption
    was: tuple[int, int]
    now: tuple[int, int]
    kind: str


def wrong(scene: Scene, caption: Caption, rng: random.Random) -> list[Wrong]:
    """One wrong caption of each kind that the caption allows.

    "replace_object": one noun becomes another class of its supercategory that is not in the scene. "swap_relation": left
    and right, above and below. "swap_size": big and small. "swap_place": another background.
    """
    made = []
    of_kind: dict[str, list[tuple[int, Part]]] = {}
    for i, part in enumerate(caption.parts):
        if isinstance(part, Noun):
            others = _others(scene, part.name)
            if others:
                of_kind.setdefault("replace_object", []).append((i, replace(part, name=rng.choice(others))))
            if part.size:
                swapped = "small" if part.size == "big" else "big"
                of_kind.setdefault("swap_size", []).append((i, replace(part, size=swapped)))
        elif part in OPPOSITE:
            of_kind.setdefault("swap_relation", []).append((i, OPPOSITE[part]))
    where = _where(scene)
    if where and caption.parts[-1] == where:
        of_kind["swap_place"] = [(len(caption.parts) - 1, rng.choice(_elsewhere(where)))]
    for kind, options in of_kind.items():
        index, other = rng.choice(options)
        changed = Caption((*caption.parts[:index], other, *caption.parts[index + 1 :]))
        if kind == "replace_object":
            was, now = (_noun_span(c, index) for c in (caption, changed))
        else:
            was, now = caption.part_span(index), changed.part_span(index)
        made.append(Wrong(changed, was, now, kind))
    return made


def _noun_span(caption: Caption, index: int) -> tuple[int, int]:
    number = sum(isinstance(p, Noun) for p in caption.parts[:index])
    return caption.spans()[number][1]


def _others(scene: Scene, name: str) -> list[str]:
    present = {one.name for one in scene.objects}
    group = things()[name].group
    same = [t.name for t in things().values() if t.group == group and t.name not in present]
    return same or ([t.name for t in things().values() if t.name not in present] if group == "person" else [])


def _elsewhere(where: str) -> list[str]:
    places = [f" {place}" for place in PLACES.values()]
    colours = [f" on a{'n' if c[0] in 'aeiou' else ''} {c} background" for c in sorted(COLOURS)]
    patterns = [f" on {pattern}" for pattern in PATTERNS.values()]
    options: Sequence[str] = next(o for o in (places, colours, patterns) if where in o)
    return [option for option in options if option != where]


def words() -> list[str]:
    """Every word that captions can have, sorted."""
    found = " ".join(
        [
            *(f"{t.name} {t.plural}" for t in things().values()),
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
    return sorted(set(found.split()))
