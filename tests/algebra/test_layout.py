"""Where features lie: spans in texts, cells and boxes on photographs."""

import random

import pytest
import torch

from secondsight import GridLayout, InputError, JoinedLayout, Layout, TokenLayout
from sides import OFFSETS, TEXT, TOKENS, image_layout, text_layout


@pytest.mark.parametrize(
    ("selection", "tokens"),
    [
        ("dog", [2]),
        ("DOG", [2]),
        ("frisbee", [6, 7]),
        ("dog jumps", [2, 3]),
        ((18, 25), [6, 7]),
        ((20, 21), [6]),
        (3, [3]),
        (-2, [8]),
        ([1, 2], [1, 2]),
        (slice(2, 4), [2, 3]),
        (None, [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_spans_select_their_tokens(selection, tokens):
    assert text_layout().select(selection).nonzero().flatten().tolist() == tokens


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("cat", "'A', 'dog', 'jumps', 'for', 'a', 'frisbee'"),
        ("", "its words are"),
        (" ", "its words are"),
        ("a", "occurs 2 times|its words"),
        ((0, 99), "which has 26"),
        ((5, 5), "5-5 are not a span of the text"),
        ((5, 6), "covers no token"),
        (99, "outside 0 … 9"),
        ([0, -11], "outside"),
        ([], "cannot select"),
        (1.5, "cannot select"),
    ],
)
def test_missing_and_ambiguous_spans_are_errors_that_help(selection, words):
    layout = text_layout() if selection != "a" else TokenLayout(2, {}, ("a", "a"), ((0, 1), (2, 3)), "a a")
    with pytest.raises(InputError, match=words):
        layout.select(selection)


def test_whole_words_come_before_parts_of_words():
    layout = TokenLayout(3, {}, ("hotdog", "and", "dog"), ((0, 6), (7, 10), (11, 14)), "hotdog and dog")
    assert layout.select("dog").tolist() == [0, 0, 1]


def test_a_word_that_was_cut_cannot_be_selected():
    layout = TokenLayout(5, {0: "start"}, TOKENS[:5], OFFSETS[:5], TEXT)
    with pytest.raises(InputError, match="was cut off"):
        layout.select("frisbee")
    assert layout.words[-2].features == ()


def test_tokens_without_text_go_by_index():
    layout = TokenLayout(3, {0: "start", 2: "end"}, ("<s>", "17", "</s>"), (None,) * 3, None)
    assert layout.select([1]).tolist() == [0, 1, 0]
    assert [w.text for w in layout.words] == ["17"]
    for selection in ("17", (0, 1)):
        with pytest.raises(InputError, match="without their text"):
            layout.select(selection)


def test_cells_lie_where_the_frame_puts_them():
    layout = GridLayout(4, {}, (2, 2), (100, 50), (25.0, 0.0, 75.0, 50.0))
    assert layout.cell_boxes().tolist() == [[25, 0, 50, 25], [50, 0, 75, 25], [25, 25, 50, 50], [50, 25, 75, 50]]
    assert layout.cover((25, 0, 50, 25)).tolist() == [1, 0, 0, 0]
    assert layout.cover((37.5, 0, 62.5, 50)).tolist() == [0.5] * 4
    assert layout.cover((0, 0, 1000, 1000)).tolist() == [1] * 4


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((200, 0, 300, 50), "outside the image, which is 100×50"),
        ((-9, -9, -1, -1), "outside the image"),
        ((30, 30, 30, 40), "is empty"),
        ((40, 10, 30, 40), "is empty"),
        ((0, 0, 20, 50), r"outside the part of the image that the model sees \(25,0,75,50\)"),
        ((0, 0, 20), "four numbers"),
        ((float("nan"), 0, 20, 20), "is empty"),
    ],
)
def test_boxes_outside_are_errors(box, words):
    layout = GridLayout(4, {}, (2, 2), (100, 50), (25.0, 0.0, 75.0, 50.0))
    with pytest.raises(InputError, match=words):
        layout.cover(box)


def test_a_heatmap_is_bilinear_inside_the_frame_and_zero_outside():
    layout = GridLayout(5, {0: "class"}, (2, 2), (8, 4), (2.0, 0.0, 6.0, 4.0))
    heat = layout.heatmap(torch.tensor([99.0, 1.0, 2.0, 3.0, 4.0]))
    assert heat.shape == (4, 8)
    assert torch.equal(heat[:, :2], torch.zeros(4, 2))
    assert torch.equal(heat[:, 6:], torch.zeros(4, 2))
    own = torch.nn.functional.interpolate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), size=(4, 4), mode="bilinear")[
        0, 0
    ]
    assert torch.allclose(heat[:, 2:6], own, atol=1e-6)


def test_layouts_survive_json():
    for layout in (image_layout(), text_layout(), Layout(3, {1: "register"})):
        assert Layout.from_json(layout.to_json()) == layout
    with pytest.raises(InputError, match="unknown layout kind"):
        Layout.from_json({"kind": "sound", "size": 1, "special": {}})


def test_a_grid_that_does_not_hold_its_cells_is_refused():
    with pytest.raises(InputError, match="2×2 does not hold 4|2×2 does not hold 5"):
        GridLayout(6, {0: "class"}, (2, 2), (8, 4), (0.0, 0.0, 8.0, 4.0))
    with pytest.raises(InputError, match="do not fit"):
        Layout(2, {5: "class"})


COFFEE = TokenLayout(3, {}, ("a", "cup", "coffee"), ((0, 1), (2, 5), (6, 12)), "a cup coffee")


@pytest.mark.parametrize("part", ["off", "coff", "fee", "OFF", "up", "a cu"])
def test_a_part_of_a_word_is_refused_with_the_word(part):
    with pytest.raises(InputError, match="is a part of the word '(coffee|cup|a)': select whole words"):
        COFFEE.select(part)


def test_whole_words_and_phrases_are_selected():
    assert COFFEE.select("cup coffee").tolist() == [0, 1, 1]
    assert COFFEE.select("Coffee").tolist() == [0, 0, 1]
    hyphen = TokenLayout(3, {}, ("fire", "-", "hydrant"), ((0, 4), (4, 5), (5, 12)), "fire-hydrant")
    assert hyphen.select("hydrant").tolist() == [0, 0, 1]


def test_scripts_without_spaces_have_no_words_to_cut():
    layout = TokenLayout(4, {}, tuple("一只狗跑"), ((0, 1), (1, 2), (2, 3), (3, 4)), "一只狗跑")
    assert layout.select("狗").tolist() == [0, 0, 1, 0]


def test_a_joined_side_looks_at_whole_words_only():
    dogma = TokenLayout(2, {}, ("a", "dogma"), ((0, 1), (2, 7)), "a dogma")
    dog = TokenLayout(2, {}, ("a", "dog"), ((0, 1), (2, 5)), "a dog")
    joined = JoinedLayout.of([dogma, dog], (1, -1))
    assert joined.select("dog").tolist() == [0, 0, 0, 1]
    with pytest.raises(InputError, match="'ogm' is a part of the word 'dogma'"):
        joined.select("ogm")


@pytest.mark.parametrize("seed", range(5))
def test_a_token_belongs_to_the_word_that_it_overlaps_most(seed):
    rng = random.Random(seed)
    text = "".join(rng.choice("ab  .-é") for _ in range(60))
    offsets = [tuple(sorted(rng.sample(range(60), 2))) for _ in range(30)] + [(7, 7), None]
    layout = TokenLayout(size=32, special={31: "end"}, text=text, offsets=tuple(offsets), tokens=("t",) * 32)

    def overlap(word, offset):
        return min(word.end, offset[1]) - max(word.start, offset[0])

    expected = [[] for _ in layout.words]
    for feature in range(31):
        shares = [overlap(word, offsets[feature]) for word in layout.words]
        if max(shares) > 0:
            expected[shares.index(max(shares))].append(feature)
    assert [list(word.features) for word in layout.words] == expected
