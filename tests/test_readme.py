"""The README's Python and shell examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.S))
def test_python_examples_run(code, builtin, tmp_path, monkeypatch):
    del builtin
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    if "my_" in code:
        pytest.skip("this example needs a hub or a model of the reader's own")
    exec(compile(code, "README.md", "exec"), {})


def test_shell_examples_name_what_exists():
    commands = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
    targets = {line.split()[1] for line in commands if line.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{t}:", makefile, re.M) for t in targets)
    options = {w for line in commands if line.startswith("secondsight explain") for w in re.findall(r"--[a-z]+", line)}
    helped = subprocess.run(
        [sys.executable, "-m", "secondsight", "explain", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert options
    assert all(option in helped for option in options)
