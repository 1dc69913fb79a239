"""Positions share tangents only where their cells are apart, and the vectors are those of one tangent for each."""

import pytest
import timm
import torch
from torch import nn

import secondsight as ss
from models import clip, pixels, resnet
from secondsight.paths.linear_maps import TimesMatrix
from secondsight.paths.linearisation import Linearisation
from secondsight.paths.locality import colours, find_pool


class Local(nn.Module):
    """Convolutions, then a mean over all places and what follows it."""

    def __init__(self, *convolutions: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.convolutions, self.residual = nn.ModuleList(convolutions), residual
        width = convolutions[-1].out_channels
        self.norm, self.project = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x):
        for convolution in self.convolutions:
            y = nn.functional.gelu(convolution(x))
            x = x + y if self.residual else y
        return self.project(self.norm(x.mean((2, 3))))


NETS = {
    "3×3": (Local(nn.Conv2d(4, 6, 3, padding=1)), (3, 3)),
    "1×1": (Local(nn.Conv2d(4, 6, 1)), (1, 1)),
    "depthwise 5×3": (Local(nn.Conv2d(4, 4, (5, 3), padding=(2, 1), groups=4)), (5, 3)),
    "two": (Local(nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 7, 3, padding=1)), (5, 5)),
    "stride": (Local(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=1)), (7, 7)),
    "dilated": (Local(nn.Conv2d(4, 6, 3, dilation=2)), (5, 5)),
    "residual": (Local(nn.Conv2d(4, 4, 3, padding=1), residual=True), (3, 3)),
}


def chain(net: nn.Module, rows: int, columns: int, width: int) -> tuple[Linearisation, torch.Tensor]:
    torch.manual_seed(0)
    start, end = torch.randn(2, 1, rows * columns, width, dtype=torch.float64)
    head = net.double().eval().requires_grad_(False)
    return Linearisation(lambda x: head(x.mT.unflatten(2, (rows, columns))), start, end), end - start


@pytest.mark.parametrize("name", NETS)
def test_shared_tangents_give_the_same_vectors(name):
    net, period = NETS[name]
    linear, step = chain(net, 11, 9, 4)
    pool = find_pool(linear._edges, step.shape, (11, 9))
    assert pool is not None
    assert pool.reach.period == period
    plain = linear.push_positions(step)
    rows = []
    original = linear._push
    linear._push = lambda tangents, *rest: (rows.append(len(tangents)), original(tangents, *rest))[1]
    shared = linear.push_positions(step, (11, 9))
    assert float((shared - plain).abs().max()) < 1e-12 * float(plain.abs().max())
    before_the_pool = rows[0]
    assert before_the_pool == period[0] * period[1]


def test_positions_of_one_colour_share_no_cell():
    linear, step = chain(NETS["stride"][0], 11, 9, 4)
    pool = find_pool(linear._edges, step.shape, (11, 9))
    colour, owner = colours(pool.reach, (11, 9))
    for position in range(99):
        moved = torch.zeros_like(step)
        moved[:, position] = 1
        before = linear._push(moved[None], 0, pool.edge, linear._edges[pool.edge].source)[0, 0]
        cells = before.abs().sum(0).flatten() > 0
        assert bool((owner[colour[position]][cells] == position).all())


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(6 * 9 * 7, 5)),
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        timm.layers.SqueezeExcite(4),
    ],
    ids=["no pool", "transposed", "gate"],
)
def test_what_is_not_local_is_not_coloured(net):
    linear, step = chain(net, 11, 9, 4)
    assert find_pool(linear._edges, step.shape, (11, 9)) is None


def test_transformers_and_attention_pools_are_not_coloured():
    for model, image in ((ss.wrap(clip()), pixels()), (ss.wrap(resnet()), pixels(64))):
        c = model.left.contributions([image], ss.ChainedJacobian(layer=-2))[0]
        vectors = c.vectors
        joint = torch.eye(vectors.shape[1], dtype=vectors.dtype)
        fresh = model.left.contributions([image], ss.ChainedJacobian(layer=-2))[0]
        assert torch.allclose(fresh.rows.pull(joint).T, vectors, atol=1e-12)


class Mixing(nn.Module):
    """Norm and queries, keys and values of every position, attention with a residual stream, and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner, self.out = nn.LayerNorm(4), nn.Linear(4, 12), nn.Linear(4, 5)

    def forward(self, x):
        query, key, value = self.inner(self.norm(x)).chunk(3, -1)
        return self.out(x + (query @ key.mT).softmax(-1) @ value).tanh().mean(1)


@pytest.mark.parametrize("nodes", [1, 2])
def test_rows_meet_the_step_where_positions_begin_to_mix(nodes):
    torch.manual_seed(0)
    head = Mixing().double().requires_grad_(False)
    start, end = torch.randn(2, nodes, 6, 4, dtype=torch.float64)
    linear = Linearisation(head, start, end)
    cotangents = torch.randn(7, nodes, 5, dtype=torch.float64)
    rows = {}
    for edge in linear._edges:
        if isinstance(edge.map, TimesMatrix):
            counted = rows.setdefault(edge.map.matrix.shape[-2:], [])
            object.__setattr__(
                edge.map, "pull", lambda g, c=counted, m=edge.map: (c.append(len(g)), type(m).pull(m, g))[1]
            )
    met = linear.pull_positions(cotangents, end - start)
    if nodes == 1:
        assert not rows[4, 12]
        assert rows[4, 5]
    plain = torch.einsum("rnpd,npd->rp", linear.pull(cotangents), end - start)
    assert torch.allclose(met, plain, rtol=1e-12, atol=1e-13)
