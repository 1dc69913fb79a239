"""CONTRIBUTING's first change, done in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

from documents import ROOT


def test_the_first_change_of_contributing(tmp_path):
    """ruff finds nothing, every model family takes the new method, and the documented test passes."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    method, import_line, test = (textwrap.dedent(code) for code in re.findall(r" +```python\n(.*?)\n +```", text, re.S))
    for name in ("src", "tests", "examples", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    methods = tmp_path / "src" / "secondsight" / "methods"
    (methods / "share_of_move.py").write_text(method + "\n")
    init = (methods / "__init__.py").read_text()
    init = init.replace("from secondsight.methods.shapley", f"{import_line.strip()}\nfrom secondsight.methods.shapley")
    (methods / "__init__.py").write_text(init)
    tests = tmp_path / "tests" / "methods" / "test_methods.py"
    # The documented imports go to the top, the test itself to the end.
    code = tests.read_text().replace("from models import", "from models import clip, pixels\nfrom models import", 1)
    tests.write_text(f"{code}\n\n{test[test.index('def test_') :]}\n")
    ruff = [sys.executable, "-m", "ruff"]
    for command in ([*ruff, "check", "--fix"], [*ruff, "format"], [*ruff, "check"]):
        result = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTEST_ADDOPTS": ""}
    pytest = [sys.executable, "-m", "pytest", "-q", str(tests), "-k", "share_of_move or share-of-move"]
    result = subprocess.run(pytest, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", result.stdout).group(1))
    assert passed >= 3, result.stdout
