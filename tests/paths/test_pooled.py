"""The pooled closed form by itself: a block written out plainly, every variant against whole Jacobians in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models import naive
from secondsight.paths.pooled import PooledBlock, PooledPath
from secondsight.paths.quadrature import Rule, rule
from secondsight.paths.tails import Affine, Chain, Mlp, Norm, Residual, Unit

WIDTH, HEADS, INNER = 10, 3, 12
GEN = torch.Generator().manual_seed(5)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GEN, dtype=torch.float64)


def affine(out: int, into: int, bias: bool = True) -> Affine:
    return Affine(draw(out, into) / into**0.5 * 1.5, draw(out) / 2 if bias else None)


def block(norm: str, pool: int, gain: bool, residual: bool, masked: bool, joint: int, bias: bool = True) -> PooledBlock:
    norms = {
        "layer": Norm(draw(WIDTH).abs() + 0.5, draw(WIDTH) / 3, 1e-5),
        "plain": Norm(None, None, 1e-3),
        "rms": Norm(draw(WIDTH).abs() + 0.5, None, 1e-5, centred=False),
        "none": None,
    }
    mlp = Chain((Norm(draw(WIDTH).abs(), draw(WIDTH), 1e-5), Mlp(affine(16, WIDTH), F.gelu, affine(WIDTH, 16))))
    mask = None
    if masked:
        mask = torch.zeros(7, dtype=torch.float64)
        mask[5:] = -torch.inf
    return PooledBlock(
        pool=pool,
        query=affine(INNER, WIDTH, bias),
        key=affine(INNER, WIDTH, bias),
        value=affine(INNER, WIDTH, bias),
        out=affine(WIDTH, INNER, bias),
        heads=HEADS,
        tail=Chain((Residual(mlp), Norm(draw(WIDTH), draw(WIDTH), 1e-5), affine(joint, WIDTH, False))),
        norm=norms[norm],
        gain=draw(WIDTH) if gain else None,
        residual=residual,
        mask=mask,
    )


def written_out(b: PooledBlock, part: int | None = None, held: Tensor | None = None):
    """The block and its tail as anybody would write them, for a batch of hidden states (node, position, width).

    With `held`, only one head, or for `part` = `HEADS` only the residual stream, sees the given states; all else sees those
    that are held.
    """

    def normed(x: Tensor, n: Norm | None) -> Tensor:
        if n is None:
            return x
        centred = x - x.mean(-1, keepdim=True) if n.centred else x
        out = centred / (centred.square().mean(-1, keepdim=True) + n.eps).sqrt()
        out = out if n.weight is None else out * n.weight
        return out if n.bias is None else out + n.bias

    def linear(x: Tensor, a: Affine) -> Tensor:
        return F.linear(x, a.weight, a.bias)

    def attention(x: Tensor) -> Tensor:
        h = normed(x, b.norm)
        split = lambda t: t.unflatten(-1, (b.heads, -1)).transpose(-2, -3)  # noqa: E731
        q, k, v = split(linear(h[:, [b.pool]], b.query)), split(linear(h, b.key)), split(linear(h, b.value))
        logits = q @ k.mT / k.shape[-1] ** 0.5
        if b.mask is not None:
            logits = logits + b.mask
        return (logits.softmax(-1) @ v)[:, :, 0]

    def head(x: Tensor) -> Tensor:
        z, stream = attention(x), x[:, b.pool]
        if held is not None:
            seen = torch.zeros(HEADS, 1, dtype=torch.float64)
            seen[part : part + 1] = 1
            z = seen * z + (1 - seen) * attention(held[None])
            stream = stream if part == HEADS else held[None, b.pool]
        y = linear(z.flatten(1), b.out)
        y = y if b.gain is None else y * b.gain
        y = stream + y if b.residual else y
        residual, last, project = b.tail.stages[:3]
        norm, mlp = residual.inner.stages
        y = y + linear(F.gelu(linear(normed(y, norm), mlp.first)), mlp.last)
        out = F.linear(normed(y, last), project.weight)
        return F.normalize(out, dim=-1) if len(b.tail.stages) > 3 else out

    return head


VARIANTS = [
    dict(norm=norm, pool=pool, gain=gain, residual=residual, masked=masked, joint=joint)
    for (norm, pool), (gain, residual, masked, joint) in zip(
        itertools.product(("layer", "plain", "rms", "none"), (0, 3, 6)),
        itertools.cycle(
            [(False, True, False, 4), (True, True, True, 9), (True, False, False, 7), (False, False, True, 5)]
        ),
        strict=False,
    )
    if not (masked and pool == 6)
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(str(x) for x in v.values()))
@pytest.mark.parametrize("bias", [True, False])
def test_every_variant_is_the_naive_formula(variant, bias):
    b = block(**variant, bias=bias)
    start, end = draw(7, WIDTH), draw(7, WIDTH) * 2
    head, r = written_out(b), rule("gauss-legendre", 3)
    path = PooledPath(b, b.reference(start), end)
    wanted = naive(head, start, end, r.nodes, r.weights)
    size = float(wanted.abs().max())

    def close(a: Tensor, c: Tensor) -> bool:
        return a.shape == c.shape and float((a - c).abs().max()) < 1e-10 * size

    vectors = path.vectors(r)
    assert close(vectors, wanted)
    assert path.positions == 7
    # The same by every other way, each asked first of a fresh path as well.
    directions, weights = draw(3, variant["joint"]), draw(7)
    for own in (path, PooledPath(b, b.reference(start), end)):
        assert close(own.pull(r, directions), directions @ wanted.T)
        assert close(own.push(r, weights), weights @ wanted)
        assert close(r.weights @ own.total(r), wanted.sum(0))
    ends = path.value_at(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert close(ends, head(torch.stack([start, end])))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(str(x) for x in v.values()))
def test_heads_are_the_naive_formula_with_all_other_heads_held(variant):
    b = block(**variant)
    start, end, r = draw(7, WIDTH), draw(7, WIDTH) * 2, rule("gauss-legendre", 3)
    path = PooledPath(b, b.reference(start), end)
    by_head = path.vectors_by_head(r)
    assert by_head.shape == (HEADS + 1, 7, variant["joint"])
    for part in range(HEADS + 1):
        wanted = torch.zeros(7, variant["joint"], dtype=torch.float64)
        for alpha, weight in zip(r.nodes.tolist(), r.weights.tolist(), strict=True):
            at = start + alpha * (end - start)
            jacobian = torch.func.jacrev(lambda x, p=part, h=at: written_out(b, p, h)(x[None])[0])(at)
            wanted += weight * torch.einsum("kpd,pd->pk", jacobian, end - start)
        assert torch.allclose(by_head[part], wanted, rtol=1e-10, atol=1e-11)
    assert torch.allclose(by_head.sum(0), path.vectors(r), rtol=1e-11, atol=1e-12)
    assert torch.allclose(path._by_head_and_node(r), by_head, rtol=1e-11, atol=1e-12)


def test_node_by_node_where_memory_is_short():
    b = block("layer", 0, True, True, False, 9)
    start, end, r = draw(7, WIDTH), draw(7, WIDTH), rule("gauss-legendre", 4)
    path = PooledPath(b, b.reference(start), end)
    whole = path.vectors(r)
    assert torch.allclose(path.vectors_by_node(r), whole, rtol=1e-12, atol=1e-13)
    assert [float(r.node(n).nodes[0]) for n in range(4)] == r.nodes.tolist()


def test_a_unit_tail_and_rules_that_change():
    """What is kept of one rule is not taken for another's, though it has as many nodes."""
    b = block("layer", 3, False, True, False, 5)
    unit = PooledBlock(**{**vars(b), "tail": Chain((*b.tail.stages, Unit()))})
    start, end = draw(7, WIDTH), draw(7, WIDTH)
    path, head = PooledPath(unit, unit.reference(start), end), written_out(unit)
    for nodes in ([0.2, 0.9], [0.3, 0.9], [0.3, 0.8]):
        r = Rule(torch.tensor(nodes, dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64))
        wanted = naive(head, start, end, r.nodes, r.weights)
        assert torch.allclose(path.vectors(r), wanted, rtol=1e-9, atol=1e-12)


def test_many_nodes_and_positions_go_through_the_tail_in_parts():
    b = block("layer", 0, False, True, False, 400)
    start, end, r = draw(300, WIDTH), draw(300, WIDTH), rule("gauss-legendre", 8)
    path = PooledPath(b, b.reference(start), end)
    vectors = path.vectors(r)
    directions = draw(2, 400)
    assert torch.allclose(path.pull(r, directions), directions @ vectors.T, rtol=1e-9, atol=1e-10)
    ends = path.value_at(torch.tensor([0.0, 1.0], dtype=torch.float64))
    fine = rule("gauss-legendre", 96)
    assert torch.allclose(path.vectors(fine).sum(0), ends[1] - ends[0], atol=1e-6)


def test_single_precision_stays_single():
    """Rules are in double; nothing of a model in float32 may be lifted by them, nor refuse them."""
    single = lambda a: Affine(a.weight.float(), None if a.bias is None else a.bias.float())  # noqa: E731
    for norm in ("plain", "none"):
        b = block(norm, 0, False, True, False, 5)
        mlp = b.tail.stages[0].inner.stages[1]
        low = PooledBlock(
            pool=0, query=single(b.query), key=single(b.key), value=single(b.value), out=single(b.out), heads=HEADS,
            tail=Chain((Residual(Mlp(single(mlp.first), F.gelu, single(mlp.last))), single(b.tail.stages[2]))), norm=b.norm,
        )  # fmt: skip
        start, end, r = draw(7, WIDTH).float(), draw(7, WIDTH).float(), rule("gauss-legendre", 3)
        for joint_first in (True, False):
            path = PooledPath(low, low.reference(start), end)
            made = [
                path.vectors(r),
                path.pull(r, draw(2, 5)),
                path.push(r, draw(7)),
                path.total(r),
                path.value_at(r.nodes),
            ]
            assert {m.dtype for m in made} == {torch.float32}, joint_first
            if not joint_first:
                break
            low = PooledBlock(
                **{**vars(low), "tail": Chain((*low.tail.stages, single(affine(9, 5, False)), single(affine(5, 9))))}
            )
