"""Requests and answers of the API, the limits on them, and every check that needs no model."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from secondsight.encoders.registry import load
from secondsight.inputs.images import image_of_bytes
from secondsight.methods import METHODS, PRESETS, Method, method_or_preset
from secondsight.methods.presets import DEFAULT
from secondsight.model import DualEncoder
from secondsight.server.examples import check_picture
from secondsight.server.refusals import Problem
from secondsight.support.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Bounds on one request and on all together.

    `body`: bytes of a request, `pixels` of an image, `characters` of a text, `captions` of a question, `waiting` requests,
    `seconds` of computing, `results` that can still be fetched, `upload_seconds` until a request has arrived.
    """

    body: int = 32 * 2**20
    pixels: int = 120_000_000
    characters: int = 64_000
    captions: int = 8
    waiting: int = 16
    seconds: float = 120.0
    results: int = 64
    upload_seconds: float = 20.0


Captions = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Question(BaseModel):
    """A pair, or one left input with several captions. Exactly one of `image`, `example`, `photo`, `text` is the left one."""

    model_config = ConfigDict(extra="forbid")

    image: str | None = Field(None, description="an image file's content in base64; a data: URL is fine as well")
    example: str | None = Field(None, description="instead: the name of a picture of GET /api/about")
    photo: int | None = Field(None, description="instead: the number of a photograph of the folder, as in a search")
    text: str | None = Field(None, description="instead: a text, to be compared with the captions")
    captions: Captions | None = Field(None, description="the texts to compare it with")
    other_image: str | None = Field(None, description="instead of captions: a second image in base64")
    model: str | None = Field(None, description="one of GET /api/about; default: the first of them")
    method: str = Field(DEFAULT, description="one of GET /api/about")
    layer: int | Literal["input", "grounded", "output"] | None = Field(
        None, description="the block whose input is attributed; −1 is the last one"
    )
    steps: Annotated[int, Field(ge=1, le=512)] | None = Field(None, description="nodes; default: as many as needed")
    tol: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="relative residual to reach")
    scale: Literal["similarity", "logit"] = "similarity"
    truncate: bool = Field(False, description="cut captions that are longer than the model's context")
    select: str | None = Field(None, description="words of the first caption that its page shows picked")
    wait: bool = Field(True, description="answer when done (200); if false, at once (202), and later by its id")
    watch: bool = Field(False, description="stop when nobody has asked how far it is for a minute")


class Query(BaseModel):
    """A text to rank the folder's photographs by."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(min_length=1)]
    limit: Annotated[int, Field(ge=1, le=48)] = 12
    rank: Literal["similarity", "above-usual"] = Field(
        "above-usual",
        description="by the similarity, or by what is left of it when the photograph's mean similarity to ordinary captions "
        "is taken off, so that photographs that are close to every caption do not come first",
    )


class Comparison(BaseModel):
    """Two photographs of the folder, by their numbers in a search, and the text and ranking of that search."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(min_length=1)]
    first: int
    second: int
    rank: Literal["similarity", "above-usual"] = "above-usual"


class Removal(BaseModel):
    """Parts of an explained pair to take out: a box of a picture, x0, y0, x1, y1, or the numbers of words of a text."""

    model_config = ConfigDict(extra="forbid")

    case: Annotated[int, Field(ge=0)] = Field(0, description="which caption of the explanation")
    left: Annotated[list[float], Field(min_length=1)] | None = None
    right: Annotated[list[float], Field(min_length=1)] | None = None


class Measured(BaseModel):
    """A similarity with nothing taken out, without the parts as the explanation predicts it, and as the model finds it."""

    similarity: float
    predicted: float
    measured: float


class Failure(BaseModel):
    """What went wrong, in one sentence."""

    error: str


class Progress(BaseModel):
    """The state of an explanation; `before` counts the requests that are served first.

    `remaining` are the seconds that it will still take, by earlier ones; null while there were none.
    """

    id: str
    state: Literal["waiting", "running", "done", "failed"]
    stage: str
    before: int
    seconds: float
    remaining: float | None = None
    error: str | None = None


class Answer(BaseModel):
    """One explanation a caption: every number, as `Interactions.to_json` writes it; `link` shows them in the app."""

    id: str
    link: str
    warnings: list[str]
    explanations: list[dict[str, Any]]


class Models:
    """The models that the server offers; the worker thread loads each at its first use."""

    def __init__(self, models: Sequence[str] | Mapping[str, DualEncoder]) -> None:
        self.names = tuple(dict.fromkeys(models))
        self._loaded = dict(models) if isinstance(models, Mapping) else {}

    def get(self, name: str, tell: Callable[[str], None]) -> DualEncoder:
        """The model of that name; `tell` hears of a load."""
        if name not in self._loaded:
            tell(f"loading {name}")
            self._loaded[name] = load(name)
        return self._loaded[name]


@dataclass(frozen=True)
class Checked:
    """A question after its checks. Image files stay packed until the worker takes them."""

    left: str | bytes
    right: Sequence[str | bytes]
    model: str
    method: Method
    scale: Literal["similarity", "logit"]
    truncate: bool
    select: str | None = None
    example: str | None = None

    @property
    def key(self) -> str:
        """The same for questions with the same answer."""
        digest = hashlib.sha256()
        for part in (self.left, *self.right):
            content = part.encode() if isinstance(part, str) else part
            digest.update(f"{type(part).__name__} {len(content)} ".encode() + content)
        options = (self.model, self.method, self.scale, self.truncate, self.select, self.example)
        digest.update(repr(options).encode())
        return digest.hexdigest()

    @property
    def kind(self) -> str:
        """The same for questions that take equally long."""
        kinds = "".join("t" if isinstance(part, str) else "i" for part in (self.left, *self.right))
        return f"{self.model} {self.method!r} {kinds}"


def check_question(
    question: Question, model_names: Sequence[str], limits: Limits, photo: bytes | None = None
) -> Checked:
    """Raises `Problem` for everything that can be found out without a model; `photo` is the file of `question.photo`."""
    _check_inputs(question, limits)
    model = question.model if question.model is not None else model_names[0]
    if model not in model_names:
        raise Problem(422, f"this server has no model {model[:60]!r}; it has {', '.join(model_names)}")
    method = _method(question)
    right: Sequence[str | bytes] = question.captions or []
    if question.other_image is not None:
        right = [_unpack(question.other_image, "other_image")]
    left = _left_input(question, photo)
    if question.select is not None and question.select not in (question.captions or [""])[0]:
        raise Problem(422, f"the first caption has no {question.select[:40]!r}: select words that it has")
    return Checked(
        left, right, model, method, question.scale, question.truncate, question.select or None, question.example
    )


def check_text(text: str, limits: Limits) -> None:
    """Raises `Problem` for an empty text and one that is too long."""
    if not text.strip():
        raise Problem(422, "the text is empty: give at least one word")
    if len(text) > limits.characters:
        raise Problem(422, f"the text has {len(text)} characters, more than {limits.characters}: shorten it")


def decode(raw: str | bytes, name: str, limits: Limits) -> Any:
    """A text as it is, an image file's content as an image."""
    return raw if isinstance(raw, str) else image_of_bytes(raw, name, most=limits.pixels)


def _check_inputs(question: Question, limits: Limits) -> None:
    left = [name for name in ("image", "example", "photo", "text") if getattr(question, name) is not None]
    if len(left) != 1:
        raise Problem(422, f"give one of image, example, photo and text, not {' and '.join(left) or 'none of them'}")
    captions = question.captions or []
    if (question.captions is None) == (question.other_image is None):
        raise Problem(422, "give either captions or other_image")
    if len(captions) > limits.captions:
        raise Problem(422, f"{len(captions)} captions are more than {limits.captions}: send several requests")
    for text in (*captions, *([] if question.text is None else [question.text])):
        check_text(text, limits)


def _left_input(question: Question, photo: bytes | None) -> str | bytes:
    if question.text is not None:
        return question.text
    if question.image is not None:
        return _unpack(question.image, "image")
    if photo is not None:
        return photo
    assert question.example is not None
    return check_picture(question.example)


def _method(question: Question) -> Method:
    if question.method not in METHODS and question.method not in PRESETS:
        known = ", ".join([*PRESETS, *sorted(METHODS)])
        raise Problem(422, f"unknown method {question.method[:60]!r}; known: {known}")
    options = {"layer": question.layer, "steps": question.steps, "tol": question.tol}
    try:
        return method_or_preset(question.method, **{name: v for name, v in options.items() if v is not None})
    except InputError as problem:
        raise Problem(422, str(problem)) from None


def _unpack(text: str, name: str) -> bytes:
    """The bytes behind base64, or behind a data: URL."""
    head, comma, body = text.partition(",")
    try:
        return base64.b64decode(body if comma and head.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, f"{name} is not base64 of an image file") from None


def web_content(name: str) -> bytes:
    """A file of the app."""
    return (files("secondsight.server") / "web" / name).read_bytes()
