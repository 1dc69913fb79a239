"""Scores of comparisons against counting by hand; records against explanations; the schema against the direct readers."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import secondsight as ss
from captions import write_data
from families import photographs
from models import small
from secondsight.data import Hnc, Jsonl, comparison_of, open_data, read_compositional, sugarcrepe, write_compositional
from secondsight.evaluation import evaluate, measures
from secondsight.evaluation.choices import chances, scores
from secondsight.evaluation.experiments.compositionality import Compositionality, propose

OURS = ("ours", ss.IntegratedJacobian(steps=8))


@pytest.fixture(scope="module")
def model():
    return small()


def run(data, model, out, name="compositionality", **options):
    return evaluate(name, data, [("small", model)], [OURS], out=out, **options)


def cell(table, score, tag="all", column="value"):
    (row,) = table[(table.score == score) & (table.tag == tag)].to_dict("records")
    return row[column]


# Scores --------------------------------------------------------------------------------------------------------------

PAIR = frozenset({(0, 0), (1, 1)})


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[0.3, 0.2], [0.2, 0.3]], (True, True, True)),
        ([[0.3, 0.2], [0.35, 0.4]], (True, False, False)),  # caption 0 prefers image 1
        ([[0.3, 0.35], [0.2, 0.4]], (False, True, False)),  # image 0 prefers caption 1
        ([[0.3, 0.3], [0.2, 0.4]], (False, True, False)),  # a tie is no win
        ([[0.2, 0.3], [0.3, 0.2]], (False, False, False)),
    ],
)
def test_winogrounds_scores_by_hand(matrix, expected):
    similarities = {(image, caption): matrix[image][caption] for image in range(2) for caption in range(2)}
    assert tuple(scores(similarities, PAIR).values()) == expected


def test_every_right_caption_must_beat_every_wrong_one():
    fits = frozenset({(0, 0), (0, 1)})
    assert scores({(0, 0): 0.5, (0, 1): 0.4, (0, 2): 0.3}, fits) == {"text": True}
    assert scores({(0, 0): 0.5, (0, 1): 0.3, (0, 2): 0.4}, fits) == {"text": False}


def test_chance_levels_are_the_published_ones():
    grid = frozenset((image, caption) for image in range(2) for caption in range(2))
    assert chances(grid, PAIR) == pytest.approx({"text": 1 / 4, "image": 1 / 4, "group": 1 / 6})
    orders = frozenset((0, caption) for caption in range(5))
    assert chances(orders, frozenset({(0, 0)})) == pytest.approx({"text": 1 / 5})
    assert chances(frozenset({(0, 0), (0, 1), (0, 2)}), frozenset({(0, 0), (0, 1)})) == pytest.approx({"text": 1 / 3})
    large = frozenset((image, caption) for image in range(3) for caption in range(3))
    assert all(np.isnan(chance) for chance in chances(large, frozenset({(0, 0), (1, 1), (2, 2)})).values())


# Causes --------------------------------------------------------------------------------------------------------------

NEUTRAL = {
    "delta_text": -0.1, "delta_reference": -0.1, "delta_interaction": 0.2, "right_words": 0.3, "wrong_words": 0.5,
    "alike": 0.2, "energy": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"delta_text": 0.3}, "text alone prefers it"),
        ({"delta_text": 0.1, "delta_interaction": -0.05}, "text alone prefers it"),
        ({"delta_reference": 0.3, "delta_text": 0.25}, "reference prefers it"),
        ({"delta_interaction": -0.1}, "not told"),
        ({"delta_text": None, "delta_interaction": None}, "not told"),
        ({"right_words": None}, "not told"),
        ({"wrong_words": 0.31, "alike": 0.95}, "change not noticed"),
        ({"wrong_words": 0.29, "alike": 0.95}, "change not noticed"),
        ({"wrong_words": 0.29}, "other words decide"),
        ({"energy": 0.1}, "right words miss their object"),
        ({"energy": 0.6, "alike": 0.95}, "wrong words match the same place"),
        ({"alike": None}, "wrong words match another place"),
        ({}, "wrong words match another place"),
    ],
)
def test_causes_follow_the_stated_rules(changes, cause):
    assert propose({**NEUTRAL, **changes}) == cause
    assert cause in Compositionality.categories


# Records -------------------------------------------------------------------------------------------------------------


def test_a_choice_is_split_as_the_explanations_are(model, tmp_path):
    data = write_data(tmp_path / "data")
    results = run(data, model, tmp_path / "out")
    rows = results.records
    assert len(rows) == 4
    for example, row in zip(Jsonl(data), rows.itertuples(), strict=True):
        wrong = example.negatives[0].caption
        right, other = (ss.explain(model, example.image, text, OURS[1]) for text in (example.caption, wrong))
        assert row.delta_similarity == pytest.approx(other.similarity - right.similarity, abs=1e-6)
        assert row.delta_text == pytest.approx(other.terms.right - right.terms.right, abs=1e-6)
        assert row.delta_interaction == pytest.approx(other.terms.interaction - right.terms.interaction, abs=1e-6)
        reference = [e.terms.base + e.terms.left for e in (right, other)]
        assert row.delta_reference == pytest.approx(reference[1] - reference[0], abs=1e-6)
        terms = row.delta_text + row.delta_reference + row.delta_interaction
        assert terms == pytest.approx(row.delta_similarity, abs=right.error + other.error + 1e-6)
        maps = [e.left_layout.view(e.toward_left((2, 5))).double().numpy() for e in (right, other)]
        assert row.right_words == pytest.approx(maps[0].sum(), abs=1e-6)
        assert row.wrong_words == pytest.approx(maps[1].sum(), abs=1e-6)
        assert row.alike == pytest.approx(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1], abs=1e-5)
        layout = right.left_layout
        boxes = [measures.clip_box(example.phrases[0].boxes[0], layout.frame)]
        for map_, share in zip(maps, (row.energy, row.wrong_energy), strict=True):
            assert share == pytest.approx(measures.energy(map_, boxes, layout.image_size, layout.frame), abs=1e-5)
        assert 0 < row.chance < 1
        assert (row.cause is None) == (row.delta_similarity < 0)
    accuracy = (rows.delta_similarity < 0).mean()
    assert cell(results["overall"], "accuracy") == cell(results["overall"], "text") == accuracy
    causes = results["causes"]
    assert causes.failures.item() == len(results["failures"]) == causes[list(Compositionality.categories)].sum().sum()


def test_added_and_left_out_words_have_no_map_on_the_other_side(model, tmp_path):
    photographs()[0].save(tmp_path / "a.png")
    entry = {"images": ["a.png"], "captions": ["a dog", "a dog and a red car", "a"], "kinds": ["", "add", "drop"]}
    (tmp_path / "data.jsonl").write_text(json.dumps(entry))
    rows = run(f"compositional:{tmp_path / 'data.jsonl'}", model, tmp_path / "out").records
    added, dropped = rows.to_dict("records")
    assert (added["words"], added["wrong"], added["right_words"]) == ("", "and a red car", 0)
    assert (dropped["words"], dropped["wrong"], dropped["wrong_words"]) == ("dog", "", 0)
    assert np.isnan([added["alike"] or np.nan, dropped["alike"] or np.nan]).all()


def test_words_that_changed_places_are_looked_for_in_their_own_boxes(model, tmp_path):
    photographs()[0].resize((72, 64)).save(tmp_path / "a.png")
    boxes = {"dog": [2, 2, 40, 40], "cat": [30, 30, 70, 62]}
    entry = {"images": ["a.png"], "captions": ["a dog chases a cat", "a cat chases a dog", "a cow chases a cat"]}
    plain = {**entry, "id": "plain"}
    entry["phrases"] = [[{"span": name, "boxes": [box]} for name, box in boxes.items()], [], []]
    (tmp_path / "data.jsonl").write_text(json.dumps(entry) + "\n" + json.dumps(plain))
    results = run(f"compositional:{tmp_path / 'data.jsonl'}", model, tmp_path / "out")
    swapped, replaced, without, _ = results.records.to_dict("records")
    right, wrong = (ss.explain(model, tmp_path / "a.png", text, OURS[1]) for text in entry["captions"][:2])
    layout = right.left_layout
    own, after, other, alike = [], [], [], []
    for name, rival in (("dog", "cat"), ("cat", "dog")):
        maps = [
            e[(text.index(name), text.index(name) + 3)]
            for e, text in zip((right, wrong), entry["captions"], strict=False)
        ]
        maps = [map_.double().numpy() for map_ in maps]
        for listed, map_, word in ((own, 0, name), (after, 1, name), (other, 0, rival)):
            listed.append(measures.energy(maps[map_], [boxes[word]], layout.image_size, layout.frame))
        alike.append(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])
    assert swapped["swapped_words"] == 2
    for name, values in (("own_box", own), ("wrong_own_box", after), ("other_box", other), ("swapped_alike", alike)):
        assert swapped[name] == pytest.approx(np.mean(values), abs=1e-5)
    assert replaced["swapped_words"] == 0
    # Without boxes single words are compared; "chases" stays where it was.
    assert without["swapped_words"] == 2
    assert without["swapped_alike"] == pytest.approx(np.mean(alike), abs=1e-5)
    assert np.isnan(without["own_box"])
    assert results["swapped words"].choices.sum() == 2


def test_methods_whose_terms_do_not_add_up_tell_no_cause(model, tmp_path, monkeypatch):
    monkeypatch.setattr(ss.IntegratedJacobian, "adds_up", False)
    rows = run(write_data(tmp_path / "data"), model, tmp_path / "out").records
    assert rows[["delta_text", "delta_interaction"]].isna().all().all()
    assert set(rows.cause.dropna()) <= {"not told"}


# Comparisons ---------------------------------------------------------------------------------------------------------

CAPTIONS = ("a dog left of a cat", "a cat left of a dog")


def pairs_file(folder, count=3):
    """Comparisons of two photographs and two captions, and one of an image with two right captions and a wrong one."""
    entries = []
    for number in range(count):
        names = [f"{number}-{side}.png" for side in range(2)]
        for name, photo in zip(names, photographs(), strict=False):
            photo.resize((64 + 8 * number, 64)).save(folder / name)
        entries.append({"id": f"p{number}", "images": names, "captions": CAPTIONS, "tag": ["pair", f"{number % 2}"]})
    three = ["a dog on grass", "grass with a dog", "a dog on sand"]
    entries.append(
        {"id": "two", "images": ["0-0.png"], "captions": three, "fits": [0, 1], "tag": "several", "group": "g"}
    )
    (folder / "pairs.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder / "pairs.jsonl"


def test_scores_are_those_of_the_models_own_similarities(model, tmp_path):
    file = pairs_file(tmp_path)
    results = run(f"compositional:{file}", model, tmp_path / "out")
    outcomes = []
    for number in range(3):
        images = [Image.open(tmp_path / f"{number}-{side}.png") for side in range(2)]
        s = [[ss.explain(model, image, caption, OURS[1]).similarity for caption in CAPTIONS] for image in images]
        text = s[0][0] > s[0][1] and s[1][1] > s[1][0]
        image = s[0][0] > s[1][0] and s[1][1] > s[0][1]
        outcomes.append((text, image, text and image))
    overall = results["overall"]
    for score, expected in zip(("image", "group"), np.mean(outcomes, 0)[1:], strict=True):
        assert cell(overall, score) == pytest.approx(expected)
        assert (cell(overall, score, column="cases"), cell(overall, score, tag="pair")) == (3, pytest.approx(expected))
    assert cell(overall, "text", tag="pair") == pytest.approx(np.mean(outcomes, 0)[0])
    assert cell(overall, "text", column="cases") == 4
    assert cell(overall, "image", tag="pair", column="chance") == pytest.approx(1 / 4)
    assert cell(overall, "text", tag="several", column="chance") == pytest.approx(1 / 3)
    right, second, wrong = (
        ss.explain(model, tmp_path / "0-0.png", caption, OURS[1]).similarity
        for caption in ("a dog on grass", "grass with a dog", "a dog on sand")
    )
    assert cell(overall, "text", tag="several") == (min(right, second) > wrong)
    assert cell(overall, "set", tag="several") == (min(right, second) > wrong)
    low, value, high = (cell(overall, "accuracy", column=column) for column in ("low", "value", "high"))
    assert 0 <= low <= value <= high <= 1


def test_a_comparison_that_a_limit_cuts_has_no_score(model, tmp_path):
    overall = run(f"compositional:{pairs_file(tmp_path)}", model, tmp_path / "out", limit=3)["overall"]
    assert cell(overall, "accuracy", column="cases") == 3
    assert cell(overall, "group", column="cases") == 1


def test_a_run_that_was_stopped_goes_on(model, tmp_path):
    file = pairs_file(tmp_path)
    whole = run(f"compositional:{file}", model, tmp_path / "whole").records
    run(f"compositional:{file}", model, tmp_path / "cut", limit=3)
    resumed = run(f"compositional:{file}", model, tmp_path / "cut").records
    pd.testing.assert_frame_equal(whole, resumed)


def test_the_report_shows_both_captions_of_a_failure(model, tmp_path):
    results = run(f"compositional:{pairs_file(tmp_path)}", model, tmp_path / "out")
    page = (tmp_path / "out" / "compositionality" / "report.html").read_text()
    failures = len(results["failures"])
    assert failures > 0
    assert page.count('<figure id="case-') == failures
    assert page.count("<mark>") == 2 * failures
    assert "text alone prefers it</option>" in page.replace(" selected", "")
    assert results.gallery(2).axes


def test_data_without_wrong_captions_gets_some(model, tmp_path):
    data = Jsonl(write_data(tmp_path / "data"))
    lines = [json.loads(line) for _, line in data.lines]
    other = {**lines[0], "regions": [{"label": "cow", "box": [1, 1, 9, 9], "group": "animal"}], "phrases": []}
    text = "".join(json.dumps({**line, "negatives": []}) + "\n" for line in [*lines, other])
    (tmp_path / "data" / "plain.jsonl").write_text(text)
    rows = run(tmp_path / "data" / "plain.jsonl", model, tmp_path / "out").records
    assert set(rows.kind) == {"replace_object"}


# The schema and the direct readers -----------------------------------------------------------------------------------


def crepe(folder):
    rows = {
        "0": {"filename": "a.png", "caption": "a dog on grass", "negative_caption": "a dog on sand"},
        "3": {"filename": "b.png", "caption": "a red car", "negative_caption": "a blue car near a dog"},
    }
    (folder / "replace_att.json").write_text(json.dumps(rows))
    return sugarcrepe(folder / "replace_att.json", folder)


def hnc(folder):
    boxes = {"1": {"bbox": [5, 5, 20, 20], "name": "man"}, "2": {"bbox": [30, 10, 25, 30], "name": "chair"}}
    captions = {
        "0": {"caption": "The man is right of the chair.", "label": 1, "bboxes": boxes},
        "1": {"caption": "The man is right of the table.", "label": 0, "type": "obj", "cpt_p_id": 0},
        "2": {"caption": "The man is left of the chair.", "label": 0, "type": "relation", "cpt_p_id": 0},
    }
    (folder / "hnc.json").write_text(json.dumps({"a.png": {"captions": captions}}))
    return Hnc(folder / "hnc.json", folder)


@pytest.mark.parametrize("reader", [crepe, hnc])
def test_numbers_are_equal_before_and_after_the_schema(model, tmp_path, reader):
    for name, photo in zip(("a.png", "b.png"), photographs(), strict=False):
        photo.resize((72, 64)).save(tmp_path / name)
    direct = reader(tmp_path)
    write_compositional(tmp_path / "schema.jsonl", map(comparison_of, direct))
    schema = read_compositional(tmp_path / "schema.jsonl")
    before = run(direct, model, tmp_path / "before", "hard-negatives")
    after = run(schema, model, tmp_path / "after", "hard-negatives")
    # Keys name the image and the caption, as either reader does.
    pd.testing.assert_frame_equal(
        before.records.drop(columns="key"), after.records.drop(columns="key"), check_exact=True
    )
    pd.testing.assert_frame_equal(before["overall"], after["overall"], check_exact=True)
    ours, theirs = (run(data, model, tmp_path / f"c{i}") for i, data in enumerate((direct, schema)))
    pd.testing.assert_frame_equal(ours["overall"], theirs["overall"], check_exact=True)
    assert cell(ours["overall"], "accuracy") == (before.records.delta_similarity < 0).mean()
    assert list(ours.records.delta_similarity) == list(before.records.delta_similarity)
    for kind, negative in before["overall"].set_index("kind")["δS negative"].items():
        tag = kind if len(before["overall"]) > 1 else "all"
        assert cell(ours["overall"], "accuracy", tag=tag) == negative


def test_scenes_are_benchmarks_too(tmp_path):
    scenes = ss.load("scenes")
    method = [("tokens", ss.TokenEmbeddings())]
    one = evaluate("compositionality", "scenes:noto/4", [("scenes", scenes)], method, out=tmp_path / "one")
    assert set(one.records.kind) <= {"replace_object", "swap_relation", "swap_size", "swap_place"}
    assert one.records.boxes.map(len).max() > 0
    data = open_data("scene-pairs:noto/3")
    two = evaluate("compositionality", data, [("scenes", scenes)], method, out=tmp_path / "two")
    assert set(two["overall"].score) == {"accuracy", "text", "image", "group"}
    overall = two["overall"]
    assert set(overall.tag) == {"all", "relation", "size", "number", "mean of tags"}
    texts = [cell(overall, "text", tag) for tag in ("relation", "size", "number")]
    assert cell(overall, "text", "mean of tags") == pytest.approx(np.mean(texts))
    assert cell(overall, "text", "mean of tags", "cases") == 3
