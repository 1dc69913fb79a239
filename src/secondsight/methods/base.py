"""What every method gives: contributions of one side's inputs, hence interactions of pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from secondsight.errors import InputError

if TYPE_CHECKING:
    from secondsight.contributions import Contributions
    from secondsight.encoders.base import Prepared, Side
    from secondsight.interactions import Interactions

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

    def interactions(self, left: Side, right: Side, a: Prepared, b: Prepared) -> Interactions:
        """One pair's interactions; a method that need not make both sides' vectors overrides this."""
        return self.contributions(left, [a])[0] @ self.contributions(right, [b])[0]


def method_named(name: str, **options: Any) -> Method:
    """The method of that name with these options; `InputError` that lists the known ones."""
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; known: {', '.join(sorted(METHODS))}")
    return METHODS[name](**options)
