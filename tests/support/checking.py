"""Checks the shapes that stand in signatures while tests run, in functions and methods whose annotations name one.

jaxtyping's own hook wraps every function, and compiles nested ones with every call of the function around them: tests of small
models then take more than twice the time. Other annotations are mypy's business.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cached_property
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from inspect import isclass, isfunction
from types import ModuleType
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import config, jaxtyped

_SHAPE = re.compile(r"""\[[\w.]+, ["']""")  # as in Float[Tensor, "row joint"]

# A whole number is a number wherever a float is asked for, as in PEP 484.
_typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check_shapes(package: str) -> None:
    """Check the modules of a package that are imported from now on; `JAXTYPING_DISABLE=1` in the environment does not."""
    if not config.jaxtyping_disable and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(package))


class _Finder(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] != self.package:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target)) is not None), None)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        classes = [value for value in vars(module).values() if isclass(value) and value.__module__ == module.__name__]
        for holder in (module, *classes):
            for name, value in list(vars(holder).items()):
                checked = _checked(value, module.__name__)
                if checked is not value:
                    setattr(holder, name, checked)


def _checked(value: Any, module: str) -> Any:
    """A function, or what a class makes of one, that checks its shapes; anything else as it is."""
    if isinstance(value, cached_property):
        value.func = _checked(value.func, module)
        return value
    function = _function_in(value)
    # What wraps another function, as a context manager does, has the annotations of that one.
    if not isfunction(function) or function.__module__ != module or hasattr(function, "__wrapped__"):
        return value
    return (
        jaxtyped(value, typechecker=_typechecker)
        if any(map(_names_a_shape, function.__annotations__.values()))
        else value
    )


def _function_in(value: Any) -> Callable[..., Any] | None:
    if isinstance(value, (classmethod, staticmethod)):
        return value.__func__
    return value.fget if isinstance(value, property) else value


def _names_a_shape(annotation: Any) -> bool:
    return isinstance(annotation, str) and _SHAPE.search(annotation) is not None
