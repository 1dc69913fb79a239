"""The command line as a person types it, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from secondsight.cli import app

PHOTO = Path(__file__).parents[2] / "examples" / "coffee.jpg"
CAPTION = "a cup of coffee on a saucer"


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "secondsight", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=300)


@pytest.fixture(scope="module")
def explained(tmp_path_factory, builtin):
    del builtin  # skips where its weights are not installed
    folder = tmp_path_factory.mktemp("out")
    names = [n for e in ("html", "png", "npz", "svg", "csv") for n in ("--out", f"e.{e}")]
    result = run("explain", PHOTO, CAPTION, "--select", "coffee", *names, "--json", "e.json", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result


def test_it_prints_the_words_the_terms_and_the_error(explained):
    _, result = explained
    for word in (*CAPTION.split(), "base", "image alone", "text alone", "interaction", "similarity", "error"):
        assert word in result.stdout
    assert "'coffee' × whole image" in result.stdout
    assert result.stderr == ""


def test_it_writes_the_requested_files(explained):
    folder, _ = explained
    assert sorted(p.name for p in folder.iterdir()) == ["e.csv", "e.html", "e.json", "e.npz", "e.png", "e.svg"]
    assert Image.open(folder / "e.png").width > 1000


def test_the_json_holds_every_number(explained):
    folder, _ = explained
    data = json.loads((folder / "e.json").read_text())
    assert {"similarity", "terms", "error", "method", "model", "left", "right", "attributions", "seconds"} <= set(data)
    assert data["error"] == pytest.approx(abs(data["similarity"] - sum(data["terms"].values())))
    assert data["error"] < 1e-4
    assert data["model"] == "builtin"
    rows, columns = data["left"]["grid"]
    assert len(data["attributions"]) == rows * columns
    pieces = [CAPTION[o[0] : o[1]] for o in data["right"]["offsets"] if o]
    assert pieces == [*CAPTION.split()[:-1], "sauce", "r"]


def test_a_box_scores_words_and_dash_prints_json(builtin):
    del builtin
    result = run("explain", PHOTO, CAPTION, "--box", "330,220,400,330")
    assert result.returncode == 0
    assert "words × box 330,220,400,330" in result.stdout
    result = run("explain", PHOTO, CAPTION, "--json", "-", "--quiet")
    assert json.loads(result.stdout)["model"] == "builtin"


@pytest.fixture
def loaded(builtin, monkeypatch):
    """Commands load the builtin model only once; everything else works as usual."""
    from secondsight.encoders import registry

    real = registry.load
    monkeypatch.setattr(registry, "load", lambda name: builtin if name == "builtin" else real(name))


def test_other_pairs_and_contrasts(builtin):
    del builtin
    result = run("explain", PHOTO, "a cup", "--against", "a dog", "--against", "a spoon")
    assert result.returncode == 0, result.stderr
    assert "rather than 'a spoon'" in result.stdout
    assert "− spoon" in result.stdout
    assert "margin" in result.stdout
    result = run("explain", PHOTO, PHOTO, "--box", "0,0,100,100", "--select", "100,50,200,200")
    assert result.returncode == 0, result.stderr
    assert "box 0,0,100,100 × whole image" in result.stdout
    assert "left alone" in result.stdout
    result = run("explain", "a cup of tea", "a mug")
    assert result.returncode == 0, result.stderr
    assert "words × a mug" in result.stdout


def test_methods_are_compared_in_one_picture(loaded, tmp_path, monkeypatch):
    del loaded
    monkeypatch.chdir(tmp_path)
    columns = ["--method", "token-embeddings", "--method", "banzhaf:budget=16,seed=3"]
    rows = ["--select", "cup", "--select", "coffee"]
    result = CliRunner().invoke(app, ["compare", str(PHOTO), "a cup of coffee", *columns, *rows, "--out", "grid.png"])
    assert result.exit_code == 0, result.stderr
    assert "banzhaf" in result.stdout
    assert "17 encodings" in result.stdout
    assert Image.open("grid.png").width > 500
    for arguments, words in (
        (["--method", "magic", "--out", "g.png"], "unknown method 'magic'"),
        (["--method", "banzhaf:budget", "--out", "g.png"], "is not NAME=VALUE"),
        (["--method", "occlusion:steps=3", "--out", "g.png"], "has no option 'steps'"),
        (["--method", "token-embeddings", "--select", "dog", "--out", "g.png"], "'dog' is not in the text"),
        (["--out", "g.html"], "must end in .png"),
    ):
        result = CliRunner().invoke(app, ["compare", str(PHOTO), "a cup of coffee", *arguments])
        assert result.exit_code == 2
        assert words in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]


BAD = [
    (("no.jpg", CAPTION), "'no.jpg' does not exist"),
    ((".", CAPTION), "is a folder"),
    (("notes.txt", CAPTION), "not a photograph that can be read: use JPEG, PNG or WebP"),
    ((PHOTO, ""), "caption is empty"),
    ((PHOTO, "  "), "caption is empty"),
    ((PHOTO, CAPTION, "--select", "dog"), "'dog' is not in the text; its words are 'a', 'cup'"),
    ((PHOTO, CAPTION, "--select", "a"), "'a' occurs 2 times"),
    ((PHOTO, CAPTION, "--box", "9,9"), "is not four numbers"),
    ((PHOTO, CAPTION, "--box", "9,9,a,b"), "is not four numbers"),
    ((PHOTO, CAPTION, "--box", "700,0,800,50"), "outside the image, which is 600×400"),
    ((PHOTO, "b.jpg"), "'b.jpg' does not exist"),
    ((PHOTO, CAPTION, "--against", "b.jpg"), "'b.jpg' does not exist"),
    ((PHOTO, CAPTION, "--against", " "), "is empty"),
    (("a dog", CAPTION, "--box", "1,1,3,3"), "a box needs an image, not text"),
    ((PHOTO, PHOTO, "--select", "dog"), "--select 'dog' is not four numbers"),
    ((PHOTO, CAPTION, "--model", "hf:./folder"), "the folder './folder' does not exist"),
    ((PHOTO, CAPTION, "--model", "clip"), "unknown model 'clip'; known: builtin"),
    ((PHOTO, CAPTION, "--method", "magic"), "unknown method 'magic'; known: grounded, last-layer, paper, attention"),
    ((PHOTO, CAPTION, "--layer", "99"), "blocks 0 …"),
    ((PHOTO, CAPTION, "--layer", "one"), "is not a block's number, 'input', 'grounded', or two"),
    ((PHOTO, CAPTION, "--method", "integrated-jacobian", "--quadrature", "simpson"), "known: gauss-legendre"),
    ((PHOTO, CAPTION, "--method", "last-layer", "--strategy", "pooled"), "closed form"),
    ((PHOTO, CAPTION, "--method", "integrated-jacobian", "--tol", "0"), "positive"),
    ((PHOTO, CAPTION, "--steps", "8"), "has no option 'steps'; it has layer, reference, normalize, seed, cells"),
    ((PHOTO, CAPTION, "--out", "e.txt"), "must end in .html"),
    ((PHOTO, CAPTION, "--out", "no/e.html"), "'no' does not exist"),
    ((PHOTO, CAPTION, "--json", "e.html"), "must end in .json"),
    ((PHOTO, "word " * 600), "takes 602 tokens, the model reads 512"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[w for _, w in BAD])
def test_bad_input_is_one_sentence_and_exit_code_two(tmp_path, loaded, monkeypatch, arguments, words):
    del loaded
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no photograph")
    out = [] if "--out" in arguments or "--json" in arguments else ["--out", "kept.html"]
    result = CliRunner().invoke(app, ["explain", *map(str, arguments), *out], env={"COLUMNS": "100", "NO_COLOR": "1"})
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_bad_input_in_a_process_of_its_own(tmp_path):
    result = run("explain", "no.jpg", CAPTION, "--out", "kept.html", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: 'no.jpg' does not exist\n"
    assert list(tmp_path.iterdir()) == []


def test_the_lists():
    models, methods = run("models"), run("methods")
    assert "builtin" in models.stdout
    assert "open_clip:ViT-B-16/openai" in models.stdout
    assert "integrated-jacobian" in methods.stdout
    assert run("--version").stdout.startswith("secondsight 0.")
    assert "explain" in run("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing", "--data", "x"], "unknown experiment 'nothing'; known: approximation"),
        (["pointing", "--data", "nowhere"], "data 'nowhere' does not exist"),
        (["pointing", "--data", "a.jsonl", "--data", "b.jsonl"], "looks at one data set"),
        (["pointing", "--data", "data.jsonl", "--limit", "0"], "limit=0 must be at least 1"),
        (["pointing", "--data", "data.jsonl", "--rule", "cell"], "unknown rule 'cell'"),
        (["pointing", "--data", "data.jsonl", "--method", "nope"], "unknown method 'nope'"),
        (["compare", "--data", "data.jsonl"], "needs 2 settings"),
        (["pointing", "--data", "data.jsonl"], "missing image"),
        (["paper", "--data", "data.jsonl", "--option", "config=none.yaml"], "cannot be read as YAML"),
    ],
)
def test_experiments_refuse_bad_input_in_one_sentence(tmp_path, loaded, monkeypatch, arguments, words):
    del loaded
    monkeypatch.chdir(tmp_path)
    line = {"image": "gone.png", "caption": "a dog", "phrases": [{"span": "dog", "boxes": [[1, 1, 9, 9]]}]}
    Path("data.jsonl").write_text(json.dumps(line))
    command = ["evaluate", *arguments, "--out", "results"]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "100", "NO_COLOR": "1"})
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
    assert not list(tmp_path.rglob("*.html"))


def test_an_experiment_from_the_command_line(tmp_path, loaded):
    del loaded
    with Image.open(PHOTO) as photo:
        box = [0, 0, photo.width // 2, photo.height]
    line = {"image": str(PHOTO), "caption": CAPTION, "phrases": [{"span": "coffee", "boxes": [box]}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(line))
    command = ["evaluate", "pointing", "--data", str(tmp_path / "data.jsonl"), "--out", str(tmp_path / "results")]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "120", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.stderr
    assert "PGA" in result.stdout
    assert (tmp_path / "results" / "pointing" / "report.html").is_file()
    listed = CliRunner().invoke(app, ["experiments"]).stdout
    assert "hard-negatives" in listed
    assert "flickr30k:FOLDER" in listed


def test_the_doctor_reports_the_installation(monkeypatch):
    from secondsight import doctor

    lines, broken = doctor.report()
    findings = dict(lines)
    assert findings["torch"] == torch.__version__
    assert findings["scenes weights"].startswith("there")
    assert broken == []
    monkeypatch.setattr(doctor, "PARTS", {"extra": ("no-such-package",)})
    monkeypatch.setattr("secondsight.encoders.registry.load", lambda name: 1 / 0)
    lines, broken = doctor.report()
    assert dict(lines)["[extra]"] == "pip install 'secondsight[extra]' (no-such-package)"
    assert dict(lines)["scenes weights"] == "damaged"
    assert "division by zero" in broken
