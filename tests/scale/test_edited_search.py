"""Search without some words of the query: a ranking by prediction, and where the query really encoded again ranks."""

import pytest
import torch

import secondsight as ss
from secondsight.data import Scenes
from secondsight.scale.search import edited_ranking, search
from secondsight.scale.usual import OrdinaryQueries
from sides import InMemory, image_layout, random_side, text_layout


def entries(count=20):
    return InMemory({f"p{i}": random_side(image_layout(), i, torch.float64) for i in range(count)})


@pytest.mark.parametrize("rank", ["similarity", "above-usual"])
def test_the_ranking_is_that_of_the_predicted_query(rank):
    photos, query = entries(), random_side(text_layout(), 99, torch.float64)
    ordinary = OrdinaryQueries(torch.tensor([0.3, -0.1, 0.2, 0.4]), 5)
    hits = search(photos, query, 20, without="dog", rank=rank, ordinary=ordinary)
    plain = search(photos, query, 20, rank=rank, ordinary=ordinary)
    direction = (query.embedding - query.vectors[2]) * query.scale - ordinary.mean.double() * (rank == "above-usual")
    scores = photos.embeddings @ direction
    assert [hit.key for hit in hits] == [f"p{i}" for i in scores.argsort(descending=True).tolist()]
    assert [hit.score for hit in hits] == pytest.approx(scores.sort(descending=True).values.tolist(), abs=1e-12)
    places = edited_ranking(photos, query, "dog", 20, rank=rank, ordinary=ordinary)
    assert [place.key for place in places] == [hit.key for hit in hits]
    for place in places:
        assert place.before.rank == 1 + [hit.key for hit in plain].index(place.key)
        assert place.measured is None
    assert hits[0].pair.error < 1e-9


def test_measured_places_bring_their_own_best_entries():
    photos, query = entries(), random_side(text_layout(), 99, torch.float64)
    measured = random_side(text_layout(), 98, torch.float64)
    places = edited_ranking(photos, query, "dog", 2, measured=measured)
    best = [hit.key for ranked in (query, query.without("dog"), measured) for hit in search(photos, ranked, 2)]
    assert {place.key for place in places} == set(best)
    for place in places:
        assert place.measured.score == pytest.approx(photos[place.key].similarity_to(measured), abs=1e-12)
    assert set(places[0].to_json()) == {"key", "before", "predicted", "measured"}
    with pytest.raises(ss.InputError, match="not in the text"):
        search(photos, query, 2, without="cat")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("pyarrow", reason="needs secondsight[scale]")
    from secondsight.scale import decompose, open_store
    from secondsight.scale.sources import of_data

    place = tmp_path_factory.mktemp("edited") / "image"
    decompose(of_data(Scenes(6, seed=11), "image"), ss.load("scenes"), place)
    return open_store(place)


def test_queries_are_really_encoded_again(store):
    from secondsight.scale.query import edited_query, query_of

    model = ss.load("scenes")
    query, deleted = edited_query(store, model, "a red cat", "red")
    assert torch.equal(query.embedding, query_of(store, model, "a red cat").embedding)
    assert torch.equal(deleted.embedding, query_of(store, model, "a cat").embedding)
    _, replaced = edited_query(store, model, "a red cat", "red", "replaced")
    assert float(replaced.embedding.norm() * replaced.scale) == pytest.approx(1, abs=1e-5)
    image = store[store.keys()[0]]
    e = ss.explain(model, Scenes(6, seed=11)[0].image, "a red cat", "last-layer")
    measured = e.without("red", verify=True, model=model).measured
    first = edited_ranking(store, query, "red", 6, measured=replaced)
    assert next(p for p in first if p.key == store.keys()[0]).measured.score == pytest.approx(measured, abs=2e-3)
    assert image.similarity_to(replaced) == pytest.approx(measured, abs=2e-3)


def test_the_command_prints_ranks_before_predicted_and_measured(store, capsys, monkeypatch):
    from secondsight.cli import main

    def run(*arguments, code=0):
        monkeypatch.setattr("sys.argv", ["secondsight", "search", str(store.folder), *arguments, "--model", "scenes"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        return capsys.readouterr()

    lines = [line.strip() for line in run("a red cat", "-k", "2", "--without", "red", "--verify").out.splitlines()]
    title = lines.index("ranks without 'red'")
    assert lines[title + 1].split() == ["entry", "before", "predicted", "measured"]
    assert lines[title + 2].split()[3] == "1"
    assert "measured" not in run("a red cat", "--without", "red").out
    assert "--verify needs something to leave out" in run("a red cat", "--verify", code=2).err
