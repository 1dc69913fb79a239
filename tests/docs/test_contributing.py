"""CONTRIBUTING's first change, done in a copy of the tree, and its rule."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import torch
from torch.nn.functional import softplus

from documents import ROOT
from secondsight.paths import rules, secants
from secondsight.paths.linear_maps import Scale
from secondsight.paths.linearisation import Linearisation
from secondsight.paths.rules import move


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


def test_the_rule_of_contributing(monkeypatch):
    """The documented rule passes its documented test, and is a derivative where both points are the same."""
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))
    monkeypatch.setattr(move, "RULES", rules.RULES)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text[text.index("## A rule for an operation") : text.index("## A data set")]
    aten = torch.ops.aten
    assert aten.logaddexp.default not in rules.RULES
    names = {"np": np, "torch": torch, "aten": aten, "softplus": softplus, "secants": secants, "Scale": Scale}
    names |= {"Linearisation": Linearisation, "Move": move.Move, "Edge": move.Edge, "rule": move.rule}
    for code in re.findall(r"```py\n(.*?)```", section, re.S):
        exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    assert aten.logaddexp.default in rules.RULES
    torch.manual_seed(0)
    names["test_logaddexp_is_its_mean_derivative"]()
    at = torch.zeros(3, dtype=torch.float64)
    derivative = Linearisation(lambda z: torch.logaddexp(z, 2 * z), at, at).push(torch.ones_like(at)[None])
    assert torch.allclose(derivative, torch.full_like(derivative, 1.5))
