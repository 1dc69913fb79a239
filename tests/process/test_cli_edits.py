"""`secondsight explain --without`: a sentence, and the same numbers as JSON."""

import json

import pytest
from typer.testing import CliRunner

import secondsight as ss
from secondsight.cli import app
from secondsight.data import Scenes


def run(*arguments):
    command = ["explain", *map(str, arguments), "--model", "scenes"]
    return CliRunner().invoke(app, command, env={"COLUMNS": "120", "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    scene = Scenes(1, seed=1)[0]
    file = tmp_path_factory.mktemp("scene") / "scene.png"
    scene.image.save(file)
    return file, scene


def test_the_sentence_and_the_json(scene, tmp_path):
    file, example = scene
    word = example.caption.split()[-1].strip(".")
    e = ss.explain(ss.load("scenes"), file, example.caption)
    edit = e.without([word], left=[(0, 0, 40, 40)], verify=True)
    numbers = tmp_path / "numbers.json"
    result = run(file, example.caption, "--without", word, "--without-box", "0,0,40,40", "--verify", "--json", numbers)
    assert result.exit_code == 0, result.stderr
    assert edit.sentence in result.stdout.splitlines()
    assert json.loads(numbers.read_text())["edit"] == pytest.approx(edit.to_json())
    assert ss.Interactions.load(numbers).about["edit"]["how"] == "replaced"
    predicted = run(file, example.caption, "--without", word)
    assert "predicted, from" in predicted.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--verify",), "--verify needs something to leave out"),
        (("--without", "zebra"), "'zebra' is not in the text"),
        (("--without-box", "1,2,3"), "--without-box '1,2,3' is not four numbers"),
        (("--without", "a", "--verify", "--how", "x"), "unknown how 'x'"),
    ],
)
def test_bad_input(scene, options, said):
    file, example = scene
    result = run(file, example.caption, *options)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
