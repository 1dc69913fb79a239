"""What an encoder supplies: hidden states at a layer, and the function from there to the embedding."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from secondsight.algebra.assignment import TokenPairing
from secondsight.algebra.layout import Layout
from secondsight.inputs.prepared import Prepared
from secondsight.paths.pooled import PooledBlock, PooledReference
from secondsight.support.errors import InputError
from secondsight.support.guard import first_not_finite, untouched

Head = Callable[[Tensor], Tensor]

ATTENTION_POOL = "attention pool"
"""The `pool` of encoders whose last block is one."""

EVERY_TOKEN = "every token"
"""The `pool` of encoders that keep a vector for every token."""

_CACHED_REFERENCES = 64


@dataclass(frozen=True, eq=False)
class Context:
    """What an encoder's head must know about an input besides its hidden states.

    `tensor` (1, …) is the model-ready input and `shape` the shape of its hidden states in the host model: (position,
    width), or (width, rows, columns) for feature maps. `pool` is the position at which the last block is read, `mask`
    the attention mask of the blocks; both only where the head needs them.
    """

    tensor: Tensor
    shape: tuple[int, ...]
    pool: int | None = None
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class States:
    """Hidden states (position, width) that enter a layer, in the decomposition's precision.

    `embedding` (joint,) is the host model's own embedding of the input.
    """

    hidden: Float[Tensor, "position width"]
    embedding: Float[Tensor, " joint"]
    context: Context


@dataclass(eq=False)
class Reference:
    """A reference input's hidden states at a layer, run under the context of an input; cached by its encoder.

    `embedding` is None where the host model pools the reference at another position than the input. Methods fill in the
    rest: `block` is the closed form's description (None where there is none, "unknown" before anybody looked), `pooled` the
    reference's half of the closed form, `checked` holds the reference embeddings of the paths whose
    head was checked against the host model, by the path's class and whether embeddings are normalised.
    """

    hidden: Float[Tensor, "position width"]
    embedding: Float[Tensor, " joint"] | None
    block: PooledBlock | Literal["unknown"] | None = "unknown"
    pooled: PooledReference | None = None
    checked: dict[tuple[type, bool], Tensor] = field(default_factory=dict)


class Encoder(ABC):
    """One side of a dual encoder. Blocks count from 0 to `depth` − 1; layer L is the input of block L.

    `references` are the names that `reference` accepts; `pool` says in words how the last block's positions become one
    embedding; `prompt` is the text that precedes every input; `channels_first` says that inputs of two axes are (width,
    position), as one-dimensional convolutions take them.
    """

    kind: str
    depth: int
    module: nn.Module
    references: tuple[str, ...] = ()
    pool: str = "its own"
    prompt: str = ""
    channels_first: bool = False

    def __init__(self) -> None:
        self._references: OrderedDict[Hashable, Reference] = OrderedDict()
        self._copies: dict[tuple[torch.dtype, int], tuple[int, nn.Module]] = {}
        self.ends: dict[str, Encoder] = {}  # this encoder seen from its input or output, see `input_layer.at_layer`

    @abstractmethod
    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """A raw input, or a model-ready tensor with a batch axis of 1, as the model wants it."""

    @abstractmethod
    def features(self, tensors: Tensor, layer: int) -> list[States]:
        """Hidden states entering `layer` for a batch of model-ready inputs.

        `layer` = `depth` gives the last block's output, which `head(depth, …)` reads; `InputError` where the encoder does
        not know it.
        """

    def features_of_blocks(self, tensor: Tensor) -> tuple[States, list[Float[Tensor, "position width"]]]:
        """The last layer's states of one model-ready input, and what leaves every block before an attention pool, in order."""
        raise InputError(
            f"this {self.kind} encoder does not show what leaves its blocks: describe it with ss.TorchEncoder"
        )

    def reference_features(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """Hidden states of a reference entering `layer`, with masks and pooling of the input that `context` describes.

        The default is right where these do not depend on the input.
        """
        state = self.features(tensor, layer)[0]
        return Reference(state.hidden, state.embedding)

    @abstractmethod
    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The pure function (node, position, width) → (node, joint) from `layer` on, in `dtype`."""

    def head_of_blocks(self, context: Context, dtype: torch.dtype) -> Head:
        """The pure function from what leaves a block to the embedding, as if that block were the last before the pool."""
        return self.head(self.depth, context, dtype)

    @abstractmethod
    def reference(self, prepared: Prepared, choice: str | Tensor | None, seed: int) -> Tensor:
        """The model-ready reference input for a name or a tensor; for None the usual one of the encoder's kind."""

    @abstractmethod
    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """What each position of `states.hidden` is."""

    def closed_form(self, layer: int, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The last block in the closed form's terms; None at other layers and for blocks that have no such form."""
        return self.last_block(self.in_precision(dtype), context, dtype) if layer == self.depth - 1 else None

    def last_block(self, module: Any, context: Context, dtype: torch.dtype) -> PooledBlock | None:
        """The description of the last block of `module`, the encoder's own or a copy; see `encoders.blocks`."""
        return None

    def attention_block(self, dtype: torch.dtype) -> PooledBlock | None:
        """The last block by itself, for every position; None where it is no block of attention that is known."""
        return None

    def reference_key(self, context: Context) -> Hashable:
        """The part of a context that a reference's hidden states depend on; inputs that share it share the reference."""
        return tuple(context.tensor.shape), context.shape

    def axis_name(self, axis: int) -> str | None:
        """What a joint dimension stands for, such as a word of the vocabulary; None where it has no name."""
        return None

    def label(self, layer: int) -> int | str:
        """A resolved layer as users name it."""
        return layer

    def in_precision(self, dtype: torch.dtype, module: nn.Module | None = None) -> Any:
        """`module`, by default the encoder's own, or a cached copy in `dtype` where its precision is another."""
        module = self.module if module is None else module
        if all(p.dtype == dtype for p in module.parameters() if p.dtype.is_floating_point):
            return module
        version, key = self._weights_version(), (dtype, id(module))
        if key not in self._copies or self._copies[key][0] != version:
            self._copies[key] = (version, copy.deepcopy(module).to(dtype))
        return self._copies[key][1]

    def from_input(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The host's own function from model-ready tensors to embeddings, in `dtype`; for the input as a layer."""
        raise InputError(f"this {self.kind} encoder has no function of its input: use layer=0, the first block's input")

    def token_embedding(self, dtype: torch.dtype) -> nn.Module | None:
        """The module within `from_input(dtype)` that looks up token embeddings; None where it is not known."""
        return None

    def resolve(self, layer: object) -> int:
        """A layer as 0 … depth − 1; `InputError` outside −depth … depth − 1."""
        if isinstance(layer, bool) or not isinstance(layer, int) or not -self.depth <= layer < self.depth:
            raise InputError(
                f"layer {layer!r} is not one of this {self.kind} encoder's: it has blocks 0 … {self.depth - 1} "
                f"(or −1 … −{self.depth} from the end), 'input' and 'grounded'"
            )
        return layer % self.depth

    def output_encoder(self) -> Encoder:
        """A new encoder that sees this one from its token vectors; `InputError` for encoders with one embedding."""
        raise InputError(
            f"layer 'output' is one of late-interaction models; this {self.kind} encoder makes one embedding: "
            "use layer=-1, its last block's input"
        )

    def pairing(self, context: Context) -> TokenPairing | None:
        """How an input's contributions are multiplied with a partner's, where that is not their inner product."""
        return None

    def grounded_layer(self) -> int | str:
        """The layer at which explanations hit objects best: token embeddings of texts, the middle block for other inputs."""
        if self.kind == "text":
            return "input" if self.starts_from_input() else 0
        return self.depth // 2

    def starts_from_input(self) -> bool:
        """Whether "input" is a layer: pixels, spectrogram bins, or token embeddings that can be replaced."""
        if type(self).from_input is Encoder.from_input:
            return False
        return self.kind != "text" or self.token_embedding(self.dtype()) is not None

    def weights_dtype(self) -> torch.dtype | None:
        """Precision of the model's first floating-point weight; None where it has none."""
        return next((p.dtype for p in self.module.parameters() if p.dtype.is_floating_point), None)

    def dtype(self) -> torch.dtype:
        """Precision of the decomposition: the model's own, float32 for half-precision models."""
        dtype = self.weights_dtype()
        return dtype if dtype == torch.float64 else torch.float32

    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    def to_model(self, tensors: Tensor) -> Tensor:
        """Model-ready tensors on the model's device, floating-point ones in the precision of its weights."""
        return tensors.to(self.device(), self.weights_dtype() if tensors.is_floating_point() else None)

    def reference_at(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """A reference input at a layer, cached by its content, the layer, the pooling and the weights."""
        content = hashlib.blake2b(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        key = (layer, content.digest(), tuple(tensor.shape), self.reference_key(context), self._weights_version())
        if key in self._references:
            self._references.move_to_end(key)
        else:
            self._references[key] = self.reference_features(tensor, layer, context)
            while len(self._references) > _CACHED_REFERENCES:
                self._references.popitem(last=False)
        return self._references[key]

    def for_preparing(self) -> Encoder:
        """A copy that only prepares inputs, small enough to send to other processes: its weights have shapes only."""
        memo: dict[int, Any] = {}
        for module in (value for value in vars(self).values() if isinstance(value, nn.Module)):
            for tensor in (*module.parameters(), *module.buffers()):
                bare = tensor.detach().to("meta")
                memo[id(tensor)] = nn.Parameter(bare, False) if isinstance(tensor, nn.Parameter) else bare
        encoder = sharing_weights(self)
        encoder._copies = {}
        return copy.deepcopy(encoder, memo)

    def _weights_version(self) -> int:
        """Changes when a weight is written to, moved or replaced, or all are written to behind autograd's back."""
        weights = [*self.module.parameters(), *self.module.buffers()]
        versions = tuple((w.data_ptr(), 0 if w.is_inference() else w._version, w.dtype) for w in weights)
        # Writing through `.data` leaves no trace in versions; code that swaps weights that way swaps all of them.
        probes = weights[:: max(1, len(weights) // 3)]
        values = tuple(float(w.detach().reshape(-1)[w.numel() // 2]) for w in probes if w.numel())
        return hash((versions, values))


AnyEncoder = TypeVar("AnyEncoder", bound=Encoder)


def sharing_weights(encoder: AnyEncoder) -> AnyEncoder:
    """A copy to be changed: the same module, and the same copies of it in other precisions, but no cached results."""
    changeable = copy.copy(encoder)
    changeable._references, changeable.ends = OrderedDict(), {}
    return changeable


def in_half_precision(module: nn.Module) -> bool:
    """Whether some of a module's weights are in half precision."""
    return any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())


def check_finite(encoder: Encoder, values: Tensor, inputs: Tensor | None) -> None:
    """`InputError` for NaN or infinity that an encoder gave for model-ready inputs; it says where they appear first."""
    if bool(torch.isfinite(values).all()):
        return
    place = ""
    if inputs is not None and inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
        raise InputError(f"the model-ready {encoder.kind} holds NaN or infinity itself: check its preprocessing")
    if inputs is not None:
        with untouched(encoder.module):
            place = first_not_finite(encoder.module, lambda: encoder.features(inputs, encoder.depth - 1))
    half = in_half_precision(encoder.module)
    remedy = "load the model in float32, or check its weights" if half else "check the model's weights and the input"
    raise InputError(
        f"the {encoder.kind} encoder gave NaN or infinity{f', first in {place}' if place else ''}: {remedy}"
    )
