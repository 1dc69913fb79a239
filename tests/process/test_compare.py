"""`secondsight compare` with models of texts, and with methods that some model refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from families import FAMILIES
from families.pages import hf_colpali
from secondsight.cli import app
from secondsight.methods import METHODS

PHOTO = str(Path(__file__).parents[2] / "examples" / "cat.jpg")

pytestmark = pytest.mark.filterwarnings("ignore:the model does not know")


def compared(monkeypatch, model, *arguments):
    monkeypatch.setattr("secondsight.encoders.registry.load", lambda name: model)
    return CliRunner().invoke(app, ["compare", *map(str, arguments), "--model", "st:tiny"])


def test_two_texts_are_refused_before_anything_is_computed(monkeypatch, tmp_path):
    model = FAMILIES["st-minilm-mean"](torch.float32).model
    result = compared(monkeypatch, model, "a cup of coffee", "two dogs", "--out", tmp_path / "grid.png")
    assert result.exit_code == 2
    assert "compare draws maps over a picture" in result.output
    assert "interaction" not in result.output


def test_a_method_that_a_model_refuses_is_left_out_unless_it_was_asked_for(monkeypatch, tmp_path):
    model = hf_colpali(torch.float32).model
    methods = {name: kind for name, kind in METHODS.items() if name in ("occlusion", "mask-clip")}
    monkeypatch.setattr("secondsight.methods.METHODS", methods)
    out = tmp_path / "grid.png"
    result = compared(monkeypatch, model, PHOTO, "a cup of coffee", "--out", out)
    assert result.exit_code == 0, result.output
    assert "without mask-clip: a late-interaction model compares token embeddings itself" in result.output
    assert out.is_file()
    asked = compared(monkeypatch, model, PHOTO, "a cup of coffee", "--method", "mask-clip", "--out", out)
    assert asked.exit_code == 2
