"""Benchmarks of compositionality against small files in the forms in which they are published, with their oddities."""

import json

import numpy as np
import pytest
from PIL import Image

import secondsight as ss
from secondsight.data import (
    Comparison,
    Hnc,
    Scenes,
    comparison_of,
    open_data,
    read_compositional,
    sugarcrepe,
    write_compositional,
)
from secondsight.data.compositional import (
    ComparedCaption,
    aro,
    mmvp_vlm,
    scene_pairs,
    vl_checklist,
    whatsup,
    winoground,
)
from secondsight.data.grounded import EntryError
from secondsight.data.scenes import classes


def picture(path, size=(60, 40), colour=(200, 10, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def lines(*entries):
    return "".join(json.dumps(entry) + "\n" for entry in entries)


# The schema ----------------------------------------------------------------------------------------------------------


def test_a_line_says_which_captions_fit_which_image(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    entries = [
        {"images": ["a.png"], "captions": ["a dog", "a cat", "a cow"], "tag": "object"},
        {"id": "two", "images": ["a.png", "b.png"], "captions": ["a dog", "a cat"], "tag": ["Noun", "2 words"]},
        {"id": "both", "images": ["c.png"], "captions": ["a dog runs", "a running dog", "a cat runs"], "fits": [0, 1]},
        {"id": "crossed", "images": ["a.png", "b.png"], "captions": ["a dog", "a cat"], "fits": [[1], [0]]},
    ]
    data = open_data(f"compositional:{write(tmp_path / 'data.jsonl', lines(*entries))}")
    examples = list(data)
    assert [(e.key, e.image_key, e.caption, [n.caption for n in e.negatives]) for e in examples] == [
        ("1", "a.png", "a dog", ["a cat", "a cow"]),
        ("two/0/0", "a.png", "a dog", ["a cat"]),
        ("two/1/1", "b.png", "a cat", ["a dog"]),
        ("both/0/0", "c.png", "a dog runs", ["a cat runs"]),
        ("both/0/1", "c.png", "a running dog", ["a cat runs"]),
        ("crossed/0/1", "a.png", "a cat", ["a dog"]),
        ("crossed/1/0", "b.png", "a dog", ["a cat"]),
    ]
    assert [n.kind for e in examples[:2] for n in e.negatives] == ["object", "object", "Noun"]
    assert all(isinstance(e, ComparedCaption) for e in examples)
    assert [(e.image_number, e.caption_number, e.wrong_numbers) for e in examples[3:5]] == [(0, 0, (2,)), (0, 1, (2,))]
    assert data.problems == {}


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("{", "not JSON"),
        ([], 'not an object with "images" and "captions"'),
        ({"images": ["a.png"], "captions": [1, "b"]}, 'not an object with "images" and "captions"'),
        ({"images": ["a.png"], "captions": ["a dog"]}, "no image, or fewer than two captions"),
        ({"images": [], "captions": ["a dog", "a cat"]}, "no image, or fewer than two captions"),
        ({"images": ["a.png"], "captions": ["a dog", " "]}, "empty caption"),
        ({"images": ["a.png"], "captions": ["a", "b"], "fits": [0, 1]}, "an image lacks a caption that fits"),
        ({"images": ["a.png"], "captions": ["a", "b"], "fits": [2]}, "an image lacks a caption that fits"),
        ({"images": ["a.png"], "captions": ["a", "b"], "fits": [[0], [1]]}, "fits has not one list for every image"),
        ({"images": ["a.png"], "captions": ["a", "b"], "fits": "0"}, '"fits" is not a list of numbers'),
        ({"images": ["a.png"], "captions": ["a", "b"], "kinds": ["x"]}, "kinds has not one entry for every caption"),
        ({"images": ["a.png"], "captions": ["a", "b"], "crops": [[1, 1, 1, 5]]}, "crop without four numbers"),
        ({"images": ["a.png"], "captions": ["a", "b"], "regions": [7]}, "entry of another form"),
        ({"id": "1", "images": ["a.png"], "captions": ["a", "b"]}, "the id '1' of another entry"),
        ({"images": ["gone.png"], "captions": ["a", "b"]}, "missing image: gone.png"),
    ],
)
def test_unusable_lines_are_problems(tmp_path, entry, reason):
    picture(tmp_path / "a.png")
    good = {"images": ["a.png"], "captions": ["a dog", "a cat"]}
    text = lines(good) + (entry if isinstance(entry, str) else json.dumps(entry))
    data = read_compositional(write(tmp_path / "data.jsonl", text))
    assert [e.caption for e in data] == ["a dog"]
    (problem,) = data.problems.values()
    assert problem.startswith(reason)


def test_a_pair_whose_other_image_is_missing_is_left_out_whole(tmp_path):
    picture(tmp_path / "a.png")
    entry = {"images": ["a.png", "gone.png"], "captions": ["a dog", "a cat"]}
    data = read_compositional(write(tmp_path / "data.jsonl", lines(entry)))
    assert list(data) == []
    assert data.problems == {"1": "missing image: gone.png"}


def test_what_is_written_is_read_back(tmp_path):
    file = picture(tmp_path / "a.png")
    (tmp_path / "b").mkdir()
    entry = {
        "id": "x", "images": [str(file)], "captions": ["a dog and a cat", "a cow and a cat"], "fits": [[0]],
        "tag": ["object"], "kinds": ["", "replace"], "group": "g", "crops": [[10, 5, 50, 30]],
        "phrases": [[{"span": [2, 5], "boxes": [[1, 1, 9, 9]], "label": "dog"}], []],
        "regions": [[{"label": "dog", "box": [1, 1, 9, 9], "group": "animal", "crowd": False, "visible": 0.5}]],
    }  # fmt: skip
    data = read_compositional(write(tmp_path / "data.jsonl", lines(entry)))
    (example,) = data
    assert example.image.size == (40, 25)
    assert example.image_key.endswith("a.png#10,5,50,30")
    assert (example.words(example.phrases[0]), example.regions[0].visible) == ("dog", 0.5)
    assert example.negatives[0].kind == "replace"
    write_compositional(tmp_path / "b" / "copy.jsonl", data.comparisons)
    assert read_compositional(tmp_path / "b" / "copy.jsonl").comparisons == data.comparisons
    drawn = next(iter(scene_pairs(Scenes(1))))
    with pytest.raises(ss.InputError, match="has no image file to refer to"):
        write_compositional(tmp_path / "c.jsonl", [drawn.comparison])
    with pytest.raises(ss.InputError, match="does not exist"):
        read_compositional(tmp_path / "nothing.jsonl")


def test_a_caption_with_negatives_of_any_data_set_is_a_comparison(tmp_path):
    picture(tmp_path / "a.jpg")
    rows = {"0": {"filename": "a.jpg", "caption": "a dog on grass", "negative_caption": "a dog on sand"}}
    direct = sugarcrepe(write(tmp_path / "swap_obj.json", rows), tmp_path)
    write_compositional(tmp_path / "crepe.jsonl", map(comparison_of, direct))
    (one,), (other,) = direct, read_compositional(tmp_path / "crepe.jsonl")
    assert (one.image, one.caption, one.negatives) == (other.image, other.caption, other.negatives)


def test_hnc_keeps_its_kinds_boxes_and_phrases(tmp_path):
    picture(tmp_path / "images" / "55.jpg")
    boxes = {"901": {"bbox": [5, 5, 10, 10], "name": "man"}, "902": {"bbox": [20, 1, 9, 9], "name": "chair"}}
    captions = {
        "0": {"caption": "The man is right of the chair.", "label": 1, "bboxes": boxes},
        "1": {"caption": "The man is right of the table.", "label": 0, "type": "obj", "cpt_p_id": 0},
        "2": {"caption": "The man is left of the chair.", "label": 0, "type": "relation", "cpt_p_id": 0},
    }
    direct = Hnc(write(tmp_path / "hnc.json", {"55": {"captions": captions}}), tmp_path / "images")
    write_compositional(tmp_path / "hnc.jsonl", map(comparison_of, direct))
    (one,), (other,) = direct, read_compositional(tmp_path / "hnc.jsonl")
    for name in ("image", "caption", "phrases", "regions", "negatives"):
        assert getattr(one, name) == getattr(other, name)


# Published forms -----------------------------------------------------------------------------------------------------


def test_winoground(tmp_path):
    for name in ("ex_0_img_0", "ex_0_img_1"):
        picture(tmp_path / "data" / "images" / f"{name}.png")
    row = {
        "id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "some plants surrounding a lightbulb",
        "caption_1": "a lightbulb surrounding some plants", "tag": "Noun Phrase, Determiner-Numeral",
        "secondary_tag": "", "num_main_preds": 1, "collapsed_tag": "Object",
    }  # fmt: skip
    lacking = {**row, "id": 1, "image_1": "ex_1_img_1", "secondary_tag": "Symbolic", "num_main_preds": 2}
    write(tmp_path / "data" / "examples.jsonl", lines(row, lacking, {"id": 2}))
    data = open_data(f"winoground:{tmp_path}")
    first, second = data
    assert (first.caption, second.caption) == (row["caption_0"], row["caption_1"])
    assert first.image == tmp_path / "data" / "images" / "ex_0_img_0.png"
    assert [c.tags for c in data.comparisons] == [
        ("Object", "1 main predicate"),
        ("Object", "2 main predicates", "Symbolic"),
    ]
    assert data.problems == {
        "1": "missing image: ex_1_img_1.png",
        "line 3": "entry of another form: KeyError: 'image_0'",
    }
    beside = winoground(tmp_path / "data" / "examples.jsonl", tmp_path / "data" / "images")
    assert beside.comparisons == data.comparisons
    (tmp_path / "empty").mkdir()
    with pytest.raises(ss.InputError, match=r"has no data/examples\.jsonl"):
        winoground(tmp_path / "empty")


def aro_row(**changes):
    row = {
        "image_id": 1, "relation_name": "behind", "image_path": "1.jpg", "bbox_x": 10, "bbox_y": 5, "bbox_w": 20,
        "bbox_h": 15, "true_caption": "the horse is behind the fence", "false_caption": "the fence is behind the horse",
    }  # fmt: skip
    return {**row, **changes}


def test_aro_shows_the_box_of_the_relation(tmp_path):
    photo = picture(tmp_path / "images" / "1.jpg")
    pixels = np.arange(60 * 40 * 3, dtype=np.uint8).reshape(40, 60, 3)
    Image.fromarray(pixels).save(photo.with_suffix(".png"))
    attributes = aro_row(image_path="1.png", attributes=["white", "round"])
    del attributes["relation_name"]
    rows = [aro_row(), attributes, aro_row(bbox_w=0), aro_row(image_path="2.jpg"), "nonsense"]
    data = open_data(f"aro:{write(tmp_path / 'visual_genome_relation.json', rows)}")
    first, second = data
    assert first.image.size == (20, 15)
    assert np.array_equal(np.asarray(second.image), pixels[5:20, 10:30])
    assert [c.tags for c in data.comparisons[:2]] == [("behind",), ("white / round",)]
    assert first.negatives[0].caption == "the fence is behind the horse"
    assert first.image_key == "1.jpg#10,5,30,20"
    assert data.problems["2"] == "box without a width and a height"
    assert data.problems["3"] == "missing image: 2.jpg"
    assert set(data.problems) == {"2", "3", "4"}


def test_aro_word_orders(tmp_path):
    picture(tmp_path / "images" / "val2014" / "x.jpg")
    caption = 'A man, in "red", rides: his horse on the wide beach!'
    written = [{"image": "val2014/x.jpg", "caption_options": ["a b c", "c b a", "b a c"]}]
    (example,) = aro(write(tmp_path / "coco_order.json", written))
    assert (example.caption, len(example.negatives)) == ("a b c", 2)
    karpathy = [{"image": "val2014/x.jpg", "caption": [caption, "a"]}, {"image": "val2014/x.jpg", "caption": None}]
    file = write(tmp_path / "coco_karpathy_test.json", karpathy)
    data = aro(file)
    (example,) = data
    assert example.caption == "a man, in red , rides his horse on the wide beach"
    words = example.caption.split()
    shuffled, within = (negative.caption.split() for negative in example.negatives)
    assert sorted(shuffled) == sorted(within) == sorted(words)
    assert [sorted(within[i : i + 3]) for i in range(0, 11, 3)] == [sorted(words[i : i + 3]) for i in range(0, 11, 3)]
    assert {tuple(words[i : i + 3]) for i in range(0, 9, 3)} <= {tuple(shuffled[i : i + 3]) for i in range(11)}
    assert data.problems == {"0/1": "no image, or fewer than two captions"}
    assert [e.negatives for e in aro(file)] == [e.negatives for e in data]


def test_sugarcrepe_pp_has_two_right_captions(tmp_path):
    picture(tmp_path / "val2017" / "1.jpg")
    row = {
        "id": 0, "filename": "1.jpg", "caption": "Two giraffe and a zebra stand in a field.",
        "caption2": "In a field, two giraffes and a zebra are standing.",
        "negative_caption": "A giraffe and two zebras stand in a field.",
    }  # fmt: skip
    file = write(
        tmp_path / "swap_att.json", [row, {**row, "id": 1, "caption2": None}, {**row, "id": 2, "filename": "2.jpg"}]
    )
    data = open_data(f"sugarcrepe++:{file}#{tmp_path / 'val2017'}")
    first, second = data
    assert (first.caption, second.caption) == (row["caption"], row["caption2"])
    assert first.negatives[0].caption == second.negatives[0].caption == row["negative_caption"]
    assert first.comparison is second.comparison
    assert data.comparisons[0].tags == ("swap_att",)
    assert data.problems == {"1": "empty caption", "2": "missing image: 2.jpg"}
    with pytest.raises(ss.InputError, match=r"SugarCrepe\+\+ does not say where the images are"):
        open_data(f"sugarcrepe++:{file}")


def test_whatsup_leaves_out_the_authors_folder(tmp_path):
    options = [
        "A mug on a table",
        "A mug under a table",
        "A mug to the left of a table",
        "A mug to the right of a table",
    ]
    names = ["mug_on_table", "mug_left_of_table"]
    for name in names:
        picture(tmp_path / "controlled_images" / f"{name}.jpeg")
    rows = [{"image_path": f"data/controlled_images/{name}.jpeg", "caption_options": options} for name in names]
    gone = {"image_path": "data/controlled_clevr/cup_in-front_of_plate.jpeg", "caption_options": options}
    data = open_data(f"whatsup:{write(tmp_path / 'controlled_images_dataset.json', [*rows, gone])}")
    first, _ = data
    assert first.image == tmp_path / "controlled_images" / "mug_on_table.jpeg"
    assert (first.caption, len(first.negatives)) == (options[0], 3)
    assert [(c.tags, c.group) for c in data.comparisons] == [
        (("on",), "mug/table"),
        (("left of",), "mug/table"),
        (("in-front of",), "cup/plate"),
    ]
    assert data.problems == {"2": "missing image: cup_in-front_of_plate.jpeg"}


def test_whatsup_questions_are_lists_with_an_image_number(tmp_path):
    picture(tmp_path / "val2017" / "000000000139.jpg")
    picture(tmp_path / "vg" / "139.jpg")
    row = [139, "A photo of a dog to the left of a cat", "A photo of a dog to the right of a cat"]
    file = write(tmp_path / "coco_qa_two_obj.json", [row, [140, "one"]])
    for folder, name in (("val2017", "000000000139.jpg"), ("vg", "139.jpg")):
        data = whatsup(file, tmp_path / folder)
        (example,) = data
        assert example.image.name == name
        assert data.comparisons[0].tags == ("left",)
        assert set(data.problems) == {"1"}


def test_mmvp_vlm_pairs_statements_by_number(tmp_path):
    for name in ("Quantity/1.jpg", "Quantity/2.jpg", "Texts/4.jpg", "Texts/3.jpg"):
        picture(tmp_path / "MLLM_VLM Images" / name)
    text = (
        "\ufeffQuestion ID,Type,Statement\n1,Quantity,one dog\n2,Quantity,two dogs\n,Quantity,nothing\n"
        '4,Texts,"a ""4"" on it"\n3,Texts,a 3 on it\n5,Texts,alone\n'
    )
    data = open_data(f"mmvp-vlm:{write(tmp_path / 'Questions.csv', text).parent}")
    first, _, third, fourth = data
    assert (first.caption, first.image.name) == ("a photo of one dog", "1.jpg")
    assert (third.caption, third.image.name) == ("a photo of a 3 on it", "3.jpg")
    assert (fourth.caption, fourth.image.name) == ('a photo of a "4" on it', "4.jpg")
    assert [(c.key, c.tags) for c in data.comparisons] == [("1-2", ("Quantity",)), ("3-4", ("Texts",))]
    assert data.problems == {
        "line 4": "no number, type and statement",
        "5-6": "a statement without the other one of its pair",
    }
    with pytest.raises(ss.InputError, match="MMVP-VLM does not say where the images are"):
        mmvp_vlm(write(tmp_path / "elsewhere" / "Questions.csv", text))


def test_vl_checklist_counts_the_first_of_several_captions(tmp_path):
    picture(tmp_path / "VG_100K" / "1.jpg")
    several = ["1.jpg", {"POS": ["a man whistles", "a priest whistles"], "NEG": ["a man sits", "a priest sits"]}]
    rows = [
        ["VG_100K/1.jpg", {"POS": ["small floor"], "NEG": ["large floor"]}],
        several,
        ["2.jpg", {"POS": [], "NEG": []}],
    ]
    data = vl_checklist(write(tmp_path / "size.json", [*rows, ["3.jpg", {"POS": ["a"], "NEG": ["b"]}]]), tmp_path)
    (example,) = data
    assert (example.caption, example.negatives[0].caption, example.negatives[0].kind) == (
        "small floor",
        "large floor",
        "size",
    )
    assert data.comparisons[1].captions == ("a man whistles", "a man sits")
    assert {key: reason.split(":")[0] for key, reason in data.problems.items()} == {
        "1": "missing image",
        "2": "entry of another form",
        "3": "missing image",
    }
    with pytest.raises(ss.InputError, match="is not a file of VL-CheckList: it needs a list"):
        vl_checklist(write(tmp_path / "other.json", {}), tmp_path)


# Scenes --------------------------------------------------------------------------------------------------------------


def test_scene_pairs_exchange_two_objects_and_their_words():
    data = open_data("scene-pairs:noto/6#3")
    assert [c.tags for c in data.comparisons] == [("relation",), ("size",), ("number",)] * 2
    for comparison in data.comparisons:
        first, second = comparison.captions
        assert first != second
        if comparison.tags == ("relation",):
            assert sorted(first.replace("an ", "a ").split()) == sorted(second.replace("an ", "a ").split())
        names = [[region.label for region in regions] for regions in comparison.regions]
        assert sorted(set(names[0])) == sorted(set(names[1]))
        assert names[0] != names[1]
        for image, caption in enumerate(comparison.captions):
            for phrase in comparison.phrases[image]:
                labelled = {r.box for r in comparison.regions[image] if r.label == phrase.label}
                assert set(phrase.boxes) == labelled
                assert caption[slice(*phrase.span)] in (phrase.label, classes()[phrase.label].plural)
    again = open_data("scene-pairs:noto/6#3").comparisons
    assert [c.captions for c in again] == [c.captions for c in data.comparisons]
    assert all(np.array_equal(a.images[0], b.images[0]) for a, b in zip(again, data.comparisons, strict=True))
    assert len(list(data)) == 12


def test_a_relation_holds_in_its_own_scene_only():
    for comparison in open_data("scene-pairs:noto/15#1").comparisons[::3]:
        for image in range(2):
            first, second = (phrase.boxes[0] for phrase in comparison.phrases[image])
            relation = next(r for r in ("left", "right", "above", "below") if r in comparison.captions[image].split())
            axis = 0 if relation in ("left", "right") else 1
            before = first[axis] + first[axis + 2] < second[axis] + second[axis + 2]
            assert before == (relation in ("left", "above"))


def test_every_image_needs_a_caption_that_fits():
    comparison = Comparison("x", ("a",), (Image.new("RGB", (8, 8)),), ("a dog", "a cat"), ((),))
    with pytest.raises(EntryError, match="an image lacks a caption that fits"):
        comparison.check()
