"""The audit as a whole: its report, from Python and from the command line."""

import json
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import secondsight as ss
from secondsight.answers import Case, Claim, Section, write_answer
from secondsight.answers.audit import audit
from secondsight.cli import app
from secondsight.data import ListedDataset, Scenes


@pytest.fixture(scope="module")
def model():
    return ss.load("scenes")


def run(*arguments):
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def test_an_audit_writes_its_report_and_is_the_same_again(model, tmp_path):
    first = audit(Scenes(12, seed=3), model, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "12 captions of 12 images" in page
    assert all(claim.sentence[:20].split("“")[0] in page for claim in first.claims)
    summary = (tmp_path / "out" / "summary.json").read_text()
    again = audit(Scenes(12, seed=3), model, tmp_path / "out")
    assert [claim.sentence for claim in again.claims] == [claim.sentence for claim in first.claims]
    assert (tmp_path / "out" / "summary.json").read_text() == summary


def test_the_command_prints_claims_and_where_the_report_is(tmp_path):
    result = run("--data", "scenes:noto/8", "--model", "scenes", "--limit", 6, "--out", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "All words with boxes together" in result.stdout
    assert str(tmp_path / "a" / "report.html") in result.stdout.replace("\n", "")
    facts = json.loads((tmp_path / "a" / "summary.json").read_text())["facts"]
    assert facts["looked at"] == "6 captions of 6 images"
    stores = tmp_path / "a" / "stores"
    options = ("--store-image", stores / "image", "--store-text", stores / "text", "--data", "scenes:noto/8")
    result = run(*options, "--out", tmp_path / "b", "--quiet")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "b" / "grounding.csv").read_text() == (tmp_path / "a" / "grounding.csv").read_text()
    # Without a model nothing can be encoded, which the report says.
    assert "exchanged words" in json.loads((tmp_path / "b" / "summary.json").read_text())["facts"]["left out"]
    assert not (tmp_path / "b" / "exchanged-words.csv").exists()
    result = run(*options, "--out", tmp_path / "c", "--quiet", "--model", "scenes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "c" / "exchanged-words.csv").read_text() == (tmp_path / "a" / "exchanged-words.csv").read_text()


def test_two_models_are_compared_first(model, tmp_path):
    answer = audit(Scenes(6, seed=3), model, tmp_path / "out", against=model)
    assert answer.sections[0].title == "What changed"
    assert answer.sections[0].claims == []
    assert "compared with: scenes" in (tmp_path / "out" / "report.html").read_text()


def test_without_boxes_words_and_clusters_are_left(model, tmp_path):
    data = ListedDataset("plain", [replace(e, phrases=(), regions=()) for e in Scenes(10, seed=3)])
    answer = audit(data, model, tmp_path / "out")
    titles = [section.title for section in answer.sections]
    assert titles[0] == "Words"
    assert titles == ["Words", "Exchanged words", "Words and kinds of regions", "Hubs"]


def test_the_page_begins_with_the_first_claims_of_each_section(tmp_path):
    sections = [
        Section("A", "?", [Claim("a one."), Claim("a two.")]),
        Section("B", "?", [Claim("b one."), Claim("b two.", [Case(facts="f")])]),
    ]
    write_answer(tmp_path, "t", "?", sections, {}, in_short=3)
    head = (tmp_path / "report.html").read_text().split("In short")[1].split("</ul>")[0]
    assert re.findall(r'#claim-(\d-\d)">(.*?)</a>', head) == [("0-0", "a one."), ("1-0", "b one."), ("0-1", "a two.")]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "give --data, or --store-image and --store-text"),
        (["--store-image", "a", "--data", "scenes:noto/5"], "belong together: give both"),
        (["--store-image", "a", "--store-text", "b", *["--model", "scenes"] * 2], "stores were made by one model"),
        (["--store-image", "a", "--store-text", "b", "--method", "occlusion"], "leave out --method"),
        (["--data", "scenes:noto/5", *["--model", "scenes"] * 3], "give --model once or twice"),
        (["--data", "scenes:noto/5", "--alpha", "2"], "must lie between 0 and 1"),
        (["--data", "scenes:nowhere/5", "--model", "scenes"], "unknown style"),
    ],
)
def test_bad_options_end_in_a_sentence(options, sentence, tmp_path):
    result = run(*options, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())


def test_a_file_in_place_of_the_folder_and_missing_data_are_refused_before_a_model_loads(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for data, out, words in (
        ("scenes:noto/3", tmp_path / "file", "is a file: give a folder"),
        (tmp_path / "empty", tmp_path / "out", "is an empty folder"),
        ("coco:nowhere", tmp_path / "out", "the folder 'nowhere' does not exist"),
    ):
        result = run("--data", data, "--out", out, "--model", "no such model")
        assert result.exit_code == 2
        assert words in result.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()
