"""Edits are predicted exactly where a model is linear, and verified by what really encoding the rest gives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import secondsight as ss
from captions import write_data
from families import photographs
from models import clip, pixels, small, tokens
from secondsight.evaluation import evaluate
from secondsight.evaluation.experiments.edits import _slope
from secondsight.testing import changed, snapshot
from secondsight.visual.charts import calibration

CAPTION = "a dog and a cat"
BOX = (4.0, 8.0, 20.0, 32.0)


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def photo():
    return photographs()[0].convert("RGB").resize((32, 32))


@pytest.fixture(scope="module")
def e(model, photo):
    return ss.explain(model, photo, CAPTION)


def cosine(a, b):
    return float(F.normalize(a.double(), dim=-1) @ F.normalize(b.double(), dim=-1))


def embed(side, raw):
    return side.embed([raw])[0]


def linear_model(cosine_=False):
    """Words and patches added up: every embedding is a sum of the parts'."""
    torch.manual_seed(0)

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.blocks = nn.Embedding(20, 6), nn.Sequential(nn.Linear(6, 5))

        def forward(self, ids):
            return self.blocks(self.table(ids)).sum(1)

    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.blocks = nn.Conv2d(3, 6, 8, 8), nn.Sequential(nn.Linear(6, 5))

        def forward(self, x):
            return self.blocks(self.embed(x).flatten(2).mT).sum(1)

    image = ss.TorchEncoder(Patches().double(), "blocks", mean=(0.5,) * 3, std=(0.2,) * 3, grid=(3, 3))
    text = ss.TorchEncoder(Words().double(), "blocks", kind="text", padding=0)
    return ss.DualEncoder(image, text, cosine=cosine_)


# The reference of Jacobian × input is zero, which no input has.
EDITED = [
    (method, how)
    for method in ("grounded", "last-layer", "occlusion", "banzhaf:ridge=0,budget=64", "jacobian-times-input:layer=0")
    for how in ("replaced", "layer")
    if (method, how) != ("jacobian-times-input:layer=0", "replaced")
]


@pytest.mark.parametrize(("method", "how"), EDITED)
def test_a_linear_model_is_predicted_exactly(method, how):
    dual, x, ids = linear_model(), pixels(24), torch.tensor([[3, 5, 7, 9, 11]])
    e = ss.explain(dual, x, ids, method)
    for selection, left in (([1, 3], None), (None, (0, 0, 16, 8)), ([2], [0, 4, 8])):
        edit = e.without(selection, left=left, verify=True, how=how, model=dual, inputs=(x, ids))
        assert edit.measured == pytest.approx(edit.predicted, abs=1e-10)
        assert abs(edit.measured - edit.before) > 1e-3


def test_words_take_the_padding_of_the_reference(model, photo, e):
    side, prepared = model.right, model.right.prepare([CAPTION])[0]
    table = side.encoder.token_embedding(torch.float64)
    dog = e.right_layout.select("dog").bool()
    handle = table.register_forward_hook(lambda _, __, out: torch.where(dog[None, :, None], table.weight[0], out))
    expected = cosine(embed(model.left, photo), embed(side, CAPTION))
    handle.remove()
    edit = e.without("dog", verify=True, model=model)
    assert edit.measured == pytest.approx(expected, abs=1e-10)
    assert edit.before == pytest.approx(cosine(embed(model.left, photo), embed(side, CAPTION)), abs=1e-10)
    assert prepared.tensor.shape[1] == e.right_layout.size


def test_words_are_struck_from_the_text(model, photo, e):
    edit = e.without("dog and", verify=True, how="deleted", model=model)
    assert edit.measured == pytest.approx(cosine(embed(model.left, photo), embed(model.right, "a a cat")), abs=1e-10)
    assert edit.how == "deleted"


@pytest.mark.parametrize(("method", "fill"), [("grounded", 0), ("occlusion", None)])
def test_boxes_take_the_reference_to_the_pixel(model, photo, method, fill):
    e = ss.explain(model, photo, CAPTION, method)
    array = np.array(photo)
    x = model.left.prepare([photo])[0].tensor
    expected = x.clone()
    black = model.left.prepare([Image.fromarray(np.zeros_like(array))])[0].tensor
    absent = black if fill == 0 else x.mean((-2, -1), keepdim=True).expand_as(x)
    expected[..., 8:32, 4:20] = absent[..., 8:32, 4:20]
    edit = e.without(left=BOX, verify=True, model=model)
    assert edit.measured == pytest.approx(cosine(embed(model.left, expected), embed(model.right, CAPTION)), abs=1e-10)
    cells = e.without(left=e.left_layout.visible[:2], verify=True, model=model)
    width = 32 // e.left_layout.grid[1]
    expected = x.clone()
    expected[..., :width, : 2 * width] = absent[..., :width, : 2 * width]
    assert cells.measured == pytest.approx(cosine(embed(model.left, expected), embed(model.right, CAPTION)), abs=1e-10)


def test_at_a_layer_everything_gone_is_the_reference(model, e):
    edit = e.without(slice(None), left=slice(None), verify=True, how="layer", model=model)
    left, right = e.left_contributions, e.right_contributions
    assert edit.measured == pytest.approx(cosine(left.reference_embedding, right.reference_embedding), abs=1e-10)
    assert edit.predicted == pytest.approx(e.base, abs=1e-6)
    special = e.without(left=[0], verify=True, how="layer", model=model)
    assert special.removed == "class"
    assert special.measured != pytest.approx(special.before, abs=1e-9)
    with pytest.raises(ss.InputError, match=r"'class' is no part of the image .* how=\"layer\""):
        e.without(left=[0], verify=True, model=model)


def test_logits_margins_and_exchanged_sides(model, photo, e):
    logit = ss.explain(model, photo, CAPTION, scale="logit")
    plain = e.without("dog", left=BOX, verify=True, model=model)
    scaled = logit.without("dog", left=BOX, verify=True, model=model)
    assert scaled.measured == pytest.approx(plain.measured * model.logit_scale + model.logit_bias, rel=1e-9)
    assert scaled.predicted == pytest.approx(plain.predicted * model.logit_scale + model.logit_bias, rel=1e-6)
    turned = e.T.without(BOX, left="dog", verify=True, model=model)
    assert turned.measured == pytest.approx(plain.measured, abs=1e-10)
    margin = ss.explain(model, photo, CAPTION, against="a cow on a mat")
    both = margin.without("a cat", verify=True, model=model)
    other = ss.explain(model, photo, "a cow on a mat")
    first = e.without("a cat", verify=True, model=model)
    assert both.measured == pytest.approx(first.measured - other.similarity, abs=1e-10)
    assert both.predicted == pytest.approx(first.predicted - other.similarity, abs=1e-6)


def test_methods_fitted_jointly_can_be_verified(model, photo):
    e = ss.explain(model, photo, CAPTION, ss.BilinearLime(samples=20, solver="closed"))
    edit = e.without("dog", left=BOX, verify=True, model=model)
    assert edit.measured is not None
    assert edit.predicted != edit.before


def test_sampling_methods_say_how_sure_they_are(model, photo):
    edit = ss.explain(model, photo, CAPTION, ss.Banzhaf(budget=12)).without("dog", left=BOX)
    assert edit.standard_error > 0
    assert edit.measured is None


def test_late_interaction_matches_anew():
    from families.late_interaction import st_late_plain

    dual = ss.wrap(st_late_plain(torch.float64))
    query, document = "a dog and a cat", "the photo of a dog"
    e = ss.explain(dual, query, document, "integrated-jacobian:layer=output")
    host = dual.similarity_map(query, document)
    dog = e.right_layout.select("dog").bool()
    compared = [i for i in range(len(dog)) if not dog[i]]
    expected = host.matrix[:, compared].amax(1).sum()
    edit = e.without("dog", verify=True, how="layer", model=dual)
    assert edit.measured == pytest.approx(float(expected), abs=1e-8)
    deleted = e.without("dog", verify=True, how="deleted", model=dual)
    assert deleted.measured == pytest.approx(dual.similarity_map(query, "the photo of a").similarity, abs=1e-8)
    replaced = e.without("dog", verify=True, model=dual)
    assert replaced.measured not in (edit.measured, deleted.measured)
    a, b = dual.left.contributions([query])[0], dual.right.contributions([document])[0]
    assert (a @ b.without("dog")).similarity == pytest.approx(edit.measured, abs=1e-8)


def test_the_model_leaves_as_it_came(photo):
    host = clip(torch.float32).train()
    before = snapshot(host)
    dual, x, ids = ss.wrap(host), pixels(dtype=torch.float32), tokens()
    e = ss.explain(dual, x, ids)
    for how in ("replaced", "layer"):
        e.without([2], left=[3, 4], verify=True, how=how, model=dual, inputs=(x, ids))
    assert changed(before, snapshot(host)) == []


def test_what_cannot_be_verified_is_said_in_a_sentence(model, photo, e):
    x, ids = pixels(), tokens(length=24)
    ready = ss.explain(model, x, ids)
    for act, words in (
        (lambda: e.without("dog", verify=True, how="erased", model=model), "unknown how 'erased'; known: replaced"),
        (lambda: e.without("dog", verify=True), "cannot be loaded by its name: give model="),
        (lambda: e.without(CAPTION, verify=True, how="deleted", model=model), "nothing is left of"),
        (lambda: ready.without([2], verify=True, model=model), r"give them as inputs=\(left, right\)"),
        (lambda: ready.without([2], verify=True, how="deleted", model=model, inputs=(x, ids)), "only words of a text"),
        (lambda: e.without("dog", verify=True, model=model, inputs=(x, CAPTION)), "those that were explained"),
        (lambda: (e - e).without("dog", verify=True, model=model), "a difference of two explanations"),
    ):
        with pytest.raises(ss.InputError, match=words):
            act()
    own = ss.explain(model, x, ids, ss.IntegratedJacobian(reference=(torch.zeros_like(x), None), steps=2))
    with pytest.raises(ss.InputError, match="a reference of your own"):
        own.without(left=[3], verify=True, model=model, inputs=(x, ids))


# The experiment -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("edits")
    methods = [("chained", ss.ChainedJacobian()), ("occlusion", ss.Occlusion())]
    data = write_data(folder, 3)
    return evaluate("edits", data, [("small", model)], methods, out=folder / "out", words=3, boxes=2, cells=2)


def test_records_are_predictions_and_measurements_of_edits(model, results):
    records = results.records
    assert set(records.kind) == {"word", "box", "cells"}
    example = results._run.examples[records.key[0]]
    e = ss.explain(model, example.image, example.caption, ss.ChainedJacobian())
    rows = records[(records.setting == "chained") & (records.key == records.key[0])]
    for row in rows[rows.kind != "cells"].itertuples():
        index = int(row.part.split()[0])
        if row.kind == "word":
            word = e.right_layout.words[index]
            edit = e.without((word.start, word.end), verify=True, model=model)
        else:
            edit = e.without(left=example.regions[index].box, verify=True, model=model)
        assert row.measured == pytest.approx(edit.measured, abs=1e-9)
        assert row.predicted == pytest.approx(edit.predicted, abs=1e-9)
        assert row.before == pytest.approx(e.similarity, abs=1e-12)


def test_occlusion_predicts_single_tokens_by_definition(results):
    overall = results["overall"].set_index(["setting", "kind"])
    row = overall.loc["occlusion", "word"]
    assert row["mean |error|"] < 1e-9
    assert (row["slope"], row["Pearson"]) == pytest.approx((1, 1), abs=1e-6)
    differences = results["differences"].set_index(["kind", "setting"])
    assert differences.loc[("word", "chained"), "best"] == "occlusion"
    assert differences.loc[("word", "chained"), "more |error|"] == pytest.approx(
        overall.loc[("chained", "word"), "mean |error|"] - row["mean |error|"], abs=1e-12
    )
    assert list(results.figures) == ["calibration"]


@pytest.mark.parametrize("how", ["deleted", "layer"])
def test_the_experiment_removes_in_other_ways(model, tmp_path, how):
    data = write_data(tmp_path, 1)
    table = evaluate("edits", data, [("small", model)], out=tmp_path / "out", how=how, words=3, boxes=0, cells=1)
    assert list(table["overall"].kind) == ["word", "cells"]
    row = table.records.iloc[0]
    example = table._run.examples[row.key]
    e = ss.explain(model, example.image, example.caption)
    word = e.right_layout.words[int(row.part.split()[0])]
    edit = e.without((word.start, word.end), verify=True, how=how, model=model)
    assert row.measured == pytest.approx(edit.measured, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"words": -1}, "words=-1"), ({"words": 0, "boxes": 0, "cells": 0}, "all 0"), ({"how": "x"}, "unknown how 'x'")],
)
def test_options_of_the_experiment(model, tmp_path, options, said):
    with pytest.raises(ss.InputError, match=said):
        evaluate("edits", write_data(tmp_path, 1), [("small", model)], out=tmp_path / "out", **options)


def test_calibration_by_hand():
    predicted, measured = np.array([0.0, 1.0, 2.0]), np.array([0.5, 1.0, 1.5])
    assert _slope(predicted, measured) == pytest.approx(0.5)
    assert np.isnan(_slope(np.ones(3), measured))
    figure = calibration({"a": {"word": (predicted, measured)}, "b": {"box": (-predicted, measured)}}, "x", "y")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]
