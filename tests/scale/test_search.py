"""Search that can be trusted: hubs are named and can be taken off, and a lead is split into parts that add up."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import secondsight as ss
from secondsight.data import Scenes
from secondsight.scale.lead import NINTHS
from secondsight.scale.search import search
from secondsight.scale.usual import OrdinaryQueries, ordinary_captions
from sides import InMemory, image_layout, random_side, text_layout


@pytest.fixture(scope="module")
def model():
    return ss.load("scenes")


def entries(count=30, exact=True):
    return InMemory({f"p{i}": random_side(image_layout(), i, torch.float64, exact) for i in range(count)})


def query(seed=99, exact=True):
    return random_side(text_layout(), seed, torch.float64, exact)


def ordinary(seed=5, count=40):
    """Ordinary queries in memory, and the unit vectors whose mean they are."""
    vectors = torch.nn.functional.normalize(
        torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1, dim=-1
    )
    return OrdinaryQueries(vectors.mean(0), count), vectors


def test_above_usual_is_each_entrys_mean_similarity_taken_off():
    photos, q = entries(), query()
    queries, vectors = ordinary()
    similarity = photos.embeddings @ (q.embedding * q.scale)
    usual = (photos.embeddings @ vectors.T).mean(1)
    hits = search(photos, q, 30, rank="above-usual", ordinary=queries)
    order = (similarity - usual).argsort(descending=True).tolist()
    assert [hit.key for hit in hits] == [f"p{i}" for i in order]
    for hit, i in zip(hits, order, strict=True):
        assert hit.similarity == pytest.approx(float(similarity[i]), abs=1e-12)
        assert hit.usual.similarity == pytest.approx(float(usual[i]), abs=1e-12)
        assert hit.score == pytest.approx(float(similarity[i] - usual[i]), abs=1e-12)
    plain = search(photos, q, 30, ordinary=queries)
    assert [hit.key for hit in plain] == [hit.key for hit in search(photos, q, 30)]
    assert all(hit.score == hit.similarity for hit in plain)


def test_hubs_are_named_with_their_rank():
    photos, (queries, vectors) = entries(40), ordinary()
    hub = replace(photos["p7"], embedding=vectors.mean(0) * 9, scale=1.0)
    photos = InMemory({**photos.contributions, "p7": hub})
    marked = {hit.key: hit.usual for hit in search(photos, query(), 40, ordinary=queries)}
    values = photos.embeddings @ vectors.mean(0)
    assert marked["p7"].hub
    assert marked["p7"].rank == 1
    assert sorted(usual.rank for usual in marked.values()) == list(range(1, 41))
    for i, value in enumerate(values.tolist()):
        assert marked[f"p{i}"].hub == (value > float(values.mean() + 2 * values.std(correction=0)))
    assert all(hit.usual is None for hit in search(photos, query(), 3))


def test_taking_off_leaves_maps_and_words_and_moves_what_entries_have_alone():
    photos, q = entries(), query()
    queries, _ = ordinary()
    (hit, *_) = search(photos, q, 1, rank="above-usual", ordinary=queries)
    ranked = hit.entry @ hit.ranking_query
    assert torch.equal(ranked.matrix, hit.pair.matrix)
    assert torch.allclose(ranked.right_effects, hit.pair.right_effects, rtol=0, atol=1e-15)
    assert ranked.similarity == pytest.approx(hit.score, abs=1e-14)
    assert ranked.error == pytest.approx(0, abs=1e-12)
    moved = ranked.terms.base + ranked.terms.left - hit.pair.terms.base - hit.pair.terms.left
    assert moved == pytest.approx(-hit.usual.similarity, abs=1e-12)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("rank", ["similarity", "above-usual"])
def test_a_lead_is_the_difference_of_scores_in_parts_that_add_up(rank, exact):
    photos, q = entries(exact=exact), query(exact=exact)
    hits = search(photos, q, 5, rank=rank, ordinary=ordinary()[0])
    lead = hits[0].compare(hits[3])
    expected = hits[0].score - hits[3].score
    assert lead.value == pytest.approx(expected, abs=1e-12)
    for parts in (lead.by_word, lead.by_region):
        assert sum(part.value for part in parts) == pytest.approx(expected, abs=1e-12)
    if exact:
        assert lead.by_word[-1].value == pytest.approx(0, abs=1e-12)
    # Words and regions, by the definition.
    first, second = (hit.entry @ hit.ranking_query for hit in (hits[0], hits[3]))
    words = [part.name for part in lead.by_word[: len(q.layout.words)]]
    assert words == [word.text for word in q.layout.words]
    frisbee = list(q.layout.words[5].features)
    by_hand = [float((pair.matrix.sum(0) + pair.right_effects)[frisbee].sum()) for pair in (first, second)]
    assert lead.by_word[5].value == pytest.approx(by_hand[0] - by_hand[1], abs=1e-12)
    corner = [float(pair.matrix[1].sum() + pair.left_effects[1]) for pair in (first, second)]
    by_place = {(part.name, part.entry): part.value for part in lead.by_region}
    assert by_place["upper left", 0] == pytest.approx(corner[0], abs=1e-12)
    assert by_place["upper left", 1] == pytest.approx(-corner[1], abs=1e-12)
    assert {name for name, entry in by_place if entry == 0} == {*NINTHS, "special positions"}


def test_the_sentence_says_who_leads_by_how_much_and_why():
    hits = search(entries(), query(), 4, ordinary=ordinary()[0])
    ahead, behind = hits[0].compare(hits[2]), hits[2].compare(hits[0])
    assert ahead.sentence().startswith(f"{hits[0].key} leads {hits[2].key} by {ahead.value:.4f}, because of ")
    assert behind.sentence() == ahead.sentence()
    assert behind.value == pytest.approx(-ahead.value, abs=1e-12)
    largest = max(ahead.by_word, key=lambda part: part.value)
    assert f"{largest.value:+.4f}" in ahead.sentence()
    assert ahead.sentence(("A", "B")).startswith("A leads B by ")
    plain = json.loads(json.dumps(ahead.to_json()))
    assert plain["lead"] == ahead.value
    assert len(plain["by_word"]) == len(ahead.by_word)


def test_leads_of_texts_are_by_their_words():
    texts = InMemory({f"t{i}": random_side(text_layout(), i, torch.float64) for i in range(6)})
    hits = search(texts, query(), 2)
    lead = hits[0].compare(hits[1])
    names = [part.name for part in lead.by_region if part.entry == 1]
    assert names == [*(word.text for word in text_layout().words), "special positions"]
    assert sum(part.value for part in lead.by_region) == pytest.approx(lead.value, abs=1e-12)


def test_bad_searches_are_refused_in_one_sentence():
    photos, q = entries(), query()
    with pytest.raises(ss.InputError, match="unknown ranking 'best'; known: similarity, above-usual"):
        search(photos, q, rank="best")
    with pytest.raises(ss.InputError, match="needs ordinary="):
        search(photos, q, rank="above-usual")
    with pytest.raises(ss.InputError, match="whole number"):
        search(photos, q, True)
    with pytest.raises(ss.InputError, match="3 joint dimensions"):
        search(photos, q, ordinary=OrdinaryQueries(torch.ones(3), 2))
    with pytest.raises(ss.InputError, match="at least one"):
        OrdinaryQueries(torch.ones(3), 0)
    with pytest.raises(ss.InputError, match="hits of one search"):
        search(photos, q, 1)[0].compare(search(photos, query(7), 1)[0])


def test_an_approximate_index_ranks_above_usual_too():
    photos, q = entries(), query()
    queries, _ = ordinary()
    vectors = photos.embeddings.float().numpy()

    class Flat:
        def search(self, asked, k):
            products = asked @ vectors.T
            rows = np.argsort(-products, 1)[:, :k]
            return np.take_along_axis(products, rows, 1), rows

    exact = search(photos, q, 5, rank="above-usual", ordinary=queries)
    assert [hit.key for hit in exact] == [
        hit.key for hit in search(photos, q, 5, rank="above-usual", ordinary=queries, index=Flat())
    ]


def test_the_bundled_captions_are_distinct_sentences_of_everyday_scenes():
    captions = ordinary_captions()
    assert 50 <= len(captions) <= 500
    assert len(set(captions)) == len(captions)
    assert all(caption.endswith(".") and 3 <= len(caption.split()) <= 12 for caption in captions)


def test_ordinary_queries_of_a_side_are_the_mean_of_its_unit_embeddings(model):
    captions = ["a cat", "a tree above a star", "two dogs " * 40]
    queries = OrdinaryQueries.of(model.right, captions)
    embeddings = model.right.embed(captions, truncate=True).double()
    mean = (embeddings / embeddings.norm(dim=-1, keepdim=True)).mean(0)
    assert queries.count == 3
    assert torch.allclose(queries.mean, mean, rtol=0, atol=1e-9)
    with pytest.raises(ss.InputError, match="is empty"):
        OrdinaryQueries.of(model.right, [])


def test_stores_keep_the_mean_of_ordinary_queries(model, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="needs secondsight[scale]")
    from secondsight.scale import decompose, open_store, ordinary_queries
    from secondsight.scale.query import query_of
    from secondsight.scale.sources import of_data

    world = Scenes(6, seed=11)
    decompose(of_data(world, "image"), model, tmp_path / "image")
    decompose(of_data(world, "text"), model, tmp_path / "text")
    for side in ("image", "text"):
        store = open_store(tmp_path / side)
        captions = ["a cat", "a dog below a tree"]
        queries = ordinary_queries(store, model, captions)
        assert torch.allclose(queries.mean, OrdinaryQueries.of(model.right, captions).mean, rtol=0, atol=1e-12)
        hits = search(store, query_of(store, model, "a cat"), 6, rank="above-usual", ordinary=queries)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        lead = hits[0].compare(hits[1])
        assert sum(part.value for part in lead.by_region) == pytest.approx(hits[0].score - hits[1].score, abs=1e-12)
    assert ordinary_queries(store, model).count == len(ordinary_captions())
    # What is kept is read again, by texts, and computed again where it is damaged or the folder cannot be written to.
    kept = [path for path in store.folder.glob("usual-*.json") if json.loads(path.read_text())["count"] == 2]
    kept[0].write_text(json.dumps({"count": 2, "mean": [0.5] * len(queries.mean)}))
    assert torch.equal(ordinary_queries(store, model, captions).mean, torch.full_like(queries.mean, 0.5))
    kept[0].write_text('{"count": 2}')
    assert torch.allclose(ordinary_queries(store, model, captions).mean, queries.mean, rtol=0, atol=1e-12)
    with pytest.raises(ss.InputError, match="is empty"):
        ordinary_queries(store, model, [])
    # An image searches images or texts by ordinary photographs.
    photographs = ordinary_queries(open_store(tmp_path / "image"), model, [world[0].image, world[1].image])
    assert photographs.count == 2


def test_the_command_ranks_compares_and_explains(model, tmp_path, capsys, monkeypatch):
    pytest.importorskip("pyarrow", reason="needs secondsight[scale]")
    from secondsight.cli import main
    from secondsight.scale import decompose, open_source, open_store, ordinary_queries
    from secondsight.scale.query import query_of

    def run(*arguments, code=0):
        monkeypatch.setattr("sys.argv", ["secondsight", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        return capsys.readouterr()

    photos = tmp_path / "photos"
    photos.mkdir()
    for scene in Scenes(8, seed=3):
        scene.image.save(photos / f"{scene.key.replace('/', '-')}.png")
    place = tmp_path / "store"
    decompose(open_source(f"photos:{photos}", "image"), model, place)
    store, asked = open_store(place), ("search", place, "a cat", "--model", "scenes")
    queries = ordinary_queries(store, model)
    expected = search(store, query_of(store, model, "a cat"), 3, rank="above-usual", ordinary=queries)

    lines = run(*asked, "-k", 3, "--compare", "1,3").out.splitlines()
    assert lines[0].startswith("ranked by above-usual")
    for number, (line, hit) in enumerate(zip(lines[1:4], expected, strict=True), 1):
        assert line.split()[:3] == [str(number), f"{hit.score:+.4f}", hit.key]
    lead = expected[0].compare(expected[2])
    assert lead.sentence() in lines
    assert f"by word, sum {lead.value:+.4f}:" in lines
    plain = run(*asked, "-k", 3, "--rank", "similarity").out.splitlines()
    by_similarity = search(store, query_of(store, model, "a cat"), 3)
    assert [line.split()[2] for line in plain[1:4]] == [hit.key for hit in by_similarity]
    own = tmp_path / "own.txt"
    own.write_text("a cat\na dog\n")
    assert "usually" in run(*asked, "--captions", own).out

    page = tmp_path / "hit.html"
    data = ("--data", f"photos:{photos}")
    assert f"wrote {page}" in run(*asked, *data, "--explain", 2, "--out", page).out
    assert "a cat" in page.read_text()
    run(*asked, *data, "--compare", "2,1", "--out", tmp_path / "two.html")
    assert (tmp_path / "two.html").stat().st_size > 20000
    first = photos / expected[0].key
    assert f"secondsight explain {first} 'a cat' --model scenes" in run(*asked, *data).err

    for extra, sentence in (
        (("--rank", "best"), "unknown --rank 'best'"),
        (("--compare", "1"), "is not two different ranks"),
        (("--compare", "1,1"), "is not two different ranks"),
        (("--compare", "1,99"), "there is no hit 99"),
        (("--explain", "1"), "--explain needs --out"),
        (("--out", page), "--out needs --explain"),
        (("--explain", "1", "--out", page), "give --data"),
        (("--captions", photos), "a text file with a caption a line"),
    ):
        assert sentence in run(*asked, *extra, code=2).err
    by_photo = ("search", place, first, "--model", "scenes")
    assert run(*by_photo).out.startswith("ranked by similarity")
    assert "needs --captions FOLDER" in run(*by_photo, "--rank", "above-usual", code=2).err
    assert run(*by_photo, "--captions", photos).out.startswith("ranked by above-usual")
