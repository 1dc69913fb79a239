"""The routes: one page, explanations as jobs and as links, a gallery, a search. No path of a request reaches the disk."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from secondsight.methods.uses import method_lines
from secondsight.model import DualEncoder
from secondsight.server.examples import check_picture, examples_of
from secondsight.server.explaining import Result, explain_question, measure_without
from secondsight.server.guard import Guard
from secondsight.server.jobs import Busy, Job, Jobs, Tell, until_done
from secondsight.server.kept import KeptResult, Shelf
from secondsight.server.photos import NOTICES, Photos
from secondsight.server.questions import (
    Answer,
    Checked,
    Comparison,
    Failure,
    Limits,
    Measured,
    Models,
    Progress,
    Query,
    Question,
    Removal,
    check_question,
    check_text,
    web_content,
)
from secondsight.server.refusals import Problem, schema_sentence
from secondsight.support.errors import InputError
from secondsight.visual.page import render_page_data, web_file

log = logging.getLogger("secondsight.server")

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_STATUSES: dict[int | str, str] = {
    404: "unknown, or deleted to make room for newer ones",
    413: "too large",
    422: "cannot be used",
    503: "too many are waiting",
    504: "took too long",
}

_FILES = {
    "/": ("app.html", "text/html"),
    "/api": ("api.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/basics.js": ("basics.js", "text/javascript"),
    "/search.js": ("search.js", "text/javascript"),
    "/api.js": ("api.js", "text/javascript"),
    "/app.css": ("app.css", "text/css"),
    "/view.js": ("view.js", "text/javascript"),
    "/view.css": ("view.css", "text/css"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
"""Address → file and media type."""


def create_app(
    models: Sequence[str] | Mapping[str, DualEncoder] = ("builtin",),
    *,
    photos: Path | None = None,
    keep: Path | None = None,
    limits: Limits | None = None,
    hosts: frozenset[str] | None = LOOPBACK,
) -> Any:
    """The ASGI app for these models (names, or a dict of loaded ones), the first being the default.

    `photos` is a folder for the search, `keep` one for explanations, so that links outlive the app. `hosts` are the host
    names that it answers to, None all. Raises `InputError` for a folder that cannot be used.
    """
    limits = limits or Limits()
    routes = Routes(Models(models), limits, None if photos is None else Photos(photos), keep)
    app = FastAPI(
        title="secondsight",
        summary="Which part of a caption matched which part of an image, by how much, and how exactly.",
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=routes.lifespan,
        responses={status: {"model": Failure, "description": meaning} for status, meaning in _STATUSES.items()},
    )
    _add_error_handlers(app)
    routes.add_to(app)
    for address, (name, media_type) in _FILES.items():
        app.add_api_route(address, _file_route(name, media_type), include_in_schema=False, response_class=Response)
    return Guard(app, body=limits.body, seconds=limits.upload_seconds, hosts=hosts)


_GONE = (
    "no such explanation: newer ones have taken its place, or the app was started again (secondsight serve --keep FOLDER "
    "keeps links); explain the pair again"
)

_NOT_KEPT = "no such explanation: it never existed, or newer ones have taken its place; explain the pair again"


class Routes:
    """The API over one queue of jobs."""

    def __init__(self, models: Models, limits: Limits, photos: Photos | None, keep: Path | None = None) -> None:
        self.models, self.limits, self.photos = models, limits, photos
        self.shelf = None if keep is None else Shelf(keep)
        self.jobs = Jobs(
            waiting=limits.waiting,
            seconds=limits.seconds,
            results=limits.results,
            keep=None if self.shelf is None else self.shelf.store,
        )

    def add_to(self, app: FastAPI) -> None:
        """Add every route."""
        accepted: dict[int | str, dict[str, Any]] = {202: {"model": Progress}}
        explain, about, search = APIRouter(tags=["explain"]), APIRouter(tags=["about"]), APIRouter(tags=["search"])
        explain.post("/api/explain", response_model=Answer, responses=accepted)(self.explain)
        explain.get("/api/jobs/{id}", response_model=Progress)(self.progress)
        explain.delete("/api/jobs/{id}", status_code=204, response_class=Response)(self.leave)
        explain.get("/api/explanations/{id}", response_model=Answer)(self.answer)
        explain.get("/api/explanations/{id}/view")(self.view)
        explain.get("/api/explanations/{id}/page", response_class=Response)(self.page)
        explain.post("/api/explanations/{id}/without", response_model=Measured)(self.without)
        about.get("/api/about")(self.about)
        about.get("/api/examples/{name}", response_class=Response)(self.example)
        search.post("/api/search")(self.search)
        search.post("/api/search/compare")(self.compare)
        search.get("/api/photos/{number}", response_class=Response)(self.photo)
        for router in (explain, about, search):
            app.include_router(router)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Explain the examples and decompose the folder of photographs in the background while the app runs."""
        self.jobs.background(self._explain_examples())
        if self.photos is not None:
            self.jobs.background(self.photos.steps(lambda: self._default_model(lambda _: None)))
        yield
        self.jobs.stop()

    def _explain_examples(self) -> Iterator[None]:
        """Explain an example of the first model a step; one that a question interrupts is taken again."""
        model = self.models.names[0]
        for example in examples_of(model):
            question = Question.model_validate(
                {"example": example.picture, "captions": example.captions, "select": example.word}
            )
            checked = check_question(question, self.models.names, self.limits)
            try:
                yield from until_done(partial(self._explain_example, checked))
            except InputError as problem:
                # A model without images, or one whose files are missing: questions will say so.
                log.warning("no examples for %s: %s", model, problem)
                return
            yield

    def _explain_example(self, checked: Checked) -> None:
        if not self.jobs.has(checked.key):
            self.jobs.add_result(checked.key, explain_question(checked, self.models, self.limits, lambda _: None))

    async def explain(self, question: Question, request: Request) -> Any:
        """Explain a photo (or a text) and captions; every number of every pair, and a link that shows them."""
        photo = None if question.photo is None else await run_in_threadpool(self._photo_file, question.photo)
        checked = check_question(question, self.models.names, self.limits, photo)
        job = self._submit(
            lambda tell: explain_question(checked, self.models, self.limits, tell),
            key=checked.key,
            kind=checked.kind,
            watched=question.watch and not question.wait,
        )
        if not question.wait:
            return JSONResponse(self.progress(job.id).model_dump(), 202)
        await self._wait(job, request)
        # Writing out a large matrix is slow; in a thread it does not block other requests.
        return await run_in_threadpool(self.answer, job.id)

    async def _wait(self, job: Job, request: Request) -> None:
        """Wait for a job while its client does: the job of one that has gone is stopped."""
        future = asyncio.wrap_future(job.future)
        while not (await asyncio.wait([future], timeout=1))[0]:
            if await request.is_disconnected():
                self.jobs.drop(job)
                raise Problem(410, "the client has gone")

    def leave(self, id: str) -> Response:
        """Say that you do not wait any more: a job for which nobody waits is stopped."""
        self.jobs.leave(id)
        return Response(status_code=204)

    def progress(self, id: str) -> Progress:
        """How far an explanation is."""
        job = self._job(id)
        seconds = round(time.monotonic() - job.submitted, 2)
        before = self.jobs.before(job)
        remaining = self.jobs.remaining(job)
        return Progress(
            id=job.id,
            state=job.state,
            stage=job.stage,
            before=before,
            seconds=seconds,
            remaining=None if remaining is None else round(remaining, 2),
            error=job.error,
        )

    def answer(self, id: str) -> Answer:
        """The numbers of an explanation that is done."""
        result = self._result(id)
        return Answer(id=id, link=f"/#/e/{id}", warnings=result.warnings, explanations=result.explanations)

    def view(self, id: str) -> dict[str, Any]:
        """What the interactive view shows of it: grouped by cells and words, matrices as base64 of float32."""
        result = self._result(id)
        return {**result.view, "warnings": result.warnings}

    def page(self, id: str) -> Response:
        """The same as one HTML file to keep."""
        headers = {"content-disposition": 'attachment; filename="explanation.html"'}
        return Response(render_page_data(self._result(id).view), media_type="text/html; charset=utf-8", headers=headers)

    async def without(self, id: str, removal: Removal, request: Request) -> dict[str, Any]:
        """The similarity without a box or some words: as the explanation predicts it, and as the model finds it."""
        if removal.left is None and removal.right is None:
            raise Problem(422, "give left or right: a box or the numbers of words to take out")
        result = self._result(id)
        if not isinstance(result, Result):
            raise Problem(404, "this explanation was computed before the app was started: explain the pair again")
        return await self._computed(
            lambda tell: measure_without(result, removal, self.models, self.limits, tell), request
        )

    def about(self) -> dict[str, Any]:
        """Models, methods, examples for each model, limits, and how far the folder of photographs is."""
        photos = None
        if self.photos is not None:
            photos = {
                "all": len(self.photos.paths),
                "done": self.photos.processed,
                "skipped": self.photos.skipped,
                "trouble": self.jobs.background_error,
                "notice": NOTICES.get(self.models.names[0]),
            }
        return {
            "models": list(self.models.names),
            "methods": method_lines(),
            "examples": {name: [example.to_json() for example in examples_of(name)] for name in self.models.names},
            "limits": asdict(self.limits),
            "photos": photos,
        }

    def example(self, name: str) -> Response:
        """An example picture."""
        return Response(check_picture(name, 404), media_type="image/jpeg")

    async def search(self, query: Query, request: Request) -> dict[str, Any]:
        """The folder's photographs ranked by a text, each with its map; no image is encoded for it."""
        photos = self._folder()
        check_text(query.query, self.limits)
        return await self._computed(
            lambda tell: photos.search(self._default_model(tell), query.query, query.limit, query.rank), request
        )

    async def compare(self, pair: Comparison, request: Request) -> dict[str, Any]:
        """Why one photograph leads another for a text: by words and by regions, in parts that add up, with the view."""
        photos = self._folder()
        check_text(pair.query, self.limits)
        if pair.first == pair.second:
            raise Problem(422, "choose two different photographs to compare")
        return await self._computed(
            lambda tell: photos.compare(self._default_model(tell), pair.query, pair.first, pair.second, pair.rank),
            request,
        )

    async def _computed(self, work: Callable[[Tell], dict[str, Any]], request: Request) -> dict[str, Any]:
        """What the worker computes, which is not kept."""
        job = self._submit(work, keep_result=False)
        await self._wait(job, request)
        result: dict[str, Any] | None = job.future.result()
        if result is None:
            raise Problem(job.status, job.error or "failed")
        return result

    def _folder(self) -> Photos:
        if self.photos is None:
            raise Problem(404, "there is no folder to search: start with secondsight serve --photos FOLDER")
        return self.photos

    def _photo_file(self, number: int) -> bytes:
        """The content of a photograph's file."""
        try:
            return self._folder().file(number).read_bytes()
        except InputError as problem:
            raise Problem(422, str(problem)) from None
        except OSError as problem:
            raise Problem(422, f"photograph {number} cannot be read any more ({problem.strerror})") from problem

    def photo(self, number: int) -> Response:
        """A photograph of the folder, small."""
        if self.photos is None or not 0 <= number < len(self.photos.photos):
            raise Problem(404, f"there is no photograph {number}")
        return Response(self.photos.photos[number].jpeg, media_type="image/jpeg")

    def _default_model(self, tell: Tell) -> DualEncoder:
        return self.models.get(self.models.names[0], tell)

    def _submit(self, work: Callable[[Tell], Any], **options: Any) -> Job:
        try:
            return self.jobs.submit(work, **options)
        except Busy:
            raise Problem(503, f"{self.limits.waiting} requests are waiting already: try again in a minute") from None

    def _job(self, id: str) -> Job:
        job = self.jobs.get(id)
        if job is None:
            raise Problem(404, _GONE if self.shelf is None else _NOT_KEPT)
        return job

    def _result(self, id: str) -> Result | KeptResult:
        if self.shelf is not None and self.jobs.get(id) is None:
            try:
                kept = self.shelf.get(id)
            except InputError as problem:
                raise Problem(404, str(problem)) from None
            if kept is not None:
                return kept
        job = self._job(id)
        if job.state != "done":
            raise Problem(job.status if job.error else 404, job.error or "this explanation is not ready yet")
        result: Result = job.future.result()
        return result


def _file_route(name: str, media_type: str) -> Callable[[], Response]:
    content = web_file(name) if name.startswith("view") else web_content(name).decode()

    def file() -> Response:
        return Response(content, media_type=f"{media_type}; charset=utf-8")

    return file


def _add_error_handlers(app: FastAPI) -> None:
    """Every error response is {"error": one sentence}."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": schema_sentence(problem.errors()[0])}, 422)

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, problem: StarletteHTTPException) -> JSONResponse:
        headers = {**(problem.headers or {}), **({"retry-after": "30"} if problem.status_code == 503 else {})}
        return JSONResponse({"error": str(problem.detail)}, problem.status_code, headers=headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, problem: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=problem)
        return JSONResponse({"error": "an internal error; the server's log has the details"}, 500)


def listen(host: str, port: int) -> socket.socket:
    """A socket at that address; raises `InputError` where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as problem:
        raise InputError(f"cannot serve on {host!r} ({problem.strerror}): choose another --host") from problem
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen()
    except OSError as problem:
        listener.close()
        raise InputError(f"cannot serve on {host}:{port} ({problem.strerror}): choose another --port") from problem
    return listener


def serve(app: Any, listener: socket.socket) -> None:
    """Run the app at this socket until it is stopped."""
    # The command line silences logging; a server's log should be written.
    logging.disable(logging.NOTSET)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    config = uvicorn.Config(app, log_level="warning", server_header=False, date_header=False)
    uvicorn.Server(config).run(sockets=[listener])
