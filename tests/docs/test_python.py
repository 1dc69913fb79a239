"""The documentation's Python runs as it stands, page by page."""

import pytest
import torch

import families.pages
from documents import PAGES, ROOT, python_blocks, replace_all
from secondsight.methods import base as methods_base

STAND_INS = {
    # Accuracy and numbers that only make a page run longer.
    "hf:vidore/colpali-v1.3-hf": "hf:colpali",
    "IntegratedJacobian(layer=(5, -1))": "IntegratedJacobian(layer=(5, -1), steps=1)",
    "Banzhaf(budget=64)": "Banzhaf(budget=16)",
    '"compare", Scenes(8': '"compare", Scenes(3',
    'quadrature="riemann", steps=50': 'quadrature="riemann", steps=5',
}

CODED = [page for page in PAGES if page.parent.name == "docs" and python_blocks(page)]


@pytest.mark.parametrize("page", CODED, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore::secondsight.ConvergenceWarning")
def test_the_code_of_a_page_runs(page, builtin, tmp_path, monkeypatch):
    del builtin
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    if page.stem in ("late_interaction", "questions"):
        write_pages(tmp_path)
    # A page may define a method, which lists itself.
    monkeypatch.setattr(methods_base, "METHODS", dict(methods_base.METHODS))
    names = {}
    for code in python_blocks(page):
        exec(compile(replace_all(code, STAND_INS), page.name, "exec"), names)


def write_pages(folder):
    """Two pages, and a small random ColPali in the place of the hub's."""
    families.pages.page(240, 300).save(folder / "report.png")
    families.pages.page(300, 240).save(folder / "appendix.png")
    families.pages.save(families.pages.hf_colpali(torch.float32), folder / "colpali")


def test_every_stand_in_stands_for_something():
    code = "".join(block for page in CODED for block in python_blocks(page))
    assert [original for original in STAND_INS if original not in code] == []
