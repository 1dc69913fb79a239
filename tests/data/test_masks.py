"""Masks: their forms against pycocotools, and where data sets give them, oddities included."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

import secondsight as ss
from secondsight.data import Coco, GroundedCaption, Jsonl, Region, Scenes, export_coco, write_jsonl
from secondsight.data.masks import MaskFile, Polygons, RunLengths, mask_of, mask_to_json, parse_mask

cocomask = pytest.importorskip("pycocotools.mask", reason="pycocotools is the oracle here")


def random_masks(count=60):
    generator = np.random.default_rng(0)
    for _ in range(count):
        height, width = generator.integers(1, 40, 2)
        yield generator.random((height, width)) < generator.choice([0, 0.02, 0.5, 0.98, 1])


def compressed(mask):
    return cocomask.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_run_lengths_are_those_of_pycocotools_both_ways():
    for array in random_masks():
        height, width = array.shape
        mask = mask_of(array)
        np.testing.assert_array_equal(mask.array(), array)
        assert mask.size == (width, height)
        assert mask.area == array.sum()
        code = compressed(array)
        assert parse_mask(code, (width, height)) == mask
        assert parse_mask({**code, "counts": code["counts"].decode()}, None) == mask
        theirs = cocomask.frPyObjects({"size": [height, width], "counts": list(mask.counts)}, height, width)
        np.testing.assert_array_equal(cocomask.decode(theirs), array)
        if array.any():
            x, y, w, h = cocomask.toBbox(code)
            assert mask.box == (x, y, x + w, y + h)
        else:
            assert mask.box is None


def test_long_runs_are_decompressed():
    # Differences of lengths are negative here, and of several characters.
    array = np.zeros((700, 900), bool)
    array[3:690, 5:800] = True
    array[100:105, 7] = False
    assert parse_mask(compressed(array), (900, 700)) == mask_of(array)


def test_polygons_cover_what_pycocotools_says():
    polygons = [[2.0, 1.0, 12.5, 1.0, 12.5, 7.0], [20, 10, 28, 10, 28, 18, 20, 18.0]]
    mask = parse_mask(polygons, (30, 20))
    theirs = cocomask.decode(cocomask.merge(cocomask.frPyObjects(polygons, 20, 30)))
    np.testing.assert_array_equal(mask.array(), theirs.astype(bool))
    assert mask.area == theirs.sum() > 0
    # Two points would be a box to pycocotools.
    assert parse_mask([[0, 0, 5, 5], *polygons], (30, 20)) == mask


ODD = {
    "nothing": None,
    "no polygon": [],
    "an empty polygon": [[]],
    "two points": [[1, 1, 5, 5]],
    "an odd number of numbers": [[1, 1, 5, 5, 1, 5, 2]],
    "no numbers": [["a", "b", "c", "d", "e", "f"]],
    "numbers that are none": [[float("nan"), 1, 5, 5, 1, 5]],
    "a polygon far away": [[0, 0, 1e9, 0, 1e9, 1e9]],
    "one flat list": [1, 1, 5, 5, 1, 5],
    "text": "polygon",
    "another size": {"size": [20, 31], "counts": [620]},
    "no size": {"counts": [600]},
    "no counts": {"size": [20, 30]},
    "too few pixels": {"size": [20, 30], "counts": [10, 20]},
    "a negative run": {"size": [20, 30], "counts": [601, -1]},
    "a damaged code": {"size": [20, 30], "counts": "zzzz"},
    "another image's code": {"size": [20, 30], "counts": "0000"},
    "an empty code": {"size": [20, 30], "counts": ""},
    "no letters": {"size": [20, 30], "counts": "\u00e9"},
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_mask_is_none(name):
    assert parse_mask(ODD[name], (30, 20)) is None


def test_random_codes_never_crash():
    generator = np.random.default_rng(0)
    for _ in range(2000):
        code = bytes(generator.integers(40, 120, generator.integers(0, 9)).astype(np.uint8))
        mask = parse_mask({"size": [4, 5], "counts": code}, (5, 4))
        assert mask is None or mask.array().shape == (4, 5)


def test_masks_are_values():
    masks = (mask_of(np.eye(3)), Polygons((9, 9), ((0, 0, 5, 0, 5, 5),)))
    for mask in masks:
        assert pickle.loads(pickle.dumps(mask)) == mask
        assert hash(mask) == hash(pickle.loads(pickle.dumps(mask)))
        assert mask.valid().all()
    with pytest.raises(ss.InputError, match="rows and columns"):
        mask_of(np.zeros(3))


# Pictures ------------------------------------------------------------------------------------------------------------


def test_pictures_of_numbers(tmp_path):
    numbers = np.array([[0, 3, 3], [255, 3, 7]], np.uint8)
    palette = Image.fromarray(numbers)
    palette.putpalette([channel for index in range(256) for channel in (index, 255 - index, 7)])
    coloured = np.stack([numbers, np.zeros_like(numbers), np.full_like(numbers, 9)], -1)
    for name, picture in (("p", palette), ("l", Image.fromarray(numbers)), ("rgb", Image.fromarray(coloured))):
        picture.save(tmp_path / f"{name}.png")
        mask = MaskFile(tmp_path / f"{name}.png", 3, ignored=255)
        np.testing.assert_array_equal(mask.array(), numbers == 3)
        np.testing.assert_array_equal(mask.valid(), numbers != 255)
        np.testing.assert_array_equal(MaskFile(mask.file).array(), numbers != 0)
        assert MaskFile(mask.file).valid().all()
    # 1000 and 300 as red and green, as ImageNet-S has them.
    large = np.array([[[1000 % 256, 1000 // 256, 0], [300 % 256, 300 // 256, 0]]], np.uint8)
    Image.fromarray(large).save(tmp_path / "large.png")
    mask = MaskFile(tmp_path / "large.png", 300, ignored=1000)
    assert (mask.array().tolist(), mask.valid().tolist()) == ([[False, True]], [[False, True]])
    for other in (Image.fromarray(numbers == 3), Image.fromarray((numbers == 3).astype(np.uint16) * 300)):
        other.save(tmp_path / "other.png")
        assert (MaskFile(tmp_path / "other.png").array() == (numbers == 3)).all()
    Image.fromarray(np.dstack([coloured, 255 * (numbers == 3)]).astype(np.uint8)).save(tmp_path / "cut-out.png")
    assert (MaskFile(tmp_path / "cut-out.png").array() == (numbers == 3)).all()
    (tmp_path / "none.png").write_text("not a picture")
    with pytest.raises(ss.InputError, match=r"none\.png.*holds no mask"):
        MaskFile(tmp_path / "none.png").array()


# Data sets -----------------------------------------------------------------------------------------------------------


def coco_file(folder, annotations, **size):
    (folder / "annotations").mkdir()
    Image.new("RGB", (30, 20)).save(folder / "1.png")
    images = [{"id": 1, "file_name": "1.png", **size}]
    categories = [{"id": 18, "name": "dog", "supercategory": "animal"}]
    objects = [
        {"id": n, "image_id": 1, "category_id": 18, "bbox": [1, 1, 5, 5], **a} for n, a in enumerate(annotations)
    ]
    captions = [{"id": 1, "image_id": 1, "caption": "a dog"}]
    instances = {"images": images, "annotations": objects, "categories": categories}
    for name, content in (("captions", {"images": images, "annotations": captions}), ("instances", instances)):
        (folder / "annotations" / f"{name}_val.json").write_text(json.dumps(content))
    return folder


def test_coco_has_masks_and_survives_odd_ones(tmp_path):
    polygon, crowd = [[2, 1, 12, 1, 12, 7]], {"size": [20, 30], "counts": [21, 4, 575]}
    segmentations = [polygon, crowd, *ODD.values()]
    entries = [{"segmentation": s, "iscrowd": int(s is crowd)} for s in segmentations] + [{}]
    (caption,) = Coco(coco_file(tmp_path, entries, width=30, height=20))
    first, second, *others = caption.regions
    assert first.mask == parse_mask(polygon, (30, 20))
    assert (second.crowd, second.mask) == (True, RunLengths((30, 20), (21, 4, 575)))
    assert second.mask.array()[1:5, 1].all()
    assert len(others) == len(ODD) + 1
    assert [region.mask for region in others] == [None] * len(others)


def test_coco_without_sizes_reads_run_lengths_only(tmp_path):
    entries = [{"segmentation": [[2, 1, 12, 1, 12, 7]]}, {"segmentation": {"size": [20, 30], "counts": [600]}}]
    (caption,) = Coco(coco_file(tmp_path, entries))
    assert [region.mask is None for region in caption.regions] == [True, False]


def test_scenes_have_the_masks_that_they_export(tmp_path):
    data = Scenes(12, seed=3)
    export_coco(data, tmp_path, "val")
    covered = 0
    for ours, theirs in zip(data, Coco(tmp_path, "val"), strict=True):
        for region, read in zip(ours.regions, theirs.regions, strict=True):
            assert region.mask == read.mask
            assert region.mask.box == region.box
            covered += region.visible < 1
    assert covered
    scene = data.scene(4)[1]
    for region, pixels in zip(data[4].regions, scene.masks, strict=True):
        np.testing.assert_array_equal(region.mask.array(), pixels)


def test_jsonl_reads_and_writes_masks(tmp_path):
    array = np.zeros((20, 30), bool)
    array[3:9, 4:12] = True
    (tmp_path / "masks").mkdir()
    Image.fromarray(array).save(tmp_path / "masks" / "1.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "1.png")
    polygons = parse_mask([[2, 1, 12, 1, 12, 7]], (30, 20))
    masks = (mask_of(array), MaskFile(tmp_path / "masks" / "1.png"), polygons, None)
    regions = tuple(Region("dog", (4, 3, 12, 9), mask=mask) for mask in masks)
    caption = GroundedCaption("1", "1.png", tmp_path / "1.png", "a dog", (), regions)
    write_jsonl(tmp_path / "data.jsonl", [caption])
    (read,) = Jsonl(tmp_path / "data.jsonl")
    for mask, region in zip(masks, read.regions, strict=True):
        if mask is None:
            assert region.mask is None
        else:
            np.testing.assert_array_equal(region.mask.array(), mask.array())
    line = {"image": "1.png", "caption": "a dog"}
    for mask, problem in (
        ("masks/1.png", None),
        (compressed(array) | {"counts": compressed(array)["counts"].decode()}, None),
        ("masks/2.png", "missing mask: masks/2.png"),
        ({"size": [20, 30], "counts": [5]}, "neither a picture's path nor run lengths"),
        ([[2, 1, 12, 1, 12, 7]], "neither a picture's path nor run lengths"),
    ):
        entry = {**line, "regions": [{"label": "dog", "box": [4, 3, 12, 9], "mask": mask}]}
        (tmp_path / "one.jsonl").write_text(json.dumps(entry))
        if problem is None:
            np.testing.assert_array_equal(Jsonl(tmp_path / "one.jsonl")[0].regions[0].mask.array(), array)
        else:
            with pytest.raises(ss.InputError, match=problem):
                Jsonl(tmp_path / "one.jsonl")[0]
    assert mask_to_json(polygons)["size"] == [20, 30]
