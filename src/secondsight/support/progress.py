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


@contextmanager
def part_of(first: float, last: float, whole: float) -> Iterator[None]:
    """A part of the present step, from `first` to `last` of a `whole`: what is told within it are shares of this part."""
    listener = _listener.get()
    if listener is None:
        yield
        return
    with listening(lambda share: listener((first + share * (last - first)) / whole)):
        yield
