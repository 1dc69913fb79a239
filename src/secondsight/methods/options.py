"""Options of methods: their types checked by the annotations, and their values as the command line writes them."""

from __future__ import annotations

import ast
import math
import numbers
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from PIL import Image
from torch import Tensor

from secondsight.support.errors import InputError
from secondsight.support.files import shortened

SIDED = frozenset({"layer", "reference", "cells"})
"""Options that take one value, or LEFT/RIGHT."""

LARGEST_SEED = 2**63 - 1

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a name",
    tuple: "a (left, right) pair",
    type(None): "None",
}

_REFERENCES = (str, Tensor, Image.Image, np.ndarray, os.PathLike, Mapping, type(None))
"""What a reference can be given as; the side's encoder says which of them it takes."""


def check_options(method: Any) -> None:
    """`InputError` for an option of another type than its annotation; layers written as text become numbers.

    Numbers become Python's own and of the annotation's type, so that they can be written to files.
    """
    if not is_dataclass(method):
        return
    try:
        hints = get_type_hints(type(method))
    except (NameError, TypeError):
        # A method of the user's own may have annotations that cannot be read.
        return
    for field in fields(method):
        value = getattr(method, field.name)
        if field.name == "layer":
            value = parsed_layer(value)
        elif field.name == "reference":
            _check_reference(value)
            continue
        _check(field.name, value, hints[field.name])
        if isinstance(value, numbers.Real) and not isinstance(value, float) and _fits(0.5, hints[field.name]):
            value = _as_float(field.name, value)
        elif isinstance(value, numbers.Integral) and not isinstance(value, int):
            value = operator.index(value)
        if value is not getattr(method, field.name):
            # The dataclass is frozen once it is made.
            object.__setattr__(method, field.name, value)
        if field.name == "seed" and not 0 <= abs(value) <= LARGEST_SEED:
            raise InputError(f"seed={value!r} is too large: use a number below 2⁶³")


def _check(name: str, value: object, hint: Any) -> None:
    if not _fits(value, hint):
        raise InputError(f"{name}={shortened(value)} must be {_in_words(hint)}")
    if isinstance(value, tuple) and len(value) != 2:
        raise InputError(f"{name}={shortened(value)} must be one value or a (left, right) pair of values")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name}={value!r} must be a positive, finite number")


def _as_float(name: str, value: numbers.Real) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{name}={shortened(value)} must be a positive, finite number") from None


def _fits(value: object, hint: Any) -> bool:
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(part, get_args(hint)[0]) for part in value)
    if isinstance(value, (bool, np.bool_)):
        return hint is bool
    if hint in (int, float):
        return isinstance(value, numbers.Integral if hint is int else numbers.Real)
    return not isinstance(hint, type) or isinstance(value, hint)


def _in_words(hint: Any) -> str:
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [get_origin(choice) or choice for choice in choices]
    words = [_WORDS.get(kind) or f"a {kind.__name__.lower()}" for kind in kinds]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _check_reference(value: object) -> None:
    parts = value if isinstance(value, tuple) else (value,)
    if len(parts) > 2 or not all(isinstance(part, _REFERENCES) for part in parts):
        raise InputError(
            f"reference={shortened(value)} must be the name of a reference, an input of your own, or a (left, right) pair"
        )


def parsed_layer(value: Any) -> Any:
    """A layer as methods want it; "6", "4/input" and pairs of such become numbers, everything else stays."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.replace("/", ",").split(",")]
        layers = tuple(map(_block, parts))
        return value if len(layers) > 2 else layers[0] if len(layers) == 1 else layers
    if isinstance(value, tuple) and any(isinstance(part, str) for part in value):
        return tuple(_block(part) if isinstance(part, str) else part for part in value)
    return value


def _block(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def parse_layer(value: str) -> int | str | tuple[int | str, ...]:
    """A block's number, "input", "grounded" or "output", or two of them separated by a comma or a slash.

    `InputError` otherwise.
    """
    layer: int | str | tuple[int | str, ...] = parsed_layer(value)
    parts = layer if isinstance(layer, tuple) else (layer,)
    if not all(isinstance(part, int) or part in ("input", "grounded", "output") for part in parts):
        raise InputError(f"layer {value!r} is not a block's number, 'input', 'grounded', or two of these as LEFT,RIGHT")
    return layer


def parse_options(assignments: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE pairs as a dict; a value is a Python literal, a word, or LEFT/RIGHT of those for options of both sides."""
    options = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"the option {assignment!r} is not NAME=VALUE")
        options[name] = parse_value(value)
        if name in SIDED and isinstance(options[name], str) and "/" in value:
            options[name] = tuple(parse_value(part) for part in value.split("/"))
    return options


def parse_value(text: str) -> Any:
    """A Python literal, or else a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
