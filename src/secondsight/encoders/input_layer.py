"""The model-ready input itself as a layer: pixels of an image, bins of a spectrogram, token embeddings of a text."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from secondsight.algebra.layout import Layout, SpectrogramLayout
from secondsight.encoders.base import Context, Encoder, Head, Reference, States
from secondsight.inputs.images import grid_layout
from secondsight.inputs.prepared import Prepared
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import answering


class InputEncoder(Encoder):
    """Another encoder seen from its input, which is its only layer.

    Positions are pixels (channels are the width), spectrogram bins, or tokens, whose width is that of the embedding
    table: positions, norms and whatever else the model adds to it come after.
    """

    depth = 1

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.kind, self.module, self.references = (
            encoder,
            encoder.kind,
            encoder.module,
            encoder.references,
        )
        self.of_tokens = encoder.kind == "text"

    def label(self, layer: int) -> str:
        """The only layer's name."""
        return "input"

    def in_precision(self, dtype: torch.dtype, module: Any = None) -> Any:
        """As the encoder itself, whose copy is shared."""
        return self.encoder.in_precision(dtype, module)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """As the encoder itself."""
        return self.encoder.prepare(raw, truncate=truncate)

    def reference(self, prepared: Prepared, which: Any, seed: int) -> Tensor:
        """As the encoder itself."""
        return self.encoder.reference(prepared, which, seed)

    def pooling(self, context: Context) -> Hashable:
        """Tokens pool as the encoder does; anything else is all there is."""
        tensor: Tensor = context.tensor
        return (tuple(tensor.shape), tensor.cpu().numpy().tobytes()) if self.of_tokens else tuple(tensor.shape)

    def _table(self, dtype: torch.dtype) -> Any:
        table = self.encoder.token_embedding(dtype)
        if table is None:
            raise InputError(
                f"this {self.kind} encoder does not say where its token embeddings are: use layer=0, the first block's input"
            )
        return table

    def _hidden(self, tensors: Tensor) -> Tensor:
        if not self.of_tokens:
            if tensors.ndim not in (3, 4):
                raise InputError(f"inputs {tuple(tensors.shape[1:])} of {self.kind} have no positions: use layer=0")
            return tensors.flatten(2).mT if tensors.ndim == 4 else tensors
        found: list[Tensor] = []
        table = self._table(self._own())
        handle = table.register_forward_hook(lambda _, __, output: found.append(output.clone()))
        try:
            self.encoder.from_input(self._own())(tensors)
        finally:
            handle.remove()
        if not found or found[0].ndim != 3:
            raise AdapterError(f"the {self.kind} model never looked up its token embeddings")
        return found[0]

    def _own(self) -> torch.dtype:
        return next((p.dtype for p in self.module.parameters() if p.dtype.is_floating_point), torch.float32)

    def reference_features(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """The reference or its token embeddings; its embedding is the head's, under the input's token ids."""
        # Token ids also say where the model pools and what it masks, which must be as for the input.
        hidden = self._hidden(self._ready(tensor)).to(self.dtype())
        return Reference(hidden[0], self.head(0, context, self.dtype())(hidden)[0])

    def _ready(self, tensors: Tensor) -> Tensor:
        return tensors.to(self.device(), self._own() if tensors.is_floating_point() else None)

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """The inputs themselves, or their token embeddings."""
        tensors = self._ready(tensors)
        hidden = self._hidden(tensors).to(self.dtype())
        made = self.encoder.features(tensors, self.encoder.depth - 1)
        contexts = [Context(t[None], tuple(t.shape)) for t in tensors]
        return [States(h, s.embedding, c) for h, s, c in zip(hidden, made, contexts, strict=True)]

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The whole model from its input on."""
        whole = self.encoder.from_input(dtype)
        if not self.of_tokens:
            return lambda x: whole(x.mT.unflatten(2, context.shape[1:]) if len(context.shape) == 3 else x)
        table, ids = self._table(dtype), context.tensor

        def head(x: Tensor) -> Tensor:
            with answering(table, x):
                return whole(ids.expand(len(x), -1))

        return head

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Every pixel, bin or token."""
        size, shape = len(states.hidden), states.context.shape
        if self.of_tokens:
            place = prepared.place
            return place.layout(size) if place is not None and len(place.tokens) == size else Layout(size)
        if self.kind == "image" and prepared.place is not None:
            return grid_layout(prepared.place, (shape[1], shape[2]), {})
        if self.kind == "audio":
            frames, bands = shape[1], shape[2]
            cells = tuple(band * frames + frame for frame in range(frames) for band in range(bands))
            return SpectrogramLayout(size, {}, (bands, frames), cells, float(prepared.place or 0.0))
        return Layout(size)


def at_layer(encoder: Encoder, layer: Any) -> tuple[Encoder, int]:
    """The encoder to ask for a layer, and the layer as 0 … depth − 1: "input" is a layer of its own."""
    if layer != "input":
        return encoder, encoder.resolve(layer)
    if encoder.input_encoder is None:
        encoder.input_encoder = InputEncoder(encoder)
    return encoder.input_encoder, 0
