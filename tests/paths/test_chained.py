"""Chained Jacobians of whole models: DeepLIFT, the integrated Jacobian, tricks that models play, and what is refused."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secondsight as ss
from models import clip, naive, pixels
from secondsight.paths import linearisation
from secondsight.paths.linear_maps import Scale
from secondsight.paths.linearisation import Linearisation
from secondsight.paths.rules import RULES, Edge
from secondsight.support.guard import differentiable
from secondsight.support.progress import listening
from secondsight.testing import snapshot

captum = pytest.importorskip("captum.attr", reason="the package captum is the oracle here")


def noise(*shape: int, seed: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Host(nn.Module):
    """A function of hidden states (batch, position, width), the mean of whose result over positions is the embedding."""

    def __init__(self, function, parts=None, dtype=torch.float64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=dtype))  # its precision is the decomposition's
        self.entry, self.function, self.parts = nn.Identity(), function, parts

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.entry(x))
        return y if y.ndim == 2 else y.mean(1)


def explained(function, start=None, end=None, parts=None, **options):
    """Contributions of a function on random hidden states between two points, and its side of a model."""
    start, end = (noise(1, 4, 6, seed=seed) if z is None else z for z, seed in ((start, 10), (end, 11)))
    host = function if isinstance(function, Host) else Host(function, parts, end.dtype).eval()
    encoder = ss.TorchEncoder(host, "entry", kind="features", reference=lambda _: start)
    side = ss.DualEncoder(encoder, ss.wrap(clip()).right.encoder).left
    method = options.pop("method", None) or ss.ChainedJacobian(layer=0, **options)
    return method.contributions(side, [side.encoder.prepare(end)])[0]


def residual(contributions) -> float:
    vectors = contributions.vectors.double()
    rise = (contributions.embedding - contributions.reference_embedding).double()
    return float((vectors.sum(0) - rise).norm() / rise.norm())


def layers(*parts: nn.Module) -> nn.Sequential:
    torch.manual_seed(5)
    network = nn.Sequential(*parts).double().eval().requires_grad_(False)
    for part in network.modules():
        if hasattr(part, "weight") and isinstance(part.weight, Tensor):
            part.weight.data = noise(*part.weight.shape) * 0.7
    return network


MLP, CONVOLUTIONS = (1, 1, 8), (1, 3, 8, 8)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid])
@pytest.mark.parametrize("shape", [MLP, CONVOLUTIONS])
def test_elementwise_networks_are_deep_lifts_rescale_rule(activation, shape):
    if shape == MLP:
        network = layers(nn.Flatten(), nn.Linear(8, 12), activation(), nn.Linear(12, 9), activation(), nn.Linear(9, 5))
    else:
        network = layers(
            nn.Conv2d(3, 6, 3, padding=1), activation(), nn.AvgPool2d(2), nn.Conv2d(6, 4, 3, stride=2), activation(),
            nn.Flatten(), nn.Linear(4, 5),
        )  # fmt: skip
    start, end, direction = noise(*shape, seed=1), noise(*shape, seed=2), noise(5, seed=4)
    features = nn.Identity()
    encoder = ss.TorchEncoder(features=features, head=network, kind="features", reference=lambda _: start)
    side = ss.DualEncoder(encoder, ss.wrap(clip()).right.encoder).left
    ours = side.contributions(end, ss.ChainedJacobian(layer=0))[0].project(direction)
    scalar = nn.Sequential(copy.deepcopy(network), nn.Linear(5, 1, bias=False)).double()
    scalar[1].weight.data = direction[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.DeepLift(scalar).attribute(end.clone().requires_grad_(), start).detach()
    theirs = theirs.sum(1).flatten() if shape == CONVOLUTIONS else theirs.sum(-1).flatten()
    assert theirs.abs().max() > 1e-2
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()


A, B = noise(6, 6, seed=1), noise(6, 5, seed=2)
ONE_OPERATION = {
    "none": lambda x: x @ A @ B, "gelu": lambda x: F.gelu(x @ A) @ B, "layer-norm": lambda x: F.layer_norm(x @ A, (6,)) @ B,
    "softmax": lambda x: (x @ A).softmax(-1) @ B, "tanh": lambda x: torch.tanh(x.flip(1) @ A).cumsum(1) @ B,
    "silu": lambda x: F.silu(x @ A).roll(1, 1) @ B,
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_OPERATION)
def test_with_one_nonlinear_operation_it_is_the_integrated_jacobian(name):
    ours = explained(ONE_OPERATION[name]).vectors
    theirs = explained(ONE_OPERATION[name], method=ss.IntegratedJacobian(layer=0, steps=64)).vectors
    assert theirs.abs().max() > 1e-2
    assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()


def deep(x: Tensor) -> Tensor:
    x = x + ((x @ A) @ x.mT / 3).softmax(-1) @ x
    return F.gelu(F.layer_norm(x, (6,)) @ A) @ B


def test_many_cells_tend_to_the_integrated_jacobian():
    start, end = noise(1, 4, 6, seed=10), noise(1, 4, 6, seed=10) + 0.3 * noise(1, 4, 6, seed=11)
    points, sizes = (torch.from_numpy(part) for part in __import__("numpy").polynomial.legendre.leggauss(64))
    true = naive(lambda x: deep(x).mean(1), start[0], end[0], (points + 1) / 2, sizes / 2)
    errors = [float((explained(deep, start, end, cells=cells).vectors - true).norm()) for cells in (16, 32, 64)]
    assert errors[2] < 1e-4 * float(true.norm())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def relu_in_place(x: Tensor) -> Tensor:
    return F.relu_(x @ A)


def add_in_place(x: Tensor) -> Tensor:
    y = x @ A
    view = y[:, 1]
    y += x.tanh()
    y.mul_(2).add_(x, alpha=0.5)
    return y * view[:, None]


def part_in_place(x: Tensor) -> Tensor:
    y = x @ A
    first = y[:, 0]
    y[:, 0] = x[:, 1].sin()
    y[:, 1:3] *= 2
    y[..., 2] = 0
    y[y.new_tensor([False, False, True, True]).bool().expand(1, 4)] += 1
    return y.tanh() * first[:, None]


def through_views(x: Tensor) -> Tensor:
    y = (x @ A).permute(2, 1, 0)
    flat = y.transpose(0, 2).reshape(-1)[:12].view(3, 4)
    z = torch.zeros(4, 6, dtype=x.dtype)
    z.view(-1)[2:14].view(3, 4).copy_(flat)
    z.T[5].add_(x[0, :, 0].exp())
    return y.permute(2, 1, 0) * z


def through_views_plainly(x: Tensor) -> Tensor:
    y = x @ A
    flat = torch.cat([x.new_zeros(2), y.flatten()[:12], x.new_zeros(10)]).view(4, 6)
    return y * torch.cat([flat[:, :5], flat[:, 5:] + x[0, :, :1].exp()], -1)


def preallocated(x: Tensor) -> Tensor:
    y = torch.empty(1, 4, 6, dtype=x.dtype)
    for position in range(4):
        y[:, position] = (x[:, position] @ A).sigmoid()
    torch.mul(y, x, out=y)
    return y


def reused_constant(x: Tensor) -> Tensor:
    scale = torch.ones(6, dtype=x.dtype)
    y = x * scale
    scale.mul_(3)
    return y.tanh() * scale


def reads_values(x: Tensor) -> Tensor:
    count = int((x.abs() < 100).sum(1).max().item())
    return (x @ A).tanh() * count if bool((x < 50).all()) else x.sin()


SHARED = layers(nn.Linear(6, 6), nn.GELU())
DROPOUT = layers(nn.Linear(6, 6), nn.Dropout(0.5), nn.ReLU(inplace=True))


def twice(x: Tensor) -> Tensor:
    return SHARED(SHARED(x) + x)


VISIBLE = torch.ones(4, 4, dtype=torch.float64).tril()
HIDDEN = VISIBLE.log()
NO_ROW = torch.cat([torch.full((1, 4), -torch.inf, dtype=torch.float64), HIDDEN[:3]])
PHASES = torch.polar(torch.ones(4, 3, dtype=torch.float64), noise(4, 3))


def rotated(x: Tensor) -> Tensor:
    even, odd = x[..., ::2], x[..., 1::2]
    turned = even * PHASES.real - odd * PHASES.imag, even * PHASES.imag + odd * PHASES.real
    return torch.stack(turned, -1).flatten(-2)


TRICKS = {
    "relu_": (relu_in_place, lambda x: F.relu(x @ A)),
    "add_": (add_in_place, lambda x: (2 * (x @ A + x.tanh()) + 0.5 * x) * (2 * (x @ A + x.tanh()) + 0.5 * x)[:, 1:2]),
    "part": (part_in_place, None), "views": (through_views, through_views_plainly),
    "preallocated": (preallocated, lambda x: (x @ A).sigmoid() * x),
    "reused-constant": (reused_constant, lambda x: x.tanh() * 3),
    "reads-values": (reads_values, lambda x: (x @ A).tanh() * 4),
    "shared": (twice, lambda x: F.gelu(F.linear(F.gelu(F.linear(x, W, b)) + x, W, b))),
    "dropout": (DROPOUT, lambda x: F.relu(F.linear(x, DROPOUT[0].weight, DROPOUT[0].bias))),
    "detach": (lambda x: x.detach().sin() + x.data.cos(), lambda x: x.sin() + x.cos()),
    "mask": (lambda x: (x @ x.mT).masked_fill_(noise(4, 4) > 1, -torch.inf).softmax(-1) @ x,
             lambda x: torch.where(noise(4, 4) > 1, -torch.inf, x @ x.mT).softmax(-1) @ x),
    "written-out-mask": (lambda x: ((x @ x.mT + HIDDEN).exp() / (x @ x.mT + HIDDEN).exp().sum(-1, keepdim=True)) @ x,
                         lambda x: ((x @ x.mT).exp() * VISIBLE / ((x @ x.mT).exp() * VISIBLE).sum(-1, keepdim=True)) @ x),
    "no-row": (lambda x: (x @ x.mT).masked_fill(NO_ROW < 0, -torch.inf).softmax(-1).nan_to_num(0) @ x + x,
               lambda x: torch.cat([0 * x[:, :1], ((x @ x.mT)[:, 1:] + NO_ROW[1:]).softmax(-1) @ x], 1) + x),
    "unsqueezed": (lambda x: (x @ A).unsqueeze_(0).tanh()[0], lambda x: (x @ A).tanh()),
    "rotary": (lambda x: torch.view_as_real(torch.view_as_complex((x @ A).unflatten(-1, (3, 2))) * PHASES).flatten(-2).tanh(),
               lambda x: rotated(x @ A).tanh()),
    "order": (lambda x: x.tanh() * len(x.argsort(1)), torch.tanh),
    "closure": ((lambda offset: lambda x: (x + offset).tanh())(noise(6)), lambda x: (x + noise(6)).tanh()),
}  # fmt: skip
W, b = SHARED[0].weight, SHARED[0].bias


def part_plainly(x: Tensor) -> Tensor:
    y = x @ A
    rows = [x[:, 1].sin(), 2 * y[:, 1], 2 * y[:, 2], y[:, 3]]
    shift = x.new_tensor([0, 0, 1, 1])
    keep = x.new_tensor([1, 1, 0, 1, 1, 1])
    rows = [row * keep + s for row, s in zip(rows, shift, strict=True)]
    return torch.stack(rows, 1).tanh() * rows[0][:, None]


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_give_what_the_function_without_them_gives(name):
    trick, plain = TRICKS[name]
    plain = plain or part_plainly
    ours, theirs = explained(trick), explained(plain)
    directions = noise(2, len(ours.embedding))
    pulled = ours.rows.pull(directions)
    assert torch.allclose(ours.embedding, theirs.embedding, rtol=1e-12)
    assert residual(ours) <= 1e-12
    assert theirs.vectors.abs().max() > 1e-3
    assert (ours.vectors - theirs.vectors).abs().max() <= 1e-12 * theirs.vectors.abs().max()
    assert (pulled - directions @ theirs.vectors.T).abs().max() <= 1e-12 * pulled.abs().max()


def test_hooks_of_the_user_stay_and_count():
    host = Host(lambda x: host.parts(x) @ A, layers(nn.Linear(6, 6), nn.Tanh())).eval()
    host.parts[0].register_forward_hook(lambda _, args, y: y.relu_() + 1)
    ours = explained(host)
    weight, bias = host.parts[0].weight, host.parts[0].bias
    theirs = explained(lambda x: torch.tanh(F.linear(x, weight, bias).relu() + 1) @ A)
    assert (ours.vectors - theirs.vectors).abs().max() <= 1e-12 * theirs.vectors.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_hosts_are_decomposed_in_single_precision(dtype):
    host = clip(torch.float32).to(dtype)
    c = ss.wrap(host).left.contributions(pixels(dtype=dtype), ss.ChainedJacobian(layer=1))[0]
    assert c.vectors.dtype == torch.float32
    assert residual(c) <= 1e-5
    assert {p.dtype for p in host.parameters()} == {dtype}


@torch.library.custom_op("secondsight_tests::cube", mutates_args=())
def cube(x: Tensor) -> Tensor:
    return x**3


def branch(x: Tensor) -> Tensor:
    return x.tanh() if float(x[0, 0, 0]) > noise(1, 4, 6, seed=10)[0, 0, 0] + 1e-9 else x.sin() + x


REFUSED = {
    "sort": (lambda x: x.sort(-1).values, "aten.sort"), "cumprod": (lambda x: x.cumprod(1), "aten.cumprod"),
    "topk": (lambda x: x.topk(2, -1).values, "aten.topk"), "fft": (lambda x: torch.fft.rfft(x).abs(), "fft"),
    "custom": (lambda x: cube(x), "secondsight_tests.cube"), "branch": (branch, "did not run alike"),
    "index": (lambda x: x[:, x[0, :, 0].argsort()], "argument 2"), "number": (lambda x: x * x.sum().item(), "argument 1"),
    "added-number": (lambda x: x.tanh() + x.sum().item(), "argument 1"),
    "slice": (lambda x: x[:, int(x[0, 0, 0] == noise(1, 4, 6, seed=10)[0, 0, 0])], "aten.select"),
    "mask": (lambda x: x.masked_fill(x > 0, 0.0), "argument 1"),
    "numpy": (lambda x: x + torch.from_numpy(x.numpy() ** 2), "argument 1"),
    "only-numpy": (lambda x: torch.from_numpy(x.numpy() ** 2), "leaves torch"),
    "step": (lambda x: (x > 0).double() + 1, "leaves torch"), "rounded": (lambda x: x.long().double() + 0 * x, "argument"),
    "jump": (lambda x: torch.where(x > 0, x * 0 + 1, x * 0), "leaves torch"),
    "random": (lambda x: F.dropout(x, 0.5, training=True), "argument"),
    "batch-norm": (lambda x: F.batch_norm(x.mT.expand(2, 6, 4), None, None, training=True)[:1], "statistics from the batch"),
    "write": (lambda x: torch.empty(0, dtype=x.dtype).set_(x + 0), "aten.set_"),
    "complex": (lambda x: torch.view_as_complex(x.unflatten(-1, (3, 2))).abs(), "aten.abs"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_chained_is_refused_in_a_sentence(name):
    function, named = REFUSED[name]

    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x) * 2.0

    host = Host(lambda x: host.parts(x) * 1.5, Inner()).eval()
    before = snapshot(host)
    with pytest.raises(ss.InputError) as raised:
        explained(host)
    sentence = str(raised.value)
    assert named in sentence
    assert "IntegratedJacobian" in sentence
    if "leaves torch" not in sentence:
        assert "Inner 'parts'" in sentence
    after = snapshot(host)
    assert before.keys() == after.keys()
    assert repr(before) == repr(after)


def test_digits_that_a_precision_loses_are_named_with_the_remedy_that_brings_them_back():
    def function(x: Tensor) -> Tensor:
        large = 1e6 * x.sin()
        return (large + x.tanh()) - large

    start, end = (noise(1, 4, 6, seed=seed, dtype=torch.float32) for seed in (10, 11))
    with pytest.raises(ss.InputError, match=r"round its digits away in float32, .*: use model\.double\(\), Integrated"):
        explained(function, start, end)
    assert residual(explained(function, start.double(), end.double())) <= 1e-5
    with pytest.raises(ss.InputError, match="because a value leaves torch .* jumps: use Integrated"):
        explained(lambda x: (x > 0).double() + 1)


def test_a_rule_of_the_projects_own_makes_an_operation_work():
    def rule(move):
        (a, b), source = move.points(0), move.sources[0]
        return [Edge(source, move.after.targets[0], Scale(a.shape, a.shape, a * a + a * b + b * b))]

    name = torch.ops.secondsight_tests.cube.default
    RULES[name] = rule
    try:
        ours = explained(lambda x: cube(x) @ A)
    finally:
        del RULES[name]
    assert (ours.vectors - explained(lambda x: x**3 @ A).vectors).abs().max() <= 1e-12 * ours.vectors.abs().max()


def attention(x: Tensor) -> Tensor:
    return F.layer_norm((x @ x.mT).softmax(-1) @ x, (6,)) @ A.to(x.dtype)


def hidden_rows(x: Tensor) -> Tensor:
    visible = torch.tensor([[True, False, False, True]]).mT.expand(4, 4)
    return F.scaled_dot_product_attention(x, x, x, attn_mask=visible) + x.tanh()


EDGES = {
    "large": lambda x: attention(F.layer_norm(x * 1e4, (6,))) + F.gelu(x * 1e4), "small": lambda x: attention(x * 1e-6),
    "saturated": lambda x: (100 * x).softmax(-1) @ A.float(),
    "constant-vector": lambda x: F.layer_norm(x.mean(-1, keepdim=True).expand(1, 4, 6), (6,)) + x.sin(),
    "hidden-rows": hidden_rows, "steep": lambda x: torch.tanh(1e4 * x) + torch.sigmoid(-1e3 * x),
    "exp": lambda x: (x * 20).exp().log1p(), "gelu": lambda x: F.gelu(x * 1e4),
    "sigmoid": lambda x: torch.sigmoid(x * 1e-5) + x, "tiny-norm": lambda x: F.normalize(x * 1e-6, dim=-1),
    "whole-mask": lambda x: attention(x + 0 * x.relu()),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_extreme_numbers_add_up_in_single_precision(name):
    points = [noise(1, 4, 6, seed=seed, dtype=torch.float32) for seed in (10, 11)]
    with differentiable():
        linear = Linearisation(EDGES[name], *points)
    rise = linear.value - linear.start_value
    assert linear.push(torch.eye(24).reshape(24, 1, 4, 6)).isfinite().all()
    assert (linear.push((points[1] - points[0])[None])[0] - rise).norm() <= 1e-5 * (rise.norm() + linear.value.norm())
    c = explained(EDGES[name], *points)
    # Single precision rounds logits of several hundreds by some 3e-5, which a saturated softmax passes on.
    assert residual(c) <= (1e-4 if name == "saturated" else 1e-5)


def test_an_input_that_is_its_own_reference_contributes_nothing():
    c = explained(deep, noise(1, 4, 6), noise(1, 4, 6))
    assert c.vectors.eq(0).all()
    assert c.relative_residual == 0


def test_a_position_that_stands_still_contributes_nothing():
    start, end = noise(1, 4, 6, seed=10), noise(1, 4, 6, seed=11)
    end[:, 2] = start[:, 2]
    vectors = explained(deep, start, end).vectors
    assert vectors[2].eq(0).all()
    assert vectors[[0, 1, 3]].norm(dim=-1).min() > 1e-3


@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("function", [torch.sigmoid, torch.exp, F.softplus, F.gelu, torch.tanh])
def test_small_steps_have_exact_slopes_in_single_precision(function, scale):
    points = [scale * noise(1, 4, 6, seed=seed) for seed in (10, 11)]
    with differentiable():
        double = Linearisation(function, *points).pull(torch.ones(1, 1, 4, 6, dtype=torch.float64))
        single = Linearisation(function, *(z.float() for z in points)).pull(torch.ones(1, 1, 4, 6))
    assert (single - double).abs().max() <= 1e-4 * double.abs().max()


def test_long_steps_tell_how_far_they_are(monkeypatch):
    monkeypatch.setattr(linearisation, "_ROW_FLOATS_ON_CPU", 1)
    contributions, shares = explained(deep, noise(1, 4, 6, seed=1), noise(1, 4, 6, seed=2)), []
    rows = torch.eye(len(contributions.embedding), dtype=torch.float64)
    with listening(shares.append):
        contributions.rows.pull(rows)
    contributions.rows.pull(rows)
    assert shares == sorted(shares)
    assert {(row + 1) / len(rows) for row in range(len(rows))} <= set(shares)


def test_a_long_step_of_one_row_tells_how_far_it_is_on_the_way(monkeypatch):
    monkeypatch.setattr(linearisation, "_EDGES_TOLD", 2)
    shares = []
    for cells in (1, 3):
        contributions = explained(deep, noise(1, 4, 6, seed=1), noise(1, 4, 6, seed=2), cells=cells)
        with listening(shares.append):
            contributions.rows.pull(torch.ones(1, len(contributions.embedding), dtype=torch.float64))
        assert len(shares) > 3
        assert shares == sorted(shares)
        assert shares[-1] == 1
        shares.clear()
