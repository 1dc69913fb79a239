"""Properties of contributions and interactions, whatever the numbers."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import secondsight as ss
from secondsight import Contributions, InputError, Interactions
from sides import TOKENS, dtypes, image_layout, random_side, seeds, text_layout


@settings(deadline=None)
@given(seeds, seeds, dtypes)
def test_four_terms_add_up_to_the_similarity(a, b, dtype):
    e = random_side(image_layout(), a, dtype) @ random_side(text_layout(), b, dtype)
    assert e.error < (1e-5 if dtype == torch.float32 else 1e-12)
    assert e.terms.total == pytest.approx(e.terms.base + e.terms.left + e.terms.right + e.terms.interaction)


@settings(deadline=None)
@given(seeds, seeds)
def test_the_error_is_what_the_residuals_leave_out(a, b):
    left = random_side(image_layout(), a, torch.float64, exact=False)
    right = random_side(text_layout(), b, torch.float64, exact=False)
    e = left @ right
    missed = left.embedding @ right.embedding - (left.embedding - left.residual) @ (right.embedding - right.residual)
    assert e.error == pytest.approx(abs(float(missed)) * left.scale * right.scale, abs=1e-12)


@settings(deadline=None)
@given(seeds, seeds)
def test_swapping_sides_transposes(a, b):
    left, right = random_side(image_layout(), a, torch.float64), random_side(text_layout(), b, torch.float64)
    one, other = left @ right, right @ left
    assert torch.allclose(one.matrix, other.matrix.T)
    assert one.similarity == pytest.approx(other.similarity)
    assert (one.terms.left, one.terms.image) == pytest.approx((other.terms.right, other.terms.image))


@settings(deadline=None)
@given(seeds, seeds)
def test_projection_is_first_order_attribution(a, b):
    left, right = random_side(image_layout(), a, torch.float64), random_side(text_layout(), b, torch.float64)
    e = left @ right
    first_order = left.project(right.embedding) * left.scale * right.scale
    assert torch.allclose(e.left_effects + e.matrix.sum(1), first_order)


@settings(deadline=None)
@given(seeds, st.floats(0, 89), st.floats(0, 59), st.floats(0.5, 90), st.floats(0.5, 60), st.floats(0.1, 0.9))
def test_box_selection_is_additive(seed, x, y, width, height, cut):
    e = random_side(image_layout(), seed, torch.float64) @ random_side(text_layout(), seed + 1, torch.float64)
    middle = x + cut * width
    whole = e.toward_right((x, y, x + width, y + height))
    halves = torch.zeros_like(whole)
    for box in ((x, y, middle, y + height), (middle, y, x + width, y + height)):
        if box[0] < 90 and box[2] > box[0]:
            halves += e.toward_right(box)
    assert torch.allclose(whole, halves, atol=1e-6)


@settings(deadline=None)
@given(seeds)
def test_words_cover_all_tokens_once(seed):
    e = random_side(image_layout(), seed, torch.float64) @ random_side(text_layout(), seed + 1, torch.float64)
    assert sum(score for _, score in e.words) == pytest.approx(float(e.matrix[1:, 1:-1].sum()))
    assert float(e[:].sum()) + float((e.matrix[0]).sum()) == pytest.approx(float(e.matrix.sum()))
    assert torch.allclose(e["frisbee"], e[[6, 7]])
    assert torch.allclose(e["frisbee"], e[(18, 25)])
    assert e["dog"].shape == (2, 3)
    assert [w for w, _ in e.box(0, 0, 30, 30)] == ["A", "dog", "jumps", "for", "a", "frisbee", "."]


@settings(deadline=None, max_examples=20)
@given(seeds, dtypes, st.sampled_from([".npz", ".json"]))
def test_saving_and_loading_is_exact(tmp_path_factory, seed, dtype, suffix):
    folder = tmp_path_factory.mktemp("saved")
    left, right = random_side(image_layout(), seed, dtype), random_side(text_layout(), seed + 1, dtype)
    for side in (left, right):
        side.save(folder / f"side{suffix}")
        back = Contributions.load(folder / f"side{suffix}")
        assert torch.equal(back.vectors, side.vectors)
        assert torch.equal(back.embedding, side.embedding)
        assert torch.equal(back.reference_embedding, side.reference_embedding)
        assert (back.layout, back.scale, back.about) == (side.layout, side.scale, side.about)
        assert back.vectors.dtype == dtype
    e = left @ right
    e.save(folder / f"pair{suffix}")
    again = Interactions.load(folder / f"pair{suffix}")
    assert torch.equal(again.matrix, e.matrix)
    assert torch.equal(again.left_effects, e.left_effects)
    assert torch.equal(again.right_effects, e.right_effects)
    assert (again.terms, again.similarity, again.error) == (e.terms, e.similarity, e.error)
    assert (again.left_layout, again.right_layout) == (e.left_layout, e.right_layout)


def test_json_names_what_the_design_names(tmp_path):
    e = random_side(image_layout(), 0, torch.float32) @ random_side(text_layout(), 1, torch.float32)
    e.save(tmp_path / "e.json")
    data = json.loads((tmp_path / "e.json").read_text())
    assert set(data["terms"]) == {"base", "left", "right", "interaction"}
    assert data["left"]["kind"] == "image"
    assert data["left"]["grid"] == [2, 3]
    assert data["right"]["tokens"] == list(TOKENS)
    assert data["right"]["special"] == {"0": "start", "9": "end"}
    assert len(data["attributions"]) == 7
    assert len(data["attributions"][0]) == 10


def test_nothing_half_written_stays_behind(tmp_path):
    e = random_side(image_layout(), 0, torch.float32) @ random_side(text_layout(), 1, torch.float32)
    broken = Interactions(
        e.matrix * float("nan"), e.left_effects, e.right_effects, 0.0, 0.0, *[e.left_layout, e.right_layout]
    )
    with pytest.raises(ValueError, match="JSON"):
        broken.save(tmp_path / "e.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"must end in \.npz or \.json"):
        e.save(tmp_path / "e.txt")
    with pytest.raises(InputError, match="does not exist"):
        e.save(tmp_path / "no" / "e.npz")


def test_foreign_files_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    (tmp_path / "a.json").write_text("[1]")
    for name in ("a.npz", "a.json", "missing.npz", "missing.json"):
        for kind in (Contributions, Interactions):
            with pytest.raises(InputError, match=name.replace(".", r"\.")):
                kind.load(tmp_path / name)
    side = random_side(image_layout(), 0, torch.float32)
    side.save(tmp_path / "side.npz")
    with pytest.raises(InputError, match="holds no interactions"):
        Interactions.load(tmp_path / "side.npz")


def test_joint_spaces_must_match():
    with pytest.raises(InputError, match="same model"):
        random_side(image_layout(), 0, torch.float32, joint=4) @ random_side(text_layout(), 1, torch.float32, joint=5)


def test_terms_go_by_their_friendlier_names():
    e = random_side(image_layout(), 0, torch.float32) @ random_side(text_layout(), 1, torch.float32)
    assert (e.terms.image, e.terms.text) == (e.terms.left, e.terms.right)
    with pytest.raises(AttributeError, match="base, left, right"):
        e.terms.audio
    same = random_side(text_layout(), 0, torch.float32) @ random_side(text_layout(), 1, torch.float32)
    with pytest.raises(AttributeError, match="text"):
        same.terms.text


def test_public_names_are_there():
    assert all(hasattr(ss, name) for name in ss.__all__)
