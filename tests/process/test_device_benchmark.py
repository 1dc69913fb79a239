"""The benchmark of full-size models on a device: what it measures on a tiny model, its table, and its place in the docs."""

import json
import os
import subprocess
import sys

import pytest
import torch
from open_clip.model import CLIP

from documents import ROOT

pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")


@pytest.fixture(scope="module")
def benchmarks():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        import device
        import suite

        yield device, suite


@pytest.fixture(scope="module")
def rows(benchmarks):
    device, _ = benchmarks
    return device.measure("tiny", "cpu", ["float32", "bf16"], 3, 1, tiny)


def tiny(name):
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
    return CLIP(16, vision, text).eval().requires_grad_(False), 32, 16, 64


def test_every_column_is_measured_in_every_precision(benchmarks, rows):
    device, _ = benchmarks
    assert [row["precision"] for row in rows] == ["float32", "bf16"]
    for row in rows:
        assert set(row) == set(device.COLUMNS)
        assert all(
            row[name] > 0 for name in device.COLUMNS if name not in ("model", "precision") and "diff" not in name
        )
    exact, half = rows
    for label in device.METHODS:
        assert exact[f"difference, {label}"] == 0
        assert 1e-4 < half[f"difference, {label}"] < 0.3


def test_captions_end_where_the_host_reads_them(benchmarks):
    device, _ = benchmarks
    _, size, length, vocabulary = tiny("")
    _, tokens = device.random_inputs(size, length, vocabulary, 4)
    assert (tokens.argmax(1) == 1 + device.WORDS).all()
    assert (tokens[:, 2 + device.WORDS :] == 0).all()


def test_a_table_takes_its_place_and_nothing_else(benchmarks, rows):
    device, suite = benchmarks
    machine = {"gpu": "a GPU", "cpu": "a CPU", "torch": "2", "commit": "abc"}
    table = device.markdown({"device": "cuda", "batch": 3, "rows": rows, "machine": machine})
    assert table.startswith("a GPU, ")
    assert table.count("\n| tiny |") == 2
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    once = suite.filled(page, "cuda", table)
    assert table in once
    assert suite.filled(once, "cuda", table) == once
    begin, end = (mark.format(device="cuda") for mark in (suite.BEGIN, suite.END))
    assert once.partition(begin)[0] == page.partition(begin)[0]
    assert once.partition(end)[2] == page.partition(end)[2]
    with pytest.raises(SystemExit, match="no lines"):
        suite.filled(page, "tpu", table)


def test_a_device_that_is_not_there_is_refused(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "device.py", "--device", "cuda", "--out", tmp_path / "r.json"]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "benchmarks", env=hidden)
    assert done.returncode == 1
    assert "sees no GPU" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r.json").exists()


def test_results_are_json_and_a_table(benchmarks, rows, tmp_path):
    device, _ = benchmarks
    result = {"device": "cpu", "batch": 3, "turns": 1, "rows": rows, "machine": device.described()}
    device.write(result, tmp_path / "deep" / "device-cpu.json")
    assert json.loads((tmp_path / "deep" / "device-cpu.json").read_text())["rows"] == rows
    assert (tmp_path / "deep" / "device-cpu.md").read_text() == device.markdown(result)
