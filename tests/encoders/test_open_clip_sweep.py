"""The sweep over open_clip's configurations: what it says of a few of them, and of models that are wrong or refused."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from documents import ROOT


@pytest.fixture(scope="module")
def sweep():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        import open_clip_sweep

        yield open_clip_sweep


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::secondsight.AssumptionWarning")
@pytest.mark.parametrize(
    ("name", "towers", "closed_form"),
    [
        ("MobileCLIP-S1", ("timm FastViT", "transformer"), ("text",)),
        ("nllb-clip-base-siglip", ("timm ViT", "nllb-200-distilled-600M"), ("image",)),
        ("coca_ViT-B-32", ("ViT", "transformer, CoCa"), ("image",)),
    ],
)
def test_small_configurations_are_explained(sweep, name, towers, closed_form):
    result = sweep.check(name)
    assert result.verdict == "explained", str(result)
    assert (result.image, result.text) == towers
    assert result.closed_form == closed_form


def test_another_similarity_than_the_hosts_is_wrong(sweep, monkeypatch):
    build = sweep.small_open_clip

    def with_other_embedding(name):
        model, *parts = build(name)
        model.encode_image = lambda pixels, normalize: F.normalize(torch.ones(1, 16), dim=-1)
        return model, *parts

    monkeypatch.setattr(sweep, "small_open_clip", with_other_embedding)
    result = sweep.check("ViT-B-32")
    assert result.verdict == "wrong"
    assert result.similarity_gap > 1e-2


def test_a_refusal_is_a_sentence_in_the_line_and_in_the_record(sweep, monkeypatch):
    build = sweep.small_open_clip

    def with_unknown_tower(name):
        model, *parts = build(name)
        model.visual = nn.Sequential(model.visual)
        return model, *parts

    monkeypatch.setattr(sweep, "small_open_clip", with_unknown_tower)
    result = sweep.check("ViT-B-32")
    assert result.verdict == "refused"
    assert "refused: the image tower Sequential is not supported by name" in str(result)
    assert sweep.summary([result]).startswith("1 configurations: 1 refused")
    entry = json.loads(json.dumps(sweep.record([result])))["results"][0]
    assert entry["refusal"] == result.refusal
    assert entry["verdict"] == "refused"


def test_every_configuration_can_be_named(sweep):
    for name in sweep.open_clip.list_models():
        assert all(sweep.towers(name))
