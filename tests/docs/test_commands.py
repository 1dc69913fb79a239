"""The documentation's commands run as they stand, page by page."""

import re
import shlex
import tomllib

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from documents import PAGES, ROOT, replace_all, shell_commands, write_reader_folder
from secondsight.cli import app

STAND_INS = {
    # What readers have, and what stands for it here; numbers that only make a command longer.
    "PHOTO": "scene.png",
    "stsb:sts-test.csv": "stsb:examples/sentence_pairs.jsonl",
    "st:sentence-transformers/all-MiniLM-L6-v2": "scenes",
    'explain FOLDER "CAPTION"': 'explain photos "a dog left of a tree"',
    '"CAPTION"': '"a dog left of a tree"',
    "open_clip:ViT-B-16/openai": "scenes",
    "open_clip:ViT-B-16/tuned/model.safetensors": "scenes:tuned/model.safetensors",
    "--model builtin": "--model scenes",
    "--layer 6": "--layer 2",
    "--layer all": "--layer 1 --layer -1",
    "--limit 200": "--limit 1",
    "--data photos.jsonl": "--data photos.jsonl --limit 1",
    "--n 1000": "--n 4",
    "noto/200": "noto/5",
    "noto/20 ": "noto/2 ",
    "twemoji/8#": "twemoji/5#",
    "budget=128": "budget=48",
    "/data/coco": "coco",
    "$HOME/Pictures": "photos",
    "~/Pictures": "photos",
    "--out tuned": "--out tuned --epochs 1 --batch 4",
    "--method banzhaf --method": "--method banzhaf:budget=48 --method",
}

PARSED = {
    "secondsight serve": "it serves until it is stopped; test_server.py",
    "secondsight evaluate methods": "twenty minutes; test_explanations.py",
    "secondsight evaluate rivals": "a quarter of an hour; test_rivals.py",
    "secondsight evaluate paper": "its models come from a hub; test_evaluation.py",
    "secondsight evaluate scenes-figures": "ten minutes; test_paper_figures.py",
    "secondsight evaluate scenes-paper": "a quarter of an hour; test_scenes_paper.py",
    "secondsight decompose --data coco:coco#train2017": "it needs a cluster; test_ray.py",
}
"""Commands whose options are checked without running them, and why."""

SHELL = ("cd", "git", "python", "python3", ".", "apt-get", ".venv/bin/python")
"""Programs of the reader's own shell: only the files that they name are checked."""

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A folder with what readers of the documentation have, as the current one."""
    write_reader_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if shell_commands(page)], ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore::secondsight.ConvergenceWarning")
def test_the_commands_of_a_page_run(page, builtin, reader):
    del builtin, reader
    for documented in shell_commands(page):
        command = replace_all(documented, STAND_INS)
        words = shlex.split(command)
        if words[0] == "make":
            assert words[1] in TARGETS, documented
        elif words[:2] == ["pip", "install"]:
            extras = [extra for group in re.findall(r"\[(.*)\]", documented) for extra in group.split(",")]
            assert set(extras) <= set(EXTRAS), documented
        elif words[0] == "secondsight":
            check_secondsight(documented, command, words[1:])
        else:
            assert words[0] in SHELL, documented
            for word in words[1:]:
                assert not word.endswith(".py") or (ROOT / word).exists() or (ROOT / "tests" / word).exists(), (
                    documented
                )


def check_secondsight(documented: str, command: str, arguments: list[str]) -> None:
    """Runs the command, or parses its options where `PARSED` says why it does not run."""
    commands = get_command(app).commands
    assert arguments[0] in commands, documented
    if any(command.startswith(start) for start in PARSED):
        commands[arguments[0]].make_context(arguments[0], arguments[1:])
        return
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (documented, result.output[-800:], result.exception)
