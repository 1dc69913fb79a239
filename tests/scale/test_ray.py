"""The Ray engine on this machine: the local engine's output, also when a worker is killed in the middle."""

import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

import secondsight as ss
from secondsight.data import Scenes

ray = pytest.importorskip("ray", reason="needs secondsight[scale]")

from secondsight.scale import decompose, open_store  # noqa: E402
from secondsight.scale.ray_engine import decompose_with_ray  # noqa: E402
from secondsight.scale.sources import of_data  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=3, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    place = tmp_path_factory.mktemp("local") / "s"
    source = of_data(Scenes(48, seed=5), "image")
    decompose(source, ss.load("scenes"), place, dtype="float32")
    return source, open_store(place)


def same(one, other):
    assert list(one) == list(other)
    for key in one:
        assert torch.allclose(one[key].vectors, other[key].vectors, atol=1e-6)
        assert one[key].layout == other[key].layout
    assert sum(len(t) for t in other._parts.values()) == len(other)


def test_two_actors_give_what_the_local_engine_gives(cluster, local, tmp_path):
    source, expected = local
    report = decompose_with_ray(source, "scenes", tmp_path / "s", dtype="float32", actors=2, part=8)
    assert (report.done, report.skipped, report.problems) == (48, 0, {})
    same(expected, open_store(tmp_path / "s"))
    assert decompose_with_ray(source, "scenes", tmp_path / "s", dtype="float32", actors=2, part=8).skipped == 48


def workers(name):
    """Processes of Ray's workers whose title has `name`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if title.startswith("ray::") and name in title:
            found.append(int(pid))
    return found


@pytest.mark.parametrize("victim", ["Decomposer", "_prepare"], ids=["actor", "task"])
def test_a_killed_worker_costs_nothing(cluster, local, tmp_path, victim):
    source, expected = local
    killed = []

    def kill():
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            done = list((tmp_path / "s").glob("part-*")) if (tmp_path / "s").exists() else []
            for pid in workers(victim) if done or victim == "_prepare" else []:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break
            time.sleep(0.005)

    thread = threading.Thread(target=kill)
    thread.start()
    report = decompose_with_ray(source, "scenes", tmp_path / "s", dtype="float32", actors=2, part=4)
    thread.join()
    if not killed:
        pytest.skip("the run was over before a worker could be killed")
    assert report.problems == {}
    same(expected, open_store(tmp_path / "s"))


def test_an_experiment_reads_what_the_cluster_explained(cluster, tmp_path, monkeypatch):
    from secondsight.evaluation import evaluate
    from secondsight.scale.ray_engine import explain_with_ray

    data, models = "scenes:noto/12#4", [("scenes", ss.load("scenes"))]
    seen = explain_with_ray("pointing", data, ["scenes"], out=tmp_path / "ray", actors=2, part=3, limit=8)
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
