"""What every method gives: contributions of one side's inputs, hence interactions of pairs."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from secondsight.inputs.audio import AUDIO_REFERENCES
from secondsight.inputs.images import IMAGE_REFERENCES
from secondsight.inputs.texts import TEXT_REFERENCES
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.algebra.contributions import Contributions
    from secondsight.algebra.interactions import Interactions
    from secondsight.inputs.prepared import Prepared
    from secondsight.model import Side

REFERENCES = frozenset({*IMAGE_REFERENCES, *TEXT_REFERENCES, *AUDIO_REFERENCES})
"""Names of references of any kind of input."""

METHODS: dict[str, type[Method]] = {}
"""Every method by its name on the command line."""


class Method(ABC):
    """A way to make contribution vectors. A subclass with a `name` is listed in `METHODS` by being defined."""

    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        METHODS[cls.name] = cls

    @abstractmethod
    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input of one side."""

    def interactions(self, left: Side, right: Side, a: Prepared, others: Sequence[Prepared]) -> list[Interactions]:
        """Interactions of one left input with every right one; who need not make both sides' vectors overrides this."""
        u = self.contributions(left, [a])[0]
        return [u @ v for v in self.contributions(right, others)]

    def pairwise(self, left: Side, a: Prepared) -> bool:
        """Whether pairs are more, or cheaper, than products of both sides' vectors, so that vectors are not for keeping."""
        return False


def method_named(name: str, **options: Any) -> Method:
    """The method of that name with these options; `InputError` that lists the known ones."""
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; known: {', '.join(sorted(METHODS))}")
    known = list(inspect.signature(METHODS[name]).parameters)
    for option in options:
        if option not in known:
            raise InputError(f"the method {name!r} has no option {option!r}; it has {', '.join(known)}")
    try:
        return METHODS[name](**options)
    except TypeError as problem:
        raise InputError(f"the method {name!r} cannot be made with these options ({problem})") from problem


def for_side(side: Side, *options: Any) -> tuple[Any, ...]:
    """Options that take one value or a (left, right) pair, as this side's values.

    A single name of a reference belongs to the side that knows it; the other keeps its usual one.
    """
    made = []
    for value in options:
        own = value[side.index] if isinstance(value, tuple) and len(value) == 2 else value
        known = isinstance(own, str) and own in REFERENCES
        alone = not isinstance(value, tuple)
        made.append(None if known and alone and own not in side.encoder.references else own)
    return tuple(made)


def one_of(option: str, value: Any, known: Sequence[str]) -> None:
    """`InputError` that lists the known values."""
    if value not in known:
        raise InputError(f"unknown {option} {value!r}; known: {', '.join(known)}")
