"""The scenes model: open_clip's code path, the embeddings of its training, what it can do, and how it is trained."""

import importlib.util
import json
import random
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import secondsight as ss
from secondsight.data import Scenes
from secondsight.data.scenes import captions, compose
from secondsight.encoders.families import scenes
from secondsight.evaluation import evaluate
from secondsight.methods import IntegratedJacobian
from secondsight.support.errors import InputError
from secondsight.testing import check_encoder

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_scenes.py"


@pytest.fixture(scope="module")
def training():
    """The training script as a module."""
    spec = importlib.util.spec_from_file_location("train_scenes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_scenes"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scenes_model():
    return ss.load("scenes")


def test_small_enough_to_carry_and_a_grid_of_twelve():
    assert (files("secondsight.encoders.families") / "scenes.safetensors").stat().st_size < 10e6
    host, _, _ = scenes.parts()
    assert host.visual.grid_size == (12, 12)


def test_every_word_is_one_token_and_unknown_words_are_pieces():
    tokenize = scenes.tokenizer()
    assert all(len(tokenize.encode(word)) == 1 for word in captions.words())
    assert len(tokenize.encode("blimp")) > 1
    longest = max(
        len(
            tokenize.encode(
                captions.describe(compose.random_scene(random.Random(i)), random.Random(i), every=True).text()
            )
        )
        for i in range(2000)
    )
    assert longest + 2 <= scenes.CONTEXT


def test_embeddings_are_those_of_the_training_code(training, scenes_model):
    host, preprocess, tokenize = scenes.parts()
    data = Scenes(6, seed=9)
    with torch.no_grad():
        pixels = torch.stack([preprocess(scene.image) for scene in data])
        drawn = np.stack([np.asarray(scene.image) for scene in data])
        assert torch.equal(pixels, torch.from_numpy((drawn.astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2))
        every = torch.arange(144).expand(6, -1)
        left = training.embed_images(host, pixels, every)
        right = training.embed_texts(host, tokenize([scene.caption for scene in data])[:, :28])
    for scene, a, b in zip(data, left, right, strict=True):
        x = scenes_model.left.encoder.prepare(scene.image)
        t = scenes_model.right.encoder.prepare(scene.caption)
        assert torch.allclose(scenes_model.left.encoder.features(x.tensor, -1 % 6)[0].embedding, a, atol=1e-5)
        assert torch.allclose(scenes_model.right.encoder.features(t.tensor, 2)[0].embedding, b, atol=1e-5)
        e = ss.explain(scenes_model, scene.image, scene.caption)
        assert e.similarity == pytest.approx(float(F.cosine_similarity(a, b, dim=0)), abs=1e-5)
        assert e.error < 1e-3


def test_the_text_side_conforms(scenes_model):
    # The image side's architecture passes the same checks in small, in test_conformance.py.
    check_encoder(scenes_model.right, [scene.caption for scene in Scenes(3)])


def test_finds_its_caption_among_192(training):
    host, _, _ = scenes.parts()
    assert training.retrieval(host, batches=2) >= 0.9


def test_points_at_what_the_caption_names(scenes_model, tmp_path):
    accuracy = {}
    for layers, limit in (((-1, -1), 200), ((4, 0), 40)):
        methods = [("paths", IntegratedJacobian(layer=layers, steps=8))]
        tables = evaluate(
            "pointing", Scenes(400), [("scenes", scenes_model)], methods, out=tmp_path, limit=limit, rule="centre"
        )
        accuracy[layers] = float(tables["overall"].PGA.iloc[0])
        assert tables["overall"].chance.iloc[0] < 0.2
    assert accuracy[-1, -1] >= 0.75
    # Tokens of the text's last layer know of the words before them; token embeddings are each one word's own.
    assert accuracy[4, 0] >= 0.9


def test_changed_files_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(scenes, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(InputError, match="not the package's file"):
        ss.load("scenes")
    for name in ("scenes:" + str(tmp_path / "none.safetensors"), f"scenes:{tmp_path}"):
        with pytest.raises(InputError, match="holds no weights"):
            ss.load(name)
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="holds no weights"):
        ss.load(f"scenes:{tmp_path / 'bad.safetensors'}")
    monkeypatch.setattr(scenes, "_MERGES_SHA256", "0" * 64)
    with pytest.raises(InputError, match="not the package's file"):
        scenes.tokenizer()


def test_training_runs_resumes_and_loads(training, tmp_path):
    call = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--batch", "8", "--scale", "0.003", "--device", "cpu"]
    subprocess.run(call, check=True, capture_output=True)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in log] == sorted(
        (line["stage"] for line in log), key=["window", "half", "whole"].index
    )
    assert {line["stage"] for line in log} == {"window", "half", "whole"}
    assert all(np.isfinite(line["loss"]) for line in log)
    first = (tmp_path / "scenes.safetensors").read_bytes()
    resumed = subprocess.run(call, check=True, capture_output=True, text=True)
    assert "MB, SHA-256" in resumed.stdout
    assert (tmp_path / "scenes.safetensors").read_bytes() == first
    loaded = ss.load(f"scenes:{tmp_path / 'scenes.safetensors'}")
    weights = load_file(tmp_path / "scenes.safetensors")
    loaded_weights = loaded.left.encoder.module.state_dict()
    assert torch.equal(loaded_weights["conv1.weight"], weights["visual.conv1.weight"].float())
    assert weights["visual.conv1.weight"].dtype == torch.float16
    refused = subprocess.run([*call, "--seed", "1"], capture_output=True, text=True)
    assert refused.returncode
    assert "another run" in refused.stderr


def test_a_caption_s_twin_is_no_negative(training):
    host = scenes.build(1)
    images = torch.eye(128)[:3]
    tokens = scenes.tokenizer()(["a dog", "a dog", "a cat", "a cow", "a cow", "a dog"])
    texts = torch.eye(128)[:6]
    loss, hit = training.contrastive(host, images, texts, tokens)
    scale = host.logit_scale.detach().exp()
    # Image 0 sees itself, the cat and two cows: not its twin 1, nor the wrong caption that says the same.
    rows = [torch.tensor([1.0, 0, 0, 0]), torch.tensor([1.0, 0, 0, 0]), torch.tensor([1.0, 0, 0, 0, 0, 0])]
    columns = [torch.tensor([1.0, 0]), torch.tensor([1.0, 0]), torch.tensor([1.0, 0, 0])]
    by_hand = [-(scale * r).log_softmax(0)[0] for r in rows], [-(scale * c).log_softmax(0)[0] for c in columns]
    assert float(loss.detach()) == pytest.approx(float((sum(by_hand[0]) + sum(by_hand[1])) / 6), rel=1e-5)
    assert float(hit) == 1
