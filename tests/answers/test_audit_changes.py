"""What changed between two models: planted changes are found, the same model changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch

from object_worlds import ObjectWorld
from secondsight.answers.audit.changes import changes_section, margins, paired_table
from secondsight.answers.audit.grounding import grounding_cases
from secondsight.support.errors import InputError


def section_of(before, after, **options):
    return changes_section(before.collection(), after.collection(), **options)


def test_margins_are_the_naive_ones():
    collection = ObjectWorld(8, noise=0.3).collection()
    table = margins(collection)
    for number, (image, text) in enumerate(collection.pairs):
        scores = {key: (collection.images[image] @ collection.texts[key]).similarity for key in collection.texts}
        others = [score for key, score in scores.items() if key != text]
        expected = (scores[text] - np.mean(others)) / np.std(others, ddof=1)
        assert table["margin"][number] == pytest.approx(expected, rel=1e-4)


def test_a_class_that_lost_its_object_is_named_with_both_maps():
    before, after = ObjectWorld(80, seed=1, noise=0.1), ObjectWorld(80, seed=1, noise=0.1, lost=("cat",), grid=8)
    section = section_of(before, after)
    table = section.tables["change of grounding"]
    assert table["class"][table["q"] <= 0.05].tolist() == ["cat"]
    claim = next(claim for claim in section.claims if claim.numbers["kind"] == "grounding")
    assert claim.sentence.startswith("“cat” rests ")
    assert " points less on its object" in claim.sentence
    assert [case.facts.split(":")[0] for case in claim.cases[:2]] == ["before", "after"]
    left, right = (grounding_cases(world.collection()) for world in (before, after))
    expected = left.groupby("class")["share"].mean()["cat"], right.groupby("class")["share"].mean()["cat"]
    row = table.set_index("class").loc["cat"]
    assert (row["before"], row["after"]) == pytest.approx(expected)


def test_the_same_model_changes_nothing():
    section = section_of(ObjectWorld(40, seed=2), ObjectWorld(40, seed=2))
    assert section.claims == []
    assert all((table["q"] == 1).all() for table in section.tables.values())


def test_models_that_differ_by_noise_alone_are_told_apart_in_no_more_than_alpha_of_the_seeds():
    false = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        cases = grounding_cases(ObjectWorld(40, seed=seed, noise=0.3).collection()).assign(text=lambda t: t["image"])
        tables = [cases.assign(share=cases["share"] + generator.normal(0, 0.05, len(cases))) for _ in range(2)]
        false += bool((paired_table(*tables, "class", "share", ["text"])["q"] <= 0.05).any())
    assert false <= 4


def test_one_word_of_a_thousand_that_changed_stands_out():
    before = pd.DataFrame(
        [(f"word {word}", image) for word in range(1000) for image in range(5)] + [("changed", i) for i in range(25)],
        columns=["word", "image"],
    ).assign(gain=0.0)
    noise = np.random.default_rng(0).normal(0, 1, len(before))
    after = before.assign(gain=noise + 5 * (before["word"] == "changed"))
    table = paired_table(before, after, "word", "gain", [])
    assert table["word"][table["q"] <= 0.05].tolist() == ["changed"]


def test_different_data_is_refused():
    before, after = ObjectWorld(4).collection(), ObjectWorld(4).collection()
    after.pairs = [("x", text) for _, text in after.pairs]
    with pytest.raises(InputError, match="no pairs in common"):
        changes_section(before, after)


def test_scale_and_rotation_of_the_joint_space_change_nothing():
    before, after = ObjectWorld(30, seed=3).collection(), ObjectWorld(30, seed=3).collection()
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(0)))[0]
    for store in (after.images, after.texts):
        for key, entry in store.items():
            store[key] = type(entry)(
                entry.vectors @ rotation,
                entry.embedding @ rotation,
                entry.reference_embedding @ rotation,
                entry.layout,
                entry.scale,
            )
    section = changes_section(before, after)
    assert section.claims == []
    for table in section.tables.values():
        np.testing.assert_allclose(table["before"], table["after"], rtol=1e-3, atol=1e-5)
