"""Two explanations of one pair on common features: nothing is lost, whatever the grids and tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import secondsight as ss
from secondsight import GridLayout, InputError, Layout, TokenLayout
from secondsight.algebra.difference import difference
from secondsight.algebra.layout import common
from secondsight.algebra.layout.grid import MAX_CELLS
from sides import TEXT, random_side, seeds, text_layout

SIZE = (90, 60)


def grid(rows: int, columns: int, frame=(0.0, 0.0, 90.0, 60.0), size=SIZE) -> GridLayout:
    return GridLayout(rows * columns + 1, {0: "class"}, (rows, columns), size, frame)


def words(whole: bool = True) -> TokenLayout:
    """The text in whole words, or cut as in test_algebra."""
    if not whole:
        return text_layout()
    tokens = ("a", "dog", "jumps", "for", "a", "frisbee", ".", "</s>")
    offsets = ((0, 1), (2, 5), (6, 11), (12, 15), (16, 17), (18, 25), (25, 26), None)
    return TokenLayout(8, {7: "end"}, tokens, offsets, TEXT)


def pair(seed: int, left: GridLayout, right: TokenLayout) -> ss.Interactions:
    return random_side(left, seed, torch.float64, exact=False) @ random_side(
        right, seed + 1, torch.float64, exact=False
    )


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_terms_and_sums_are_subtracted(seed, rows, columns, more, others, whole):
    a = pair(seed, grid(rows, columns), words(whole))
    b = pair(seed + 2, grid(more, others), words(not whole))
    d = difference(a, b)
    assert d.similarity == pytest.approx(a.similarity - b.similarity, abs=1e-12)
    for term in ("base", "left", "right", "interaction"):
        assert getattr(d.terms, term) == pytest.approx(getattr(a.terms, term) - getattr(b.terms, term), abs=1e-9)
    assert float(d.left_effects.sum()) == pytest.approx(float(a.left_effects.sum() - b.left_effects.sum()), abs=1e-9)
    assert float(d.right_effects.sum()) == pytest.approx(float(a.right_effects.sum() - b.right_effects.sum()), abs=1e-9)
    finer = max((rows, columns), (more, others), key=lambda g: (g[0] * g[1], g == (rows, columns)))
    assert d.left_layout.grid == finer
    assert d.left_layout.image_size == SIZE
    assert d.matrix.dtype == torch.float64
    # Words as in either, though they are cut differently.
    assert [w for w, _ in d.words] == [w for w, _ in a.words] == [w for w, _ in b.words]
    seen = d.toward_left("frisbee").sum()
    wanted = (a.matrix @ a.right_layout.select("frisbee").double()).sum()
    wanted -= (b.matrix @ b.right_layout.select("frisbee").double()).sum()
    assert float(seen) == pytest.approx(float(wanted), abs=1e-9)


def test_cells_are_spread_by_their_overlap():
    layout, (of_first, of_second) = common(grid(1, 2), grid(2, 2))
    assert layout.grid == (2, 2)
    assert layout.size == 5
    assert layout.special == {4: "special"}
    # Either half of the coarse grid lies over two cells; the class token goes to the rest.
    assert torch.equal(of_first, torch.tensor([[0, 0.5, 0], [0, 0, 0.5], [0, 0.5, 0], [0, 0, 0.5], [1, 0, 0]]).double())
    assert torch.equal(of_second[:4, 1:], torch.eye(4).double())
    assert float(of_second[4, 0]) == 1


def test_what_one_model_does_not_see_goes_to_the_rest():
    """The first sees the whole photograph, the second its middle: what lies outside is kept, though it has no cell."""
    a, b = grid(2, 3), grid(4, 4, frame=(15.0, 0.0, 75.0, 60.0))
    layout, (of_first, of_second) = common(a, b)
    assert layout.frame == b.frame
    assert torch.allclose(of_first.sum(0), torch.ones(7).double())
    assert torch.allclose(of_second.sum(0), torch.ones(17).double())
    # A corner cell of the first, 30 wide, is half outside.
    assert float(of_first[-1, 1]) == pytest.approx(0.5)


def test_words_in_common():
    layout, (_, of_second) = common(words(), words(False))
    assert layout.tokens == ("A", "dog", "jumps", "for", "a", "frisbee", ".", "…")
    assert layout.special == {7: "special"}
    assert of_second[5].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert of_second[7].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_the_same_features_stay():
    a, b = pair(1, grid(2, 2), words()), pair(5, grid(2, 2), words())
    d = a - b
    assert d.left_layout == a.left_layout
    assert torch.equal(d.matrix, a.matrix - b.matrix)
    assert common(a.left_layout, b.left_layout)[1] == (None, None)


def test_precisions_and_names():
    a, b = pair(1, grid(2, 2), words()), pair(5, grid(2, 2), words())
    from dataclasses import replace

    a = replace(a, about={"model": "m", "method": "x", "scale": "similarity"})
    b = replace(b, about={"model": "m", "method": "y", "scale": "similarity"}, attributions=b.matrix.float())
    d = a - b
    assert d.about["model"] == "m"
    assert d.about["method"] == "x − y"
    assert d.about["scale"] == "similarity"
    assert [one["method"] for one in d.about["difference"]] == ["x", "y"]
    assert d.matrix.dtype == torch.float64
    both = replace(a, attributions=a.matrix.float()) - b
    assert both.matrix.dtype == both.left_effects.dtype == torch.float32


def test_what_cannot_be_compared(monkeypatch):
    a = pair(1, grid(2, 2), words())
    with pytest.raises(InputError, match=r"images of 90×60 and 80×60 pixels: both must be of the same photograph"):
        _ = a - pair(1, grid(3, 3, size=(80, 60)), words())
    other = TokenLayout(2, {}, ("a", "cat"), ((0, 1), (2, 5)), "a cat")
    with pytest.raises(InputError, match=r"different texts, 'A dog jumps for a frisbee.' and 'a cat'"):
        _ = a - pair(1, grid(2, 2), other)
    with pytest.raises(InputError, match="without their text"):
        _ = a - pair(1, grid(2, 2), TokenLayout(2, {}, ("1", "2"), (None, None), None))
    with pytest.raises(InputError, match="not of the same pair"):
        _ = a - a.T
    with pytest.raises(
        InputError, match=r"^grids of 101×102 and 2×3 are too fine .* one another: explain at a block's input"
    ):
        common(grid(101, 102), grid(2, 3))
    with pytest.raises(InputError, match="^the features of the two explanations differ and have no common layout$"):
        common(Layout(3, {}), Layout(4, {}))
    assert MAX_CELLS == 10_000
    monkeypatch.setattr("secondsight.algebra.layout.grid.MAX_CELLS", 12)
    common(grid(3, 4), grid(1, 1))
    with pytest.raises(InputError, match="grids of 1×13 and 1×1 are too fine"):
        common(grid(1, 13), grid(1, 1))
