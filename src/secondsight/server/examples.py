"""The start page's examples: pictures with captions, chosen for the model that is served."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from PIL import Image

from secondsight.data.scenes import Scenes
from secondsight.server.refusals import Problem


@dataclass(frozen=True)
class Example:
    """A picture and captions for it: the first one fits, the second does not. `word` is picked at first.

    `why` tells what to see. `checked` says whether somebody has looked at this model's answer, `right` whether the model
    prefers the caption that fits.
    """

    picture: str
    captions: tuple[str, ...]
    word: str | None = None
    why: str = ""
    checked: bool = True
    right: bool = True

    def to_json(self) -> dict[str, Any]:
        """What the start page needs."""
        return {
            "name": self.picture,
            "captions": list(self.captions),
            "word": self.word,
            "why": self.why,
            "checked": self.checked,
            "right": self.right,
        }


PHOTOGRAPHS = (
    Example(
        "coffee",
        ("a cup of coffee on a saucer", "a glass of beer"),
        "coffee",
        "“coffee” lights up the drink. Choose “a glass of beer”: “beer” lights up the same place, and the similarity is lower.",
    ),
    Example(
        "cat",
        ("a tabby cat", "a small dog"),
        "cat",
        "The striped cheek and the nose say “cat”. “a small dog” gets a far lower similarity.",
    ),
    Example(
        "camera",
        ("a camera on a tripod", "a bicycle in a park"),
        "tripod",
        "“tripod” points at the three legs, “camera” at what stands on them: pick one after the other. “a bicycle in a park” "
        "has the larger interaction and still the lower similarity: look at its line “text alone”.",
    ),
    Example(
        "rocket",
        ("a rocket on a launch pad", "an airplane in the sky"),
        "rocket",
        "“rocket” lights up the rocket and what it stands on; the thin towers beside it speak against the word.",
    ),
    Example(
        "astronaut",
        ("a helmet and a space shuttle", "a hat and a bicycle"),
        "shuttle",
        "“shuttle” lights up the space shuttle in the background, and the suit's collar as much, which is a mistake; “helmet” "
        "points at the helmet in front.",
    ),
    Example(
        "officer",
        ("an officer in a military uniform", "a bride in a wedding dress"),
        "uniform",
        "“uniform” lights up the cap and the jacket, and hardly the flag.",
    ),
    Example(
        "raccoon",
        ("a raccoon", "a cat"),
        "raccoon",
        "Here the model is wrong: “a cat” gets the higher similarity, but not for what it has in common with the picture. The "
        "interaction even favours “a raccoon”, by 0.02. That caption loses by what each side adds alone: 0.06 in the line "
        "“image alone”, 0.07 in “text alone”. The model has learned to tell 1000 kinds of things apart, and raccoons are not "
        "among them. The place is right: a map alone does not tell you whether a caption is preferred.",
        right=False,
    ),
)
"""Examples for the builtin model; each was looked at."""


def examples_of(model: str) -> tuple[Example, ...]:
    """The examples for the model of that name: none for models that read texts only."""
    if model == "builtin":
        return PHOTOGRAPHS
    if model == "scenes":
        return _scenes()
    if model.startswith("st:"):
        return ()
    return tuple(Example(photograph.picture, photograph.captions, checked=False) for photograph in PHOTOGRAPHS)


def check_picture(name: str, status: int = 422) -> bytes:
    """The picture's file as JPEG; raises `Problem` for unknown names."""
    if any(name == photograph.picture for photograph in PHOTOGRAPHS):
        return (files("secondsight.server") / "web" / "examples" / f"{name}.jpg").read_bytes()
    if name in _drawings():
        return _drawings()[name][0]
    known = ", ".join([*(photograph.picture for photograph in PHOTOGRAPHS), *_drawings()])
    raise Problem(status, f"no example {name[:40]!r}; known: {known}")


def _scenes() -> tuple[Example, ...]:
    return tuple(Example(name, captions) for name, (_, captions) in _drawings().items())


@cache
def _drawings() -> dict[str, tuple[bytes, tuple[str, ...]]]:
    """Scenes of the drawn world, each with its caption and a wrong one."""
    drawings = {}
    for number, scene in enumerate(Scenes(6, seed=7, size=384), 1):
        assert isinstance(scene.image, Image.Image)
        buffer = io.BytesIO()
        scene.image.save(buffer, "JPEG", quality=90)
        wrong = [negative.caption for negative in scene.negatives[:1]]
        drawings[f"scene-{number}"] = (buffer.getvalue(), (scene.caption, *wrong))
    return drawings
