"""Explanations beside each other: every measure runs, says what it cannot judge, and the tests of differences are right."""

import itertools
import json
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

import secondsight as ss
from secondsight.cli import app
from secondsight.evaluation import evaluate, measures
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.setting import settings
from secondsight.evaluation.statistics import bootstrap_interval, holm, sign_flip_p
from secondsight.evaluation.studies.columns import COLUMNS
from secondsight.evaluation.studies.explanations import compare_explanations, default_methods
from secondsight.methods import method_of_text
from secondsight.methods.base import METHODS
from secondsight.methods.options import parse_layer

OURS = "integrated-jacobian:layer=1/input,steps=8"
METHOD_TEXTS = (OURS, "integrated-jacobian:layer=-1,reference=noise", "token-embeddings")
FEW = {
    "joint_perturbation": 1,
    "sensitivity": 1,
    "faithfulness": 2,
    "perturbation": 2,
    "hard_negatives": 2,
    "sanity": 2,
    "references": 2,
    "cost": 1,
}


def compare(model, data, out, **options):
    methods = [(text, method_of_text(text)) for text in METHOD_TEXTS]
    return compare_explanations(data, ("small", model), methods, out=out, **{**FEW, **options})


@pytest.fixture(scope="module")
def compared(model, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    return out, compare(model, data, out)


# The table ------------------------------------------------------------------------------------------------------------


def test_every_setting_has_a_row_with_every_measure_that_can_judge_it(compared):
    _, tables = compared
    table = tables["overall"].set_index("setting")
    assert list(table.index) == list(METHOD_TEXTS)
    assert list(table.cases) == [8, 8, 8]
    assert list(table.layer) == ["1 / input", "2 / 2", "output / output"]
    assert list(table.reference) == ["black / padding", "noise / padding", "zero"]
    assert table.loc[OURS, "method"] == "integrated-jacobian (steps=8)"
    measured = ["error", "faithfulness", "CII", "CID", "CTI", "CTD", "negatives", "sanity", "passes"]
    assert table[measured].notna().all().all()
    # All images show the same two classes, so that no collage can be made; a method without a reference has no others.
    assert table.collage.isna().all()
    assert list(table[["references", "seeds"]].isna().all(axis=1)) == [False, False, True]
    notes = list(tables["notes"]["note"])
    assert [note.split(":")[0] for note in notes] == [
        "segmentation, every setting",
        "collage, every setting",
        "references, token-embeddings",
        "too few images to be sure of any difference",
    ]
    assert "PGA (4), PGE (4), faithfulness (2)" in notes[3]
    assert "a collage needs three other images" in notes[1]
    assert "'token-embeddings' has no reference" in notes[2]
    for column in (column.name for column in COLUMNS if column.quality and table[column.name].notna().any()):
        assert (table[f"{column} low"] <= table[column]).all()
        assert (table[f"{column} high"] >= table[column]).all()
    assert list(table.order) == [2, 2, 2]
    assert list(table["adds up"]) == ["yes", "yes", "no"]


def test_the_rows_are_what_the_experiments_say(model, data, compared, tmp_path):
    _, tables = compared
    table = tables["overall"].set_index("setting")
    methods = [(text, method_of_text(text)) for text in METHOD_TEXTS]
    results = evaluate("pointing", data, [("small", model)], methods, out=tmp_path)
    pointing, errors = results["overall"], results.records.groupby("setting").error.median()
    assert np.allclose(errors[list(METHOD_TEXTS)], table.error)
    for name, ours in (("PGA", "PGA"), ("median PGE", "PGE")):
        assert np.allclose(pointing[name][list(METHOD_TEXTS)], table[ours])
    faithfulness = evaluate("faithfulness", data, [("small", model)], methods, out=tmp_path, limit=2)["overall"]
    assert np.allclose(faithfulness.set_index("setting")["median"][list(METHOD_TEXTS)], table.faithfulness)
    perturbation = evaluate("perturbation", data, [("small", model)], methods, out=tmp_path, limit=2)["overall"]
    # The mean of two pairs is their median.
    columns = ["CII", "CID", "CTI", "CTD"]
    assert np.allclose(perturbation.set_index("setting")[columns], table[columns])


def test_differences_are_those_of_the_rows(compared):
    _, tables = compared
    table, differences = tables["overall"].set_index("setting"), tables["differences"]
    assert set(differences.base) == {"first"}
    assert set(differences.against) == {OURS}
    assert {"PGA", "PGE", "faithfulness", "AID", "CII", "CID", "CTI", "CTD"} == set(differences.measure)
    hits = differences[differences.measure == "PGA"].set_index("setting")
    assert list(hits.index) == list(METHOD_TEXTS[1:])
    for label in hits.index:
        assert hits.loc[label, "difference"] == pytest.approx(table.PGA[label] - table.PGA[OURS])
    assert (differences.low <= differences.difference).all()
    assert (differences.difference <= differences.high).all()
    assert differences[["p", "ε better", "ε worse"]].stack().between(0, 1).all()


def test_the_best_can_be_what_others_are_tested_against(model, data, compared):
    out, _ = compared
    differences = compare(model, data, out, against="best")["differences"]
    records = pd.read_parquet(out / "pointing" / "records.parquet")
    means = records[records.kind == "case"].groupby("setting").energy.mean()
    assert set(differences[differences.measure == "PGE"].against) == {means.idxmax()}
    # Of deletion, the lowest area is the best.
    records = pd.read_parquet(out / "perturbation" / "records.parquet")
    means = records[records.kind == "CID"].groupby("setting").area.mean()
    assert set(differences[differences.measure == "CID"].against) == {means.idxmin()}


def test_files_and_a_second_run_that_reads_the_first(model, data, compared):
    out, tables = compared
    again = compare(model, data, out)
    for name, table in tables.items():
        # Times too: they are read, not measured again.
        pd.testing.assert_frame_equal(again[name], table)
    assert pd.read_csv(out / "overall.csv").PGA.tolist() == tables["overall"].PGA.tolist()
    assert json.loads((out / "methods.json").read_text())["tables"]["overall"][0]["setting"] == OURS
    written = (out / "methods.md").read_text()
    assert "| integrated-jacobian (steps=8) | 1 / input | black / padding | 2 | yes | 8 | " in written
    assert f"## Differences from {OURS}" in written
    page = (out / "methods.html").read_text()
    for name in ("pointing", "faithfulness", "perturbation", "hard-negatives", "sanity", "references", "cost"):
        assert (out / name / "report.html").is_file()
        assert f"{name}/report.html" in page


def test_a_setting_that_cannot_be_judged_is_left_out_with_the_reason(model, data, tmp_path):
    methods = [(text, method_of_text(text)) for text in ("integrated-jacobian:layer=9", "token-embeddings")]
    nothing = dict.fromkeys((*FEW, "collage", "segmentation"), 0)
    tables = compare_explanations(data, ("small", model), methods, out=tmp_path, limit=1, **nothing)
    assert list(tables["overall"].setting) == ["token-embeddings"]
    assert tables["overall"].faithfulness.isna().all()
    assert len(tables["differences"]) == 0
    assert "layer 9 is not one of" in tables["notes"]["note"].item()
    with pytest.raises(ss.InputError, match="layer 9 is not one of"):
        compare_explanations(data, ("small", model), methods[:1], out=tmp_path / "none", limit=1, **nothing)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"against": "last"}, "unknown against 'last'"),
        ({"sanity": -1}, "sanity=-1 must be a number of captions"),
        ({"speed": 3}, "unknown option 'speed'; known: against, photographs, segmentation, faithfulness"),
        ({"limit": 0}, "limit=0"),
        ({"photographs": -1}, "photographs=-1 must be a number of cases"),
        ({"rule": "cell"}, "unknown rule"),
    ],
)
def test_wrong_requests(model, data, tmp_path, options, words):
    with pytest.raises(ss.InputError, match=words):
        compare(model, data, tmp_path, **options)


def test_the_default_list_has_every_depth_and_only_known_methods(model, monkeypatch):
    depth = model.left.encoder.depth
    texts = [text for text, _ in default_methods(model)]
    late = f"integrated-jacobian:layer={depth * 2 // 3}/input,steps=8"
    assert {"integrated-jacobian:layer=-1", late, "banzhaf"} <= set(texts)
    assert len(texts) == len(set(texts))

    class Chained(ss.IntegratedJacobian):
        """Stands for a method that has layers."""

    monkeypatch.setitem(METHODS, "chained-jacobian", Chained)
    methods = default_methods(model)
    chained = [text for text, _ in methods if text.startswith("chained-jacobian")]
    assert f"chained-jacobian:layer={depth // 2}/-1" in chained
    assert f"chained-jacobian:layer={depth // 2}/input" in chained
    assert {"chained-jacobian:layer=-1", "chained-jacobian:layer=0"} <= set(chained)
    for text, method in methods:
        assert repr(method_of_text(text)) == repr(method), text


# The command ----------------------------------------------------------------------------------------------------------


def test_a_layer_and_a_reference_for_each_side():
    method = method_of_text("integrated-jacobian:layer=4/input,reference=noise/None,tol=0.01")
    assert (method.layer, method.reference, method.tol) == ((4, "input"), ("noise", None), 0.01)
    assert method_of_text("integrated-jacobian:layer=-2").layer == -2
    assert parse_layer("4/input") == parse_layer("4,input") == (4, "input")
    with pytest.raises(ss.InputError, match="layer '1/2/3' is not"):
        parse_layer("1/2/3")


def test_the_command(tmp_path):
    arguments = ["evaluate", "methods", "--data", "scenes:noto/8", "--model", "scenes", "--limit", "3"]
    arguments += ["--method", "token-embeddings", "--method", "integrated-jacobian:layer=-1/0,steps=4"]
    nothing = ("segmentation=0", "joint_perturbation=0", "sensitivity=0")
    for option in (*nothing, "faithfulness=0", "perturbation=0", "sanity=0", "references=0", "against=best"):
        arguments += ["--option", option]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "methods.md" in done.output
    table = pd.read_csv(tmp_path / "overall.csv")
    assert list(table.layer) == ["output / output", "5 / 0"]
    assert table[["collage", "negatives", "passes"]].notna().all().all()
    quiet = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path), "--quiet"])
    assert (quiet.exit_code, quiet.output) == (0, "")
    for wrong in (["--model", "builtin"], ["--data", "scenes:twemoji"]):
        refused = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "x"), *wrong])
        assert refused.exit_code == 2


# What the measures need -----------------------------------------------------------------------------------------------


def test_shuffled_weights_have_their_maps_ranked_against_the_trained_ones(model, data, tmp_path):
    results = evaluate("sanity", data, [("small", model)], [("ours", ss.IntegratedJacobian(steps=8))], out=tmp_path)
    records = results.records
    trained, shuffled = results._run.settings
    row = records[records.setting == shuffled.label].iloc[0]
    example = results._run.examples[row["key"]]
    span = tuple(row["span"])
    maps = [span_map(setting.explain(example)[0], span)[0] for setting in (trained, shuffled)]
    expected = stats.spearmanr(maps[0].ravel(), maps[1].ravel()).statistic
    assert row.rank_correlation == pytest.approx(expected)
    assert records[records.setting == trained.label].rank_correlation.isna().all()
    column = results["overall"]["rank correlation with trained"]
    assert column[shuffled.label] == pytest.approx(records.rank_correlation.median())
    assert np.isnan(measures.rank_correlation([1, 1], [1, 2]))
    assert measures.rank_correlation([1, 2, 9], [0, 5, 6]) == pytest.approx(1)


def test_references_of_any_method_and_several_seeds(model, data, tmp_path):
    methods = [
        ("banzhaf", ss.Banzhaf(budget=24)),
        ("ours", ss.IntegratedJacobian(steps=8, reference=("blur", "empty"))),
    ]
    records = evaluate("references", data, [("small", model)], methods, out=tmp_path, limit=1, seeds=3).records
    references = model.left.encoder.references
    assert len(records) == 2 * 2 * (len(references) * (len(references) - 1) // 2 + 3)
    seeds = records[records.kind == "seeds"]
    assert set(seeds["one"]) == set(seeds["other"]) == {"noise"}
    assert (seeds.correlation < 0.999).all()
    # The text side keeps its own reference.
    row = records[(records.setting == "ours") & (records["one"] == "black") & (records["other"] == "mean")].iloc[0]
    (setting,) = settings([("small", model)], methods[1:])
    example = next(iter(evaluate("pointing", data, [("small", model)], out=tmp_path, limit=1)._run.examples.values()))
    maps = []
    for reference in ("black", "mean"):
        e = ss.explain(
            model, example.image, example.caption, ss.IntegratedJacobian(steps=8, reference=(reference, "empty"))
        )
        maps.append(e.toward_left(example.phrases[0].span)[e.left_layout.visible])
    assert row.correlation == pytest.approx(measures.correlation(*maps), abs=1e-6)
    assert setting.label == "small · ours"


def test_costs_are_ratios_of_times_of_the_same_pair(model, data, tmp_path):
    records = evaluate("cost", data, [("small", model)], out=tmp_path, limit=2).records
    assert (records.seconds > 0).all()
    assert np.allclose(records.passes, records.seconds / records.forward)
    assert (records.computations > 0).all()
    if sys.platform == "linux":
        assert (records.mebibytes >= 0).all()
    with pytest.raises(ss.InputError, match="repeats=0"):
        evaluate("cost", data, [("small", model)], out=tmp_path / "x", repeats=0)


# Statistics -----------------------------------------------------------------------------------------------------------


def test_sign_flips_of_groups_against_all_patterns():
    x, groups = np.array([0.3, -0.1, 0.4, 0.2, 0.5, -0.2]), np.array(list("aabbcd"))
    sums = np.array([0.2, 0.6, 0.5, -0.2])
    patterns = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=4)]
    expected = np.mean([value >= abs(sums.sum()) - 1e-12 for value in patterns])
    assert sign_flip_p(x, groups) == pytest.approx(expected)
    # Drawn patterns come close to all of them.
    assert sign_flip_p(x, groups, draws=15) == pytest.approx(expected, abs=0.35)
    generator = np.random.default_rng(0)
    many = generator.normal(0.15, 1, 200)
    reference = stats.ttest_1samp(many, 0).pvalue
    assert sign_flip_p(many, np.arange(200)) == pytest.approx(reference, abs=0.02)
    assert sign_flip_p([0.0, 0.0], ["a", "b"]) == 1.0
    assert sign_flip_p(np.ones(200), np.arange(200)) == pytest.approx(1e-4)


def test_sign_flips_of_hits_are_mcnemars_test():
    """With one case an image, flips of differing hits are the binomial test of McNemar."""
    up, down = 9, 2
    differences = np.r_[np.ones(up), -np.ones(down), np.zeros(30)]
    exact = stats.binomtest(down, up + down).pvalue
    assert sign_flip_p(differences, np.arange(len(differences))) == pytest.approx(exact)


def test_intervals_of_groups_are_wider_than_those_of_cases():
    generator = np.random.default_rng(0)
    effects = generator.normal(0, 1, 40)
    values, groups = np.repeat(effects, 5), np.repeat(np.arange(40), 5)
    low, high = bootstrap_interval(values, groups)
    half = stats.norm.ppf(0.975) * effects.std() / np.sqrt(40)
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.05), pytest.approx(values.mean() + half, abs=0.05))
    narrow = bootstrap_interval(values, np.arange(200))
    assert narrow[1] - narrow[0] < 0.6 * (high - low)
    assert bootstrap_interval([2.0, 2.0], ["a", "b"], np.median) == (2.0, 2.0)


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
