"""Many photographs by one command, and what the helps and lists say."""

import csv
import io
import json
import re
import shlex
import sys

import pytest
import torch
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from documents import write_reader_folder
from secondsight.cli import EXAMPLES, app, common
from secondsight.support.progress import tell


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_reader_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explain(*arguments: object):
    return CliRunner().invoke(app, ["explain", *map(str, arguments), "--model", "scenes"], env={"COLUMNS": "160"})


def summary(folder):
    return list(csv.DictReader((folder / "summary.csv").open(encoding="utf-8")))


def test_a_folder_with_one_caption(folder):
    result = explain("photos", "a dog left of a tree", "--out", "out", "--select", "dog")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["1-0.html", "2-1.html", "summary.csv"]
    first, second = summary(folder / "out")
    assert first["file"] == "1-0.html"
    assert second["caption"] == "a dog left of a tree"
    terms = sum(float(first[name]) for name in ("base", "image_alone", "text_alone", "interaction"))
    assert terms == pytest.approx(float(first["similarity"]), abs=1e-4)
    assert "strongest word" in result.stdout
    assert "wrote out/summary.csv" in result.stdout


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_list_of_pairs_and_a_bad_one_among_them(folder, ending):
    rows = [("photos/0.png", "a dog"), ("photos/gone.png", "a cat"), ("photos/1.png", "a tree")]
    lines = {
        "csv": ["photo,caption", *(",".join(row) for row in rows)],
        "jsonl": [json.dumps({"photo": photo, "caption": caption}) for photo, caption in rows],
    }[ending]
    (folder / f"pairs.{ending}").write_text("\n".join(lines))
    result = explain(f"pairs.{ending}", "--out", "out", "--format", "json", "--format", "npz", "--quiet")
    assert result.exit_code == 1
    assert "photos/gone.png' does not exist" in result.stderr.replace("\n", "")
    assert [row["caption"] for row in summary(folder / "out")] == ["a dog", "a tree"]
    names = [f"{stem}.{kind}" for stem in ("1-0", "3-1") for kind in ("json", "npz")]
    assert sorted(p.name for p in (folder / "out").iterdir()) == sorted([*names, "summary.csv"])
    assert json.loads((folder / "out" / "3-1.json").read_text())["words"]["right"][1]["word"] == "tree"


def test_a_stopped_run_leaves_whole_files(folder, monkeypatch):
    from secondsight.explanation import Explanation

    saved, real = [], Explanation.save

    def stop_at_the_second(self, path, selection=None, **options):
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt
        real(self, path, selection, **options)

    monkeypatch.setattr(Explanation, "save", stop_at_the_second)
    assert explain("photos", "a dog", "--out", "out").exit_code == 130
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["1-0.html", "summary.csv"]
    assert len(summary(folder / "out")) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos", "a dog"], "give one folder for the files"),
        (["photos", "a dog", "--out", "e.html"], "give one folder for the files"),
        (["photos", "--out", "out"], "give one caption for its photographs"),
        (["photos", "a dog", "--out", "out", "--format", "doc"], "unknown --format 'doc'; known: html"),
        (["photos", "a dog", "--out", "out", "--json", "e.json"], "--format json"),
        (["empty", "a dog", "--out", "out"], "has no photographs"),
        (["gone.csv", "--out", "out"], "'gone.csv' does not exist"),
        (["bad.csv", "--out", "out"], "row 1 of 'bad.csv' has no photo"),
        (["bad.jsonl", "--out", "out"], "'bad.jsonl' cannot be read as JSON, an object a line"),
        (["scene.png"], "there is no caption for 'scene.png'"),
        (["scene.png", "a dog", "--precision", "half"], "unknown precision 'half'; known: float32"),
        (["scene.png", "a dog", "--device", "toaster"], "device 'toaster' cannot be used here"),
        (["https://a.org/cat.jpg", "a dog"], "is an address"),
        (["scene.png", "a dog", "--box", "0,0,inf,9"], "is not four numbers"),
        (["scene.png", "a dog", "--select", "do"], "'do' is a part of the word 'dog'"),
    ],
)
def test_mistakes_are_one_sentence(folder, arguments, words):
    (folder / "empty").mkdir()
    (folder / "bad.csv").write_text("file,caption\na.png,a dog\n")
    (folder / "bad.jsonl").write_text("no json\n")
    result = explain(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (folder / "out").exists()


def test_device_and_precision_of_one_pair(folder, monkeypatch):
    from secondsight.scale import place

    moved, real = [], place.move_model
    monkeypatch.setattr(place, "move_model", lambda *arguments: moved.append(real(*arguments)) or moved[0])
    assert explain("scene.png", "a dog", "--device", "cpu", "--precision", "bf16").exit_code == 0
    assert next(moved[0].left.encoder.module.parameters()).dtype == torch.bfloat16


def test_every_help_ends_with_an_example_that_parses(folder):
    commands = get_command(app).commands
    assert len(EXAMPLES) == len(commands)
    (folder / "store" / "image").mkdir(parents=True)
    for example in EXAMPLES.values():
        name, *arguments = shlex.split(example)[1:]
        commands[name].make_context(name, arguments)
        text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).stdout
        assert " ".join(text.split()).endswith(f"Example: {example}")


def test_helps_and_lists_need_no_mathematics():
    texts = [CliRunner().invoke(app, [name, "--help"]).stdout for name in get_command(app).commands]
    lists = [CliRunner().invoke(app, [name]).stdout for name in ("methods", "experiments")]
    for text in [*texts, *lists]:
        assert not re.search(r"[Σ∂∫‖δα]|U_i|\[M25\]|et al|residual of|cotangent", text), text
    for text in lists:
        entries = text.partition("--data")[0].splitlines()
        assert len(entries) > 20
        assert all(line.startswith("  Use this when ") for line in entries[1::2])


def test_the_spinner_says_how_far_a_long_step_is(monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(common, "err", terminal)
    with common.spinner("explaining 50 words"):
        tell(0.5)
    assert "explaining 50 words, 50%" in terminal.file.getvalue()


def test_a_selection_by_characters_in_a_box(folder):
    from PIL import Image

    Image.effect_noise((90, 60), 90).convert("RGB").save("x.png")
    result = explain("x.png", "a dog and a cat", "--select", "10-15", "--box", "0,0,45,60")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("“a cat” in the box 0–45 × 0–60 ")
    assert re.search(r"'10-15' × box 0,0,45,60: [+-]0\.\d{4}\n", result.stdout)


def test_experiments_are_listed_without_what_running_them_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "secondsight.evaluation", None)
    result = CliRunner().invoke(app, ["experiments"])
    assert result.exit_code == 0, result.output
    assert "pointing" in result.stdout
