"""Any differentiable module as an encoder: name its layers, or give the functions below and above one layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import Context, Head, States
from secondsight.encoders.host import HostEncoder, checked_embeddings
from secondsight.inputs.images import IMAGE_REFERENCES, ImageInput, Preprocess, grid_layout
from secondsight.inputs.prepared import Prepared, Tokenized
from secondsight.inputs.texts import TEXT_REFERENCES, check_ids, text_reference
from secondsight.support.errors import InputError

Function = Callable[[Tensor], Tensor]


class _Step(nn.Module):
    """A function, or a module, as a module of its own: its input can be captured."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Composition(nn.Module):
    """Features and head one after the other, and the module that they describe where the user gave it."""

    def __init__(self, features: Function, head: Function, described: nn.Module | None) -> None:
        super().__init__()
        self.features, self.head, self.described = _Step(features), _Step(head), described

    def forward(self, x: Tensor) -> Tensor:
        embeddings: Tensor = self.head(self.features(x))
        return embeddings


class TorchEncoder(HostEncoder):
    """An encoder around any differentiable module, as one side of `DualEncoder`.

    Either `module` (tensor → (batch, joint)) with `layers`, names of submodules (or themselves) whose *input* is
    attributed, in the order of the forward pass: layer L is the input of `layers[L]`. Or `features` (tensor → hidden
    states) and `head` (hidden states → (batch, joint)), which make one layer; give `module` too and their composition is
    checked against it. Hidden states are (batch, position, width), or (batch, width, rows, columns) from convolutions.

    `kind` "image": inputs are (1, 3, H, W) pixels, or anything `preprocess` turns into one; positions beyond
    `prefix` special ones fill `grid` (rows, columns), read from convolutions. `kind` "text": inputs are (1, length)
    token ids; `tokenizer` maps a string to a dictionary with "ids" (1, length) and optionally "tokens", "offsets",
    "special" (position → name). Other kinds take tensors only. `reference` maps an input tensor to its reference;
    images default to black, texts to `padding` between the first and last token.

    A description that leaves something out fails with `AdapterError` when it is used: the layer's hidden states must
    determine the embedding alone.
    """

    # Between the layers that a user names anything may happen, and after the last one too.
    chained = False
    output_suffices = False

    def __init__(
        self,
        module: nn.Module | None = None,
        layers: Sequence[str | nn.Module] | str | nn.Module = (),
        *,
        features: Function | None = None,
        head: Function | None = None,
        kind: str = "image",
        preprocess: Preprocess | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        tokenizer: Callable[[str], Mapping[str, Any]] | None = None,
        padding: int | None = None,
        reference: Function | None = None,
        grid: tuple[int, int] | None = None,
        prefix: int = 0,
    ) -> None:
        layers = [layers] if isinstance(layers, (str, nn.Module)) else list(layers)
        self._paths = ["head"]
        if features is not None and head is not None:
            if layers:
                raise InputError("give either layers= or features= and head=, not both")
            host: nn.Module = _Composition(features, head, module)
        elif features is not None or head is not None:
            raise InputError("features= and head= belong together: give both, or a module with layers=")
        elif module is None or not layers:
            raise InputError("TorchEncoder needs a module with layers=, or features= and head=")
        else:
            host, self._paths = module, [_path(module, layer) for layer in layers]
        super().__init__(host)
        self.kind = kind
        self.references = {"image": IMAGE_REFERENCES, "text": () if padding is None else TEXT_REFERENCES}.get(kind, ())
        assumed = preprocess is None and mean is None
        self.images = ImageInput(preprocess, mean, std, assumed=assumed) if kind == "image" else None
        self.tokenizer, self.padding, self.make_reference = tokenizer, padding, reference
        self.grid, self.prefix = grid, prefix

    def blocks(self, module: nn.Module) -> Sequence[nn.Module]:
        """The layers that the user named, or the head."""
        return [module.get_submodule(path) for path in self._paths]

    def encode(self, module: nn.Module, tensors: Tensor) -> Tensor:
        """The module's own embeddings."""
        embeddings: Tensor = module(tensors)
        return embeddings

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Hidden states for a batch, and the embeddings of the module that features and head describe."""
        states = super().features(tensors, layer)
        described = self.module.described if isinstance(self.module, _Composition) else None
        if described is None:
            return states
        embeddings = checked_embeddings(described(self.to_model(tensors)), len(tensors)).to(self.dtype())
        return [States(s.hidden, row, s.context) for s, row in zip(states, embeddings, strict=True)]

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The user's head, or the whole module with the layer's input replaced."""
        if not isinstance(self.module, _Composition):
            return super().head(layer, context, dtype)
        weights = self.weights_dtype()
        if weights not in (None, dtype):
            # Functions may hold weights that cannot be found and copied.
            raise InputError(f"a TorchEncoder in {weights} cannot be decomposed in {dtype}: use model.float()")
        run, shape = self.module.head, context.shape
        return lambda x: run(x.mT.unflatten(2, shape[1:]) if len(shape) == 3 else x)

    def from_input(self, dtype: torch.dtype) -> Function:
        """The module, or the user's features and head one after the other."""
        described = self.module.described if isinstance(self.module, _Composition) else None
        return described if described is not None else super().from_input(dtype)

    def reference_key(self, context: Context) -> Hashable:
        """The shape of the hidden states."""
        return context.shape

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A model-ready tensor as it is, anything else through `preprocess` or `tokenizer`."""
        if self.images is not None:
            return self.images.prepare(raw)
        if isinstance(raw, Tensor):
            if self.kind != "text":
                return Prepared(raw, None, None)
            ids = check_ids(raw)
            return Prepared(ids, None, _tokenized(None, {"ids": ids}))
        if self.kind != "text" or self.tokenizer is None:
            raise InputError(f"this {self.kind} encoder takes tensors only, not {type(raw).__name__}")
        encoding = self.tokenizer(raw)
        return Prepared(check_ids(encoding["ids"]), raw, _tokenized(raw, encoding))

    def reference(self, prepared: Prepared, choice: str | Tensor | None, seed: int) -> Tensor:
        """The user's reference, a named one of the kind, or the given tensor."""
        if choice is None and self.make_reference is not None:
            return self.make_reference(prepared.tensor)
        if self.images is not None:
            return self.images.reference(prepared, choice, seed)
        if isinstance(choice, Tensor):
            return choice
        if self.kind == "text" and self.padding is not None:
            end = prepared.tensor.shape[1] - 1
            return text_reference(prepared.tensor, choice, keep=(0, end), padding=self.padding)
        raise InputError(f"this {self.kind} encoder has no usual reference: pass reference= to it or to the method")

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """A grid where it is known, the tokens where they match, else plain features."""
        shape, size, source = states.context.shape, len(states.hidden), prepared.source
        special = dict.fromkeys(range(self.prefix), "prefix")
        grid = (shape[1], shape[2]) if len(shape) == 3 else self.grid
        if self.kind == "image" and grid is not None:
            return grid_layout(prepared.placement, grid, special)
        if isinstance(source, Tokenized) and len(source.tokens) == size:
            return source.layout(size)
        return Layout(size, special)


def _path(module: nn.Module, layer: str | nn.Module) -> str:
    """The name of a layer within the module; `InputError` where it is not a part of it."""
    if isinstance(layer, nn.Module):
        for path, part in module.named_modules():
            if part is layer:
                return path
        raise InputError(f"the given layer {type(layer).__name__} is not a part of the module")
    try:
        module.get_submodule(layer)
    except AttributeError as problem:
        names = ", ".join(name for name, _ in module.named_modules() if name and name.count(".") < 2)
        raise InputError(f"the module has no part {layer!r}; it has {names[:300]}") from problem
    return layer


def _tokenized(text: str | None, encoding: Mapping[str, Any]) -> Tokenized:
    ids: Tensor = encoding["ids"]
    tokens = tuple(encoding.get("tokens") or [str(int(i)) for i in ids.flatten()])
    offsets = tuple(encoding.get("offsets") or (None,) * ids.shape[-1])
    located = any(offset is not None for offset in offsets)
    return Tokenized(text if located else None, tokens, offsets, dict(encoding.get("special") or {}))
