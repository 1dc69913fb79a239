"""The dual encoder: two encoders, and the similarity of what they make of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.axes import with_axes
from secondsight.algebra.contributions import Contributions
from secondsight.encoders.base import Encoder
from secondsight.inputs.kinds import possible_kinds
from secondsight.inputs.prepared import Prepared, as_list
from secondsight.methods import as_method
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched
from secondsight.support.memory import retry_smaller

if TYPE_CHECKING:
    from secondsight.algebra.interactions import Interactions
    from secondsight.methods.base import Method


@dataclass(frozen=True)
class Side:
    """One side of a dual encoder: its encoder, whether it is the left (0) or right (1), and the similarity's kind.

    `space` names what its contributions can be multiplied with, where that is not every contribution of the model. `name`
    is what to ask `DualEncoder.side` for, such as "query" and "document" where both sides take texts.
    """

    encoder: Encoder
    index: int
    cosine: bool
    space: str | None = None
    name: str = ""

    @property
    def kind(self) -> str:
        """What it encodes: "image", "text", …"""
        return self.encoder.kind

    def prepare(self, inputs: Any, *, truncate: bool = False) -> list[Prepared]:
        """Raw inputs as model-ready ones."""
        return [self.encoder.prepare(raw, truncate=truncate) for raw in as_list(inputs)]

    def embed(self, inputs: Any, *, truncate: bool = False) -> Float[Tensor, "input joint"]:
        """The host model's embeddings, not normalised."""
        return self.embed_prepared(self.prepare(inputs, truncate=truncate))

    def embed_prepared(self, inputs: Sequence[Prepared]) -> Float[Tensor, "input joint"]:
        """The same for prepared inputs."""
        encoder = self.encoder
        rows: list[Tensor] = []
        with untouched(encoder.module):
            for prepared in inputs:
                rows.append(encoder.features(prepared.tensor, encoder.depth - 1)[0].embedding)
        return torch.stack(rows)

    def contributions(
        self, inputs: Any, method: Method | type[Method] | str | None = None, *, truncate: bool = False
    ) -> list[Contributions]:
        """Contributions of a batch of inputs (a list, or a model-ready tensor), by a method, or one by its name.

        The default is the preset "last-layer", whose vectors cost less than a forward pass and serve any number of partners.
        """
        used_method = as_method(method, "last-layer")
        prepared = self.prepare(inputs, truncate=truncate)

        def compute(batches: Sequence[Sequence[Prepared]]) -> list[Contributions]:
            # Computed now, so that neither the model nor errors come up later.
            return [c.dense() for batch in batches for c in used_method.contributions(self, batch)]

        return retry_smaller(lambda: compute([prepared]), lambda: compute([[p] for p in prepared]))


class DualEncoder:
    """A similarity of two encoders' embeddings: their cosine, or their dot product where `cosine` is False.

    `logit_scale` and `logit_bias` are what the model multiplies and adds in its logits (already exponentiated), or
    functions that read them from weights which may change. `names` are what the sides are asked for; by default the kinds
    of their inputs, or "left" and "right" where two encoders take the same kind.
    `factorises` says that an input has one embedding, which serves all partners.
    """

    factorises = True

    def __init__(
        self,
        left: Encoder,
        right: Encoder,
        *,
        name: str = "custom",
        cosine: bool = True,
        logit_scale: float | Callable[[], float | None] | None = None,
        logit_bias: float | Callable[[], float] = 0.0,
        names: tuple[str, str] | None = None,
    ) -> None:
        for encoder in (left, right):
            if not isinstance(encoder, Encoder):
                raise InputError(
                    f"DualEncoder joins two encoders, and {type(encoder).__name__} is none: describe a module of your own "
                    "with ss.TorchEncoder, and give a library's model to ss.wrap"
                )
        if names is None:
            names = (left.kind, right.kind) if left.kind != right.kind or left is right else ("left", "right")
        self.left, self.right = (
            Side(encoder, index, cosine, name=names[index]) for index, encoder in enumerate((left, right))
        )
        self.name, self.cosine, self._scale, self._bias = name, cosine, logit_scale, logit_bias

    @property
    def measure(self) -> str:
        """What the similarity is: "cosine", "dot product", or of late interaction "MaxSim" or "MeanMaxSim"."""
        return "cosine" if self.cosine else "dot product"

    @property
    def logit_scale(self) -> float | None:
        """What the model's logits multiply the similarity by, as its weights say now; None where there is none."""
        return self._scale() if callable(self._scale) else self._scale

    @property
    def logit_bias(self) -> float:
        """What the model's logits add."""
        return self._bias() if callable(self._bias) else self._bias

    def __getattr__(self, name: str) -> Side:
        sides = [s for s in (self.__dict__.get("left"), self.__dict__.get("right")) if s is not None]
        matching = [s for s in sides if s.name == name] or [s for s in sides if s.kind == name]
        if len(matching) == 1:
            return matching[0]
        names = "".join(f", {s.name} ({s.kind})" if s.name != s.kind else f", {s.name}" for s in sides)
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}; its sides are left, right{names}"
        )

    def side(self, name: str) -> Side:
        """The side of a name, such as "query", or for inputs of a kind, such as "image".

        Raises `InputError` if there is none, and for a kind of which there are two that differ.
        """
        sides = (self.left, self.right)
        matching = [s for s in sides if s.name == name] or [s for s in sides if s.kind == name]
        if not matching:
            raise InputError(f"{self.name!r} has no {name} side: it has {self._described()}")
        if matching[0].encoder is not matching[-1].encoder:
            raise InputError(
                f"both sides of {self.name!r} take {name}s, and differ: ask for {self.left.name!r} or {self.right.name!r}"
            )
        return matching[0]

    def collection_side(self, kind: str) -> Side:
        """The side for a collection that queries search: where both take the kind the one of documents, or the right one."""
        searched = [side for side in (self.right, self.left) if side.kind == kind and side.name != "query"]
        return searched[0] if searched else self.side(kind)

    def pair(self, left: str, right: str) -> DualEncoder:
        """The same model for two inputs of these kinds or sides, such as `model.pair("image", "image")`.

        Where both sides take a kind, each stays in its place: `pair("text", "text")` of queries and documents is both.
        """
        sides = [
            place if name in (place.name, place.kind) else self.side(name)
            for name, place in zip((left, right), (self.left, self.right), strict=True)
        ]
        return DualEncoder(
            sides[0].encoder,
            sides[1].encoder,
            name=self.name,
            cosine=self.cosine,
            logit_scale=self._scale,
            logit_bias=self._bias,
            names=(sides[0].name, sides[1].name),
        )

    def _described(self) -> str:
        return " and ".join(
            side.kind if side.name == side.kind else f"{side.name} ({side.kind})" for side in (self.left, self.right)
        )

    def fitting(self, left: Any, right: Any) -> DualEncoder:
        """This model, or the `pair` of sides that two raw inputs evidently ask for: two images, two texts, text first."""
        kinds: list[str] = []
        for raw, side, opposite in ((left, self.left, self.right), (right, self.right, self.left)):
            possible = possible_kinds(raw)
            kinds.append(opposite.kind if side.kind not in possible and opposite.kind in possible else side.kind)
        return self if kinds == [self.left.kind, self.right.kind] else self.pair(*kinds)

    def storable(self, method: Method | type[Method] | str | None = None) -> Method:
        """The method whose contributions serve any number of partners: the given one, by default "last-layer"."""
        return as_method(method, "last-layer")

    def interactions(self, method: Method, a: Prepared, partners: Sequence[Prepared]) -> list[Interactions]:
        """Interactions of one prepared left input with each of several right ones by a method."""
        pairs = method.interactions(self.left, self.right, a, partners)
        return [with_axes(pair, self.left.encoder.axis_name) for pair in pairs]

    def similarities(self, a: Prepared, partners: Sequence[Prepared]) -> Float[Tensor, " partner"]:
        """The similarities of one prepared left input and each of several right ones."""
        anchor = self.left.embed_prepared([a])
        embeddings = self.right.embed_prepared(partners)
        if self.cosine:
            anchor, embeddings = (v / v.norm(dim=-1, keepdim=True) for v in (anchor, embeddings))
        return embeddings @ anchor[0]

    def __repr__(self) -> str:
        return f"DualEncoder({self.name!r}, left={self.left.kind}, right={self.right.kind})"
