"""Fillings, stability under small changes of the input, and cascading randomisation, against naive formulas."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

import secondsight as ss
from captions import write_data
from models import small
from secondsight.data import Jsonl
from secondsight.evaluation import evaluate, settings
from secondsight.evaluation.experiments.masking import input_games


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
