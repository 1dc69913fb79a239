"""Methods against each other: who is surely better at what, quality against cost, and the page of photographs."""

import json
import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from typer.testing import CliRunner

import secondsight as ss
from secondsight.cli import app
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.setting import settings
from secondsight.evaluation.studies.columns import COLUMNS, best_value
from secondsight.evaluation.studies.explanations import RIVALS, compare_explanations, rival_methods, rivals
from secondsight.evaluation.studies.explanations_table import differences, verdicts, wins
from secondsight.evaluation.studies.photographs import choose_cases
from secondsight.methods import METHODS, method_of_text
from secondsight.support.memory import peak_memory
from secondsight.visual.scatter import pareto_front, scatter

OTHERS = ("jacobian-times-input", "token-embeddings")
LABELS = ["grounded", "grounded, phrase alone", *OTHERS]
NONE = dict.fromkeys(("segmentation", "joint_perturbation", "sensitivity"), 0)
FEW = {
    **NONE,
    "faithfulness": 2,
    "perturbation": 0,
    "collage": 0,
    "hard_negatives": 0,
    "sanity": 0,
    "references": 0,
    "cost": 1,
}


@pytest.fixture(scope="module")
def compared(model, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("rivals")
    methods = [(text, method_of_text(text)) for text in OTHERS]
    return out, rivals(data, ("small", model), methods, out=out, **FEW)


# The study ------------------------------------------------------------------------------------------------------------


def test_the_default_method_comes_first_and_a_second_time_on_phrases_alone(compared):
    _, tables = compared
    table = tables["overall"].set_index("setting")
    assert list(table.index) == LABELS
    assert table.method["grounded, phrase alone"] == "chained-jacobian, phrase alone"
    # Whole captions have the same explanation, so that they are not tested against themselves.
    assert table.faithfulness.iloc[0] == table.faithfulness.iloc[1]
    rows = tables["differences"]
    assert not len(rows[(rows.setting == LABELS[1]) & (rows.measure == "faithfulness") & (rows.base == "first")])
    assert set(rows.base) == {"first", "best"}
    assert set(rows[rows.base == "first"].against) == {"grounded"}


def test_a_phrase_alone_has_the_map_of_the_phrase_as_a_text(model, data):
    methods = [("grounded", method_of_text("grounded"))]
    plain, alone = settings([("small", model)], methods, alone=["grounded"])
    assert (plain.phrases_alone, alone.phrases_alone) == (False, True)
    example = next(iter(ss.data.open_data(data)))
    span = example.phrases[0].span
    expected = ss.explain(model, example.image, example.caption[slice(*span)])
    assert np.allclose(span_map(*alone.explain_span(example, span))[0], span_map(expected, None)[0], atol=1e-6)


def test_files_that_a_second_run_writes_again(model, data, compared):
    out, tables = compared
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    assert set(before) == {
        "overall.csv", "differences.csv", "rivals.json", "rivals.md", "rivals.html", "quality-and-cost.svg",
        "quality-and-cost.png", "photographs.html", "photographs.png",
    }  # fmt: skip
    again = rivals(data, ("small", model), [(text, method_of_text(text)) for text in OTHERS], out=out, **FEW)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(again[name], table)
    assert {name: (out / name).read_bytes() for name in before} == before
    facts = json.loads(before["rivals.json"])
    assert [row["setting"] for row in facts["tables"]["overall"]] == LABELS
    # The best number of a column is bold, in Markdown and on the page.
    column = tables["overall"].set_index("setting").faithfulness
    best = f"{column.max():.3f}"
    assert f"**{best}**" in before["rivals.md"].decode()
    assert f"<strong>{best}</strong>" in before["rivals.html"].decode()


def test_the_page_shows_every_photograph_by_every_setting(compared):
    out, _ = compared
    page = (out / "photographs.html").read_text()
    # Eight cases of four images: each image once.
    assert page.count("data:image/jpeg;base64,") == 4 * (1 + len(LABELS))
    assert [name for name in LABELS if f"{name}<br>" in page.replace("\u200b", "")] == LABELS
    energies = [float(text) for text in re.findall(r"(\d\.\d\d)(?:</strong>)?</td>", page)]
    assert len(energies) == 4 * len(LABELS)
    records = pd.read_parquet(out / "pointing" / "records.parquet")
    known = {f"{energy:.2f}" for energy in records[records.kind == "case"].energy}
    assert {f"{energy:.2f}" for energy in energies} <= known
    assert "does not add up" in page


def test_cases_are_of_different_images_and_of_as_many_classes_as_there_are(model, data, tmp_path):
    from secondsight.data import open_data
    from secondsight.evaluation.experiments import Pointing
    from secondsight.evaluation.run import run

    finished = run(Pointing(), open_data(data), settings([("small", model)], [("t", ss.TokenEmbeddings())]), tmp_path)
    chosen = choose_cases(finished, 4, seed=1)
    assert chosen.key.nunique() == 4
    assert sorted(chosen.label.value_counts()) == [2, 2]
    assert list(choose_cases(finished, 4, seed=1).index) == list(chosen.index)
    assert len(choose_cases(finished, 2, seed=1)) == len(set(choose_cases(finished, 2, seed=1).label)) == 2


def test_methods_that_are_there_are_compared_by_default(monkeypatch):
    known = [text for text, _ in rival_methods()]
    assert known == [text for text in RIVALS if text in known]
    assert {"grounded", "last-layer", "collection", "banzhaf:budget=64", "token-embeddings", "legrad"} <= set(known)
    monkeypatch.delitem(METHODS, "occlusion")
    assert "occlusion" not in [text for text, _ in rival_methods()]


def test_nothing_to_compare_is_refused(model, data, tmp_path):
    with pytest.raises(ss.InputError, match="sets other methods against 'grounded'"):
        rivals(data, ("small", model), [("grounded", method_of_text("grounded"))], out=tmp_path)


def test_the_page_of_photographs_can_be_left_out(model, data, tmp_path):
    methods = [("token-embeddings", ss.TokenEmbeddings()), ("last-layer", method_of_text("last-layer"))]
    compare_explanations(data, ("small", model), methods, out=tmp_path, limit=1, photographs=0, **{**FEW, "cost": 0})
    assert not list(tmp_path.glob("photographs.*"))
    assert not list(tmp_path.glob("quality-and-cost.*"))
    assert (tmp_path / "methods.md").is_file()


def test_the_command(tmp_path):
    arguments = ["evaluate", "rivals", "--data", "scenes:noto/4", "--model", "scenes", "--limit", "2"]
    arguments += ["--method", "last-layer", "--out", str(tmp_path), "--option", "photographs=2"]
    for name, amount in {**FEW, "segmentation": 2}.items():
        arguments += ["--option", f"{name}={amount and 1}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "rivals.html" in done.output
    table = pd.read_csv(tmp_path / "overall.csv")
    assert list(table.setting) == ["grounded", "grounded, phrase alone", "last-layer"]
    # Objects of scenes have masks.
    assert table[["AP", "mIoU", "pixels"]].notna().all().all()


# Tests ----------------------------------------------------------------------------------------------------------------


def test_who_is_better_and_worse_is_said_with_the_right_direction(model, data, tmp_path):
    from secondsight.data import open_data
    from secondsight.evaluation.experiments import Perturbation
    from secondsight.evaluation.run import Run, run

    methods = [(text, method_of_text(text)) for text in OTHERS]
    finished = run(Perturbation(), open_data(data), settings([("small", model)], methods[:1]), tmp_path, limit=1)
    example = next(iter(finished.examples.values()))
    rows, examples = [], {}
    generator = np.random.default_rng(0)
    for number in range(20):
        key = f"{number}/x"
        examples[key] = type("Example", (), {"image_key": str(number)})
        for kind in ("CII", "CID"):
            area = generator.uniform(0.4, 0.5)
            rows += [{"setting": "a", "key": key, "kind": kind, "area": area}]
            rows += [{"setting": "b", "key": key, "kind": kind, "area": area + 0.2}]
    both = [type("Labelled", (), {"label": label}) for label in "ab"]
    pointing = Run(
        finished.experiment, pd.DataFrame({"setting": [], "key": [], "kind": []}), {}, both, finished.data, {}
    )
    runs = {
        "pointing": pointing,
        "perturbation": Run(finished.experiment, pd.DataFrame(rows), {}, both, finished.data, examples),
    }
    table = differences(runs, ["a", "best"], seed=0)
    against_a = table[table.base == "a"].set_index("measure")
    assert against_a.verdict.to_dict() == {"CII": "better", "CID": "worse"}
    assert np.allclose(against_a.difference, 0.2)
    assert against_a["ε better"].CII < 0.01 < 0.99 < against_a["ε better"].CID
    assert against_a["ε worse"].CID < 0.01
    best = table[table.base == "best"].set_index("measure")
    assert (best.against.CII, best.against.CID) == ("b", "a")
    assert wins(table, "a")[["setting", "measure"]].to_numpy().tolist() == [["b", "CII"]]
    assert re.fullmatch(r"against a: better at CII \(p \S+\); worse at CID \(p \S+\)", verdicts(table, "a")["b"])
    assert example.caption
    with pytest.raises(ss.InputError, match="unknown against 'c'; known: first, best, a, b"):
        differences(runs, ["c"], seed=0)


def test_the_best_value_of_each_direction():
    by_name = {column.name: column for column in COLUMNS}
    assert best_value(by_name["PGE"], [0.1, 0.7, float("nan")]) == 0.7
    assert best_value(by_name["CID"], [0.1, 0.7]) == 0.1
    assert best_value(by_name["sanity"], [-0.1, 0.5, -0.9]) == -0.1
    assert best_value(by_name["PGE"], [0.4, 0.4]) is None
    assert best_value(by_name["sparseness"], [0.4, 0.5]) is None
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


# The picture and the memory -------------------------------------------------------------------------------------------


def test_the_front_has_what_no_other_beats():
    points = {"a": (1.0, 0.2), "b": (2.0, 0.1), "c": (3.0, 0.9), "d": (3.0, 0.5), "e": (9.0, 0.9)}
    assert pareto_front(points) == ["a", "c"]


def test_every_point_of_the_picture_has_its_name_apart_from_others():
    generator = np.random.default_rng(0)
    points = {f"method number {i}": (10 ** generator.uniform(0, 3), generator.uniform(0, 1)) for i in range(25)}
    figure = scatter({"PGE": points, "mIoU": points}, "passes")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        names = [text for text in axes.texts if text.get_text() in points]
        assert len(names) == len(points)
        boxes = [text.get_window_extent(renderer) for text in names]
        overlapping = sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert overlapping <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_peak_memory_is_that_of_the_work():
    peak = peak_memory(lambda: torch.ones(64, 2**20).sum(), torch.device("cpu"))
    assert 240 * 2**20 < peak < 300 * 2**20
    small_peak = peak_memory(lambda: torch.ones(2**10).sum(), torch.device("cpu"))
    assert small_peak < 64 * 2**20
