"""Spurious pairs: shares and baselines are the naive ones, planted pairs are found, and noise is not claimed."""

import numpy as np
import pytest
from scipy import stats

from object_worlds import NAMES, ObjectWorld
from secondsight.answers.audit.regions import covered_share
from secondsight.answers.audit.spurious import scores_without, spurious_section, spurious_table
from secondsight.answers.audit.spurious_cases import WITH, WITHOUT, scenes_of, spurious_cases


def measured(world, seed=0):
    collection = world.collection()
    return collection, spurious_cases(collection, scenes_of(collection), seed=seed)


def naive_share(collection, image, case, boxes, without):
    """The share of one word on one region, from the vectors."""
    left, right = collection.images[image], collection.texts[collection.pairs[case["pair"]][1]]
    values = np.clip((left.vectors.double() @ right.vectors.double()[2]).numpy(), 0, None)
    return (values * covered_share(left.layout, boxes, without)).sum() / values.sum()


def test_shares_and_baselines_are_the_naive_ones():
    collection, cases = measured(ObjectWorld(12, noise=0.3))
    scenes = scenes_of(collection)
    assert set(cases["reading"]) == {WITH, WITHOUT}
    for _, case in cases.sample(60, random_state=0).iterrows():
        scene = scenes[case["image"]]
        own = scene.boxes.get(case["class"], [])
        assert (case["reading"] == WITH) == bool(own)
        everything = [box for boxes in scene.boxes.values() for box in boxes]
        boxes, without = (
            (scene.boxes[case["region"]], own) if case["region"] in NAMES else ([(0, 0, 80, 80)], everything)
        )
        expected = naive_share(collection, case["image"], case, boxes, without)
        assert case["share"] == pytest.approx(expected, abs=1e-5)


def test_the_baseline_of_absent_words_is_their_mean_without_the_word():
    _, cases = measured(ObjectWorld(12, noise=0.3))
    for _, group in cases[cases["reading"] == WITHOUT].groupby(["image", "region"], observed=True):
        for position, (_, case) in enumerate(group.iterrows()):
            others = np.delete(group["share"].to_numpy(), position)
            assert case["usual"] == pytest.approx(others.mean())
            below = (others < case["share"]).sum() + (others == case["share"]).sum() / 2
            assert case["rank"] == pytest.approx((below + 0.5) / len(group))


def test_a_planted_pair_of_objects_is_found_in_both_readings():
    collection = ObjectWorld(200, seed=3, noise=0.15, rests={"dog": "boat"}, together=("dog", "boat")).collection()
    section = spurious_section(collection)
    table = section.tables["spurious pairs"]
    found = table[table["q"] <= 0.05]
    assert set(zip(found["reading"], found["class"], found["region"], strict=True)) == {
        (WITH, "dog", "boat"), (WITHOUT, "dog", "boat"),
    }  # fmt: skip
    assert found.set_index("reading").loc[WITHOUT, "score"] > 0.9
    assert [claim.sentence.split(":")[0] for claim in section.claims] == [
        "“dog” also rests on “boat”", "“dog” rests on “boat” where there is no dog",
    ]  # fmt: skip
    with_dog, without_dog = (claim.cases[0] for claim in section.claims)
    assert (len(with_dog.boxes), len(with_dog.others)) == (1, 1)
    assert (len(without_dog.boxes), len(without_dog.others)) == (0, 1)


def test_a_planted_background_is_found():
    collection = ObjectWorld(200, seed=4, noise=0.15, rests={"cup": "snow"}).collection()
    section = spurious_section(collection)
    found = section.tables["spurious pairs"].query("q <= 0.05")
    assert set(zip(found["class"], found["region"], strict=True)) == {("cup", "background: snow")}
    assert "the background “snow”" in section.claims[-1].sentence


def test_the_surest_pair_is_claimed_first():
    """Though it stands out less than the other."""
    section = spurious_section(ObjectWorld(120, seed=10, noise=0.15, rests={"dog": "boat", "cup": "snow"}).collection())
    (dog, cup) = (claim.numbers for claim in section.claims)
    assert (dog["class"], cup["class"]) == ("dog", "cup")
    assert dog["share"] - dog["usual"] < cup["share"] - cup["usual"]


def test_a_word_that_rests_on_every_object_is_no_pair():
    """Its own mean over other objects is taken off."""
    _, cases = measured(ObjectWorld(200, seed=5, noise=0.15))
    cases.loc[cases["class"] == "car", "rank"] = 0.9 + 0.05 * np.random.default_rng(0).random(
        (cases["class"] == "car").sum()
    )
    table = spurious_table(cases)
    assert (table.loc[table["class"] == "car", "q"] > 0.05).all()


@pytest.mark.parametrize("world", [{"exchangeable": True}, {}], ids=["noise", "grounded"])
def test_nothing_is_claimed_beyond_alpha_in_a_clean_world(world):
    false = 0
    for seed in range(20):
        _, cases = measured(ObjectWorld(30, seed=seed, noise=0.3, **world))
        table = spurious_table(cases)
        false += bool((table["q"] <= 0.05).any())
    # Two readings at 5 % each: more than five of twenty seeds have a chance of one in a hundred.
    assert false <= 5


def test_scores_without_the_object_are_a_comparison_of_all_pairs_of_images():
    collection, _ = measured(ObjectWorld(40, seed=6, rests={"dog": "boat"}))
    scenes = scenes_of(collection)
    (score,) = scores_without(collection, scenes, [("dog", "boat")])
    texts = {text: entry.embedding * entry.scale for text, entry in collection.texts.items()}
    mean = sum(texts.values()) / len(texts)
    asking = [texts[text] for _, text in collection.pairs if collection.texts[text].layout.text == "a dog here"]
    caption = sum(asking) / len(asking) - mean
    has, neither = [], []
    for image, scene in scenes.items():
        value = float(collection.images[image].embedding * collection.images[image].scale @ caption)
        if "dog" not in scene.boxes:
            (has if "boat" in scene.boxes else neither).append(value)
    expected = np.mean([(a > b) + (a == b) / 2 for a in has for b in neither])
    assert score == pytest.approx(expected)
    assert stats.mannwhitneyu(has, neither).pvalue < 0.01


def test_the_same_seed_gives_the_same_cases():
    world = ObjectWorld(20, seed=7)
    first, again, other = (measured(world, seed)[1] for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first["pair"].equals(other["pair"])
