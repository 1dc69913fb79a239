"""The Ray engine on this machine: the local engine's output, also when a worker is killed in the middle."""

import os
import signal
import threading
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch

import secondsight as ss
from clusters import workers
from secondsight.data import Scenes

pytest.importorskip("ray", reason="needs secondsight[scale]")

from secondsight.scale import decompose, open_store
from secondsight.scale.ray_engine import decompose_with_ray
from secondsight.scale.sources import of_data


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    place = tmp_path_factory.mktemp("local") / "s"
    source = of_data(Scenes(48, seed=5), "image")
    decompose(source, ss.load("scenes"), place, dtype="float32")
    return source, open_store(place)


def same(expected, store):
    assert list(expected) == list(store)
    for key in expected:
        assert torch.allclose(expected[key].vectors, store[key].vectors, atol=1e-6)
        assert expected[key].layout == store[key].layout
    assert len(store.table()) == len(store)


def test_two_actors_give_what_the_local_engine_gives(cluster, local, tmp_path):
    source, expected = local
    report = decompose_with_ray(source, "scenes", tmp_path / "s", dtype="float32", actors=2, part=8)
    assert (report.done, report.skipped, report.problems) == (48, 0, {})
    same(expected, open_store(tmp_path / "s"))
    assert decompose_with_ray(source, "scenes", tmp_path / "s", dtype="float32", actors=2, part=8).skipped == 48


def test_a_killed_task_and_a_killed_actor_cost_nothing(cluster, local, tmp_path):
    source, expected = local
    out, task, gate = tmp_path / "s", tmp_path / "task", tmp_path / "gate"
    last, ended, killed = len(source) - 1, threading.Event(), []

    def read(i):
        """The last input waits: the first time for the end of its process, then until the actor is killed."""
        if i == last and not task.exists():
            (task.parent / "pid").write_text(str(os.getpid()))
            (task.parent / "pid").rename(task)
            time.sleep(3600)
        while i == last and not gate.exists():
            time.sleep(0.01)
        return source.read(i)

    def wait_for(event):
        while not (value := event()):
            assert not ended.wait(0.005), "the run ended before a worker was killed"
        return value

    def kill():
        wait_for(task.exists)
        os.kill(int(task.read_text()), signal.SIGKILL)
        killed.append("task")
        wait_for(lambda: list(out.glob("part-*")))
        os.kill(wait_for(lambda: workers("Decomposer"))[0], signal.SIGKILL)
        killed.append("actor")
        gate.touch()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        report = decompose_with_ray(replace(source, read=read), "scenes", out, dtype="float32", part=8)
    finally:
        ended.set()
        thread.join()
    assert killed == ["task", "actor"]
    assert report.problems == {}
    same(expected, open_store(out))


def test_an_experiment_reads_what_the_cluster_explained(cluster, tmp_path, monkeypatch):
    from secondsight.evaluation import evaluate
    from secondsight.scale.ray_engine import explain_with_ray

    data, models = "scenes:noto/12#4", [("scenes", ss.load("scenes"))]
    seen = explain_with_ray("pointing", data, ["scenes"], out=tmp_path / "ray", part=3, limit=8)
    assert seen == 8
    expected = evaluate("pointing", data, models, out=tmp_path / "local", limit=8)
    # Everything is there: a model that cannot run is not asked.
    monkeypatch.setattr(type(models[0][1].left.encoder), "features", None)
    got = evaluate("pointing", data, models, out=tmp_path / "ray", limit=8)
    for name in expected:
        # A worker has one thread, and sums in another order.
        pd.testing.assert_frame_equal(got[name], expected[name], rtol=1e-3, atol=1e-6)
    with pytest.raises(ss.InputError, match="unknown experiment"):
        explain_with_ray("magic", data, ["scenes"], out=tmp_path)
