"""Measures against cases counted by hand; experiments against what they are made of."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import secondsight as ss
from secondsight.algebra.layout import GridLayout
from secondsight.data import GroundedCaption, Jsonl, Phrase, Region
from secondsight.evaluation import EXPERIMENTS, evaluate, experiments, measures, settings
from secondsight.evaluation.cases import find_cases
from secondsight.evaluation.experiments.collage import draw_collage
from secondsight.evaluation.experiments.failures import propose
from secondsight.evaluation.experiments.masking import (
    explained_game,
    input_games,
    order_masks,
    player_values,
)
from secondsight.evaluation.experiments.sanity import shuffle_weights
from secondsight.evaluation.maps import box_sum
from secondsight.evaluation.statistics import almost_stochastic_order, violation_ratio
from secondsight.testing import changed, snapshot
from secondsight.visual.charts import histograms

# Measures ------------------------------------------------------------------------------------------------------------

MAP = [[4.0, -1.0], [2.0, 0.0]]
"""Over an image of 20 × 20 pixels, cells of 10 × 10."""


@pytest.mark.parametrize(
    ("boxes", "rule", "hit", "energy"),
    [
        ([(0, 0, 10, 10)], "centre", 1, 4 / 6),
        ([(0, 10, 10, 20)], "centre", 0, 2 / 6),
        ([(0, 0, 10, 20)], "centre", 1, 1),
        ([(10, 0, 20, 20)], "centre", 0, 0),
        ([(6, 6, 14, 14)], "centre", 0, 0),  # no centre lies in it, but it touches all four
        ([(6, 6, 14, 14)], "touch", 1, 1),
        ([(0, 0, 20, 20)], "centre", 1, 1),
        ([(0, 0, 20, 20)], "pixel", 1, 1),
        ([(0, 0, 10, 10), (0, 10, 10, 20)], "centre", 1, 1),
        ([], "centre", 0, 0),
    ],
)
def test_pointing_and_energy_by_hand(boxes, rule, hit, energy):
    assert measures.pointing(MAP, boxes, (20, 20), rule=rule) == hit
    assert measures.energy(MAP, boxes, (20, 20), rule=rule) == pytest.approx(energy)


def test_pixels_are_those_that_are_shown():
    map_ = np.zeros((20, 20))
    map_[3:7, 12:18] = 2.0
    map_[15, 2] = -9.0
    # A map of the image's own size is taken as it is: 24 pixels, of which the box has 2 × 3.
    assert measures.energy(map_, [(12, 3, 15, 5)], (20, 20)) == pytest.approx(6 / 24)
    assert measures.pointing(map_, [(12, 3, 15, 5)], (20, 20)) == pytest.approx(6 / 24)  # all 24 are the highest
    # A coarse one is upsampled as the figure does.
    layout = GridLayout(4, {}, (2, 2), (20, 20), (0.0, 0.0, 20.0, 20.0))
    heat = layout.heatmap(torch.tensor(MAP, dtype=torch.float64).flatten()).clamp(min=0)
    assert measures.energy(MAP, [(0, 0, 7, 5)], (20, 20)) == pytest.approx(float(heat[:5, :7].sum() / heat.sum()))


def test_degenerate_maps():
    negative = [[-1.0, -2.0], [-3.0, -4.0]]
    assert measures.energy(negative, [(0, 0, 10, 10)], (20, 20), rule="centre") == 0
    assert measures.pointing(negative, [(0, 0, 10, 10)], (20, 20), rule="centre") == 1
    assert measures.pointing([[1.0, 1.0], [0.0, 1.0]], [(0, 0, 20, 10)], (20, 20), rule="centre") == pytest.approx(
        2 / 3
    )
    assert measures.signed_share([[3.0, -1.0], [0.0, 0.0]], [(10, 0, 20, 10)], (20, 20)) == -0.25
    assert measures.signed_share([[0.0, 0.0]], [(0, 0, 5, 5)], (20, 20)) == 0
    for wrong, words in (([1.0, 2.0], "rows and columns"), ([[float("nan")]], "NaN")):
        with pytest.raises(ss.InputError, match=words):
            measures.energy(wrong, [], (4, 4))
    with pytest.raises(ss.InputError, match="unknown rule 'cell'"):
        measures.energy(MAP, [], (20, 20), rule="cell")


def test_a_map_lies_in_its_frame():
    """A centre crop sees the middle of a wide image; its cells are 10 × 10 pixels from x = 20 on."""
    frame = (20.0, 0.0, 40.0, 20.0)
    assert measures.energy(MAP, [(20, 0, 30, 10)], (60, 20), frame, "centre") == pytest.approx(4 / 6)
    assert measures.energy(MAP, [(0, 0, 10, 10)], (60, 20), frame, "centre") == 0
    assert measures.clip_box((10, 5, 30, 15), frame) == (20, 5, 30, 15)
    assert measures.clip_box((0, 5, 20, 15), frame) is None
    assert measures.overlap((0, 0, 10, 10), (5, 0, 20, 10)) == 0.5


def test_curves_and_correlations():
    assert measures.curve_area([1.0, 0.0]) == 0.5
    assert measures.curve_area([1.0, 1.0, 0.0], [0.0, 0.5, 1.0]) == 0.75
    assert measures.correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert measures.correlation([1, 2, 3], [1, 0, -1]) == pytest.approx(-1)
    assert np.isnan(measures.correlation([1, 1, 1], [1, 2, 3]))
    with pytest.raises(ss.InputError, match="two or more"):
        measures.curve_area([1.0])


def violation(a, b):
    """ε of two samples by the exact integral of their step-shaped quantile functions."""
    x, y = np.sort(a), np.sort(b)
    cuts = np.unique(np.concatenate([np.arange(1, len(x) + 1) / len(x), np.arange(1, len(y) + 1) / len(y)]))
    widths = np.diff(np.concatenate([[0.0], cuts]))
    at = cuts - widths / 2
    gaps = y[(at * len(y)).astype(int)] - x[(at * len(x)).astype(int)]
    return float((gaps**2 * widths)[gaps > 0].sum() / (gaps**2 * widths).sum())


def test_almost_stochastic_order():
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.5, 1, 80), generator.normal(0, 1, 80)
    assert almost_stochastic_order(a, b, seed=1) < 0.05
    assert almost_stochastic_order(b, a, seed=1) > 0.95
    assert almost_stochastic_order(a, b, seed=1) == almost_stochastic_order(a, b, seed=1)
    assert violation_ratio(a, a) == 0.5
    assert almost_stochastic_order(a, a) > 0.5
    # The bound lies above the sample's own violation, and comes down to it with more data.
    wide, narrow = generator.normal(0.2, 1, 4000), generator.normal(0, 1.5, 3000)
    assert violation_ratio(wide, narrow) == pytest.approx(violation(wide, narrow), abs=1e-12)
    bound = almost_stochastic_order(wide, narrow, seed=0, bootstraps=200)
    assert violation(wide, narrow) < bound < violation(wide, narrow) + 0.1
    # By hand: quantiles 0, 2 against 1, 1 are below on one half and above on the other, by as much.
    assert violation_ratio([0.0, 2.0], [1.0, 1.0]) == 0.5
    assert violation_ratio([0.0, 3.0], [1.0, 1.0]) == pytest.approx(1 / 5)
    for wrong in ([], [1.0, float("nan")]):
        with pytest.raises(ss.InputError, match="finite numbers"):
            almost_stochastic_order(wrong, [1.0])


@pytest.mark.parametrize(("shift", "width"), [(0.5, 1.0), (0.0, 1.0), (0.2, 1.5)])
def test_deepsig_agrees(shift, width):
    deepsig = pytest.importorskip("deepsig", reason="the package deepsig is the oracle here")
    generator = np.random.default_rng(0)
    a, b = generator.normal(shift, 1, 40), generator.normal(0, width, 30)
    options = {"confidence_level": 0.95, "num_bootstrap_iterations": 200, "seed": 1}
    theirs = deepsig.aso(a, b, show_progress=False, **options)
    # Both bootstrap, with numbers of their own.
    assert almost_stochastic_order(a, b) == pytest.approx(theirs, abs=0.1)


# Cases ---------------------------------------------------------------------------------------------------------------


def captioned(phrases, regions=None, caption="a dog and a cat on a mat"):
    made = tuple(Phrase((caption.index(w), caption.index(w) + len(w)), tuple(boxes), w) for w, boxes in phrases)
    found = [Region(p.label, box, "animal") for p in made for box in p.boxes] if regions is None else regions
    return GroundedCaption("1", "1", Path("none.jpg"), caption, made, tuple(found))


def test_cases_are_alone_in_view_and_larger_than_a_patch():
    layout = GridLayout(16, {}, (4, 4), (80, 40), (20.0, 0.0, 60.0, 40.0))
    big, small_, outside = (25.0, 5.0, 50.0, 30.0), (25.0, 5.0, 33.0, 13.0), (0.0, 0.0, 19.0, 40.0)
    ((one,), _) = find_cases(captioned([("dog", [big])]), layout)
    assert one.share == pytest.approx(25 * 25 / 1600)
    # What the crop cuts off does not count, and neither does the chance level of it.
    ((cut,), _) = find_cases(captioned([("dog", [(0.0, 0.0, 40.0, 40.0)])]), layout)
    assert cut.box == (20, 0, 40, 40)
    for example, reason in (
        (captioned([("dog", [small_])]), "smaller than a patch"),
        (captioned([("dog", [outside])]), "outside the crop"),
        (captioned([("dog", [big, small_])]), "several instances"),
        (captioned([("dog", [big])], [Region("dog", big), Region("dog", small_, crowd=True)]), "several instances"),
    ):
        assert find_cases(example, layout) == ([], {reason: 1})


# Experiments on a small random model ---------------------------------------------------------------------------------


BANZHAF = ("banzhaf", ss.Banzhaf(budget=24))
OURS = ("ours", ss.IntegratedJacobian(steps=8))


def records(out, name):
    return pd.read_parquet(out / name / "records.parquet")


def test_pointing_is_what_the_measures_say_of_the_maps(model, data, tmp_path):
    before = snapshot(model.left.encoder.module)
    tables = evaluate("pointing", data, [("small", model)], [OURS, BANZHAF], out=tmp_path)
    assert changed(before, snapshot(model.left.encoder.module)) == []
    found = records(tmp_path, "pointing")
    assert len(found) == 2 * 4 * 2
    for example in Jsonl(data):
        e = ss.explain(model, example.image, example.caption, OURS[1])
        for phrase in example.phrases:
            row = found[
                (found.setting == "ours") & found.key.str.startswith(example.image_key) & (found.label == phrase.label)
            ]
            map_ = e.left_layout.view(e.toward_left(phrase.span)).double().numpy()
            about = (map_, phrase.boxes, e.left_layout.image_size, e.left_layout.frame)
            assert row.energy.item() == pytest.approx(measures.energy(*about), abs=1e-6)
            assert row.hit.item() == measures.pointing(*about)
    overall = tables["overall"]
    assert overall.loc["ours", "PGA"] == pytest.approx(found[found.setting == "ours"].hit.mean())
    assert overall.loc["banzhaf", "median PGE"] == pytest.approx(found[found.setting == "banzhaf"].energy.median())
    assert list(tables["classes"].columns) == ["setting", "class", "cases", "PGA", "mean PGE", "sd PGE", "mean area"]
    assert len(tables["almost stochastic order"]) == 2
    page = (tmp_path / "pointing" / "report.html").read_text()
    assert page.count("<svg") == 2
    assert "data:image/png;base64," in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_discrimination_and_hard_negatives_are_sums_over_boxes(model, data, tmp_path):
    evaluate("discrimination", data, [("small", model)], [OURS], out=tmp_path)
    evaluate("hard-negatives", data, [("small", model)], [OURS], out=tmp_path)
    pairs, wrong = records(tmp_path, "discrimination"), records(tmp_path, "hard-negatives")
    assert len(pairs) == 8
    for example in Jsonl(data):
        e = ss.explain(model, example.image, example.caption, OURS[1])
        other = ss.explain(model, example.image, example.negatives[0].caption, OURS[1])
        dog, cat = example.phrases
        row = pairs[pairs.key.str.startswith(example.image_key) & (pairs.label == "dog")]
        assert row.own.item() == pytest.approx(box_sum(e, dog.span, dog.boxes[0]), abs=1e-6)
        assert row.cross.item() == pytest.approx(box_sum(e, dog.span, cat.boxes[0]), abs=1e-6)
        row = wrong[wrong.key.str.startswith(example.image_key)]
        assert row.delta_similarity.item() == pytest.approx(other.similarity - e.similarity, abs=1e-6)
        change = box_sum(other, (2, 5), dog.boxes[0]) - box_sum(e, dog.span, dog.boxes[0])
        assert row.delta_attribution.item() == pytest.approx(change, abs=1e-6)


def test_all_masks_of_a_fit_on_all_masks_are_predicted_as_the_fit_does(model, data):
    """Faithfulness of an explanation against the definition, one mask at a time."""
    example = Jsonl(data)[0]
    (setting,) = settings([("small", model)], [BANZHAF])
    e = setting.explain(example)[0]
    sides = input_games(setting, example, 0)
    masks = [torch.rand(5, g.players, generator=torch.Generator().manual_seed(3)) < 0.5 for g in sides]
    predicted = explained_game(e, sides).similarities(tuple(masks))
    for row in range(5):
        s = [
            i
            for i in range(e.left_layout.size)
            if i in e.left_layout.special or masks[0][row][e.left_layout.visible.index(i)]
        ]
        t = [
            j
            for j in range(e.right_layout.size)
            if j in e.right_layout.special or masks[1][row][e.right_layout.visible.index(j)]
        ]
        total = e.base + float(e.left_effects[s].sum() + e.right_effects[t].sum() + e.matrix[s][:, t].sum())
        assert float(predicted[row]) == pytest.approx(total, abs=1e-9)
    # With everything there it is the four terms' sum.
    whole = [torch.ones(1, g.players, dtype=torch.bool) for g in sides]
    assert float(explained_game(e, sides).similarities(tuple(whole))) == pytest.approx(e.terms.total, abs=1e-6)


def test_faithful_methods_have_higher_faithfulness(model, data, tmp_path):
    methods = [("fitted", ss.Banzhaf(budget=256)), ("shuffled", ss.TokenEmbeddings())]
    tables = evaluate("faithfulness", data, [("small", model)], methods, out=tmp_path)
    table = tables["overall"].set_index("setting")
    assert table.loc["fitted", "median"] > 0.8
    assert table.loc["fitted", "median"] > table.loc["shuffled", "median"] + 0.2


def test_perturbation_ends_where_inputs_end(model, data, tmp_path):
    tables = evaluate("perturbation", data, [("small", model)], [("fitted", ss.Banzhaf(budget=256))], out=tmp_path)
    found = records(tmp_path, "perturbation")
    (setting,) = settings([("small", model)], [OURS])
    example = Jsonl(data)[0]
    left, right = input_games(setting, example, 0)
    own = found[found.key == f"{example.image_key}/{example.key}"].set_index("kind")
    curve = {kind: json.loads(own.loc[kind, "curve"]) for kind in own.index}
    whole, none = float(left.end(True) @ right.end(True)), float(left.end(False) @ right.end(True))
    assert (curve["CID"][0], curve["CID"][-1]) == (pytest.approx(whole, abs=1e-6), pytest.approx(none, abs=1e-6))
    assert (curve["CII"][0], curve["CII"][-1]) == (pytest.approx(none, abs=1e-6), pytest.approx(whole, abs=1e-6))
    assert curve["CTD"][0] == pytest.approx(curve["CTI"][-1], abs=1e-6)
    row = tables["overall"].iloc[0]
    assert row["CID"] < row["random CID"] < row["CII"]
    values = torch.tensor([1.0, 3.0, 2.0])
    assert order_masks(values, [1 / 3, 2 / 3], insert=True).tolist() == [[False, True, False], [False, True, True]]
    assert order_masks(values, [1 / 3], insert=False).tolist() == [[True, False, True]]


def test_cells_of_another_grid_are_averaged(model, data):
    (setting,) = settings([("small", model)], [OURS])
    left, _ = input_games(setting, Jsonl(data)[0], 0)
    fine = GridLayout(64, {}, (8, 8), left.layout.image_size, left.layout.frame)
    ramp = torch.arange(64, dtype=torch.float64).reshape(8, 8)
    found = player_values(fine, ramp.flatten(), left).reshape(left.layout.grid)
    rows, columns = found.diff(dim=0), found.diff(dim=1)
    assert bool((rows > 0).all())
    assert bool((columns > 0).all())


def test_fine_cells_are_masked_with_the_player_that_they_lie_in(model, data):
    (setting,) = settings([("small", model)], [OURS])
    sides = input_games(setting, Jsonl(data)[0], 0)
    coarse, text = sides[0].layout, sides[1].layout
    size = coarse.grid[0] * 2 * coarse.grid[1] * 2
    fine = GridLayout(size + 1, {0: "class"}, (coarse.grid[0] * 2, coarse.grid[1] * 2), coarse.image_size, coarse.frame)
    rng = torch.Generator().manual_seed(1)
    left, right = (
        ss.Contributions(
            *(torch.randn(*shape, 6, generator=rng, dtype=torch.float64) for shape in ((n,), (), ())), layout
        )
        for n, layout in ((fine.size, fine), (text.size, text))
    )
    e = left @ right
    masks = [torch.rand(4, g.players, generator=rng) < 0.5 for g in sides]
    predicted = explained_game(e, sides).similarities(tuple(masks))
    boxes, cells = coarse.cell_boxes().tolist(), dict(zip(coarse.visible, range(len(coarse.visible)), strict=True))
    order = coarse.view(torch.arange(coarse.size).double()).long().flatten().tolist()
    player = []
    for x0, y0, x1, y1 in fine.cell_boxes().tolist():
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        (within,) = [k for k, (a, b, c, d) in enumerate(boxes) if a <= x < c and b <= y < d]
        player.append(cells[order[within]])
    features = fine.view(torch.arange(fine.size).double()).long().flatten().tolist()
    for row in range(4):
        s = [0] + [i for i, p in zip(features, player, strict=True) if masks[0][row][p]]
        t = [j for j in range(text.size) if j in text.special or masks[1][row][text.visible.index(j)]]
        total = e.base + float(e.left_effects[s].sum() + e.right_effects[t].sum() + e.matrix[s][:, t].sum())
        assert float(predicted[row]) == pytest.approx(total, abs=1e-9)
    odd = dataclasses.replace(left, factor=left.vectors[:10], layout=GridLayout(10, {0: "class"}, (3, 3), (9, 9)))
    with pytest.raises(ss.InputError, match="cannot be masked as those"):
        explained_game(odd @ right, sides).similarities(tuple(masks))


@pytest.mark.parametrize(
    ("experiment", "options", "said"),
    [
        ("faithfulness", {"p": 1.0}, "p=1.0 must be one or several numbers between 0 and 1"),
        ("faithfulness", {"p": "a"}, "p='a' must be one or several numbers"),
        ("faithfulness", {"masks": 2}, "masks=2 must be a whole number of at least 3"),
        ("perturbation", {"steps": 0}, "steps=0 must be a whole number of at least 1"),
        ("perturbation", {"steps": "ten"}, "steps='ten' must be a whole number"),
        ("joint-perturbation", {"steps": 2.5}, "steps=2.5 must be a whole number"),
        ("cost", {"repeats": True}, "repeats=True must be a whole number"),
        ("sensitivity", {"draws": 0}, "draws=0 must be a whole number"),
        ("collage", {"size": 0}, "size=0 must be a whole number of at least 2"),
        ("approximation", {"nodes": (4, 0)}, "nodes=0 must be a whole number"),
    ],
)
def test_options_that_no_experiment_can_use(model, data, tmp_path, experiment, options, said):
    with pytest.raises(ss.InputError, match=said):
        evaluate(experiment, data, [("small", model)], [OURS], out=tmp_path, **options)


def test_failures_are_proposed_by_their_evidence(model, data, tmp_path):
    tables = evaluate("failures", data, [("small", model)], [OURS], out=tmp_path)
    table = tables["categories"].iloc[0]
    found = records(tmp_path, "failures")
    assert table["failures"] == (found.energy < 0.2).sum()
    assert found[found.energy >= 0.2].category.isna().all()
    facts = {
        "peak_on_alike": False,
        "on_alike": 0.0,
        "around": 0.0,
        "covered": 0.0,
        "at_edge": False,
        "area": 0.3,
        "positive": 1.0,
    }
    for change, kind in (
        ({"peak_on_alike": True, "around": 0.9}, "misidentified"),
        ({"around": 0.5}, "spill over the box"),
        ({"covered": 0.6}, "covered or partly visible"),
        ({"at_edge": True, "area": 0.05}, "covered or partly visible"),
        ({}, "correlated scene"),
        ({"positive": 0.0}, "unusual"),
    ):
        assert propose({**facts, **change}) == kind


def test_collages_put_images_where_they_say(model, data, tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    picture, corners = draw_collage([Image.new("RGB", (30, 50), c) for c in colours], 64)
    for colour, (x0, y0, x1, y1) in zip(colours, corners, strict=True):
        assert picture.getpixel((int(x0 + x1) // 2, int(y0 + y1) // 2)) == colour
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    for number, line in enumerate(lines):
        for phrase in line["phrases"]:
            phrase["label"] += str(number)
        for region in line["regions"]:
            region["label"] += str(number)
    (tmp_path / "distinct.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    tables = evaluate("collage", tmp_path / "distinct.jsonl", [("small", model)], [OURS], out=tmp_path / "out")
    assert tables["overall"].phrases.item() == 8
    assert -1 <= tables["overall"]["signed share"].item() <= 1


def test_approximation_references_and_sanity(model, data, tmp_path):
    quadratures = ("riemann", "gauss-legendre")
    tables = evaluate(
        "approximation", data, [("small", model)], [OURS], out=tmp_path, limit=2, nodes=(2, 16), quadratures=quadratures
    )
    table = tables["overall"].set_index(["references", "quadrature"])
    assert len(table) == 8
    assert bool((table[16] < table[2]).all())
    assert table.loc[("black, padding", "gauss-legendre"), 16] < table.loc[("black, padding", "riemann"), 16]
    with pytest.raises(ss.InputError, match="about paths; the method is 'banzhaf'"):
        evaluate("approximation", data, [("small", model)], [("b", BANZHAF[1])], out=tmp_path / "b", limit=1)
    pairs = evaluate("references", data, [("small", model)], [OURS], out=tmp_path, limit=2)["overall"]
    assert len(pairs) == math.comb(len(model.left.encoder.references), 2)
    assert bool((pairs.correlation <= 1).all())
    before = snapshot(model.left.encoder.module)
    both = evaluate("sanity", data, [("small", model)], [OURS], out=tmp_path)["overall"]
    assert list(both.index) == ["small · ours", "small · ours, shuffled weights"]
    found = records(tmp_path, "sanity")
    found = found[found.kind == "case"]
    a, b = (group.energy.to_numpy() for _, group in found.groupby("setting", sort=False))
    assert np.abs(a - b).max() > 0.02
    assert changed(before, snapshot(model.left.encoder.module)) == []
    twin = shuffle_weights(model, 0)
    own = dict(model.left.encoder.module.named_parameters())
    moved = [n for n, p in twin.left.encoder.module.named_parameters() if p.ndim > 1 and not torch.equal(p, own[n])]
    assert len(moved) > 5
    name = moved[0]
    twins = dict(twin.left.encoder.module.named_parameters())
    assert torch.equal(twins[name].flatten().sort().values, own[name].flatten().sort().values)


def test_depths_are_compared_side_by_side(model, data, tmp_path):
    tables = evaluate("compare", data, [("small", model)], [OURS], layers=["all"], out=tmp_path, limit=2)
    assert len(tables["overall"]) == model.left.encoder.depth
    assert "layer 0 / -1" in tables["overall"].index[0]
    with pytest.raises(ss.InputError, match="needs 2 settings"):
        evaluate("compare", data, [("small", model)], [OURS], out=tmp_path / "one")
    with pytest.raises(ss.InputError, match=r"layer 9' gave nothing for any of \d+ captions: layer 9 is not one of"):
        evaluate("compare", data, [("small", model)], [OURS], layers=[-1, 9], out=tmp_path / "none")


def test_every_experiment_is_listed():
    """Those of the paper, and each file of the folder has one: a new file is a new experiment."""
    of_the_paper = (
        "approximation collage compare discrimination failures faithfulness hard-negatives perturbation pointing "
    )
    assert {*of_the_paper.split(), "references", "sanity"} <= set(EXPERIMENTS)
    # Tests of the documentation define further ones.
    modules = {cls.__module__ for cls in EXPERIMENTS.values() if cls.__module__.startswith("secondsight.")}
    folder = Path(experiments.__file__).parent
    files = {
        file.stem for file in folder.glob("*.py") if re.search(r"^    name: ClassVar\[str\] = ", file.read_text(), re.M)
    }
    assert {module.rpartition(".")[2] for module in modules} == files


def test_histograms_have_zero_between_their_bars():
    for named in ({"a": [0.0, 0.0]}, {"a": [-0.3, 0.2], "b": [0.1]}, {"a": [0.5, 0.7]}, {"a": [-2.0, -1.0]}):
        (axes,) = histograms({k: np.array(v) for k, v in named.items()}, "x", "").axes
        edges = [bar.get_x() for bar in axes.patches] + [bar.get_x() + bar.get_width() for bar in axes.patches]
        assert min(abs(edge) for edge in edges) < 1e-9
        assert sum(bar.get_height() for bar in axes.patches) == sum(len(v) for v in named.values())
