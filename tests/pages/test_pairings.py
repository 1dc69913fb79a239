"""Pairs of every kind and contrastive questions: two images, two texts, margins between captions, two models."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import secondsight as ss
from families import FAMILIES, photographs
from models import clip
from secondsight.algebra.layout import GridLayout, JoinedLayout, TokenLayout, common
from secondsight.paths.line import LinePath

CAPTIONS = ["a black dog and a white cat", "a white dog and a black cat", "coffee on a wooden table"]


def dual(size: int = 32, patch: int = 8, seed: int = 0) -> ss.DualEncoder:
    torch.manual_seed(seed)
    model = clip(
        torch.float64,
        vision={"image_size": size, "patch_size": patch},
        text={"context_length": 24, "vocab_size": 49408},
    )
    preprocess = open_clip.image_transform(size, is_train=False)
    return ss.wrap(
        model,
        lambda image: preprocess(image).double(),
        open_clip.SimpleTokenizer(context_length=24),
        name=f"clip{size}",
    )


@pytest.fixture(scope="module")
def model() -> ss.DualEncoder:
    return dual()


def adds_up(e: ss.Interactions, tol: float = 1e-3) -> None:
    assert e.terms.total == pytest.approx(e.similarity, abs=tol)
    assert float(e.matrix.sum()) == pytest.approx(e.terms.interaction, abs=1e-9)


# Intra-modal --------------------------------------------------------------------------------------------------------


def test_two_images_of_an_image_text_model(model):
    a, b = photographs()
    e = ss.explain(model, a, b)
    cells = model.left.contributions([a])[0].layout.size
    assert e.matrix.shape == (cells, cells)
    assert e.terms.kinds == ("image", "image")
    adds_up(e)
    with pytest.raises(AttributeError):
        _ = e.terms.image
    x, y = model.left.embed([a, b])
    assert e.similarity == pytest.approx(float(torch.cosine_similarity(x, y, dim=0)))
    # A box on either image gives the map over the other; two halves of an image add up to the whole.
    middle = b.width / 2
    halves = e[(0.0, 0.0, middle, float(b.height))] + e[(middle, 0.0, float(b.width), float(b.height))]
    assert torch.allclose(halves, e[None])
    box = (10.0, 10.0, a.width / 2, a.height / 2)
    assert torch.allclose(e.T[box].flatten(), e.toward_right(box)[e.right_layout.visible])
    with pytest.raises(ss.InputError, match=r"the right side is image, not text: use e\.T"):
        e.box(*box)


def test_the_same_input_twice_has_similarity_one_and_a_symmetric_matrix(model):
    for raw in (photographs()[0], CAPTIONS[0]):
        e = ss.explain(model, raw, raw, ss.IntegratedJacobian(strategy="forward"))
        assert e.similarity == pytest.approx(1.0)
        assert torch.allclose(e.matrix, e.matrix.T)


def test_two_texts_and_exchanged_sides(model):
    e = ss.explain(model, CAPTIONS[0], CAPTIONS[2])
    adds_up(e)
    assert e.left_layout.text == CAPTIONS[0]
    assert e.right_layout.text == CAPTIONS[2]
    assert torch.equal(e.T.matrix, e.matrix.T)
    assert e.T.T.matrix is not None
    assert torch.equal(e.T.T.matrix, e.matrix)
    assert e.T.left_input == CAPTIONS[2]
    assert e.T.about["left"] == e.about["right"]
    assert e.T.terms.left == e.terms.right
    assert torch.allclose(e.T["dog"], e.toward_right("dog"))
    turned = ss.explain(model, CAPTIONS[0], photographs()[0])
    assert turned.terms.kinds == ("text", "image")
    assert turned.T.words == [(w, pytest.approx(v)) for w, v in ss.explain(model, photographs()[0], CAPTIONS[0]).words]


def test_deep_layers_stay_lazy_when_exchanged_or_contrasted(model, monkeypatch):
    method = ss.IntegratedJacobian(layer=0, strategy="paired", steps=4)
    e = ss.explain(model, photographs()[0], CAPTIONS[0], method, against=CAPTIONS[1])
    derivatives: list[str] = []
    for name in ("pull", "push", "vectors"):
        original = getattr(LinePath, name)

        def recorded(path, *arguments, name=name, original=original):
            derivatives.append(name)
            return original(path, *arguments)

        monkeypatch.setattr(LinePath, name, recorded)
    dog = e[(0, "dog")]
    assert derivatives == ["pull"]
    assert torch.equal(e[(0, "dog")], dog)
    assert derivatives == ["pull"]
    assert not e.attributions.computed
    column = e.matrix @ e.right_layout.select((0, "dog")).double()
    assert torch.allclose(dog.flatten(), column[e.left_layout.visible])
    assert torch.allclose(e.T.matrix, e.matrix.T)
    assert torch.allclose(e.T.toward_right("dog"), e.toward_left("dog"))


@pytest.mark.parametrize(
    ("left", "right", "kinds"),
    [
        ("a dog", "a cat", "text text"),
        ("dog.jpg", "a cat", "image text"),
        ("dog.jpg", "cat.PNG", "image image"),
        ("a dog", "cat.png", "text image"),
        ("pictures/dog", "a cat", "image text"),
        ("cat and/or dog", "a cat", "text text"),
        (".", "cat/dog", "image text"),
        (np.zeros((4, 4, 3)), np.zeros((4, 4, 3)), "image image"),
        (Image.new("RGB", (4, 4)), "a cat", "image text"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), "image image"),
        (torch.zeros(1, 3, 32, 32), torch.zeros(1, 24, dtype=torch.long), "image text"),
        (torch.zeros(1, 24, dtype=torch.long), torch.zeros(1, 24, dtype=torch.long), "text text"),
        ({"pixel_values": 0}, {"input_ids": 0}, "image text"),
        (3.5, None, "image text"),
    ],
)
def test_which_pair_is_meant(model, left, right, kinds):
    fitted = model.fitting(left, right)
    assert f"{fitted.left.kind} {fitted.right.kind}" == kinds
    assert (fitted is model) == (kinds == "image text")


def test_sound_and_text():
    example = FAMILIES["hf-clap"](torch.float64)
    assert example.model.fitting("a.wav", "b.flac").right.kind == "audio"
    assert example.model.fitting((np.zeros(9), 8000), "a bell").left.kind == "audio"
    e = ss.explain(example.model, *example.left, ss.IntegratedJacobian(steps=4))
    assert e.terms.kinds == ("audio", "audio")
    e = ss.explain(example.model, example.left[0], example.right[0], ss.IntegratedJacobian(tol=1e-4))
    assert e.terms.kinds == ("audio", "text")
    adds_up(e, 1e-4)
    with pytest.raises(ss.InputError, match=r"has no image side: it has audio and text"):
        example.model.pair("image", "text")


# Contrasts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", ["outside", "inside"])
def test_the_margin_between_two_captions_is_the_difference_of_their_pairs(model, normalize):
    method = ss.IntegratedJacobian(normalize=normalize, tol=1e-6)
    left = model.left.contributions([photographs()[0]], method)[0]
    one, two, _ = model.right.contributions(CAPTIONS, method)
    margin, first, second = left @ (one - two), left @ one, left @ two
    assert margin.quantity == "margin"
    assert first.quantity == "similarity"
    for name in ("base", "left", "right", "interaction"):
        assert getattr(margin.terms, name) == pytest.approx(
            getattr(first.terms, name) - getattr(second.terms, name), abs=1e-12
        )
    assert margin.similarity == pytest.approx(first.similarity - second.similarity, abs=1e-12)
    assert torch.allclose(margin.matrix, torch.cat([first.matrix, -second.matrix], 1), atol=1e-12)
    assert torch.allclose(margin.left_effects, first.left_effects - second.left_effects, atol=1e-12)
    # A word in both captions counts with both signs, in one caption by its part.
    assert torch.allclose(margin["dog"], first["dog"] - second["dog"], atol=1e-12)
    assert torch.allclose(margin[(1, "black")], -second["black"], atol=1e-12)
    assert [w for w, _ in margin.words] == [*CAPTIONS[0].split(), *CAPTIONS[1].split()]
    assert (one - two).relative_residual < 1e-5


def test_contributions_are_a_vector_space(model):
    left = model.left.contributions([photographs()[0]])[0]
    vectors = model.right.contributions(CAPTIONS)
    s = [(left @ v).similarity for v in vectors]
    others = sum(vectors[1:]) / 2
    assert (left @ (vectors[0] - others)).similarity == pytest.approx(s[0] - (s[1] + s[2]) / 2)
    assert (left @ (vectors[0] - others)).right_layout.signs == (1, -1, -1)
    assert (left @ -(vectors[0] - vectors[1])).similarity == pytest.approx(s[1] - s[0])
    assert (left @ (2 * vectors[0])).similarity == pytest.approx(2 * s[0])
    assert ((-left) @ vectors[0]).terms.interaction == pytest.approx(-(left @ vectors[0]).terms.interaction)
    nested = vectors[0] - (vectors[1] - vectors[2])
    assert nested.layout.signs == (1, -1, 1)
    assert len(nested.about["inputs"]) == 3
    margin = (left - model.left.contributions([photographs()[1]])[0]) @ vectors[0]
    assert isinstance(margin.left_layout, JoinedLayout)
    assert margin.quantity == "margin"
    with pytest.raises(ss.InputError, match="dimensions do not match"):
        _ = vectors[0] + ss.Contributions(torch.zeros(1, 3), torch.zeros(3), torch.zeros(3), ss.Layout(1))
    with pytest.raises(TypeError):
        _ = vectors[0] + 1
    with pytest.raises(TypeError):
        _ = vectors[0] * vectors[1]


def test_against_the_strongest_rival(model):
    photo = photographs()[0]
    s = {c: ss.explain(model, photo, c).similarity for c in CAPTIONS}
    best = max(CAPTIONS[1:], key=s.get)
    e = ss.explain(model, photo, CAPTIONS[0], against=CAPTIONS[1:])
    assert e.right_input == (CAPTIONS[0], best)
    assert e.similarity == pytest.approx(s[CAPTIONS[0]] - s[best])
    assert e.about["similarities"] == [pytest.approx(s[CAPTIONS[0]]), pytest.approx(s[best])]
    adds_up(e)
    logit = ss.explain(model, photo, CAPTIONS[0], against=best, scale="logit")
    assert logit.similarity == pytest.approx(model.logit_scale * e.similarity, rel=1e-5)
    images = ss.explain(model, CAPTIONS[0], photo, against=photographs()[1])
    assert images.right_layout.modality == "image"
    assert images[(1, (0.0, 0.0, 75.0, 100.0))].shape == (images.left_layout.size,)
    with pytest.raises(ss.InputError, match="names no rival"):
        ss.explain(model, photo, CAPTIONS[0], against=[])
    with pytest.raises(ss.InputError, match="is empty"):
        ss.explain(model, photo, CAPTIONS[0], against=" ")


def test_selections_of_joined_inputs(model, tmp_path):
    e = ss.explain(model, photographs()[0], CAPTIONS[0], against=CAPTIONS[2])
    for bad, words in (
        ("frisbee", "'frisbee' is in none of the 2 inputs; their words are 'a', 'black'.*'coffee'"),
        ((2, "dog"), r"could be in any of 2 inputs: give \(n, selection\)"),
        ((0.0, 1.0, 2.0, 3.0), "could be in any of 2 inputs"),
        ((1, "dog"), "'dog' is not in the text"),
    ):
        with pytest.raises(ss.InputError, match=words):
            e[bad]
    for name in ("m.json", "m.npz"):
        e.save(tmp_path / name)
        back = ss.Interactions.load(tmp_path / name)
        assert torch.equal(back.matrix, e.matrix)
        assert back.right_layout == e.right_layout
    c = model.right.contributions(CAPTIONS)
    (c[0] - c[1]).save(tmp_path / "c.json")
    assert torch.equal(ss.Contributions.load(tmp_path / "c.json").vectors, (c[0] - c[1]).vectors)


def test_pictures_of_every_pair(model, tmp_path):
    a, b = photographs()
    clap = FAMILIES["hf-clap"](torch.float32)
    cheap = ss.IntegratedJacobian(steps=2)
    for i, (e, selection) in enumerate(
        [
            (ss.explain(model, a, b, cheap), (0.0, 0.0, 50.0, 50.0)),
            (ss.explain(model, CAPTIONS[0], CAPTIONS[1], cheap), "dog"),
            (ss.explain(model, a, CAPTIONS[0], cheap, against=CAPTIONS[1]), "dog"),
            (ss.explain(model, CAPTIONS[0], a, cheap, against=b), None),
            (ss.explain(clap.model, clap.left[0], clap.right[0], cheap), "spoon"),
            (ss.explain(clap.model, clap.left[0], clap.left[1], cheap), (0.0, 0.5)),
        ]
    ):
        for ending in ("png", "html"):
            e.save(tmp_path / f"{i}.{ending}", selection)
            assert (tmp_path / f"{i}.{ending}").stat().st_size > 5000


# Two models ---------------------------------------------------------------------------------------------------------


def test_the_difference_of_two_models_on_one_pair(model):
    photo, other = photographs()[0], dual(size=40, patch=8, seed=1)
    first, second = (ss.explain(m, photo, CAPTIONS[0]) for m in (model, other))
    d = first - second
    assert d.quantity == "difference"
    assert d.about["model"] == "clip32 − clip40"
    assert d.similarity == pytest.approx(first.similarity - second.similarity)
    for name in ("base", "left", "right", "interaction"):
        assert getattr(d.terms, name) == pytest.approx(
            getattr(first.terms, name) - getattr(second.terms, name), abs=1e-9
        )
    assert d.error < first.error + second.error + 1e-9
    assert d.left_layout.grid == (5, 5)
    assert isinstance(d.right_layout, TokenLayout)
    # Nothing is lost on the way to the finer grid, for one word as for all.
    weights = first.right_layout.select("dog").double(), second.right_layout.select("dog").double()
    wanted = (first.matrix @ weights[0]).sum() - (second.matrix @ weights[1]).sum()
    assert torch.allclose(d.toward_left("dog").sum(), wanted)
    assert d["dog"].shape == (5, 5)


def test_the_difference_of_two_methods_keeps_the_features(model):
    photo = photographs()[0]
    deep, last = (ss.explain(model, photo, CAPTIONS[0], ss.IntegratedJacobian(layer=k, tol=1e-5)) for k in (1, -1))
    d = deep - last
    assert d.left_layout == deep.left_layout
    assert torch.allclose(d.matrix, deep.matrix - last.matrix)
    assert d.terms.interaction == pytest.approx(deep.terms.interaction - last.terms.interaction)
    assert d.similarity == 0
    assert (d.interactions - d.interactions).matrix.abs().max() == 0


def test_a_difference_needs_one_pair(model):
    a, b = photographs()
    e = ss.explain(model, a, CAPTIONS[0])
    for other in (ss.explain(model, a, CAPTIONS[1]), ss.explain(model, b, CAPTIONS[0])):
        with pytest.raises(ss.InputError, match="one pair explained twice"):
            _ = e - other
        with pytest.raises(ss.InputError, match=r"different texts|same photograph"):
            _ = e.interactions - other.interactions
    with pytest.raises(ss.InputError, match="not of the same pair"):
        _ = e.interactions - e.T.interactions
    with pytest.raises(TypeError):
        _ = e - 1


def test_cells_are_spread_by_their_overlap():
    coarse = GridLayout(5, {0: "class"}, (2, 2), (100, 80), (10.0, 0.0, 90.0, 80.0))
    fine = GridLayout(16, {}, (4, 4), (100, 80), (0.0, 0.0, 100.0, 80.0))
    layout, (a, b) = common(coarse, fine)
    assert layout.grid == (4, 4)
    for share, old in ((a, coarse), (b, fine)):
        assert torch.allclose(share.sum(0), torch.ones(old.size, dtype=torch.float64))
        assert (share >= -1e-12).all()
    # The first cell spans 10 … 50 × 0 … 40: of each row of fine cells 15/40 and 25/40, two rows alike.
    cell = a[:-1, 1].reshape(4, 4)
    assert torch.allclose(cell[:2, :2], torch.tensor([[15.0, 25.0], [15.0, 25.0]], dtype=torch.float64) / 80)
    assert float(cell.sum()) == pytest.approx(1.0)
    assert float(a[-1, 0]) == 1.0
