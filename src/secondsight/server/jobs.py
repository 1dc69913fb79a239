"""One worker for every user: jobs in the order they came, a bound on how many wait, how long one runs, how many are kept."""

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
    """A job ran longer than it may."""


@dataclass(eq=False)
class Job:
    """A piece of work; `id` is known to nobody but who asked for it."""

    work: Callable[[Tell], Any]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    stage: str = "waiting"
    asked: float = field(default_factory=time.monotonic)
    future: Future[Any] = field(default_factory=Future)
    error: str | None = None
    status: int = 200

    def tell(self, stage: str) -> None:
        """Say what is being done."""
        self.stage = stage


class Jobs:
    """A queue with one worker thread: models are no place for several at once, and one explanation uses all cores.

    `background` yields after every small step of work that can wait, and is taken up whenever no job is there.
    """

    def __init__(self, *, waiting: int, seconds: float, kept: int) -> None:
        self.waiting, self.seconds, self.kept = waiting, seconds, kept
        self._queue: deque[Job] = deque()
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._change = threading.Condition()
        self._background: Iterator[None] | None = None
        self._stopped = False
        self.trouble: str | None = None
        self._thread = threading.Thread(target=self._work, name="secondsight-worker", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Tell], Any], *, keep: bool = True) -> Job:
        """Take a job; raises `Busy` where too many wait. With `keep` its result can be asked for by its id."""
        with self._change:
            if len(self._queue) >= self.waiting:
                raise Busy
            job = Job(work)
            self._queue.append(job)
            if keep:
                self._known[job.id] = job
            finished = [known for known in self._known.values() if known.state in ("done", "failed")]
            for old in finished[: max(0, len(self._known) - self.kept)]:
                del self._known[old.id]
            self._change.notify()
        return job

    def get(self, id: str) -> Job | None:
        """The job of that id, None where there is none or it was given up for newer ones."""
        with self._change:
            return self._known.get(id)

    def before(self, job: Job) -> int:
        """How many jobs are served before this one."""
        with self._change:
            return self._queue.index(job) + 1 if job in self._queue else 0

    def background(self, steps: Iterator[None]) -> None:
        """Work for when nobody waits."""
        with self._change:
            self._background = steps
            self._change.notify()

    def stop(self) -> None:
        """End after the job at hand; those that wait fail."""
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
                    for job in self._queue:
                        job.future.set_running_or_notify_cancel()
                        self._fail(job, 503, "the server is stopping")
                    return
                taken = self._queue.popleft() if self._queue else None
                if taken is not None:
                    taken.state = "running"
            if taken is not None:
                self._run(taken)
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
            self.trouble = f"stopped: {problem}"
            self._background = None

    def _run(self, job: Job) -> None:
        # A future that is running cannot be cancelled by who waits for it; what was uploaded is not kept.
        job.future.set_running_or_notify_cancel()
        work, job.work = job.work, _done
        try:
            with _deadline(self.seconds):
                result = work(job.tell)
        except (InputError, AdapterError) as problem:
            # The engine says in a sentence that memory ran out; that is no fault of the question.
            self._fail(job, 503 if out_of_memory(problem.__cause__ or problem) else 422, str(problem))
        except TooSlow:
            self._fail(
                job, 504, f"this took longer than {self.seconds:g} s: try a last layer, fewer steps or a smaller image"
            )
        except Exception as problem:
            if out_of_memory(problem):
                self._fail(job, 503, "not enough memory for this one: try a smaller image or fewer steps")
            else:
                log.exception("a job failed")
                self._fail(job, 500, "something failed inside; the server's log says what")
        else:
            job.state = job.stage = "done"
            job.future.set_result(result)

    @staticmethod
    def _fail(job: Job, status: int, sentence: str) -> None:
        job.state, job.stage, job.status, job.error = "failed", "failed", status, sentence
        job.future.set_result(None)


def _done(_: Tell) -> None:
    """What a finished job has left to do."""


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in this thread when a module is called after that many seconds.

    Between modules every context that the engine holds is in order, so a model leaves this as it came.
    """
    end, own = time.monotonic() + seconds, threading.get_ident()

    def check(*_: Any) -> None:
        if threading.get_ident() == own and time.monotonic() > end:
            raise TooSlow

    hook = register_module_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()
