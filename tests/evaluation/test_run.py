"""Runs that are killed and resumed, and what they do with captions, settings and requests that cannot be used."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import secondsight as ss
from captions import write_data
from models import small
from secondsight.encoders.fingerprint import fingerprint
from secondsight.evaluation import evaluate
from secondsight.evaluation.experiments.sanity import shuffle_weights
from secondsight.evaluation.journal import Journal

OURS = ("ours", ss.IntegratedJacobian(steps=8))

SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import torch
from models import small
import secondsight as ss
from secondsight.evaluation import evaluate
slow = float(sys.argv[3])
evaluate("pointing", sys.argv[1], [("small", small())], [("ours", ss.IntegratedJacobian(steps=8))], out=sys.argv[2],
         progress=lambda *_: time.sleep(slow))
"""


def _records(out):
    return pd.read_parquet(out / "pointing" / "records.parquet")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a report and the arrays of its pairs; archives carry times of writing."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix != ".npz":
            found[str(file.relative_to(folder))] = file.read_bytes()
    return found


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    file = write_data(tmp_path / "data", 6)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1] / "support")))
    command = [sys.executable, str(script), str(file)]
    subprocess.run([*command, str(tmp_path / "whole"), "0"], check=True, capture_output=True)
    process = subprocess.Popen(
        [*command, str(tmp_path / "killed"), "1.5"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.time() + 120
    while time.time() < deadline:
        found = list((tmp_path / "killed").rglob("records.jsonl"))
        if found and found[0].read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (journal,) = (tmp_path / "killed").rglob("records.jsonl")
    assert 3 <= journal.read_bytes().count(b"\n") < 7
    assert not (tmp_path / "killed" / "pointing" / "report.html").exists()
    # As if the machine had gone down in the middle of a line.
    with journal.open("ab") as stream:
        stream.write(b'{"key": "half a li')
    subprocess.run([*command, str(tmp_path / "killed"), "0"], check=True, capture_output=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_folder_of_another_run_is_refused(tmp_path):
    first = Journal(tmp_path / "a" / "records.jsonl", {"seed": 0})
    first.add("x", [{"v": 1}])
    first.close()
    again = Journal(tmp_path / "a" / "records.jsonl", {"seed": 0})
    assert again.records == {"x": [{"v": 1}]}
    again.close()
    with pytest.raises(ss.InputError, match="records of another run"):
        Journal(tmp_path / "a" / "records.jsonl", {"seed": 1})


def test_what_cannot_be_used_is_listed_and_not_fatal(model, data, tmp_path):
    folder = tmp_path / "data"
    write_data(folder, 3)
    (folder / "1.png").write_bytes(b"no image")
    (folder / "2.png").unlink()
    evaluate("pointing", folder / "data.jsonl", [("small", model)], [OURS], out=tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "pointing" / "summary.json").read_text())
    assert summary["captions"] == 1
    assert len(summary["problems"]) == 2
    assert any("1.png" in key for key in summary["problems"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "nothing"}, "unknown experiment 'nothing'; known: approximation"),
        ({"limit": 0}, "limit=0 must be at least 1"),
        ({"rule": "cell"}, "unknown rule"),
        ({"steps": 3}, "has no option 'steps'"),
        ({"data": "coco:/nowhere"}, "does not exist"),
        ({"name": "hard-negatives", "limit": None, "data": "nowhere.jsonl"}, "does not exist"),
    ],
)
def test_wrong_requests(model, data, tmp_path, change, words):
    asked = {"name": "pointing", "data": str(data), "out": tmp_path / "out", **change}
    name, source = asked.pop("name"), asked.pop("data")
    with pytest.raises(ss.InputError, match=words):
        evaluate(name, source, [("small", model)], [OURS], **asked)


def test_a_setting_that_gives_nothing_is_left_out_and_named(model, data, tmp_path):
    results = evaluate("pointing", data, [("small", model)], [OURS], layers=[9, -1], out=tmp_path, limit=2)
    assert len(results["overall"]) == 1
    ((label, why),) = results.left_out.items()
    assert "layer 9" in label
    assert "layer 9 is not one of" in why
    assert not any("layer 9" in reason for reason in results._run.problems.values())
    assert f"<b>{label}</b> gave nothing and is left out: layer 9" in (tmp_path / "pointing/report.html").read_text()
    assert list(json.loads((tmp_path / "pointing/summary.json").read_text())["left out"]) == [label]
    with pytest.raises(ss.InputError, match="'pointing' can judge: layer 9 is not one of"):
        evaluate("pointing", data, [("small", model)], [OURS], layers=[9], out=tmp_path / "none", limit=2)


def test_fillings_have_records_of_their_own_whatever_others_are_asked_for(model, data, tmp_path):
    def medians(fill):
        results = evaluate("perturbation", data, [("small", model)], [OURS], out=tmp_path, limit=1, fill=fill)
        return results["overall"].set_index("setting").CID

    black, both = medians("black"), medians("black,mean")
    assert len(both) == 2
    assert both.iloc[0] == black.item()
    assert medians("mean").item() == both.iloc[1]


def test_other_weights_under_the_same_name_are_another_run(model, data, tmp_path):
    evaluate("pointing", data, [("checkpoint", model)], [OURS], out=tmp_path, limit=1)
    first = _records(tmp_path)
    evaluate("pointing", data, [("checkpoint", shuffle_weights(model, 1))], [OURS], out=tmp_path, limit=1)
    assert not first.energy.equals(_records(tmp_path).energy)
    assert fingerprint(model) == fingerprint(small())
