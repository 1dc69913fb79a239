"""A full disk, a place that cannot be written to, two processes at once, being stopped at any time, threads."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

import secondsight as ss
from models import clip, pixels, tokens
from secondsight.data import Scenes, write_jsonl
from secondsight.scale import decompose, open_store
from secondsight.scale.sources import of_data
from secondsight.testing import changed, snapshot

pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")

COMMAND = [sys.executable, "-m", "secondsight"]


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch):
    """A child that measures coverage writes a file of its own, at its end, whatever happened to it: that is what would fail."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "scene.png"
    next(iter(Scenes(1, seed=5))).image.save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A dozen scenes as a JSONL file."""
    folder, made = tmp_path_factory.mktemp("data"), []
    for i, one in enumerate(Scenes(12, seed=4)):
        path = folder / f"{i}.png"
        one.image.save(path)
        made.append(one.__class__(**{**vars(one), "image": path, "image_key": path.name}))
    write_jsonl(folder / "data.jsonl", made)
    return folder / "data.jsonl"


def small_files(limit: int):
    """What a child does before it starts: every file may have so many bytes, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def sentence(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 2, (result.returncode, result.stderr[-2000:])
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def ran(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("name", ["e.html", "e.png", "e.npz", "e.json", "e.pdf"])
def test_a_full_disk_leaves_nothing_half_written(photo, tmp_path, name, monkeypatch):
    """Within one process: the file system refuses after some bytes, as it would at any of them."""
    e = ss.explain(ss.load("scenes"), photo, "a cat left of a tree", ss.METHODS["token-embeddings"]())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    try:
        with pytest.raises(ss.InputError, match=r"cannot write .*(large|space).*make room or choose another place"):
            e.save(tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
    e.save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_disk_that_fills_up_during_long_runs(data, tmp_path):
    """Said in one sentence, and what was done before is there when the run is started again with more room."""
    arguments = ["decompose", "--data", data, "--side", "image", "--model", "scenes", "--out", tmp_path / "s"]
    assert "make room" in sentence(ran(*arguments, preexec_fn=small_files(20_000)))
    assert not list((tmp_path / "s" / "image").glob(".part-*"))
    assert len(open_store(tmp_path / "s" / "image")) == 0
    assert ran(*arguments).returncode == 0
    assert len(open_store(tmp_path / "s" / "image")) == 12
    assert open_store(tmp_path / "s" / "image").verify() == []
    arguments = ["evaluate", "pointing", "--data", data, "--model", "scenes", "--out", tmp_path / "e"]
    assert "make room" in sentence(ran(*arguments, preexec_fn=small_files(3000)))
    assert not list((tmp_path / "e").rglob("report.html"))
    assert ran(*arguments).returncode == 0
    assert len(list((tmp_path / "e").rglob("report.html"))) == 1


def test_places_that_cannot_be_written_to(photo, data, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in ("/proc/x.html", tmp_path / "file" / "x.html", tmp_path / "no" / "x.html"):
        said = sentence(ran("explain", photo, "a cat", "--model", "scenes", "--out", out))
        assert "cannot write" in said or "does not exist" in said
        assert str(out) in said
    for command in (["decompose", "--data", data, "--side", "image"], ["evaluate", "pointing", "--data", data]):
        said = sentence(ran(*command, "--model", "scenes", "--out", tmp_path / "file"))
        assert "file" in said


def test_no_place_for_caches(photo, tmp_path):
    """Home, matplotlib's folder and the hub's lead nowhere: everything that needs no cache works."""
    nowhere = dict.fromkeys(("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME"), "/dev/null/x")
    done = ran(
        "explain", photo, "a cat", "--model", "scenes", "--out", tmp_path / "e.html", "--out", tmp_path / "e.png",
        env={**os.environ, **nowhere},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert Image.open(tmp_path / "e.png").size[0] > 100


def test_two_runs_fill_one_store(data, tmp_path):
    """Both go through, and every entry is there once, whole."""
    arguments = ["decompose", "--data", data, "--side", "image", "--model", "scenes", "--out", tmp_path / "s"]
    running = [subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], errors
    store = open_store(tmp_path / "s" / "image")
    assert len(store) == len(set(store.keys())) == 12
    assert store.verify() == []


def test_two_evaluations_of_one_folder(data, tmp_path):
    """One works, the other says so at once; records are there once."""
    arguments = ["evaluate", "pointing", "--data", data, "--model", "scenes", "--out", tmp_path / "e"]
    running = [
        subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in running]
    codes = sorted(process.returncode for process in running)
    # Where one was done before the other began, the other found everything there.
    assert codes in ([0, 2], [0, 0]), errors
    assert codes == [0, 0] or any("another run is writing" in e for e in errors), errors
    (journal,) = (tmp_path / "e").rglob("records.jsonl")
    keys = [line.split('"key": ')[1].split('"')[1] for line in journal.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys))


def heard() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so do its children; these shall not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_any_time(photo, tmp_path, sent):
    """At some times of an explanation: no traceback, and its file is there whole or not at all."""
    begun = time.monotonic()
    assert ran("explain", photo, "a cat", "--model", "scenes", "--out", tmp_path / "whole.html").returncode == 0
    whole, takes, rng = (tmp_path / "whole.html").read_bytes(), time.monotonic() - begun, random.Random(7)
    stopped = 0
    for attempt in range(8):
        place = tmp_path / str(attempt)
        place.mkdir()
        process = subprocess.Popen(
            [*COMMAND, "explain", str(photo), "a cat", "--model", "scenes", "--out", str(place / "e.html")],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heard,
        )  # fmt: skip
        # Before this the interpreter itself is starting.
        time.sleep(0.4 + rng.random() * max(takes - 0.5, 0.1))
        process.send_signal(sent)
        said = process.communicate(timeout=120)[1]
        # The signal's own end where the interpreter had not come as far as that.
        assert process.returncode in (0, 128 + sent, -sent), said
        stopped += process.returncode != 0
        assert "Traceback" not in said
        found = list(place.iterdir())
        assert [p.name for p in found] in ([], ["e.html"])
        assert all(len(p.read_bytes()) == pytest.approx(len(whole), rel=0.01) for p in found)
    assert stopped


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopped_within_an_import(tmp_path, sent):
    """Nothing is raised into a library that is being loaded, and what is being written is taken away."""
    (tmp_path / "slow.py").write_text(
        "import os, signal\n"
        "try:\n"
        f"    os.kill(os.getpid(), {int(sent)})\n"
        "    [i for i in range(10**9)]\n"
        "except BaseException:\n"
        "    os.abort()\n"
    )
    code = (
        "import secondsight.cli\n"
        "from secondsight.__main__ import main\n"
        "from secondsight.support.files import atomic\n"
        "def command():\n"
        f"    with atomic({str(tmp_path / 'out' / 'e.html')!r}):\n"
        "        import slow\n"
        "secondsight.cli.main = command\n"
        "main()\n"
    )
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, preexec_fn=heard
    )
    assert done.returncode == 128 + sent, done.stderr
    assert done.stderr == ("stopped\n" if sent == signal.SIGINT else "")
    assert list((tmp_path / "out").iterdir()) == []


def test_threads_share_an_explainer():
    """Many threads, one model in the middle of training: the numbers of one thread, and the model as it came."""
    host = clip(torch.float64).train()
    model = ss.wrap(host)
    asked = [(seed, layer) for seed in range(6) for layer in (-1, 1)]

    def one(question: tuple[int, int]) -> torch.Tensor:
        seed, layer = question
        method = ss.IntegratedJacobian(layer=layer, steps=4)
        return ss.explain(model, pixels(seed=seed), tokens(), method).matrix

    wanted, before = [one(q) for q in asked], snapshot(host)
    with ThreadPoolExecutor(6) as threads:
        for _ in range(3):
            found = list(threads.map(one, asked))
            assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, wanted, strict=True))
    assert changed(before, snapshot(host)) == []


def test_a_thread_that_fails_lets_the_next_one_in():
    host = clip(torch.float64)
    model = ss.wrap(host)
    with pytest.raises(ss.InputError), ThreadPoolExecutor(1) as threads:
        threads.submit(ss.explain, model, pixels(), torch.tensor([[1.5]])).result()
    waiting = threading.Thread(target=lambda: model.left.contributions(pixels()), daemon=True)
    waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_wait_for_a_thread_it_does_not_have(tmp_path):
    script = tmp_path / "fork.py"
    script.write_text(
        "import os, sys, threading, time\n"
        "from secondsight.support.guard import untouched\n"
        "inside, done = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with untouched():\n"
        "        inside.set(); done.wait(60)\n"
        "threading.Thread(target=hold, daemon=True).start(); inside.wait()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    with untouched():\n"
        "        os._exit(7)\n"
        "end = time.monotonic() + 30\n"
        "while time.monotonic() < end:\n"
        "    pid, status = os.waitpid(child, os.WNOHANG)\n"
        "    if pid: done.set(); sys.exit(os.waitstatus_to_exitcode(status))\n"
        "    time.sleep(0.05)\n"
        "os.kill(child, 9); sys.exit(1)\n"
    )
    assert subprocess.run([sys.executable, str(script)], timeout=120).returncode == 7


def test_a_store_is_read_while_it_is_written(tmp_path):
    model, world = ss.load("scenes"), Scenes(20, seed=3)
    place, seen = tmp_path / "s", []

    def look() -> None:
        while not stop.is_set():
            try:
                store = open_store(place)
            except ss.InputError:
                continue  # before its first file
            seen.append(len(store))
            assert store.verify() == []

    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(look)
        decompose(of_data(world, "text"), model, place, part=3)
        stop.set()
        reader.result(60)
    assert seen == sorted(seen)
    assert len(open_store(place)) == 20
