"""Any differentiable module as an encoder: name a layer, or give the functions below and above it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secondsight.algebra.layout import Layout, TokenLayout
from secondsight.encoders.base import Context, Encoder, Head, States
from secondsight.inputs.images import IMAGE_REFERENCES, ImageInput, Preprocess, grid_layout
from secondsight.inputs.prepared import Prepared
from secondsight.inputs.texts import TEXT_REFERENCES, Tokenized, check_ids, text_reference
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import capturing, replacing


class _Functions(nn.Module):
    """Holds the modules that a user's plain functions belong to, if any, so that they are guarded like any model."""

    def __init__(self, parts: Sequence[Any]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([p for p in parts if isinstance(p, nn.Module)])


class TorchEncoder(Encoder):
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

    def __init__(
        self,
        module: nn.Module | None = None,
        layers: Sequence[str | nn.Module] | str | nn.Module = (),
        *,
        features: Callable[[Tensor], Tensor] | None = None,
        head: Callable[[Tensor], Tensor] | None = None,
        kind: str = "image",
        preprocess: Preprocess | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        tokenizer: Callable[[str], dict[str, Any]] | None = None,
        padding: int | None = None,
        reference: Callable[[Tensor], Tensor] | None = None,
        grid: tuple[int, int] | None = None,
        prefix: int = 0,
    ) -> None:
        super().__init__()
        layers = [layers] if isinstance(layers, (str, nn.Module)) else list(layers)
        if (features is None) != (head is None):
            raise InputError("features= and head= belong together: give both, or a module with layers=")
        if features is None and (module is None or not layers):
            raise InputError("TorchEncoder needs a module with layers=, or features= and head=")
        if features is not None and layers:
            raise InputError("give either layers= or features= and head=, not both")
        self.kind, self.host, self._features, self._head = kind, module, features, head
        self.module = _Functions([module, features, head])
        self.layers = [_find(module, layer) for layer in layers] if module is not None else []
        self.depth = len(self.layers) or 1
        named = {"image": IMAGE_REFERENCES, "text": () if padding is None else TEXT_REFERENCES}
        self.references = named.get(kind, ())
        assumed = preprocess is None and mean is None
        self.images = ImageInput(preprocess, mean, std, assumed=assumed) if kind == "image" else None
        self.tokenizer, self.padding, self.own_reference = tokenizer, padding, reference
        self.grid, self.prefix = grid, prefix

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
        made = self.tokenizer(raw)
        return Prepared(check_ids(made["ids"]), raw, _tokenized(raw, made))

    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Hidden states for a batch, each with its own input as context."""
        tensors = tensors.to(self.device())
        if self._features is not None and self._head is not None:
            hidden = _tensor(self._features(tensors), "features")
            out = (self.host or self._head)(tensors if self.host is not None else hidden)
        else:
            assert self.host is not None  # the constructor made sure
            seen: dict[str, Any] = {}
            host = self.host
            with capturing(self.layers[layer], seen):
                out = host(tensors)
            if not seen.get("args"):
                raise AdapterError(f"layer {layer} was not called with a positional tensor when the module ran")
            hidden = _tensor(seen["args"][0], f"the input of layer {layer}")
        out = _tensor(out, "the module")
        if out.ndim != 2 or len(out) != len(tensors):
            raise AdapterError(
                f"the module gave {tuple(out.shape)} for {len(tensors)} inputs: (batch, joint) is needed"
            )
        if hidden.ndim not in (3, 4) or len(hidden) != len(tensors):
            raise AdapterError(
                f"hidden states {tuple(hidden.shape)} of {len(tensors)} inputs are neither (batch, position, width) nor "
                "(batch, width, rows, columns)"
            )
        shape = tuple(hidden.shape[1:])
        flat = hidden.flatten(2).mT if hidden.ndim == 4 else hidden
        dtype = self.dtype()
        return [
            States(h.to(dtype).clone(), e.to(dtype), Context(t[None], shape))
            for h, e, t in zip(flat, out, tensors, strict=True)
        ]

    def pooling(self, context: Context) -> Hashable:
        """The shape of the hidden states; the input itself stays out of it."""
        return context.shape

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The user's head, or the whole module with the layer's input put in place of its own."""
        shape, tensor = context.shape, context.tensor
        own = next((p.dtype for p in self.module.parameters() if p.dtype.is_floating_point), dtype)
        if own != dtype:
            raise InputError(f"a TorchEncoder in {own} cannot be decomposed in {dtype}: use model.float()")

        def head(x: Tensor) -> Tensor:
            hidden = x.mT.unflatten(2, shape[1:]) if len(shape) == 3 else x
            if self._head is not None:
                return self._head(hidden)
            assert self.host is not None  # the constructor made sure
            with replacing(self.layers[layer], hidden):
                out: Tensor = self.host(tensor.expand(len(x), *tensor.shape[1:]))
            return out

        return head

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The module, or the user's features and head one after the other."""
        if self.host is not None:
            return self.host
        below, above = self._features, self._head
        assert below is not None  # the constructor made sure
        assert above is not None
        return lambda tensors: above(below(tensors))

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """The user's reference, a named one of the kind, or the given tensor."""
        if which is None and self.own_reference is not None:
            return self.own_reference(prepared.tensor)
        if self.images is not None:
            return self.images.reference(prepared, which, seed)
        if isinstance(which, Tensor):
            return which
        if self.kind == "text" and self.padding is not None:
            end = prepared.tensor.shape[1] - 1
            return text_reference(prepared.tensor, which, keep=(0, end), padding=self.padding)
        raise InputError(f"this {self.kind} encoder has no usual reference: pass reference= to it or to the method")

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """A grid where it is known, the tokens where they match, else plain features."""
        shape = states.context.shape
        size = len(states.hidden)
        special = dict.fromkeys(range(self.prefix), "prefix")
        grid = (shape[1], shape[2]) if len(shape) == 3 else self.grid
        if self.kind == "image" and grid is not None:
            return grid_layout(prepared.place, grid, special)
        if isinstance(prepared.place, Tokenized) and len(prepared.place.tokens) == size:
            layout: TokenLayout = prepared.place.layout(size)
            return layout
        return Layout(size, special)


def _find(module: nn.Module, layer: str | nn.Module) -> nn.Module:
    if isinstance(layer, nn.Module):
        if not any(m is layer for m in module.modules()):
            raise InputError(f"the given layer {type(layer).__name__} is not a part of the module")
        return layer
    try:
        return module.get_submodule(layer)
    except AttributeError as problem:
        known = ", ".join(name for name, _ in module.named_modules() if name and name.count(".") < 2)
        raise InputError(f"the module has no part {layer!r}; it has {known[:300]}") from problem


def _tensor(value: Any, named: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise AdapterError(f"{named} gave {type(value).__name__}, not a tensor: wrap it in a function that picks one")
    return value


def _tokenized(text: str | None, made: dict[str, Any]) -> Tokenized:
    ids: Tensor = made["ids"]
    size = ids.shape[-1]
    tokens = tuple(made.get("tokens") or [str(int(i)) for i in ids.flatten()])
    offsets = tuple(made.get("offsets") or (None,) * size)
    known = text if any(o is not None for o in offsets) else None
    return Tokenized(known, tokens, offsets, dict(made.get("special") or {}))
