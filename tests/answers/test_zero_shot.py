"""Zero-shot classification: the classifier is the host's own, and every margin is explained in parts that add up."""

import json
from dataclasses import replace

import open_clip
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from typer.testing import CliRunner

import models
import secondsight as ss
from secondsight.answers.zero_shot import classes, margins, tables, zero_shot
from secondsight.cli import app
from secondsight.data import Scenes, coco_synonyms
from secondsight.data.labelled import LabelledData, LabelledImage, open_labelled
from secondsight.scale.lead import NINTHS
from secondsight.scale.store import open_store

COLOURS = {"cup": (250, 40, 30), "bowl": (40, 200, 60), "traffic light": (30, 60, 250)}
TEMPLATES = ("a photo of a {}.", "the {} in a {} shop")


def picture(colour, seed):
    noise = torch.randint(0, 60, (20, 24, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray((noise // 2 + (torch.tensor(colour) * 0.8).byte()).numpy())


def pictures(count=4):
    images = [
        LabelledImage(f"{name}-{i}", picture(colour, 10 * i), name, ((0.0, 0.0, 12.0, 20.0),))
        for name, colour in COLOURS.items()
        for i in range(count)
    ]
    return LabelledData.of("pictures", images)


@pytest.fixture(scope="module")
def model():
    return models.small(16)


@pytest.fixture(scope="module")
def answer(model, tmp_path_factory):
    return zero_shot(
        pictures(), model, tmp_path_factory.mktemp("zero-shot"), classes={**{n: (n,) for n in COLOURS}, "mug": ("mug", "jug")},
        templates=TEMPLATES, dtype="float32",
    )  # fmt: skip


@pytest.fixture(scope="module")
def classifier(answer):
    names = {**{name: (name,) for name in COLOURS}, "mug": ("mug", "jug")}
    prompts = {name: [classes.fill(t, word) for t in TEMPLATES for word in words] for name, words in names.items()}
    return classes.Classifier(prompts, open_store(answer.out / "text"))


def test_the_classifier_is_the_hosts_own(classifier, answer):
    host = models.clip(torch.float64, vision={"image_size": 16}, text={"context_length": 24, "vocab_size": 49408})
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    formats = [lambda word, t=template: t.replace("{}", word) for template in TEMPLATES]
    names = ["cup", "bowl", "traffic light"]
    expected = open_clip.build_zero_shot_classifier(host, tokenizer, names, formats)  # (joint, class)
    torch.testing.assert_close(classifier.weights[:3], expected.T, rtol=0, atol=1e-6)
    preprocess = open_clip.image_transform(16, is_train=False)
    data = pictures()
    batch = torch.stack([preprocess(data[i].image.convert("RGB")).double() for i in range(len(data))])
    with torch.no_grad():
        logits = host.encode_image(batch, normalize=True) @ expected
    records = answer["records"]
    for row, scores in zip(records.itertuples(), logits, strict=True):
        assert row.similarity == pytest.approx(float(scores[names.index(row.label)]), abs=1e-6)


def test_synonyms_are_prompts_of_their_class(classifier, model):
    texts = [t.replace("{}", word) for t in TEMPLATES for word in ("mug", "jug")]
    mean = F.normalize(model.text.embed(texts), dim=-1).mean(0)
    torch.testing.assert_close(classifier.weights[3], F.normalize(mean, dim=0), rtol=0, atol=1e-6)


def test_a_dot_products_prompts_are_averaged_as_they_are(model, tmp_path):
    plain = ss.DualEncoder(model.left.encoder, model.right.encoder, cosine=False)
    answer = zero_shot(pictures(1), plain, tmp_path, templates=TEMPLATES, dtype="float32")
    image, texts = pictures(1)[0], [t.replace("{}", "cup") for t in TEMPLATES]
    expected = plain.image.embed([image.image])[0] @ plain.text.embed(texts).mean(0)
    assert answer["records"]["similarity"][0] == pytest.approx(float(expected), rel=1e-6)


def test_every_margin_adds_up_by_word_and_by_region(answer):
    records = answer["records"]
    assert len(records) == 12
    by_word = records[list(margins.BY_WORD)].sum(axis=1)
    assert (by_word - records["margin"]).abs().max() < 1e-10
    regions = ["caption alone", *NINTHS, "image's special positions", "not attributed"]
    assert (records[regions].sum(axis=1) - records["margin"]).abs().max() < 1e-10
    assert records["not attributed"].abs().max() < 1e-2 * records["margin"].abs().max()
    assert (records["margin"] > 0).equals(records["correct"])
    assert records["correct"].equals(records["predicted"] == records["label"])
    shares = records["outside the object"].dropna()
    assert len(shares) > 6
    assert shares.between(0, 1).all()
    assert records["area outside"].iloc[0] == pytest.approx(0.5, abs=0.15)


def test_a_margin_is_one_pair_of_the_whole_prompts(answer, classifier):
    images = open_store(answer.out / "image")
    for record in answer["records"].to_dict("records"):
        pair = classes.exact(images[record["key"]]) @ (classifier[record["label"]] - classifier[record["other class"]])
        assert pair.similarity == pytest.approx(record["margin"], abs=1e-12)
        assert pair.base + float(pair.right_effects.sum()) == pytest.approx(record["caption alone"], abs=1e-12)
        assert float(pair.left_effects.sum()) == pytest.approx(record["image alone"], abs=1e-12)
        named = sum(
            float(pair.matrix[:, list(word.features)].sum())
            for word in pair.right_layout.words
            if word.text in ("cup", "bowl", "traffic", "light", "mug", "jug")
        )
        assert named == pytest.approx(record["right class's words"] + record["other class's words"], abs=1e-12)


def test_the_report_has_everything_and_is_the_same_again(answer, model, tmp_path):
    out = answer.out
    page = (out / "report.html").read_text()
    summary = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    assert [claim.sentence for claim in answer.claims] == [claim["sentence"] for claim in summary["claims"]]
    assert "data:image/jpeg;base64," in page
    assert "of 12 images get their class" in page
    pd.testing.assert_frame_equal(pd.read_parquet(out / "records.parquet"), answer["records"])
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    parts = {path: path.stat().st_mtime_ns for path in out.rglob("*.arrow")}
    names = {**{name: (name,) for name in COLOURS}, "mug": ("mug", "jug")}
    zero_shot(pictures(), model, out, classes=names, templates=TEMPLATES, dtype="float32")
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.arrow")} == parts


def test_a_class_that_is_close_to_every_picture_is_named_as_the_captions_alone(answer, classifier):
    """A planted prior: the prompts of one class move towards the reference picture, their words' vectors stay."""
    images = open_store(answer.out / "image")
    pulled = images[images.keys()[0]].reference_embedding.double()
    bowl = classifier.names.index("bowl")
    part = classifier.parts[bowl]
    planted = classes.Classifier(classifier.prompts, classifier.store)
    towards = F.normalize(pulled, dim=0) * 3 / part.scale
    planted.parts[bowl] = replace(
        part, embedding=part.embedding + towards, reference_embedding=part.reference_embedding + towards
    )
    records = margins.explain_margins(pictures(), images, planted).records
    wrong = records[(records["label"] != "bowl") & (records["predicted"] == "bowl")]
    assert len(wrong) == 8
    assert set(wrong["reason"]) == {"caption alone"}
    assert tables.priors(margins.explain_margins(pictures(), images, planted))["accuracy"][0] == pytest.approx(1 / 3)


def counted(pairs, names=("a", "b", "c")):
    """Margins of images with these (label, answer), for tests of the tables."""
    similarities = torch.zeros(len(pairs), len(names), dtype=torch.float64)
    for row, (_, answer) in enumerate(pairs):
        similarities[row, names.index(answer)] = 1
    rows = [
        {"key": str(i), "label": label, "predicted": answer, "correct": label == answer, "rank": 1 + (label != answer),
         "margin": 1.0 if label == answer else -1.0, "reason": "caption alone",
         **{part: (1.0 if label == answer else -1.0) * (part == "caption alone") for part in margins.BY_WORD}}
        for i, (label, answer) in enumerate(pairs)
    ]  # fmt: skip
    return margins.Margins(pd.DataFrame(rows), similarities.numpy(), 0 * similarities.numpy(), names)


def test_confusions_beyond_chance_are_told_from_others():
    pairs = [("a", "b")] * 8 + [("a", "a")] * 4 + [("c", "c")] * 30 + [("c", "b")] * 1 + [("b", "b")] * 20
    table = tables.confusions(counted(pairs))
    assert table[["class", "taken for", "times", "images"]].to_numpy().tolist() == [
        ["a", "b", 8, 12],
        ["c", "b", 1, 31],
    ]
    assert table["q"][0] < 0.001
    assert table["q"][1] > 0.5
    assert table["expected"][0] == pytest.approx(12 * 9 / 43)
    assert table["caption alone"][0] == table["lead"][0] == 1.0


def test_classes_that_are_answered_too_often_are_told():
    pairs = [("a", "b")] * 12 + [("a", "a")] * 4 + [("c", "c")] * 10 + [("b", "b")] * 10
    table = tables.classes(counted(pairs)).set_index("class")
    assert table.loc["b", "answered"] == 22
    assert table.loc["b", "answered wrongly"] == 12
    assert table.loc["b", "q"] < 0.001
    assert table.loc["a", "taken for"] == "b"
    assert table.loc["a", "q"] == pytest.approx(1)
    assert table.loc["c", "low"] == pytest.approx(tables.wilson(10, 10)[0])


def test_without_errors_there_is_a_report_too(model, tmp_path):
    data = open_labelled(Scenes(3, seed=1, most=1))
    answer = zero_shot(data, ss.load("scenes"), tmp_path, "last-layer", classes=sorted({*data.labels, "cup"}))
    assert answer["records"]["correct"].all()
    assert "confusions" not in answer
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": "a photo"}, "has no {} for the class"),
        ({"templates": ()}, "there is no template"),
        ({"classes": ["cup", "bowl"]}, "'traffic light' of pictures is not among the 2 classes"),
        ({"classes": {"cup": (), "bowl": ("bowl",), "traffic light": ("light",)}}, "'cup' has no word"),
        ({"alpha": 0}, "alpha=0 must lie between"),
        ({"templates": "a {} " + "and so on " * 30}, "the prompt .* cannot be used"),
    ],
)
def test_what_cannot_be_used_is_refused(model, tmp_path, options, message):
    with pytest.raises(ss.InputError, match=message):
        zero_shot(pictures(1), model, tmp_path, **options)


def test_one_class_only_is_refused(model, tmp_path):
    (tmp_path / "cup").mkdir()
    picture((9, 9, 9), 0).save(tmp_path / "cup" / "a.png")
    with pytest.raises(ss.InputError, match="has one class, 'cup'"):
        zero_shot(f"folder:{tmp_path}", model, tmp_path / "out")


def test_classes_and_templates_of_files(tmp_path):
    (tmp_path / "classes.txt").write_text("n01\tcup\tmug\n\nbowl\n")
    data = open_labelled(LabelledData.of("x", [LabelledImage("a", picture((0, 0, 0), 1), "bowl")]))
    assert classes.class_names(tmp_path / "classes.txt", data) == {"n01": ("cup", "mug"), "bowl": ("bowl",)}
    (tmp_path / "templates.txt").write_text("a {}\nthe {}\n")
    assert classes.check_templates(tmp_path / "templates.txt") == ["a {}", "the {}"]
    (tmp_path / "twice.txt").write_text("bowl\nbowl\n")
    with pytest.raises(ss.InputError, match="has the class 'bowl' twice"):
        classes.class_names(tmp_path / "twice.txt", data)


@pytest.mark.parametrize("synonyms", [coco_synonyms(), list(coco_synonyms())])
def test_words_of_no_class_are_none(synonyms):
    data = LabelledData.of("x", [LabelledImage("a", picture((0, 0, 0), 1), "bowl")])
    assert list(classes.class_names(synonyms, data)) == [name for name in coco_synonyms() if name != ""]


def test_articles_are_set_where_asked_for():
    assert classes.fill("a photo of a {}.", "apple").text == "a photo of a apple."
    filled = classes.fill("A {} is a {}.", "apple", articles=True)
    assert filled.text == "An apple is an apple."
    assert [filled.text[start:end] for start, end in filled.spans] == ["apple", "apple"]
    assert classes.fill("an {}", "cup", articles=True).text == "a cup"


def test_the_command_writes_the_report(tmp_path):
    for name, colour in COLOURS.items():
        (tmp_path / "data" / name.replace(" ", "_")).mkdir(parents=True)
        picture(colour, 3).save(tmp_path / "data" / name.replace(" ", "_") / "a.png")
    command = ["evaluate", "zero-shot", "--model", "scenes", "--method", "last-layer", "--out", str(tmp_path / "out")]
    command += [
        "--data",
        f"folder:{tmp_path / 'data'}",
        "--option",
        "template=a {} in a shop",
        "--option",
        "template={}",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "of 3 images get their class" in result.output
    assert open_store(tmp_path / "out" / "text").keys()[:2] == ["a bowl in a shop", "bowl"]
    for wrong, message in (
        (["--option", "prompt=x"], "has no option 'prompt'; it has template"),
        (["--option", "templates=x.txt"], "give templates=FILE or template=TEXT, not both"),
        (["--layer", "2"], "takes the layers with its method"),
        (["--data", "folder:x"], "looks at one data"),
    ):
        result = CliRunner().invoke(app, command + wrong)
        assert result.exit_code == 2
        assert message in result.output
