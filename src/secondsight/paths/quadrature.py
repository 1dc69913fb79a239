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
        raise InputError(f"steps={steps} is no number of nodes: at least 1 is needed")
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
class Adapted:
    """A rule, its sum, the relative residual, and whether that met the tolerance.

    `change` is how much a probe of single contributions moved since the last refinement, relative to its size; None
    where the residual alone decides.
    """

    rule: Rule
    total: Float[Tensor, " joint"]
    residual: float
    reached: bool
    evaluations: int
    change: float | None = None


class _Memory:
    """Integrand values by node, so that nested rules evaluate new nodes only; plain calls where a node needs its cell."""

    def __init__(self, integrand: Integrand, reuse: bool) -> None:
        self.integrand, self.reuse, self.evaluations = integrand, reuse, 0
        self.values: dict[float, Tensor] = {}

    def __call__(self, wanted: Rule) -> Float[Tensor, "node joint"]:
        if not self.reuse:
            self.evaluations += len(wanted)
            return self.integrand(wanted).double()
        new = [a for a in wanted.nodes.tolist() if a not in self.values]
        if new:
            nodes = torch.tensor(new, dtype=torch.float64)
            self.evaluations += len(new)
            self.values.update(zip(new, self.integrand(Rule(nodes, torch.zeros_like(nodes))).double(), strict=True))
        return torch.stack([self.values[a] for a in wanted.nodes.tolist()])


def fixed(quadrature: str, steps: int, integrand: Integrand, difference: Float[Tensor, " joint"]) -> Adapted:
    """The rule with `steps` nodes, and the relative residual ‖Σ w f − difference‖ / ‖difference‖ it reaches."""
    return _measure(rule(quadrature, steps), _Memory(integrand, reuse=False), difference.double(), tol=math.inf)


def adapt(
    quadrature: str,
    integrand: Integrand,
    difference: Float[Tensor, " joint"],
    *,
    tol: float,
    max_steps: int,
    probe: Callable[[Rule], Float[Tensor, " feature"]] | None = None,
) -> Adapted:
    """The first refinement of the rule whose relative residual is at most `tol`, with no more than `max_steps` nodes.

    `integrand` is d/dα g along the path; its integral is known, g(a) − g(r) = `difference`, so the residual is the true
    error of the sum. Where averaged slopes make the sum exact whatever the nodes, `probe` gives some contributions
    instead, and these must also change by at most ten times `tol` when the nodes are doubled. Where no refinement
    reaches the goal (the cap, or the floor that rounding sets), the best one tried is returned with `reached` False.
    """
    values, difference = _Memory(integrand, reuse=probe is None), difference.double()
    best: Adapted | None = None
    before: Tensor | None = None
    stalled = 0
    refinements = _refinements(quadrature, values, max_steps, doubling=probe is not None)
    candidate = next(refinements, None)
    while candidate is not None:
        tried = _measure(candidate, values, difference, tol)
        if probe is not None:
            now = probe(candidate).double()
            change = math.inf if before is None else float((now - before).norm() / now.norm().clamp(min=1e-300))
            # Identical inputs have nothing to attribute.
            reached = tried.reached and (change <= 10 * tol or not bool(now.any()))
            tried, before = replace(tried, change=change, reached=reached), now
        if tried.reached:
            return tried
        # Twice no gain near the rounding floor: more nodes cannot help.
        stalled = stalled + 1 if best and 0.7 * best.residual < tried.residual < 1e-4 else 0
        if best is None or tried.residual < best.residual or (probe is not None and tried.residual <= tol):
            best = tried
        if stalled >= 2 and probe is None:
            break
        try:
            candidate = refinements.send(tried.residual / tol)
        except StopIteration:
            candidate = None
    if best is None:
        raise InputError(f"max_steps={max_steps} is too few for {quadrature}: at least 15 are needed")
    return replace(best, evaluations=values.evaluations)


def _measure(candidate: Rule, values: _Memory, difference: Tensor, tol: float) -> Adapted:
    at_nodes = values(candidate)
    total = candidate.weights.to(at_nodes.device) @ at_nodes
    moved = float(difference.norm())
    residual = float((total - difference).norm()) / (moved or 1.0)
    if not math.isfinite(residual):
        broken = ~torch.isfinite(at_nodes).all(1).cpu()
        at = float(candidate.nodes[broken][0]) if bool(broken.any()) else 0.0
        raise InputError(
            f"the model's derivative is NaN or infinity on the way from the reference to the input, at {at:.2f} of it: "
            "choose another reference or layer, or check the model's weights"
        )
    return Adapted(candidate, total, residual, residual <= tol, values.evaluations)


def _refinements(quadrature: str, values: _Memory, max_steps: int, doubling: bool) -> Generator[Rule, float, None]:
    """Finer and finer rules; each is answered with how many times its residual exceeds the tolerance."""
    if quadrature == "gauss-kronrod":
        yield from _subdivided(values, max_steps)
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
            excess = yield rule(quadrature, steps)
            if steps == max_steps:
                return
            # Gauss converges geometrically: close to the goal a node or two more will do.
            more = steps // 4 if excess < 10 else steps // 2 if excess < 100 else steps
            steps = min(steps + (steps if doubling else max(1, more)), max_steps)


def _subdivided(values: _Memory, max_steps: int) -> Generator[Rule, float, None]:
    """Halve the panel whose 7- and 15-point sums differ most; all other panels keep their nodes."""
    panels: list[tuple[float, float, float]] = []

    def measured(a: float, b: float) -> tuple[float, float, float]:
        x, w, g = _kronrod(a, b)
        gap = torch.from_numpy(w - g) @ values(Rule(torch.from_numpy(x), torch.from_numpy(w), low=a)).cpu()
        return float(gap.norm()), a, b

    if max_steps >= 15:
        panels.append(measured(0.0, 1.0))
    while panels and 15 * len(panels) <= max_steps:
        rules = [_kronrod(a, b) for _, a, b in sorted(panels, key=lambda p: p[1])]
        yield _rule(np.concatenate([p[0] for p in rules]), np.concatenate([p[1] for p in rules]))
        if 15 * (len(panels) + 1) > max_steps:
            return
        panels.sort()
        _, a, b = panels.pop()
        panels += [measured(a, (a + b) / 2), measured((a + b) / 2, b)]
