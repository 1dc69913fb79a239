"""What every method gives: contributions of one side's inputs, hence interactions of pairs."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from secondsight.inputs.audio import AUDIO_REFERENCES
from secondsight.inputs.images import IMAGE_REFERENCES
from secondsight.inputs.texts import TEXT_REFERENCES
from secondsight.methods.options import check_options
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.algebra.contributions import Contributions
    from secondsight.algebra.interactions import Interactions
    from secondsight.inputs.prepared import Prepared
    from secondsight.model import Side

REFERENCES = frozenset({*IMAGE_REFERENCES, *TEXT_REFERENCES, *AUDIO_REFERENCES})
"""Names of references of any kind of input."""

Layer = int | str
"""A block by its number, from the front or from the end; "input" for pixels, spectrogram bins or token embeddings; "grounded"
for the encoder's own `grounded_layer`; "output" for the token vectors of late-interaction models."""

Value = TypeVar("Value")
Sides: TypeAlias = Value | tuple[Value, ...]
"""An option for both sides together, or a (left, right) pair."""

METHODS: dict[str, type[Method]] = {}
"""Every method by its name on the command line."""


class Method(ABC):
    """A way to make contribution vectors. A subclass with a `name` is listed in `METHODS` by being defined.

    `order` is 2 where a pair's matrix tells which feature matched which, and 1 where a map of one side is all there is: every
    selection of the other side then has the same map. `adds_up` says whether the four terms are meant to give the similarity.
    """

    name: ClassVar[str]
    order: ClassVar[int] = 2
    adds_up: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Bases of several methods have no name.
        if "name" in vars(cls):
            METHODS[cls.name] = cls

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def factorises(self) -> bool:
        """Whether a pair's interactions are the product of its two sides' contributions, which then serve all partners."""
        return True

    @abstractmethod
    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input of one side; their vectors may be computed later, see `Contributions.dense`."""

    def interactions(self, left: Side, right: Side, a: Prepared, partners: Sequence[Prepared]) -> list[Interactions]:
        """Interactions of one left input with each of several right ones.

        Override it, and `factorises`, where a pair is more than the product of its two sides' contributions.
        """
        u = self.contributions(left, [a])[0]
        # One by one: in a batch, rounding would make a pair depend on what it was computed together with.
        return [u @ self.contributions(right, [b])[0] for b in partners]


def method_named(name: str, **options: Any) -> Method:
    """The method of that name with these options; `InputError` that lists the known ones."""
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; known: {', '.join(sorted(METHODS))}")
    parameters = list(inspect.signature(METHODS[name]).parameters)
    for option in options:
        if option not in parameters:
            raise InputError(f"the method {name!r} has no option {option!r}; it has {', '.join(parameters)}")
    try:
        return METHODS[name](**options)
    except TypeError as problem:
        raise InputError(f"the method {name!r} does not accept these options ({problem})") from problem


def for_side(side: Side, *options: Any) -> tuple[Any, ...]:
    """Options that take one value or a (left, right) pair, as this side's values.

    A single name of a reference belongs to the side that knows it; the other keeps its usual one.
    """
    values = []
    for option in options:
        paired = isinstance(option, tuple)
        value = option[side.index] if paired and len(option) == 2 else option
        is_reference = isinstance(value, str) and value in REFERENCES
        belongs_to_other_side = is_reference and not paired and value not in side.encoder.references
        values.append(None if belongs_to_other_side else value)
    return tuple(values)


def reference_label(names: Sequence[str], choice: object) -> str:
    """A chosen reference as users name it: "tensor" for their own, the first of the side's names for None."""
    if choice is None:
        return names[0] if names else "default"
    return choice if isinstance(choice, str) else "tensor"


def one_of(option: str, value: object, choices: Sequence[str]) -> None:
    """`InputError` that lists the choices, unless the value is one of them."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"unknown {option} {value!r}; known: {', '.join(choices)}")
