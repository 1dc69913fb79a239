"""One worker for all users: a queue with bounds on waiting jobs, their running time and the results that are stored."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch.nn.modules.module import register_module_forward_pre_hook

from secondsight.support.errors import AdapterError, InputError
from secondsight.support.memory import out_of_memory

log = logging.getLogger("secondsight.server")

Tell = Callable[[str], None]


class Busy(Exception):
    """Too many jobs wait already."""


class TooSlow(Exception):
    """A job exceeded its time limit."""


@dataclass(eq=False)
class Job:
    """A piece of work; only the client that submitted it learns its `id`."""

    work: Callable[[Tell], Any]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    stage: str = "waiting"
    submitted: float = field(default_factory=time.monotonic)
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


class Jobs:
    """A queue with one worker thread: models are not thread-safe, and one explanation uses all cores.

    At most `waiting` jobs wait, each may run for `seconds`, and the last `results` can be fetched by their ids.
    """

    def __init__(self, *, waiting: int, seconds: float, results: int) -> None:
        self.waiting, self.seconds, self.results = waiting, seconds, results
        self.background_error: str | None = None
        self._queue: deque[Job] = deque()
        self._by_id: OrderedDict[str, Job] = OrderedDict()
        self._change = threading.Condition()
        self._background: Iterator[None] | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="secondsight-worker", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Tell], Any], *, keep_result: bool = True) -> Job:
        """Add a job; raises `Busy` if too many wait. With `keep_result` it can be fetched by its id."""
        with self._change:
            if len(self._queue) >= self.waiting:
                raise Busy
            job = Job(work)
            self._queue.append(job)
            if keep_result:
                self._by_id[job.id] = job
            finished = [stored for stored in self._by_id.values() if stored.state in ("done", "failed")]
            for old in finished[: max(0, len(self._by_id) - self.results)]:
                del self._by_id[old.id]
            self._change.notify()
        return job

    def get(self, id: str) -> Job | None:
        """The job of that id, None if it never existed or was deleted to make room for newer ones."""
        with self._change:
            return self._by_id.get(id)

    def before(self, job: Job) -> int:
        """How many jobs are served before this one."""
        with self._change:
            return self._queue.index(job) + 1 if job in self._queue else 0

    def background(self, steps: Iterator[None]) -> None:
        """Take a step of this iterator whenever no job waits; steps should be short."""
        with self._change:
            self._background = steps
            self._change.notify()

    def stop(self) -> None:
        """End after the current job; those that wait fail."""
        with self._change:
            self._stopped = True
            self._change.notify()
        self._thread.join(timeout=self.seconds)

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
                    job.state = "running"
            if job is not None:
                self._run(job)
            else:
                self._step()

    def _step(self) -> None:
        assert self._background is not None
        try:
            next(self._background)
        except StopIteration:
            self._background = None
        except Exception as problem:
            log.exception("background work failed")
            self.background_error = f"stopped: {problem}"
            self._background = None

    def _run(self, job: Job) -> None:
        # Clients that leave cannot cancel a running future. Dropping `work` frees the uploaded images.
        job.future.set_running_or_notify_cancel()
        work, job.work = job.work, _finished
        try:
            with _time_limit(self.seconds):
                result = work(job.tell)
        except (InputError, AdapterError) as problem:
            # The library reports exhausted memory as an `InputError` too, but the question is not at fault.
            job.fail(503 if out_of_memory(problem.__cause__ or problem) else 422, str(problem))
        except TooSlow:
            sentence = f"this took longer than {self.seconds:g} s: try a last layer, fewer steps or a smaller image"
            job.fail(504, sentence)
        except Exception as problem:
            if out_of_memory(problem):
                job.fail(503, "not enough memory for this one: try a smaller image or fewer steps")
            else:
                log.exception("a job failed")
                job.fail(500, "an internal error; the server's log has the details")
        else:
            job.state = job.stage = "done"
            job.future.set_result(result)


def _finished(_: Tell) -> None:
    """Takes the place of a job's work once that has begun."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in this thread at the first call of a module after that many seconds.

    Between calls of modules no change of the model is half done, so every context is left in order.
    """
    end, thread = time.monotonic() + seconds, threading.get_ident()

    def check(*_: Any) -> None:
        if threading.get_ident() == thread and time.monotonic() > end:
            raise TooSlow

    hook = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()
