"""Tables hold the matrix and nothing else, and say where every feature lies."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import secondsight as ss
from secondsight import InputError
from secondsight.exports.tables import save_table, to_pandas
from sides import TEXT, image_layout, random_side, text_layout


def pair(left=None, right=None):
    left, right = left or image_layout(), right or text_layout()
    return random_side(left, 1, torch.float64) @ random_side(right, 2, torch.float64)


def test_every_entry_of_the_matrix_is_one_row():
    e = pair()
    table = to_pandas(e)
    assert len(table) == 7 * 10
    assert table["value"].sum() == pytest.approx(e.terms.interaction)
    again = table.pivot(index="left_feature", columns="right_feature", values="value").to_numpy()
    assert np.array_equal(again, e.matrix.numpy())
    assert table.attrs["similarity"] == e.similarity
    assert table.attrs["image_alone"] == e.terms.left


def test_rows_say_where_their_features_lie():
    e = pair()
    table = to_pandas(e)
    cell = table[table.left_feature == 6].iloc[0]
    assert (cell.row, cell.column) == (1, 2)
    assert [cell.x0, cell.y0, cell.x1, cell.y1] == [60, 30, 90, 60]
    frisbee = table[(table.word == "frisbee") & (table.left_feature == 6)]
    assert frisbee.token.tolist() == ["fris", "bee"]
    assert {TEXT[a:b] for a, b in zip(frisbee.word_start, frisbee.word_end, strict=True)} == {"frisbee"}
    assert [TEXT[a:b] for a, b in zip(frisbee.start, frisbee.end, strict=True)] == ["fris", "bee"]
    assert frisbee.value.sum() == pytest.approx(float(e["frisbee"][1, 2]))
    hidden = table[table.left_special.notna()]
    assert set(hidden.left_special) == {"class"}
    assert hidden.row.isna().all()
    assert set(table.right_special.dropna()) == {"start", "end"}
    visible = to_pandas(e, special=False)
    assert len(visible) == 6 * 8
    assert visible.left_special.isna().all()
    assert visible.value.sum() == pytest.approx(float(e.toward_left().sum() - e.toward_left()[0]))


def test_sides_of_one_kind_have_columns_of_their_own():
    texts = to_pandas(pair(text_layout(), text_layout()))
    assert {"left_word", "right_word", "left_start", "right_token"} <= set(texts.columns)
    assert "word" not in texts.columns
    images = to_pandas(pair(image_layout(), image_layout()))
    assert {"left_row", "right_x0"} <= set(images.columns)


def test_margins_name_their_parts():
    left = random_side(image_layout(), 1, torch.float64)
    first, second = (random_side(text_layout(), seed, torch.float64) for seed in (2, 3))
    e = left @ (first - second)
    table = to_pandas(e)
    assert table.value.sum() == pytest.approx(e.terms.interaction)
    dogs = table[table.word == "dog"].groupby("part").value.sum()
    assert dogs[0] == pytest.approx(float(e.matrix[:, 2].sum()))
    assert dogs[1] == pytest.approx(float(e.matrix[:, 12].sum()))


def test_standard_errors_of_methods_that_sample():
    e = pair()
    assert "standard_error" not in to_pandas(e).columns
    from dataclasses import replace

    sampled = replace(e, standard_errors=e.matrix.abs())
    table = to_pandas(sampled)
    assert np.array_equal(table["standard_error"], table["value"].abs())


def test_sound_and_unknown_features():
    layout = ss.SpectrogramLayout(5, {4: "class"}, (2, 2), (0, 1, 2, 3), 1.0)
    table = to_pandas(pair(layout, ss.Layout(3)))
    assert table[table.left_feature == 2].iloc[0].row == 1
    assert "x0" not in table.columns
    assert table.value.notna().all()


def test_an_explanation_saves_its_table(tmp_path):
    from PIL import Image

    from models import small

    e = ss.explain(small(), Image.new("RGB", (64, 48), "red"), "a red dog", "last-layer")
    for name, read in (("t.csv", pd.read_csv), ("t.parquet", pd.read_parquet)):
        e.save(tmp_path / name)
        table = read(tmp_path / name)
        assert list(table.columns) == list(e.to_pandas().columns)
        assert np.allclose(table["value"], e.to_pandas()["value"], rtol=1e-12, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.parquet"]
    with pytest.raises(InputError, match=r"must end in .csv or .parquet"):
        save_table(e, tmp_path / "t.xlsx")


@pytest.mark.parametrize(("missing", "name"), [("pandas", "t.csv"), ("pyarrow", "t.parquet")])
def test_missing_packages_are_a_sentence(tmp_path, monkeypatch, missing, name):
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "pyarrow":
        # pandas asks for its engines by their names.
        monkeypatch.setitem(sys.modules, "fastparquet", None)
    with pytest.raises(InputError, match=r"pip install 'secondsight\[eval\]'"):
        save_table(pair(), tmp_path / name)
    assert not list(tmp_path.iterdir())
