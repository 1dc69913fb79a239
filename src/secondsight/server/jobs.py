"""One worker for all users: a queue with bounds on waiting jobs, their running time and the results that are stored."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torch.nn.modules.module import register_module_forward_pre_hook

from secondsight.support.errors import AdapterError, InputError
from secondsight.support.memory import out_of_memory

log = logging.getLogger("secondsight.server")

Tell = Callable[[str], None]

Result = TypeVar("Result")

_ABANDONED = "stopped, because nobody waits for it any more: ask again"

_LEARNING = 0.4
"""Weight of the newest duration in the estimate."""


class Busy(Exception):
    """Too many jobs wait already."""


class TooSlow(Exception):
    """A job exceeded its time limit."""


class Abandoned(Exception):
    """Nobody waits for the job any more."""


class Interrupted(Exception):
    """A job came while a step of background work ran: the step is to be taken again later."""


@dataclass(eq=False)
class Job:
    """A piece of work; only clients that submitted it learn its `id`. `clients` counts those that wait for it.

    `key` names what is computed: the same question gets the same job. `kind` names jobs that take equally long. With
    `watched`, a job that nobody has looked at for some time is stopped.
    """

    work: Callable[[Tell], Any]
    key: str | None = None
    kind: str = ""
    watched: bool = False
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    stage: str = "waiting"
    clients: int = 1
    submitted: float = field(default_factory=time.monotonic)
    looked_at: float = field(default_factory=time.monotonic)
    started: float | None = None
    pinned: bool = False
    future: Future[Any] = field(default_factory=Future)
    error: str | None = None
    status: int = 200

    def tell(self, stage: str) -> None:
        """Note what is being computed."""
        self.stage = stage

    def fail(self, status: int, sentence: str) -> None:
        """End without a result; `status` is the HTTP status of the answer."""
        self.state, self.stage, self.status, self.error = "failed", "failed", status, sentence
        self.future.set_result(None)

    def finish(self, result: Any) -> None:
        """End with a result."""
        self.state = self.stage = "done"
        self.future.set_result(result)

    def abandoned(self, patience: float) -> bool:
        """Whether nobody waits for it."""
        return self.clients <= 0 or (self.watched and time.monotonic() - self.looked_at > patience)


class Jobs:
    """A queue with one worker thread: models are not thread-safe, and one explanation uses all cores.

    At most `waiting` jobs wait, each may run for `seconds`, and the last `results` can be fetched by their ids. Background
    work has a queue of its own; a job interrupts it. `patience` are the seconds after which a watched job that nobody looks
    at is stopped. `keep` hears of every result with its id.
    """

    def __init__(
        self,
        *,
        waiting: int,
        seconds: float,
        results: int,
        patience: float = 60.0,
        keep: Callable[[str, Any], None] | None = None,
    ) -> None:
        self.waiting, self.seconds, self.results, self.patience, self.keep = waiting, seconds, results, patience, keep
        self.background_error: str | None = None
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._by_id: OrderedDict[str, Job] = OrderedDict()
        self._by_key: dict[str, Job] = {}
        self._durations: dict[str, float] = {}
        self._change = threading.Condition()
        self._background: deque[Iterator[None]] = deque()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="secondsight-worker", daemon=True)
        self._thread.start()

    def submit(
        self,
        work: Callable[[Tell], Any],
        *,
        keep_result: bool = True,
        key: str | None = None,
        kind: str = "",
        watched: bool = False,
    ) -> Job:
        """Add a job, or return the one of the same key; raises `Busy` if too many wait.

        With `keep_result` it can be fetched by its id.
        """
        with self._change:
            same = self._reusable(key)
            if same is not None:
                same.clients += 1
                same.watched = same.watched and watched
                same.looked_at = time.monotonic()
                self._by_id.move_to_end(same.id)
                return same
            if len(self._queue) >= self.waiting:
                raise Busy
            job = Job(work, key=key, kind=kind, watched=watched)
            self._queue.append(job)
            if keep_result:
                self._store(job)
            self._change.notify()
        return job

    def add_result(self, key: str, result: Any) -> None:
        """Store what background work has computed, for good; its id follows from its key."""
        job = Job(_finished, key=key, id=key[:16], pinned=True)
        job.finish(result)
        with self._change:
            self._store(job)
        self._keep(job.id, result)

    def has(self, key: str) -> bool:
        """Whether the result of that key is there or under way."""
        with self._change:
            return self._reusable(key) is not None

    def get(self, id: str) -> Job | None:
        """The job of that id, None if it never existed or was deleted to make room for newer ones."""
        with self._change:
            job = self._by_id.get(id)
            if job is not None:
                job.looked_at = time.monotonic()
            return job

    def leave(self, id: str) -> None:
        """One client waits no longer: a job for which nobody waits is stopped."""
        with self._change:
            job = self._by_id.get(id)
            if job is not None:
                self._leave(job)

    def drop(self, job: Job) -> None:
        """The same for a job at hand."""
        with self._change:
            self._leave(job)

    def before(self, job: Job) -> int:
        """How many jobs are served before this one."""
        with self._change:
            return self._queue.index(job) + 1 if job in self._queue else 0

    def remaining(self, job: Job) -> float | None:
        """Estimated seconds until it is done, from earlier jobs of the kinds in front; None while one is not known."""
        with self._change:
            if job.state in ("done", "failed"):
                return 0.0
            ahead = list(self._queue)[: self._queue.index(job) + 1] if job in self._queue else []
            pieces = [self._durations.get(waiting.kind) for waiting in ahead]
            running = self._running
            if running is not None and running.started is not None:
                whole = self._durations.get(running.kind)
                elapsed = time.monotonic() - running.started
                pieces.append(None if whole is None else max(0.0, whole - elapsed))
            estimates = [piece for piece in pieces if piece is not None]
            return sum(estimates) if len(estimates) == len(pieces) and estimates else None

    def background(self, steps: Iterator[None]) -> None:
        """Take a step of this iterator whenever no job waits, after the work that was given before.

        A job that comes raises `Interrupted` in the step, see `until_done`.
        """
        with self._change:
            self._background.append(steps)
            self._change.notify()

    def stop(self) -> None:
        """End after the current job; those that wait fail."""
        with self._change:
            self._stopped = True
            self._change.notify()
        self._thread.join(timeout=self.seconds)

    def _reusable(self, key: str | None) -> Job | None:
        job = self._by_key.get(key) if key is not None else None
        if job is None or job.state == "failed" or (job.state != "done" and job.abandoned(self.patience)):
            return None
        return job

    def _store(self, job: Job) -> None:
        self._by_id[job.id] = job
        if job.key is not None:
            self._by_key[job.key] = job
        finished = [
            stored for stored in self._by_id.values() if stored.state in ("done", "failed") and not stored.pinned
        ]
        surplus = sum(not stored.pinned for stored in self._by_id.values()) - self.results
        for old in finished[: max(0, surplus)]:
            del self._by_id[old.id]
            if old.key is not None and self._by_key.get(old.key) is old:
                del self._by_key[old.key]

    def _leave(self, job: Job) -> None:
        job.clients -= 1
        if job.clients <= 0 and job in self._queue:
            self._queue.remove(job)
            job.future.set_running_or_notify_cancel()
            job.fail(410, _ABANDONED)

    def _work(self) -> None:
        while True:
            with self._change:
                while not (self._queue or self._background or self._stopped):
                    self._change.wait()
                if self._stopped:
                    for waiting in self._queue:
                        waiting.future.set_running_or_notify_cancel()
                        waiting.fail(503, "the server is stopping")
                    return
                job = self._queue.popleft() if self._queue else None
                if job is not None:
                    job.state, job.started, self._running = "running", time.monotonic(), job
            if job is not None:
                self._run(job)
                self._running = None
            else:
                self._step(self._background[0])

    def _step(self, steps: Iterator[None]) -> None:
        try:
            with _checking(self._make_way):
                next(steps)
        except StopIteration:
            self._background.popleft()
        except Exception as problem:
            log.exception("background work failed")
            self.background_error = f"stopped: {problem}"
            self._background.popleft()

    def _make_way(self) -> None:
        if self._queue or self._stopped:
            raise Interrupted

    def _run(self, job: Job) -> None:
        # Clients that leave cannot cancel a running future. Dropping `work` frees the uploaded images.
        job.future.set_running_or_notify_cancel()
        work, job.work = job.work, _finished
        try:
            check = self._limits(job)
            check()
            with _checking(check):
                result = work(job.tell)
        except (InputError, AdapterError) as problem:
            # The library reports exhausted memory as an `InputError` too, but the question is not at fault.
            job.fail(503 if out_of_memory(problem.__cause__ or problem) else 422, str(problem))
        except TooSlow:
            sentence = f"this took longer than {self.seconds:g} s: try a last layer, fewer steps or a smaller image"
            job.fail(504, sentence)
        except Abandoned:
            job.fail(410, _ABANDONED)
        except Exception as problem:
            if out_of_memory(problem):
                job.fail(503, "not enough memory for this one: try a smaller image or fewer steps")
            else:
                log.exception("a job failed")
                job.fail(500, "an internal error; the server's log has the details")
        else:
            self._learn(job)
            if job.id in self._by_id:
                self._keep(job.id, result)
            job.finish(result)

    def _limits(self, job: Job) -> Callable[[], None]:
        end = time.monotonic() + self.seconds

        def check() -> None:
            if job.abandoned(self.patience):
                raise Abandoned
            if time.monotonic() > end:
                raise TooSlow

        return check

    def _learn(self, job: Job) -> None:
        assert job.started is not None
        seconds = time.monotonic() - job.started
        before = self._durations.get(job.kind, seconds)
        self._durations[job.kind] = before + _LEARNING * (seconds - before)

    def _keep(self, id: str, result: Any) -> None:
        if self.keep is not None:
            try:
                self.keep(id, result)
            except Exception:
                log.exception("a result could not be kept on disk")


def until_done(step: Callable[[], Result]) -> Generator[None, None, Result]:
    """Take a step of background work again and again until no job interrupts it; its result."""
    while True:
        try:
            return step()
        except Interrupted:
            yield


def _finished(_: Tell) -> None:
    """Takes the place of a job's work once that has begun."""


@contextmanager
def _checking(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` in this thread before every call of a module; what it raises ends the block.

    Between calls of modules no change of the model is half done, so every context is left in order.
    """
    thread = threading.get_ident()

    def check_here(*_: Any) -> None:
        if threading.get_ident() == thread:
            check()

    hook = register_module_forward_pre_hook(check_here)
    try:
        yield
    finally:
        hook.remove()
