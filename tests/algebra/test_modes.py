"""Modes of the attribution matrix: they add up to it exactly, whatever the sides are, by either way to the numbers."""

import pytest
import torch
from hypothesis import given, settings

import secondsight as ss
from models import small
from secondsight import InputError, Interactions, Layout
from secondsight.algebra.factors import DenseFactor
from secondsight.algebra.matrix import FactoredMatrix
from secondsight.algebra.modes import modes
from sides import image_layout, random_side, seeds, text_layout


def pair(seed: int = 0, joint: int = 4) -> Interactions:
    sides = (
        random_side(lay, seed + i, torch.float64, joint=joint) for i, lay in enumerate((image_layout(), text_layout()))
    )
    left, right = sides
    return left @ right


def visible(e: Interactions) -> torch.Tensor:
    return e.matrix[e.left_layout.visible][:, e.right_layout.visible]


def check_all_modes(e: Interactions) -> None:
    """All modes are the matrix over visible features, and what is left is the matrix at special positions."""
    found = e.modes(None)
    assert len(found) == found.rank
    total = sum((mode.matrix for mode in found), torch.zeros(e.matrix.shape, dtype=torch.float64))
    size = float(e.matrix.abs().max())
    inside = torch.outer(e.left_layout.select(None), e.right_layout.select(None)).double()
    assert float((total - e.matrix.double() * inside).abs().max()) < 1e-10 * size
    assert float((found.rest - e.matrix.double() * (1 - inside)).abs().max()) < 1e-10 * size
    assert found.share == pytest.approx(1.0)
    assert found.contribution + float(found.rest.sum()) == pytest.approx(e.terms.interaction, abs=1e-10)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_all_modes_and_the_special_positions_are_the_matrix(seed):
    e = pair(seed)
    check_all_modes(e)
    check_all_modes(e.T)


def test_shares_are_those_of_numpys_singular_values():
    e = pair(3, joint=12)
    sizes = torch.linalg.svdvals(visible(e))
    found = e.modes(4)
    assert [mode.share for mode in found] == pytest.approx((sizes.square() / sizes.square().sum())[:4].tolist())
    assert found.rank == 6
    best = torch.linalg.matrix_norm(found.rest[1:][:, 1:-1])
    assert float(best) == pytest.approx(float(sizes[4:].square().sum().sqrt()))
    hidden = 1 - float(visible(e).square().sum() / e.matrix.square().sum())
    assert found.special_share == pytest.approx(hidden)


def test_the_strongest_word_has_weight_one_and_the_map_is_in_its_units():
    e = pair(5)
    for mode in e.modes(None):
        weights = dict(mode.words)
        assert max(weights.values(), key=abs) == pytest.approx(1.0)
        strongest = max(weights, key=lambda word: abs(weights[word]))
        assert torch.allclose(mode.matrix @ e.right_layout.select(strongest).double(), mode.left)
        assert mode.map.shape == (2, 3)
        assert mode.heatmap().shape == (60, 90)
        assert f"{strongest} +1.00" in repr(mode)
    images = random_side(image_layout(), 1, torch.float64) @ random_side(image_layout(), 2, torch.float64)
    assert float(images.modes(1)[0].right.max()) == pytest.approx(1.0)
    with pytest.raises(InputError, match="words need a text"):
        _ = images.modes(1)[0].words


def test_factors_with_few_joint_dimensions_give_the_same_without_the_matrix():
    """Six cells and eight tokens in four dimensions: the matrix is not formed, and the modes are those of the matrix."""
    left, right = (random_side(layout, 7, torch.float64) for layout in (image_layout(), text_layout()))
    lazy = left @ right
    found = lazy.modes(None)
    assert not lazy.attributions.computed
    direct = modes(lazy.dense(), None)
    assert len(found) == len(direct) == 4
    assert found.special_share == pytest.approx(direct.special_share)
    for one, other in zip(found, direct, strict=True):
        assert torch.allclose(one.matrix, other.matrix, atol=1e-12)
        assert one.share == pytest.approx(other.share)


def test_fifty_thousand_pixels_on_both_sides():
    """A dense matrix would take 20 GB."""
    g = torch.Generator().manual_seed(0)
    u, v = (torch.randn(50_000, 3, generator=g, dtype=torch.float64) for _ in range(2))
    layout = Layout(50_000)
    zeros = torch.zeros(50_000, dtype=torch.float64)
    e = Interactions(FactoredMatrix(DenseFactor(u), DenseFactor(v)), zeros, zeros, 0.0, 0.0, layout, layout)
    found = e.modes(None)
    assert len(found) == 3
    assert found.contribution == pytest.approx(float(u.sum(0) @ v.sum(0)))
    rows = sum(mode.left[:5, None] * mode.right[:7] for mode in found)
    assert torch.allclose(rows, u[:5] @ v[:7].T)


def test_margins_files_and_late_interaction(tmp_path):
    left = random_side(image_layout(), 1, torch.float64)
    first, second = (random_side(text_layout(), seed, torch.float64) for seed in (2, 3))
    margin = left @ (first - second)
    check_all_modes(margin)
    e = left @ first
    e.save(tmp_path / "pair.npz")
    again = Interactions.load(tmp_path / "pair.npz")
    assert [mode.share for mode in again.modes()] == pytest.approx([mode.share for mode in e.modes()])
    check_all_modes(again)


def test_matches_of_tokens_are_modes_of_their_own():
    """In late interaction every document token that was chosen is a mode of the query tokens that chose it."""
    from dataclasses import replace

    from secondsight.algebra.assignment import TokenPairing

    query, document = (random_side(text_layout(), seed, torch.float64) for seed in (4, 5))
    compared = tuple(range(1, 9))
    e = replace(query, pairing=TokenPairing("query", compared)) @ replace(
        document, pairing=TokenPairing("document", compared)
    )
    check_all_modes(e)
    assert len(e.modes(None)) == len({match["match_position"] for match in e.about["assignment"]})


def test_a_matrix_of_zeros_has_no_mode():
    e = pair()
    nothing = Interactions(
        e.matrix * 0, e.left_effects, e.right_effects, e.base, e.similarity, e.left_layout, e.right_layout
    )
    found = nothing.modes()
    assert (len(found), found.rank, found.special_share) == (0, 0, 0.0)
    with pytest.raises(InputError, match="nothing to draw"):
        found.plot()


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
def test_other_numbers_of_modes_are_refused(k):
    with pytest.raises(InputError, match="k must be a whole number"):
        pair().modes(k)


def test_special_positions_alone_are_refused():
    side = random_side(Layout(3, {0: "a", 1: "b", 2: "c"}), 0, torch.float64)
    with pytest.raises(InputError, match="left side has special positions only"):
        (side @ random_side(text_layout(), 1, torch.float64)).modes()


def test_a_figure_has_a_row_for_every_mode():
    import matplotlib.pyplot as plt
    from PIL import Image

    model = small()
    e = ss.explain(model, Image.new("RGB", (64, 48), "red"), "a red dog", "last-layer")
    figure = e.modes(2).plot()
    titles = [text.get_text() for text in figure.texts]
    assert [title.split(":")[0] for title in titles] == ["mode 1", "mode 2"]
    plt.close(figure)
    texts = ss.explain(model, "a red dog", "a blue cat", "last-layer").modes(1).plot()
    plt.close(texts)
    with pytest.raises(InputError, match="picture itself is not at hand"):
        e.interactions.modes().plot()
