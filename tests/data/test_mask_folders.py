"""Folders of masks: tiny ones in the published forms, with the oddities that those have."""

import json

import numpy as np
import pytest
from PIL import Image

import secondsight as ss
from models import small
from secondsight.data import Coco, open_data
from secondsight.data.mask_folders import (
    ImageNetS,
    PartImageNet,
    VocSegmentation,
    describe_classes,
    imagenet_names,
    read_names,
)
from secondsight.evaluation import evaluate

TENCH, TERRIER, UNKNOWN = "n01440764", "n02093428", "n99999999"


def save_photo(file, size=(40, 30), **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(file, **options)


def numbers_of(*areas, size=(40, 30)):
    """A picture of zeros with numbers in boxes: (number, x0, y0, x1, y1)."""
    numbers = np.zeros(size[::-1], np.int64)
    for number, x0, y0, x1, y1 in areas:
        numbers[y0:y1, x0:x1] = number
    return numbers


def save_numbers(file, numbers, mode):
    """As red + 256 · green, as a palette's indices, or as grey values."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if mode == "RGB":
        picture = Image.fromarray(np.stack([numbers % 256, numbers // 256, 0 * numbers], -1).astype(np.uint8))
    else:
        picture = Image.fromarray(numbers.astype(np.uint8))
        if mode == "P":
            picture.putpalette([37 * channel % 256 for channel in range(768)])
    picture.save(file)


def problems_of(data):
    return {key: reason.partition(":")[0] for key, reason in data.problems.items()}


# Captions ------------------------------------------------------------------------------------------------------------


def test_captions_name_every_class_once():
    for names, caption in (
        (["dog"], "a photo of a dog"),
        (["dog", "apple"], "a photo of a dog and an apple"),
        (["dog", "Irish Terrier", "cup"], "a photo of a dog, an Irish Terrier and a cup"),
    ):
        text, spans = describe_classes(names)
        assert text == caption
        assert [text[start:end] for start, end in spans.values()] == names == list(spans)


def test_names_come_from_lines_or_their_numbers(tmp_path):
    file = tmp_path / "names.txt"
    for content, names in (
        ("tench\ngreat white shark\n", {"1": "tench", "2": "great white shark"}),
        ("\ufeff7 dining table\n12: dog\r\n", {"7": "dining table", "12": "dog"}),
        (f"{TENCH} tench, Tinca tinca\n\n", {TENCH: "tench"}),
    ):
        file.write_text(content, encoding="utf-8")
        assert read_names(file) == names
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ss.InputError, match=r"names\.txt.*class names"):
        read_names(file)


def test_imagenet_has_the_names_of_clip():
    assert len(imagenet_names()) == 1000
    assert (imagenet_names()[TENCH], imagenet_names()["n02123045"]) == ("tench", "tabby cat")


# ImageNet-S ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def imagenet_s(tmp_path):
    root = tmp_path / "ImageNetS919"
    masks = {
        f"{TENCH}/a": numbers_of((1000, 3, 3, 13, 13), (3, 5, 5, 10, 12)),
        f"{TENCH}/b": None,
        f"{TERRIER}/c": numbers_of((300, 5, 5, 10, 12), (1000, 0, 0, 2, 30)),
        f"{TERRIER}/empty": numbers_of((1000, 3, 3, 13, 13)),
        f"{TERRIER}/several": numbers_of((7, 3, 3, 13, 13), (8, 20, 20, 30, 30)),
        f"{TERRIER}/small": numbers_of((7, 0, 0, 5, 5), size=(20, 20)),
        f"{UNKNOWN}/d": numbers_of((9, 5, 5, 10, 12)),
    }
    for name, numbers in masks.items():
        save_photo(root / "validation" / f"{name}.JPEG")
        if numbers is not None:
            save_numbers(root / "validation-segmentation" / f"{name}.png", numbers, "RGB")
    save_numbers(root / "validation-segmentation" / TERRIER / "damaged.png", numbers_of(), "RGB")
    save_photo(root / "validation" / TERRIER / "damaged.JPEG")
    (root / "validation-segmentation" / TERRIER / "damaged.png").write_bytes(b"\x89PNG")
    return root


def test_imagenet_s(imagenet_s):
    data = open_data(f"masks:{imagenet_s}")
    assert isinstance(data, ImageNetS)
    assert (data.name, len(data)) == ("ImageNet-S validation", 8)
    first, second = data
    assert (first.key, first.caption, first.words(first.phrases[0])) == (f"{TENCH}/a", "a photo of a tench", "tench")
    assert second.caption == "a photo of an American Staffordshire Terrier"
    (region,) = first.regions
    assert (region.label, region.box, region.mask.area) == ("tench", (5, 5, 10, 12), 35)
    # A rim that is not annotated belongs to neither.
    assert (region.mask.valid().sum(), region.mask.valid()[4, 4]) == (40 * 30 - (100 - 35), False)
    # The number is above 255, so that green counts.
    assert (second.regions[0].mask.value, second.regions[0].mask.area) == (300, 35)
    assert problems_of(data) == {
        f"{TENCH}/b": "missing mask",
        f"{TERRIER}/empty": "mask with 0 classes in place of one",
        f"{TERRIER}/several": "mask with 2 classes in place of one",
        f"{TERRIER}/small": "mask of another size than its image",
        f"{TERRIER}/damaged": "unreadable mask or image",
        f"{UNKNOWN}/d": "class without a name",
    }


def test_imagenet_s_with_names_of_ones_own(imagenet_s, tmp_path):
    (tmp_path / "names.txt").write_text(f"{UNKNOWN} whatsit\n3 fish\n")
    # The folder of the images will do as well.
    data = open_data(f"masks:{imagenet_s / 'validation'}#{tmp_path / 'names.txt'}")
    assert [one.caption for one in data][::2] == ["a photo of a fish", "a photo of a whatsit"]


# Pascal VOC ----------------------------------------------------------------------------------------------------------

DOG, SOFA = 12, 18


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    classes = numbers_of((255, 2, 2, 12, 12), (DOG, 4, 4, 10, 10), (255, 20, 5, 21, 25), (SOFA, 21, 5, 30, 25))
    objects = numbers_of(
        (255, 2, 2, 12, 12), (1, 4, 4, 10, 10), (255, 20, 5, 21, 25), (2, 21, 5, 30, 15), (3, 21, 15, 30, 25)
    )
    for key in ("both", "classes", "unnamed", "colours", "none", "missing"):
        save_photo(root / "JPEGImages" / f"{key}.jpg")
    for folder, numbers in (("SegmentationClass", classes), ("SegmentationObject", objects)):
        save_numbers(root / folder / "both.png", numbers, "P")
    save_numbers(root / "SegmentationClass" / "classes.png", classes, "L")
    save_numbers(root / "SegmentationClass" / "unnamed.png", numbers_of((33, 4, 4, 10, 10)), "P")
    save_numbers(root / "SegmentationClass" / "colours.png", numbers_of((128 + 256 * 128, 4, 4, 10, 10)), "RGB")
    save_numbers(root / "SegmentationClass" / "none.png", numbers_of((255, 4, 4, 10, 10)), "P")
    save_numbers(root / "SegmentationClass" / "unlisted.png", classes, "P")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("both\nclasses\nunnamed\ncolours\nnone\nmissing\nno-image\n")
    (lists / "train.txt").write_text("unlisted\n")
    return root


def test_voc(voc):
    for spec in (f"masks:{voc}", f"masks:{voc.parent}", str(voc.parent.parent)):
        data = open_data(spec)
        assert isinstance(data, VocSegmentation)
        assert (data.name, len(data)) == ("VOC2012 segmentation", 7)
        both, classes = data
        assert both.caption == classes.caption == "a photo of a dog and a sofa"
        assert [(r.label, r.box, r.mask.area) for r in both.regions] == [
            ("dog", (4, 4, 10, 10), 36),
            ("sofa", (21, 5, 30, 15), 90),
            ("sofa", (21, 15, 30, 25), 90),
        ]
        assert [len(phrase.boxes) for phrase in both.phrases] == [1, 2]
        # Without a picture of its objects a class is one region; here it is grey and not of a palette.
        assert [(r.label, r.mask.area) for r in classes.regions] == [("dog", 36), ("sofa", 180)]
        assert not both.regions[0].mask.valid()[3, 3]
        assert problems_of(data) == {
            "unnamed": "no class with a name",
            "colours": "no class with a name",
            "none": "no class with a name",
            "missing": "missing mask",
            "no-image": "missing image",
        }
        assert "numbers 33" in data.problems["unnamed"]


def test_voc_without_lists_reads_every_mask(voc, tmp_path):
    for file in (voc / "ImageSets" / "Segmentation").iterdir():
        file.unlink()
    (tmp_path / "names.txt").write_text("33 whatsit")
    data = open_data(f"masks:{voc}#{tmp_path / 'names.txt'}")
    assert [one.key for one in data] == ["both", "classes", "unnamed"]
    assert next(one for one in data if one.key == "unnamed").caption == "a photo of a whatsit"


# PartImageNet --------------------------------------------------------------------------------------------------------


def parts(folder, annotations="annotations/val/val.json", images="images/val"):
    head, foot = [[2, 2, 12, 2, 12, 12, 2, 12]], [[20, 20, 25, 20, 25, 25, 20, 25]]
    content = {
        "images": [
            {"id": 0, "file_name": f"{TERRIER}_1.JPEG", "width": 40, "height": 30},
            {"id": 1, "file_name": f"{TERRIER}_2.JPEG", "width": 40, "height": 30},
            {"id": 2, "file_name": f"{TERRIER}_gone.JPEG", "width": 40, "height": 30},
        ],
        "categories": [
            {"id": 0, "name": "Quadruped Head", "supercategory": "Quadruped"},
            {"id": 2, "name": "Quadruped Foot", "supercategory": "Quadruped"},
            {"id": 3},
        ],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 0, "bbox": [2, 2, 10, 10], "segmentation": head, "iscrowd": 0},
            {"id": 1, "image_id": 0, "category_id": 2, "bbox": [20, 20, 5, 5], "segmentation": foot, "iscrowd": 0},
            {"id": 2, "image_id": 0, "category_id": 3, "bbox": [20, 20, 5, 5], "segmentation": foot, "iscrowd": 0},
            {"id": 3, "image_id": 0, "category_id": 9, "bbox": [20, 20, 5, 5], "segmentation": foot, "iscrowd": 0},
            {"id": 4, "image_id": 1, "category_id": 0, "bbox": [2, 2, 10, 10], "segmentation": [], "iscrowd": 0},
        ],
    }
    (folder / annotations).parent.mkdir(parents=True, exist_ok=True)
    (folder / annotations).write_text(json.dumps(content))
    for number in (1, 2):
        save_photo(folder / images / f"{TERRIER}_{number}.JPEG")


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("annotations/val/val.json", "images/val"),
        ("annotations/val.json", "images"),
        ("val.json", f"val/{TERRIER}"),
        ("val.json", "."),
    ],
)
def test_part_imagenet(tmp_path, annotations, images):
    pytest.importorskip("pycocotools", reason="polygons need it")
    parts(tmp_path, annotations, images)
    for spec in (f"masks:{tmp_path}", str(tmp_path), f"masks:{tmp_path / annotations}"):
        data = open_data(spec)
        assert isinstance(data, PartImageNet)
        (one,) = data
        assert one.caption == "a photo of a quadruped head and a quadruped foot"
        assert [(r.label, r.group, r.box, r.mask.area) for r in one.regions] == [
            ("quadruped head", "Quadruped", (2, 2, 12, 12), 100),
            ("quadruped foot", "Quadruped", (20, 20, 25, 25), 25),
        ]
        assert problems_of(data) == {
            f"{TERRIER}_2.JPEG": "no part with a mask and a name",
            f"{TERRIER}_gone.JPEG": "missing image",
        }


# Which form ----------------------------------------------------------------------------------------------------------


def test_other_folders_are_refused_and_coco_stays_coco(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "bad.json").write_text('{"images": []}')
    for spec, words in (
        (f"masks:{tmp_path / 'x'}", "none of these"),
        (f"masks:{tmp_path / 'gone'}", "does not exist"),
        (f"masks:{tmp_path / 'bad.json'}", "annotations of parts"),
        (f"masks:{tmp_path / 'gone.json'}", "does not exist"),
        (f"masks:{tmp_path / 'x'}#{tmp_path / 'gone.txt'}", "class names"),
    ):
        with pytest.raises(ss.InputError, match=words):
            open_data(spec)
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    content = {"images": [], "annotations": [], "categories": []}
    for kind in ("captions", "instances"):
        (tmp_path / "coco" / "annotations" / f"{kind}_val.json").write_text(json.dumps(content))
    assert isinstance(open_data(str(tmp_path / "coco")), Coco)


def test_folders_of_masks_are_measured(voc, tmp_path):
    results = evaluate(
        "segmentation", f"masks:{voc}", [("small", small())], [("t", ss.TokenEmbeddings())], out=tmp_path / "r"
    )
    # One image has two sofas, and the dogs are smaller than a patch.
    cases = results.records[results.records.kind == "case"]
    assert cases.label.tolist() == ["sofa"]
    assert dict(zip(results["left out"].reason, results["left out"]["count"], strict=True)) == {
        "several instances": 1,
        "smaller than a patch": 2,
    }
