"""Attention as one operation: the numbers of its parts, and memory that grows with the length alone."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from secondsight.paths import attention
from secondsight.paths.linearisation import Linearisation
from secondsight.paths.rules import attention as rules

HEADS, LENGTH, WIDTH = 2, 9, 3


def attended(mask=None, **options):
    """Self-attention of (1, position, 3 · heads · width) as models write it, with a sum of squares over positions after it."""

    def function(x):
        query, key, value = x.unflatten(-1, (3, HEADS, WIDTH)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, **options)
        return (out.transpose(1, 2).flatten(2) ** 2).sum(1)

    return function


def points(dtype=torch.float64):
    draw = torch.Generator().manual_seed(3)
    return [2 * torch.randn(1, LENGTH, 3 * HEADS * WIDTH, generator=draw, dtype=dtype) for _ in range(2)]


VISIBLE = torch.rand(LENGTH, LENGTH, generator=torch.Generator().manual_seed(1)) > 0.4
VISIBLE.fill_diagonal_(True)
KINDS = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.7},
    "hidden": {"mask": VISIBLE},
    "biased": {"mask": torch.where(VISIBLE, 0.5, -torch.inf).double().expand(1, HEADS, LENGTH, LENGTH)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("standing", [False, True], ids=["mean", "derivative"])
def test_attention_as_one_operation_has_the_jacobian_of_its_parts(kind, standing, monkeypatch):
    start, end = points()
    chains = []
    for large in (2**20, 1):
        monkeypatch.setattr(attention, "_LARGE", large)
        monkeypatch.setattr(rules, "_BLOCK_FLOATS", 1000)  # blocks of a few queries
        with sdpa_kernel(SDPBackend.MATH):
            chains.append(Linearisation(attended(**KINDS[kind]), start, None if standing else end))
    parts, whole = chains
    assert len(whole._edges) < len(parts._edges)
    assert torch.allclose(whole.value, parts.value, rtol=1e-12)
    draw = torch.Generator().manual_seed(4)
    tangents = torch.randn(5, *start.shape, generator=draw, dtype=torch.float64)
    cotangents = torch.randn(5, *parts.value.shape, generator=draw, dtype=torch.float64)
    assert torch.allclose(whole.push(tangents), parts.push(tangents), rtol=1e-9, atol=1e-10)
    assert torch.allclose(whole.pull(cotangents), parts.pull(cotangents), rtol=1e-9, atol=1e-10)
    if standing:
        exact = torch.func.vjp(attended(**KINDS[kind]), start)[1](cotangents[0])[0]
        assert torch.allclose(whole.pull(cotangents)[0], exact, rtol=1e-9, atol=1e-10)
    else:
        assert torch.allclose(
            whole.push((end - start)[None])[0], whole.value - whole.start_value, rtol=1e-9, atol=1e-10
        )


def test_what_a_chain_keeps_of_attention_grows_with_the_length(monkeypatch):
    monkeypatch.setattr(attention, "_LARGE", 1)

    def floats(length):
        draw = torch.Generator().manual_seed(3)
        ends = [torch.randn(1, length, 3 * HEADS * WIDTH, generator=draw) for _ in range(2)]
        with sdpa_kernel(SDPBackend.MATH):
            return Linearisation(attended(), *ends).floats

    assert floats(80) <= 2 * floats(40)


@pytest.mark.parametrize("mask", [None, torch.eye(LENGTH, dtype=torch.bool) & (torch.arange(LENGTH) > 0)])
def test_attention_with_other_shapes_dropout_or_blind_queries_is_taken_apart(mask, monkeypatch):
    monkeypatch.setattr(attention, "_LARGE", 1)
    whole = []
    monkeypatch.setattr(torch.ops.secondsight, "attention", lambda *arguments: whole.append(arguments))
    query = torch.randn(1, 2, LENGTH, WIDTH)
    other = query if mask is not None else torch.randn(1, 2, LENGTH + 1, WIDTH)
    with attention.AttentionAsOne():
        F.scaled_dot_product_attention(query, other, other, mask)
        F.scaled_dot_product_attention(query, query, query, dropout_p=0.5)
    assert not whole


def test_grouped_queries_share_keys_and_values(monkeypatch):
    draw = torch.Generator().manual_seed(3)
    query = torch.randn(1, 4, LENGTH, WIDTH, generator=draw)
    key, value = torch.randn(2, 1, 2, LENGTH, WIDTH, generator=draw)
    expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    monkeypatch.setattr(attention, "_LARGE", 1)
    with attention.AttentionAsOne():
        assert torch.allclose(F.scaled_dot_product_attention(query, key, value, enable_gqa=True), expected, atol=1e-6)
