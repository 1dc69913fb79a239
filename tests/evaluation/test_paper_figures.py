"""The paper's figures: what they show is what it says it is."""

import numpy as np
import pandas as pd
import pytest

import secondsight as ss
from models import small
from secondsight.data import Scenes
from secondsight.evaluation import settings
from secondsight.evaluation.experiments.approximation import Approximation
from secondsight.visual import charts

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
