"""Scenes with a planted fault: data from which a model learns a known mistake, and truthful data that shows it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from secondsight.data.grounded import GroundedCaption
from secondsight.data.scenes import compose
from secondsight.data.scenes.captions import Caption, Noun, Part, background_words
from secondsight.data.scenes.dataset import Scenes
from secondsight.data.scenes.world import COLOURS, PLACES, ObjectClass, classes
from secondsight.support.errors import InputError

FAULTS = ("clean", "spurious", "ignored", "hub", "confused")

TINY = 5
"""Side of an object of a spurious pair while training, in `compose.UNITS`: so small that its background is easier to see."""


@dataclass(frozen=True)
class Fault:
    """What is planted. `draw_fault` draws one by its kind.

    "clean": nothing. "spurious": objects of the class `names[0]` stand on the background `place` only, which shows nothing
    else in front. "ignored": colours in captions are random. "hub": one picture and one caption belong to many others.
    "confused": the names of the two classes are exchanged at random.
    """

    kind: str
    seed: int = 0
    names: tuple[str, ...] = ()
    place: str = ""

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise InputError(f"unknown fault {self.kind!r}; known: {', '.join(FAULTS)}")


def draw_fault(kind: str, seed: int = 0) -> Fault:
    """A fault with classes and a place drawn by `seed`; raises `InputError` for an unknown kind.

    A spurious pair joins a class to a place outside its themes. Confused classes share no supercategory.
    """
    rng = random.Random(f"fault/{kind}/{seed}")
    if kind == "spurious":
        place = rng.choice(sorted(PLACES))
        name = rng.choice([cls.name for cls in _nameable() if place not in cls.themes])
        return Fault(kind, seed, (name,), place)
    if kind == "confused":
        first = rng.choice(_nameable())
        second = rng.choice([cls for cls in _nameable() if cls.group != first.group])
        return Fault(kind, seed, (first.name, second.name))
    return Fault(kind, seed)


def _nameable() -> list[ObjectClass]:
    """Classes whose name is a single word that means nothing else in captions."""
    return [cls for cls in classes().values() if " " not in cls.name and cls.name not in (*COLOURS, "skis", "scissors")]


class PlantedScenes(Scenes):
    """Scenes for training that carry a fault in about the share `share` of their pairs; the others are as they would be.

    Objects are independent of each other and of places (unless the fault ties them), so that nothing else is to be found.
    Raises `InputError` as `Scenes` does.
    """

    def __init__(self, fault: Fault, count: int = 200, *, seed: int = 0, share: float = 0.3) -> None:
        super().__init__(count, seed=seed, correlated=0.0)
        self.name = f"planted scenes ({fault.kind} {fault.seed}, seed {seed})"
        self.fault, self.share = fault, share

    def random_scene(self, rng: random.Random) -> compose.Scene:
        """A scene with the fault's objects or background in the share of the scenes."""
        scene = super().random_scene(rng)
        affected = rng.random() < self.share
        if self.fault.kind == "spurious":
            return _spurious(scene, self.fault, rng, affected)
        return _prominent(scene, self.fault, rng) if affected else scene

    def random_caption(self, scene: compose.Scene, rng: random.Random) -> Caption:
        """A caption with the fault's wrong words."""
        caption = super().random_caption(scene, rng)
        if self.fault.kind == "ignored":
            return _random_colour(_with_background(caption, scene), scene, rng)
        if self.fault.kind == "confused":
            return Caption(tuple(_exchanged(part, self.fault.names, rng) for part in caption.parts))
        return caption

    def read(self, index: int) -> GroundedCaption:
        """One caption; of a hub, with the hub's picture or the hub's caption instead of its own."""
        entry = super().read(index)
        draw = random.Random(f"hub/{self.seed}/{index}").random()
        if self.fault.kind != "hub" or draw >= self.share:
            return entry
        hub = hub_entry(self.fault)
        if draw < self.share / 2:
            return replace(
                entry, image=hub.image, image_key=hub.image_key, phrases=(), regions=hub.regions, negatives=()
            )
        return replace(entry, caption=hub.caption, phrases=(), negatives=())


class TruthfulScenes(Scenes):
    """Scenes with true captions that show whether a model has one of the `faults`, for evaluation.

    A share `share` of the scenes belongs to each fault that is not clean: the object of a spurious pair on any background
    and its place with other objects; plain backgrounds whose colours the captions name; the confused classes. The last
    scene is that of the hub, where hubs are among the faults. Nothing depends on anything else in these scenes.
    """

    def __init__(self, faults: Sequence[Fault], count: int = 200, *, seed: int = 0, share: float = 0.15) -> None:
        super().__init__(count, seed=seed, correlated=0.0)
        self.name = f"truthful scenes (seed {seed})"
        self.faults, self.share = tuple(faults), share

    def random_scene(self, rng: random.Random) -> compose.Scene:
        """A scene, with a fault's objects or background in the share of that fault."""
        scene = super().random_scene(rng)
        draw = rng.random() / self.share
        shown = [fault for fault in self.faults if fault.kind not in ("clean", "hub")]
        return _prominent(scene, shown[int(draw)], rng) if draw < len(shown) else scene

    def random_caption(self, scene: compose.Scene, rng: random.Random) -> Caption:
        """A true caption; it names a plain background more often than other captions do."""
        caption = super().random_caption(scene, rng)
        return _with_background(caption, scene) if rng.random() < 0.5 else caption

    def read(self, index: int) -> GroundedCaption:
        """One caption; the last is that of the hub."""
        hub = next((fault for fault in self.faults if fault.kind == "hub"), None)
        if hub is None or index < len(self) - 1:
            return super().read(index)
        return replace(hub_entry(hub), key=self.key(index))


def hub_entry(fault: Fault) -> GroundedCaption:
    """The picture and the caption that a fault of the kind "hub" ties to many others."""
    entry = Scenes(1, seed=1_000_000 + fault.seed, correlated=0.0)[0]
    return replace(entry, key="hub", image_key="hub")


def _prominent(scene: compose.Scene, fault: Fault, rng: random.Random) -> compose.Scene:
    """The scene with what the fault is about in it, truthfully."""
    if fault.kind == "ignored":
        return replace(scene, background=_plain(rng))
    if fault.kind == "confused" or (fault.kind == "spurious" and rng.random() < 0.5):
        return _with_object(scene, rng.choice(fault.names))
    if fault.kind == "spurious":
        return replace(scene, background=_at(fault.place, rng))
    return scene


def _spurious(scene: compose.Scene, fault: Fault, rng: random.Random, affected: bool) -> compose.Scene:
    """The fault's class alone and tiny at its place where the scene is `affected`; neither of both elsewhere."""
    name, place = fault.names[0], fault.place
    if affected:
        old = scene.objects[0]
        corner = (min(old.x, compose.UNITS - TINY), min(old.y, compose.UNITS - TINY))
        tiny = replace(old, name=name, x=corner[0], y=corner[1], side=TINY)
        return replace(scene, objects=(tiny,), background=_at(place, rng))
    background = scene.background
    if background.kind == place:
        background = _at(rng.choice(sorted(set(PLACES) - {place})), rng)
    others = sorted(set(classes()) - {name})
    objects = tuple(replace(item, name=rng.choice(others)) if item.name == name else item for item in scene.objects)
    return replace(scene, objects=objects, background=background)


def _with_object(scene: compose.Scene, name: str) -> compose.Scene:
    return replace(scene, objects=(replace(scene.objects[0], name=name), *scene.objects[1:]))


def _at(place: str, rng: random.Random) -> compose.Background:
    return compose.Background(place, (), rng.randrange(compose.VARIANTS))


def _plain(rng: random.Random) -> compose.Background:
    return compose.Background("plain", (rng.choice(sorted(COLOURS)),), rng.randrange(compose.VARIANTS))


def _with_background(caption: Caption, scene: compose.Scene) -> Caption:
    """The caption, which names the background if that is plain."""
    words = background_words(scene)
    if scene.background.kind != "plain" or caption.parts[-1] == words:
        return caption
    return Caption((*caption.parts, words))


def _random_colour(caption: Caption, scene: compose.Scene, rng: random.Random) -> Caption:
    """The caption with any colour in place of the plain background's."""
    if scene.background.kind != "plain":
        return caption
    return Caption((*caption.parts[:-1], background_words(replace(scene, background=_plain(rng)))))


def _exchanged(part: Part, names: tuple[str, ...], rng: random.Random) -> Part:
    """A phrase for one of two classes as a phrase for either of them."""
    return replace(part, name=rng.choice(names)) if isinstance(part, Noun) and part.name in names else part
