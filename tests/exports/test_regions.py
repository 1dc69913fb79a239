"""Regions of words as masks, as COCO's JSON that pycocotools reads, and as labels of FiftyOne."""

import contextlib
import io
import json
import sys
import types
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

import secondsight as ss
from secondsight import InputError
from secondsight.exports.fiftyone_labels import to_fiftyone
from secondsight.exports.regions import regions, to_coco
from sides import image_layout, random_side, text_layout


def pair(dog=(5.0, 0.0, 0.0, 0.0, 0.0, 3.0)):
    """A photograph of 90 × 60 pixels in 2 × 3 cells; "dog" matches these, all other words none."""
    e = random_side(image_layout(), 1, torch.float64) @ random_side(text_layout(), 2, torch.float64)
    matrix = torch.zeros_like(e.matrix)
    matrix[1:, 2] = torch.tensor(dog, dtype=torch.float64)
    return replace(e, attributions=matrix, left_contributions=None, right_contributions=None)


def test_regions_are_the_connected_parts_above_the_threshold():
    first, second = regions(pair(), threshold=0.5)
    assert (first.label, first.span) == ("dog", (2, 5))
    heat = pair().heatmap("dog").numpy()
    for region in (first, second):
        x0, y0, x1, y1 = region.box
        assert region.mask.shape == (y1 - y0, x1 - x0)
        assert np.array_equal(region.mask, heat[y0:y1, x0:x1] >= 0.5 * heat.max())
        assert region.score == pytest.approx(heat[y0:y1, x0:x1][region.mask].sum() / heat.sum())
    assert first.box[:2] == (0, 0)
    assert second.box[2:] == (90, 60)
    assert first.area + second.area == (heat >= 0.5 * heat.max()).sum()
    assert first.score > second.score
    # A higher threshold leaves the stronger one.
    assert len(regions(pair(), threshold=0.9)) == 1
    assert len(regions(pair(), ["dog", "frisbee"])) == 2


def test_maps_that_are_positive_nowhere_have_no_region():
    assert regions(pair(dog=(-1.0,) * 6)) == []
    coco = to_coco(pair(dog=(-1.0,) * 6))
    assert coco["annotations"] == []
    assert [category["name"] for category in coco["categories"]] == ["A", "dog", "jumps", "for", "a", "frisbee"]


def test_pycocotools_reads_the_regions(tmp_path):
    from pycocotools.coco import COCO

    coco = to_coco(pair(), image_id=17, file_name="dog.jpg")
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(coco))
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(str(path))
        results = index.loadRes(json.loads(json.dumps(coco["annotations"])))
    assert index.getCatIds(catNms=["dog"]) == [2]
    expected = regions(pair())
    for source in (index, results):
        annotations = source.loadAnns(source.getAnnIds(imgIds=[17], catIds=[2]))
        assert [a["score"] for a in annotations] == [region.score for region in expected]
        for annotation, region in zip(annotations, expected, strict=True):
            x0, y0, x1, y1 = region.box
            mask = source.annToMask(annotation)
            assert mask.shape == (60, 90)
            assert mask.sum() == region.area
            assert np.array_equal(mask[y0:y1, x0:x1].astype(bool), region.mask)
            assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
    # loadRes sets areas to those of the boxes.
    assert [annotation["area"] for annotation in index.dataset["annotations"]] == [region.area for region in expected]
    assert index.imgs[17]["file_name"] == "dog.jpg"


def test_selections_that_are_no_words():
    coco = to_coco(pair(), [(0, 12), "dog"])
    assert [category["name"] for category in coco["categories"]] == ["(0, 12)", "dog"]
    assert {annotation["category_id"] for annotation in coco["annotations"]} == {1, 2}
    assert "span" not in coco["annotations"][0]


def test_what_has_no_regions_is_refused(monkeypatch):
    texts = random_side(text_layout(), 1, torch.float64) @ random_side(text_layout(), 2, torch.float64)
    with pytest.raises(InputError, match="need one image on the left side, not text"):
        regions(texts)
    images = random_side(image_layout(), 1, torch.float64) @ random_side(image_layout(), 2, torch.float64)
    with pytest.raises(InputError, match="without words: give selections"):
        regions(images)
    assert all(region.span is None for region in regions(images, [(0, 0, 30, 30)]))
    for threshold in (0, 1.5, "x"):
        with pytest.raises(InputError, match="must be above 0 and at most 1"):
            regions(pair(), threshold=threshold)
    with pytest.raises(InputError, match="must be a list"):
        regions(pair(), "dog")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(InputError, match="COCO's format needs pycocotools"):
        to_coco(pair())
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InputError, match="regions need scipy"):
        regions(pair())


@dataclass
class Heatmap:
    map: Any = None
    map_path: str | None = None
    range: list[float] | None = None


@dataclass
class Detection:
    label: str | None = None
    bounding_box: list[float] | None = None
    mask: Any = None
    mask_path: str | None = None
    confidence: float | None = None
    index: int | None = None


@dataclass
class Detections:
    detections: list[Detection] | None = None


def test_labels_of_fiftyone(monkeypatch):
    """A stand-in has the constructors of the real classes, of which they take these keywords."""
    stand_in = types.ModuleType("fiftyone")
    stand_in.Heatmap, stand_in.Detection, stand_in.Detections = Heatmap, Detection, Detections
    monkeypatch.setitem(sys.modules, "fiftyone", stand_in)
    labels = to_fiftyone(pair(), "dog")
    assert labels["heatmap"].map.shape == (60, 90)
    assert labels["heatmap"].range == [-5.0, 5.0]
    first, second = labels["regions"].detections
    assert (first.label, first.bounding_box[:2]) == ("dog", [0.0, 0.0])
    x, y, width, height = second.bounding_box
    assert (x + width, y + height) == pytest.approx((1.0, 1.0))
    assert second.mask.dtype == bool
    assert second.mask.shape == (round(height * 60), round(width * 90))
    assert first.confidence > second.confidence


def test_without_fiftyone_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(InputError, match="pip install fiftyone"):
        to_fiftyone(pair())


def test_explanations_have_the_ways_out(monkeypatch):
    from PIL import Image

    from models import small

    e = ss.explain(small(), Image.new("RGB", (64, 48), "red"), "a red dog", "last-layer")
    assert e.to_coco(["dog"], image_id=3)["images"] == [{"id": 3, "file_name": "", "width": 64, "height": 48}]
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(InputError, match="pip install fiftyone"):
        e.to_fiftyone("dog")
