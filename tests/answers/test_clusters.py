"""Clusters of regions: shares as naive ones, a word that rests on its regions is found, and noise is not."""

import numpy as np
import pytest

from secondsight.answers.audit.clusters import ClusterMeasure, clusters_section
from secondsight.answers.audit.region_clusters import region_clusters
from worlds import NOUNS, World


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return World(images=60, captions=2, noise=0.3).write(tmp_path_factory.mktemp("clusters"))


@pytest.fixture(scope="module")
def clusters(collection, tmp_path_factory):
    return region_clusters(collection, tmp_path_factory.mktemp("fitted"))


def test_shares_are_those_of_every_pairs_matrix(collection, clusters):
    pair = collection.interactions(0)
    matrix = pair.matrix.double().numpy()[1:]
    units = collection.images["0000"].vectors.numpy()[1:]
    members = (units / np.linalg.norm(units, axis=1, keepdims=True) @ clusters.centres.T).argmax(1)
    words = pair.right_layout.words
    positive = [np.maximum(matrix[:, list(word.features)].sum(1), 0) for word in words]
    first = ClusterMeasure(collection, clusters)(["0000/0"])
    for row in first.itertuples():
        shares = {i: values[members == row.cluster].sum() / values.sum() for i, values in enumerate(positive)}
        assert words[1].text == row.word or words[4].text == row.word
        index = 1 if words[1].text == row.word else 4
        assert row.share == pytest.approx(shares[index], abs=1e-5)
        assert row.chance == pytest.approx(np.mean([shares[i] for i in shares if i != index]), abs=1e-5)
        assert row.attribution == pytest.approx(positive[index].sum(), abs=1e-5)
    # Both captions of an image name the same nouns.
    both = ClusterMeasure(collection, clusters)(collection.texts.keys()[:4])
    assert set(both["image"]) == {0, 1}
    assert (both["count"] == 2).all()
    assert first.groupby("word")["share"].sum().tolist() == pytest.approx([1, 1])


def test_nouns_rest_on_the_regions_that_show_them(collection):
    section = clusters_section(collection)
    words = {claim.numbers["word"]: claim for claim in section.claims}
    assert set(words) == set(NOUNS)
    for claim in words.values():
        assert claim.numbers["share"] > 0.5
        assert len(claim.cases) == 6
    table = section.tables["clusters"]
    assert table["share of regions"].sum() == pytest.approx(1)
    # A noun's typical regions are in images whose captions name it.
    claim = words["cat"]
    named = {image for image, text in collection.pairs if "cat" in collection.texts[text].layout.text}
    typical = table["typical images"][claim.numbers["cluster"]].split(", ")
    assert len(set(typical) & named) >= 5


def test_noise_is_claimed_no_more_often_than_alpha(tmp_path):
    claimed = 0
    for seed in range(20):
        collection = World(images=30, exchangeable=True, noise=1.0, seed=seed).write(tmp_path / str(seed))
        claimed += bool((clusters_section(collection).tables["words and clusters"]["q"] <= 0.05).any())
    assert claimed <= 3


def test_clusters_are_kept_and_do_not_depend_on_the_run(collection, clusters, tmp_path):
    again = region_clusters(collection, tmp_path)
    np.testing.assert_array_equal(again.centres, clusters.centres)
    (tmp_path / "clusters.npz").write_bytes(b"damaged")
    np.testing.assert_array_equal(region_clusters(collection, tmp_path).images, clusters.images)
    assert clusters.images.shape[1] == 6
