"""A layout that no other file knows: text tokens and image cells in one sequence, as multimodal encoders have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import secondsight as ss
from secondsight import GridLayout, InputError, Interactions, Layout, TokenLayout
from secondsight.algebra.layout import Word, common, owners_in
from secondsight.visual.page import render_page
from secondsight.visual.page_data import page_data
from secondsight.visual.terminal import terminal
from sides import image_layout, random_side, text_layout


@dataclass(frozen=True)
class MixedLayout(Layout):
    """Tokens before and after the cells of an image; `places` says where each feature of the two parts stands."""

    image: GridLayout | None = None
    caption: TokenLayout | None = None
    places: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    kind: ClassVar[str] = "mixed"

    @property
    def parts(self) -> tuple[Layout, ...]:
        assert self.image is not None
        assert self.caption is not None
        return self.image, self.caption

    @property
    def text(self) -> str | None:
        return self.parts[1].text

    @cached_property
    def words(self) -> list[Word]:
        places = self.places[1]
        return [Word(w.text, w.start, w.end, tuple(places[f] for f in w.features)) for w in self.parts[1].words]

    def split(self, values: Tensor) -> list[Tensor]:
        return [values[..., list(places)] for places in self.places]

    def each(self, inputs: Any) -> tuple[Any, ...]:
        return inputs if isinstance(inputs, tuple) else (None, None)

    def _place(self, part: int, values: Tensor) -> Tensor:
        weights = torch.zeros(self.size)
        weights[list(self.places[part])] = values
        return weights

    def select(self, selection: Any) -> Tensor:
        if isinstance(selection, str | tuple):
            part = int(isinstance(selection, str) or len(selection) == 2)
            return self._place(part, self.parts[part].select(selection))
        return super().select(selection)

    def cover(self, box: Sequence[float]) -> Tensor:
        return self._place(0, self.parts[0].cover(box))

    def heatmap(self, values: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        return self.parts[0].heatmap(self.split(values)[0], size)

    def to_json(self) -> dict[str, Any]:
        parts = [part.to_json() for part in self.parts]
        return {**super().to_json(), "parts": parts, "places": [list(places) for places in self.places]}

    @classmethod
    def from_fields(cls, size: int, special: dict[int, str], data: Mapping[str, Any]) -> Layout:
        image, caption = (Layout.from_json(part) for part in data["parts"])
        assert isinstance(image, GridLayout)
        assert isinstance(caption, TokenLayout)
        first, second = data["places"]
        return cls(size, special, image, caption, (tuple(first), tuple(second)))


def mixed() -> MixedLayout:
    """Start token, "A dog jumps", six cells behind their class token, the rest of the text."""
    places = tuple(range(4, 11)), (*range(4), *range(11, 17))
    return MixedLayout(17, {0: "start", 4: "class", 16: "end"}, image_layout(), text_layout(), places)


@pytest.fixture(scope="module")
def e() -> Interactions:
    return random_side(mixed(), 1, torch.float64) @ random_side(text_layout(), 2, torch.float64)


def test_words_and_boxes_are_selected():
    layout = mixed()
    assert layout.select("dog").nonzero().flatten().tolist() == [2]
    assert layout.select("frisbee").nonzero().flatten().tolist() == [13, 14]
    assert layout.select((0, 0, 30, 30)).nonzero().flatten().tolist() == [5]
    assert layout.select((18, 25)).nonzero().flatten().tolist() == [13, 14]
    assert layout.select(None).sum() == 14
    with pytest.raises(InputError, match="outside the image"):
        layout.select((100, 0, 120, 30))


def test_it_survives_json():
    layout = mixed()
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert layout.modality == "mixed"


def test_interactions_use_both_parts(e):
    assert e["dog"].shape == (17,)
    assert e.heatmap("dog").shape == (60, 90)
    scores = dict(e.box(0, 0, 30, 30))
    assert scores["dog"] == pytest.approx(float(e.matrix[5, 2]))
    assert float(e.T["dog"][2]) == pytest.approx(float(e.matrix[2, 2]))
    assert dict(e.T.words)["frisbee"] == pytest.approx(float(e.matrix[[13, 14]][:, text_layout().visible].sum()))


@pytest.mark.parametrize("name", ["e.json", "e.npz"])
def test_it_is_saved_and_loaded(e, tmp_path, name):
    e.save(tmp_path / name)
    again = Interactions.load(tmp_path / name)
    assert again.left_layout == e.left_layout
    assert torch.equal(again.matrix, e.matrix)


def test_more_special_features_and_common_ones():
    layout = mixed()
    longer = layout.with_special(["pair 1,2", "pair 2,3"])
    assert isinstance(longer, MixedLayout)
    assert longer.special == {**layout.special, 17: "pair 1,2", 18: "pair 2,3"}
    assert longer.select("dog").shape == (19,)
    assert common(layout, mixed()) == (layout, (None, None))
    assert torch.equal(layout.shares_in(mixed()), torch.eye(17, dtype=torch.float64))
    assert owners_in(layout, mixed()).tolist() == list(range(17))
    with pytest.raises(InputError, match="have no common layout"):
        common(layout, longer)


def test_a_margin_joins_it_with_another(e):
    vectors = random_side(mixed(), 3, torch.float64)
    both = vectors - random_side(mixed(), 4, torch.float64)
    assert both.layout.signs == (1, -1)
    assert [w.text for w in both.layout.words] == 2 * [w.text for w in mixed().words]
    assert Layout.from_json(both.layout.to_json()) == both.layout


def test_it_is_drawn(e):
    photo = Image.fromarray(np.full((60, 90, 3), 128, dtype=np.uint8))
    explanation = ss.Explanation(
        **{name: getattr(e, name) for name in ("attributions", "left_effects", "right_effects", "base", "similarity")},
        left_layout=e.left_layout,
        right_layout=e.right_layout,
        left_input=(photo, text_layout().text),
        right_input=text_layout().text,
    )
    (case,) = page_data(explanation, "dog")["cases"]
    assert [side["kind"] for side in case["left"]["parts"]] == ["image", "text"]
    assert case["left"]["groups"] == 6 + 7
    assert len(case["left"]["parts"][1]["words"]) == 7
    assert "frisbee" in render_page(explanation)
    assert isinstance(explanation.plot("dog"), Figure)
    assert terminal(explanation)
