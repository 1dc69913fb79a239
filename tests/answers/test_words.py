"""Words: parts that add up for every pair, a planted ignored word that is found, and noise in which nothing is claimed."""

import numpy as np
import pytest

from secondsight.answers.audit.word_parts import CONTENT, FUNCTION, MISSED, PARTS, WordMeasure, word_parts
from secondsight.answers.audit.words import parts_table, word_table, words_section
from worlds import NOUNS, World


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return World(images=60, captions=2, tail="softly").write(tmp_path_factory.mktemp("world"))


def naive_gains(collection):
    """{(word, image): [part with its own image, mean part with the others]} by every pair's matrix, in double precision."""
    gains = {}
    for image, text in collection.pairs:
        caption = collection.texts[text]
        columns = {}
        for other in collection.images:
            pair = collection.images[other] @ caption
            columns[other] = pair.matrix.double().sum(0) + pair.right_effects.double()
        rest = np.mean([columns[other].numpy() for other in columns if other != image], axis=0)
        for word in caption.layout.words:
            tokens = list(word.features)
            gains.setdefault((word.text, image), []).append((float(columns[image][tokens].sum()), rest[tokens].sum()))
    return {names: np.mean(values, axis=0) for names, values in gains.items()}


def test_parts_are_those_of_every_pairs_matrix(tmp_path):
    collection = World(images=5, captions=2, tail="softly", missed=0.0).write(tmp_path)
    parts, images = word_parts(collection), collection.images.keys()
    expected = naive_gains(collection)
    rows = parts[parts["part"].isin([CONTENT, FUNCTION])]
    assert len(rows) == len(expected)
    for row in rows.itertuples():
        assert (row.own, row.others) == pytest.approx(expected[row.word, images[row.image]], abs=1e-6)


def test_parts_add_up_to_the_similarities(collection):
    parts = parts_table(word_parts(collection))
    assert list(parts.index) == list(PARTS)
    similarities = collection.texts.embeddings.double() @ collection.images.embeddings.double().T
    own = np.array([similarities[i, i // 2] for i in range(len(collection))])
    others = (similarities.sum(1).numpy() - own) / (len(collection.images) - 1)
    assert parts["own image"].sum() == pytest.approx(own.mean(), abs=1e-6)
    assert parts["own over others"].sum() == pytest.approx((own - others).mean(), abs=1e-6)
    assert parts["share"].sum() == pytest.approx(1)
    assert 0 < parts.loc[MISSED, "share"] < 0.02


def test_an_ignored_word_is_found_and_function_words_are_not_claimed(collection):
    section = words_section(collection)
    ignored = [claim.numbers["word"] for claim in section.claims if claim.numbers["kind"] == "ignored"]
    assert ignored == ["softly"]
    table = section.tables["words"].set_index("word")
    assert set(table.index) == {*NOUNS, "a", "and", "softly"}
    assert (table.loc[["a", "and"], "q ignored"] == 1).all()
    assert table.loc["softly", "images"] == 60
    assert table.loc["softly", "occurrences"] == 120
    claim = next(claim for claim in section.claims if claim.numbers["kind"] == "ignored")
    assert "“softly” is ignored" in claim.sentence
    assert "".join(text for text, _ in claim.cases[0].words).endswith("softly")


def test_a_word_that_carries_the_score_is_found(tmp_path):
    collection = World(images=60, tail="softly slowly kindly nicely").write(tmp_path)
    carries = {c.numbers["word"] for c in words_section(collection).claims if c.numbers["kind"] == "carries"}
    assert carries
    assert carries <= set(NOUNS)


def test_noise_is_claimed_no_more_often_than_alpha(tmp_path):
    claimed = 0
    for seed in range(20):
        collection = World(images=30, exchangeable=True, noise=1.0, seed=seed).write(tmp_path / str(seed))
        table = word_table(word_parts(collection))
        claimed += int((table[["q carries", "q ignored", "q against"]] <= 0.05).any().any())
    # Three kinds of claims at 0.05 each: more than six runs of twenty have a chance below 2 %.
    assert claimed <= 6


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    collection = World(images=40).write(tmp_path)
    measured, call = [], WordMeasure.__call__

    def measure(self, keys):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(list(keys))
        return call(self, keys)

    monkeypatch.setattr(WordMeasure, "__call__", measure)
    with pytest.raises(KeyboardInterrupt):
        word_parts(collection)
    monkeypatch.setattr(WordMeasure, "__call__", lambda self, keys: measured.append(list(keys)) or call(self, keys))
    resumed = word_parts(collection)
    assert [key for keys in measured for key in keys] == collection.texts.keys()
    assert len(measured) == 3
    repeated = word_parts(collection)
    assert len(measured) == 3
    assert repeated.equals(resumed)
