"""Exchanged words: a planted ignored attribute is found, an attribute that counts is not, and encodings stay bounded."""

import random
import re
from dataclasses import dataclass
from functools import cache

import pytest
import torch
import torch.nn.functional as F

import secondsight as ss
from secondsight.answers import collect
from secondsight.answers.audit.exchanged import (
    MOST_OF_PLACE,
    average_exchange,
    draw_exchanges,
    exchange_table,
    exchanged_section,
    measure_exchanges,
)
from secondsight.data import Scenes
from secondsight.model import Side
from secondsight.support.errors import InputError
from secondsight.testing import changed, snapshot
from worlds import NOUNS, text_layout

COLOURS = ("red", "blue", "green", "yellow", "white")


@dataclass(frozen=True, eq=False)
class BagOfWords(Side):
    """A text side that adds a random vector for each word, the colours' times `weight`."""

    weight: float = 1.0
    seed: int = 0

    def embed(self, inputs, *, truncate=False):
        return torch.stack([self.of_words(text.split()) for text in inputs])

    def of_words(self, words):
        return sum(vector(word, self.seed) * (self.weight if word in COLOURS else 1.0) for word in words)


@cache
def vector(word, seed):
    generator = torch.Generator().manual_seed(int.from_bytes(word.encode(), "big") % 2**31 + seed)
    return torch.randn(64, generator=generator, dtype=torch.float64)


def bag(weight=1.0, seed=0):
    return BagOfWords(None, 1, True, weight=weight, seed=seed)


def measured(weight, seed, images=80):
    """Exchanges in captions of pictures that show the captions' words, with noise."""
    rng, side = random.Random(seed), bag(weight, seed)
    texts = [f"a {rng.choice(COLOURS)} background with a {rng.choice(NOUNS)}" for _ in range(images)]
    captions = [(number, text_layout(text.split())) for number, text in enumerate(texts)]
    shown = bag(1.0, seed).embed(texts)
    noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    own = F.normalize(side.embed(texts), dim=-1)
    return measure_exchanges(draw_exchanges(captions, seed=seed), F.normalize(shown + noise, dim=-1), own, side)


def test_an_ignored_attribute_is_found_and_one_that_counts_is_not_in_twenty_seeds():
    for seed in range(20):
        ignoring, telling = (exchange_table(measured(weight, seed), "place") for weight in (0.1, 1.0))
        assert set(ignoring["place"]) == {"a … background", "a …"}
        assert list(ignoring.loc[ignoring["q"] <= 0.05, "place"]) == ["a … background"]
        assert not (telling["q"] <= 0.05).any()


def test_single_words_are_tested_where_they_have_enough_images():
    table = exchange_table(measured(0.1, 0, images=200), "word").set_index("word")
    assert (table.loc[list(COLOURS), "q"] <= 0.05).all()
    assert (table.loc[list(NOUNS), "q"] > 0.05).all()
    few = exchange_table(measured(0.1, 0, images=20), "word").set_index("word")
    assert (few.loc[few["images"] < 5, "q"] == 1).all()


def test_what_is_not_looked_at_wins_half_of_the_time():
    table = exchange_table(measured(0.0, 3, images=200).round(9), "place").set_index("place")
    assert table.loc["a … background", "wrong wins"] == 0.5
    assert table.loc["a … background", "wrong low"] < 0.5 < table.loc["a … background", "wrong high"]
    assert table.loc["a …", "wrong wins"] < 0.1


def test_a_model_that_tells_nothing_gives_no_measure():
    exchanges = measured(1.0, 0).assign(effect=0.0)
    assert average_exchange(exchanges) == 0
    assert (exchange_table(exchanges, "place")["q"] == 1).all()


def test_exchanged_captions_differ_in_one_word_that_none_of_the_images_captions_has():
    texts = ["A cat on a red mat.", "a cat on a green mat.", "A dog on a red mat.", "an owl on a mat, asleep."]
    images = [0, 0, 1, 2]
    layouts = [text_layout(re.findall(r"\w+|[.,]", text)) for text in texts]
    exchanges = draw_exchanges(list(zip(images, layouts, strict=True)))
    # Image 0 has captions of both colours, neither of which would be wrong about it; "an" takes other words than "a".
    changes = set(zip(exchanges["image"], exchanges["word"], exchanges["other"], strict=True))
    assert changes == {(0, "cat", "dog"), (1, "dog", "cat"), (1, "red", "green")}
    assert all(row.text.replace(row.word, row.other) == row.exchanged for row in exchanges.itertuples())


def test_encodings_are_bounded_and_drawn_with_the_seed():
    rng = random.Random(0)
    texts = [f"a {rng.choice(COLOURS)} {rng.choice(NOUNS)} and a {rng.choice(COLOURS)} bed" for _ in range(300)]
    captions = [(number, text_layout(text.split())) for number, text in enumerate(texts)]
    drawn = draw_exchanges(captions)
    assert drawn["place"].value_counts()["a … bed"] == MOST_OF_PLACE
    fewer = draw_exchanges(captions, most=110)
    assert 100 <= len(fewer) <= 110
    assert fewer["place"].value_counts()["a … bed"] == MOST_OF_PLACE
    assert draw_exchanges(captions, most=110).equals(fewer)
    assert not draw_exchanges(captions, most=110, seed=1).equals(fewer)


def test_captions_without_words_in_common_places_cost_nothing():
    drawn = draw_exchanges([(0, text_layout(["a", "cat"])), (1, text_layout(["two", "dogs"]))])
    exchanges = measure_exchanges(drawn, torch.zeros(2, 3), torch.zeros(2, 3), bag())
    assert len(exchange_table(exchanges, "place")) == 0


@pytest.fixture(scope="module")
def model():
    return ss.load("scenes")


def test_the_section_compares_the_hosts_similarities_and_leaves_the_model(model, tmp_path):
    data = Scenes(16, seed=3)
    collection = collect(data, model, tmp_path)
    before = snapshot(model.right.encoder.module)
    section = exchanged_section(collection, model)
    assert changed(before, snapshot(model.right.encoder.module)) == []
    encoded = int(re.search(r"Here (\d+) captions were encoded", section.about).group(1))
    assert section.tables["exchanged words"]["images"].sum() == pytest.approx(encoded, abs=0.2 * encoded)
    row = section.tables["exchanged places"].iloc[0]
    layouts = [(number, collection.texts[text].layout) for number, (_, text) in enumerate(collection.pairs)]
    drawn = draw_exchanges(layouts)
    own = drawn[drawn["place"] == row["place"]]
    embedded = {name: F.normalize(model.right.embed(list(own[name])), dim=-1) for name in ("text", "exchanged")}
    images = F.normalize(model.left.embed([data[number].image for number in own["image"]]), dim=-1)
    effect = ((embedded["text"] - embedded["exchanged"]) * images).sum(1).double().numpy()
    assert row["effect"] == pytest.approx(own.assign(effect=effect).groupby("image")["effect"].mean().mean(), abs=1e-5)


def test_another_model_is_refused(model, tmp_path):
    collection = collect(Scenes(4, seed=3), model, tmp_path)
    with pytest.raises(InputError, match="load the store's model"):
        exchanged_section(collection, ss.load("builtin"))
