"""What a pair would be without a part of it: sums stay exact, and a linear model is predicted exactly."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

import secondsight as ss
from secondsight.algebra.assignment import TokenPairing
from secondsight.algebra.factors import DenseFactor
from secondsight.algebra.interactions import Interactions, margin
from sides import image_layout, random_side, seeds, text_layout

BOX = (10.0, 0.0, 75.0, 40.0)


def pair(seed=0, exact=True):
    left = random_side(image_layout(), seed, torch.float64, exact)
    return left, random_side(text_layout(), seed + 1, torch.float64, exact)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_what_is_left_still_adds_up(seed):
    left, right = pair(seed, exact=False)
    for c, selection in ((left, BOX), (right, "frisbee"), (right, ["dog", (0, 1)]), (left, [0, 3])):
        edited = c.without(selection)
        weights = torch.stack([c.layout.select(s) for s in (["dog", (0, 1)] if "dog" in selection else [selection])])
        expected = c.embedding - weights.sum(0).clamp(max=1).double() @ c.vectors
        assert torch.allclose(edited.embedding, expected, rtol=0, atol=1e-12)
        assert torch.allclose(edited.residual, c.residual, rtol=0, atol=1e-12)
        assert torch.equal(edited.vectors, c.vectors * (1 - weights.sum(0).clamp(max=1).double())[:, None])
    e = (left @ right).without("frisbee", left=BOX)
    product = left.without(BOX).embedding @ right.without("frisbee").embedding * left.scale * right.scale
    assert e.predicted == pytest.approx(float(product), abs=1e-12)


def test_nothing_and_everything():
    left, right = pair()
    e = left @ right
    nothing = e.without(slice(0, 0))
    assert nothing.predicted == e.similarity
    assert torch.equal(nothing.pair.matrix, e.matrix)
    everything = e.without(slice(None), left=slice(None))
    assert everything.predicted == pytest.approx(e.base, abs=1e-12)
    assert not everything.pair.matrix.any()
    visible = left.without(None)
    assert torch.equal(visible.vectors[0], left.vectors[0])
    assert not visible.vectors[1:].any()


def test_lazy_vectors_give_the_same():
    left, right = pair(3)
    lazy = replace(left, factor=DenseFactor(left.vectors)) @ replace(right, factor=DenseFactor(right.vectors))
    for e in (lazy.without("dog", left=BOX), lazy.without("dog")):
        expected = (left @ right).without("dog", left=BOX if "box" in e.removed else None)
        assert e.predicted == pytest.approx(expected.predicted, abs=1e-12)
        assert torch.allclose(e.pair.matrix, expected.pair.matrix, rtol=0, atol=1e-12)
        assert e.pair.error < 1e-12


def test_without_contributions_what_both_sides_share_counts_once(tmp_path):
    left, right = pair(5)
    e = left @ right
    e.save(tmp_path / "e.npz")
    loaded = Interactions.load(tmp_path / "e.npz")
    for selection, box in (("dog", BOX), ("dog", None), (None, BOX), (slice(None), slice(None))):
        assert loaded.without(selection, left=box).predicted == pytest.approx(
            e.without(selection, left=box).predicted, abs=1e-12
        )
    w, v = loaded.left_layout.select(BOX).double(), loaded.right_layout.select("dog").double()
    effects = w @ e.left_effects + v @ e.right_effects + w @ e.matrix.sum(1) + v @ e.matrix.sum(0) - w @ e.matrix @ v
    assert loaded.without("dog", left=BOX).predicted == pytest.approx(e.similarity - float(effects), abs=1e-12)


def test_margins_and_their_parts():
    left, right = pair(7)
    other = random_side(text_layout(), 70, torch.float64)
    both = left @ (right - other)
    assert both.without((1, "dog")).predicted == pytest.approx(
        (left @ right).similarity - (left @ other).without("dog").predicted, abs=1e-12
    )
    apart = margin(left @ right, left @ other)
    assert apart.without((1, "dog")).predicted == pytest.approx(both.without((1, "dog")).predicted, abs=1e-12)


def test_the_standard_error_is_that_of_the_sum_of_the_parts():
    left, right = pair(9)
    deviations = torch.randn(5, 10, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sampled = replace(right, deviations=deviations)
    edit = (left @ sampled).without("dog jumps")
    moved = (deviations[:, 2] + deviations[:, 3]) @ left.embedding * left.scale * right.scale
    assert edit.standard_error == pytest.approx(float(moved.square().sum().sqrt()), abs=1e-12)
    assert "±" in edit.sentence
    assert (left @ right).without("dog").standard_error is None


def test_token_vectors_are_matched_anew():
    query, document = pair(11)
    query = replace(query, layout=text_layout().__class__(7, {}, ("q",) * 7, (None,) * 7, None), scale=1.0)
    q = replace(query, pairing=TokenPairing("query", tuple(range(7))), space=None)
    d = replace(document, pairing=TokenPairing("document", tuple(range(10))), scale=1.0)
    best = int((q.vectors @ d.vectors.T)[0].argmax())
    rest = [i for i in range(10) if i != best]
    expected = (q.vectors @ d.vectors[rest].T).amax(1).sum()
    assert (q @ d.without([best])).similarity == pytest.approx(float(expected), abs=1e-12)
    assert (q.without([0]) @ d).similarity == pytest.approx(
        float((q.vectors[1:] @ d.vectors.T).amax(1).sum()), abs=1e-12
    )
    with pytest.raises(ss.InputError, match="nothing of the query is left"):
        q.without(None)


def test_bad_selections_are_said_in_a_sentence():
    left, right = pair()
    e = left @ right
    with pytest.raises(ss.InputError, match="nothing is selected"):
        e.without()
    for selection, words in (("bee", "part of the word"), ("cat", "not in the text"), ([99], "outside 0 … 9")):
        with pytest.raises(ss.InputError, match=words):
            e.without(selection)
    with pytest.raises(ss.InputError, match="empty"):
        e.without(left=(5, 5, 5, 5))


def test_a_person_can_read_it():
    left, right = pair()
    e = left @ right
    edit = e.without("dog", left=(0, 0, 45, 30))
    assert edit.sentence == f"without 'dog' and box 0,0,45,30: {edit.predicted:.3f} predicted, from {e.similarity:.3f}"
    verified = replace(edit, measured=0.25)
    assert "0.250 measured" in repr(verified)
    assert verified.error == pytest.approx(abs(edit.predicted - 0.25))
    assert e.without([1, 2], left=[0, 1]).removed == "2 tokens and 1 cell and class"
