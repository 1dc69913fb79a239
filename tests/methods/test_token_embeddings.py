"""Similarity maps of tokens against what the hosts' users compute: cosines of last hidden states, and MaxSim's matrix."""

import pytest
import torch
from torch.nn import functional as F

import secondsight as ss
from families import FAMILIES, photographs
from families.late_interaction import LATE
from families.pages import hf_colpali

QUERY, DOCUMENT = "a red cup of coffee", "two dogs play with a cup"
PAIR = ("a cup of coffee and a spoon", "two dogs play with a frisbee")


def raw_cosines(host, query: str, document: str) -> torch.Tensor:
    """As users of sentence-transformers do it."""
    rows = [
        F.normalize(encode(text, output_value="token_embeddings", convert_to_tensor=True), dim=-1)
        for encode, text in ((host.encode_query, query), (host.encode_document, document))
    ]
    return rows[0] @ rows[1].T


@pytest.mark.parametrize("family", ["st-minilm-mean", "st-mpnet-dense", "st-roberta-cls-dot", "st-bert-two-prompts"])
def test_raw_cosines_are_those_of_the_hosts_token_embeddings(family):
    example = FAMILIES[family](torch.float64)
    e = ss.explain(example.model, *PAIR, ss.TokenEmbeddings(raw=True, unit=True))
    assert torch.allclose(e.matrix, raw_cosines(example.host, *PAIR), atol=1e-8)
    dot = ss.explain(example.model, *PAIR, ss.TokenEmbeddings(raw=True))
    assert not torch.allclose(dot.matrix, e.matrix)
    assert e.similarity == pytest.approx(ss.explain(example.model, *PAIR).similarity, abs=1e-9)


@pytest.mark.parametrize(("family", "equal"), [("st-minilm-mean", True), ("st-mpnet-dense", False)])
def test_where_nothing_follows_the_pooling_token_embeddings_are_the_raw_ones(family, equal):
    """A dense layer after the pooling maps token embeddings too."""
    example = FAMILIES[family](torch.float64)
    e = ss.explain(example.model, *PAIR, ss.TokenEmbeddings(unit=True))
    assert torch.allclose(e.matrix, raw_cosines(example.host, *PAIR), atol=1e-8) == equal


def test_cosines_of_tokens_leave_the_similarity_as_it_is():
    for family in ("st-minilm-mean", "open-clip-vit"):
        example = FAMILIES[family](torch.float64)
        inputs = example.left[0], example.right[0]
        usual, cosines = (ss.explain(example.model, *inputs, ss.TokenEmbeddings(unit=unit)) for unit in (False, True))
        assert cosines.similarity == pytest.approx(usual.similarity, abs=1e-9)


def test_the_mean_over_all_tokens_is_the_similarity_of_means():
    """Where the embedding is the mean of the last hidden states: g(a)·h(b) is the mean of all products of tokens."""
    example = FAMILIES["st-minilm-mean"](torch.float64)
    e = ss.explain(example.model, *PAIR, ss.TokenEmbeddings())
    assert float(e.matrix.mean()) == pytest.approx(e.similarity, abs=1e-8)


@pytest.mark.filterwarnings("ignore:the model does not know")
@pytest.mark.parametrize("name", LATE)
def test_of_late_interaction_the_matrix_is_the_similarity_map(name):
    model = ss.wrap(LATE[name](torch.float64), name=name)
    shown = model.similarity_map(QUERY, DOCUMENT)
    e = ss.explain(model, QUERY, DOCUMENT, ss.TokenEmbeddings())
    assert torch.allclose(e.matrix, shown.matrix, atol=1e-8)
    assert e.similarity == pytest.approx(shown.similarity, abs=1e-8)
    assert e.about["assignment"] == shown.assignment
    turned = model.pair("document", "query")
    assert torch.allclose(ss.explain(turned, DOCUMENT, QUERY, ss.TokenEmbeddings()).matrix, shown.matrix.T, atol=1e-8)


def test_of_colpali_the_map_over_the_page_is_that_of_the_similarity_map():
    model, page = hf_colpali(torch.float64).model, photographs()[0]
    shown = model.similarity_map(QUERY, page)
    e = ss.explain(model, QUERY, page, ss.TokenEmbeddings())
    assert torch.allclose(e.T["cup"], shown["cup"], atol=1e-8)
    cosines = ss.explain(model, QUERY, page, ss.TokenEmbeddings(unit=True))
    assert torch.allclose(cosines.matrix, e.matrix, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"hidden": True}, "leave out hidden= and raw="), ({"raw": True}, "leave out hidden= and raw=")],
)
@pytest.mark.filterwarnings("ignore:the model does not know")
def test_late_interaction_has_no_other_token_vectors(options, words):
    model = ss.wrap(LATE["st-late-plain"](torch.float32))
    with pytest.raises(ss.InputError, match=words):
        ss.explain(model, QUERY, DOCUMENT, ss.TokenEmbeddings(**options))


def test_raw_hidden_states_are_of_pairs_of_one_width():
    example = FAMILIES["open-clip-vit"](torch.float32)
    with pytest.raises(ss.InputError, match="have 32 and 24: leave it out"):
        ss.explain(example.model, example.left[0], example.right[0], ss.TokenEmbeddings(raw=True))
    with pytest.raises(ss.InputError, match="use ss.explain"):
        example.model.left.contributions(example.left, ss.TokenEmbeddings(raw=True))
    with pytest.raises(ss.InputError, match="leave out either"):
        ss.TokenEmbeddings(raw=True, hidden=True)
