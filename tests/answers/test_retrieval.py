"""Retrieval debugged: ranks, exact parts of misses, planted reasons, and the report of either kind of data."""

import json
import sys
from dataclasses import replace
from math import comb

import numpy as np
import pytest
import torch

import secondsight as ss
from families import FAMILIES
from families.late_interaction import LATE
from secondsight.__main__ import main
from secondsight.algebra.layout import GridLayout, TokenLayout
from secondsight.answers import Collection, collect, open_collection
from secondsight.answers.retrieval import retrieval
from secondsight.answers.retrieval.alike import Likeness
from secondsight.answers.retrieval.misses import explain_miss
from secondsight.answers.retrieval.ranks import Ranks, change_table, directions, ranks_of
from secondsight.answers.retrieval.tables import winner_table
from secondsight.data import ListedDataset, Scenes
from secondsight.evaluation.statistics import bootstrap_interval
from secondsight.scale import open_store

pytestmark = pytest.mark.filterwarnings("ignore:the model does not know")

WORDS = ("a", "red", "dog")


class Memory(dict):
    """Contributions that are kept in memory, as a store has them."""

    def __init__(self, entries):
        super().__init__(entries)
        self.facts = {"side": "image"}

    @property
    def embeddings(self):
        return torch.stack([entry.embedding * entry.scale for entry in self.values()])


def contributions(vectors, layout, alone=None):
    """Vectors whose sum, with a reference, is the embedding."""
    vectors = torch.as_tensor(vectors, dtype=torch.float64)
    reference = torch.zeros(vectors.shape[1], dtype=torch.float64) if alone is None else torch.as_tensor(alone).double()
    return ss.Contributions(vectors, vectors.sum(0) + reference, reference, layout)


def picture(vectors):
    return contributions(vectors, GridLayout(4, grid=(2, 2), image_size=(8, 8)))


def caption(vectors, words=WORDS):
    text = " ".join(words)
    starts = [sum(len(word) + 1 for word in words[:i]) for i in range(len(words))]
    offsets = tuple((start, start + len(word)) for start, word in zip(starts, words, strict=True))
    return contributions(vectors, TokenLayout(len(words), tokens=tuple(words), offsets=offsets, text=text))


def collection(images, texts, pairs):
    return Collection(Memory(images), Memory(texts), pairs)


def random_collection(n=7, captions=3, joint=4, seed=0):
    """Small whole numbers as vectors, so that many similarities tie."""
    generator = torch.Generator().manual_seed(seed)
    images = {f"i{i}": picture(torch.randint(-1, 2, (4, joint), generator=generator)) for i in range(n)}
    texts, pairs = {}, []
    for i in range(n):
        for c in range(captions):
            texts[f"i{i}/{c}"] = caption(torch.randint(-1, 2, (3, joint), generator=generator))
            pairs.append((f"i{i}", f"i{i}/{c}"))
    return collection(images, texts, pairs)


def naive_rank(scores, relevant):
    order = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
    place = min(order.index(row) for row in relevant)
    return place + 1, order[place], order[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("above", [False, True])
def test_ranks_are_those_of_a_naive_sort_with_ties(seed, above, monkeypatch):
    monkeypatch.setattr("secondsight.answers.retrieval.ranks._BLOCK", 25)  # several blocks
    for direction in directions(random_collection(seed=seed)):
        scores = np.array(
            [
                [direction.entries[entry].similarity_to(direction.queries[query]) for entry in direction.entry_keys]
                for query in direction.query_keys
            ]
        )
        assert any(len(set(row)) < len(row) for row in scores)
        if above:
            scores = scores - scores.mean(0)
        expected = [
            naive_rank(row.astype(np.float32), relevant)
            for row, relevant in zip(scores, direction.relevant, strict=True)
        ]
        computed = ranks_of(direction, above_usual=above)
        assert list(zip(computed.rank, computed.right, computed.winner, strict=True)) == expected


def test_several_captions_of_an_image_count_as_one_that_is_found():
    forward, backward = directions(random_collection())
    assert [len(rows) for rows in forward.relevant] == [1] * 21
    assert [len(rows) for rows in backward.relevant] == [3] * 7
    assert forward.groups[:4] == ["i0", "i0", "i0", "i1"]


@pytest.fixture(scope="module")
def world():
    """Scenes of which four have the captions of another: their captions miss them."""
    scenes = list(Scenes(8, seed=4, captions=2))
    swapped = [replace(scenes[i], caption=scenes[(i + 2) % 8].caption, phrases=(), negatives=()) for i in range(8)]
    return ListedDataset("scenes", [*swapped, *scenes[8:]])


@pytest.fixture(scope="module")
def collected(world, tmp_path_factory):
    return collect(world, ss.load("scenes"), tmp_path_factory.mktemp("retrieval"))


def test_parts_of_a_lead_add_up_to_the_difference_of_similarities(collected):
    explained = 0
    for direction in directions(collected):
        plain = ranks_of(direction)
        wrong = (plain.winner + 1) % len(direction.entry_keys)  # any two entries have a lead
        for number in range(4):
            miss = explain_miss(direction, number, replace(plain, winner=wrong), None)
            query = direction.queries[miss.query]
            lead = direction.entries[miss.winner].similarity_to(query) - direction.entries[miss.right].similarity_to(
                query
            )
            parts = sum(part.part for part in miss.words) + miss.alone + miss.special + miss.unexplained
            assert parts == pytest.approx(lead, abs=1e-6)
            assert miss.lead_value == pytest.approx(lead, abs=1e-12)
            pair = miss.lead.margin
            assert miss.unexplained == pytest.approx(pair.similarity - pair.terms.total, abs=1e-6)
            explained += 1
    assert explained == 8


def planted(winner, right, query, *, others=(), alone=(None, None)):
    """The miss of one caption with two photographs, of which the second is right."""
    layout = GridLayout(4, grid=(2, 2), image_size=(8, 8))
    images = {
        "winner": contributions(winner, layout, alone[0]),
        "right": contributions(right, layout, alone[1]),
    }
    texts = {"right/0": query} | {f"winner/{i}": other for i, other in enumerate(others)}
    pairs = [("winner", key) for key in texts if key.startswith("winner")] + [("right", "right/0")]
    if not others:
        texts["winner/0"] = query
        pairs.append(("winner", "winner/0"))
    direction = directions(collection(images, texts, pairs))[0]
    plain = ranks_of(direction)
    number = list(direction.query_keys).index("right/0")
    assert plain.rank[number] > 1
    return explain_miss(direction, number, plain, None)


SHOWS_DOG = [[0, 0, 2.0], [0, 0.5, 0], [0, 0, 0], [0, 0, 0]]
QUERY = [[0.1, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]
"""A direction of the joint space for each word."""


def test_a_word_that_the_right_photograph_lacks_is_named():
    miss = planted(
        SHOWS_DOG,
        [[0, 0.6, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
        caption(QUERY),
        others=[caption(-torch.tensor(QUERY))],
    )
    assert (miss.reason, miss.words[0].word) == ("missing word", "dog")
    assert (miss.against.word, round(miss.against.part, 6)) == ("red", -0.1)
    assert "gains nothing from “dog”" in miss.sentence()


def test_a_word_that_both_have_is_told_from_a_missing_one():
    right = [[0, 0.6, 0], [0, 0, 1.0], [0, 0, 0], [0, 0, 0]]
    miss = planted(SHOWS_DOG, right, caption(QUERY), others=[caption(-torch.tensor(QUERY))])
    assert (miss.reason, miss.words[0].word) == ("stronger word", "dog")
    assert miss.words[0].winner == pytest.approx(2)
    assert miss.words[0].right == pytest.approx(1)


def test_a_photograph_that_is_close_to_every_caption_is_named():
    # Every caption points along the first axis, in which the winner is far out.
    query = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0.1]]
    other = [[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]
    miss = planted([[2.0, 0, 0]] * 4, [[0, 1.0, 0]] * 4, caption(query), others=[caption(other)] * 3)
    assert miss.reason == "usual similarity"
    assert miss.usual == pytest.approx(8 - 1)


def test_what_entries_have_alone_is_told_from_words():
    query = caption(QUERY)
    layout = query.layout
    query = contributions(QUERY, layout, alone=[3.0, 0, 0])
    other = contributions([[0.0, 0, 0]] * 3, layout, alone=[-3.0, 0, 0])
    miss = planted([[1.0, 0, 0]] * 4, [[0, 0.1, 0]] * 4, query, others=[other] * 2)
    assert miss.reason == "entry alone"
    assert miss.alone == pytest.approx(12)


def test_an_entry_that_wins_everywhere_is_significant_and_a_hub():
    n = 60
    size = 0.8 + 0.4 * torch.rand(n, generator=torch.Generator().manual_seed(0))
    images = {f"i{i}": picture(torch.eye(n)[[i] * 4] * size[i]) for i in range(n)}
    images["i0"] = picture(torch.ones(4, n))
    texts = {f"i{i}/0": caption(torch.eye(n)[[i] * 3]) for i in range(n)}
    direction = directions(collection(images, texts, [(key.split("/")[0], key) for key in texts]))[0]
    ranking = ranks_of(direction)
    table = winner_table(direction, ranking)
    assert list(table["winner"][table["q"] <= 0.05]) == ["i0"]
    assert bool(table.set_index("winner").loc["i0", "hub"])
    assert table["wrong wins"].sum() == int((ranking.rank > 1).sum()) > 20
    whole = winner_table(direction, ranking, winners_only=False)
    assert (len(whole), int(whole["hub"].sum())) == (n, 1)


def test_the_report_of_a_data_set_says_why(world, collected, tmp_path):
    answer = retrieval(open_collection(collected.images, collected.texts, world), None, tmp_path, k=(1, 3), explained=3)
    recall = answer["recall"]
    assert list(recall["ranked by"]) == ["similarity", "above usual"] * 2
    forward = directions(collected)[0]
    assert recall["recall@3"][0] == pytest.approx(np.mean(ranks_of(forward).rank <= 3))
    assert (recall["recall@1 low"] <= recall["recall@1"]).all()
    misses = answer["misses text→image"]
    assert 1 <= len(misses) <= 3
    shares = misses[["words", "entries alone", "special positions", "not explained"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1, atol=1e-6)
    page = (tmp_path / "report.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "16 captions find their photograph first among 8 (95% interval" in answer.claims[0].sentence
    again = retrieval(
        open_collection(collected.images, collected.texts, world), None, tmp_path / "b", k=(1, 3), explained=3
    )
    assert (tmp_path / "b" / "report.html").read_text() == page
    assert again["misses text→image"].equals(misses)


def test_pairs_of_texts_are_ranked_as_the_host_ranks_them(tmp_path):
    host = FAMILIES["st-bert-two-prompts"](torch.float32).host
    rows = [("a cup on a table", "a red cup of coffee"), ("two dogs", "two dogs play with a ball"), ("cat", "a cat on a table"),
            ("a dog", "two dogs play with a ball")]  # fmt: skip
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"query": query, "document": document}) for query, document in rows))
    answer = retrieval(f"pairs:{file}", ss.wrap(host), tmp_path / "out", k=(1, 2))
    documents = list(dict.fromkeys(document for _, document in rows))
    scores = host.similarity(host.encode_query([q for q, _ in rows]), host.encode_document(documents)).numpy()
    expected = [naive_rank(row, [documents.index(d)])[0] for row, (_, d) in zip(scores, rows, strict=True)]
    recall = answer["recall"].set_index(["direction", "ranked by"]).loc[("query→document", "similarity")]
    assert (recall["queries"], recall["entries"]) == (4, 3)
    assert recall["recall@1"] == pytest.approx(np.mean(np.array(expected) == 1))
    assert recall["median rank"] == np.median(expected)
    file.write_text(json.dumps({"query": "a cup", "document": "another cup"}))
    edited = retrieval(f"pairs:{file}", ss.wrap(host), tmp_path / "out", k=(1,))
    assert list(edited["recall"]["entries"]) == [1] * 4
    assert len(open_store(tmp_path / "out" / "stores" / "document")) == 4


def test_token_vectors_are_ranked_by_their_best_matches(tmp_path):
    host = LATE["st-late-plain"](torch.float32)
    rows = [
        ("a cup on a table", "a red cup of coffee"),
        ("two dogs", "two dogs play with a ball"),
        ("cat", "a cat on a table"),
    ]
    file = tmp_path / "pairs.csv"
    file.write_text("query,document\n" + "\n".join(f"{query},{document}" for query, document in rows))
    answer = retrieval(f"pairs:{file}", ss.wrap(host), tmp_path / "out", k=(1,))
    scores = host.similarity(
        host.encode_query([q for q, _ in rows]), host.encode_document([d for _, d in rows])
    ).numpy()  # fmt: skip
    expected = [naive_rank(row, [i])[0] for i, row in enumerate(scores)]
    table = answer["recall"]
    assert list(table["ranked by"]) == ["similarity"] * 2
    assert table["recall@1"][0] == pytest.approx(np.mean(np.array(expected) == 1))
    assert "no mean query" in answer.sections[0].about


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "needs --data, or two stores"),
        (("--data", "pairs:none.csv", "--model", "scenes"), "'none.csv' does not exist"),
        (("--data", "pairs:wrong.csv", "--model", "scenes"), "columns of these names"),
        (("--data", "scenes:noto/2", "--model", "scenes", "--option", "k=0"), "k=0 must be whole numbers"),
        (("--data", "scenes:noto/2", "--model", "scenes", "--option", "depth=3"), "no option 'depth'"),
        (("--data", "scenes:noto/2", "--model", "scenes", "--layer", "3"), "takes the layer with its method"),
        (("--option", "images=nowhere", "--option", "texts=nowhere"), "'nowhere' is not a store"),
    ],
)
def test_bad_calls_end_in_a_sentence(arguments, problem, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    monkeypatch.setattr(sys, "argv", ["secondsight", "evaluate", "retrieval", "--out", "out", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert problem in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("rival", "says"),
    [
        ("A red dog chases two cats", "same input"),
        ("two cats chases a red dog", "word order"),
        ("red dogs and a cat", "same words"),
        ("a blue car", None),
    ],
)
def test_captions_say_whether_the_winner_is_as_right(rival, says):
    texts = {"right/0": "a red dog chases two cats", "winner/0": rival}
    texts |= {f"other{i}/0": f"a tree of kind {i}" for i in range(20)}
    pairs = [(key.split("/")[0], key) for key in texts]
    everything = collection(
        {image: picture(torch.zeros(4, 3)) for image, _ in pairs},
        {key: caption(torch.zeros(len(text.split()), 3), text.split()) for key, text in texts.items()},
        pairs,
    )
    forward, backward = directions(everything)
    won = Ranks(np.full(22, 2), np.arange(22), np.full(22, 1))
    assert Likeness(everything)(forward, 0, won) == says
    if says != "same words":  # counted by the words of the winner
        assert Likeness(everything)(backward, 0, won) == says


def test_changes_are_tested_as_mcnemar_tests_them_where_each_photograph_has_one_query():
    direction = directions(random_collection(40, captions=1))[0]
    generator = np.random.default_rng(0)
    before, after = generator.integers(1, 4, (2, 40))
    by = {name: Ranks(rank, rank, rank) for name, rank in (("similarity", before), ("above usual", after))}
    (row,) = change_table(direction, by, [1], 0.05, 0).to_dict("records")
    better, worse = int(((before > 1) & (after == 1)).sum()), int(((before == 1) & (after > 1)).sum())
    few = min(better, worse)
    exact = min(1, 2 * sum(comb(better + worse, i) for i in range(few + 1)) / 2 ** (better + worse))
    assert row["p"] == pytest.approx(exact)
    assert row["change"] == pytest.approx((better - worse) / 40)
    expected = bootstrap_interval((after == 1) * 1.0 - (before == 1), direction.groups, seed=1)
    assert (row["low"], row["high"]) == pytest.approx(expected, abs=0.06)


def test_queries_of_one_photograph_are_one_case_of_the_test():
    direction = directions(random_collection(6, captions=3))[0]
    before, after = np.full(18, 2), np.array([1] * 9 + [2] * 9)  # all captions of three photographs are found
    by = {name: Ranks(rank, rank, rank) for name, rank in (("similarity", before), ("above usual", after))}
    (row,) = change_table(direction, by, [1], 0.05, 0).to_dict("records")
    assert (row["photographs better"], row["photographs worse"]) == (3, 0)
    assert row["p"] == pytest.approx(2 / 2**3)
