"""Collections: both sides of a data set in stores, and which caption belongs to which image."""

from dataclasses import replace

import pytest
import torch

import secondsight as ss
from secondsight.answers import Case, Claim, Section, collect, open_collection, write_answer
from secondsight.data import ListedDataset, Scenes


@pytest.fixture(scope="module")
def model():
    return ss.load("scenes")


@pytest.fixture(scope="module")
def collected(model, tmp_path_factory):
    data = Scenes(4, seed=3, captions=2)
    return collect(data, model, tmp_path_factory.mktemp("stores"))


def test_every_caption_meets_its_image(model, collected):
    assert len(collected) == 8
    assert len(collected.images) == 4
    for number, pair in enumerate(collected):
        example = collected.example(number)
        e = ss.explain(model, example.image, example.caption, method="last-layer")
        assert pair.similarity == pytest.approx(e.similarity, abs=1e-5)
        assert pair.error < 1e-2


def test_a_limit_bounds_captions_and_their_images(model, tmp_path):
    first = collect(Scenes(4, seed=3, captions=2), model, tmp_path, limit=3)
    assert (len(first), len(first.images), len(first.texts)) == (3, 2, 3)
    again = collect(Scenes(4, seed=3, captions=2), model, tmp_path, limit=5)
    assert (len(again), len(again.images)) == (5, 3)


def test_stores_alone_are_paired_by_their_keys(collected):
    reopened = open_collection(collected.images.folder, collected.texts.folder)
    assert sorted(reopened.pairs) == sorted(collected.pairs)
    with pytest.raises(ss.InputError, match="is not at hand: give the data"):
        reopened.example(0)
    torch.testing.assert_close(reopened.mean("image"), collected.mean("image"))


def test_stores_that_do_not_belong_together_are_refused(model, collected, tmp_path):
    other = collect(Scenes(2, seed=9), model, tmp_path, method="token-embeddings")
    with pytest.raises(ss.InputError, match="different models or methods"):
        open_collection(collected.images.folder, other.texts.folder)
    third = collect(Scenes(2, seed=9), model, tmp_path / "third")
    with pytest.raises(ss.InputError, match="no caption of"):
        open_collection(collected.images.folder, third.texts.folder)


def test_captions_that_were_edited_since_are_refused(collected):
    edited = [replace(example, caption="something else", phrases=(), negatives=()) for example in collected.data]
    with pytest.raises(ss.InputError, match="is 'something else' now"):
        open_collection(collected.images, collected.texts, ListedDataset("edited", edited))


def test_a_report_has_claims_cases_and_tables(collected, tmp_path):
    import pandas as pd

    pair, example = collected.interactions(0), collected.example(0)
    words = [(word + " ", score) for word, score in pair.words]
    case = Case(example.image, pair.heatmap(None).numpy(), [example.regions[0].box], words, "a <fact>")
    table = pd.DataFrame({"word": ["cat"], "p": [0.01]})
    sections = [
        Section("Words", "About.", [Claim("“cat” counts.", [case], {"p": 0.01})], {"words": table}),
        Section("Hubs", "?"),
    ]
    answer = write_answer(tmp_path / "out", "audit", "About all.", sections, {"data": "scenes"})
    page = (tmp_path / "out" / "report.html").read_text()
    assert "a &lt;fact&gt;" in page
    assert "data:image/jpeg;base64," in page
    assert "Nothing was found." in page
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "report.html", "summary.json", "words.csv", "words.parquet",
    ]  # fmt: skip
    assert [claim.sentence for claim in answer.claims] == ["“cat” counts."]
    assert "- “cat” counts." in answer.markdown()
    assert pd.read_parquet(tmp_path / "out" / "words.parquet").equals(table)
