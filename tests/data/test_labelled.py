"""Images with one class each: folders, lists of files, and annotated data sets."""

import json

import pytest
from PIL import Image

import secondsight as ss
from secondsight.data import Region, Scenes
from secondsight.data.grounded import GroundedCaption, ListedDataset
from secondsight.data.labelled import open_labelled


def photo(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), colour).save(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("traffic_light/a.png", "traffic_light/inner/b.JPG", "cup/c.png", ".hidden/d.png", "e.png"):
        photo(tmp_path / name)
    (tmp_path / "cup" / "notes.txt").write_text("no photograph")
    return tmp_path


def test_a_folder_of_classes(folder):
    data = open_labelled(f"folder:{folder}")
    assert list(data.keys) == ["cup/c.png", "traffic_light/a.png", "traffic_light/inner/b.JPG"]
    assert data.labels == ["cup", "traffic light", "traffic light"]
    assert data.class_names == ["cup", "traffic light"]
    assert data[0].image == folder / "cup" / "c.png"
    assert len(data.first(2)) == 2


def test_an_empty_class_folder_is_named(folder):
    (folder / "bowl").mkdir()
    data = open_labelled(f"folder:{folder}")
    assert data.problems == {"bowl": "a folder without photographs"}
    assert "bowl" not in data.class_names


def test_a_table_of_files(folder):
    (folder / "list.csv").write_text("image,label\ncup/c.png,cup\ntraffic_light/a.png,light\nmissing.png,cup\ne.png,\n")
    data = open_labelled(folder / "list.csv")
    assert [(image.key, image.label) for image in (data[0], data[1])] == [
        ("cup/c.png", "cup"),
        ("traffic_light/a.png", "light"),
    ]
    assert data.problems["entry 3"] == "missing image: missing.png"
    assert "without an image and a label" in data.problems["entry 4"]


def test_lines_of_json_may_have_boxes(folder):
    rows = [
        {"image": "e.png", "label": "cup", "boxes": [[1, 2, 10, 12]]},
        {"image": "cup/c.png", "label": "cup", "boxes": [[5, 5, 1, 1]]},
        ["e.png"],
    ]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = open_labelled(f"labels:{folder / 'list.jsonl'}")
    assert data.keys == ["e.png"]
    assert data.has_boxes
    assert data[0].boxes == ((1.0, 2.0, 10.0, 12.0),)
    assert "boxes that are not" in data.problems["entry 2"]
    assert "entry 3" in data.problems


def test_an_image_with_two_labels_is_left_out(folder):
    (folder / "list.csv").write_text("image,label\ne.png,cup\ncup/c.png,cup\ne.png,bowl\ncup/c.png,cup\n")
    data = open_labelled(f"labels:{folder / 'list.csv'}")
    assert data.keys == ["cup/c.png"]
    assert "two labels" in data.problems["e.png"]


def test_scenes_with_one_class_have_their_boxes():
    scenes = Scenes(6, seed=2, captions=2)
    data = open_labelled(scenes)
    wanted = {e.image_key: e for e in scenes if len({r.label for r in e.regions}) == 1}
    assert list(data.keys) == list(wanted)
    for number, key in enumerate(data.keys):
        image = data[number]
        assert image.boxes == tuple(region.box for region in wanted[key].regions)
        assert image.label == data.labels[number] == wanted[key].regions[0].label
    assert len(data.class_names) == 80


def test_unusable_data_is_refused(tmp_path):
    with pytest.raises(ss.InputError, match="holds no photographs in folders of its classes"):
        open_labelled(f"folder:{tmp_path}")
    with pytest.raises(ss.InputError, match="does not exist"):
        open_labelled(f"folder:{tmp_path / 'missing'}")
    with pytest.raises(ss.InputError, match="unknown kind of labelled images 'imagenet'"):
        open_labelled("imagenet:val")
    (tmp_path / "list.csv").write_text("file,class\na.png,cup\n")
    with pytest.raises(ss.InputError, match="holds no labelled images, with image and label"):
        open_labelled(f"labels:{tmp_path / 'list.csv'}")
    with pytest.raises(ss.InputError, match="ends in neither"):
        open_labelled(f"labels:{tmp_path / 'list.txt'}")
    two = [Region("cup", (0, 0, 5, 5)), Region("bowl", (0, 0, 5, 5))]
    crowded = GroundedCaption("0", "a", Image.new("RGB", (8, 8)), "a cup and a bowl", regions=tuple(two))
    with pytest.raises(ss.InputError, match="no image with annotated objects of exactly one class"):
        open_labelled(ListedDataset("pairs", [crowded]))
