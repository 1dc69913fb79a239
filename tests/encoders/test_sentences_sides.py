"""Queries and documents of sentence-transformers: prompts, routers, and what the host itself says of a pair."""

import pytest
import sentence_transformers as st
import torch
from sentence_transformers.sentence_transformer import modules

import secondsight as ss
from families import FAMILIES
from secondsight.encoders.fingerprint import fingerprint
from secondsight.scale import decompose, open_store, search
from secondsight.scale.query import query_of, query_side
from secondsight.scale.sources import Source

PAIR = ("a red frisbee", "two dogs play in the park")
TWO_SIDED = ["st-bert-weighted-prompt", "st-bert-two-prompts", "st-router-first", "st-router-last"]


def host_similarity(host, query, document, prompts=(None, None)) -> float:
    embeddings = (
        host.encode_query(query, convert_to_tensor=True, prompt=prompts[0]),
        host.encode_document(document, convert_to_tensor=True, prompt=prompts[1]),
    )
    return float(host.similarity(*embeddings))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", TWO_SIDED)
def test_a_query_and_a_document_are_explained_as_the_host_compares_them(name, dtype, tolerance):
    example = FAMILIES[name](dtype)
    similarity = host_similarity(example.host, *PAIR)
    assert abs(similarity - host_similarity(example.host, *PAIR[::-1])) > 1e-3
    for layer in (0, 1, 2, "input"):
        e = ss.explain(example.model, *PAIR, ss.ChainedJacobian(layer=layer))
        assert e.similarity == pytest.approx(similarity, abs=tolerance)
        assert e.terms.total == pytest.approx(similarity, abs=1e2 * tolerance)


def test_the_sides_have_names_and_kinds_do_not_choose_between_them():
    model = FAMILIES["st-bert-two-prompts"](torch.float32).model
    assert model.side("query") is model.query is model.left
    assert model.side("document") is model.document is model.right
    with pytest.raises(ss.InputError, match="both sides of '.*' take texts, and differ: ask for 'query' or 'document'"):
        model.side("text")
    both = model.pair("text", "text")
    assert (both.left.encoder, both.right.encoder) == (model.left.encoder, model.right.encoder)
    twice = model.pair("query", "query")
    assert twice.left.encoder is twice.right.encoder is model.left.encoder
    assert model.collection_side("text") is model.document
    with pytest.raises(ss.InputError, match="no image side: it has query .text. and document .text."):
        model.side("image")


def test_one_encoder_serves_both_sides_that_are_the_same():
    model = FAMILIES["st-minilm-mean"](torch.float32).model
    assert model.left.encoder is model.right.encoder
    assert model.side("text").encoder is model.side("query").encoder


def test_prompts_are_names_or_texts_and_none_on_request():
    example = FAMILIES["st-bert-two-prompts"](torch.float32)
    host = example.host
    for prompts, texts in [
        (("document", None), ("the sound of: ", "the sound of: ")),
        (("", ""), ("", "")),
        ("", ("", "")),
        (("a photo of ", ""), ("a photo of ", "")),
    ]:
        model = ss.wrap(host, prompts=prompts)
        similarity = host_similarity(host, *PAIR, texts)
        assert ss.explain(model, *PAIR, "last-layer").similarity == pytest.approx(similarity, abs=1e-6)
        assert (model.left.encoder is model.right.encoder) == (texts[0] == texts[1])
    with pytest.raises(ss.InputError, match="'querry' is not the name of one of the model's prompts .'query', 'docum"):
        ss.wrap(host, prompts=("querry", "document"))
    with pytest.raises(ss.InputError, match="must be two"):
        ss.wrap(host, prompts=["query"])
    with pytest.raises(ss.InputError, match=r"Transformer is a part of .*ss\.wrap\(SentenceTransformer"):
        ss.wrap(host[0])
    with pytest.raises(AttributeError, match=r"'image'; its sides are left, right, query \(text\), document \(text\)"):
        _ = ss.wrap(host).image
    with pytest.raises(ss.InputError, match="scenes has no prompts: only sentence-transformers"):
        ss.load("scenes", prompts=("query: ", ""))
    with pytest.raises(ss.InputError, match="CLIPModel has no prompts"):
        ss.wrap(FAMILIES["hf-clip"](torch.float32).host, prompts="a photo of ")


def test_the_names_of_prompts_are_looked_up_as_the_host_does():
    parts = list(FAMILIES["st-minilm-mean"](torch.float32).host)
    for options in (
        {"prompts": {"passage": "the sound of: "}},
        {"prompts": {"corpus": "a photo of: "}},
        {"prompts": {"other": "a photo of: "}, "default_prompt_name": "other"},
    ):
        host = st.SentenceTransformer(modules=parts, device="cpu", **options)
        e = ss.explain(ss.wrap(host), *PAIR, "last-layer")
        assert e.similarity == pytest.approx(host_similarity(host, *PAIR), abs=1e-6)
        # Versions of the library differ in whether every model has prompts named query and document.
        del host.prompts["query"], host.prompts["document"]
        e = ss.explain(ss.wrap(host), *PAIR, "last-layer")
        assert e.similarity == pytest.approx(host_similarity(host, *PAIR), abs=1e-6)


def test_tokens_of_a_prompt_are_special_positions_and_no_words():
    model = FAMILIES["st-bert-two-prompts"](torch.float64).model
    e = ss.explain(model, *PAIR, "last-layer")
    for layout, length in ((e.left_layout, 4), (e.right_layout, 4)):
        names = [layout.special.get(i) for i in range(layout.size)]
        assert names[0] == "start"
        assert names[1 : 1 + length] == ["prompt"] * length
        assert names[-1] == "end"
    assert [word for word, _ in e.words] == PAIR[1].split()
    assert e.special_share()[0] > 0


def test_a_router_without_such_routes_is_refused():
    example = FAMILIES["st-router-first"](torch.float32)
    routes = {"QRY": [*example.host[0].sub_modules["query"]], "DOC": [*example.host[0].sub_modules["document"]]}
    host = st.SentenceTransformer(modules=[modules.Router(routes)], device="cpu")
    with pytest.raises(
        ss.InputError, match="Router leads no text of a query anywhere .* routes 'query' and 'document'"
    ):
        ss.wrap(host)


def test_a_model_that_does_more_than_its_modules_show_is_refused():
    host = FAMILIES["st-minilm-mean"](torch.float32).host

    class Instructed(st.SentenceTransformer):
        def encode_query(self, inputs, **options):
            return super().encode_query(f"a photo of {inputs}", **options)

    model = ss.wrap(Instructed(modules=list(host), device="cpu"))
    for _ in range(2):
        with pytest.raises(ss.AdapterError, match=r"is 0\.\d+ in its own library and 0\.\d+ by the parts"):
            ss.explain(model, *PAIR)


def test_the_comparison_with_the_host_leaves_the_model_as_it_came():
    host = FAMILIES["st-router-last"](torch.float32).host.train()
    random = torch.get_rng_state()
    ss.wrap(host).left.prepare(["two dogs"])
    assert all(module.training for module in host.modules())
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("name", ["st-bert-two-prompts", "st-router-last"])
def test_a_store_holds_documents_and_is_searched_by_queries(name, tmp_path):
    example = FAMILIES[name](torch.float32)
    texts = ["two dogs play in the park", "a cup of coffee", "the sound of rain on a roof"]
    decompose(Source("text", texts, lambda i: texts[i]), example.model, tmp_path / "s")
    store = open_store(tmp_path / "s")
    assert query_side(store, example.model, PAIR[0]) is example.model.query
    hits = search(store, query_of(store, example.model, PAIR[0]), 3)
    for hit in hits:
        assert hit.similarity == pytest.approx(host_similarity(example.host, PAIR[0], hit.key), abs=2e-3)


def test_stores_of_other_prompts_are_told_apart():
    host = FAMILIES["st-bert-two-prompts"](torch.float32).host
    assert fingerprint(ss.wrap(host)) == fingerprint(ss.wrap(host))
    assert fingerprint(ss.wrap(host)) != fingerprint(ss.wrap(host, prompts=""))
