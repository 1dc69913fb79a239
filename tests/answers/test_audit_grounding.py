"""Grounding by class: shares are the naive ones, planted classes are found, and noise is not claimed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from object_worlds import ObjectWorld
from secondsight.algebra.layout import GridLayout
from secondsight.answers.audit.grounding import grounding_cases, grounding_section, grounding_table
from secondsight.answers.audit.regions import covered_share, positive_share

FRAME = (10.0, 0.0, 70.0, 60.0)
LAYOUT = GridLayout(13, {0: "class"}, (3, 4), (80, 60), FRAME)

places, sizes = st.integers(-5, 89), st.integers(1, 95)
corners = st.tuples(places, places, sizes, sizes).map(lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3]))


def naive_share(layout, boxes, without):
    """The same share by counting pixels: boxes with whole corners, in cells with whole corners."""
    shares = []
    for x0, y0, x1, y1 in layout.cell_boxes().round().long().tolist():
        pixels = [(x + 0.5, y + 0.5) for x in range(x0, x1) for y in range(y0, y1)]
        inside = [
            any(b[0] < x < b[2] and b[1] < y < b[3] for b in boxes)
            and not any(b[0] < x < b[2] and b[1] < y < b[3] for b in without)
            for x, y in pixels
        ]
        shares.append(np.mean(inside))
    return np.array(shares)


@settings(max_examples=25, deadline=None)
@given(st.lists(corners, max_size=3), st.lists(corners, max_size=2))
def test_covered_shares_are_those_of_pixels(boxes, without):
    expected = naive_share(LAYOUT, boxes, without)
    np.testing.assert_allclose(covered_share(LAYOUT, boxes, without), expected, atol=1e-9)


def test_the_share_of_positive_values_in_a_region():
    values, weights = np.array([[3.0, -5.0, 1.0], [-1.0, -1.0, 0.0]]), np.array([1.0, 1.0, 0.5])
    shares = positive_share(values, weights)
    assert shares[0] == pytest.approx((3 + 0.5) / 4)
    assert np.isnan(shares[1])


def test_a_case_is_the_naive_share_of_its_map():
    collection = ObjectWorld(6, noise=0.3).collection()
    cases = grounding_cases(collection)
    assert len(cases) == 6
    for _, case in cases.iterrows():
        image, text = collection.pairs[case["pair"]]
        left, right = collection.images[image], collection.texts[text]
        maps = left.vectors.double() @ right.vectors.double()[2] * left.scale * right.scale
        box = collection.example(case["pair"]).phrases[0].boxes[0]
        inside = naive_share(left.layout, [box], [])
        positive = maps.clamp(min=0).numpy()
        assert case["share"] == pytest.approx((positive * inside).sum() / positive.sum(), abs=1e-6)
        assert case["chance"] == pytest.approx(0.25)
        assert case["hit"] == (inside[int(maps.argmax())] == 1)


def test_a_class_whose_words_point_nowhere_is_told_from_the_others():
    section = grounding_section(ObjectWorld(100, seed=1, lost=("cat",)).collection())
    table = section.tables["grounding"].set_index("class")
    assert table.index[0] == "cat"
    assert table.loc["cat", "q above"] > 0.05
    assert (table.drop(index="cat")["q above"] <= 0.05).all()
    undecided = next(claim for claim in section.claims if claim.numbers["kind"] == "undecided")
    assert undecided.numbers["classes"] == ["cat"]
    assert undecided.cases[0].heat.shape == (80, 80)
    assert "".join(text for text, _ in undecided.cases[0].words) == "a cat here"


def test_a_class_that_rests_on_all_but_its_object_is_below_chance():
    collection = ObjectWorld(100, seed=1, lost=("dog",)).collection()
    cases = grounding_cases(collection)
    cases.loc[cases["class"] == "dog", "share"] = 0.1
    table = grounding_table(cases).set_index("class")
    assert table.loc["dog", "q below"] <= 0.05
    assert (table.drop(index="dog")["q below"] > 0.5).all()


def test_noise_is_claimed_in_no_more_than_alpha_of_the_seeds():
    false = 0
    for seed in range(20):
        table = grounding_table(grounding_cases(ObjectWorld(40, seed=seed, exchangeable=True).collection()))
        false += bool((table[["q above", "q below"]] <= 0.05).any().any())
    # Two kinds of claims at 5 % each: more than five of twenty seeds have a chance of one in a hundred.
    assert false <= 5


def test_an_image_counts_once_and_few_images_are_not_tested():
    cases = grounding_cases(ObjectWorld(12, seed=2).collection())
    doubled = grounding_table(cases.loc[cases.index.repeat(2)])
    once = grounding_table(cases)
    assert doubled["images"].tolist() == once["images"].tolist()
    assert (doubled["cases"] == 2 * once["cases"]).all()
    assert (once.loc[once["images"] < 5, ["q above", "q below"]] == 1).all().all()
