"""Methods with their options chosen, by names that say what they are for."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from secondsight.methods.base import METHODS, Method, method_named
from secondsight.methods.chained_jacobian import ChainedJacobian
from secondsight.methods.integrated_jacobian import IntegratedJacobian
from secondsight.methods.options import parse_options
from secondsight.support.errors import InputError
from secondsight.support.files import shortened

DEFAULT = "grounded"
"""What `explain`, the command line, the app and `evaluate` use unless told otherwise."""

PRESETS: dict[str, Method] = {
    "grounded": ChainedJacobian(layer="grounded"),
    "last-layer": IntegratedJacobian(),
    "paper": IntegratedJacobian(quadrature="riemann", steps=50),
}
"""Presets by name.

"grounded" attributes a middle image layer and token embeddings, where places and words are mixed less than at the last layers.
"last-layer" costs a fraction of a forward pass, and its contributions serve any number of partners: stores and `contributions`
use it. "paper" is the setting of [M25]: the last layer, 50 nodes.
"""

PRESET_LINES = {
    "grounded": "Use this when you just want an explanation: it points at things best, and its sums are exact. The default.",
    "last-layer": "Use this when you have many pairs, or fill a store: it costs less than running the model once.",
    "paper": "Use this when you want the numbers of the published method, with its own settings.",
}
"""What to use a preset for, in one line."""


def as_method(method: Method | type[Method] | str | None, default: str = DEFAULT) -> Method:
    """A method; a class of methods with its usual options; or the preset or method of a name, as in `method_of_text`.

    None is the default. Raises `InputError` for anything else.
    """
    if isinstance(method, Method):
        return method
    if method is None or isinstance(method, str):
        return method_of_text(default if method is None else method)
    if isinstance(method, type) and issubclass(method, Method):
        try:
            return method()
        except TypeError as problem:
            raise InputError(f"{method.__name__} is a class that needs options ({problem}): give an instance") from None
    raise InputError(
        f"{shortened(method)} is not a method: give a name such as {DEFAULT!r}, or an instance such as ss.Banzhaf()"
    )


def method_of_text(text: str, **options: Any) -> Method:
    """The method NAME or NAME:OPTION=VALUE,…; `options` replace those in the text.

    Of the options that may differ between the sides, LEFT/RIGHT is a pair, as in `layer=4/input`.
    """
    name, _, assignments = text.partition(":")
    return method_or_preset(name, **parse_options(assignments.split(",") if assignments else ()) | options)


def method_or_preset(name: str, **options: Any) -> Method:
    """The preset or the method of that name, with these options; `InputError` that lists the known ones."""
    if name not in PRESETS:
        if name not in METHODS:
            raise InputError(f"unknown method {name!r}; known: {', '.join([*PRESETS, *sorted(METHODS)])}")
        return method_named(name, **options)
    preset: Any = PRESETS[name]
    try:
        return method_named(preset.name, **{**_options(preset), **options})
    except InputError as problem:
        if all(option in _options(preset) for option in options):
            raise
        raise InputError(
            f"{problem!s}; other methods have other options, such as --method integrated-jacobian"
        ) from None


def _options(preset: Any) -> dict[str, Any]:
    return {field.name: getattr(preset, field.name) for field in fields(preset)}
