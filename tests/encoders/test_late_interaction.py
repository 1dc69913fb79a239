"""Late interaction: MaxSim with the assignment held, on small random models, against the host's own vectors."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from sentence_transformers import MultiVectorEncoder

import secondsight as ss
from families.late_interaction import LATE
from secondsight.encoders.late_model import LateInteraction
from secondsight.model import Side
from secondsight.testing import CHECKS, Case

QUERY = "a red cup of coffee, a spoon"
DOCUMENT = "two dogs play with a cup and a red frisbee, the sound of rain"
OTHER = "a photo of a cat on a wooden table"
LAYERS = ["output", 2, 1, 0, "input"]

pytestmark = pytest.mark.filterwarnings("ignore:the model does not know")


@cache
def host(name: str, dtype: torch.dtype = torch.float64) -> MultiVectorEncoder:
    return LATE[name](dtype)


@cache
def wrapped(name: str, dtype: torch.dtype = torch.float64) -> LateInteraction:
    return ss.wrap(host(name, dtype), name=name)


def maxsim(name: str, query: str, document: str, dtype: torch.dtype = torch.float64) -> float:
    """The definition, from the host's own vectors: its own function sums in float32."""
    model = host(name, dtype)
    q, d = model.encode_query(query), model.encode_document(document)
    best = (q @ d.T).amax(1).double()
    return float(best.mean() if model.similarity_fn_name == "meanmaxsim" else best.sum())


def held(side: Side) -> Side:
    """A side that multiplies the same vectors of every input, some of them twice, as in a pair."""
    return Side(side.encoder.choosing(torch.tensor([4, 0, 2, 2, 1]), 0.5), side.index, False)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", LATE)
def test_every_encoder_under_an_assignment(name, check):
    model = wrapped(name)
    for side, inputs in ((model.query, [QUERY, OTHER]), (model.document, [DOCUMENT, OTHER])):
        CHECKS[check](Case(held(side), inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", LATE)
def test_the_four_terms_add_up_to_the_hosts_maxsim(name, layer, dtype):
    e = ss.explain(wrapped(name, dtype), QUERY, DOCUMENT, ss.ChainedJacobian(layer=layer))
    expected = maxsim(name, QUERY, DOCUMENT, dtype)
    precise = 1e-10 if dtype == torch.float64 else 1e-6 * max(1.0, abs(expected))
    assert e.similarity == pytest.approx(expected, abs=precise)
    assert e.terms.total == pytest.approx(expected, abs=precise)
    q, d = host(name, dtype).encode_query(QUERY), host(name, dtype).encode_document(DOCUMENT)
    assert e.similarity == pytest.approx(float(host(name, dtype).similarity(q, d)), rel=1e-6)


@pytest.mark.parametrize("name", LATE)
def test_the_map_is_the_hosts_and_the_output_layer_is_its_best_matches(name):
    model = wrapped(name)
    shown = model.similarity_map(QUERY, DOCUMENT)
    q, d = host(name).encode_query(QUERY), host(name).encode_document(DOCUMENT)
    rows = [entry["position"] for entry in shown.assignment]
    columns = model.document.encoder.host_vectors(model.document.encoder.prepare(DOCUMENT))[1].nonzero()[:, 0]
    assert torch.allclose(shown.matrix[rows][:, columns], q @ d.T, atol=1e-12)
    assert len(rows) == len(q)
    assert len(columns) == len(d)

    best = torch.zeros_like(shown.matrix)
    for entry in shown.assignment:
        best[entry["position"], entry["match_position"]] = entry["similarity"]
    e = ss.explain(model, QUERY, DOCUMENT, ss.ChainedJacobian(layer="output"))
    assert torch.allclose(e.matrix * (len(q) if model.mean else 1), best, atol=1e-12)
    assert e.terms.interaction == pytest.approx(e.similarity, abs=1e-12)


def test_the_host_is_left_as_it_came_and_sides_outside_of_a_pair_are_refused():
    model = wrapped("st-late-plain")
    contributions = [side.contributions([QUERY], ss.ChainedJacobian())[0] for side in (model.left, model.right)]
    with pytest.raises(ss.InputError, match="with ss.explain"):
        _ = contributions[0] @ contributions[1]
    with pytest.raises(ss.InputError, match="no embedding of the whole"):
        model.query.embed([QUERY])
    with pytest.raises(ss.InputError, match="similarity_map"):
        ss.explain(model, QUERY, DOCUMENT, ss.TokenEmbeddings())
