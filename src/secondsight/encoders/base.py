"""What an encoder supplies, and the pair of them that a dual encoder is."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.encoders.kinds import possible_kinds
from secondsight.engine.guard import first_not_finite, untouched
from secondsight.engine.pooled import PooledBlock
from secondsight.errors import InputError
from secondsight.layout import Layout
from secondsight.memory import enough

if TYPE_CHECKING:
    from secondsight.contributions import Contributions
    from secondsight.methods.base import Method

Head = Callable[[Tensor], Tensor]

ATTENTION_POOL = "attention pool"
"""The `pool` of encoders whose last block is one."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One input, ready for the model: a tensor with a batch axis of 1, what to show of it, and where its parts lie."""

    tensor: Tensor
    shown: Any
    place: Any


@dataclass(frozen=True, eq=False)
class States:
    """Hidden states (position, width) that enter a layer, in the decomposition's precision.

    `embedding` (joint,) is what the host model itself made of the input; None where it pools elsewhere than `context`
    says. `context` is whatever the encoder's head needs to know of the input (pooled position, attention mask).
    """

    hidden: Float[Tensor, "position width"]
    embedding: Float[Tensor, " joint"] | None
    context: Any


class Encoder(ABC):
    """One side of a dual encoder. Blocks count from 0 to `depth` − 1; layer L is the input of block L.

    `references` are the names that `reference` knows; `pool` says in words how the last block's positions become one
    embedding.
    """

    kind: str
    depth: int
    module: Any  # a torch.nn.Module; its parts are the family's business
    references: tuple[str, ...] = ()
    pool: str = "its own"

    def __init__(self) -> None:
        self._references: OrderedDict[tuple[Any, ...], tuple[States, dict[Any, Any]]] = OrderedDict()
        self._from_input: Encoder | None = None
        self._copies: dict[tuple[torch.dtype, int], tuple[int, Any]] = {}

    @abstractmethod
    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A raw input (or a model-ready tensor with a batch axis of 1) as the model wants it."""

    @abstractmethod
    def features(self, tensors: Tensor, layer: int, like: Sequence[Any] | None = None) -> list[States]:
        """Hidden states entering `layer` for a batch; `like` gives contexts to pool by (for references)."""

    @abstractmethod
    def head(self, layer: int, context: Any, dtype: torch.dtype) -> Head:
        """The pure function (node, position, width) → (node, joint) from `layer` on, in `dtype`."""

    @abstractmethod
    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """The model-ready reference input for a name, a tensor, or None for the kind's usual one."""

    @abstractmethod
    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """What each position of `states.hidden` is."""

    def outputs(self) -> Any:
        """The module whose output are the last hidden states, read by `head(depth, …)`; None where it is not known.

        An attention pool is not it: what it reads are the last hidden states, the input of layer −1.
        """
        return None

    def after(self, context: Any, output: Tensor) -> tuple[Tensor, Any]:
        """The last hidden states of one input as (position, width), and the context for `head(depth, …)` of them."""
        return output.flatten(1).mT if output.ndim == 3 else output, context

    def pooled(self, layer: int, context: Any, dtype: torch.dtype) -> PooledBlock | None:
        """The closed form's description of the last block; None where it has none or at other layers."""
        return None

    def pooling(self, context: Any) -> Hashable:
        """What of a context the reference's hidden states depend on; inputs that share it share the reference."""
        key: Hashable = context
        return key

    def label(self, layer: int) -> int | str:
        """A resolved layer as users name it."""
        return layer

    def in_precision(self, dtype: torch.dtype, module: Any = None) -> Any:
        """`module`, the encoder's own by default, or a copy of it in `dtype` where its precision is another; kept."""
        module = self.module if module is None else module
        if all(p.dtype == dtype for p in module.parameters() if p.dtype.is_floating_point):
            return module
        version, key = self._fingerprint(), (dtype, id(module))
        if self._copies.get(key, (None,))[0] != version:
            self._copies[key] = (version, copy.deepcopy(module).to(dtype))
        return self._copies[key][1]

    def whole(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The host's own function from model-ready tensors to embeddings, in `dtype`; for the input as a layer."""
        raise InputError(f"this {self.kind} encoder has no function of its input: use layer=0, the first block's input")

    def table(self, dtype: torch.dtype) -> Any:
        """The module within `whole(dtype)` that looks up token embeddings; None where it is not known."""
        return None

    def at(self, layer: Any) -> tuple[Encoder, int]:
        """The encoder to ask for a layer, and the layer as 0 … depth − 1: "input" is a layer of its own."""
        if layer != "input":
            return self, self.resolve(layer)
        if self._from_input is None:
            from secondsight.encoders.inputs import InputEncoder

            self._from_input = InputEncoder(self)
        return self._from_input, 0

    def resolve(self, layer: Any) -> int:
        """A layer as 0 … depth − 1; `InputError` outside −depth … depth − 1."""
        if isinstance(layer, bool) or not isinstance(layer, int) or not -self.depth <= layer < self.depth:
            raise InputError(
                f"layer {layer!r} is not one of this {self.kind} encoder's: it has blocks 0 … {self.depth - 1} "
                f"(or −1 … −{self.depth} from the end), and 'input'"
            )
        return layer % self.depth

    def dtype(self) -> torch.dtype:
        """Precision of the decomposition: the model's own, float32 for half-precision models."""
        own = next((p.dtype for p in self.module.parameters() if p.dtype.is_floating_point), torch.float32)
        return own if own in (torch.float32, torch.float64) else torch.float32

    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def reference_states(self, tensor: Tensor, layer: int, context: Any) -> tuple[States, dict[Any, Any]]:
        """Hidden states of a reference input, cached by its content, the layer, the pooling and the weights.

        The dictionary beside them keeps what the closed form derives from them.
        """
        content = hashlib.blake2b(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        key = (layer, content.digest(), tuple(tensor.shape), self.pooling(context), self._fingerprint())
        if key in self._references:
            self._references.move_to_end(key)
        else:
            self._references[key] = (self.features(tensor, layer, [context])[0], {})
            while len(self._references) > 64:
                self._references.popitem(last=False)
        return self._references[key]

    def _fingerprint(self) -> int:
        """Changes when a weight is written to, moved or replaced, or all are written to behind autograd's back."""
        own = [*self.module.parameters(), *self.module.buffers()]
        written = tuple((p.data_ptr(), 0 if p.is_inference() else p._version, p.dtype) for p in own)
        # Writing through `.data` leaves no trace in versions; whoever swaps weights that way swaps all of them.
        probes = own[:: max(1, len(own) // 3)]
        seen = tuple(float(p.detach().reshape(-1)[p.numel() // 2]) for p in probes if p.numel())
        return hash((written, seen))


def finite(side: Side, values: Tensor, inputs: Tensor | None) -> None:
    """`InputError` for NaN or infinity that an encoder gave for model-ready inputs; it says where they appear first."""
    if bool(torch.isfinite(values).all()):
        return
    encoder, where = side.encoder, ""
    if inputs is not None and inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
        raise InputError(f"the model-ready {side.kind} holds NaN or infinity itself: check its preprocessing")
    if inputs is not None:
        with untouched(encoder.module):
            where = first_not_finite(encoder.module, lambda: encoder.features(inputs, encoder.depth - 1))
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in encoder.module.parameters())
    remedy = "load the model in float32, or check its weights" if half else "check the model's weights and the input"
    raise InputError(f"the {side.kind} encoder gave NaN or infinity{f', first in {where}' if where else ''}: {remedy}")


def own_reference(which: Tensor, tensor: Tensor) -> Tensor:
    """The user's reference as the input's kind of tensor; `InputError` for another shape."""
    if which.shape != tensor.shape:
        raise InputError(f"the reference {tuple(which.shape)} does not have the input's shape {tuple(tensor.shape)}")
    return which.to(tensor)


def as_list(inputs: Any) -> list[Any]:
    """Several inputs as a list: an iterable of raw inputs, or a model-ready batch split along its first axis."""
    if isinstance(inputs, Tensor):
        return [inputs] if inputs.ndim == 1 else list(inputs.split(1))
    if isinstance(inputs, Mapping):
        # A processor's or tokenizer's output, one row an input.
        rows = {k: v.split(1) for k, v in inputs.items() if isinstance(v, Tensor)}
        return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    if isinstance(inputs, (str, bytes)) or type(inputs).__name__ == "ndarray" or not isinstance(inputs, Iterable):
        raise InputError(f"contributions take several inputs: give a list, not {type(inputs).__name__}")
    return list(inputs)


@dataclass(frozen=True)
class Side:
    """One side of a dual encoder: its encoder, whether it is the left (0) or right (1), and the similarity's kind."""

    encoder: Encoder
    index: int
    cosine: bool

    @property
    def kind(self) -> str:
        """What it encodes: "image", "text", …"""
        return self.encoder.kind

    def prepare(self, inputs: Any, *, truncate: bool = False) -> list[Prepared]:
        """Raw inputs as model-ready ones."""
        return [self.encoder.prepare(raw, truncate=truncate) for raw in as_list(inputs)]

    def embed(self, inputs: Any, *, truncate: bool = False) -> Float[Tensor, "input joint"]:
        """The host model's embeddings, not normalised."""
        return self.embedded(self.prepare(inputs, truncate=truncate))

    def embedded(self, inputs: Sequence[Prepared]) -> Float[Tensor, "input joint"]:
        """The same for prepared inputs."""
        encoder = self.encoder
        rows: list[Tensor] = []
        with untouched(encoder.module):
            for prepared in inputs:
                embedding = encoder.features(prepared.tensor, encoder.depth - 1)[0].embedding
                assert embedding is not None  # only a reference may be pooled elsewhere
                rows.append(embedding)
        return torch.stack(rows)

    def contributions(
        self, inputs: Any, method: Method | None = None, *, truncate: bool = False
    ) -> list[Contributions]:
        """Contributions of a batch of inputs (a list, or a model-ready tensor), by `IntegratedJacobian()` or `method`."""
        if method is None:
            # The one look upward from this house: the default that every entry point shares.
            from secondsight.methods import IntegratedJacobian

            method = IntegratedJacobian()
        made, chosen = self.prepare(inputs, truncate=truncate), method
        return enough(
            lambda: chosen.contributions(self, made), lambda: [chosen.contributions(self, [one])[0] for one in made]
        )


class DualEncoder:
    """A similarity of two encoders' embeddings: their cosine, or their dot product where `cosine` is False.

    `logit_scale` and `logit_bias` are what the model multiplies and adds in its logits (already exponentiated), or
    functions that read them from weights which may change.
    """

    def __init__(
        self,
        left: Encoder,
        right: Encoder,
        *,
        name: str = "custom",
        cosine: bool = True,
        logit_scale: float | Callable[[], float | None] | None = None,
        logit_bias: float | Callable[[], float] = 0.0,
    ) -> None:
        self.left, self.right = Side(left, 0, cosine), Side(right, 1, cosine)
        self.name, self.cosine, self._scale, self._bias = name, cosine, logit_scale, logit_bias

    @property
    def logit_scale(self) -> float | None:
        """What the model's logits multiply the similarity by, as its weights say now; None where there is none."""
        return self._scale() if callable(self._scale) else self._scale

    @property
    def logit_bias(self) -> float:
        """What the model's logits add."""
        return self._bias() if callable(self._bias) else self._bias

    def __getattr__(self, name: str) -> Side:
        sides = [s for s in (self.__dict__.get("left"), self.__dict__.get("right")) if s is not None and s.kind == name]
        if len(sides) == 1:
            return sides[0]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def pair(self, left: str, right: str) -> DualEncoder:
        """The same model for two inputs of these kinds, such as `model.pair("image", "image")`."""
        sides = {side.kind: side for side in (self.right, self.left)}
        for kind in (left, right):
            if kind not in sides:
                raise InputError(f"{self.name!r} has no {kind} side: it has {' and '.join(reversed(sides))}")
        return DualEncoder(
            sides[left].encoder,
            sides[right].encoder,
            name=self.name,
            cosine=self.cosine,
            logit_scale=self._scale,
            logit_bias=self._bias,
        )

    def fitting(self, left: Any, right: Any) -> DualEncoder:
        """Itself, or the `pair` that two raw inputs are evidently meant for: two images, two texts, or text first."""
        kinds = []
        for raw, own, other in ((left, self.left, self.right), (right, self.right, self.left)):
            possible = possible_kinds(raw)
            kinds.append(other.kind if own.kind not in possible and other.kind in possible else own.kind)
        return self if kinds == [self.left.kind, self.right.kind] else self.pair(*kinds)

    def __repr__(self) -> str:
        return f"DualEncoder({self.name!r}, left={self.left.kind}, right={self.right.kind})"
