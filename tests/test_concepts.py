"""Concepts: contribution vectors as sparse sums of word vectors that lose nothing, and what is refused."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import secondsight as ss
from models import clip, small, tokens
from secondsight import InputError
from secondsight.concepts import Concepts, Vocabulary, concepts
from secondsight.data import Scenes
from secondsight.data.scenes.world import classes
from sides import image_layout, random_side, text_layout

WORDS = ["dog", "cat", "frisbee", "grass", "sky", "tree"]


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def explained(model):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    return ss.explain(model, photo, "a dog on grass", ss.IntegratedJacobian(steps=12))


def vocabulary(vectors: torch.Tensor, words=WORDS) -> Vocabulary:
    vectors = vectors.double()
    return Vocabulary(tuple(words[: len(vectors)]), vectors / vectors.norm(dim=1, keepdim=True), "")


def planted(weights: torch.Tensor, words: Vocabulary, joint: int):
    """A photograph whose contribution vectors are these sums of words, with a text."""
    left = random_side(image_layout(), 0, torch.float64, joint=joint)
    vectors = torch.zeros_like(left.vectors)
    vectors[1:] = weights @ words.vectors
    left = replace(left, factor=vectors, embedding=left.reference_embedding + vectors.sum(0))
    return left @ random_side(text_layout(), 1, torch.float64, joint=joint)


def check_sums(split: Concepts) -> None:
    """Vectors and terms lose nothing."""
    pair = split.pair
    again = split.weights @ split.vocabulary.vectors + split.rest_vectors
    assert torch.allclose(again, pair.left_contributions.vectors.double(), atol=1e-12)
    parts = (*split.parts, split.rest, split.special)
    assert sum(part.alone for part in parts) == pytest.approx(pair.terms.left, abs=1e-10)
    assert sum(part.interaction for part in parts) == pytest.approx(pair.terms.interaction, abs=1e-10)
    assert bool((split.weights >= 0).all())
    assert not split.weights[list(pair.left_layout.special)].any()
    for part in split.parts:
        assert float(split.values(part.name).sum()) == pytest.approx(part.similarity)


def test_concepts_and_rest_add_up_to_the_terms(model, explained):
    check_sums(explained.concepts(WORDS, model))
    check_sums(explained.T.concepts(WORDS, model, template="a photo of a {}", center=False, penalty=0.01))
    logit = ss.explain(model, explained.left_input, "a dog on grass", ss.IntegratedJacobian(steps=12), scale="logit")
    check_sums(logit.concepts(WORDS, model))


def test_margins_of_contributions(model, explained):
    first, second = (random_side(text_layout(), seed, torch.float64, joint=16) for seed in (1, 2))
    left = random_side(image_layout(), 0, torch.float64, joint=16)
    words = vocabulary(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
    check_sums(concepts(left @ (first - second), words))


def test_planted_words_are_found():
    """Sums of few orthogonal words come back, less the penalty's share."""
    words = vocabulary(torch.eye(8)[:6])
    weights = torch.zeros(6, 6, dtype=torch.float64)
    weights[0, 1], weights[3, 4], weights[3, 0] = 2.0, 1.0, 0.5
    split = concepts(planted(weights, words, 8), words, penalty=0.01)
    assert torch.allclose(split.weights[1:], (weights - 0.01 * weights.amax(1, keepdim=True)).clamp(min=0), atol=1e-9)
    assert split.rest_share < 1e-3
    check_sums(split)
    # A feature's largest weight decides on its penalty: from 1 on no concept is left.
    assert concepts(planted(weights, words, 8), words, penalty=1.0).parts == ()


def test_maps_and_selections():
    words = vocabulary(torch.eye(8)[:6])
    weights = torch.zeros(6, 6, dtype=torch.float64)
    weights[0, 1], weights[5, 4] = 2.0, 1.0
    split = concepts(planted(weights, words, 8), words)
    assert split["cat"].shape == (2, 3)
    assert split["cat"].count_nonzero() == 1
    assert split["cat"][0, 0] != 0
    assert split.heatmap("sky").shape == (60, 90)
    assert [word for word, _ in split.within((0, 0, 30, 30))] == ["cat"]
    assert [word for word, _ in split.within((60, 30, 90, 60))] == ["sky"]
    assert [word for word, _ in split.within()] == ["cat", "sky"]
    both = dict(split.within((0, 0, 15, 30)))
    assert both == {"cat": pytest.approx(0.5 * (2.0 - 0.1 * 2.0))}
    assert {part.name for part in split.parts} == {"cat", "sky"}
    assert "rest" in repr(split)
    with pytest.raises(InputError, match="'zebra' is not in the vocabulary; its words are 'dog'"):
        split["zebra"]


def test_words_are_encoded_once_for_many_pairs(model, explained):
    words = Vocabulary.encode(model, WORDS)
    assert torch.allclose(words.vectors.norm(dim=1), torch.ones(6, dtype=torch.float64))
    embeddings = model.text.embed(WORDS).double()
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    centred = unit - unit.mean(0)
    assert torch.allclose(words.vectors, centred / centred.norm(dim=1, keepdim=True))
    first, second = explained.concepts(words), explained.concepts(WORDS, model)
    assert torch.equal(first.weights, second.weights)
    assert "6 words" in repr(words)


def test_the_model_of_a_name_is_found_again():
    scene = next(iter(Scenes(1, seed=3)))
    e = ss.explain("scenes", scene.image, scene.caption, "last-layer")
    split = e.concepts(list(classes()))
    assert split.vocabulary.model == "scenes"
    figure = split.plot(2)
    assert len(figure.texts) == 2


def test_scenes_name_the_objects_in_their_boxes():
    """Of the 80 classes, chance names one object in eighty; concepts name many times more."""
    model = ss.load("scenes")
    words, hits, cases = Vocabulary.encode(model, list(classes())), 0, 0
    partner = model.text.contributions(["a drawing"])[0]
    for scene in Scenes(20, seed=11):
        split = concepts(model.image.contributions([scene.image])[0] @ partner, words)
        for region in scene.regions:
            hits += region.label in [word for word, _ in split.within(region.box)[:1]]
            cases += 1
    assert cases >= 30
    assert hits / cases > 10 / 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "vocabulary is empty"),
        ("dog", "give a list of words"),
        (["dog", " "], "texts that are not empty"),
        (["dog", 3], "3 is no word"),
        (["dog", "cat", "dog "], "has 'dog' twice"),
        (["Dog", "dog"], "reads 'Dog' and 'dog' as the same"),
        (["dog"], "cannot be centred"),
    ],
)
def test_vocabularies_that_are_refused(model, explained, words, message):
    with pytest.raises(InputError, match=message):
        explained.concepts(words, model)


def test_words_without_a_vector_are_refused(model, monkeypatch):
    monkeypatch.setattr(type(model.text), "embed", lambda self, words: torch.zeros(len(words), 16))
    with pytest.raises(InputError, match="does not know 'dog'"):
        Vocabulary.encode(model, WORDS)


def test_options_and_pairs_that_are_refused(model, explained, tmp_path):
    with pytest.raises(InputError, match="template='dog' must be"):
        explained.concepts(WORDS, model, template="dog")
    with pytest.raises(InputError, match="penalty=0 must be"):
        explained.concepts(WORDS, model, penalty=0)
    with pytest.raises(InputError, match="give the model that encodes the words"):
        explained.concepts(WORDS)
    with pytest.raises(InputError, match="use one model"):
        explained.concepts(WORDS, "scenes")
    explained.save(tmp_path / "pair.npz")
    with pytest.raises(InputError, match="pairs read from files do not have"):
        concepts(ss.Interactions.load(tmp_path / "pair.npz"), WORDS, model)
    with pytest.raises(InputError, match="has no text side"):
        explained.concepts(WORDS, model.pair("image", "image"))
    pair = random_side(image_layout(), 0, torch.float64) @ random_side(text_layout(), 1, torch.float64)
    with pytest.raises(InputError, match="do not describe contributions of 4"):
        concepts(pair, WORDS, model)
    late = replace(pair, left_contributions=replace(pair.left_contributions, space="a pair"))
    with pytest.raises(InputError, match="models of late interaction"):
        concepts(late, WORDS, model)


def test_without_scikit_learn_a_sentence_says_what_to_install(model, explained, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(InputError, match=r"pip install 'secondsight\[eval\]'"):
        explained.concepts(WORDS, model)


def test_an_input_that_is_its_reference_has_no_concepts():
    model = ss.wrap(clip())
    black = torch.zeros(1, 3, 32, 32, dtype=torch.float64)
    e = ss.explain(model, black, tokens(), ss.IntegratedJacobian(reference=(black, None), steps=2))
    words = vocabulary(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
    split = concepts(e, replace(words, model=e.model))
    assert split.parts == ()
    assert split.rest_share <= 1.0
