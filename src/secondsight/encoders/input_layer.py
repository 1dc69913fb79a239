"""The model-ready input itself as a layer: pixels of an image, bins of a spectrogram, token embeddings of a text."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from secondsight.algebra.layout import Layout, SpectrogramLayout
from secondsight.encoders.base import Context, Encoder, Head, Reference, States
from secondsight.inputs.images import grid_layout
from secondsight.inputs.prepared import Duration, Placement, Prepared, Tokenized
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import answering, observing


class InputEncoder(Encoder):
    """Another encoder seen from its input, which is its only layer.

    Positions are pixels (channels are the width), spectrogram bins, or tokens, whose width is that of the embedding
    table: positions, norms and whatever else the model adds to it come after.
    """

    depth = 1

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.kind, self.references = encoder, encoder.kind, encoder.references
        self.module: nn.Module = encoder.module
        self.reads_tokens = encoder.kind == "text"
        # Whether the table is asked for the ids themselves, so that a reference's need no pass of the model.
        self._plain_lookup = False

    def label(self, layer: int) -> str:
        """The name of the only layer."""
        return "input"

    def in_precision(self, dtype: torch.dtype, module: nn.Module | None = None) -> Any:
        """The copy of the encoder itself, which is shared."""
        return self.encoder.in_precision(dtype, module)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """As the encoder itself."""
        return self.encoder.prepare(raw, truncate=truncate)

    def reference(self, prepared: Prepared, choice: str | Tensor | None, seed: int) -> Tensor:
        """As the encoder itself."""
        return self.encoder.reference(prepared, choice, seed)

    def reference_key(self, context: Context) -> Hashable:
        """The token ids, on which masks and pooling depend; for other kinds the shape is enough."""
        shape = tuple(context.tensor.shape)
        return (shape, context.tensor.cpu().numpy().tobytes()) if self.reads_tokens else shape

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """The inputs themselves, or their token embeddings."""
        tensors = self.to_model(tensors)
        if self.reads_tokens:
            # Both in one pass of the model, unless its precisions differ: then a copy has the table.
            states: list[States] = []
            table = self._table(self._weights_or_default())
            lookups = self._lookups(lambda: states.extend(self.encoder.features(tensors, self.encoder.depth - 1)))
            hidden = self._embedded(tensors) if lookups is None else lookups
            self._plain_lookup = type(table) is nn.Embedding and torch.equal(table(tensors), hidden)
        else:
            states, hidden = self.encoder.features(tensors, self.encoder.depth - 1), self._pixels(tensors)
        return [
            States(row, state.embedding, Context(tensor[None], tuple(tensor.shape)))
            for row, state, tensor in zip(hidden.to(self.dtype()), states, tensors, strict=True)
        ]

    def reference_features(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """The reference or its token embeddings; its embedding is that of the head, under the token ids of the input."""
        # Token ids also say where the model pools and what it masks, which must be as for the input.
        tensor = self.to_model(tensor)
        hidden = self._embedded(tensor) if self.reads_tokens else self._pixels(tensor)
        return Reference(hidden.to(self.dtype())[0], None)

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The whole model from its input on."""
        encode = self.encoder.from_input(dtype)
        if not self.reads_tokens:
            if len(context.shape) == 3:
                return lambda x: encode(x.mT.unflatten(2, context.shape[1:]))
            return lambda x: encode(x.mT if self.encoder.channels_first else x)
        table, ids = self._table(dtype), context.tensor

        def head(x: Tensor) -> Tensor:
            with answering(table, x):
                return encode(ids.expand(len(x), -1))

        return head

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Every pixel, bin or token."""
        size, shape, source = len(states.hidden), states.context.shape, prepared.source
        if isinstance(source, Tokenized) and len(source.tokens) == size:
            return source.layout(size)
        if isinstance(source, Placement):
            return grid_layout(source, (shape[1], shape[2]), {})
        if self.kind == "audio":
            frames, bands = shape[1], shape[2]
            cells = tuple(band * frames + frame for frame in range(frames) for band in range(bands))
            seconds = source.seconds if isinstance(source, Duration) else 0.0
            return SpectrogramLayout(size, {}, (bands, frames), cells, seconds)
        return Layout(size)

    def _pixels(self, tensors: Tensor) -> Tensor:
        """(batch, position, width) of model-ready pixels or bins."""
        if tensors.ndim not in (3, 4):
            raise InputError(f"inputs {tuple(tensors.shape[1:])} of {self.kind} have no positions: use layer=0")
        return tensors.flatten(2).mT if tensors.ndim == 4 or self.encoder.channels_first else tensors

    def _lookups(self, run: Callable[[], object]) -> Tensor | None:
        """The token embeddings (batch, position, width) that the model looks up while `run` uses it, if it does."""
        lookups: list[Tensor] = []

        def copy_lookup(output: object) -> None:
            # Models may add positions to the embeddings in place.
            if isinstance(output, Tensor) and not lookups:
                lookups.append(output.clone())

        with observing(self._table(self._weights_or_default()), copy_lookup):
            run()
        return lookups[0] if lookups and lookups[0].ndim == 3 else None

    def _embedded(self, tensor: Tensor) -> Tensor:
        """The token embeddings (1, position, width) of a reference."""
        dtype = self._weights_or_default()
        if self._plain_lookup:
            embedded: Tensor = self._table(dtype)(tensor)
            return embedded
        encode = self.encoder.from_input(dtype)
        lookups = self._lookups(lambda: encode(tensor))
        if lookups is None:
            raise AdapterError(f"the {self.kind} model never looked up its token embeddings")
        return lookups

    def _weights_or_default(self) -> torch.dtype:
        return self.weights_dtype() or torch.float32

    def _table(self, dtype: torch.dtype) -> nn.Module:
        table = self.encoder.token_embedding(dtype)
        if table is None:
            raise InputError(
                f"this {self.kind} encoder does not say where its token embeddings are: use layer=0, the first block's input"
            )
        return table


def at_layer(encoder: Encoder, layer: object) -> tuple[Encoder, int]:
    """The encoder to ask for a layer, and the layer as 0 … depth − 1: "input" and "output" are layers of their own."""
    if layer == "grounded":
        layer = encoder.grounded_layer()
    if layer != "input" and layer != "output":
        return encoder, encoder.resolve(layer)
    if layer not in encoder.ends:
        encoder.ends[layer] = InputEncoder(encoder) if layer == "input" else encoder.output_encoder()
    return encoder.ends[layer], 0
