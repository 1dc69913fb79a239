"""What every encoder must satisfy, as checks for one that you write: `check_encoder(model.image, photographs)`.

Each check raises `AdapterError` with the number that is wrong. They are the conformance suite that every family of
secondsight passes; a model in float64 is held to 1e-10, in float32 to 1e-4.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import Encoder, States
from secondsight.encoders.input_layer import at_layer
from secondsight.inputs.prepared import Prepared
from secondsight.methods import ChainedJacobian, IntegratedJacobian
from secondsight.model import Side
from secondsight.support.errors import AdapterError, ConvergenceWarning
from secondsight.support.guard import differentiable, untouched


@dataclass(frozen=True)
class Case:
    """One side of a model with raw inputs, at least two, and perhaps the host's own function from one to its embedding.

    `tolerance` is relative; None takes what the model's precision allows. `normalised` compares directions only, for
    hosts that normalise at the end. Hosts that compute parts in lower precision need a larger tolerance.
    """

    side: Side
    inputs: Sequence[Any]
    host: Callable[[Any], Tensor] | None = None
    normalised: bool = False
    tolerance: float | None = None
    max_steps: int = 256

    @property
    def allowed(self) -> float:
        """The tolerance in use."""
        if self.tolerance is not None:
            return self.tolerance
        return 1e-10 if self.side.encoder.dtype() == torch.float64 else 1e-4

    @cached_property
    def prepared(self) -> list[Prepared]:
        """The inputs, ready for the model."""
        return self.side.prepare(self.inputs)

    @property
    def layers(self) -> list[int]:
        """First, second, middle and last layers."""
        depth = self.side.encoder.depth
        return sorted({0, min(1, depth - 1), depth // 2, depth - 1})

    def states(self, layer: Any) -> Iterator[tuple[Encoder, int, Prepared, States]]:
        """Every input's hidden states at a layer, within the guards that head and features need."""
        encoder, number = at_layer(self.side.encoder, layer)
        with untouched(encoder.module), differentiable():
            for prepared in self.prepared:
                yield encoder, number, prepared, encoder.features(prepared.tensor, number)[0]


def check_encoder(
    side: Side, inputs: Sequence[Any], host: Callable[[Any], Tensor] | None = None, **options: Any
) -> None:
    """All checks one after the other; `AdapterError` names the first that fails. See `Case` for the options."""
    case = Case(side, inputs, host, **options)
    for check in CHECKS.values():
        check(case)


def _gap(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-300))


def _require(gap: float, allowed: float, case: Case, compared: str) -> None:
    if not gap <= allowed:
        raise AdapterError(f"the {case.side.kind} encoder: {compared} differ by {gap:.1e}, {allowed:.0e} is allowed")


def the_host_gives_the_embedding(case: Case) -> None:
    """`features` returns the host's own embedding, to 1e-5 whatever the precision."""
    embeddings = case.side.embed(case.inputs)
    if case.host is None:
        return
    with torch.no_grad():
        host = torch.stack([case.host(raw) for raw in case.inputs]).to(embeddings)
    if case.normalised:
        embeddings, host = F.normalize(embeddings, dim=-1), F.normalize(host, dim=-1)
    _require(_gap(embeddings, host), 1e-5, case, "the embedding and the host's own")


def heads_reproduce_the_embedding(case: Case) -> None:
    """From every layer on, head(hidden states) is the embedding."""
    for layer in case.layers:
        for encoder, number, _, state in case.states(layer):
            embedding = encoder.head(number, state.context, encoder.dtype())(state.hidden[None])[0]
            _require(
                _gap(embedding, state.embedding),
                case.allowed,
                case,
                f"the head's embedding from layer {layer} and the host's",
            )


def strategies_agree(case: Case) -> None:
    """Forward mode, reverse mode and the closed form give the same vectors with the same nodes."""
    last = case.side.encoder.depth - 1
    for layer in {0, last}:
        options: dict[str, Any] = dict(layer=layer, steps=3, kinks="pointwise")
        vectors = {}
        for strategy in ("reverse", "forward", "auto"):
            method = IntegratedJacobian(strategy=strategy, **options)
            vectors[strategy] = case.side.contributions(case.inputs[:1], method)[0].vectors
        for strategy in ("forward", "auto"):
            gap = _gap(vectors[strategy], vectors["reverse"])
            _require(gap, case.allowed * 10, case, f"the vectors of {strategy} and reverse at layer {layer}")


def sums_are_exact(case: Case) -> None:
    """At every layer the vectors add up to the embeddings' difference within the method's tolerance."""
    tol = 1e-3
    for layer in case.layers:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            method = IntegratedJacobian(layer=layer, tol=tol, max_steps=case.max_steps)
            for c in case.side.contributions(case.inputs, method):
                _require(
                    c.relative_residual, tol * 1.01, case, f"the sum of vectors at layer {layer} and what they split"
                )


def a_batch_is_its_inputs(case: Case) -> None:
    """Inputs together, in either order, give what each gives by itself."""
    method = IntegratedJacobian(steps=2)
    alone = [case.side.contributions([raw], method)[0] for raw in case.inputs]
    together = case.side.contributions(case.inputs, method)
    backwards = case.side.contributions(list(case.inputs)[::-1], method)[::-1]
    for single, batch, back in zip(alone, together, backwards, strict=True):
        _require(_gap(batch.vectors, single.vectors), case.allowed, case, "an input's vectors in a batch and alone")
        _require(_gap(back.vectors, single.vectors), case.allowed, case, "an input's vectors in two orders")
        if batch.layout != single.layout:
            raise AdapterError(f"the {case.side.kind} encoder: an input's layout in a batch and alone differ")


def layouts_cover_every_feature(case: Case) -> None:
    """As many features as hidden states, the visible ones in the layout's shape, and JSON reads it back."""
    for layer in case.layers:
        for encoder, number, prepared, state in case.states(layer):
            layout = encoder.layout(prepared, number, state)
            view = layout.view(torch.arange(float(len(state.hidden))))
            if layout.size != len(state.hidden) or not layout.visible or not view.numel():
                raise AdapterError(
                    f"the {case.side.kind} encoder's layout of {layout.size} features, {len(layout.visible)} of them "
                    f"visible, is not that of {len(state.hidden)} hidden states"
                )
            if Layout.from_json(layout.to_json()) != layout:
                raise AdapterError(f"the {case.side.kind} encoder's layout does not come back from JSON")


def references_are_pooled_as_their_input(case: Case) -> None:
    """Every named reference gives the head's own embedding at its hidden states, the same one every time."""
    encoder = case.side.encoder
    for name in (None, *encoder.references):
        for _, layer, prepared, state in case.states(encoder.depth - 1):
            tensor = encoder.reference(prepared, name, 0)
            if not torch.equal(tensor, encoder.reference(prepared, name, 0)) or tensor.shape != prepared.tensor.shape:
                raise AdapterError(f"the {case.side.kind} reference {name!r} is random or of another shape")
            reference = encoder.reference_at(tensor, layer, state.context)
            if reference.hidden.shape != state.hidden.shape:
                raise AdapterError(f"the {case.side.kind} reference {name!r} has other hidden states than its input")
            embedding = encoder.head(layer, state.context, encoder.dtype())(reference.hidden[None])[0]
            if reference.embedding is not None:
                gap = _gap(embedding, reference.embedding)
                _require(gap, case.allowed, case, f"the embedding of reference {name!r} and the head's under its input")


def precision_is_the_models_own(case: Case) -> None:
    """Vectors come in the decomposition's precision, float64 for float64 models."""
    dtype = case.side.contributions(case.inputs[:1], IntegratedJacobian(steps=2))[0].vectors.dtype
    if dtype != case.side.encoder.dtype():
        raise AdapterError(f"the {case.side.kind} encoder's vectors are {dtype}, not {case.side.encoder.dtype()}")


def the_input_is_a_layer(case: Case) -> None:
    """Pixels, bins or token embeddings add up too, where the encoder says how to start from them."""
    encoder = case.side.encoder
    if not encoder.starts_from_input():
        return
    for inner, number, prepared, state in case.states("input"):
        embedding = inner.head(number, state.context, inner.dtype())(state.hidden[None])[0]
        _require(
            _gap(embedding, state.embedding), case.allowed, case, "the head's embedding from the input and the host's"
        )
        if inner.layout(prepared, number, state).size != len(state.hidden):
            raise AdapterError(f"the {case.side.kind} encoder's layout of the input does not cover it")
    method = IntegratedJacobian(layer="input", steps=8)
    c = case.side.contributions(case.inputs[:1], method)[0]
    moved = float((c.embedding - c.reference_embedding).double().norm())
    assert c.outcome is not None  # integrals have one
    missed = abs(c.outcome.residual - c.relative_residual)
    _require(missed if moved else 0.0, max(case.allowed * 100, 1e-6), case, "the input's measured and actual residual")


def chains_are_exact(case: Case) -> None:
    """From every layer and the input, chained Jacobians add up to 1e-12 in float64 and 1e-5 in float32, pushed and pulled."""
    encoder = case.side.encoder
    allowed = max(1e-12 if encoder.dtype() == torch.float64 else 1e-5, case.tolerance or 0.0)
    layers: list[int | str] = [*case.layers, *(["input"] if encoder.starts_from_input() else [])]
    for layer in layers:
        for raw in case.inputs[:2]:
            c = case.side.contributions([raw], ChainedJacobian(layer=layer))[0]
            _require(c.relative_residual, allowed, case, f"the chain's total at layer {layer} and what it splits")
            difference = (c.embedding - c.reference_embedding).double()
            sums = c.rows.pull(difference.to(c.factor.dtype)[None]).double().sum(1)
            size = float(difference.square().sum()) or 1.0
            missed = float((sums - difference.square().sum()).abs()) / size
            _require(missed, 10 * allowed, case, f"the chain's sums, pulled back at layer {layer}, and what they split")


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and torch that a guest could change."""
    return {
        "modes": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "requires": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "dtypes": [p.dtype for p in model.parameters()],
        "identity": [id(p) for p in model.parameters()],
        "values": [p.detach().clone() for p in [*model.parameters(), *model.buffers()]],
        "random": torch.get_rng_state(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "kernels": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()),
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs between two snapshots, by name."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor):
            # NaN that was there before is no change.
            return isinstance(b, Tensor) and torch.equal(a.nan_to_num(), b.nan_to_num())
        if isinstance(a, list):
            return isinstance(b, list) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
        return bool(a == b)

    return [name for name in before if not same(before[name], after[name])]


def the_model_is_left_as_it_came(case: Case) -> None:
    """Hooks, modes, gradients, weights and torch's switches are what they were, on a model in the middle of training."""
    module: nn.Module = case.side.encoder.module
    modes = [(m, m.training) for m in module.modules()]
    try:
        for m, _ in modes:
            m.training = True
        before = snapshot(module)
        options: dict[str, Any]
        for options in (dict(), dict(layer=0), dict(layer=0, strategy="reverse")):
            case.side.contributions(case.inputs[:1], IntegratedJacobian(steps=2, **options))
        changes = changed(before, snapshot(module))
    finally:
        for m, training in modes:
            m.training = training
    if changes:
        raise AdapterError(f"the {case.side.kind} encoder changed the model's {', '.join(changes)}")


CHECKS: dict[str, Callable[[Case], None]] = {
    check.__name__: check
    for check in (
        the_host_gives_the_embedding,
        heads_reproduce_the_embedding,
        strategies_agree,
        sums_are_exact,
        a_batch_is_its_inputs,
        layouts_cover_every_feature,
        references_are_pooled_as_their_input,
        precision_is_the_models_own,
        the_input_is_a_layer,
        chains_are_exact,
        the_model_is_left_as_it_came,
    )
}
"""The checks by their names."""
