"""Loaders against small files in the official formats, with the oddities that those have."""

import json

import pytest
from PIL import Image

import secondsight as ss
from secondsight.data import (
    KINDS,
    Coco,
    Flickr30k,
    Hnc,
    Jsonl,
    Kind,
    ListedDataset,
    PhraseFinder,
    coco_synonyms,
    hard_negatives,
    open_data,
    stsb,
    sugarcrepe,
    write_jsonl,
)
from secondsight.data.grounded import read_rows, read_table
from secondsight.data.negatives import changed_words

# COCO ----------------------------------------------------------------------------------------------------------------

CATEGORIES = [
    {"id": 1, "name": "person", "supercategory": "person"},
    {"id": 17, "name": "cat", "supercategory": "animal"},
    {"id": 18, "name": "dog", "supercategory": "animal"},
    {"id": 58, "name": "hot dog", "supercategory": "food"},
]


def coco_folder(folder, split="val2017", modes=("RGB", "L", "RGBA")):
    images, captions, objects = [], [], []
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    for number, mode in enumerate(modes, 1):
        name = f"{number:012}.png"
        Image.new(mode, (60, 40)).save(folder / split / name)
        images.append({"id": number, "file_name": name, "width": 60, "height": 40})
    images.append({"id": 9, "file_name": "gone.png", "width": 60, "height": 40})
    texts = [
        (1, "A dog bites a hot dog. Two men look on."),
        (1, "Ein Café – naïve DOGS, everywhere\r\n"),
        (2, "people and a cat"),
        (3, "   "),
        (9, "a dog"),
        (77, "a dog"),
    ]
    for number, (image, text) in enumerate(texts):
        captions.append({"id": 100 + number, "image_id": image, "caption": text})
    for image, category, box, crowd in (
        (1, 18, [10, 5, 20, 10], 0),
        (1, 58, [0, 0, 5, 5], 0),
        (1, 1, [1, 1, 3, 9], 0),
        (1, 1, [30, 1, 3, 9], 0),
        (2, 1, [0, 0, 50, 30], 1),
        (2, 17, [4, 4, 8, 8], 0),
        (2, 17, [4, 4, 0, 8], 0),
    ):
        one = {"id": 500 + len(objects), "image_id": image, "category_id": category}
        objects.append({**one, "bbox": box, "iscrowd": crowd})
    write = {"captions": {"images": images, "annotations": captions}}
    write["instances"] = {"images": images, "annotations": objects, "categories": CATEGORIES}
    for kind, data in write.items():
        (folder / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_coco_finds_phrases_and_their_boxes(tmp_path):
    data = Coco(coco_folder(tmp_path))
    first, second, third = list(data)
    assert [(first.words(p), p.label, len(p.boxes)) for p in first.phrases] == [
        ("dog", "dog", 1),
        ("hot dog", "hot dog", 1),
        ("men", "person", 2),
    ]
    assert first.phrases[0].boxes == ((10.0, 5.0, 30.0, 15.0),)
    assert [second.words(p) for p in second.phrases] == ["DOGS"]
    assert second.caption.endswith("everywhere")
    # A crowd is an object of the image, but no box of a phrase; a box without width is none at all.
    assert [(third.words(p), len(p.boxes)) for p in third.phrases] == [("cat", 1)]
    assert [(r.label, r.crowd) for r in third.regions] == [("person", True), ("cat", False)]
    assert data.problems == {
        "caption 103": "empty caption",
        "caption 104": "missing image: gone.png",
        "caption 105": "unknown image: 77",
    }
    assert data.summary() == (
        "COCO val2017: 6 captions, 1 left out (empty caption), 1 left out (missing image), 1 left out (unknown image)"
    )
    assert data[0] == first
    with pytest.raises(ss.InputError, match="caption 104: missing image"):
        data[4]


def test_coco_splits_are_chosen_by_name_or_karpathy(tmp_path):
    coco_folder(tmp_path)
    coco_folder(tmp_path, "train2017")
    with pytest.raises(ss.InputError, match="several splits; choose one of train2017, val2017"):
        Coco(tmp_path)
    with pytest.raises(ss.InputError, match="unknown split 'test'"):
        Coco(tmp_path, "test")
    karpathy = tmp_path / "dataset_coco.json"
    images = [{"cocoid": 2, "split": "test", "sentids": [5]}, {"cocoid": 1, "split": "restval", "sentids": [7]}]
    karpathy.write_text(json.dumps({"images": images}))
    assert {one.image_key for one in Coco(tmp_path, "val2017", karpathy=karpathy)} == {"2"}
    assert {one.image_key for one in Coco(tmp_path, "val2017", karpathy=karpathy, part="train")} == {"1"}
    with pytest.raises(ss.InputError, match="no COCO images of part 'dev'"):
        Coco(tmp_path, "val2017", karpathy=karpathy, part="dev")


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a teddy bear and a bear", [("teddy bear", "teddy bear"), ("bear", "bear")]),
        ("Three KNIVES, two geese", [("KNIVES", "knife"), ("geese", "bird")]),
        ("a horse-drawn cart at the train station", []),
        ("two fire-hydrants", [("fire-hydrants", "fire hydrant")]),
        ("dogma, category and carpet", []),
        ("a baseball bat in a ball game", [("baseball bat", "baseball bat"), ("ball", "sports ball")]),
        ("buses & wine glasses", [("buses", "bus"), ("wine glasses", "wine glass")]),
    ],
)
def test_class_names_in_captions(caption, expected):
    found = PhraseFinder(coco_synonyms()).find(caption)
    assert [(caption[s:e], label) for (s, e), label in found] == expected


def test_every_class_is_found_by_its_own_name_and_no_word_has_two_classes():
    finder = PhraseFinder(coco_synonyms())
    names = [name for name in coco_synonyms() if name]
    assert len(names) == 80
    for name in names:
        assert [label for _, label in finder.find(f"there is a {name} here")] == [name]
    words = [word for listed in coco_synonyms().values() for word in listed]
    assert len(words) == len(set(words))


def test_coco_files_that_are_none(tmp_path):
    with pytest.raises(ss.InputError, match="does not exist"):
        Coco(tmp_path / "nowhere")
    with pytest.raises(ss.InputError, match="has no captions_"):
        Coco(tmp_path)
    folder = coco_folder(tmp_path)
    (folder / "annotations" / "instances_val2017.json").write_text("{")
    with pytest.raises(ss.InputError, match="not a COCO annotation file"):
        Coco(folder)
    (folder / "annotations" / "instances_val2017.json").write_text("[]")
    with pytest.raises(ss.InputError, match="not a COCO annotation file"):
        Coco(folder)


# Flickr30k Entities --------------------------------------------------------------------------------------------------


def flickr_folder(folder):
    for name in ("Sentences", "Annotations", "flickr30k-images"):
        (folder / name).mkdir()
    (folder / "Sentences" / "12.txt").write_bytes(
        "[/EN#1/people Two girls] in [/EN#2/clothing/bodyparts red hats] at [/EN#3/scene a market] .\r\n"
        "[/EN#1/people Zwei Mädchen] lachen .\r\n".encode()
    )
    (folder / "Sentences" / "13.txt").write_text("[/EN#9/animals A dog] .\n")
    (folder / "Sentences" / "14.txt").write_text("A cat .\n")
    (folder / "Annotations" / "12.xml").write_text(
        "<annotation><size><width>60</width></size>"
        "<object><name>1</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object>"
        "<object><name>1</name><name>2</name>"
        "<bndbox><xmin>20</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>"
        "<object><name>3</name><scene>1</scene><nobndbox>1</nobndbox></object></annotation>"
    )
    (folder / "Annotations" / "13.xml").write_text("<annotation><object>")
    for name in ("12", "13", "14"):
        Image.new("RGB", (60, 40)).save(folder / "flickr30k-images" / f"{name}.jpg")
    (folder / "test.txt").write_text("12\n99\n")
    return folder


def test_flickr30k_marks_become_spans(tmp_path):
    data = Flickr30k(flickr_folder(tmp_path))
    first, second = list(data)
    assert first.caption == "Two girls in red hats at a market ."
    assert [(first.words(p), p.label, len(p.boxes)) for p in first.phrases] == [
        ("Two girls", "people", 2),
        ("red hats", "clothing", 1),
    ]
    assert first.phrases[1].boxes == ((20.0, 2.0, 30.0, 20.0),)
    assert second.caption == "Zwei Mädchen lachen ."
    assert second.words(second.phrases[0]) == "Zwei Mädchen"
    assert set(data.problems) == {"13#0", "14#0"}
    assert data.problems["14#0"] == "missing annotations"
    test = Flickr30k(tmp_path, "test")
    assert len(test) == 2
    assert test.problems == {"99": "missing sentences"}
    with pytest.raises(ss.InputError, match="no split file dev.txt; known: test"):
        Flickr30k(tmp_path, "dev")


# HNC -----------------------------------------------------------------------------------------------------------------


def hnc_file(folder):
    (folder / "images").mkdir()
    Image.new("RGB", (60, 40)).save(folder / "images" / "55.jpg")
    boxes = {
        "901": {"bbox": [5, 5, 10, 10], "name": "man"},
        "902": {"bbox": {"x": 20, "y": 1, "w": 9, "h": 9}, "name": "chair"},
    }
    captions = {
        "0": {"caption": "The man is to the right of the chair.", "label": 1, "type": "relation_obj", "bboxes": boxes},
        "1": {
            "caption": "The man is to the right of the table.",
            "label": 0,
            "type": "relation_obj",
            "cpt_p_id": 0,
            "replaced": ["chair", "table"],
            "bboxes": boxes,
        },
        "2": {"caption": "orphan", "label": 0, "cpt_p_id": 44},
        "3": {"caption": "", "label": 1},
        "4": "nonsense",
    }
    file = folder / "hnc.json"
    file.write_text(
        json.dumps({"55": {"captions": captions}, "56": {"captions": {"7": {"caption": "a dog", "label": 1}}}})
    )
    return file


def test_hnc_pairs_right_and_wrong_captions(tmp_path):
    data = Hnc(hnc_file(tmp_path), tmp_path / "images")
    (one,) = list(data)
    assert [(one.words(p), p.boxes) for p in one.phrases] == [
        ("man", ((5.0, 5.0, 15.0, 15.0),)),
        ("chair", ((20.0, 1.0, 29.0, 10.0),)),
    ]
    (wrong,) = one.negatives
    assert wrong.caption[slice(*wrong.span)] == "table"
    assert one.caption[slice(*wrong.phrase)] == "chair"
    assert wrong.kind == "relation_obj"
    assert data.problems == {
        "55/2": "negative of an unknown caption",
        "55/4": "no caption with a label",
        "55/3": "empty caption",
        "56/7": "missing image: 56.jpg",
    }


@pytest.mark.parametrize(
    ("right", "wrong", "was", "now"),
    [
        ("a red car and a dog", "a blue car and a dog", "red", "blue"),
        ("a dog.", "a small cat.", "dog", "small cat"),
        ("a dog runs", "a dog", "runs", None),
        ("a cat", "a cat", None, None),
        ("no dog here", "dog here", "no", None),
    ],
)
def test_what_differs_between_captions(right, wrong, was, now):
    spans = changed_words(right, wrong)
    assert [s and text[slice(*s)] for s, text in zip(spans, (right, wrong), strict=True)] == [was, now]


# Plain files ---------------------------------------------------------------------------------------------------------


def test_jsonl_reads_what_anyone_writes_and_says_what_is_wrong(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    good = {
        "image": "a.png",
        "caption": "a naïve 🐕 dog",
        "phrases": [{"span": "dog", "boxes": [[1, 1, 9, 9]]}],
        "negatives": ["a naïve 🐕 cat"],
    }
    lines = [
        json.dumps(good, ensure_ascii=False),
        "",
        "{broken",
        json.dumps({"image": "none.png", "caption": "x"}),
        json.dumps({"image": "a.png", "caption": " "}),
        json.dumps({**good, "phrases": [{"span": "cow", "boxes": []}]}),
        json.dumps({**good, "phrases": [{"span": [0, 99], "boxes": []}]}),
        json.dumps({**good, "phrases": [{"span": "dog", "boxes": [[9, 9, 1, 1]]}]}),
        json.dumps([1]),
    ]
    file = tmp_path / "data.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    data = open_data(file)
    (one,) = list(data)
    assert (one.words(one.phrases[0]), one.phrases[0].label) == ("dog", "dog")
    assert one.regions[0].box == (1.0, 1.0, 9.0, 9.0)
    assert one.negatives[0].caption[slice(*one.negatives[0].span)] == "cat"
    assert sorted(data.problems) == [f"line {n}" for n in (3, 4, 5, 6, 7, 8, 9)]
    write_jsonl(tmp_path / "again.jsonl", [one])
    assert list(Jsonl(tmp_path / "again.jsonl")) == [
        type(one)("1", str(one.image), one.image, one.caption, one.phrases, one.regions, one.negatives)
    ]


def test_sugarcrepe_and_stsb(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    rows = {"0": {"filename": "a.jpg", "caption": "a dog on grass", "negative_caption": "a dog on sand"}, "1": {}}
    (tmp_path / "replace_obj.json").write_text(json.dumps(rows))
    data = sugarcrepe(tmp_path / "replace_obj.json", tmp_path)
    (one,) = list(data)
    assert (one.negatives[0].kind, one.negatives[0].caption[slice(*one.negatives[0].span)]) == ("replace_obj", "sand")
    assert data.problems == {"1": "no filename, caption and negative_caption"}
    (tmp_path / "sts-test.csv").write_text(
        'main-captions\tMSRvid\t2012\t24\t2.500\tA "girl" sits.\tA girl stands.\nbad\n'
    )
    (pair,) = stsb(tmp_path / "sts-test.csv")
    assert (pair.first, pair.second, pair.score) == ('A "girl" sits.', "A girl stands.", 0.5)
    with pytest.raises(ss.InputError, match="does not exist"):
        stsb(tmp_path / "nothing.csv")


def test_data_by_name(tmp_path):
    assert isinstance(open_data(coco_folder(tmp_path / "c")), Coco)
    assert isinstance(open_data(f"coco:{tmp_path / 'c'}#val2017"), Coco)
    (tmp_path / "pairs.csv").write_text("photo,caption\n")
    for wrong, words in (
        ("nope:x", "unknown kind of data 'nope'; known: .*coco"),
        (str(tmp_path / "missing"), "does not exist"),
        (str(tmp_path / "pairs.csv"), "is a table, which only some commands read"),
        (str(tmp_path), "cannot recognise the data in .* from its files"),
        ("hnc:x.json", "does not say where the images are"),
    ):
        with pytest.raises(ss.InputError, match=words):
            open_data(wrong)


def test_a_new_kind_opens_with_its_own_function(monkeypatch):
    monkeypatch.setitem(KINDS, "mine", Kind("mine:FILE[#PART]", lambda path, part: ListedDataset(f"{path} {part}", [])))
    assert open_data("mine:a/b.txt#c").name == "a/b.txt c"
    assert open_data("mine:a/b.txt").name == "a/b.txt None"
    for kind, (words, _) in KINDS.items():
        assert words.startswith(f"{kind}:")


def test_hard_negatives_replace_one_object_by_a_plausible_other(tmp_path):
    data = Coco(coco_folder(tmp_path))
    made = {one.key: one for one in hard_negatives(data, seed=3)}
    # Of the animals only "cat" is not in the first image; food and people have no other class in this data set.
    assert [n.caption for n in made["100"].negatives] == ["A cat bites a hot dog. Two men look on."]
    assert [n.caption for n in made["101"].negatives] == ["Ein Café – naïve CATS, everywhere"]
    (wrong,) = made["102"].negatives
    assert wrong.caption == "people and a dog"
    assert wrong.caption[slice(*wrong.span)] == "dog"
    assert list(hard_negatives(data, seed=3)) == list(made.values())


def test_rows_of_a_csv_file(tmp_path):
    """A byte order mark and another separator are read; what cannot be read is one sentence."""
    file = tmp_path / "captions.csv"
    file.write_bytes("image;caption\n1.png;a dog, asleep\n".encode("utf-8-sig"))
    (tmp_path / "a.jsonl").write_text('{"caption": "two\u2028lines"}\n[1]\n', encoding="utf-8")
    assert read_table(tmp_path / "a.jsonl") == [{"caption": "two\u2028lines"}, {}]
    assert read_rows(file, ";") == [{"image": "1.png", "caption": "a dog, asleep"}]
    with pytest.raises(ss.InputError, match="missing.csv' does not exist"):
        read_rows(tmp_path / "missing.csv")
    file.write_bytes(b"image,caption\n1.png,\xe9t\xe9\n")
    with pytest.raises(ss.InputError, match="cannot be read as CSV"):
        read_rows(file)
