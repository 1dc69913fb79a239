"""Fillings, stability under small changes of the input, and cascading randomisation, against naive formulas."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import secondsight as ss
from captions import write_data
from models import small
from secondsight.data import Jsonl
from secondsight.evaluation import evaluate, measures, settings
from secondsight.evaluation.experiments.masking import input_games
from secondsight.evaluation.experiments.sensitivity import Sensitivity, noisy_image
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.randomisation import cascade, parts_from_output, shuffle_weights
from secondsight.evaluation.run import run
from secondsight.testing import changed, snapshot


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), 2)


OURS = ("ours", ss.IntegratedJacobian(steps=8))


# Fillings ------------------------------------------------------------------------------------------------------------


def test_removed_patches_take_the_filling_and_the_explanation_stays(model, data, tmp_path):
    example, encoder = Jsonl(data)[0], model.left.encoder
    tables = evaluate("perturbation", data, [("small", model)], [OURS], out=tmp_path, limit=1, fill="black,local-mean")
    labels = [f"small · ours, {filling} filling" for filling in ("black", "local-mean")]
    assert list(tables["overall"].setting) == labels
    records = pd.read_parquet(tmp_path / "perturbation" / "records.parquet")
    prepared, text = encoder.prepare(example.image), model.right.embed([example.caption])[0]
    for label, filling in zip(labels, ("black", "local-mean"), strict=True):
        empty = encoder.reference(prepared, filling, 0)
        embedding = encoder.module(empty)[0].detach()
        expected = float(torch.nn.functional.cosine_similarity(embedding, text, dim=0))
        curve = records[(records.setting == label) & (records.kind == "CID")].curve.item()
        assert json.loads(curve)[-1] == pytest.approx(expected, abs=1e-9)
    # One stored explanation serves both fillings.
    assert len(list((tmp_path / "pairs").rglob("*.npz"))) == 1


def test_the_usual_filling_is_the_mean(model, data, tmp_path):
    (setting,) = settings([("small", model)], [OURS])
    example = Jsonl(data)[0]
    left, _ = input_games(setting, example, 0)
    prepared = model.left.encoder.prepare(example.image)
    mean = prepared.tensor.mean((-2, -1), keepdim=True).expand_as(prepared.tensor)
    embedding = model.left.encoder.module(mean)[0]
    assert torch.allclose(left.end(False), embedding / embedding.norm(), atol=1e-12)
    usual = evaluate("faithfulness", data, [("small", model)], [OURS], out=tmp_path / "usual", limit=1)["overall"]
    named = evaluate("faithfulness", data, [("small", model)], [OURS], out=tmp_path / "mean", fill="mean,blur", limit=1)
    assert list(named["overall"].setting) == ["small · ours, mean filling", "small · ours, blur filling"]
    assert named["overall"]["median"][0] == usual["median"][0]
    assert named["overall"]["median"][1] != usual["median"][0]


def test_an_unknown_filling_is_refused(model, data, tmp_path):
    with pytest.raises(ss.InputError, match="unknown fill 'paint'; known: black, mean"):
        evaluate("perturbation", data, [("small", model)], [OURS], out=tmp_path, fill="black,paint")


# Measures ------------------------------------------------------------------------------------------------------------


def test_sparseness_is_the_mean_difference_of_all_pairs():
    """The Gini index by its other definition: half the mean absolute difference of two values, over their mean."""
    values = np.random.default_rng(0).normal(size=(4, 5))
    a = np.abs(values).ravel()
    pairs = sum(abs(x - y) for x in a for y in a)
    assert measures.sparseness(values) == pytest.approx(pairs / (2 * len(a) ** 2 * a.mean()), abs=1e-12)
    assert measures.sparseness([[1.0, -1.0], [1.0, 1.0]]) == pytest.approx(0)
    assert measures.sparseness([[0.0, 0.0], [-3.0, 0.0]]) == pytest.approx(3 / 4)
    assert measures.sparseness([[0.0, 0.0]]) == 0


def test_complexity_is_the_entropy_of_the_shares():
    assert measures.complexity([[2.0, -2.0], [2.0, 2.0]]) == pytest.approx(math.log(4))
    assert measures.complexity([0.0, -3.0, 0.0]) == 0
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert measures.complexity([1.0, -3.0]) == pytest.approx(expected)
    assert math.isnan(measures.complexity([0.0, 0.0]))


def test_measures_of_stability_refuse_what_is_no_map():
    assert math.isnan(measures.max_sensitivity([0.0, 0.0], [[1.0, 0.0]]))
    for changed_maps in ([], [[1.0]]):
        with pytest.raises(ss.InputError, match="of the map's own size"):
            measures.max_sensitivity([1.0, 2.0], changed_maps)
    for measure in (measures.sparseness, measures.complexity):
        with pytest.raises(ss.InputError, match="only finite ones"):
            measure([1.0, float("nan")])


# Sensitivity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [False, True])
def test_max_sensitivity_is_captums_of_the_same_noise(model, data, tmp_path, alone):
    captum = pytest.importorskip("captum.metrics", reason="captum is the oracle here")
    example = Jsonl(data)[0]
    (setting,) = settings([("small", model)], [OURS])
    setting.phrases_alone = alone
    before = snapshot(model.left.encoder.module)
    frame = run(Sensitivity(radius=0.05, draws=3, seed=4), Jsonl(data), [setting], tmp_path, limit=1).frame
    assert changed(before, snapshot(model.left.encoder.module)) == []
    assert list(frame.words) == ["dog", "cat"]
    image = setting.image(example.image)
    for phrase, (_, row) in zip(example.phrases, frame.iterrows(), strict=True):
        caption = example.words(phrase) if alone else example.caption
        selection = None if alone else phrase.span

        def map_of(inputs, caption=caption, selection=selection):
            batch = inputs[0] if isinstance(inputs, tuple) else inputs
            pairs = [ss.explain(model, pixels[None], caption, OURS[1]) for pixels in batch]
            return (torch.stack([e.toward_left(selection)[e.left_layout.visible] for e in pairs]),)

        def noisy(inputs, radius):
            return torch.cat([noisy_image(image, radius, 4 + draw).tensor for draw in range(len(inputs))])

        expected = captum.sensitivity_max(map_of, image.tensor, noisy, 0.05, n_perturb_samples=3)
        assert row.max_sensitivity == pytest.approx(float(expected), rel=1e-5)
        whole = model.similarities(image, [model.right.encoder.prepare(caption)])
        shifted = [
            model.similarities(noisy_image(image, 0.05, seed), [model.right.encoder.prepare(caption)])
            for seed in (4, 5, 6)
        ]
        change = max(float((similarity - whole).abs() / whole.abs()) for similarity in shifted)
        assert row.similarity_change == pytest.approx(change, rel=1e-4)
        embedding, *others = (model.left.encoder.module(noisy_image(image, r, s).tensor)[0].detach()
                              for r, s in ((0, 0), (0.05, 4), (0.05, 5), (0.05, 6)))  # fmt: skip
        change = max(float((other - embedding).norm() / embedding.norm()) for other in others)
        assert row.embedding_change == pytest.approx(change, rel=1e-9)


def test_sensitivity_scores_the_maps_and_grows_with_the_radius(model, data, tmp_path):
    tables = {
        radius: evaluate("sensitivity", data, [("small", model)], [OURS], out=tmp_path / str(radius), radius=radius,
                         draws=2, limit=1)
        for radius in (1e-4, 0.1)
    }  # fmt: skip
    small_, large = (tables[radius]["overall"].iloc[0] for radius in (1e-4, 0.1))
    assert small_["max-sensitivity"] < 0.02 < large["max-sensitivity"]
    assert small_["sparseness"] == large["sparseness"]
    (setting,) = settings([("small", model)], [OURS])
    example = Jsonl(data)[0]
    values = [measures.sparseness(span_map(*setting.explain_span(example, p.span))[0]) for p in example.phrases]
    assert large["sparseness"] == pytest.approx(np.median(values), abs=1e-6)
    for options, words in (({"radius": 0}, "radius=0 must be a positive number"), ({"draws": 0}, "draws=0")):
        with pytest.raises(ss.InputError, match=words):
            evaluate("sensitivity", data, [("small", model)], [OURS], out=tmp_path / "no", **options)


def test_noise_is_its_seed_and_stays_in_its_radius(model, data):
    image = model.left.encoder.prepare(Jsonl(data)[0].image)
    one, same, other = (noisy_image(image, 0.3, seed).tensor - image.tensor for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert 0.29 < float(one.abs().max()) <= 0.3 + 1e-12


# Cascading randomisation ---------------------------------------------------------------------------------------------


def test_parts_go_from_the_output_to_the_input(model):
    towers = []
    for encoder in (model.left.encoder, model.right.encoder):
        names = {id(p): name for name, p in encoder.module.named_parameters()}
        towers.append([{names[id(p)] for p in part} for part in parts_from_output(encoder)])
    # The text's encoder does not name its blocks: they are recognised as a list of its depth.
    for encoder, parts in zip((model.left.encoder, model.right.encoder), towers, strict=True):
        assert len(parts) == encoder.depth + 2
        assert all(name.startswith(f"transformer.resblocks.{encoder.depth - 1}.") for name in parts[1])
        assert all(name.startswith("transformer.resblocks.0.") for name in parts[-2])
    assert (towers[0][0], towers[0][-1]) == ({"proj"}, {"conv1.weight", "positional_embedding"})
    assert (towers[1][0], towers[1][-1]) == ({"text_projection"}, {"token_embedding.weight", "positional_embedding"})


def test_stages_are_nested_and_the_last_is_everything(model):
    modules = [side.encoder.module for side in (model.left, model.right)]
    before = [snapshot(module) for module in modules]
    stages = [dict(m.left.encoder.module.named_parameters()) for m in cascade(model, 0, 3)]
    whole = dict(shuffle_weights(model, 0).left.encoder.module.named_parameters())
    assert [changed(b, snapshot(module)) for b, module in zip(before, modules, strict=True)] == [[], []]
    trained = dict(modules[0].named_parameters())
    moved = [{name for name, p in stage.items() if not torch.equal(p, trained[name])} for stage in stages]
    assert moved[0] < moved[1] < moved[2]
    assert "proj" in moved[0]
    assert "conv1.weight" in moved[2] - moved[1]
    assert moved[2] == {name for name, p in whole.items() if not torch.equal(p, trained[name])}
    for stage, names in zip(stages, moved, strict=True):
        assert all(torch.equal(stage[name], whole[name]) for name in names)


def test_the_cascade_is_a_line_from_one_downwards(model, data, tmp_path):
    results = evaluate("sanity", data, [("small", model)], [OURS], out=tmp_path, cascade=2)
    table = results["overall"]
    assert list(table["share shuffled"]) == [0.0, 0.5, 1.0]
    assert list(table.index)[1:] == [f"small · ours, stage {stage} of 2" for stage in (1, 2)]
    assert table["rank correlation with trained"][1:].abs().max() < 0.99
    assert set(results.figures) >= {"cascade", "energy"}
    line = results.figures["cascade"].axes[0].get_lines()[0]
    assert list(line.get_xdata()) == [0.0, 0.5, 1.0]
    assert list(line.get_ydata()) == pytest.approx([1.0, *table["rank correlation with trained"][1:]])
    whole = evaluate("sanity", data, [("small", model)], [OURS], out=tmp_path / "whole")["overall"]
    assert "share shuffled" not in whole
    assert whole["rank correlation with trained"].iloc[1] == table["rank correlation with trained"].iloc[2]
    with pytest.raises(ss.InputError, match="cascade=True must be a whole number of at least 0"):
        evaluate("sanity", data, [("small", model)], [OURS], out=tmp_path / "no", cascade=True)


def test_settings_with_long_names_that_begin_alike_keep_their_own_records(model, data, tmp_path):
    (setting,) = settings([("a model whose name is as long as a path to its weights on a disk", model)], [OURS])
    alone = replace(setting, label=f"{setting.label}, phrase alone", phrases_alone=True)
    frame = run(Sensitivity(draws=1), Jsonl(data), [setting, alone], tmp_path, limit=1).frame
    first, second = (group.similarity.to_numpy() for _, group in frame.groupby("setting", sort=False))
    assert len(set(first)) == 1  # both phrases of one caption
    assert len(set(second)) == 2
