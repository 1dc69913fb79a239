"""Every family keeps to what `secondsight.testing` asks, on small random models with the family's own preprocessing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F

import secondsight as ss
from families import FAMILIES, Example
from secondsight.testing import CHECKS, Case

pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")

# These hosts compute softmax or norms in float32 whatever their precision.
COARSE = {
    ("hf-aimv2", "image"),
    ("hf-aimv2", "text"),
    ("hf-align", "text"),
    ("hf-clap", "text"),
    ("hf-clap-fusion", "text"),
    ("open-clip-mt5-text", "text"),
    ("st-qwen-last", "text"),
}


@cache
def example(name: str, dtype: torch.dtype = torch.float64) -> Example:
    torch.manual_seed(0)
    return FAMILIES[name](dtype)


def cases(name: str, dtype: torch.dtype = torch.float64) -> list[Case]:
    e = example(name, dtype)
    sides = [(e.model.left, e.left, e.host_left), (e.model.right, e.right, e.host_right)]
    if e.model.left.encoder is e.model.right.encoder:
        sides = sides[:1]
    return [
        Case(side, inputs, host, e.normalised, 3e-6 if (name, side.kind) in COARSE else None)
        for side, inputs, host in sides
    ]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_encoder(name, check):
    for case in cases(name):
        CHECKS[check](case)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_four_terms_add_up_to_the_hosts_similarity(name):
    e = example(name)
    with torch.no_grad():
        g, h = e.host_left(e.left[0]).double(), e.host_right(e.right[1]).double()
    similarity = float(F.cosine_similarity(g, h, dim=0) if e.model.cosine else g @ h)
    # Maxima over positions are a kink each: integrals reach 1e-4 with 256 nodes.
    tol = 1e-3 if name.startswith("st-splade") else 1e-5
    explanation = ss.explain(e.model, e.left[0], e.right[1], ss.IntegratedJacobian(tol=tol))
    assert explanation.similarity == pytest.approx(similarity, abs=1e-6)
    assert explanation.terms.total == pytest.approx(
        similarity, abs=10 * tol * (1 if e.model.cosine else float(g.norm() * h.norm()))
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_models_are_decomposed_in_float32(name):
    for case in cases(name, torch.bfloat16):
        c = case.side.contributions(case.inputs[:1], ss.IntegratedJacobian(tol=3e-3))[0]
        assert c.vectors.dtype == torch.float32
        assert c.relative_residual < 4e-3
        # Bags of words have no weights.
        assert case.side.encoder.weights_dtype() in (torch.bfloat16, None)


@pytest.mark.parametrize("name", [n for n in FAMILIES if not n.startswith("open-clip") or "text" in n])
def test_padding_that_the_model_does_not_read_does_not_matter(name):
    side = example(name).model.right
    encoder = side.encoder
    prepared = encoder.prepare(example(name).right[0])
    if "padding" in prepared.tokenized.special.values():
        pytest.skip("this model was trained to read its padding")
    ids, pads = prepared.tensor, 5
    padding = torch.full((1, pads), encoder.tokens.padding)
    mask = torch.tensor([[1] * ids.shape[1] + [0] * pads])
    padded = {"input_ids": torch.cat([ids, padding], 1), "attention_mask": mask}
    plain, longer = (side.contributions([v], ss.IntegratedJacobian(steps=3))[0] for v in (ids, padded))
    assert torch.allclose(plain.vectors, longer.vectors, atol=1e-12)


def test_a_wrong_encoder_is_found():
    good = cases("hf-clip")[0]

    class Shifted(type(good.side.encoder)):
        def head(self, layer, context, dtype):
            whole = super().head(layer, context, dtype)
            return lambda x: whole(x) * 1.01

    encoder = good.side.encoder
    wrong = Shifted.__new__(Shifted)
    wrong.__dict__.update(encoder.__dict__)
    with pytest.raises(ss.AdapterError, match="from layer 0 and the host's differ by 1.0e-02"):
        CHECKS["heads_reproduce_the_embedding"](replace(good, side=replace(good.side, encoder=wrong)))
