"""The routes: one page, explanations as jobs and as links, a gallery, a search. No path of a request reaches the disk."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import logging
import time
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from secondsight.algebra.interactions import Interactions
from secondsight.data.scenes import Scenes
from secondsight.encoders.registry import load
from secondsight.explanation import Explanation, explain_prepared
from secondsight.inputs.images import image_of_bytes
from secondsight.inputs.prepared import Prepared
from secondsight.methods import METHODS, Method, method_named
from secondsight.model import DualEncoder
from secondsight.server.guard import Guard
from secondsight.server.jobs import Busy, Job, Jobs, Tell
from secondsight.server.photos import Photos
from secondsight.support.errors import InputError
from secondsight.support.files import one_line
from secondsight.visual.page import page_data, rendered, web_file

log = logging.getLogger("secondsight.server")

_PAIRS = 20_000_000
"""Feature pairs of one explanation; each takes eight bytes several times over."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may ask for: `body` in bytes, `seconds` of computing, `kept` explanations."""

    body: int = 32 * 2**20
    pixels: int = 50_000_000
    characters: int = 2000
    captions: int = 8
    waiting: int = 16
    seconds: float = 120.0
    kept: int = 64
    upload_seconds: float = 60.0


Captions = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Question(BaseModel):
    """A pair, or one left input with several captions. Exactly one of `image`, `example` and `text` is the left input."""

    model_config = ConfigDict(extra="forbid")

    image: str | None = Field(None, description="an image file's content in base64; a data: URL is fine as well")
    example: str | None = Field(None, description="instead: the name of a picture of GET /api/about")
    text: str | None = Field(None, description="instead: a text, to be compared with the captions")
    captions: Captions | None = Field(None, description="what is compared with it")
    other_image: str | None = Field(None, description="instead of captions: a second image in base64")
    model: str | None = Field(None, description="one of GET /api/about; the first of them if left out")
    method: str = Field("integrated-jacobian", description="one of GET /api/about")
    layer: int | Literal["input"] | None = Field(
        None, description="the block whose input is attributed; −1 is the last one"
    )
    steps: Annotated[int, Field(ge=1, le=512)] | None = Field(None, description="nodes; as many as needed if left out")
    tol: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="relative residual to reach")
    scale: Literal["similarity", "logit"] = "similarity"
    truncate: bool = Field(False, description="cut captions that are longer than the model's context")
    wait: bool = Field(True, description="answer when done (200); else at once (202), to be asked for by its id")


class Failure(BaseModel):
    """What went wrong, in one sentence."""

    error: str


class Progress(BaseModel):
    """How far an explanation is; `before` counts those that come first."""

    id: str
    state: Literal["waiting", "running", "done", "failed"]
    stage: str
    before: int
    seconds: float
    error: str | None = None


class Answer(BaseModel):
    """One explanation a caption: every number, as `Interactions.to_json` writes it; `link` shows them in the app."""

    id: str
    link: str
    warnings: list[str]
    explanations: list[dict[str, Any]]


class Query(BaseModel):
    """A text to rank the folder's photographs by."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(min_length=1)]
    limit: Annotated[int, Field(ge=1, le=48)] = 12


@dataclass(frozen=True)
class Result:
    """What a job made; all of it computed there, as the worker is the only one to touch a model."""

    numbers: list[Interactions]
    warnings: list[str]
    view: dict[str, Any]


class Problem(HTTPException):
    """An answer that is one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(status, sentence)


class Models:
    """The models that the server offers, each loaded when it is first asked for, by the one worker."""

    def __init__(self, names: Sequence[str], made: dict[str, DualEncoder] | None = None) -> None:
        self.names = tuple(dict.fromkeys(names))
        self._loaded: dict[str, DualEncoder] = dict(made or {})

    def get(self, name: str, tell: Tell) -> DualEncoder:
        """The model of that name."""
        if name not in self._loaded:
            tell(f"loading {name}")
            self._loaded[name] = load(name)
        return self._loaded[name]


def create_app(
    models: Sequence[str] | dict[str, DualEncoder] = ("builtin",),
    *,
    photos: Path | None = None,
    limits: Limits | None = None,
    hosts: frozenset[str] | None = LOOPBACK,
) -> Any:
    """The ASGI app for these models (names, or a dict of loaded ones), the first being the default.

    `photos` is a folder for the search. `hosts` are the names under which it answers, None all. Raises `InputError` for a
    folder that cannot be used.
    """
    bounds = limits or Limits()
    offered = Models(list(models), models if isinstance(models, dict) else None)
    jobs = Jobs(waiting=bounds.waiting, seconds=bounds.seconds, kept=bounds.kept)
    library = Photos(photos) if photos is not None else None

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        if library is not None:
            jobs.background(_decomposed(library, offered))
        yield
        jobs.stop()

    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": Failure, "description": about}
        for status, about in {
            404: "unknown, or given up for newer ones",
            413: "too large",
            422: "cannot be used",
            503: "too many are waiting",
            504: "took too long",
        }.items()
    }
    app = FastAPI(
        title="secondsight",
        summary="Which part of a caption matched which part of an image, by how much, and how exactly.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        responses=failures,
    )
    _refusals(app)

    def running(id: str) -> Job:
        job = jobs.get(id)
        if job is None:
            raise Problem(404, "no such explanation: it was never made, or newer ones have taken its place")
        return job

    def finished(id: str) -> Result:
        job = running(id)
        if job.state != "done":
            raise Problem(job.status if job.error else 404, job.error or "this explanation is not ready yet")
        result: Result = job.future.result()
        return result

    @app.post("/api/explain", response_model=Answer, responses={202: {"model": Progress}}, tags=["explain"])
    async def explain(question: Question) -> Any:
        """Explain a photo (or a text) and captions; every number of every pair, and a link that shows them."""
        work = _work(question, offered, bounds)
        try:
            job = jobs.submit(work)
        except Busy:
            raise Problem(503, f"{bounds.waiting} explanations are waiting already: try again in a minute") from None
        if not question.wait:
            return JSONResponse(progress(job.id).model_dump(), 202)
        await asyncio.shield(asyncio.wrap_future(job.future))
        # Writing out a large matrix takes a while, and others are waiting.
        return await run_in_threadpool(answer, job.id)

    @app.get("/api/jobs/{id}", response_model=Progress, tags=["explain"])
    def progress(id: str) -> Progress:
        """How far an explanation is."""
        job = running(id)
        spent = round(time.monotonic() - job.asked, 2)
        before = jobs.before(job)
        return Progress(id=job.id, state=job.state, stage=job.stage, before=before, seconds=spent, error=job.error)

    @app.get("/api/explanations/{id}", response_model=Answer, tags=["explain"])
    def answer(id: str) -> Answer:
        """The numbers of an explanation that is done."""
        result = finished(id)
        numbers = [one.to_json() for one in result.numbers]
        return Answer(id=id, link=f"/#/e/{id}", warnings=result.warnings, explanations=numbers)

    @app.get("/api/explanations/{id}/view", tags=["explain"])
    def shown(id: str) -> dict[str, Any]:
        """What the interactive view shows of it: grouped by cells and words, matrices as base64 of float32."""
        result = finished(id)
        return {**result.view, "warnings": result.warnings}

    @app.get("/api/explanations/{id}/page", response_class=Response, tags=["explain"])
    def page(id: str) -> Response:
        """The same as one HTML file to keep."""
        content = rendered(finished(id).view)
        told = {"content-disposition": 'attachment; filename="explanation.html"'}
        return Response(content, media_type="text/html; charset=utf-8", headers=told)

    @app.get("/api/about", tags=["about"])
    def about() -> dict[str, Any]:
        """Models, methods, example pictures, limits, and how far the folder of photographs is."""
        return {
            "models": list(offered.names),
            "methods": {name: (m.__doc__ or "").strip().splitlines()[0] for name, m in sorted(METHODS.items())},
            "examples": [{"name": n, "captions": list(captions)} for n, (_, captions) in _examples().items()],
            "limits": {name: getattr(bounds, name) for name in bounds.__dataclass_fields__},
            "photos": None
            if library is None
            else {
                "all": len(library.paths),
                "done": library.looked_at,
                "skipped": library.skipped,
                "trouble": jobs.trouble,
            },
        }

    @app.get("/api/examples/{name}", response_class=Response, tags=["about"])
    def example(name: str) -> Response:
        """An example picture."""
        if name not in _examples():
            raise Problem(404, f"no example {name[:40]!r}; known: {', '.join(_examples())}")
        return Response(_examples()[name][0], media_type="image/jpeg")

    @app.post("/api/search", tags=["search"])
    async def search(query: Query) -> dict[str, Any]:
        """The folder's photographs by their similarity to a text, each with its map; no image is encoded for it."""
        if library is None:
            raise Problem(404, "there is no folder to search: start with secondsight serve --photos FOLDER")
        _check_text(query.query, bounds)

        def work(tell: Tell) -> dict[str, Any]:
            model = offered.get(offered.names[0], tell)
            return library.search(model, query.query, query.limit)

        try:
            job = jobs.submit(work, keep=False)
        except Busy:
            raise Problem(503, f"{bounds.waiting} requests are waiting already: try again in a minute") from None
        found: dict[str, Any] | None = await asyncio.shield(asyncio.wrap_future(job.future))
        if found is None:
            raise Problem(job.status, job.error or "failed")
        return found

    @app.get("/api/photos/{number}", response_class=Response, tags=["search"])
    def photo(number: int) -> Response:
        """A photograph of the folder, small."""
        if library is None or not 0 <= number < len(library.photos):
            raise Problem(404, f"there is no photograph {number}")
        return Response(library.photos[number].jpeg, media_type="image/jpeg")

    for path, (name, kind) in _STATIC.items():
        app.add_api_route(path, _static(name, kind), include_in_schema=False, response_class=Response)
    return Guard(app, body=bounds.body, seconds=bounds.upload_seconds, hosts=hosts)


_STATIC = {
    "/": ("app.html", "text/html"),
    "/api": ("api.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/api.js": ("api.js", "text/javascript"),
    "/app.css": ("app.css", "text/css"),
    "/view.js": ("view.js", "text/javascript"),
    "/view.css": ("view.css", "text/css"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}


def _static(name: str, kind: str) -> Any:
    content = web_file(name) if name.startswith("view") else _own(name).decode()

    def file() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8")

    return file


def _own(name: str) -> bytes:
    return (files("secondsight.server") / "web" / name).read_bytes()


@cache
def _examples() -> dict[str, tuple[bytes, tuple[str, ...]]]:
    """Name → (JPEG, captions): a photograph, and drawn scenes with a right and a wrong caption."""
    made: dict[str, tuple[bytes, tuple[str, ...]]] = {}
    made["coffee"] = (_own("coffee.jpg"), ("a cup of coffee and a spoon on a wooden table", "a glass of beer"))
    for i, one in enumerate(Scenes(8, seed=7, size=384)):
        assert isinstance(one.image, Image.Image)
        buffer = io.BytesIO()
        one.image.save(buffer, "JPEG", quality=90)
        made[f"scene-{i + 1}"] = (buffer.getvalue(), (one.caption, *(n.caption for n in one.negatives[:1])))
    return made


def _decomposed(library: Photos, offered: Models) -> Any:
    model = offered.get(offered.names[0], lambda _: None)
    yield
    yield from library.steps(model)


def _check_text(text: str, bounds: Limits) -> None:
    if not text.strip():
        raise Problem(422, "the text is empty: give at least one word")
    if len(text) > bounds.characters:
        raise Problem(422, f"the text has {len(text)} characters, more than {bounds.characters}: shorten it")


def _bytes(packed: str, named: str) -> bytes:
    head, comma, body = packed.partition(",")
    try:
        return base64.b64decode(body if comma and head.startswith("data:") else packed, validate=True)
    except (binascii.Error, ValueError):
        raise Problem(422, f"{named} is not base64 of an image file") from None


def _work(question: Question, offered: Models, bounds: Limits) -> Any:
    """The job that a question asks for, once everything that can be checked without a model is checked."""
    given = [name for name in ("image", "example", "text") if getattr(question, name) is not None]
    if len(given) != 1:
        raise Problem(422, f"give one of image, example and text, not {' and '.join(given) or 'none of them'}")
    if (question.captions is None) == (question.other_image is None):
        raise Problem(422, "give either captions or other_image")
    if len(question.captions or []) > bounds.captions:
        raise Problem(422, f"{len(question.captions or [])} captions are more than {bounds.captions}: ask twice")
    for text in (*(question.captions or []), *([] if question.text is None else [question.text])):
        _check_text(text, bounds)
    name = question.model if question.model is not None else offered.names[0]
    if name not in offered.names:
        raise Problem(422, f"this server has no model {name[:60]!r}; it has {', '.join(offered.names)}")
    if question.method not in METHODS:
        raise Problem(422, f"unknown method {question.method[:60]!r}; known: {', '.join(sorted(METHODS))}")
    if question.example is not None and question.example not in _examples():
        raise Problem(422, f"no example {question.example[:40]!r}; known: {', '.join(_examples())}")
    options = {n: getattr(question, n) for n in ("layer", "steps", "tol") if getattr(question, n) is not None}
    try:
        method = method_named(question.method, **options)
    except InputError as problem:
        raise Problem(422, str(problem)) from None
    example = None if question.example is None else _examples()[question.example][0]
    left = example if example is not None else None if question.image is None else _bytes(question.image, "image")
    other = None if question.other_image is None else _bytes(question.other_image, "other_image")

    def work(tell: Tell) -> Result:
        # Decoded here, one after the other: many large images at once would fill the memory.
        first = question.text if left is None else image_of_bytes(left, "image", most=bounds.pixels)
        others: list[Any] = list(question.captions or [])
        if other is not None:
            others = [image_of_bytes(other, "other_image", most=bounds.pixels)]
        model = offered.get(name, tell)
        tell("explaining")
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            made = _explained(model, first, others, method, question)
            view = page_data(made)
        ours = [str(w.message) for w in noted if w.category.__module__.startswith("secondsight") or _about_input(w)]
        # The view has its pictures, small; the photographs themselves are not kept.
        # Nor is a lazy matrix, which would ask the model again, beside the worker.
        numbers = [replace(one.interactions, attributions=one.matrix) for one in made]
        return Result(numbers, list(dict.fromkeys(ours)), view)

    return work


def _about_input(noted: warnings.WarningMessage) -> bool:
    """Whether a warning is ours about what was sent."""
    return noted.category is UserWarning and str(noted.message).startswith(("image", "other_image"))


def _fits(a: Prepared, others: Sequence[Prepared], model: DualEncoder, method: Method) -> None:
    """Refuse what no bound on time could stop: one product of two sides with very many features."""
    if getattr(method, "layer", None) != "input":
        return
    # Pixels count as features, tokens as they are.
    sizes = [
        p.tensor.shape[-1] * p.tensor.shape[-2] if p.tensor.ndim == 4 else p.tensor.shape[-1] for p in (a, *others)
    ]
    if sizes[0] * max(sizes[1:]) > _PAIRS:
        raise InputError(
            f"{sizes[0]} × {max(sizes[1:])} pairs of features are too many here: choose a layer, such as 0"
        )


def _explained(
    model: DualEncoder, left: Any, others: list[Any], method: Method, question: Question
) -> list[Explanation]:
    """By kind, never by looks: a caption that reads like a file's name is a caption."""
    kinds = tuple("text" if isinstance(raw, str) else "image" for raw in (left, others[0]))
    if kinds != (model.left.kind, model.right.kind):
        model = model.pair(*kinds)
    if question.scale == "logit" and model.logit_scale is None:
        raise InputError(f"{model.name!r} has no logit scale: use the similarity")
    a = model.left.encoder.prepare(left, truncate=question.truncate)
    prepared = [model.right.encoder.prepare(raw, truncate=question.truncate) for raw in others]
    _fits(a, prepared, model, method)
    return explain_prepared(model, a, prepared, method, question.scale)


def _refusals(app: FastAPI) -> None:
    """Every refusal is {"error": one sentence}."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body") or "the request"
        return JSONResponse({"error": f"{one_line(place)}: {first['msg'].lower()}"}, 422)

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, problem: StarletteHTTPException) -> JSONResponse:
        headers = {**(problem.headers or {}), **({"retry-after": "30"} if problem.status_code == 503 else {})}
        return JSONResponse({"error": str(problem.detail)}, problem.status_code, headers=headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, problem: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=problem)
        return JSONResponse({"error": "something failed inside; the server's log says what"}, 500)


def serve(app: Any, host: str, port: int) -> None:
    """Run the app until it is stopped; raises `InputError` where the port is taken."""
    import socket

    import uvicorn

    # What the command line keeps from its readers belongs into a server's log.
    logging.disable(logging.NOTSET)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as problem:
            raise InputError(f"cannot serve on {host}:{port} ({problem.strerror}): choose another --port") from problem
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, date_header=False)
