"""Rules are exact where they should be, and refine as they should."""

import math

import pytest
import torch

from secondsight import InputError
from secondsight.paths.quadrature import QUADRATURES, Rule, adapt, rule

DEGREE = {"gauss-legendre": (6, 11), "clenshaw-curtis": (7, 6), "gauss-kronrod": (30, 22), "trapezoid": (5, 1)}


@pytest.mark.parametrize(("name", "steps", "degree"), [(k, *v) for k, v in DEGREE.items()])
def test_rules_integrate_polynomials_exactly(name, steps, degree):
    r = rule(name, steps)
    for k in range(degree + 1):
        assert float(r.weights @ r.nodes**k) == pytest.approx(1 / (k + 1), abs=1e-14)


def test_the_right_riemann_sum_is_the_papers():
    r = rule("riemann", 4)
    assert r.nodes.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert r.weights.tolist() == [0.25] * 4


@pytest.mark.parametrize("name", QUADRATURES)
def test_every_node_lies_in_its_cell(name):
    r = rule(name, 30)
    assert float(r.edges[-1]) == pytest.approx(1)
    assert bool((r.edges[:-1] <= r.nodes + 1e-12).all())
    assert bool((r.nodes <= r.edges[1:] + 1e-12).all())


def hard(counted: list[float]):
    """A narrow bump whose integral is known."""

    def integrand(r: Rule) -> torch.Tensor:
        counted.extend(r.nodes.tolist())
        return (1 / (1 + (60 * (r.nodes - 0.3)) ** 2))[:, None]

    difference = torch.tensor([(math.atan(42) + math.atan(18)) / 60], dtype=torch.float64)
    return integrand, difference


@pytest.mark.parametrize("name", QUADRATURES)
def test_adapting_reaches_the_tolerance(name):
    integrand, difference = hard([])
    found = adapt(name, integrand, difference, tol=1e-2, max_steps=2048)
    assert found.converged
    assert found.residual <= 1e-2
    assert abs(float(found.total) - float(difference)) <= 1e-2 * float(difference)


@pytest.mark.parametrize("name", ["clenshaw-curtis", "trapezoid", "gauss-kronrod"])
def test_nested_rules_evaluate_no_node_twice(name):
    counted: list[float] = []
    integrand, difference = hard(counted)
    found = adapt(name, integrand, difference, tol=1e-4, max_steps=4096)
    assert len(counted) == len(set(counted)) == found.evaluations
    assert len(found.rule) > 15


def test_subdividing_needs_fewer_nodes_for_a_bump():
    integrand, difference = hard([])
    counts = {
        n: len(adapt(n, integrand, difference, tol=1e-6, max_steps=4096).rule)
        for n in ("gauss-kronrod", "gauss-legendre")
    }
    assert counts["gauss-kronrod"] < counts["gauss-legendre"]


@pytest.mark.parametrize("name", QUADRATURES)
def test_the_cap_is_kept_and_said(name):
    integrand, difference = hard([])
    found = adapt(name, integrand, difference, tol=1e-9, max_steps=20)
    assert not found.converged
    assert len(found.rule) <= 20


@pytest.mark.parametrize(
    ("name", "steps", "words"),
    [
        ("simpson", 3, "known: gauss-legendre"),
        ("riemann", 0, "at least 1"),
        ("trapezoid", 1, "at least 2"),
        ("clenshaw-curtis", 1, "at least 2"),
        ("gauss-kronrod", 16, "multiple of 15"),
    ],
)
def test_bad_rules_are_named(name, steps, words):
    with pytest.raises(InputError, match=words):
        rule(name, steps)
