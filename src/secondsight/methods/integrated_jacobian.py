"""The integrated Jacobian: path-integrated derivatives of both encoders ([M25] Eq. 6-10)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import Layout
from secondsight.encoders.base import Head, Reference, States, check_finite
from secondsight.encoders.input_layer import at_layer
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import Method, for_side, one_of
from secondsight.paths.kinks import kinked, met
from secondsight.paths.line import LinePath, PairedMatrix, Path
from secondsight.paths.pooled import PooledBlock, PooledPath
from secondsight.paths.quadrature import QUADRATURES, Adapted, Rule, adapt, fixed, rule
from secondsight.paths.tails import Chain, Unit
from secondsight.support.errors import AdapterError, ConvergenceWarning, InputError
from secondsight.support.guard import differentiable, untouched

if TYPE_CHECKING:
    from secondsight.model import Side

STRATEGIES = ("auto", "pooled", "forward", "reverse", "paired")

_BATCH = 16
"""Inputs that go through the host model together."""


@dataclass(frozen=True, eq=False)
class IntegratedJacobian(Method):
    """Contributions U_i = Σ_d δ_id ∫ ∂g/∂x_id (x_r + α δ) dα, with δ the hidden states less the reference's ([M25] Eq. 6-9).

    `layer`: block whose input is attributed, 0 … depth − 1 or from the end; −1 is the paper's second-last hidden
    representation; "input" attributes pixels, spectrogram bins or token embeddings.
    `reference`: "black", "mean", "noise", "blur" for images, "padding", "empty" for texts, or the
    model-ready tensor; None takes the kind's usual one. Both take one value or a (left, right) pair; a single name of a
    reference goes to the sides that know it.

    `quadrature` is one of gauss-legendre, clenshaw-curtis, gauss-kronrod, trapezoid, riemann. `steps` fixes the number
    of nodes; None adds nodes until the relative residual ‖g(a) − g(r) − ΣU‖ / ‖g(a) − g(r)‖ is at most `tol`, up to
    `max_steps`, and warns (`ConvergenceWarning`) with the reached value otherwise.

    `strategy`: "pooled" closed form, "forward" one tangent per feature, "reverse" one cotangent per joint dimension,
    "paired" one cotangent per feature of the other side (pairs only), "auto" the cheapest. `normalize`: "outside"
    decomposes raw embeddings and divides by their norms, "inside" goes through the normalisation. `seed` makes the
    noise reference. `kinks` "average" takes ReLU-like activations with their mean slope over each node's part of the
    path, which needs about ten times fewer nodes; "pointwise" with the slope at the node, as the paper's code does.
    """

    layer: int | str | tuple[int | str, ...] = -1
    quadrature: str = "gauss-legendre"
    steps: int | None = None
    tol: float = 1e-3
    max_steps: int = 256
    reference: Any = None
    strategy: str = "auto"
    normalize: str = "outside"
    seed: int = 0
    kinks: str = "average"

    name: ClassVar[str] = "integrated-jacobian"

    def __post_init__(self) -> None:
        one_of("quadrature", self.quadrature, QUADRATURES)
        one_of("strategy", self.strategy, STRATEGIES)
        one_of("normalize", self.normalize, ("outside", "inside"))
        one_of("kinks", self.kinks, ("average", "pointwise"))
        if isinstance(self.layer, tuple) and len(self.layer) != 2:
            raise InputError(f"layer={self.layer!r} is neither one layer nor a (left, right) pair")
        if not self.tol > 0 or not math.isfinite(self.tol):
            raise InputError(f"tol={self.tol!r} is no tolerance: a positive number is needed")
        if self.steps is not None:
            rule(self.quadrature, self.steps)
        elif self.max_steps < 1:
            raise InputError(f"max_steps={self.max_steps!r} is no number of nodes: at least 1 is needed")

    def contributions(self, side: Side, inputs: Sequence[Prepared]) -> list[Contributions]:
        """Contributions of every input; the host model runs in batches, then one path each."""
        if self.strategy == "paired":
            raise InputError(
                "strategy='paired' gives a pair's matrix, not one side's vectors: use ss.explain, or another strategy"
            )
        with untouched(side.encoder.module):
            return [self._vectors(side, path) for path in self._integrals(side, inputs)]

    def interactions(self, left: Side, right: Side, a: Prepared, others: Sequence[Prepared]) -> list[Interactions]:
        """Pairs. Under "auto" and "paired" the right side's vectors are pulled back through the left encoder."""
        if self.strategy not in ("auto", "paired"):
            return super().interactions(left, right, a, others)
        with untouched(right.encoder.module):
            # One by one: in a batch, rounding would make a pair depend on what it was asked for together with.
            vectors = [self._vectors(right, next(self._integrals(right, [b]))) for b in others]
        with untouched(left.encoder.module):
            path = next(self._integrals(left, [a]))
            return [self._pair(left, path, v) for v in vectors]

    def pairwise(self, left: Side, a: Prepared) -> bool:
        """Without a closed form, pulling a few words back costs less than pushing every feature through."""
        return self.strategy == "paired" or (self.strategy == "auto" and not closed_form(left, a, self.layer))

    def _integrals(self, side: Side, inputs: Sequence[Prepared]) -> Iterator[_Integral]:
        wanted, which = for_side(side, self.layer, self.reference)
        encoder, layer = at_layer(side.encoder, wanted)
        side = replace(side, encoder=encoder)
        for group in _same_shapes(inputs):
            states = encoder.features(torch.cat([p.tensor for p in group]), layer)
            for prepared, state in zip(group, states, strict=True):
                yield self._integral(side, prepared, state, layer, which)

    def _integral(self, side: Side, prepared: Prepared, state: States, layer: int, which: Any) -> _Integral:
        encoder = side.encoder
        check_finite(side.encoder, state.embedding, prepared.tensor)
        other = encoder.reference(prepared, which, self.seed)
        reference = encoder.reference_at(other, layer, state.context)
        check_finite(side.encoder, reference.hidden, other)
        unit = self.normalize == "inside" and side.cosine
        path = self._path(side, state, layer, reference, unit)
        with differentiable():
            g, g0 = self._ends(side, path, state, reference, unit)
            if float((g - g0).norm()) <= 100 * torch.finfo(g.dtype).eps * float(g.norm()):
                # An input that is its own reference: what is left of the difference is rounding, and no goal.
                g0 = g
            adapted = self._nodes(path, g - g0)
        if not adapted.reached:
            self._missed(side, layer, adapted)
        layout = encoder.layout(prepared, layer, state)
        size = float(g.double().norm())
        if side.cosine and not size:
            raise InputError(
                f"the {side.kind} encoder gave an embedding of zeros, which has no cosine: check the input"
            )
        scale = 1.0 if unit or not side.cosine else 1 / size
        return _Integral(path, adapted, g, g0, layout, scale, self._about(encoder.label(layer), adapted, path))

    def _nodes(self, path: Path, difference: Tensor) -> Adapted:
        """The rule that integrates a path to the tolerance, or the fixed one."""
        if self.steps is not None:
            return fixed(self.quadrature, self.steps, path.total, difference)
        probe = _probe(path, difference) if isinstance(path, LinePath) and path.kinks else None
        return adapt(self.quadrature, path.total, difference, tol=self.tol, max_steps=self.max_steps, probe=probe)

    def _missed(self, side: Side, layer: int, adapted: Adapted) -> None:
        change = "" if adapted.change is None else f", change {adapted.change:.1e} since half the nodes"
        warnings.warn(
            f"{side.kind} side at layer {side.encoder.label(layer)}: relative residual {adapted.residual:.1e}{change} with "
            f"{len(adapted.rule)} nodes misses tol={self.tol:.0e}; raise max_steps or tol",
            ConvergenceWarning,
            stacklevel=3,
        )

    def _path(self, side: Side, state: States, layer: int, start: Reference, unit: bool) -> Path:
        """The straight path from `start` to a state: the closed form where there is one, else through the head."""
        encoder, dtype = side.encoder, side.encoder.dtype()
        block = None if self.strategy in ("forward", "reverse") else encoder.closed_form(layer, state.context, dtype)
        if block is not None:
            if start.pooled is None:
                start.pooled = block.reference(start.hidden)
            block = _through_unit(block) if unit else block
            return PooledPath(block, start.pooled, state.hidden)
        if self.strategy == "pooled":
            raise InputError(
                f"strategy='pooled' is the closed form of a last block with one pooled query; the {side.kind} encoder "
                f"has none at layer {encoder.label(layer)}: use 'auto', 'forward' or 'reverse'"
            )
        head = encoder.head(layer, state.context, dtype)
        head = unit_head(head) if unit else head
        fewer = len(state.hidden) <= state.embedding.numel()
        mode: Literal["forward", "reverse"] = (
            "forward" if self.strategy != "reverse" and (self.strategy == "forward" or fewer) else "reverse"
        )
        own = kinked(encoder.in_precision(dtype)) if self.kinks == "average" else []
        return LinePath(head, start.hidden, state.hidden, mode, met(head, own, start.hidden))

    def _ends(self, side: Side, path: Path, state: States, reference: Reference, unit: bool) -> tuple[Tensor, Tensor]:
        """g(a) and g(r), after checking that the path's head reproduces what the host model gives for both.

        The check is made for the first input that meets a reference at this layer and these weights. Later ones are
        still watched by the residual.
        """
        key = (type(path), unit)
        low = _lower_precision(side, state.hidden.dtype)
        host = F.normalize(state.embedding, dim=-1) if unit else state.embedding
        if key in reference.checked and not low:
            return host, reference.checked[key]
        own0, own = path.value_at(torch.tensor([0.0, 1.0], dtype=torch.float64))
        _check(own, host, "input", side)
        if reference.embedding is not None:
            _check(own0, F.normalize(reference.embedding, dim=-1) if unit else reference.embedding, "reference", side)
        reference.checked[key] = own0
        return (own if low else host), own0

    def _about(self, layer: int | str, adapted: Adapted, path: Path) -> dict[str, Any]:
        return {
            "layer": layer,
            "quadrature": self.quadrature,
            "steps": len(adapted.rule),
            "evaluations": adapted.evaluations,
            "residual": adapted.residual,
            **({} if adapted.change is None else {"change": adapted.change}),
            "strategy": "pooled" if isinstance(path, PooledPath) else getattr(path, "mode", "forward"),
        }

    def _vectors(self, side: Side, i: _Integral) -> Contributions:
        with differentiable():
            vectors = i.path.vectors(i.adapted.rule)
        check_finite(side.encoder, vectors, None)
        return Contributions(vectors, i.embedding, i.reference_embedding, i.layout, i.scale, i.about)

    def _pair(self, left: Side, i: _Integral, v: Contributions) -> Interactions:
        scale = i.scale * v.scale
        path = _Guarded(i.path, left)
        h0, g0 = v.reference_embedding.to(i.embedding), i.reference_embedding
        about = {"left": {**i.about, "strategy": "paired"}, "right": dict(v.about)}
        lazy = PairedMatrix(path, i.adapted.rule, v.vectors.to(i.embedding), i.adapted.total, scale)
        attributions: Tensor | PairedMatrix = lazy
        if isinstance(i.path, PooledPath):
            # Cheap enough to have at once, together with the left side's effect.
            rows = path.pull(i.adapted.rule, torch.cat([lazy.other, h0[None]])) * scale
            attributions, effects = rows[:-1].T, rows[-1]
        else:
            effects = path.pull(i.adapted.rule, h0[None])[0] * scale
        return Interactions(
            attributions=attributions,
            left_effects=effects,
            right_effects=(v.vectors.double() @ g0.double() * scale).to(v.vectors.dtype),
            base=float(g0.double() @ h0.double()) * scale,
            similarity=float(i.embedding.double() @ v.embedding.double()) * scale,
            left_layout=i.layout,
            right_layout=v.layout,
            about=about,
        )


@dataclass(frozen=True, eq=False)
class _Integral:
    """One input's path with its quadrature chosen, and what the vectors must add up to."""

    path: Path
    adapted: Adapted
    embedding: Float[Tensor, " joint"]
    reference_embedding: Float[Tensor, " joint"]
    layout: Layout
    scale: float
    about: dict[str, Any]


class _Guarded:
    """A path whose model is prepared for every call: lazy matrices use it long after the explanation was made."""

    def __init__(self, path: Path, side: Side) -> None:
        self.path, self.side, self.positions = path, side, path.positions

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.path, name)

        def guarded(*args: Any) -> Any:
            with untouched(self.side.encoder.module), differentiable():
                return method(*args)

        return guarded


def _probe(path: Path, difference: Tensor) -> Callable[[Rule], Tensor]:
    """Every position's contribution along the embedding's own move."""
    return lambda rule: path.pull(rule, difference[None])[0]


def closed_form(side: Side, prepared: Prepared, layer: Any = -1) -> bool:
    """Whether the path at this layer is a closed form of a pooled last block, below the cost of an encoding."""
    encoder, number = at_layer(side.encoder, *for_side(side, layer))
    with untouched(encoder.module):
        state = encoder.features(prepared.tensor, number)[0]
        return encoder.closed_form(number, state.context, encoder.dtype()) is not None


def _same_shapes(inputs: Sequence[Prepared]) -> Iterator[list[Prepared]]:
    """Neighbouring inputs of one shape and type, at most `_BATCH` together, in order."""
    group: list[Prepared] = []
    for prepared in inputs:
        t = prepared.tensor
        if group and (len(group) == _BATCH or (group[0].tensor.shape, group[0].tensor.dtype) != (t.shape, t.dtype)):
            yield group
            group = []
        group.append(prepared)
    if group:
        yield group


def unit_head(head: Head) -> Head:
    """The head's embeddings as unit vectors."""
    return lambda x: F.normalize(head(x), dim=-1)


def _through_unit(block: PooledBlock) -> PooledBlock:
    return replace(block, tail=Chain((block.tail, Unit())))


def _lower_precision(side: Side, dtype: torch.dtype) -> bool:
    """Whether the host's own embeddings are less precise than the decomposition."""
    floats = [p.dtype.itemsize for p in side.encoder.module.parameters() if p.dtype.is_floating_point]
    return min(floats, default=dtype.itemsize) < dtype.itemsize


def _check(own: Tensor, host: Tensor, what: str, side: Side) -> None:
    """`AdapterError` unless the head's embedding is the host's."""
    gap, size = float((host - own).double().norm()), float(own.double().norm())
    rough = 5e-4 if torch.get_float32_matmul_precision() == "highest" else 2e-2
    allowed = 0.1 if _lower_precision(side, own.dtype) else rough if own.dtype == torch.float32 else 1e-6
    if not gap <= allowed * max(size, 1e-12):
        raise AdapterError(
            f"the {side.kind} encoder's head gives another embedding for the {what} than the model itself "
            f"(relative difference {gap / max(size, 1e-12):.1e}): its description misses a part of the model"
        )
