"""The documentation's Python runs as it stands, page by page, and what is generated is current."""

import importlib.util
import re
from pathlib import Path

import pytest

from secondsight.methods import base as methods_base

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for p in (ROOT / "docs").glob("*.md") if "```python" in p.read_text())


@pytest.mark.parametrize("page", PAGES, ids=[p.stem for p in PAGES])
@pytest.mark.filterwarnings("ignore::secondsight.ConvergenceWarning")
def test_the_code_of_a_page_runs(page, builtin, tmp_path, monkeypatch):
    del builtin
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    # A page may define a method, which lists itself.
    monkeypatch.setattr(methods_base, "METHODS", dict(methods_base.METHODS))
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(code, page.name, "exec"), names)


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), (page.name, target)


def test_the_table_of_families_is_current(builtin):
    del builtin
    spec = importlib.util.spec_from_file_location("families_table", ROOT / "scripts" / "families_table.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text() == script.page(), "run scripts/families_table.py"
