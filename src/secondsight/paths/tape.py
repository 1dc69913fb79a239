"""A tape of the tensor operations that a function runs, written while it runs.

Values are real, so control flow, `.item()`, masks and hooks work as they always do. A function that writes into what
depends on the input is run once more under `functionalize`, which turns operations in place into their counterparts out
of place. Only operations on something that depends on the watched input are written down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True, eq=False)
class Operation:
    """One ATen operation: its arguments and outputs, flattened; tensors that depend on the input have a number.

    Numbers count from 0, the input, in the order of computation; `sources` and `targets` are those of the arguments and
    outputs, None for everything else. `structure` is how the arguments were nested: the
    names of keywords, or a tree where a list holds tensors.
    """

    function: Any
    arguments: list[Any]
    structure: TreeSpec | tuple[str, ...]
    outputs: list[Any]
    sources: list[int | None]
    targets: list[int | None]

    def nested(self, leaves: list[Any]) -> tuple[Any, Any]:
        """A list with a leaf for every argument as (positional, keyword) arguments."""
        if isinstance(self.structure, TreeSpec):
            return tree_unflatten(leaves, self.structure)
        names = self.structure
        count = len(leaves) - len(names)
        return tuple(leaves[:count]), dict(zip(names, leaves[count:], strict=True))


class _WritesInPlace(Exception):
    """The function writes into a tensor that depends on the input, or such a tensor into another."""


class _Writer(TorchDispatchMode):
    """Calls `observe` with every operation on what depends on a watched tensor."""

    def __init__(self, observe: Callable[[Operation], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.observe, self.count = observe, 0
        self.numbers: Any = WeakTensorKeyDictionary()

    def watch(self, tensor: Tensor) -> int:
        """The number that a tensor gets."""
        self.numbers[tensor] = self.count
        self.count += 1
        return self.count - 1

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        arguments, structure = _flat(args, kwargs)
        sources = [self.numbers.get(leaf) if isinstance(leaf, Tensor) else None for leaf in arguments]
        watched = any(source is not None for source in sources)
        if watched and function._schema.is_mutable:
            raise _WritesInPlace
        output = function(*args, **kwargs)
        if watched:
            outputs = [output] if isinstance(output, Tensor) else tree_flatten(output)[0]
            targets = [self.watch(leaf) if _is_real(leaf) else None for leaf in outputs]
            if any(target is not None for target in targets):
                self.observe(Operation(function, arguments, structure, outputs, sources, targets))
        return output


def _flat(args: Any, kwargs: Any) -> tuple[list[Any], TreeSpec | tuple[str, ...]]:
    """All arguments in one list, and how they were nested: the keywords' names, or a tree where lists hold tensors."""
    if any(isinstance(a, (list, tuple)) and any(isinstance(x, Tensor) for x in a) for a in args):
        return tree_flatten((args, kwargs))
    return [*args, *kwargs.values()], tuple(kwargs)


def _is_real(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def record(
    function: Callable[[Tensor], Tensor], x: Tensor, observe: Callable[[Operation], None]
) -> tuple[Tensor, int | None]:
    """The function's value at x, and the value's number on the tape, None where it does not depend on x.

    `observe` gets every operation when the function has ended.
    """
    try:
        return _record(function, x, observe)
    except _WritesInPlace:
        return _record(torch.func.functionalize(function), x, observe)


def _record(
    function: Callable[[Tensor], Tensor], x: Tensor, observe: Callable[[Operation], None]
) -> tuple[Tensor, int | None]:
    operations: list[Operation] = []
    writer = _Writer(operations.append)
    with torch.no_grad(), writer:
        x = x.clone()
        writer.watch(x)
        value = function(x)
        number = writer.numbers.get(value)
    for operation in operations:
        observe(operation)
    return value, number
