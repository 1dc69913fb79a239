"""Any differentiable module as an encoder: name its layers, or give the functions below and above one layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import Context, Head, States
from secondsight.encoders.host import HostEncoder, checked_embeddings
from secondsight.encoders.wrappers import check_explainable, unwrapped_parts
from secondsight.inputs.images import IMAGE_REFERENCES, ImageInput, Preprocess, grid_layout
from secondsight.inputs.prepared import Prepared, Tokenized
from secondsight.inputs.texts import TEXT_REFERENCES, HubTokens, check_ids, text_reference, unpadded
from secondsight.support.errors import InputError

Function = Callable[[Tensor], Tensor]

_CHANNELS_FIRST = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d, nn.MaxPool1d, nn.AvgPool1d)
"""Modules that take (batch, width, position)."""


class _Step(nn.Module):
    """A function, or a module, as a module of its own: its input can be captured."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        # The module of a method takes part: it must be in evaluation mode too.
        self.owner = owner if isinstance(owner := getattr(function, "__self__", None), nn.Module) else None

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
    attributed, in the order of the forward pass: layer L is the input of `layers[L]`. What `torch.compile`, data
    parallelism or PEFT put around the module is taken off. Or `features` (tensor → hidden states) and `head` (hidden
    states → (batch, joint)), which make one layer; give `module` too and their composition is checked against it.

    Hidden states are (batch, position, width), or (batch, width, rows, columns) from convolutions. `channels_first` says
    that the former are (batch, width, position), and inputs such as point clouds too; by default it is read from the layers
    (`Conv1d` and the like take their channels first). `channels_last` says that the latter are (batch, rows, columns,
    width), as in Swin.

    `kind` "image": inputs are (1, 3, H, W) pixels, or anything `preprocess` turns into one; positions beyond
    `prefix` special ones fill `grid` (rows, columns), read from convolutions. `kind` "text": inputs are (1, length)
    token ids, or a tokenizer's output, whose padding is left out; `tokenizer` is one of transformers, or maps a string to
    a dictionary with "ids" or "input_ids" (1, length) and optionally "tokens", "offsets", "special" (position → name).
    Other kinds take tensors only. `reference` maps an input tensor to its reference; images default to black, texts to
    `padding` between the special tokens, or where these are not named between the first and last token.

    A description that leaves something out fails with `AdapterError` when it is used: the layer's hidden states must
    determine the embedding alone. What a text module reads in its token ids past the layer (masks, the position that it
    pools) is held as it is for the input.
    """

    # Between the layers that a user names anything may happen, and after the last one too.
    chained = False
    output_suffices = False
    _answers = False  # whether the module was ever called with one tensor and took it

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
        tokenizer: Callable[[str], Any] | None = None,
        padding: int | None = None,
        reference: Function | None = None,
        grid: tuple[int, int] | None = None,
        prefix: int = 0,
        channels_first: bool | None = None,
        channels_last: bool = False,
    ) -> None:
        for option, value, reader in (("tokenizer", tokenizer, "text"), ("preprocess", preprocess, "image")):
            if value is not None and kind != reader:
                raise InputError(
                    f"{option}= is for a {reader}, and kind is {kind!r}: say kind={reader!r}, or leave it out"
                )
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
            bare = unwrapped_parts(module)
            host, self._paths = bare[id(module)], [_path(module, layer, bare) for layer in layers]
            check_explainable(host)
        super().__init__(host)
        self._channels_first = [
            _takes_channels_first(block) if channels_first is None else channels_first for block in self.blocks(host)
        ]
        self.channels_first, self.channels_last = self._channels_first[0], channels_last
        self.kind, self.contextual = kind, kind == "text" and not isinstance(host, _Composition)
        self.tokens = _hub_tokens(tokenizer, padding) if kind == "text" else None
        fills = padding is not None or self.tokens is not None
        self.references = {"image": IMAGE_REFERENCES, "text": TEXT_REFERENCES if fills else ()}.get(kind, ())
        if isinstance(preprocess, (tuple, list)):
            # open_clip gives a transform for training and one for evaluation.
            preprocess = preprocess[-1]
        assumed = preprocess is None and mean is None
        self.images = ImageInput(preprocess, mean, std, assumed=assumed) if kind == "image" else None
        self.tokenizer, self.padding, self.make_reference = tokenizer, padding, reference
        self.grid, self.prefix = grid, prefix

    def blocks(self, module: nn.Module) -> Sequence[nn.Module]:
        """The layers that the user named, or the head."""
        return [module.get_submodule(path) for path in self._paths]

    def encode(self, module: nn.Module, tensors: Tensor) -> Tensor:
        """The module's own embeddings; `InputError` where it cannot be called with one tensor."""
        try:
            embeddings: Tensor = module(tensors)
        except (TypeError, KeyError, IndexError, AttributeError) as problem:
            if self._answers:
                raise
            call = "input_ids=x, attention_mask=torch.ones_like(x)" if self.kind == "text" else "x, …"
            raise InputError(
                f"{type(module).__name__} cannot be called with one tensor {tuple(tensors.shape)} ({problem}): give a module "
                f"whose forward(x) calls it as it needs, such as model({call})"
            ) from problem
        self._answers = True
        return embeddings

    def _from_host(self, hidden: Tensor, layer: int, tensors: Tensor) -> Tensor:
        """Positions before channels in a series, channels first in a map."""
        series = hidden.ndim == 3 and self._channels_first[layer]
        return hidden.mT if series else super()._from_host(hidden, layer, tensors)

    def _as_in_host(self, hidden: Tensor, layer: int, tensors: Tensor) -> Tensor:
        series = hidden.ndim == 3 and self._channels_first[layer]
        return hidden.mT if series else super()._as_in_host(hidden, layer, tensors)

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

        def head(x: Tensor) -> Tensor:
            hidden = x.mT.unflatten(2, shape[1:]) if len(shape) == 3 else x
            return run(self._as_in_host(hidden, layer, context.tensor))

        return head

    def from_input(self, dtype: torch.dtype) -> Function:
        """The module, or the user's features and head one after the other."""
        described = self.module.described if isinstance(self.module, _Composition) else None
        return described if described is not None else super().from_input(dtype)

    def reference_key(self, context: Context) -> Hashable:
        """The shape of the hidden states, and the token ids of texts, on which masks and pooling may depend."""
        return context.shape, context.tensor.cpu().numpy().tobytes() if self.contextual else b""

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A model-ready tensor as it is, anything else through `preprocess` or `tokenizer`."""
        if self.images is not None:
            return self.images.prepare(raw)
        if self.tokens is not None:
            return self.tokens.prepare(raw, truncate=truncate)
        if isinstance(raw, Tensor) and self.kind != "text":
            return Prepared(raw, None, None)
        if self.kind == "text" and isinstance(raw, (Tensor, Mapping)):
            return _prepared(None, raw)
        if self.kind != "text" or self.tokenizer is None:
            raise InputError(f"this {self.kind} encoder takes tensors only, not {type(raw).__name__}")
        return _prepared(raw, self.tokenizer(raw))

    def reference(self, prepared: Prepared, choice: str | Tensor | None, seed: int) -> Tensor:
        """The user's reference, a named one of the kind, or the given tensor."""
        if choice is None and self.make_reference is not None:
            return self.make_reference(prepared.tensor)
        if self.images is not None:
            return self.images.reference(prepared, choice, seed)
        if isinstance(choice, Tensor):
            return choice
        if self.tokens is not None:
            return self.tokens.reference(prepared, choice)
        if self.kind == "text" and self.padding is not None:
            named = [i for i, name in sorted(prepared.tokenized.special.items()) if name != "padding"]
            keep = named or (0, prepared.tensor.shape[1] - 1)
            return text_reference(prepared.tensor, choice, keep=keep, padding=self.padding)
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


def _path(module: nn.Module, layer: str | nn.Module, bare: Mapping[int, nn.Module]) -> str:
    """The name of a layer within the bare module; `InputError` where it is not a part of it."""
    inner = bare[id(module)]
    part = _named(module, layer) if isinstance(layer, str) else layer
    if part is None and isinstance(layer, str):
        part = _named(inner, layer)
    if part is None:
        names = ", ".join(name for name, _ in inner.named_modules() if name and name.count(".") < 2)
        raise InputError(f"the module has no part {layer!r}; it has {names[:300]}")
    part = bare.get(id(part), part)
    path = next((path for path, candidate in inner.named_modules() if candidate is part), None)
    if path is None:
        raise InputError(f"the given layer {type(layer).__name__} is not a part of the module")
    return path


def _named(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _takes_channels_first(block: nn.Module) -> bool:
    while isinstance(block, nn.Sequential) and len(block):
        block = block[0]
    return isinstance(block, _CHANNELS_FIRST)


def _hub_tokens(tokenizer: Any, padding: int | None) -> HubTokens | None:
    """How a tokenizer of transformers prepares texts; None for any other."""
    if not hasattr(tokenizer, "convert_ids_to_tokens"):
        return None
    return HubTokens(tokenizer, vocabulary=len(tokenizer), context=tokenizer.model_max_length, padding=padding)


def _prepared(text: str | None, encoding: Tensor | Mapping[str, Any]) -> Prepared:
    """A text's token ids, or what a tokenizer gave for it, without padding that it masks."""
    encoding = encoding if isinstance(encoding, Mapping) else {"ids": encoding}
    ids = encoding.get("ids", encoding.get("input_ids"))
    if ids is None:
        raise InputError(
            f"a tokenizer's output with {', '.join(encoding)} has no token ids: 'ids' or 'input_ids' is needed"
        )
    ids, mask = check_ids(torch.as_tensor(ids)), encoding.get("attention_mask")
    mask = None if mask is None else torch.as_tensor(mask)
    ids = unpadded({"input_ids": ids, "attention_mask": mask})
    return Prepared(ids, text, _tokenized(text, {**encoding, "ids": ids}))


def _tokenized(text: str | None, encoding: Mapping[str, Any]) -> Tokenized:
    ids: Tensor = encoding["ids"]
    tokens = tuple(encoding.get("tokens") or [str(int(i)) for i in ids.flatten()])
    offsets = tuple(encoding.get("offsets") or (None,) * ids.shape[-1])
    located = any(offset is not None for offset in offsets)
    source = Tokenized(text if located else None, tokens, offsets, dict(encoding.get("special") or {}))
    return source.cut(ids.shape[1])
