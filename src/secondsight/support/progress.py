"""How far a long computation is, told to whoever listens in the same thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[float], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[float], None]) -> Iterator[None]:
    """Call `listener` with the share in 0 … 1 that is done of the present step, whenever a computation tells it."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def tell(share: float) -> None:
    """Say that this share of the present step is done."""
    listener = _listener.get()
    if listener is not None:
        listener(share)
