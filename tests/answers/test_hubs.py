"""Hubs: four terms that add up, rankings as naive ones, a planted hub that is found, and clean worlds without hubs."""

import numpy as np
import pytest
import torch

from secondsight.answers.audit.hubs import hub_table, hubs_section
from secondsight.answers.audit.rankings import RANKINGS, directions, hubness, rank_all
from secondsight.answers.significance import outlier_p, q_values
from worlds import World


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return World(images=60, captions=2, noise=0.6, hubs=(7,)).write(tmp_path_factory.mktemp("hubs"))


def test_terms_are_the_means_of_every_pairs_terms(tmp_path):
    collection = World(images=5, captions=2, missed=0.0).write(tmp_path)
    pairs = [[collection.images[a] @ collection.texts[b] for b in collection.texts] for a in collection.images]
    table = hub_table(directions(collection)[0])
    for name, term in {
        "base": "base",
        "alone": "left",
        "other side alone": "right",
        "interaction": "interaction",
    }.items():
        expected = [np.mean([getattr(pair.terms, term) for pair in row]) for row in pairs]
        assert table[name].to_numpy() == pytest.approx(expected, abs=1e-6)
    assert table["usual"].to_numpy() == pytest.approx([np.mean([p.similarity for p in row]) for row in pairs], abs=1e-6)


def test_rankings_are_those_of_all_pairs(tmp_path):
    collection = World(images=9, captions=2, noise=2.0, missed=0.0).write(tmp_path)
    pairs = [[collection.images[a] @ collection.texts[b] for a in collection.images] for b in collection.texts]
    similarity = np.array([[pair.similarity for pair in row] for row in pairs])
    alone = np.array([[pair.terms.left for pair in row] for row in pairs])
    own = np.arange(18) // 2
    lists, table, queries = rank_all(directions(collection)[0])
    scores = dict(zip(RANKINGS, (similarity, similarity - similarity.mean(0), similarity - alone), strict=True))
    for row in table.itertuples():
        places = np.argsort(np.argsort(-scores[row.ranking], axis=1), axis=1)[np.arange(18), own]
        assert row._2 == pytest.approx((places < 1).mean())
        assert row._3 == pytest.approx((places < 5).mean())
    assert queries == 18
    # Nine entries: the nearest two are counted.
    assert lists.tolist() == np.bincount(np.argsort(-similarity, axis=1)[:, :2].ravel(), minlength=9).tolist()
    assert hubness(lists) == pytest.approx(
        float((((lists - lists.double().mean()) / lists.double().std(correction=0)) ** 3).mean())
    )


def test_lists_in_which_all_are_alike_have_no_hubs(recwarn):
    assert hubness(torch.tensor([2, 2, 2])) == 0
    assert not recwarn.list


def test_an_image_has_several_right_captions(tmp_path):
    collection = World(images=9, captions=3, noise=2.0).write(tmp_path)
    _, backwards = directions(collection)
    assert backwards.right.tolist() == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(9)]
    similarity = (backwards.queries @ backwards.entries.T).numpy()
    best = similarity.reshape(9, 9, 3)[np.arange(9), np.arange(9)].max(1)
    table = rank_all(backwards)[1].set_index("ranking")
    assert table.loc["similarity", "recall@1"] == pytest.approx((similarity.max(1) <= best).mean())


def test_a_planted_hub_is_found_and_explained(collection):
    section = hubs_section(collection)
    hubs = [claim.numbers["key"] for claim in section.claims if claim.numbers["kind"] == "image hub"]
    assert hubs == ["0007"]
    assert "The image 0007 is close to all captions" in section.claims[0].sentence
    assert section.claims[0].cases[0].facts.count("“") == 3
    assert section.tables["image hubs"]["image"].iloc[0] == "0007"
    assert set(section.tables) == {"image hubs", "caption hubs", "rankings", "hubness"}


def test_a_clean_world_has_hubs_no_more_often_than_alpha():
    """The bulk's own tail is no hub, however skewed, as long as it falls like an exponential one or faster."""
    generator = np.random.default_rng(0)
    for draw in (generator.standard_normal, generator.standard_exponential, lambda n: generator.beta(2, 30, n)):
        claimed = 0
        for _ in range(200):
            p = outlier_p(draw(150))
            claimed += bool((q_values(p[p < 1]) <= 0.05).any())
        assert claimed / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


def test_outliers_are_seen_and_few_values_are_not_tested():
    values = np.append(np.random.default_rng(0).normal(size=99), 7.0)
    p = outlier_p(values)
    assert p.argmin() == 99
    assert p[99] < 1e-4
    # Equal values are one test.
    assert outlier_p(np.append(values, [7.0, 7.0]))[-3:].tolist() == pytest.approx([p[99]] * 3, rel=1e-9)
    assert (outlier_p(values[-15:]) == 1).all()


def test_rankings_do_not_depend_on_the_block(collection, monkeypatch):
    direction = directions(collection)[0]
    whole = rank_all(direction)
    monkeypatch.setattr("secondsight.answers.audit.rankings._BLOCK", 7)
    blocks = rank_all(direction)
    assert torch.equal(whole[0], blocks[0])
    assert whole[1].equals(blocks[1])
