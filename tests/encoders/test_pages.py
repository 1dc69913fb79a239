"""Page retrieval models (ColPali, ColQwen2, ColModernVBert), small and random, against the host's own vectors and scores."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from sentence_transformers import MultiVectorEncoder
from torch import Tensor

import secondsight as ss
from families.example import Example
from families.pages import PAGES, QUERIES, save
from secondsight.algebra.layout import Layout
from secondsight.encoders.base import States
from secondsight.encoders.families.transformers.pages import page_order
from secondsight.inputs.prepared import Prepared
from secondsight.model import Side
from secondsight.support.guard import skipping, untouched
from secondsight.testing import CHECKS, Case

LAYERS = ["output", 3, 2, 1, 0, "input"]


@cache
def example(name: str, dtype: torch.dtype = torch.float64) -> Example:
    return PAGES[name](dtype)


@cache
def vectors(name: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """The host's own vectors of the first query and the first page."""
    e = example(name, dtype)
    return e.host_right(e.right[0]), e.host_left(e.left[0])


def score(name: str, dtype: torch.dtype = torch.float64) -> float:
    query, document = vectors(name, dtype)
    return float(example(name, dtype).parts[0].score_retrieval([query], [document]))


def held(side: Side) -> Side:
    """A side that multiplies the same vectors of every input, some of them twice, as in a pair."""
    return Side(side.encoder.choosing(torch.tensor([11, 2, 2])), side.index, False)


@pytest.fixture
def exact_hosts(monkeypatch):
    """Hosts that compute their norms and rotations in float64, where transformers takes float32 whatever the weights are."""
    to = Tensor.to

    def keep(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        narrowing = tensor.dtype == torch.float64 and torch.float32 in (*args, *kwargs.values())
        return tensor if narrowing else to(tensor, *args, **kwargs)

    monkeypatch.setattr(Tensor, "to", keep)
    monkeypatch.setattr(
        Tensor, "float", lambda tensor: tensor if tensor.dtype == torch.float64 else to(tensor, torch.float32)
    )


# What integrals add up to follows from heads and chains; they take long in two of the models.
CHECKED = [
    (name, check) for name in PAGES for check in CHECKS if check != "sums_are_exact" or name == "hf-colmodernvbert"
]


@pytest.mark.parametrize(("name", "check"), CHECKED)
def test_every_encoder_under_an_assignment(name, check):
    e = example(name)
    for side, inputs in ((e.model.document, e.left), (e.model.query, e.right)):
        # These hosts compute norms in float32 whatever their precision.
        CHECKS[check](Case(held(side), inputs, tolerance=3e-6))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", PAGES)
def test_the_four_terms_add_up_to_the_hosts_score(name, layer, exact_hosts):
    # Queries pass through half as many blocks.
    method = ss.ChainedJacobian(layer=(layer, min(layer, 1) if isinstance(layer, int) else layer))
    e = example(name)
    query, document = e.host_right(e.right[0]), e.host_left(e.left[0])
    expected = float(e.parts[0].score_retrieval([query], [document]))
    explanation = ss.explain(e.model, e.left[0], e.right[0], method)
    assert explanation.similarity == pytest.approx(expected, abs=1e-10)
    assert explanation.terms.total == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", PAGES)
def test_single_precision_models_add_up_to_a_millionth(name, layer):
    method = ss.ChainedJacobian(layer=(layer, min(layer, 1) if isinstance(layer, int) else layer))
    e, expected = example(name, torch.float32), score(name, torch.float32)
    explanation = ss.explain(e.model, e.left[0], e.right[0], method)
    assert explanation.similarity == pytest.approx(expected, rel=1e-6)
    assert explanation.terms.total == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", PAGES)
def test_the_map_is_the_hosts(name):
    e, (query, document) = example(name), vectors(name)
    shown = e.model.similarity_map(e.right[0], e.left[0])
    pixels = e.model.document.prepare([e.left[0]])[0].tensor
    order = e.model.document.encoder.host_order(pixels)
    assert sorted(order.tolist()) == list(range(len(document)))
    assert torch.allclose(shown.matrix, query @ document[order].T, atol=1e-12)
    assert shown.similarity == pytest.approx(score(name), abs=1e-12)
    assert torch.equal(e.model.similarity_map(e.left[0], e.right[0]).matrix, shown.matrix)


@pytest.mark.parametrize("name", PAGES)
def test_every_query_token_takes_part_and_says_by_how_much_its_match_won(name):
    e, (query, document) = example(name), vectors(name)
    facts = ss.explain(e.model, e.left[0], e.right[0], ss.ChainedJacobian(layer="output")).about["assignment"]
    best = (query @ document.T).topk(2, dim=1).values
    assert [fact["similarity"] for fact in facts] == pytest.approx(best[:, 0].tolist(), abs=1e-12)
    assert [fact["margin"] for fact in facts] == pytest.approx((best[:, 0] - best[:, 1]).tolist(), abs=1e-12)
    names = {fact["token"] for fact in facts}
    assert {"the", "of", "year"} & names


@pytest.mark.parametrize("name", PAGES)
def test_a_word_of_the_query_gives_a_map_over_the_page(name):
    e = example(name)
    explanation = ss.explain(e.model, e.left[0], e.right[0], ss.ChainedJacobian(layer="output"))
    layout = explanation.left_layout
    cells = explanation["revenue"]
    assert cells.shape == layout.grid
    words = explanation.right_layout.select("revenue").bool()
    assert torch.allclose(cells, layout.view(explanation.matrix[:, words].sum(1)), atol=1e-12)
    tokens = explanation.right_layout
    assert "".join(tokens.text[slice(*tokens.offsets[i])] for i in words.nonzero()[:, 0]) == "revenue"
    assert "augmentation" in tokens.special.values()


def whole_page_positions(layout: Layout) -> list[int]:
    return [position for position, name in layout.special.items() if name == "whole page"]


def whole(image: Image.Image) -> tuple[float, float, float, float]:
    return (0.0, 0.0, float(image.width), float(image.height))


@pytest.mark.parametrize("name", PAGES)
def test_cells_lie_where_the_page_was_changed(name):
    encoder, image = example(name).model.document.encoder, example(name).left[0]
    vision = encoder.blocks(encoder.module)[: encoder.vision_depth]
    everything = encoder.blocks(encoder.module)
    for layer, skipped in ((0, []), (encoder.vision_depth, vision), (encoder.depth, everything)):
        with untouched(encoder.module), skipping(skipped, None):
            # Without attention, every position depends on its own part of the page alone.
            before = states(encoder, image, layer)
            layout = encoder.layout(encoder.prepare(image), layer, before)
            assert layout.frame == pytest.approx(whole(image), abs=0.5)
            rows, columns = layout.grid
            for row, column in ((0, 0), (0, columns - 1), (rows - 1, 0), (rows // 2, 1), (rows - 2, columns - 2)):
                x0, y0, x1, y1 = layout.cell_boxes()[row * columns + column].tolist()
                changed = image.copy()
                inset = (x1 - x0) / 4, (y1 - y0) / 4
                box = (x0 + inset[0], y0 + inset[1], x1 - inset[0], y1 - inset[1])
                ImageDraw.Draw(changed).rectangle(box, fill=(0, 120, 255))
                distances = (states(encoder, changed, layer).hidden - before.hidden).norm(dim=1)
                moved, again = layout.view(distances), distances[whole_page_positions(layout)]
                if len(again):
                    side = round(len(again) ** 0.5)
                    assert divmod(int(again.argmax()), side) == (row * side // rows, column * side // columns)
                assert divmod(int(moved.argmax()), columns) == (row, column)
                assert moved.flatten().sort().values[-2] < moved.max() / 2


def states(encoder: Any, image: Image.Image, layer: int) -> States:
    return encoder.features(encoder.prepare(image).tensor, layer)[0]


def test_tiles_are_put_in_the_order_of_the_page():
    # Two rows of three tiles of 2×2 cells, numbered tile by tile.
    assert page_order((2, 3, 2, 2)).reshape(4, 6)[:2].tolist() == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]


def test_the_tile_of_the_whole_page_is_special_and_blurred_by_itself():
    e = example("hf-colmodernvbert")
    encoder = e.model.document.encoder
    prepared = encoder.prepare(e.left[0])
    layout = encoder.layout(prepared, 0, encoder.features(prepared.tensor, 0)[0])
    tile = encoder.config.vision_config.image_size
    patches = (tile // encoder.config.vision_config.patch_size) ** 2
    assert list(layout.special.values()) == ["whole page"] * patches
    height = prepared.tensor.shape[2] - tile
    blurred = encoder.reference(prepared, "blur", 0)
    alone = Prepared(prepared.tensor[:, :, :height], None, prepared.source)
    assert torch.equal(blurred[:, :, :height], encoder.images.reference(alone, "blur", 0))
    assert torch.equal(encoder.reference(prepared, e.left[0], 0), prepared.tensor)


def test_grey_pages_and_white_ones_half_way_to_black_are_pages_too():
    # The host's own function drops tiles of zeros, of which a page consists that is half white, half black.
    e = example("hf-colmodernvbert")
    white = Image.new("RGB", (120, 150), "white")
    explanation = ss.explain(e.model, white, e.right[0], ss.IntegratedJacobian(layer=("input", 0), steps=3))
    assert explanation.similarity > 0


@pytest.mark.parametrize("name", PAGES)
def test_model_ready_pixels_and_ids_give_the_same(name):
    e = example(name)
    page_input, query = e.model.document.prepare([e.left[0]])[0], e.model.query.prepare([e.right[0]])[0]
    raw = e.model.similarity_map(e.right[0], e.left[0])
    ready = e.model.similarity_map(query.tensor, page_input.tensor)
    assert torch.equal(raw.matrix, ready.matrix)
    assert list(ready.query_layout.special.values()).count("augmentation") == 10
    with pytest.raises(ss.InputError, match="not a size that this model's processor gives"):
        e.model.document.prepare([torch.zeros(1, 3, 20, 44)])


@pytest.mark.parametrize("name", PAGES)
def test_other_processes_prepare_pages_without_the_weights(name):
    encoder, image = example(name).model.document.encoder, example(name).left[0]
    preparing = encoder.for_preparing()
    assert torch.equal(preparing.prepare(image).tensor, encoder.prepare(image).tensor)
    holds = [cell.cell_contents for cell in preparing.images.preprocess.__closure__]
    assert holds == [preparing]
    assert all(parameter.is_meta for parameter in preparing.module.parameters())


def test_long_queries_are_cut_before_what_follows_them():
    e = example("hf-colpali")
    tokens = copy.copy(e.model.query.encoder.tokens)
    tokens.context = 30
    with pytest.raises(ss.InputError, match="the model reads 30"):
        tokens.prepare(QUERIES[0] * 3)
    prepared = tokens.prepare(QUERIES[0] * 3, truncate=True)
    assert prepared.tensor.shape[1] <= 30
    assert list(prepared.tokenized.special.values()).count("augmentation") == 10


def test_a_model_without_its_processor_is_refused_in_a_sentence():
    e = example("hf-colpali")
    with pytest.raises(ss.InputError, match="pass its own processor"):
        ss.wrap(e.host)
    with pytest.raises(ss.InputError, match="pass its own processor"):
        ss.wrap(e.host, e.parts[0].image_processor, e.parts[0].tokenizer)


@pytest.mark.parametrize("name", PAGES)
def test_models_are_loaded_by_the_name_of_a_folder(name, tmp_path):
    e = example(name)
    save(e, tmp_path)
    model = ss.load(f"hf:{tmp_path}")
    assert model.similarity_map(e.right[0], e.left[0]).similarity == pytest.approx(score(name), rel=1e-5)


@pytest.mark.parametrize("name", [name for name in PAGES if name != "hf-colmodernvbert"])
def test_a_multi_vector_encoder_around_a_page_model_is_that_model(name, tmp_path):
    e = example(name, torch.float32)
    save(e, tmp_path)
    host = MultiVectorEncoder(str(tmp_path), device="cpu", local_files_only=True)
    vectors = host.encode_query(e.right[0]), host.encode_document(e.left[0])
    for model in (ss.wrap(host), ss.load(f"st:{tmp_path}")):
        shown = model.similarity_map(e.right[0], e.left[0])
        assert shown.similarity == pytest.approx(float(host.similarity(*vectors)), rel=1e-6)
    host.prompts["query"] = "find: "
    with pytest.raises(ss.InputError, match=r"explain the model that is inside, ss.wrap\(model\[0\].auto_model"):
        ss.wrap(host)
