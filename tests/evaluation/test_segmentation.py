"""Measures of masks against loops and scikit-learn, and the experiment against its measures."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import secondsight as ss
from captions import write_data
from models import small
from secondsight.algebra.layout import GridLayout
from secondsight.data import GroundedCaption, Jsonl, ListedDataset, Phrase, Region, Scenes
from secondsight.data.masks import MaskFile, RunLengths, mask_of
from secondsight.evaluation import evaluate, measures
from secondsight.evaluation.cases import find_cases
from secondsight.evaluation.report import small_picture

OURS = ("ours", ss.IntegratedJacobian(steps=8))
TOKENS = ("tokens", ss.TokenEmbeddings())

# Measures ------------------------------------------------------------------------------------------------------------


def random_pixels(seed, ties):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=200)
    return np.round(values * 2) / 2 if ties else values, generator.random(200) < 0.3


def loop_agreement(values, within, level):
    counts = [0, 0, 0, 0]
    low, high = min(values), max(values)
    for value, inside in zip(values, within, strict=True):
        above = (value - low) / (high - low) > level
        counts[(0 if inside else 1) if above else (2 if inside else 3)] += 1
    return counts


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_agreement_counts_pixels(seed, ties):
    values, within = random_pixels(seed, ties)
    scaled_mean = np.mean((values - values.min()) / (values.max() - values.min()))
    for threshold, level in ((0.5, 0.5), (0.25, 0.25), ("mean", scaled_mean)):
        counts = measures.agreement(values, within, threshold)
        both, map_only, object_only, neither = loop_agreement(values, within, level)
        assert list(counts) == [both, map_only, object_only, neither]
        object_iou, background_iou = (right / (right + map_only + object_only) for right in (both, neither))
        assert counts.iou == pytest.approx(object_iou)
        assert counts.mean_iou == pytest.approx((object_iou + background_iou) / 2)
        assert counts.pixel_accuracy == pytest.approx((both + neither) / 200)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_scikit_learn(seed, ties):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle here")
    values, within = random_pixels(seed, ties)
    expected = sklearn.average_precision_score(within, values)
    assert measures.average_precision(values, within) == pytest.approx(expected, abs=1e-12)
    # Chefer et al. rank both classes in one list.
    scaled = (values - values.min()) / (values.max() - values.min())
    scores, labels = np.concatenate([1 - scaled, scaled]), np.concatenate([~within, within])
    expected = sklearn.average_precision_score(labels, scores)
    assert measures.average_precision(values, within, both_classes=True) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_scikit_learn_agrees_on_overlap(seed):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle here")
    values, within = random_pixels(seed, ties=False)
    counts = measures.agreement(values, within)
    above = (values - values.min()) / (values.max() - values.min()) > 0.5
    assert counts.mean_iou == pytest.approx(sklearn.jaccard_score(within, above, average="macro"))
    assert counts.pixel_accuracy == pytest.approx(sklearn.accuracy_score(within, above))


def test_measures_at_their_ends():
    within = np.array([True, True, False, False, False])
    perfect, empty = measures.agreement(within * 3.0 - 1, within), measures.agreement(np.zeros(5), within)
    assert (perfect.mean_iou, perfect.iou, perfect.pixel_accuracy) == (1, 1, 1)
    assert list(empty) == [0, 0, 2, 3]
    assert (empty.mean_iou, empty.iou) == (pytest.approx(3 / 5 / 2), 0)
    assert measures.average_precision(within * 3.0, within) == 1
    # A constant map ranks nothing: chance level.
    assert measures.average_precision(np.ones(5), within) == pytest.approx(2 / 5)
    assert np.isnan(measures.average_precision(np.arange(5), np.zeros(5, bool)))
    assert measures.share_of_highest([1, 3, 3, 0, 0], within) == 0.5
    assert measures.share_of_positive([1.0, -5, 3, 0, 0], within) == 0.25


def test_pixels_are_those_that_are_seen_and_annotated():
    mask = np.zeros((8, 12), bool)
    mask[2:6, 3:7] = True
    valid = np.ones_like(mask)
    valid[2, :] = False
    frame = (2.0, 0.0, 10.0, 8.0)
    map_ = np.arange(16.0).reshape(4, 4) - 6
    values, within = measures.pixels_of(map_, mask, valid, frame)
    layout = GridLayout(16, {}, (4, 4), (12, 8), frame)
    heat = layout.heatmap(torch.tensor(map_).flatten()).numpy()
    expected = [
        (heat[y, x], mask[y, x]) for y in range(8) for x in range(12) if frame[0] < x + 0.5 < frame[2] and valid[y, x]
    ]
    assert len(values) == 7 * 8
    np.testing.assert_allclose(values, [value for value, _ in expected])
    assert within.tolist() == [inside for _, inside in expected]
    # What is not annotated changes nothing.
    changed = mask.copy()
    changed[2] = ~changed[2]
    assert (measures.pixels_of(map_, changed, valid, frame)[1] == within).all()
    # A box as a mask has the box's measures.
    box = np.zeros((8, 12), bool)
    box[2:6, 3:7] = True
    about = measures.pixels_of(map_, box)
    assert measures.share_of_positive(*about) == pytest.approx(measures.energy(map_, [(3, 2, 7, 6)], (12, 8)))
    assert measures.share_of_highest(*about) == measures.pointing(map_, [(3, 2, 7, 6)], (12, 8))
    for wrong, words in (
        (dict(mask=np.zeros(3)), "rows and columns"),
        (dict(mask=mask, valid=np.ones((3, 3))), "must be the same"),
        (dict(mask=mask, valid=np.zeros_like(mask)), "no annotated pixel"),
        (dict(mask=mask, frame=(30, 30, 40, 40)), "no annotated pixel"),
    ):
        with pytest.raises(ss.InputError, match=words):
            measures.pixels_of(map_, **wrong)


# Cases ---------------------------------------------------------------------------------------------------------------


def test_cases_have_the_masks_of_their_objects():
    layout = GridLayout(16, {}, (4, 4), (40, 40), (0.0, 0.0, 40.0, 40.0))
    box, mask = (5.0, 5.0, 30.0, 30.0), mask_of(np.eye(40))
    phrase = Phrase((2, 5), (box,), "dog")
    for regions, expected in (
        ((Region("dog", box, mask=mask),), mask),
        ((Region("cat", box, mask=mask), Region("dog", box)), None),
        ((), None),
    ):
        example = GroundedCaption("1", "1", Image.new("RGB", (40, 40)), "a dog", (phrase,), regions)
        ((case,), _) = find_cases(example, layout)
        assert case.mask is expected


# The experiment ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photographs whose dog has an elliptic mask with an edge that is not annotated, and whose cat has none."""
    folder = tmp_path_factory.mktemp("data")
    entries = []
    for example in Jsonl(write_data(folder)):
        width, height = Image.open(example.image).size
        down, across = np.mgrid[:height, :width]
        far = ((across - 21) / 19) ** 2 + ((down - 21) / 19) ** 2
        numbers = np.where(far < 0.8, 7, np.where(far < 1, 255, 0)).astype(np.uint8)
        file = folder / f"{example.key}-mask.png"
        Image.fromarray(numbers).save(file)
        dog, cat = example.regions
        masked = Region(dog.label, dog.box, dog.group, mask=MaskFile(file, 7, 255))
        fields = example.image_key, example.image, example.caption, example.phrases
        entries.append(GroundedCaption(example.key, *fields, (masked, cat)))
    return ListedDataset("photographs", entries)


def test_the_experiment_is_what_the_measures_say_of_the_maps(model, data, tmp_path):
    tables = evaluate("segmentation", data, [("small", model)], [OURS, TOKENS], out=tmp_path)
    found = pd.read_parquet(tmp_path / "segmentation" / "records.parquet")
    cases = found[found.kind == "case"]
    assert len(cases) == 2 * 4
    agreements = []
    for example in data:
        e = ss.explain(model, example.image, example.caption, OURS[1])
        phrase, mask = example.phrases[0], example.regions[0].mask
        row = cases[(cases.setting == "ours") & cases.key.str.startswith(example.image_key)]
        heat = e.heatmap(phrase.span).double().numpy()
        x0, y0, x1, y1 = e.left_layout.frame
        height, width = heat.shape
        seen = np.zeros((height, width), bool)
        seen[max(round(y0), 0) : round(y1), max(round(x0), 0) : round(x1)] = True
        seen &= mask.valid()
        values, within = heat[seen], mask.array()[seen]
        positive = np.clip(values, 0, None)
        half = measures.agreement(positive, within)
        agreements.append(half)
        assert row.mean_iou.item() == pytest.approx(half.mean_iou, abs=1e-3)
        assert row.pixel_accuracy.item() == pytest.approx(half.pixel_accuracy, abs=1e-3)
        assert row.average_precision.item() == pytest.approx(measures.average_precision(values, within), abs=1e-3)
        assert row.mask_energy.item() == pytest.approx(measures.share_of_positive(values, within), abs=1e-3)
        assert row.mask_hit.item() == within[values.argmax()]
        assert row.mask_chance.item() == pytest.approx(within.mean(), abs=1e-3)
        # The box's measures are those of pointing.
        map_ = e.left_layout.view(e.toward_left(phrase.span)).double().numpy()
        box = measures.energy(map_, phrase.boxes, e.left_layout.image_size, e.left_layout.frame)
        assert row.energy.item() == pytest.approx(box, abs=1e-6)
    overall = tables["overall"]
    ours = cases[cases.setting == "ours"]
    assert overall.loc["ours", "AP"] == pytest.approx(ours.average_precision.mean())
    low, high = map(float, overall.loc["ours", "AP, 95 %"].split(" … "))
    assert low <= overall.loc["ours", "AP"] + 1e-3
    assert high >= overall.loc["ours", "AP"] - 1e-3
    together = measures.Agreement(*np.sum(agreements, axis=0))
    summed = tables["summed over pixels"].set_index("setting")
    assert summed.loc["ours", "mIoU at 0.5"] == pytest.approx(together.mean_iou, abs=1e-3)
    assert tables["left out"].set_index(["setting", "reason"]).loc[("ours", "without a mask"), "count"] == 4
    assert len(tables["almost stochastic order by AP"]) == len(tables["almost stochastic order by mIoU"]) == 2
    page = (tmp_path / "segmentation" / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "the object's contour" in page
    assert "AP 0." in page
    assert tables.gallery() is not None


def test_masks_that_cannot_be_judged_are_counted(model, tmp_path):
    base = Scenes(1, seed=2)[0]
    width, height = base.image.size
    box = (10.0, 10.0, 80.0, 80.0)
    phrase = Phrase((2, 5), (box,), "dog")
    masks = {
        "mask of another size than its image": RunLengths((10, 10), (50, 50)),
        "mask of nothing or everything that the model sees": mask_of(np.zeros((height, width))),
        "fine": mask_of(np.eye(height)),
    }
    entries = [
        GroundedCaption(str(n), str(n), base.image, "a dog", (phrase,), (Region("dog", box, mask=mask),))
        for n, mask in enumerate(masks.values())
    ]
    without = GroundedCaption("9", "9", base.image, "a dog", (phrase,), (Region("dog", box),))
    broken = Region("dog", box, mask=MaskFile(tmp_path / "gone.png"))
    lost = GroundedCaption("8", "8", base.image, "a dog", (phrase,), (broken,))
    data = ListedDataset("scenes", [*entries, without, lost])
    results = evaluate("segmentation", data, [("small", model)], [TOKENS], out=tmp_path / "out")
    assert set(results["left out"].reason) == set(masks) - {"fine"}
    assert results["overall"].cases.item() == 1
    problems = json.loads((tmp_path / "out" / "segmentation" / "summary.json").read_text())["problems"]
    assert "gone.png" in problems["8/8"]
    with pytest.raises(ss.InputError, match="nothing that 'segmentation' can judge"):
        evaluate("segmentation", ListedDataset("no masks", [without]), [("small", model)], [TOKENS], out=tmp_path / "2")


def test_contours_are_drawn_along_the_mask():
    photo = Image.new("RGB", (50, 40), (90, 90, 90))
    mask = np.zeros((40, 50), bool)
    mask[10:30, 10:40] = True
    pixels = np.asarray(small_picture(photo, masks=[mask], width=200))
    assert pixels.shape == (160, 200, 3)
    # Black on the edge, white beside it, the photograph within and without.
    assert pixels[80, 38:42, 0].tolist() == [255, 0, 0, 255]
    assert (pixels[80, 60] == 90).all()
    assert (pixels[80, 20] == 90).all()
