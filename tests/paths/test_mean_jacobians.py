"""Every rule against its mean Jacobian by brute force, alone and in small chains."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mean_jacobians import chained
from secondsight.paths.linearisation import Linearisation
from secondsight.paths.rules import AFFINE, RULES
from secondsight.paths.tape import record
from secondsight.support.guard import differentiable

aten = torch.ops.aten


def module(part: nn.Module) -> nn.Module:
    """In double precision, with weights that do something."""
    generator = torch.Generator().manual_seed(7)
    part = part.double().eval().requires_grad_(False)
    for name, tensor in [*part.named_parameters(), *part.named_buffers()]:
        if tensor.is_floating_point():
            random = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.copy_(random + 0.5 if tensor.ndim == 1 and "bias" not in name else random - 0.5)
    return part


def constant(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def causal(scores: Tensor) -> Tensor:
    return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), float("-inf"))


def attend(x: Tensor, **options: object) -> Tensor:
    q, k, v = (x @ constant(6, 6, seed=seed) for seed in (1, 2, 3))
    q, k, v = (z.unflatten(-1, (2, 3)).transpose(-3, -2) for z in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, **options)


def multihead(**options: object):
    attention = module(nn.MultiheadAttention(6, 2, batch_first=True))
    return lambda x: attention(x, x, x, need_weights=False, **options)[0]


def pieces(parts) -> Tensor:
    return sum((k + 1) * part.tanh() for k, part in enumerate(parts))


def first_max(x: Tensor, axis: int) -> Tensor:
    return x.max(axis).values + x.min(axis).values


ELEMENTWISE = {
    "gelu": F.gelu, "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"), "relu": F.relu, "silu": F.silu, "tanh": torch.tanh,
    "sigmoid": torch.sigmoid, "exp": torch.exp, "erf": torch.erf, "sin": torch.sin, "cos": torch.cos, "atan": torch.atan,
    "sqrt": lambda x: x.square().add(1).sqrt(), "rsqrt": lambda x: (x.square() + 1).rsqrt(),
    "log": lambda x: (x.square() + 1).log(), "log1p": lambda x: x.square().log1p(), "expm1": torch.expm1,
    "reciprocal": lambda x: 1 / (x.exp() + 1), "reciprocal-itself": lambda x: (x.exp() + 1).reciprocal(),
    "square": torch.square, "cube": lambda x: x**3, "power": lambda x: (x.square() + 1) ** 0.3,
    "number-to-the-power": lambda x: 1.5**x, "neg": torch.neg, "abs": torch.abs, "hardtanh": F.hardtanh, "relu6": F.relu6,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "leaky-relu": lambda x: F.leaky_relu(x, 0.1), "elu": F.elu,
    "selu": F.selu, "celu": lambda x: F.celu(x, 1.5), "softplus": F.softplus, "logsigmoid": F.logsigmoid, "mish": F.mish,
    "clamp": lambda x: x.clamp(-0.5, 0.5), "clamp-min": lambda x: x.clamp(min=0.5), "clamp-max": lambda x: x.clamp(max=0.5),
    "softsign": F.softsign, "tanhshrink": F.tanhshrink, "threshold": lambda x: F.threshold(x, 0, 0),
    "prelu": lambda x: F.prelu(x, constant(1).abs()), "quick-gelu": lambda x: x * torch.sigmoid(1.702 * x),
}  # fmt: skip

PRODUCTS = {
    "product": lambda x: x * x.tanh(), "broadcast-product": lambda x: x * x.tanh().sum(0, keepdim=True),
    "gate": lambda x: x[:, :, :1] * x.sigmoid(), "constant-factor": lambda x: constant(3, 1, 6) * x,
    "number": lambda x: 3 * x - 2, "add": lambda x: x + x.tanh()[:1], "sub-alpha": lambda x: torch.sub(x, x.sin(), alpha=2),
    "rsub": lambda x: 1 - x, "rsub-alpha": lambda x: torch.rsub(x, x.sin(), alpha=3), "add-row": lambda x: x.mean(0) + x,
    "linear": module(nn.Linear(6, 4)), "linear-of-2d": lambda x: F.linear(x.flatten(1), constant(5, 24), constant(5)),
    "mm": lambda x: x[0] @ x[0].tanh().T, "bmm": lambda x: torch.bmm(x, x.sin().mT),
    "left-matrix": lambda x: constant(5, 4) @ x,
    "addmm": lambda x: torch.addmm(x[0, :, :4], x[1].tanh(), x[2].T, beta=0.5, alpha=2),
    "addmm-row": lambda x: torch.addmm(x[0, 0, :4], x[1].tanh(), x[2].T, beta=0.5, alpha=2),
    "baddbmm": lambda x: torch.baddbmm(x[:, :, :4], x.tanh(), x.mT, beta=-1, alpha=3),
    "baddbmm-broadcast": lambda x: torch.baddbmm(x[:1, :1, :4], x.tanh(), x.mT, beta=-1, alpha=3),
    "einsum": lambda x: torch.einsum("bpd,bqd,q->bpq", x, x.sin(), constant(4)), "mv": lambda x: x[0] @ constant(6),
    "outer": lambda x: torch.outer(x[0, 0], x[1, 1].sin()), "dot": lambda x: x[0, 0] @ constant(6) * x,
    "moving-mv": lambda x: x[0] @ x[1, 1].tanh(), "moving-dot": lambda x: x[0, 0].dot(x[1, 0].tanh()) + x,
    "div": lambda x: x.sin() / (x.square() + 1), "div-constant": lambda x: x / constant(6), "div-number": lambda x: x / 3,
    "constant-div": lambda x: constant(4, 6) / (x.square() + 1),
    "div-broadcast": lambda x: x / x.square().sum(-1, keepdim=True), "sum": lambda x: x.tanh().sum(),
    "sum-axes": lambda x: x.sum((0, 2)), "mean": lambda x: x.sin().mean() * x,
    "mean-axes": lambda x: x.mean((1, 2), keepdim=True), "addcmul": lambda x: torch.addcmul(x, x.sin(), x.cos(), value=2),
    "lerp": lambda x: x.lerp(x.sin(), 0.3), "lerp-moving": lambda x: x.lerp(x.sin(), x.sigmoid()),
}  # fmt: skip

NORMS = {
    "softmax": lambda x: (2 * x).softmax(-1), "softmax-middle": lambda x: x.softmax(1),
    "softmax-first": lambda x: x.softmax(0), "softmax-masked": lambda x: causal(x @ x.mT).softmax(-1),
    "softmax-added-mask": lambda x: (x @ x.mT + causal(torch.zeros(4, 4))).softmax(-1),
    "log-softmax": lambda x: x.log_softmax(-1), "logsumexp": lambda x: x.logsumexp(-1), "attention": attend,
    "attention-causal": lambda x: attend(x, is_causal=True), "attention-scale": lambda x: attend(x, scale=0.2),
    "attention-mask": lambda x: attend(x, attn_mask=torch.ones(4, 4).tril().bool()),
    "attention-bias": lambda x: attend(x, attn_mask=constant(4, 4)),
    "attention-hidden-row": lambda x: attend(x, attn_mask=(torch.arange(4) != 1)[:, None].expand(4, 4)),
    "multihead": multihead(), "multihead-mask": multihead(attn_mask=torch.ones(4, 4).triu(1).bool()),
    "multihead-padding": multihead(key_padding_mask=torch.arange(4).expand(3, 4) > 2), "layer-norm": module(nn.LayerNorm(6)),
    "layer-norm-plain": lambda x: F.layer_norm(x, (6,)), "layer-norm-2-axes": module(nn.LayerNorm((4, 6))),
    "layer-norm-2-axes-plain": lambda x: F.layer_norm(x, (4, 6)),
    "rms-written-out": lambda x: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt(), "rms-norm": module(nn.RMSNorm(6)),
    "rms-norm-2-axes": lambda x: F.rms_norm(x, (4, 6)), "group-norm": module(nn.GroupNorm(2, 4)),
    "group-norm-plain": lambda x: F.group_norm(x, 2), "instance-norm": module(nn.InstanceNorm1d(4, affine=True)),
    "batch-norm": module(nn.BatchNorm1d(4)), "normalize": lambda x: F.normalize(x, dim=-1),
    "normalize-axis": lambda x: F.normalize(x, dim=1), "norm": lambda x: x.norm(dim=(0, 2)),
    "whole-norm": lambda x: x / x.norm(), "vector-norm": lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True),
    "written-layer-norm": lambda x: (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt(),
    "var-mean": lambda x: sum(torch.var_mean(x, (0, 2))), "std": lambda x: x / x.std(-1, keepdim=True),
    "cosine": lambda x: F.cosine_similarity(x[:1], x[1:].sin(), dim=-1),
    "normalize-absolute": lambda x: F.normalize(x, p=1, dim=-1),
}  # fmt: skip

CONVOLUTIONS = {
    "conv1d": lambda x: F.conv1d(x, constant(5, 4, 3), constant(5), padding=1),
    "conv1d-alone": lambda x: F.conv1d(x[0], constant(2, 4, 3)),
    "conv2d": lambda x: F.conv2d(x[:, None], constant(2, 1, 3, 3), stride=2),
    "conv2d-dilated": lambda x: F.conv2d(x[None], constant(2, 3, 2, 2), dilation=2),
    "conv2d-grouped": lambda x: F.conv2d(x[None], constant(6, 1, 2, 3), groups=3, padding=(0, 1)),
    "conv2d-same": lambda x: F.conv2d(x[None], constant(2, 3, 3, 3), padding="same"),
    "conv-transposed": lambda x: F.conv_transpose2d(x[None], constant(3, 2, 3, 3), stride=2, output_padding=1, padding=1),
    "conv-transposed-1d": lambda x: F.conv_transpose1d(x, constant(4, 2, 3), stride=2),
    "conv3d": lambda x: F.conv3d(x[None, None], constant(2, 1, 2, 2, 2)), "avg-pool": lambda x: F.avg_pool2d(x, 2),
    "avg-pool-1d": lambda x: F.avg_pool1d(x, 2), "adaptive-pool": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive-pool-1d": lambda x: F.adaptive_avg_pool1d(x, 4), "global-pool": lambda x: F.adaptive_avg_pool2d(x, 1),
    "upsample-nearest": lambda x: F.interpolate(x[None], scale_factor=2),
    "upsample-linear": lambda x: F.interpolate(x[None], scale_factor=2, mode="bilinear"),
    "upsample-cubic": lambda x: F.interpolate(x[None], size=(5, 7), mode="bicubic"),
    "upsample-aa": lambda x: F.interpolate(x[None], size=(2, 3), mode="bilinear", antialias=True),
    "upsample-1d": lambda x: F.interpolate(x, size=9, mode="linear"), "unfold": lambda x: F.unfold(x[None], 2),
    "unfold-axis": lambda x: x.unfold(-1, 3, 2), "pixel-shuffle": lambda x: F.pixel_shuffle(x.reshape(1, 12, 2, 3), 2),
    "pixel-unshuffle": lambda x: F.pixel_unshuffle(x, 2), "upsample-nearest-1d": lambda x: F.interpolate(x, size=9),
    "upsample-nearest-3d": lambda x: F.interpolate(x[None, None], scale_factor=2),
    "upsample-trilinear": lambda x: F.interpolate(x[None, None], size=(2, 5, 7), mode="trilinear"),
    "upsample-exact": lambda x: F.interpolate(x[None], size=(5, 7), mode="nearest-exact"),
    "upsample-exact-1d": lambda x: F.interpolate(x, size=7, mode="nearest-exact"),
    "upsample-exact-3d": lambda x: F.interpolate(x[None, None], size=(2, 5, 7), mode="nearest-exact"),
    "upsample-cubic-aa": lambda x: F.interpolate(x[None], size=(2, 3), mode="bicubic", antialias=True),
    "avg-pool-3d": lambda x: F.avg_pool3d(x[None], 2),
    "adaptive-pool-3d": lambda x: F.adaptive_avg_pool3d(x[None], (2, 1, 3)),
    "fold": lambda x: F.fold(x.reshape(1, 12, 6), (3, 4), 2),
}  # fmt: skip

CHOICES = {
    "max-pool": lambda x: F.max_pool2d(x[None], (1, 2)), "max-pool-1d": lambda x: F.max_pool1d(x, 2),
    "max-pool-3d": lambda x: F.max_pool3d(x[None, None, :2], (2, 1, 1)),
    "adaptive-max": lambda x: F.adaptive_max_pool2d(x[None, :, :2, :1], 1), "amax": lambda x: x[:, :2].amax(1),
    "amin": lambda x: x[:, :2].amin(1, keepdim=True), "amax-axes": lambda x: x[:, :1, :2].amax((1, 2)),
    "max-dim": lambda x: first_max(x[:2], 0), "max-dim-keep": lambda x: x[:, :, :2].max(-1, keepdim=True).values,
    "max-all": lambda x: x[0, 0, :2].max() + x, "maximum": lambda x: torch.maximum(x, x.sin() + x[:1]),
    "minimum": lambda x: torch.minimum(x, x.flip(0)), "maximum-constant": lambda x: torch.maximum(x, torch.zeros(())),
    "where-constant-mask": lambda x: torch.where(constant(4, 6) > 0, x, x.tanh()),
    "adaptive-max-3d": lambda x: F.adaptive_max_pool3d(x[None, :, :2, :1], 1), "min-all": lambda x: x[0, 0, :2].min() * x,
}  # fmt: skip

MOVES = {
    "index": lambda x: x[:, [0, 2, 2]], "mask-index": lambda x: x[:, torch.tensor([True, False, True, True])],
    "index-pair": lambda x: x[[0, 1], [2, 3]], "slices": lambda x: x[:, 1:3, ::2], "last": lambda x: x[:, -1],
    "ellipsis": lambda x: x[..., None, 0], "index-select": lambda x: x.index_select(1, torch.tensor([3, 0])),
    "gather": lambda x: x.gather(2, torch.tensor([[[1], [0], [5], [2]]]).expand(3, 4, 1)),
    "take-along": lambda x: torch.take_along_dim(x, torch.tensor([[[1]]]), 2),
    "cat": lambda x: torch.cat([x, constant(3, 2, 6), x.tanh()], 1), "stack": lambda x: torch.stack([x, x.sin()], 1),
    "split": lambda x: pieces(x.split(2, 1)), "split-sizes": lambda x: pieces(part.sum(1) for part in x.split([1, 3], 1)),
    "chunk": lambda x: pieces(x.chunk(3, -1)), "unbind": lambda x: pieces(x.unbind(1)),
    "tensor-split": lambda x: pieces(x.tensor_split(2, 1)), "roll": lambda x: x.roll((1, 2), (0, 2)),
    "flip": lambda x: x.flip(1), "pad": lambda x: F.pad(x, (1, 2, 0, 1)), "pad-value": lambda x: F.pad(x, (1, 0), value=3.0),
    "pad-negative": lambda x: F.pad(x, (-1, 1)), "pad-reflect": lambda x: F.pad(x, (2, 1, 1, 0), mode="reflect"),
    "pad-reflect-1d": lambda x: F.pad(x, (2, 1), mode="reflect"),
    "pad-replicate": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "pad-replicate-1d": lambda x: F.pad(x, (1, 1), mode="replicate"),
    "pad-circular": lambda x: F.pad(x, (1, 1), mode="circular"), "expand": lambda x: x[:, :, None].expand(3, 4, 2, 6).tanh(),
    "expand-front": lambda x: x.expand(2, 3, 4, 6), "broadcast": lambda x: torch.broadcast_to(x[:1], (3, 4, 6)),
    "permute": lambda x: x.permute(2, 0, 1), "transpose": lambda x: x.transpose(0, -1), "t": lambda x: x[0].t(),
    "mT": lambda x: x.mT, "movedim": lambda x: x.movedim(0, -1), "swap": lambda x: x.swapaxes(0, 1),
    "view": lambda x: x.view(12, 6), "flatten": lambda x: x.flatten(1), "unflatten": lambda x: x.unflatten(-1, (2, 3)),
    "squeeze": lambda x: x[:, :1].squeeze(1), "squeeze-all": lambda x: x[:1].squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(-2), "repeat": lambda x: x.repeat(2, 1, 2), "tile": lambda x: x.tile(2),
    "repeat-interleave": lambda x: x.repeat_interleave(2, 1), "tril": lambda x: x.tril(), "triu": lambda x: x.triu(1),
    "cumsum": lambda x: x.cumsum(1), "diagonal": lambda x: x.diagonal(dim1=1, dim2=2),
    "masked-fill": lambda x: x.masked_fill(constant(4, 6) > 0, 2.0), "as-strided": lambda x: x.as_strided((3, 4), (24, 6)),
    "where-number": lambda x: torch.where(constant(4, 6) > 0, x, 0.0),
    "scatter": lambda x: x.scatter(1, torch.tensor([[[0] * 6]]).expand(3, 1, 6), x[:, 3:].sin()),
    "scatter-add": lambda x: x.scatter_add(1, torch.tensor([[[0] * 6]]).expand(3, 1, 6), x[:, 3:].sin()),
    "index-add": lambda x: x.index_add(1, torch.tensor([1]), x[:, :1].sin()),
    "index-put": lambda x: x.index_put((torch.tensor([0]),), x[1].tanh()),
    "slice-scatter": lambda x: x.slice_scatter(x[:, :2].sin(), 1, 2, 4),
    "select-scatter": lambda x: x.select_scatter(x[0].sin(), 0, 1), "clone": lambda x: x.clone() + x.contiguous(),
    "cast": lambda x: x.float().double(), "narrow": lambda x: x.narrow(1, 1, 2),
    "meshed": lambda x: torch.meshgrid(x[0, 0], x[1, 1], indexing="ij")[0], "rot90": lambda x: x.rot90(1, (1, 2)),
    "diag": lambda x: torch.diag_embed(x), "trace": lambda x: x[:, :4, :4].diagonal(dim1=-2, dim2=-1).sum(-1),
    "take": lambda x: x.take(torch.tensor([0, 5])),
    "zeros-like": lambda x: x + torch.zeros_like(x) + torch.ones_like(x) + torch.full_like(x, 2),
    "masked-select": lambda x: x.masked_select(constant(4, 6) > 0), "glu": F.glu,
    "hstack": lambda x: torch.hstack([x, x.sin()]), "kron": lambda x: torch.kron(x[0], constant(2, 2)),
    "reshape-permuted": lambda x: x.permute(2, 1, 0).reshape(4, 18),
    "masked-fill-moving": lambda x: x.masked_fill(constant(4, 6) > 0, x[0, 0, 0].sin()),
    "scatter-value": lambda x: x.scatter(1, torch.tensor([[[0] * 6]]).expand(3, 1, 6), 2.0),
    "pad-reflect-3d": lambda x: F.pad(x[None], (1, 1, 2, 0, 1, 1), mode="reflect"),
    "pad-replicate-3d": lambda x: F.pad(x[None], (1, 1, 2, 0, 1, 1), mode="replicate"),
    "squeeze-axes": lambda x: x[:1, :1].squeeze((0, 1)), "unsafe-split": lambda x: pieces(x.unsafe_split(2, 1)),
    "unsafe-split-sizes": lambda x: pieces(p.sum(1) for p in x.unsafe_split_with_sizes([1, 3], 1)),
    "alias": lambda x: x[...].tanh(),
}  # fmt: skip

WRITTEN_OUT = {
    "pad-circular": lambda x: torch.cat([x[..., -1:], x, x[..., :1]], -1),
    "glu": lambda x: x[..., :3] * torch.sigmoid(x[..., 3:]),
}  # fmt: skip
"""For the oracle: functions that torch computes in place, or that are a product and something before it in one operation."""

CASES = {**ELEMENTWISE, **PRODUCTS, **NORMS, **CONVOLUTIONS, **CHOICES, **MOVES}


ELSEWHERE = {
    aten.detach.default, aten.copy.default, aten.lift_fresh.default, aten.as_strided_scatter.default,
    aten.view_as_complex.default, aten.view_as_real.default, aten.zero.default, aten.fill.Tensor, aten.fill.Scalar,
}  # fmt: skip
"""What only models with tricks run, see test_chained."""

BY_OTHER_BACKENDS = {
    aten._native_batch_norm_legit_no_training.default, aten._batch_norm_no_update.default, aten.mul.Scalar,
    aten.div.Scalar, aten.add.Scalar, aten.sub.Scalar,
}  # fmt: skip


def test_every_rule_has_a_case():
    reached = set()
    with differentiable():
        for function in CASES.values():
            record(function, constant(3, 4, 6, seed=10), lambda operation: reached.add(operation.function))
    rules = {function for function in RULES if function.namespace == "aten"}  # not those that other tests add
    assert (rules | AFFINE) - reached <= ELSEWHERE | BY_OTHER_BACKENDS


@pytest.mark.parametrize("name", CASES)
def test_every_rule_is_its_mean_jacobian(name):
    function = CASES[name]
    start, end = constant(3, 4, 6, seed=10), constant(3, 4, 6, seed=11)
    with differentiable():
        expected = chained(WRITTEN_OUT.get(name, function), start, end)
        linear = Linearisation(function, start, end)
    inputs = torch.eye(72, dtype=torch.float64).reshape(72, 3, 4, 6)
    pushed = linear.push(inputs)
    rise = linear.value - linear.start_value
    # torch's derivative of hardsigmoid is a number in single precision.
    exact = 2e-5 if name in ("cast", "hardsigmoid") else 1e-10
    scale = expected.abs().max()
    assert scale > 0
    assert (pushed.movedim(0, -1).reshape(expected.shape) - expected).abs().max() <= exact * scale
    assert (linear.push((end - start)[None])[0] - rise).abs().max() <= exact / 100 * (1 + rise.abs().max())
    cotangents, tangents = constant(2, *rise.shape, seed=5), constant(2, 3, 4, 6, seed=6)
    both = [float(p.sum()) for p in (linear.pull(cotangents) * tangents, cotangents * linear.push(tangents))]
    assert both[0] == pytest.approx(both[1], rel=exact / 100, abs=exact / 100)
