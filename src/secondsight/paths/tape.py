"""A tape of the tensor operations that a function runs, written while it runs.

Values are real, so control flow, `.item()`, masks and hooks work as they always do. Only operations on something that
depends on the watched input are written down. An operation that writes into a tensor is written down as its counterpart
out of place; what other views of the same memory hold afterwards is pieced together when one of them is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from secondsight.paths.attention import AttentionAsOne
from secondsight.paths.memory import Memory, geometry, storage

Structure = TreeSpec | tuple[str, ...]
"""How arguments were nested: the names of keywords, or a tree where a list holds tensors."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One ATen operation: its arguments and outputs, flattened; tensors that depend on the input have a number.

    Numbers count from 0, the input, in the order of computation; `sources` and `targets` are those of the arguments and
    outputs, None for everything else.
    """

    function: Any
    arguments: list[Any]
    structure: Structure
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


class CannotRecord(Exception):
    """An operation writes into a tensor that depends on the input, and has no counterpart that does not."""

    def __init__(self, function: Any, number: int) -> None:
        self.function, self.number = function, number
        super().__init__(f"the operation {function} writes into what depends on the input")


class _Writer(TorchDispatchMode):
    """Writes down every operation on what depends on a watched tensor, and calls `look` after each."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch would import its compiler, for most of a second, to keep it away from `__torch_dispatch__`."""
        return False

    def __init__(self, look: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.look = look
        self.numbers: dict[int, int] = {}  # by identity: what has a number stays alive
        self.memory = Memory()
        self._watched: list[Tensor] = []
        self._renumbered: list[Tensor] = []

    def watch(self, tensor: Tensor) -> int:
        """The number that a tensor gets."""
        number = self.numbers[id(tensor)] = len(self._watched)
        self._watched.append(tensor)
        if self.memory.written and not tensor.is_meta:
            self.memory.refresh(tensor)
        return number

    def number(self, leaf: Any) -> int | None:
        """The number of a tensor, None for what does not depend on the input."""
        if not isinstance(leaf, Tensor):
            return None
        if self.memory.written and self.memory.is_stale(leaf):
            self._piece_together(leaf)
        return self.numbers.get(id(leaf))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function._schema.is_mutable:
            return self._write(function, args, kwargs)
        arguments, structure = _flat(args, kwargs)
        sources = [self.number(leaf) for leaf in arguments]
        output = function(*args, **kwargs)
        self._note(function, arguments, structure, output, sources)
        return output

    def _note(
        self, function: Any, arguments: list[Any], structure: Structure, output: Any, sources: list[int | None]
    ) -> int | None:
        """Writes down an operation on something watched; the number of its first output, None for a constant."""
        if function in _FILLED or all(source is None for source in sources):
            return None
        outputs = [output] if isinstance(output, Tensor) else tree_flatten(output)[0]
        targets = [self.watch(leaf) if _is_continuous(leaf) else None for leaf in outputs]
        if any(target is not None for target in targets):
            self.operations.append(Operation(function, arguments, structure, outputs, sources, targets))
            self.look()
        return targets[0] if targets else None

    def _write(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Runs an operation that writes into tensors; what is watched by the operation out of place and a copy."""
        targets = _written(function, args, kwargs)
        watched = any(self.number(leaf) is not None for leaf in tree_flatten((args, kwargs))[0])
        for target in targets:
            self.memory.keep(target, self.operations)
        if watched:
            if len(targets) != 1:
                raise CannotRecord(function, len(self.operations))
            self._write_watched(function, args, kwargs, targets[0])
            return targets[0]
        result = function(*args, **kwargs)
        for target in targets:
            if storage(target) in self.memory.written:
                self.memory.write(target, None, None)
        return result

    def _write_watched(self, function: Any, args: Any, kwargs: dict[str, Any], target: Tensor) -> None:
        counterpart = _counterpart(function)
        kwargs = {name: value for name, value in kwargs.items() if value is not target}
        value = None if counterpart is None else counterpart(*args, **kwargs)
        turned = torch.Tag.inplace_view in function.tags and value is not None and storage(value) == storage(target)
        if not isinstance(value, Tensor) or (value.shape != target.shape and not turned):
            raise CannotRecord(function, len(self.operations))
        arguments, structure = _flat(args, kwargs)
        sources = [self.number(leaf) for leaf in arguments]
        if turned:
            # The tensor gets another shape and keeps its memory, as with unsqueeze_.
            number = self._note(counterpart, [args[0].clone(), *arguments[1:]], structure, value.clone(), sources)
            function(*args, **kwargs)
            self._renumber(target, number)
            return
        if counterpart in _OVERWRITING:
            # What was there before does not matter, and memory that nobody filled holds anything.
            arguments[0], sources[0] = torch.zeros_like(target), None
        key = storage(target)
        arguments = [leaf.clone() if isinstance(leaf, Tensor) and storage(leaf) == key else leaf for leaf in arguments]
        number = self._note(counterpart, arguments, structure, value, sources)
        if number is not None and value.dtype != target.dtype:
            cast = value.to(target.dtype)
            number = self._note(torch.ops.aten._to_copy.default, [value], (), cast, [number])
        owner = next((w for w in enumerate(self._watched) if not w[1].is_meta and storage(w[1]) == key), None)
        target.copy_(value)
        self.memory.write(target, number, None if owner is None else (owner[1], owner[0]))
        self._renumber(target, number)

    def _renumber(self, tensor: Tensor, number: int | None) -> None:
        self.numbers.pop(id(tensor), None)
        if number is not None:
            self.numbers[id(tensor)] = number
            self._renumbered.append(tensor)

    def _piece_together(self, leaf: Tensor) -> None:
        """Gives a new number to a view of memory that was written since."""
        flat = torch.empty(self.memory.size(leaf), dtype=leaf.dtype, device="meta")
        base: int | None = None
        for number, where in self.memory.written[storage(leaf)]:
            part = torch.empty(where[0], dtype=leaf.dtype, device="meta")
            arguments, sources = [flat, part, *where], [base, number, None, None, None]
            base = self._note(_aten.as_strided_scatter.default, arguments, (), torch.empty_like(flat), sources)
        where = geometry(leaf)
        number = self._note(_aten.as_strided.default, [flat, *where], (), leaf.clone(), [base, None, None, None])
        self._renumber(leaf, number)
        self.memory.refresh(leaf)


_aten = torch.ops.aten

_FILLED = {
    _aten.empty_like.default, _aten.new_empty.default, _aten.new_empty_strided.default, _aten.zeros_like.default,
    _aten.ones_like.default, _aten.full_like.default, _aten.new_zeros.default, _aten.new_ones.default,
    _aten.new_full.default,
}  # fmt: skip
"""Operations that take from their argument no more than its shape."""

_OVERWRITING = (_aten.copy.default, _aten.fill.Scalar, _aten.fill.Tensor, _aten.zero.default)


def _written(function: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes into."""
    written: list[Tensor] = []
    for position, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            written += [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]
    return written


@lru_cache(maxsize=256)
def _counterpart(function: Any) -> Any:
    """The operation that gives what another one writes; None where there is none."""
    namespace, name = function._schema.name.split("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    signature = [(a.name, str(a.type)) for a in function._schema.arguments if not (a.is_out or a.name == "out")]
    for overload in packet.overloads() if packet is not None else ():
        candidate = getattr(packet, overload)
        if (
            not candidate._schema.is_mutable
            and [(a.name, str(a.type)) for a in candidate._schema.arguments] == signature
        ):
            return candidate
    return None


def _flat(args: Any, kwargs: Any) -> tuple[list[Any], Structure]:
    """All arguments in one list, and how they were nested: the keywords' names, or a tree where lists hold tensors."""
    if any(isinstance(a, (list, tuple)) and any(isinstance(x, Tensor) for x in a) for a in args):
        return tree_flatten((args, kwargs))
    return [*args, *kwargs.values()], tuple(kwargs)


def _is_continuous(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def record(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    observe: Callable[[Operation], None],
    look: Callable[[], None] = lambda: None,
) -> tuple[Tensor, int | None]:
    """The function's value at x, and the value's number on the tape, None where it does not depend on x.

    `observe` gets every operation when the function has ended, `look` is called during the run, at every operation that
    is written down. Raises `CannotRecord`.
    """
    writer = _Writer(look)
    with torch.no_grad(), AttentionAsOne(), writer:
        x = x.clone()
        writer.watch(x)
        value = function(x)
        number = writer.number(value)
    for operation in writer.operations:
        observe(operation)
    return value, number
