"""Fine-tuning: the loss by its definition, the schedule, runs that go on, checkpoints that load and are what was trained."""

import json
import math
import shutil
from itertools import pairwise

import open_clip
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from open_clip.factory import add_model_config
from safetensors.torch import load_file, save_file

import secondsight as ss
from captions import write_data
from models import clip
from secondsight.data import Jsonl
from secondsight.encoders.families.open_clip.models import open_clip_parts
from secondsight.evaluation.studies.paper import MEASURES, configuration, paper
from secondsight.inputs.images import open_image
from secondsight.training import Recipe, finetune

CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 3},
}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A registered architecture whose name does not say quick-GELU, and weights that want it."""
    folder = tmp_path_factory.mktemp("configs")
    plain = {key: value for key, value in CONFIG.items() if key != "quick_gelu"}
    (folder / "tiny-secondsight.json").write_text(json.dumps(plain))
    add_model_config(folder)
    host = clip(torch.float32, quick_gelu=True, text={"vocab_size": 49408})
    weights = folder / "start.safetensors"
    save_file(
        {k: v.contiguous() for k, v in host.state_dict().items()},
        weights,
        metadata={"secondsight": json.dumps({"force_quick_gelu": True, "image_mean": [0.5, 0.5, 0.5]})},
    )
    return f"open_clip:tiny-secondsight/{weights}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Jsonl(write_data(tmp_path_factory.mktemp("train"), 8))


RECIPE = Recipe(epochs=2, batch=4, lr=1e-3, start_lr=1e-5, warm_up=2)


@pytest.fixture(scope="module")
def tuned(start, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned")
    return finetune(start, data, out, RECIPE)


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_first_loss_is_the_symmetric_cross_entropy(start, data, tuned):
    host, transform, tokenizer = open_clip_parts(start.removeprefix("open_clip:"))
    host.eval()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0)).tolist()[:4]
    with torch.no_grad():
        a = host.encode_image(torch.stack([transform(open_image(data[i].image)) for i in order]), normalize=True)
        b = host.encode_text(tokenizer([data[i].caption for i in order]), normalize=True)
        logits = host.logit_scale.exp() * a @ b.T
        target = torch.arange(4)
        wanted = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    first = log(tuned.parent)[0]
    assert first["loss"] == pytest.approx(float(wanted), rel=1e-4)
    assert [line["lr"] for line in log(tuned.parent)] == pytest.approx([1e-5, 1e-4, 1e-3, 1e-3])


def test_the_schedule_rises_exponentially_over_the_first_epoch():
    recipe = Recipe()
    assert (recipe.rate(0, 100), recipe.rate(100, 100), recipe.rate(499, 100)) == (1e-7, pytest.approx(1e-5), 1e-5)
    assert recipe.rate(50, 100) == pytest.approx(math.sqrt(1e-7 * 1e-5))


def test_the_rate_may_fall_to_a_last_one():
    recipe = Recipe(epochs=2, lr=1e-3, start_lr=1e-5, warm_up=20, final_lr=1e-6)
    rates = [recipe.rate(step, 100) for step in range(200)]
    assert (rates[0], rates[20], rates[-1]) == (1e-5, pytest.approx(1e-3), pytest.approx(1e-6))
    assert all(a > b for a, b in pairwise(rates[20:]))
    assert rates[110] == pytest.approx((1e-3 + 1e-6) / 2, rel=0.02)
    with pytest.raises(ss.InputError, match="final_lr"):
        Recipe(lr=1e-5, final_lr=1e-4)


def test_checkpoints_are_what_was_trained_and_say_how_they_were_made(start, tuned):
    model = ss.load(start.partition("/")[0] + f"/{tuned}")
    kept = load_file(tuned)
    own = model.left.encoder.module.state_dict()
    assert all(torch.equal(value, kept[f"visual.{key}"]) for key, value in own.items())
    assert any(type(m).__name__ == "QuickGELU" for m in model.left.encoder.module.modules())
    # Images are prepared as for the weights that it started from.
    white = open_image(torch.full((32, 32, 3), 255, dtype=torch.uint8).numpy())
    pixels = model.left.encoder.prepare(white).tensor
    assert float(pixels[0, 0, 0, 0]) == pytest.approx(0.5 / 0.26862954, rel=1e-4)
    before = load_file(start.partition("/")[2])
    assert any(not torch.equal(before[key], kept[key]) for key in kept)


def test_a_stopped_run_goes_on_to_the_same_weights(start, data, tuned, tmp_path):
    """State after the first epoch is what a run that was stopped then left behind."""
    short = tmp_path / "short"
    short.mkdir()
    seen = []

    class Stop(Exception):
        pass

    def stop(step, whole, loss):
        seen.append(step)
        if step == 3:  # in the middle of the second epoch
            raise Stop

    with pytest.raises(Stop):
        finetune(start, data, short, RECIPE, progress=stop)
    assert not (short / "model.safetensors").exists()
    assert len(log(short)) == 2
    again = finetune(start, data, short, RECIPE, progress=lambda step, *_: seen.append(step))
    assert seen == [1, 2, 3, 3, 4]
    assert again.read_bytes() == tuned.read_bytes()
    assert log(short) == log(tuned.parent)


def test_another_run_is_refused(start, data, tuned, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tuned.parent, other)
    with pytest.raises(ss.InputError, match="holds another run"):
        finetune(start, data, other, Recipe(epochs=3, batch=4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda start, data, out: finetune("builtin", data, out), "only open_clip models"),
        (lambda start, data, out: finetune(start, data, out, Recipe(batch=64)), "fewer than a batch of 64"),
        (lambda start, data, out: Recipe(batch=1), "at least two pairs"),
        (lambda start, data, out: Recipe(lr=0.0), "lr=0.0 must be positive"),
        (lambda start, data, out: Recipe(precision="int8"), "unknown precision 'int8'"),
    ],
)
def test_what_cannot_be_trained(start, data, tmp_path, make, words):
    with pytest.raises(ss.InputError, match=words):
        make(start, data, tmp_path / "out")


# The paper's experiments ---------------------------------------------------------------------------------------------


def test_the_papers_models_are_ones_that_open_clip_knows():
    known = configuration()
    assert len(known["models"]) == 9
    for spec in known["models"].values():
        architecture, tag = spec.removeprefix("open_clip:").split("/")
        assert tag in open_clip.list_pretrained_tags_by_model(architecture), spec
    for kind, model, state, measure, value in known["published"]:
        assert kind in known["experiments"]
        assert model == "any" or model in known["models"]
        assert state in ("before", "after", "gain")
        assert any(measure in measures for measures in MEASURES.values())
        assert 0 < value < 1


def test_the_paper_in_small_before_and_after(start, tmp_path):
    file = write_data(tmp_path / "data", 4)
    config = tmp_path / "paper.yaml"
    experiments = ["pointing", "discrimination", "hard-negatives"]
    published = [["jsonl", "any", "before", "PGA", 0.79], ["jsonl", "tiny", "gain", "PGA", 0.187]]
    config.write_text(
        yaml.safe_dump({"models": {"tiny": start}, "experiments": {"jsonl": experiments}, "published": published})
    )
    recipe = Recipe(epochs=1, batch=4, lr=1e-3)
    table = paper([f"jsonl:{file}"], tmp_path / "out", config=config, train=str(file), recipe=recipe)
    assert table.groupby("fine-tuning", sort=False).size().to_dict() == {"before": 6, "after": 6, "gain": 6}
    one = table[table.measure == "PGA"].set_index("fine-tuning")
    assert one.ours["gain"] == pytest.approx(one.ours["after"] - one.ours["before"])
    assert (one.published["before"], one.published["gain"]) == (0.79, 0.187)
    assert math.isnan(one.published["after"])
    report = tmp_path / "out" / "jsonl" / "tiny--after" / "pointing" / "overall.csv"
    assert float(one.ours["after"]) == pytest.approx(pd.read_csv(report)["PGA"].item())
    assert (tmp_path / "out" / "paper.json").is_file()
    for asked, words in (([], "needs data sets"), ([f"jsonl:{file}"] * 2, "different kinds")):
        with pytest.raises(ss.InputError, match=words):
            paper(asked, tmp_path / "other", config=config)
    config.write_text("models: [")
    with pytest.raises(ss.InputError, match="cannot be read as YAML"):
        paper([f"jsonl:{file}"], tmp_path / "other", config=config)


def test_weights_that_cannot_be_had_are_said_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    file = write_data(tmp_path / "data", 2)
    with pytest.raises(ss.InputError, match="ViT-B-16/dfn2b") as problem:
        paper([str(file)], tmp_path / "out", models={"DFN": "open_clip:ViT-B-16/dfn2b"})
    assert "\n" not in str(problem.value)
