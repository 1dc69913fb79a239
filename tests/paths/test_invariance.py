"""What chained mean Jacobians promise, and what they do not: the numbers of docs/mathematics.md."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import layer_norm, relu, scaled_dot_product_attention

from secondsight.paths import secants
from secondsight.paths.linear_maps import LowRank
from secondsight.paths.linearisation import Linearisation


def point(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def split(function, start: Tensor, end: Tensor, cells: int = 1) -> Tensor:
    """What each entry of the input contributes to the function's rise, by one chain for every cell."""
    step, total = end - start, 0
    for cell in range(cells):
        first, last = (start + step * (edge / cells) for edge in (cell, cell + 1))
        tangents = torch.diag(step.flatten()).reshape(-1, *step.shape) / cells
        total = total + Linearisation(function, first, last).push(tangents)
    return total


def integrated(function, start: Tensor, end: Tensor, nodes: int = 200) -> Tensor:
    """The same by the integrated gradient, written out."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    gradient = torch.func.grad(function)
    return (end - start) * sum(b / 2 * gradient(start + (a + 1) / 2 * (end - start)) for a, b in zip(x, w, strict=True))


def log_of_product(z):
    return (z[0].exp() * z[1].exp()).log()


def bend_twice(z):
    return relu(relu(z[0]) - 1 - relu(z[1]))


def bend_later(z):
    return relu(relu(z[0] - 1) - relu(z[1]))


def squared_product(z):
    return (z[0] * z[1]).square()


def product_of_four(z):
    return z[0] * z[0] * z[1] * z[1]


def fused_norm(z):
    return layer_norm(z[None], (3,))[0, 0]


def written_norm(z):
    c = z - z.mean(-1, keepdim=True)
    return (c * (c.square().mean(-1, keepdim=True) + 1e-5).rsqrt())[0]


ZERO, NORM_ENDS = point(0, 0), (point(1, 0, 0), point(0, 2, 1))


@pytest.mark.parametrize(
    ("first", "second", "ends", "shares_of_first", "shares_of_second"),
    [
        (log_of_product, torch.sum, (ZERO, point(1, 2)), [1.1329, 1.8671], [1, 2]),
        (bend_twice, bend_later, (ZERO, point(3, 1)), [1.5, -0.5], [2, -1]),
        (squared_product, product_of_four, (ZERO, point(1, 1)), [0.5, 0.5], [0.25, 0.75]),
        (fused_norm, written_norm, NORM_ENDS, [-1.0917, -0.9112, -0.6361], [-1.0780, -0.9659, -0.5950]),
    ],
)
def test_one_function_written_in_two_ways_is_split_in_two_ways(first, second, ends, shares_of_first, shares_of_second):
    for z in (*ends, (ends[0] + ends[1]) / 2):
        assert torch.allclose(first(z), second(z), atol=1e-12)
    rise = first(ends[1]) - first(ends[0])
    for function, expected in ((first, shares_of_first), (second, shares_of_second)):
        shares = split(function, *ends)
        assert torch.allclose(shares.sum(), rise, atol=1e-12)
        assert torch.allclose(shares, point(*expected), atol=6e-5)


@pytest.mark.parametrize(
    ("function", "ends", "cells"),
    [
        (log_of_product, (ZERO, point(1, 2)), 8),
        (written_norm, NORM_ENDS, 32),
        (product_of_four, (ZERO, point(1, 1)), 4),
    ],
)
def test_the_gap_to_the_integrated_jacobian_falls_with_the_square_of_the_cells(function, ends, cells):
    limit = integrated(function, *ends)
    gaps = []
    for count in (cells, 2 * cells):
        shares = split(function, *ends, count)
        assert torch.allclose(shares.sum(), function(ends[1]) - function(ends[0]), atol=1e-12)
        gaps.append(float((shares - limit).abs().max()))
    assert gaps[0] > 1e-4
    assert 3.7 < gaps[0] / gaps[1] < 4.3


@pytest.mark.parametrize(
    ("function", "ends", "gaps"),
    [
        (log_of_product, (ZERO, point(1, 2)), [1.3e-1, 3.9e-2, 1.0e-2, 2.6e-3, 6.5e-4, 1.6e-4]),
        (written_norm, NORM_ENDS, [5.5e-2, 2.2e-1, 1.5e-1, 6.2e-2, 1.8e-2, 4.6e-3]),
    ],
)
def test_the_gap_by_cells(function, ends, gaps):
    """The table of docs/mathematics.md."""
    limit = integrated(function, *ends)
    measured = [float((split(function, *ends, 2**power) - limit).abs().max()) for power in range(6)]
    assert measured == pytest.approx(gaps, rel=0.03)


def test_kinks_in_different_cells_are_exact():
    """From 0 to (3, 1) one bends at 0 and a half, the other at a third and a half."""
    for cells in (2, 3, 5, 8):
        for function in (bend_twice, bend_later):
            assert torch.allclose(split(function, ZERO, point(3, 1), cells), point(1.5, -0.5), atol=1e-12)


def test_one_nonlinear_operation_on_every_way_gives_the_integrated_jacobian():
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(4, 5, dtype=torch.float64, generator=generator) for _ in range(3))

    def function(z):
        row = z[None]
        tokens = row @ a.T
        parts = layer_norm(tokens, (4,)) + torch.softmax(tokens, -1) + tokens.tanh() + (row @ b.T) * (row @ c.T)
        return parts.sum() + 2 * parts[0, 0]

    start, end = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    assert torch.allclose(split(function, start, end), integrated(function, start, end), rtol=0, atol=1e-10)


@pytest.mark.filterwarnings("ignore::UserWarning:captum")
def test_elementwise_networks_give_deeplift():
    captum = pytest.importorskip("captum.attr", reason="the package captum is the oracle here")
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 5), nn.Softplus(), nn.Linear(5, 2)]
    network = nn.Sequential(*layers).double()
    start, end = 3 * torch.randn(2, 6, dtype=torch.float64)
    theirs = captum.DeepLift(network).attribute(end[None], start[None], target=1)[0].detach()
    assert theirs.abs().max() > 0.05
    assert torch.allclose(split(lambda z: network(z[None])[0, 1], start, end), theirs, rtol=0, atol=1e-10)


def block(x: Tensor) -> Tensor:
    """A transformer block without weights of its own, and the first position's state behind it."""
    h = layer_norm(x, x.shape[-1:])
    with sdpa_kernel(SDPBackend.MATH):
        x = x + scaled_dot_product_attention(h[None], h[None], h.roll(1, -1)[None])[0]
    return x + (layer_norm(x, x.shape[-1:]) * 2).sigmoid()


def test_positions_that_enter_and_move_alike_have_equal_shares():
    start, end = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start[3], end[3] = start[1], end[1]
    shares = split(lambda x: block(block(x))[0].square().sum(), start, end).reshape(4, 6)
    assert torch.allclose(shares[1], shares[3], rtol=0, atol=1e-12)
    assert not torch.allclose(shares[1], shares[2], rtol=0, atol=1e-3)


def test_chains_of_layers_make_up_the_chain():
    """From a layer to a later one and from there to the end: the chain from the layer to the end, unlike integrals."""
    start, end = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    tangents = torch.randn(3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole = Linearisation(lambda x: block(block(x)), start, end).push(tangents)
    parts = Linearisation(block, block(start), block(end)).push(Linearisation(block, start, end).push(tangents))
    assert torch.allclose(whole, parts, rtol=0, atol=1e-12)


def test_softmax_is_exact_with_any_number_of_nodes(monkeypatch):
    ends = torch.randn(2, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 5
    run, results = ends[1] - ends[0], ends.softmax(-1)
    for nodes in (1, 2, 64):
        monkeypatch.setattr(secants, "_SOFTMAX_NODES_IN_DOUBLE", (nodes,))
        jacobian = secants.softmax((ends[0], ends[1]), (results[0], results[1]))
        assert torch.allclose(jacobian.push(run[None])[0], results[1] - results[0], rtol=0, atol=1e-14)


def test_the_correction_comes_no_further_from_the_mean_jacobian(monkeypatch):
    ends = torch.randn(2, 50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(6)) * 3
    results, one, x = ends.softmax(-1), torch.eye(7, dtype=torch.float64), np.polynomial.legendre.leggauss(200)
    mean = 0
    for node, weight in zip(*x, strict=True):
        p = torch.lerp(ends[0], ends[1], (node + 1) / 2).softmax(-1)
        mean = mean + weight / 2 * (p[..., None] * one - p[..., None] * p[..., None, :])
    tangents = one[:, None].expand(7, 50, 7)
    for nodes in (1, 2, 3):
        monkeypatch.setattr(secants, "_SOFTMAX_NODES_IN_DOUBLE", (nodes,))
        corrected = secants.softmax((ends[0], ends[1]), (results[0], results[1]))
        plain = LowRank(corrected.diagonal, corrected.terms[:1])
        gaps = [(jacobian.push(tangents).permute(1, 2, 0) - mean).norm(dim=(1, 2)) for jacobian in (corrected, plain)]
        assert gaps[0].max() > 1e-3
        assert bool((gaps[0] <= gaps[1] + 1e-12).all())


def test_contributions_are_linear_in_the_output_and_need_a_way_to_it():
    start, end = torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    start[2] = end[2]
    directions = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    plain = split(lambda x: block(block(x[:3]))[0], start, end)
    projected = split(lambda x: (block(block(x[:3]))[:1] @ directions.T)[0], start, end)
    assert torch.allclose(projected, plain @ directions.T, rtol=0, atol=1e-12)
    by_position = plain.reshape(4, 6, 6).abs().amax((1, 2)) > 0
    assert by_position.tolist() == [True, True, False, False]


def test_the_weight_of_a_moving_maximum_lies_between_0_and_1():
    ends = torch.randn(2, 1000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    index = ends.argmax(-1, keepdim=True)
    choice = secants.largest((ends[0], ends[1]), (index[0], index[1]), ends[0].shape)
    rise = ends.amax(-1, keepdim=True)
    # The weight is clamped, so the exact rise shows that it need not have been.
    assert torch.allclose(choice.push((ends[1] - ends[0])[None])[0], rise[1] - rise[0], rtol=0, atol=1e-12)


def test_a_where_whose_branches_rise_less_than_it_adds_up():
    start, end = point(-1), point(2)
    chain = Linearisation(lambda z: torch.where(z > 0, z.square(), -z.square()), start, end)
    assert torch.allclose(chain.push((end - start)[None]), point(5)[None], rtol=0, atol=1e-12)
    # The mean slope of z² is 1, that of −z² is −1.
    assert torch.allclose(chain.pull(point(1)[None]), point(4 / 3 + 1 / 3)[None], rtol=0, atol=1e-12)
