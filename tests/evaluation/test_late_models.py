"""Experiments on models that compare texts with texts, and on late interaction: run, or refused in a sentence."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

import secondsight as ss
from families import FAMILIES
from families.late_interaction import LATE
from families.pages import hf_colpali
from secondsight.data.kinds import open_data
from secondsight.evaluation import EXPERIMENTS, evaluate
from secondsight.evaluation.experiments.sanity import shuffle_weights
from secondsight.evaluation.setting import settings

BY_EMBEDDINGS = {"approximation", "edits", "faithfulness", "joint-perturbation", "perturbation"}

pytestmark = pytest.mark.filterwarnings("ignore:the model does not know")

data = cache(lambda: open_data("scenes:noto/12"))


@cache
def pages() -> ss.DualEncoder:
    return hf_colpali(torch.float32).model


def test_experiments_that_need_embeddings_are_known():
    assert {name for name, kind in EXPERIMENTS.items() if kind.by_embeddings} == BY_EMBEDDINGS


@pytest.mark.parametrize("name", sorted(BY_EMBEDDINGS))
def test_late_interaction_is_refused_where_embeddings_are_multiplied(name, tmp_path):
    with pytest.raises(ss.InputError, match=r"is late interaction, .* look at it by collage"):
        evaluate(name, data(), [("pages", pages())], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["compositionality", "cost", "hard-negatives", "pointing", "references", "sensitivity"]
)
def test_late_interaction_is_explained_pair_by_pair(name, tmp_path):
    results = evaluate(name, data(), [("pages", pages())], out=tmp_path, limit=1)
    assert len(results["overall"])


def test_pointing_of_late_interaction_uses_the_pairs_own_matches(tmp_path):
    example = next(iter(data()))
    (setting,) = settings([("pages", pages())])
    setting.cache = tmp_path
    e = setting.explain(example)[0]
    expected = ss.explain(pages(), example.image, example.caption)
    assert torch.allclose(e.matrix, expected.matrix, atol=1e-6)
    assert e.about["assignment"] == expected.about["assignment"]


def test_a_shuffled_copy_of_late_interaction_is_not_compared_with_the_trained_host():
    model = ss.wrap(LATE["st-late-plain"](torch.float32))
    query, document = "a red cup of coffee", "two dogs play with a cup"
    shuffled = shuffle_weights(model, 0)
    changed = ss.explain(shuffled, query, document, ss.ChainedJacobian(layer="output"))
    trained = ss.explain(model, query, document, ss.ChainedJacobian(layer="output"))
    assert abs(changed.similarity - trained.similarity) > 1e-3


@pytest.mark.parametrize("name", ["st-minilm-mean", "st-late-plain"])
def test_models_of_two_texts_are_refused(name, tmp_path: Path):
    model = ss.wrap(LATE[name](torch.float32)) if name in LATE else FAMILIES[name](torch.float32).model
    for experiment in ("pointing", "cost", "faithfulness"):
        with pytest.raises(ss.InputError, match="'texts' compares text with text: explain its pairs with"):
            evaluate(experiment, data(), [("texts", model)], out=tmp_path / "out")


def test_a_model_with_its_texts_on_the_left_is_turned():
    model = pages().pair("text", "image")
    assert (model.left.kind, model.right.kind) == ("text", "image")
    (setting,) = settings([("pages", model)])
    assert (setting.model.left.kind, setting.model.right.kind) == ("image", "text")
