"""The paper's figures: what they show is what it says it is."""

import re

import numpy as np
import pandas as pd
import pytest
import yaml
from markupsafe import escape
from PIL import Image
from typer.testing import CliRunner

import secondsight as ss
from models import small
from secondsight.cli import app
from secondsight.data import Scenes
from secondsight.evaluation import report, settings
from secondsight.evaluation.experiments.approximation import Approximation
from secondsight.evaluation.experiments.pointing import LEAST, class_gains
from secondsight.evaluation.statistics import standardised_difference
from secondsight.evaluation.studies.paper import gains_by_class, with_order
from secondsight.evaluation.studies.paper_figures import KINDS, write_figures
from secondsight.evaluation.studies.paper_plan import configuration
from secondsight.evaluation.studies.paper_records import Collected
from secondsight.evaluation.studies.scenes_figures import scenes_figures
from secondsight.visual import charts

IN_PAPER = {1, 2, 3, 5, 6, 7, 8, 9, *range(11, 22)}
"""The numbers of the paper's figures that show results."""

PAPER = ("paper", ss.IntegratedJacobian(quadrature="riemann", steps=50))


def test_the_approximations_error_is_that_of_the_host_models_similarities():
    model = small()
    (setting,) = settings([("small", model)], [PAPER])
    example = next(iter(Scenes(1)))
    records = pd.DataFrame(Approximation(nodes=(4,)).records(setting, example))
    errors = records[records.kind == "error"].set_index("references").value
    assert set(errors.index) == {"black, padding", "black, empty", "noise, padding", "noise, empty"}
    image = setting.image(example.image)
    a, b = model.left.embed([example.image])[0], model.right.embed([example.caption])[0]
    matrices = {}
    for pair in (("black", "padding"), ("noise", "empty")):
        method = ss.IntegratedJacobian(quadrature="riemann", steps=4, reference=pair)
        matrix = matrices[pair] = ss.explain(model, example.image, example.caption, method).matrix
        encoder = model.left.encoder
        reference = model.left.embed([encoder.reference(image, pair[0], 0)])[0]
        without_text = model.right.contributions([example.caption], method)[0].reference_embedding
        f = lambda x, y: float(x.double() @ y.double() / (a.norm() * b.norm()).double())  # noqa: E731
        exact = f(a, b) - f(reference, b) - f(a, without_text) + f(reference, without_text)
        assert errors[", ".join(pair)] == pytest.approx(abs(exact - float(matrix.double().sum())), abs=1e-10)
    difference = records[records.kind == "difference"].value.item()
    one, other = matrices.values()
    assert difference == pytest.approx(float((one - other).abs().mean()), rel=1e-9)


def test_lines_of_a_model_share_their_colour_and_its_states_their_dashes():
    values = np.linspace(0.1, 0.9, 5)
    series = {(name, state): values for name in ("A", "B") for state in ("before", "after")}
    (axes,) = charts.distributions(series, "PGE", dashes=charts.BEFORE_AND_AFTER).axes
    colours = [line.get_color() for line in axes.lines]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert [line.get_linestyle() for line in axes.lines] == ["--", "-", "--", "-"]
    grouped = {("A", method): values for method in ("ours", "second", "third")}
    (axes,) = charts.distributions(grouped, "PGE").axes
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--", ":"]


def test_a_band_stays_above_zero_on_a_logarithmic_axis():
    series = {"a": ([1, 2, 4], [1e-2, 1e-3, 1e-4], [2e-2, 2e-3, 2e-4])}
    (axes,) = charts.bands(series, "N", "error", "", log=True).axes
    assert axes.get_yscale() == "log"
    lows = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert lows.min() > 0


def test_shares_of_categories_add_up_to_one():
    counts = pd.DataFrame({"one": [1, 0], "other": [3, 0]}, index=["A", "B"])
    (axes,) = charts.stacked_shares(counts, "share").axes
    widths = [patch.get_width() for patch in axes.patches]
    assert widths == pytest.approx([0.25, 0, 0.75, 0])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A (4)", "B (0)"]


def test_bars_of_classes_name_the_largest_gains():
    table = pd.DataFrame(
        [
            {"setting": setting, "class": name, "cases": 3, "PGE": value, "sd": 0.1}
            for setting, values in (("before", {"x": 0.6, "y": 0.2}), ("after", {"x": 0.7, "y": 0.6}))
            for name, value in values.items()
        ]
    )
    figure = charts.class_bars(table, "PGE", "sd", gains={"x": 1.0, "y": 4.0})
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x (3)", "y (3)"]
    assert "y +4.00, x +1.00" in axes.get_legend().get_title().get_text()
    (axes,) = charts.class_bars(table, "PGE", "sd", gains={"x": -1.0}).axes
    assert axes.get_legend().get_title().get_text().endswith(": none")


def test_every_figure_of_the_paper_has_its_kind():
    numbers = [int(number) for kind in KINDS for number in kind.numbers.split(", ")]
    assert sorted(numbers) == sorted(IN_PAPER)
    assert all(kind.sentence.endswith(".") for kind in KINDS)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        # Drawing the experiments' own reports would take a third of the time.
        patch.setattr(report, "encode_figure", lambda *_: b"<svg></svg>")
        done = CliRunner().invoke(app, ["evaluate", "scenes-figures", "--out", str(out), "--option", "share=0.01"])
    assert done.exit_code == 0, done.output
    return out, done.output


def test_one_command_draws_every_kind_of_two_models_before_and_after(drawn):
    out, printed = drawn
    assert "figures.html" in printed
    page = (out / "figures.html").read_text()
    for kind in KINDS:
        assert f'id="figure-{kind.first}"' in page, kind.numbers
        assert escape(kind.sentence) in page
    assert "Not drawn" not in page
    linked = re.findall(r'href="(figures/[^"]+)"', page)
    assert len(linked) == len(set(linked)) >= 40
    for name in linked:
        if name.endswith(".png"):
            with Image.open(out / name) as picture:
                assert min(picture.size) > 100
        else:
            assert (out / name).read_text().lstrip().startswith("<?xml")
    energies = (out / "figures" / "05-scenes.svg").read_text()
    assert all(f"{model}, {state} (" in energies for model in "AB" for state in ("before", "after"))
    table = pd.read_csv(out / "paper.csv")
    assert set(table.model) == {"A", "B"}
    assert set(table["fine-tuning"]) == {"before", "after", "gain"}
    shares = table[table.measure.str.startswith("failures: ") & (table["fine-tuning"] != "gain")]
    assert shares.groupby(["model", "fine-tuning"]).ours.sum().to_numpy() == pytest.approx(1)
    assert table[(table.measure == "median PGE") & (table["fine-tuning"] == "gain")].epsilon.notna().all()


def test_what_the_figures_command_refuses(tmp_path):
    with pytest.raises(ss.InputError, match="share=0 must be above 0"):
        scenes_figures(tmp_path / "a", share=0)
    done = CliRunner().invoke(app, ["evaluate", "scenes-figures", "--out", str(tmp_path / "b"), "--model", "scenes"])
    assert done.exit_code == 2
    assert "leave out --model" in done.output


def test_a_page_says_what_it_cannot_show(tmp_path):
    write_figures(tmp_path, Collected(), "Nothing was run.")
    page = (tmp_path / "figures.html").read_text()
    assert "Not drawn" in page
    assert "20 (Error over the number of steps)" in page
    assert not list((tmp_path / "figures").iterdir())


def test_the_standardised_difference_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 30), rng.normal(0, 1, 40)
    expected = (a.mean() - b.mean()) / np.sqrt((a.std() ** 2 + b.std() ** 2) / 2)
    assert standardised_difference(a, b) == pytest.approx(expected)
    assert standardised_difference(b, a) == pytest.approx(-expected)
    assert np.isnan(standardised_difference([1.0, 1.0], [2.0, 2.0]))


def test_classes_are_in_the_order_of_their_gains():
    rng = np.random.default_rng(1)
    values = {("horse", "before"): 0.2, ("horse", "after"): 0.8, ("cup", "before"): 0.5, ("cup", "after"): 0.55}
    cases = pd.DataFrame(
        [
            {"data": "coco", "model": "M", "label": label, "state": state, "energy": mean + rng.normal(0, 0.05)}
            for (label, state), mean in values.items()
            for _ in range(LEAST)
        ]
    )
    few = pd.DataFrame([{"data": "coco", "model": "M", "label": "rare", "state": "before", "energy": 0.1}])
    table = class_gains(pd.concat([cases, few]), "state")
    assert list(table["class"]) == ["horse", "cup"]
    assert table["standardised difference"].iloc[0] > 5
    assert table.loc[0, "before"] == pytest.approx(cases[:LEAST].energy.mean())
    named = gains_by_class(cases, [["coco", "M", ["horse"]]])
    assert list(named["named by the paper"]) == ["yes", ""]
    gain = pd.DataFrame([{"data": "coco", "model": "M", "fine-tuning": "gain", "measure": "median PGE", "ours": 0.3}])
    raised = with_order(gain, cases[cases.label == "horse"], 0)
    assert raised.epsilon.item() < 0.01


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limits": {"perturbation": 0}}, "numbers of captions by experiment under 'limits'"),
        ({"baselines": ["nothing"]}, "unknown experiment 'nothing'"),
        ({"baselines": "pointing"}, "a list of experiments under 'baselines'"),
        ({"largest_gains": [["coco", "M"]]}, "a list of classes under 'largest_gains'"),
    ],
)
def test_mistakes_in_a_plan_are_told(tmp_path, change, words):
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump({"models": {"M": "scenes"}, **change}))
    with pytest.raises(ss.InputError, match=words):
        configuration(file)
