"""One operation at two points, and the register of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from secondsight.paths.linear_maps import LinearMap
from secondsight.paths.secants import Points
from secondsight.paths.tape import Operation


@dataclass(frozen=True, eq=False)
class Edge:
    """A linear map from the tensor with the number `source` to that with the number `target`."""

    source: int
    target: int
    map: LinearMap


class NoRule(Exception):
    """An operation that no rule covers, or covers only where its choices are the same at both points; says why."""


@dataclass(frozen=True, eq=False)
class Move:
    """One operation as it ran at the reference (`before`) and at the input (`after`)."""

    before: Operation
    after: Operation

    @cached_property
    def arguments(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Positional arguments at both points."""
        return self.before.nested(self.before.arguments)[0], self.after.nested(self.after.arguments)[0]

    @cached_property
    def sources(self) -> tuple[Any, ...]:
        """The numbers of the positional arguments, nested as they are."""
        return self.after.nested(list(self.after.sources))[0]

    @cached_property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments at the input."""
        return self.after.nested(self.after.arguments)[1]

    def points(self, position: int) -> tuple[Any, Any]:
        """A positional argument, a tensor or a number, at both points."""
        before, after = self.arguments
        return before[position], after[position]

    def argument(self, position: int, default: Any = None) -> Any:
        """A positional argument at the input, with a default where it was left out."""
        arguments = self.arguments[1]
        return arguments[position] if position < len(arguments) else default

    def mean(self, position: int) -> Any:
        """The mean of a factor over both points."""
        start, end = self.points(position)
        if isinstance(self.sources[position], int):
            return end if self.standing else (start + end) / 2
        return end

    @property
    def results(self) -> Points:
        """The first output at both points."""
        return self.before.outputs[0], self.after.outputs[0]

    @property
    def standing(self) -> bool:
        """Whether both points are the same run, so that mean Jacobians are derivatives."""
        return self.before is self.after

    def edge(self, source: int, jacobian: LinearMap, output: int = 0) -> Edge:
        """An edge to one of the outputs."""
        target = self.after.targets[output]
        assert target is not None  # rules look at floating-point outputs only
        return Edge(source, target, jacobian)

    def first(self, jacobian: LinearMap) -> list[Edge]:
        """The only edge, from the first argument to the first output; `NoRule` where another argument moves too."""
        self.require_constants(0)
        return [self.edge(self.sources[0], jacobian)]

    def require_constants(self, *moving: int) -> None:
        """`NoRule` unless all but these positional arguments are the same at both points."""
        for position, source in enumerate(self.sources):
            if position not in moving and isinstance(source, int):
                raise NoRule(f"depends on the input in its argument {position} too")
        self.require_same()

    def require_same(self, *moving: int) -> None:
        """`NoRule` unless what does not depend on the input is the same at both points, but for these arguments."""
        leaves = zip(self.before.arguments, self.after.arguments, self.after.sources, strict=True)
        for position, (before, after, source) in enumerate(leaves):
            if source is None and position not in moving and not same(before, after):
                subject = f"the {'tensor' if isinstance(after, Tensor) else 'value'} in its argument {position}"
                raise NoRule(f"takes {subject} that differs between reference and input, without a derivative")


def same(before: Any, after: Any) -> bool:
    """Whether an argument that does not depend on the input is the same at both points."""
    if before is after:
        return True
    if not isinstance(after, Tensor) or not isinstance(before, Tensor):
        return type(before) is type(after) and bool(before == after or before != before)
    # Weights come as fresh views of one storage.
    view = (after.data_ptr(), after.shape, after.stride(), after.dtype)
    if view == (before.data_ptr(), before.shape, before.stride(), before.dtype):
        return True
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    return torch.equal(before, after) or bool(((before == after) | ((before != before) & (after != after))).all())


Rule = Callable[[Move], list[Edge]]

RULES: dict[Any, Rule] = {}
"""Rules by ATen operation; a project may add rules for operations of its own."""


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Registers a rule for these operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, function))
        return function

    return register
