"""The gate: a planted change is named, the same model passes, and noise within the tolerance never fails it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import secondsight as ss
from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import GridLayout, TokenLayout
from secondsight.answers import Collection
from secondsight.answers.gate import TextPairs, collect_pairs, gate, open_pairs
from secondsight.answers.gate.compare import compare, subjects_of
from secondsight.answers.gate.measure import measure
from secondsight.answers.gate.moves import can_be_significant, find_moves, minimum_effect_p
from secondsight.cli import app
from secondsight.data import GroundedCaption, ListedDataset, Phrase, Scenes
from secondsight.encoders import registry

CLASSES = ["cat", "dog", "tree", "cup"]
JOINT = 24


class MemoryStore(dict):
    """Contributions by key, with what a collection asks a store for."""

    def __init__(self, rows, side):
        super().__init__(rows)
        self.facts = {"model": "synthetic", "side": side, "method": {"name": "synthetic"}, "space": "synthetic"}

    def keys(self):
        return list(self)

    @property
    def embeddings(self):
        return torch.stack([row.embedding * row.scale for row in self.values()])


def text_row(caption, vectors):
    words = caption.split()
    starts = [len(" ".join(words[:i])) + (i > 0) for i in range(len(words))]
    offsets = (*((start, start + len(word)) for start, word in zip(starts, words, strict=True)), None)
    layout = TokenLayout(len(words) + 1, {len(words): "end"}, (*words, "<end>"), offsets, caption)
    reference = torch.ones(JOINT)
    return Contributions(vectors, reference + vectors.sum(0), reference, layout, 0.5)


def image_row(vectors):
    layout = GridLayout(4, {}, (2, 2), (8, 8), (0.0, 0.0, 8.0, 8.0))
    return Contributions(vectors, 1 + vectors.sum(0), torch.ones(JOINT), layout, 0.5)


def collection(harmed=None, noise=0.0, shift=0.0, count=160, seed=0):
    """Images of one or two of four classes; the word of the `harmed` class has lost its direction."""
    g = torch.Generator().manual_seed(seed)
    directions = dict(zip(CLASSES, torch.linalg.qr(torch.randn(JOINT, JOINT, generator=g))[0] * 5, strict=False))
    other = torch.Generator().manual_seed(seed + 1)
    images, texts, entries = {}, {}, []
    for number in range(count):
        named = [CLASSES[number % 4]] + ([CLASSES[(number // 4) % 4]] if number % 3 == 0 else [])
        named = list(dict.fromkeys(named))
        caption = "a " + " and ".join(named)
        own = torch.randn(JOINT, generator=g)
        vectors = torch.randn(4, JOINT, generator=g) * 0.3
        vectors[0] += sum(directions[name] for name in named) + own
        images[f"i{number}"] = image_row(vectors + noise * torch.randn(4, JOINT, generator=other))
        words = torch.randn(len(caption.split()) + 1, JOINT, generator=g) * 0.3 + shift
        for i, word in enumerate(caption.split()):
            if word in directions:
                words[i] += (0.0 if word == harmed else 1.0) * directions[word]
        words[-1] += own
        texts[f"i{number}/{number}"] = text_row(caption, words + noise * torch.randn(words.shape, generator=other))
        phrases = tuple(
            Phrase((caption.index(n), caption.index(n) + len(n)), ((0.0, 0.0, 4.0, 4.0),), n) for n in named
        )
        entries.append(GroundedCaption(str(number), f"i{number}", Image.new("RGB", (8, 8)), caption, phrases))
    data = ListedDataset("synthetic", entries)
    pairs = [(key.split("/")[0], key) for key in texts]
    by_key = {key: number for number, key in enumerate(texts)}
    return Collection(MemoryStore(images, "image"), MemoryStore(texts, "text"), pairs, data, _entries=by_key)


@pytest.fixture(scope="module")
def clean():
    return collection()


def named(compared, verdict="worse"):
    return [move.subject.name for move in compared.moved(verdict)]


def test_an_advantage_is_the_doubly_centred_similarity_in_spreads(clean):
    advantages = measure(clean, clean.pairs)
    s = (clean.images.embeddings @ clean.texts.embeddings.T).double()
    centred = s - s.mean(0) - s.mean(1, keepdim=True) + s.mean()
    wrong = centred[~torch.eye(len(s), dtype=torch.bool)]
    np.testing.assert_allclose(advantages.total, (centred.diag() / wrong.std(correction=0)).numpy(), rtol=1e-5)
    np.testing.assert_array_equal(advantages.first_caption, (s.diag() >= s.max(1).values - 1e-6).numpy())
    np.testing.assert_array_equal(advantages.first_image, (s.diag() >= s.max(0).values - 1e-6).numpy())


def test_words_and_special_tokens_add_up_to_the_advantage(clean):
    advantages = measure(clean, clean.pairs)
    image, text = clean.pairs[3]
    g = clean.images[image].embedding * 0.5 - clean.images.embeddings.mean(0)
    row = clean.texts[text]
    rest = (row.vectors[-1] + row.reference_embedding) * 0.5 - clean.texts.embeddings.mean(0)
    total = sum(advantages.words[3].values()) + float(g @ rest) / advantages.spread
    assert total == pytest.approx(advantages.total[3], rel=1e-4)


def test_the_same_model_passes_with_every_p_at_one(clean, tmp_path):
    result = gate(clean, collection(), tmp_path)
    assert result.passed
    assert set(result.moves["p"]) == {1.0}
    assert not len(result.pairs)
    assert "Gate passed" in result.summary


@pytest.mark.parametrize("change", [{"noise": 0.02}, {"shift": 0.05}])
def test_noise_and_shifts_of_all_similarities_pass(clean, change):
    assert compare(clean, collection(**change)).passed


def test_a_scale_of_all_similarities_passes(clean):
    scaled = collection()
    for key, row in scaled.texts.items():
        scaled.texts[key] = replace(row, scale=3 * row.scale)
    compared = compare(clean, scaled)
    assert compared.passed
    assert np.abs(compared.change).max() < 1e-5


def test_a_harmed_class_is_named_and_no_other(clean):
    compared = compare(clean, collection(harmed="dog"))
    assert not compared.passed
    assert [name for name in named(compared) if name != "all pairs"] == ["dog"]
    assert named(compare(collection(harmed="dog"), clean), "better")[-1] == "dog"


def test_what_fails_is_a_choice(clean):
    harmed = collection(harmed="dog")
    assert compare(clean, harmed, fail_on=["words"]).passed
    assert not compare(clean, harmed, fail_on=["classes"]).passed
    assert not compare(clean, harmed, fail_on=["pairs"]).passed


def test_the_report_explains_what_moved(clean, tmp_path):
    result = gate(clean, collection(harmed="dog"), tmp_path, command="secondsight gate a b")
    page = (tmp_path / "report.html").read_text()
    assert "Pairs with the class “dog” got worse" in page
    assert "interaction" in page
    assert page.count("data:image/jpeg") >= 6
    lines = (tmp_path / "summary.md").read_text().splitlines()
    assert len(lines) <= 30
    assert lines[0].startswith("## Gate failed: worse in")
    assert "secondsight gate a b" in lines[-1]
    facts = json.loads((tmp_path / "summary.json").read_text())
    assert facts["facts"]["reproduce"] == "secondsight gate a b"
    assert set(result.answer) == {"overall", "pairs", "tests"}


def test_labels_exchanged_at_random_raise_no_alarm(clean):
    # A true null with the variance of a real change: each image's before and after in random order.
    before, after = (measure(c, c.pairs) for c in (clean, collection(noise=1.0)))
    listed = subjects_of(clean, before, after)
    images = [image for image, _ in clean.pairs]
    alarms = 0
    for seed in range(40):
        swapped = np.random.default_rng(seed).random(len(images)) < 0.5
        first = replace(before, total=np.where(swapped, after.total, before.total))
        second = replace(after, total=np.where(swapped, before.total, after.total))
        moves = find_moves(first, second, listed, images, 0.05, 0.0, seed)
        alarms += any(move.verdict(0.05) != "same" for move in moves)
    assert alarms <= 6  # 40 × 0.05, and three standard deviations


def test_a_minimum_effect_p_is_uniform_at_the_border_of_the_tolerance():
    generator = np.random.default_rng(0)
    p = [minimum_effect_p(generator.normal(0.1, 0.3, 30), 0.1, 1.0, 999, seed) for seed in range(300)]
    # Half of the means lie within the tolerance; a two-sided test of the others is at most as frequent as its level.
    assert np.mean([value <= 0.1 for value in p]) <= 0.1 + 3 * math.sqrt(0.09 / 300)
    assert minimum_effect_p(np.full(30, 0.1), 0.1, 0.01, 999, 0) == 1.0
    assert minimum_effect_p(np.full(30, -0.3), 0.1, 0.01, 99_999, 0) < 1e-4


def test_only_subjects_with_enough_images_are_tested():
    assert can_be_significant([100, 9, 3], 0.01) == [True, True, False]
    # With ten tests, each needs p of 0.001: eleven images.
    assert can_be_significant([100] * 9 + [10], 0.01) == [True] * 9 + [False]
    assert can_be_significant([3, 2], 0.01) == [False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0}, "alpha=0 must lie between"),
        ({"tolerance": -1}, "tolerance=-1 must be"),
        ({"fail_on": ["nouns"]}, "cannot fail on nouns; known: whole"),
    ],
)
def test_options_out_of_range_are_refused(clean, options, message):
    with pytest.raises(ss.InputError, match=message):
        compare(clean, clean, **options)


def test_too_few_images_are_refused(clean):
    few = replace(clean, pairs=clean.pairs[:6])
    with pytest.raises(ss.InputError, match=r"6 images can show nothing at alpha 0\.01.*at least 8"):
        compare(few, few)


def test_pairs_are_read_from_lists_of_photographs_and_of_texts(tmp_path):
    for i in range(2):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "p.csv").write_text("photo,caption\n0.png,a dog\n1.png,\n1.png,a cat\n")
    data = open_pairs(tmp_path / "p.csv")
    assert [(entry.image.name, entry.caption) for entry in data] == [("0.png", "a dog"), ("1.png", "a cat")]
    assert data.problems == {"2": "no photo or no caption"}
    (tmp_path / "p.jsonl").write_text('{"photo": "0.png", "caption": "a dog"}\n')
    assert [entry.caption for entry in open_pairs(tmp_path / "p.jsonl")] == ["a dog"]
    (tmp_path / "t.tsv").write_text("query\tdocument\nwhere\there\nwho\t\n")
    texts = open_pairs(tmp_path / "t.tsv")
    assert isinstance(texts, TextPairs)
    assert (texts.left, texts.right, texts.problems) == (["where"], ["here"], {"2": "no two texts"})
    (tmp_path / "bad.csv").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(ss.InputError, match="has the columns a, b, c: give photo and caption"):
        open_pairs(tmp_path / "bad.csv")


def test_two_texts_are_compared_without_pictures(tmp_path):
    model = ss.load("scenes")
    captions = [example.caption for example in Scenes(10, seed=2, every=True)]
    pairs = TextPairs("texts", captions, captions)
    collected = collect_pairs(pairs, model, tmp_path)
    assert len(collected) == 10
    assert collected.texts.facts["method"]["name"] == "collection"
    compared = compare(collected, collect_pairs(pairs, model, tmp_path))
    assert compared.passed
    assert compared.advantages[0].first_caption.all()


def test_the_command_says_by_its_exit_code_whether_it_passed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    same = run(app, ["gate", "scenes", "scenes", "--pairs", "scenes:noto/10", "--summary", "s.md"])
    assert same.exit_code == 0, same.output
    assert "Gate passed" in same.output
    assert "classes and words have too few images to be tested" in same.output
    assert (tmp_path / "s.md").read_text() == (tmp_path / "gate" / "summary.md").read_text()
    few = run(app, ["gate", "scenes", "scenes", "--pairs", "scenes:noto/10", "--limit", "3"])
    assert few.exit_code == 2
    assert "can show nothing" in few.output
    unknown = run(app, ["gate", "scenes", "scenes", "--pairs", "nowhere.csv"])
    assert unknown.exit_code == 2
    misspelt = run(app, ["gate", "scenes", "no model", "--pairs", "scenes:noto/10", "--out", "misspelt"])
    assert misspelt.exit_code == 2
    assert not (tmp_path / "misspelt").exists()
    option = run(app, ["gate", "scenes", "scenes", "--pairs", "scenes:noto/10", "--fail-on", "verbs"])
    assert option.exit_code == 2
    assert "cannot fail on verbs" in option.output


def test_a_model_that_lost_its_pictures_fails_the_command(tmp_path, monkeypatch):
    original = registry.load

    def load_or_break(name):
        model = original("scenes")
        if name == "broken":
            with torch.no_grad():
                model.left.encoder.module.conv1.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
        return model

    monkeypatch.setattr(registry, "load", load_or_break)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["gate", "scenes", "broken", "--pairs", "scenes:noto/16"])
    assert result.exit_code == 1, result.output
    assert "Gate failed: worse in all pairs" in result.output
