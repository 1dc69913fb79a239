"""sentence-transformers without a transformer, and sparse encoders, whose joint dimensions are words."""

import pytest
import sentence_transformers as st
import torch
from sentence_transformers.sentence_transformer import modules
from sentence_transformers.sparse_encoder import modules as sparse
from test_sentences_sides import host_similarity

import secondsight as ss
import vocabularies
from families import FAMILIES

PAIR = ("a red frisbee and a red cup", "two dogs play in the park")
LOOKUPS = ["st-static", "st-static-query", "st-word-embeddings", "st-bag-of-words"]


def sparse_similarity(host, query, document) -> float:
    options = dict(convert_to_tensor=True, convert_to_sparse_tensor=False)
    return float(host.similarity(host.encode_query(query, **options), host.encode_document(document, **options)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", LOOKUPS)
def test_looked_up_texts_are_explained_as_the_host_compares_them(name, dtype, tolerance):
    example = FAMILIES[name](dtype)
    # Weights of words stay in float32 whatever the precision of the model.
    allowed = max(tolerance, 1e-7) if name in ("st-word-embeddings", "st-bag-of-words") else tolerance
    for layer in (0, -1, "input"):
        e = ss.explain(example.model, *PAIR, ss.ChainedJacobian(layer=layer))
        assert e.similarity == pytest.approx(host_similarity(example.host, *PAIR), abs=allowed)
        assert e.terms.total == pytest.approx(e.similarity, abs=1e2 * allowed)


def test_a_mean_of_static_embeddings_splits_into_products_of_its_rows():
    example = FAMILIES["st-static"](torch.float64)
    e = ss.explain(example.model, *PAIR, ss.IntegratedJacobian(layer=0, steps=1))
    sides = []
    for text in PAIR:
        ids = example.host.preprocess([text])["input_ids"]
        rows = example.host[0].embedding.weight.detach()[ids] / len(ids)
        sides.append(rows / rows.sum(0).norm())
    assert torch.allclose(e.matrix, sides[0] @ sides[1].T, atol=1e-14)
    assert e.terms.base == e.terms.left == e.terms.right == 0


def test_words_that_a_bag_does_not_know_are_left_out():
    model = FAMILIES["st-bag-of-words"](torch.float32).model
    e = ss.explain(model, "A unicorn and a cup, seen.", "a cup of coffee")
    assert [word for word, score in e.T.words if score] == ["A", "a", "cup"]
    assert dict(e.about["axes"])["cup"] == pytest.approx(dict(e.words)["cup"])
    with pytest.raises(ss.InputError, match="knows none of the words of the text 'unicorns'"):
        ss.explain(model, "unicorns", "a cup")


def test_a_bag_of_other_words_than_those_of_the_comparison_with_the_host():
    host = st.SentenceTransformer(
        modules=[modules.BoW(vocab=["hallo", "rot", "welt"])], device="cpu", similarity_fn_name="dot"
    )
    e = ss.explain(ss.wrap(host), "hallo welt", "rot hallo")
    assert e.similarity == pytest.approx(float(host.similarity(*host.encode(["hallo welt", "rot hallo"]))), abs=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", ["st-splade", "st-splade-inference-free"])
def test_sparse_encoders_are_explained_as_the_host_compares_them(name, dtype, tolerance):
    example = FAMILIES[name](dtype)
    similarity = sparse_similarity(example.host, *PAIR)
    for layer in (0, -1, "input"):
        e = ss.explain(example.model, *PAIR, ss.ChainedJacobian(layer=layer))
        assert e.similarity == pytest.approx(similarity, rel=tolerance)
        assert e.terms.total == pytest.approx(similarity, rel=1e2 * tolerance)


@pytest.mark.parametrize("name", ["st-splade", "st-splade-inference-free"])
def test_the_strongest_axes_of_a_sparse_encoder_are_the_hosts_words(name):
    example = FAMILIES[name](torch.float64)
    e = ss.explain(example.model, *PAIR, "last-layer")
    query, document = (
        dict(example.host.decode(encode(text)))
        for encode, text in zip((example.host.encode_query, example.host.encode_document), PAIR, strict=True)
    )
    shared = {word: query[word] * document[word] for word in query if word in document}
    strongest = sorted(shared.items(), key=lambda axis: -axis[1])[: len(e.about["axes"])]
    assert [word for word, _ in e.about["axes"]] == [word for word, _ in strongest]
    assert [part for _, part in e.about["axes"]] == pytest.approx([part for _, part in strongest], rel=1e-5)


def test_static_weights_of_words_stay_with_their_words():
    example = FAMILIES["st-splade-inference-free"](torch.float64)
    contributions = example.model.query.contributions([PAIR[0]])[0]
    tokenizer = example.host[0].sub_modules["query"][0].tokenizer
    for i, token in enumerate(contributions.layout.tokens):
        (axis,) = contributions.vectors[i].nonzero()[:, 0].tolist()
        assert tokenizer.convert_ids_to_tokens(axis) == token


def test_models_that_cannot_be_explained_say_why():
    tokenizer = vocabularies.bert()
    host = st.SentenceTransformer(
        modules=[modules.StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu", similarity_fn_name="euclidean"
    )
    with pytest.raises(ss.InputError, match="'euclidean' is not an inner product"):
        ss.wrap(host)
    splade = FAMILIES["st-splade"](torch.float32).host
    splade.max_active_dims = 4
    with pytest.raises(ss.InputError, match="only the 4 largest dimensions.*set model.max_active_dims=None"):
        ss.wrap(splade)
    dense = FAMILIES["st-minilm-mean"](torch.float32).host
    autoencoder = st.SparseEncoder(
        modules=[*list(dense)[:2], sparse.SparseAutoEncoder(24, hidden_dim=32)], device="cpu"
    )
    with pytest.raises(ss.InputError, match="explain the embedding before it, SentenceTransformer"):
        ss.wrap(autoencoder)

    class CrossEncoder(torch.nn.Module):
        __module__ = "sentence_transformers.cross_encoder.model"

    with pytest.raises(ss.InputError, match="reads both texts together and gives one score"):
        ss.wrap(CrossEncoder())


def test_a_saved_cross_encoder_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}')
    with pytest.raises(ss.InputError, match="reads both texts together and gives one score"):
        ss.load(f"st:{tmp_path}")


def test_a_sparse_encoder_is_loaded_by_name(tmp_path):
    example = FAMILIES["st-splade"](torch.float32)
    example.host.save_pretrained(str(tmp_path))
    e = ss.explain(ss.load(f"st:{tmp_path}"), *PAIR, "last-layer")
    assert e.similarity == pytest.approx(sparse_similarity(example.host, *PAIR), rel=1e-5)
    assert e.about["axes"]
