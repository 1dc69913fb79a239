"""The scenes' world: drawn alike everywhere, captions that are true, negatives that are not, files in COCO's format."""

import hashlib
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from secondsight.cli import app
from secondsight.data import Coco, Scenes, export_coco, open_data
from secondsight.data.masks import box_of
from secondsight.data.scenes import captions, compose, world
from secondsight.support.errors import InputError


def scene_of(index):
    return compose.random_scene(random.Random(f"test/{index}"))


def test_eighty_classes_in_three_styles():
    assert len(world.classes()) == 80
    for style in world.STYLES:
        for name in world.classes():
            drawn = world.sprite(style, name, 32, 0, False)
            assert drawn.shape == (32, 32, 4)
            assert (drawn[..., 3] > 127).mean() > 0.08, (style, name)
    assert len({world.sprite("noto", n, 32, 0, False).tobytes() for n in world.classes()}) == 80


def test_coco_s_names_are_coco_s():
    from secondsight.data import coco_synonyms

    assert sum(name in coco_synonyms() for name in world.classes()) == 67


def test_scenes_are_the_same_on_every_machine():
    digest = hashlib.sha256()
    for style in world.STYLES:
        for one in Scenes(12, style=style, seed=3):
            digest.update(np.asarray(one.image).tobytes() + one.caption.encode())
            digest.update(repr([(p.span, p.boxes) for p in one.phrases]).encode())
    assert digest.hexdigest() == "63d778c480aff765d0e6c6c89cfbcea6af39ea4fb3ed2d3a0b88098e958c9b30"


def test_a_changed_sheet_is_refused(monkeypatch):
    world._sheet.cache_clear()
    monkeypatch.setitem(world.STYLES, "noto", "0" * 64)
    with pytest.raises(InputError, match="not the package's file"):
        world._sheet("noto")
    world._sheet.cache_clear()


@pytest.mark.parametrize("index", range(60))
def test_masks_boxes_and_visible_shares_agree_with_the_pixels(index):
    scene = scene_of(index)
    drawn = compose.draw(scene, "noto", 96)
    bare = compose.draw_background(scene.background, 96)
    changed = (drawn.pixels != bare).any(-1)
    together = np.zeros((96, 96), int)
    for one, mask, share in zip(scene.objects, drawn.masks, drawn.visible, strict=True):
        together += mask
        assert mask.any()
        assert 0.1 < share <= 1
        x0, y0, x1, y1 = box_of(mask)
        x, y, side = (2 * v for v in (one.x, one.y, one.side))
        assert x <= x0 < x1 <= x + side
        assert y <= y0 < y1 <= y + side
        alone = compose.draw(compose.Scene((one,), scene.background), "noto", 96).masks[0]
        assert share == pytest.approx(mask.sum() / alone.sum())
        assert not (mask & ~alone).any()
    assert together.max() <= 1, "a pixel belongs to one object"
    assert (changed | (together == 0)).mean() > 0.97, "what a mask claims has been drawn over"


def test_some_objects_are_covered_and_most_are_not():
    shares = [v for i in range(400) for v in compose.draw(scene_of(i), "noto", 48).visible]
    covered = np.mean(np.array(shares) < 0.9)
    assert 0.02 < covered < 0.2
    assert min(shares) < 0.7


def test_themes_make_objects_occur_together():
    def same_theme(correlated):
        pairs = []
        for i in range(400):
            scene = compose.random_scene(random.Random(i), 2, correlated=correlated)
            themes = [set(world.classes()[o.name].themes) for o in scene.objects]
            pairs.append(bool(set.intersection(*themes)) if len(themes) == 2 else correlated == 1)
        return np.mean(pairs)

    assert same_theme(1.0) == 1
    assert same_theme(0.0) < 0.5


@pytest.mark.parametrize("index", range(80))
def test_captions_are_true_and_their_spans_are_the_nouns(index):
    scene = scene_of(index)
    rng = random.Random(index)
    caption = captions.describe(scene, rng)
    text = caption.text()
    assert set(text.replace(",", " ,").split()) <= set(captions.words())
    count = Counter(o.name for o in scene.objects)
    for noun, (start, end) in caption.spans():
        thing = world.classes()[noun.name]
        assert text[start:end] == (thing.plural if count[noun.name] > 1 else noun.name)
        assert len(noun.objects) == count[noun.name]
        sides = [scene.objects[i].side for i in noun.objects]
        assert noun.size != "big" or min(sides) >= compose.BIG
        assert noun.size != "small" or max(sides) <= compose.SMALL
        if text[:start].endswith((" a ", " an ")):
            assert text[:start].endswith(" an ") == (text[start] in "aeiou")
    for i, part in enumerate(caption.parts):
        if part in captions.OPPOSITE:
            a, b = (scene.objects[caption.parts[j].objects[0]].centre for j in (i - 1, i + 1))
            holds = {" to the left of ": a[0] < b[0], " to the right of ": a[0] > b[0],
                     " above ": a[1] < b[1], " below ": a[1] > b[1]}  # fmt: skip
            assert holds[part]
    places = [p for p in world.PLACES.values() if p in text]
    assert places in ([], [world.PLACES.get(scene.background.kind)])


def test_every_object_is_named_when_asked_for():
    for i in range(60):
        scene = scene_of(i)
        caption = captions.describe(scene, random.Random(i), every=True)
        assert {noun.name for noun, _ in caption.spans()} == {o.name for o in scene.objects}


def test_negatives_are_wrong_by_one_part():
    kinds = Counter()
    for i in range(300):
        scene = scene_of(i)
        rng = random.Random(i)
        caption = captions.describe(scene, rng)
        text = caption.text()
        for one in captions.wrong_captions(scene, caption, rng):
            kinds[one.kind] += 1
            other = one.caption.text()
            assert other != text
            assert other[slice(*one.span)] != text[slice(*one.replaced)]
            if one.kind == "replace_object":
                new = other[slice(*one.span)]
                present = {o.name for o in scene.objects}
                assert new not in present | {world.classes()[n].plural for n in present}
            else:
                # Outside the replaced part nothing changed.
                assert other[: one.span[0]] == text[: one.replaced[0]]
                assert other[one.span[1] :] == text[one.replaced[1] :]
    assert set(kinds) == {"replace_object", "swap_relation", "swap_size", "swap_place"}
    assert min(kinds.values()) > 20


def test_the_data_set_s_phrases_have_their_objects_boxes():
    data = Scenes(40, captions=2, seed=5)
    assert len(data) == 80
    seen = 0
    for one in data:
        by_label = {}
        for region in one.regions:
            by_label.setdefault(region.label, []).append(region.box)
        for phrase in one.phrases:
            assert list(phrase.boxes) == by_label[phrase.label]
            seen += 1
        assert one.facts["background"]
    assert seen > 80
    assert data[0].image_key == data[1].image_key != data[2].image_key
    assert not data.problems


def test_exported_files_read_as_coco(tmp_path):
    from pycocotools.coco import COCO

    data = Scenes(30, captions=2, seed=1, every=True)
    export_coco(data, tmp_path, "val")
    read = Coco(tmp_path, "val")
    assert len(read) == len(data)
    for ours, theirs in zip(data, read, strict=True):
        assert theirs.caption == ours.caption
        assert [(p.span, p.boxes, p.label) for p in theirs.phrases] == [
            (p.span, p.boxes, p.label) for p in ours.phrases
        ]
        assert [(r.label, r.box, r.group) for r in theirs.regions] == [(r.label, r.box, r.group) for r in ours.regions]
        assert [r.visible for r in theirs.regions] == pytest.approx([r.visible for r in ours.regions], abs=1e-4)
        assert np.array_equal(np.asarray(Image.open(theirs.image)), np.asarray(ours.image))
    official = COCO(str(tmp_path / "annotations" / "instances_val.json"))
    _, drawn = data.scene(4)
    found = [official.annToMask(a) for a in official.loadAnns(official.getAnnIds(imgIds=[4]))]
    assert all(np.array_equal(a, b) for a, b in zip(found, drawn.masks, strict=True))
    with pytest.raises(InputError, match="exists"):
        export_coco(data, tmp_path, "val")


def test_command_line(tmp_path):
    done = CliRunner().invoke(
        app, ["scenes", "--n", "5", "--style", "fluent", "--size", "64", "--out", str(tmp_path / "x")]
    )
    assert done.exit_code == 0, done.output
    assert len(open_data(f"coco:{tmp_path / 'x'}#val")) == 5
    assert len(list((tmp_path / "x" / "val").glob("*.png"))) == 5
    wrong = CliRunner().invoke(app, ["scenes", "--style", "oil", "--out", str(tmp_path / "y")])
    assert wrong.exit_code == 2
    assert "unknown style" in wrong.output
    assert not (tmp_path / "y").exists()


def test_named_as_data():
    data = open_data("scenes:twemoji/7#2")
    assert (data.style, len(data), data.seed) == ("twemoji", 7, 2)
    assert len(open_data("scenes:noto")) == 200
    for bad in ("scenes:noto/many", "scenes:oil", "scenes:noto/0"):
        with pytest.raises(InputError):
            open_data(bad)
    for wrong in ({"size": 5}, {"most": 9}, {"correlated": 2.0}, {"captions": 0}):
        with pytest.raises(InputError):
            Scenes(3, **wrong)
