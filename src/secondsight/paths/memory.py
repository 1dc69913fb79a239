"""What was written into tensors in place, so that every view of the same memory can be pieced together afterwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Geometry = tuple[tuple[int, ...], tuple[int, ...], int]
"""Size, strides and offset of a view of flat memory."""


def storage(tensor: Tensor) -> int:
    """A key of the memory in which a tensor lies."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # sparse and other tensors without memory of their own
        return -id(tensor)


def geometry(tensor: Tensor) -> Geometry:
    """Where a tensor lies in its memory."""
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())


class Memory:
    """The pieces that were written into each storage, in order: the number on the tape, None for constants, and where.

    `written` has them by storage. A view is stale when its memory was written after it was last read.
    """

    def __init__(self) -> None:
        self.written: dict[int, list[tuple[int | None, Geometry]]] = {}
        self._versions: dict[int, int] = {}
        self._read: Any = WeakTensorKeyDictionary()
        self._alive: list[Tensor] = []
        self._holders: dict[int, list[tuple[list[Any], int]]] = {}
        self._indexed = 0

    def is_stale(self, tensor: Tensor) -> bool:
        """Whether a tensor's memory was written since it was last read."""
        version = self._versions.get(storage(tensor))
        return version is not None and self._read.get(tensor) != version

    def refresh(self, tensor: Tensor) -> None:
        """Marks a tensor as read."""
        self._read[tensor] = self._versions.get(storage(tensor), 0)

    def write(self, tensor: Tensor, number: int | None, owner: tuple[Tensor, int] | None) -> None:
        """Notes that a tensor was written; `owner` is what the memory held at first, where that depends on the input."""
        key = storage(tensor)
        if key not in self.written:
            self._alive.append(tensor)  # or else another storage could get its key
            self.written[key] = [] if owner is None else [(owner[1], geometry(owner[0]))]
        if tensor.numel() == self.size(tensor) and tensor.is_contiguous():
            self.written[key].clear()
        self.written[key].append((number, geometry(tensor)))
        self._versions[key] = self._versions.get(key, 0) + 1
        self.refresh(tensor)

    @staticmethod
    def size(tensor: Tensor) -> int:
        """How many numbers of the tensor's type its memory holds."""
        return tensor.untyped_storage().nbytes() // tensor.element_size()

    def keep(self, tensor: Tensor, tape: list[Any]) -> None:
        """Puts copies on the tape in place of all tensors in the memory that is about to be written."""
        for operation in tape[self._indexed :]:
            for leaves in (operation.arguments, operation.outputs):
                for position, leaf in enumerate(leaves):
                    if isinstance(leaf, Tensor) and not leaf.is_meta:
                        self._holders.setdefault(storage(leaf), []).append((leaves, position))
        self._indexed = len(tape)
        copies: dict[int, Tensor] = {}
        for leaves, position in self._holders.pop(storage(tensor), []):
            leaf = leaves[position]
            if id(leaf) not in copies:
                copies[id(leaf)] = torch.clone(leaf)
            leaves[position] = copies[id(leaf)]
