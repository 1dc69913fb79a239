"""The paper's findings in the scenes' world: every part runs, says what it tested, and goes on where it was stopped."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from secondsight.cli import app
from secondsight.evaluation.studies.findings import LEVEL, higher, more_hits, mostly
from secondsight.evaluation.studies.scenes import scenes_paper
from secondsight.evaluation.tables import markdown
from secondsight.support.errors import InputError

SMALL = ("share=0.02", "masks=16", "nodes=2")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("findings")
    options = [part for option in SMALL for part in ("--option", option)]
    done = CliRunner().invoke(app, ["evaluate", "scenes-paper", "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    return out, done.output


def test_every_part_leaves_its_report_and_its_findings(small):
    out, printed = small
    found = pd.read_csv(out / "findings.csv")
    assert "findings.html" in printed
    assert len(found) >= 25
    assert set(found.holds) <= {"yes", "no", "unclear"}
    assert found.p.between(0, 1).all()
    assert (found.cases > 0).all()
    named = found.source.str.extract(r"(Table 1[ab]|Fig\. \d+)")[0].dropna()
    assert {"Table 1a", "Table 1b", "Fig. 6", "Fig. 7", "Fig. 8", "Fig. 9", "Fig. 20", "Fig. 21"} <= set(named)
    page = (out / "findings.html").read_text()
    for place in ("methods", "layers", "domains/noto", "fine-tuning/twemoji", "discrimination", "hard-negatives",
                  "failures/twemoji", "paths", "references", "faithfulness", "collage"):  # fmt: skip
        reports = list((out / place).glob("*/report.html"))
        assert reports, place
        assert reports[0].relative_to(out).as_posix() in page
    tables = json.loads((out / "findings.json").read_text())["tables"]
    assert len(tables) >= 10
    assert (out / "findings.md").read_text().startswith("## Findings")


def test_a_second_run_reads_the_first(small):
    out, _ = small
    before = (out / "findings.csv").read_bytes()
    scenes_paper(out, share=0.02, masks=16, nodes=2)
    assert (out / "findings.csv").read_bytes() == before


def test_other_models_and_options_are_refused(tmp_path):
    with pytest.raises(InputError, match="scenes-paper"):
        scenes_paper(tmp_path, model="builtin")
    with pytest.raises(InputError, match="share"):
        scenes_paper(tmp_path, share=0)
    for more in (["--data", "scenes:noto"], ["--method", "banzhaf"], ["--model", "scenes", "--model", "builtin"]):
        done = CliRunner().invoke(app, ["evaluate", "scenes-paper", "--out", str(tmp_path / "x"), *more])
        assert done.exit_code == 2, more
    assert CliRunner().invoke(app, ["evaluate", "pointing", "--out", str(tmp_path / "x")]).exit_code == 2


def test_the_tests_of_findings():
    rng = np.random.default_rng(0)
    low = rng.random(40)
    up = higher("f", "s", "PGE", low + 0.1, low)
    assert (up.holds, up.verdict) == (True, "yes")
    down = higher("f", "s", "PGE", low, low + 0.1)
    assert (down.holds, down.verdict) == (False, "no")
    same = higher("f", "s", "PGE", low, low)
    assert (same.p, same.verdict) == (1.0, "unclear")
    hits = more_hits("f", "s", np.ones(20), np.r_[np.zeros(15), np.ones(5)])
    assert hits.p == pytest.approx(2 * 0.5**15)
    assert hits.holds
    most = mostly("f", "s", [True] * 30 + [False] * 2)
    assert most.holds
    assert most.observation == "93.8% of the cases"
    few = mostly("f", "s", [True, True, False])
    assert few.p > LEVEL
    assert few.verdict == "unclear"


def test_tables_as_markdown():
    table = pd.DataFrame({"a|b": [1, 2], "c": [0.5, float("nan")]})
    assert markdown(table) == "| a\\|b | c |\n| --- | --- |\n| 1 | 0.500 |\n| 2 | – |\n"
