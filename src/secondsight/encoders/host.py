"""Encoders whose head is the host model itself, run with a block's input replaced.

Masks, rotary positions, pooling, projections and whatever else a library does are then exact without being described.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secondsight.encoders.base import ATTENTION_POOL, Context, Encoder, Head, Reference, States
from secondsight.paths.pooled import PooledBlock
from secondsight.paths.tails import Chain, Function
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import capturing, observing, replacing, skipping


class Parts(nn.Module):
    """Some modules and parameters of a larger model, by name: guarding them need not walk the rest of it."""

    def __init__(self, **parts: nn.Module | Tensor | None) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif isinstance(part, nn.Parameter):
                self.register_parameter(name, part)
            else:
                self.register_buffer(name, part)

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)


def first_tensor(output: Any) -> Tensor:
    """The output of a module, or its first part where it returns several."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def outputs_of(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect copies of what blocks return, in the order of their calls."""
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(observing(block, lambda output: outputs.append(first_tensor(output).clone())))
        yield outputs


class HostEncoder(Encoder):
    """An encoder made of a host module: say what embeds and which blocks follow one another.

    `contextual` says that what follows the embedded input depends on the input in other ways too (attention masks,
    pooled positions), as in texts: references are then run under the context of their input. `chained` says that every
    block takes the output of the one before it, so that the blocks below a layer need not run. `channels_last` says that
    feature maps are (batch, rows, columns, width). `output_suffices` says that what follows the last block reads nothing
    but its output. `kept` is how many dimensions of the embeddings are kept; None keeps all.
    """

    contextual = False
    chained = True
    channels_last = False
    output_suffices = True
    kept: int | None = None

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.depth = len(self.blocks(module))
        # Of the first and the last block: the length of the tuple that it returns, None where it returns a tensor.
        self._tuple_lengths: tuple[int | None, int | None] | None = None

    @abstractmethod
    def encode(self, module: Any, tensors: Tensor) -> Tensor:
        """The module's embeddings (batch, joint) of model-ready tensors, not normalised."""

    @abstractmethod
    def blocks(self, module: Any) -> Sequence[nn.Module]:
        """The module's blocks, in the order of the forward pass; the last one may be an attention pool."""

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The host from model-ready tensors to embeddings, in `dtype`."""
        module = self.in_precision(dtype)
        return lambda tensors: self._kept(self.encode(module, tensors))

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Hidden states for a batch, each with its own input as context."""
        tensors = self.to_model(tensors)
        hidden, embeddings = self._run(tensors, layer)
        dtype = self.dtype()
        return [
            States(row, embedding.to(dtype), Context(tensor[None], tuple(states.shape)))
            for row, states, embedding, tensor in zip(self._rows(hidden), hidden, embeddings, tensors, strict=True)
        ]

    def features_of_blocks(self, tensor: Tensor) -> tuple[States, list[Tensor]]:
        """See `Encoder.features_of_blocks`."""
        blocks = list(self.blocks(self.module))[: self.depth - (self.pool == ATTENTION_POOL)]
        tensor = self.to_model(tensor)
        with outputs_of(blocks) as outputs:
            states = self.features(tensor, self.depth - 1)[0]
        return states, [self._rows(self._from_host(output, self.depth, tensor))[0] for output in outputs]

    def reference_features(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """The reference's hidden states; those of a `contextual` encoder under the masks and pooling of the input."""
        if not self.contextual:
            return super().reference_features(tensor, layer, context)
        embedded, _ = self._run(self.to_model(tensor), 0)
        with replacing(self.blocks(self.module)[0], self._as_in_host(embedded, 0, context.tensor)):
            # The hook that replaces is registered first, so the hook of `_run` sees the replacement.
            hidden, embeddings = self._run(context.tensor, layer)
        return Reference(self._rows(hidden)[0], embeddings[0].to(self.dtype()))

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The host run with the layer's input replaced; at `depth` all blocks pass it on."""
        module = self.in_precision(dtype)
        blocks = self.blocks(module)
        last = self.depth - 1
        if self._tuple_lengths is None:
            self._run(context.tensor, 0)
        assert self._tuple_lengths is not None  # noted by every run
        first_length, last_length = self._tuple_lengths
        below = blocks[: min(layer, last)] if self.chained else []
        tensor = context.tensor.to(dtype) if context.tensor.is_floating_point() else context.tensor

        def head(x: Tensor) -> Tensor:
            hidden = x.mT.unflatten(2, context.shape[1:]) if len(context.shape) == 3 else x
            with ExitStack() as stack:
                stack.enter_context(skipping(below, first_length))
                if layer == self.depth:
                    stack.enter_context(skipping(blocks[-1:], last_length))
                stack.enter_context(replacing(blocks[min(layer, last)], self._as_in_host(hidden, layer, tensor)))
                return self._kept(self.encode(module, tensor.expand(len(x), *tensor.shape[1:])))

        return head

    def head_of_blocks(self, context: Context, dtype: torch.dtype) -> Head:
        """See `Encoder.head_of_blocks`; a norm before an attention pool is part of it."""
        if self.pool != ATTENTION_POOL:
            return super().head_of_blocks(context, dtype)
        module = self.in_precision(dtype)
        *blocks, _ = self.blocks(module)
        length = None if self._tuple_lengths is None else self._tuple_lengths[0]
        tensor = context.tensor.to(dtype) if context.tensor.is_floating_point() else context.tensor

        def head(x: Tensor) -> Tensor:
            with skipping(blocks, length), replacing(blocks[-1], self._as_in_host(x, self.depth - 1, tensor)):
                return self._kept(self.encode(module, tensor.expand(len(x), *tensor.shape[1:])))

        return head

    def _run(self, tensors: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Hidden states entering a block, feature maps as (batch, width, rows, columns), and the embeddings."""
        if layer == self.depth and (not self.output_suffices or self.pool == ATTENTION_POOL):
            raise InputError(
                f"this {self.kind} encoder does not say where its last hidden states are: use IntegratedJacobian"
            )
        blocks = self.blocks(self.module)
        arguments: dict[str, Any] = {}
        lengths: dict[int, int | None] = {}
        outputs: list[Any] = []

        def note_first(output: Any) -> None:
            lengths[0] = len(output) if isinstance(output, tuple) else None

        def note_last(output: Any) -> None:
            lengths[-1] = len(output) if isinstance(output, tuple) else None
            if layer == self.depth and not outputs:
                outputs.append(first_tensor(output).clone())

        block = blocks[min(layer, self.depth - 1)]
        with capturing(block, arguments), observing(blocks[0], note_first), observing(blocks[-1], note_last):
            embeddings = self._kept(self.encode(self.module, tensors))
        if "args" not in arguments:
            raise AdapterError(
                f"the {self.kind} model never called its block {layer}: a scripted or exported model cannot be explained"
            )
        self._tuple_lengths = lengths.get(0), lengths.get(-1)
        inputs = (*arguments["args"], *arguments["kwargs"].values())
        hidden = outputs[0] if outputs else inputs[0]
        if isinstance(hidden, Tensor):
            hidden = self._from_host(hidden, layer, tensors)
        return _checked_hidden(hidden, len(tensors)), checked_embeddings(embeddings, len(tensors))

    def _from_host(self, hidden: Tensor, layer: int, tensors: Tensor) -> Tensor:
        """Hidden states that a block took, as (batch, position, width) or (batch, width, rows, columns).

        `tensors` are the model-ready inputs, or one of the same shape.
        """
        return hidden.movedim(3, 1) if self.channels_last and hidden.ndim == 4 else hidden

    def _as_in_host(self, hidden: Tensor, layer: int, tensors: Tensor) -> Tensor:
        """The other way round."""
        return hidden.movedim(1, 3) if self.channels_last and hidden.ndim == 4 else hidden

    def closed_form(self, layer: int, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """See `Encoder.closed_form`."""
        block = super().closed_form(layer, context, dtype)
        if block is None or self.kept is None:
            return block
        return replace(block, tail=Chain([block.tail, Function(self._kept)]))

    def attention_block(self, dtype: torch.dtype) -> PooledBlock | None:
        """See `Encoder.attention_block`."""
        if self.pool == ATTENTION_POOL:
            return None
        # Blocks are described by their libraries' classes, of which not every model needs all.
        from secondsight.encoders.blocks import pooled_block

        return pooled_block(self.blocks(self.in_precision(dtype))[-1], 0, (), dtype)

    def _kept(self, embeddings: Tensor) -> Tensor:
        return embeddings if self.kept is None else embeddings[..., : self.kept]

    def _rows(self, hidden: Tensor) -> list[Tensor]:
        """Copies of hidden states as (position, width) for every input, in the decomposition's precision."""
        flat = hidden.flatten(2).mT if hidden.ndim == 4 else hidden
        return [row.to(self.dtype()).clone() for row in flat]


def shape_or_class(value: object) -> tuple[int, ...] | str:
    """What an error says of a value that should have been a tensor of another shape."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _checked_hidden(hidden: object, batch: int) -> Tensor:
    """The hidden states; `AdapterError` for another shape than the package can explain, and for token ids."""
    if isinstance(hidden, Tensor) and not hidden.is_floating_point():
        raise AdapterError(
            f"the layer takes {str(hidden.dtype).removeprefix('torch.')} numbers such as token ids, which have no derivative: "
            "name the module that takes their embeddings"
        )
    if not isinstance(hidden, Tensor) or hidden.ndim not in (3, 4) or len(hidden) != batch:
        raise AdapterError(
            f"hidden states {shape_or_class(hidden)} of {batch} inputs are neither (batch, position, width) nor "
            "(batch, width, rows, columns)"
        )
    return hidden


def checked_embeddings(embeddings: object, batch: int) -> Tensor:
    """The embeddings; `AdapterError` for anything but one row per input."""
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or len(embeddings) != batch:
        remedy = "" if isinstance(embeddings, Tensor) else ", from a module that picks it out of that"
        raise AdapterError(
            f"the module gave {shape_or_class(embeddings)} for {batch} inputs: (batch, joint) is needed{remedy}"
        )
    return embeddings
