"""Nodes and weights on [0, 1], and how to add nodes until the path integral is good enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.support.errors import InputError

Nodes = Float[Tensor, " node"]

NESTED = ("clenshaw-curtis", "gauss-kronrod", "trapezoid")
"""Quadratures whose refinements keep earlier nodes."""

QUADRATURES = ("gauss-legendre", "clenshaw-curtis", "gauss-kronrod", "trapezoid", "riemann")

# Kronrod's 15-point extension of the 7-point Gauss rule on [-1, 1] (Kronrod 1965), non-negative half:
# node, weight of the 15-point rule, weight of the 7-point rule.
_KRONROD = (
    (0.991455371120812639206854697526329, 0.022935322010529224963732008058970, 0.0),
    (0.949107912342758524526189684047851, 0.063092092629978553290700663189204, 0.129484966168869693270611432679082),
    (0.864864423359769072789712788640926, 0.104790010322250183839876322541518, 0.0),
    (0.741531185599394439863864773280788, 0.140653259715525918745189590510238, 0.279705391489276667901467771423780),
    (0.586087235467691130294144691258, 0.169004726639267902826583426598550, 0.0),
    (0.405845151377397166906606412076961, 0.190350578064785409913256402421014, 0.381830050505118944950369775488975),
    (0.207784955007898467600689403773245, 0.204432940075298892414161999234649, 0.0),
    (0.0, 0.209482141084727828012999174891714, 0.417959183673469387755102040816327),
)


@dataclass(frozen=True)
class Rule:
    """A quadrature on [0, 1]: `nodes` α_n and `weights` w_n, both (node,) in float64.

    A panel of a subdivided rule begins at `low` instead of 0.
    """

    nodes: Nodes
    weights: Nodes
    low: float = 0.0

    @property
    def edges(self) -> Nodes:
        """Ends of the cells, of the weights' widths, that the nodes stand for: node n lies between edges n and n + 1."""
        return self.low + torch.cat([self.weights.new_zeros(1), self.weights.cumsum(0)])

    def node(self, number: int) -> Rule:
        """One of its nodes, with its weight; what a rule gives is the sum over these."""
        return Rule(self.nodes[number : number + 1], self.weights[number : number + 1], float(self.edges[number]))

    def __len__(self) -> int:
        return len(self.nodes)


@lru_cache(maxsize=256)
def rule(quadrature: str, steps: int) -> Rule:
    """The named rule with `steps` nodes.

    Gauss-Legendre, Clenshaw-Curtis and trapezoid are the usual ones; "riemann" is the right sum α_n = n/N of the paper's
    code; "gauss-kronrod" puts 15 nodes on each of steps/15 equal panels. Raises `InputError` for other names and counts.
    """
    if steps < 1:
        raise InputError(f"steps={steps} must be at least 1")
    if quadrature == "gauss-legendre":
        x, w = np.polynomial.legendre.leggauss(steps)
        return _rule((x + 1) / 2, w / 2)
    if quadrature == "riemann":
        return _rule(np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps))
    if quadrature == "trapezoid":
        if steps < 2:
            raise InputError("steps=1 is too few for the trapezoid rule: at least 2 are needed")
        w = np.full(steps, 1 / (steps - 1))
        w[[0, -1]] /= 2
        return _rule(np.linspace(0, 1, steps), w)
    if quadrature == "clenshaw-curtis":
        return _clenshaw_curtis(steps)
    if quadrature == "gauss-kronrod":
        if steps % 15:
            raise InputError(
                f"steps={steps} does not fit gauss-kronrod: it takes 15 nodes a panel, so a multiple of 15"
            )
        edges = np.linspace(0, 1, steps // 15 + 1)
        panels = [_kronrod(a, b) for a, b in pairwise(edges)]
        return _rule(np.concatenate([p[0] for p in panels]), np.concatenate([p[1] for p in panels]))
    raise InputError(f"unknown quadrature {quadrature!r}; known: {', '.join(QUADRATURES)}")


def _rule(nodes: np.ndarray, weights: np.ndarray) -> Rule:
    return Rule(torch.from_numpy(np.ascontiguousarray(nodes)), torch.from_numpy(np.ascontiguousarray(weights)))


def _clenshaw_curtis(steps: int) -> Rule:
    if steps < 2:
        raise InputError("steps=1 is too few for clenshaw-curtis: at least 2 are needed")
    n = steps - 1
    theta = np.pi * np.arange(steps) / n
    # ∫ T_2k over [-1, 1] is 2/(1 − 4k²); the interpolant's coefficients come from a cosine sum, ends halved.
    k = np.arange(n // 2 + 1)
    factor = np.where(k == 0, 1.0, 2.0)
    if n % 2 == 0:
        factor[-1] = 1.0
    w = (np.cos(2 * np.outer(theta, k)) * (factor / (1 - 4 * k**2))).sum(1) * 2 / n
    w[[0, -1]] /= 2
    return _rule((1 - np.cos(theta)) / 2, w / 2)


def _kronrod(a: float, b: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(_KRONROD)
    signs = np.concatenate([-np.ones(8), np.ones(7)])
    order = np.concatenate([np.arange(8), np.arange(6, -1, -1)])
    x, w, g = table[order].T
    half = (b - a) / 2
    return (a + b) / 2 + half * signs * x, half * w, half * g


Integrand = Callable[[Rule], Float[Tensor, "node joint"]]


@dataclass(frozen=True)
class Integral:
    """A rule, its sum, the relative residual, and whether that is within the tolerance.

    `evaluations` counts the nodes at which the integrand was computed. `change` is how much a probe of single contributions
    moved since the last refinement, relative to its size; None where the residual alone decides.
    """

    rule: Rule
    total: Float[Tensor, " joint"]
    residual: float
    converged: bool
    evaluations: int
    change: float | None = None


class _Samples:
    """An integrand whose values are kept by node, so that nested rules compute new nodes only.

    Where it depends on a node's cell and not on the node alone (`reuse` is False), every call computes all of them.
    """

    def __init__(self, integrand: Integrand, reuse: bool) -> None:
        self.integrand, self.reuse, self.evaluations = integrand, reuse, 0
        self._by_node: dict[float, Tensor] = {}

    def __call__(self, candidate: Rule) -> Float[Tensor, "node joint"]:
        """The values at a rule's nodes, in double precision."""
        if not self.reuse:
            self.evaluations += len(candidate)
            return self.integrand(candidate).double()
        missing = [node for node in candidate.nodes.tolist() if node not in self._by_node]
        if missing:
            nodes = torch.tensor(missing, dtype=torch.float64)
            values = self.integrand(Rule(nodes, torch.zeros_like(nodes))).double()
            self.evaluations += len(missing)
            self._by_node.update(zip(missing, values, strict=True))
        return torch.stack([self._by_node[node] for node in candidate.nodes.tolist()])


def adapt(
    quadrature: str,
    integrand: Integrand,
    difference: Float[Tensor, " joint"],
    *,
    tol: float,
    max_steps: int,
    steps: int | None = None,
    probe: Callable[[Rule], Float[Tensor, " feature"]] | None = None,
) -> Integral:
    """The first refinement of the rule whose relative residual is at most `tol`, with no more than `max_steps` nodes.

    `integrand` is d/dα g along the path; its integral is known, g(a) − g(r) = `difference`, so the residual is the true
    error of the sum. Where averaged slopes make the sum exact whatever the nodes, `probe` gives some contributions
    instead, and these must also change by at most ten times `tol` when the nodes are doubled. Where no refinement
    reaches the goal (the cap, or the floor that rounding sets), the best one tried is returned with `converged` False.

    With `steps` the rule has that many nodes, whatever the residual.
    """
    difference = difference.double()
    if steps is not None:
        fixed_rule = rule(quadrature, steps)
        return _measured(fixed_rule, integrand(fixed_rule).double(), difference, math.inf, steps)
    samples = _Samples(integrand, reuse=probe is None)
    refinements = _refinements(quadrature, samples, tol, max_steps, doubling=probe is not None)
    best: Integral | None = None
    previous: Tensor | None = None
    stalled, evaluations = 0, 0
    refinement = next(refinements, None)
    while refinement is not None:
        if quadrature in NESTED:
            values, evaluations = samples(refinement), samples.evaluations
        else:
            values, evaluations = integrand(refinement).double(), evaluations + refinement.nodes.numel()
        integral = _measured(refinement, values, difference, tol, evaluations)
        if probe is not None:
            current = probe(refinement).double()
            change = math.inf if previous is None else _relative_change(current, previous)
            # Identical inputs have nothing to attribute.
            converged = integral.converged and (change <= 10 * tol or not bool(current.any()))
            integral, previous = replace(integral, change=change, converged=converged), current
        if integral.converged:
            return integral
        # Twice no gain near the rounding floor: more nodes cannot help.
        stalled = stalled + 1 if best and 0.7 * best.residual < integral.residual < 1e-4 else 0
        if best is None or integral.residual < best.residual or (probe is not None and integral.residual <= tol):
            best = integral
        if stalled >= 2 and probe is None:
            break
        try:
            refinement = refinements.send(integral.residual)
        except StopIteration:
            refinement = None
    if best is None:
        raise InputError(f"max_steps={max_steps} is too few for {quadrature}: at least 15 are needed")
    return replace(best, evaluations=evaluations)


def _measured(
    candidate: Rule,
    values: Float[Tensor, "node joint"],
    difference: Float[Tensor, " joint"],
    tol: float,
    evaluations: int,
) -> Integral:
    """The rule's sum of the values, and its distance from the integral, which is known."""
    total = candidate.weights.to(values.device) @ values
    residual = float((total - difference).norm()) / (float(difference.norm()) or 1.0)
    if not math.isfinite(residual):
        broken = ~torch.isfinite(values).all(1).cpu()
        at = float(candidate.nodes[broken][0]) if bool(broken.any()) else 0.0
        raise InputError(
            f"the model's derivative is NaN or infinity on the way from the reference to the input, at {at:.2f} of it: "
            "choose another reference or layer, or check the model's weights"
        )
    return Integral(candidate, total, residual, residual <= tol, evaluations)


def _relative_change(current: Tensor, previous: Tensor) -> float:
    return float((current - previous).norm() / current.norm().clamp(min=1e-300))


def _refinements(
    quadrature: str, samples: _Samples, tol: float, max_steps: int, doubling: bool
) -> Generator[Rule, float, None]:
    """Finer and finer rules; each is answered with its residual."""
    if quadrature == "gauss-kronrod":
        yield from _subdivided(samples, max_steps)
    elif quadrature in ("clenshaw-curtis", "trapezoid"):
        steps = 3
        while steps <= max_steps:
            yield rule(quadrature, steps)
            steps = 2 * steps - 1
    elif quadrature == "riemann":
        steps = min(8, max_steps)
        while steps <= max_steps:
            yield rule(quadrature, steps)
            steps = max_steps if steps < max_steps < 2 * steps else 2 * steps
    else:
        steps = min(8 if doubling else 4, max_steps)
        while True:
            residual = yield rule(quadrature, steps)
            if steps == max_steps:
                return
            # Gauss converges geometrically, so that one residual predicts the nodes that the tolerance needs.
            needed = 2 * steps if doubling or residual >= 1 else math.ceil(steps * math.log(tol) / math.log(residual))
            steps = min(max(steps + max(1, steps // 8), min(needed, 2 * steps)), max_steps)


def _subdivided(samples: _Samples, max_steps: int) -> Generator[Rule, float, None]:
    """Halve the panel whose 7- and 15-point sums differ most; all other panels keep their nodes."""
    panels = [(0.0, 1.0)] if max_steps >= 15 else []
    gaps: dict[tuple[float, float], float] = {}
    while panels and 15 * len(panels) <= max_steps:
        rules = [_kronrod(low, high) for low, high in sorted(panels)]
        yield _rule(np.concatenate([r[0] for r in rules]), np.concatenate([r[1] for r in rules]))
        for panel in panels:
            if panel not in gaps:
                nodes, weights, gauss_weights = _kronrod(*panel)
                values = samples(Rule(torch.from_numpy(nodes), torch.from_numpy(weights), low=panel[0]))
                gaps[panel] = float((torch.from_numpy(weights - gauss_weights).to(values.device) @ values).norm())
        low, high = max(panels, key=lambda panel: gaps[panel])
        panels.remove((low, high))
        panels += [(low, (low + high) / 2), ((low + high) / 2, high)]
