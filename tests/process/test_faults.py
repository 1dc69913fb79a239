"""A full disk, folders that cannot be written to, two processes at once, being stopped at any time, threads."""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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
def no_coverage_in_children(monkeypatch):
    """A child that measures coverage writes one more file at its end, and that would fail instead of the command."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "scene.png"
    next(iter(Scenes(1, seed=5))).image.save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A dozen scenes as a JSONL file."""
    folder, captions = tmp_path_factory.mktemp("data"), []
    for i, scene in enumerate(Scenes(12, seed=4)):
        path = folder / f"{i}.png"
        scene.image.save(path)
        captions.append(replace(scene, image=path, image_key=path.name))
    write_jsonl(folder / "data.jsonl", captions)
    return folder / "data.jsonl"


def limit_files(limit: int):
    """For `preexec_fn`: no file of the child may have more bytes, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def error_of(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 2, (result.returncode, result.stderr[-2000:])
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def run(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("name", ["e.html", "e.png", "e.npz", "e.json", "e.pdf"])
def test_a_full_disk_leaves_nothing_half_written(photo, tmp_path, name, monkeypatch):
    """Within one process: the file system refuses writes after some bytes."""
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
    """One sentence, and a second run with more room continues where the first one stopped."""
    arguments = ["decompose", "--data", data, "--side", "image", "--model", "scenes", "--out", tmp_path / "s"]
    assert "make room" in error_of(run(*arguments, preexec_fn=limit_files(20_000)))
    assert not list((tmp_path / "s" / "image").glob(".part-*"))
    assert len(open_store(tmp_path / "s" / "image")) == 0
    assert run(*arguments).returncode == 0
    assert len(open_store(tmp_path / "s" / "image")) == 12
    assert open_store(tmp_path / "s" / "image").verify() == []
    arguments = ["evaluate", "pointing", "--data", data, "--model", "scenes", "--out", tmp_path / "e"]
    assert "make room" in error_of(run(*arguments, preexec_fn=limit_files(3000)))
    assert not list((tmp_path / "e").rglob("report.html"))
    assert run(*arguments).returncode == 0
    assert len(list((tmp_path / "e").rglob("report.html"))) == 1


def test_folders_that_cannot_be_written_to(photo, data, tmp_path):
    (tmp_path / "file").write_text("x")
    for out in ("/proc/x.html", tmp_path / "file" / "x.html", tmp_path / "no" / "x.html"):
        error = error_of(run("explain", photo, "a cat", "--model", "scenes", "--out", out))
        assert "cannot be written" in error or "does not exist" in error
        assert str(out) in error
    for command in (["decompose", "--data", data, "--side", "image"], ["evaluate", "pointing", "--data", data]):
        error = error_of(run(*command, "--model", "scenes", "--out", tmp_path / "file"))
        assert "file" in error


def test_no_folder_for_caches(photo, tmp_path):
    """Home, matplotlib's folder and the hub's do not exist: everything that needs no cache works."""
    nowhere = dict.fromkeys(("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME"), "/dev/null/x")
    done = run(
        "explain", photo, "a cat", "--model", "scenes", "--out", tmp_path / "e.html", "--out", tmp_path / "e.png",
        env={**os.environ, **nowhere},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert Image.open(tmp_path / "e.png").size[0] > 100


def test_two_runs_fill_one_store(data, tmp_path):
    """All end well, and every entry is there once, whole."""
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
    # If one ended before the other began, the other had nothing left to do.
    assert codes in ([0, 2], [0, 0]), errors
    assert codes == [0, 0] or any("another run is writing" in e for e in errors), errors
    (journal,) = (tmp_path / "e").rglob("records.jsonl")
    keys = [line.split('"key": ')[1].split('"')[1] for line in journal.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys))


def heed_interrupts() -> None:
    """A process that a shell starts in the background ignores Ctrl-C, and so do its children; these should not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


STOPPED = """
import os, sys

def explain(photo, folder, calls, number):
    # The command as a person types it; sends itself the signal at that function call, and notes how many there were.
    count = 0

    def trace(*_):
        nonlocal count
        count += 1
        if count == calls:
            sys.settrace(None)
            os.kill(os.getpid(), number)

    from secondsight.__main__ import main
    sys.argv[:] = ["secondsight", "explain", photo, "a cat", "--model", "scenes", "--quiet", "--out", folder + "/e.html"]
    sys.settrace(trace)
    try:
        main()
    finally:
        sys.settrace(None)
        with open(folder + ".calls", "w") as file:
            file.write(str(count))

photo, start = sys.argv[1:3]
if start == "cold":
    explain(photo, sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
else:
    import secondsight.cli, secondsight.explanation, secondsight.visual.page, secondsight.encoders.families.scenes
    for line in sys.stdin:
        folder, calls, number = line.split()
        child = os.fork()
        if not child:
            with open(folder + ".stderr", "w") as file:
                os.dup2(file.fileno(), 2)
            explain(photo, folder, int(calls), int(number))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs the explanation in a new interpreter, or again and again in forks of one that has imported the libraries."""


@pytest.fixture(scope="module")
def start_cold(photo):
    """A function that explains in a new interpreter; returns its exit code and what it printed on the error stream."""

    def explain(folder: Path, calls: int = 0, number: int = 0) -> tuple[int, str]:
        command = [sys.executable, "-c", STOPPED, photo, "cold", folder, calls, number]
        done = subprocess.run(
            [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            timeout=300, preexec_fn=heed_interrupts,
        )  # fmt: skip
        return done.returncode, done.stderr

    return explain


@pytest.fixture(scope="module")
def fork_warm(photo):
    """The same in a fork of an interpreter that has imported the libraries."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(photo), "forked"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, preexec_fn=heed_interrupts,
    )  # fmt: skip

    def explain(folder: Path, calls: int = 0, number: int = 0) -> tuple[int, str]:
        process.stdin.write(f"{folder} {calls} {number}\n")
        process.stdin.flush()
        return int(process.stdout.readline()), Path(f"{folder}.stderr").read_text()

    yield explain
    process.stdin.close()
    assert process.wait(60) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("start", "attempts"), [("start_cold", 2), ("fork_warm", 8)])
def test_stopped_at_any_time(request, tmp_path, start, attempts):
    """At some function calls of an explanation: no traceback, and its file is there whole or not at all."""
    explain, rng = request.getfixturevalue(start), random.Random(7)
    (tmp_path / "whole").mkdir()
    assert explain(tmp_path / "whole")[0] == 0
    whole, calls = (tmp_path / "whole" / "e.html").read_bytes(), int((tmp_path / "whole.calls").read_text())
    for number in (signal.SIGINT, signal.SIGTERM):
        stopped = 0
        for attempt in range(attempts):
            folder = tmp_path / f"{number.name}-{attempt}"
            folder.mkdir()
            # Every other time near the end, where the file is written. At first the command has no handler yet.
            first = 100 if attempt % 2 == 0 else round(0.95 * calls)
            code, printed = explain(folder, rng.randrange(first, calls), int(number))
            # The signal's usual effect where the command has already given its handler back.
            assert code in (0, 128 + number, -number), printed
            stopped += code != 0
            assert "Traceback" not in printed
            files = list(folder.iterdir())
            assert [path.name for path in files] in ([], ["e.html"])
            assert all(len(path.read_bytes()) == pytest.approx(len(whole), rel=0.01) for path in files)
        assert stopped >= attempts // 2


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopped_within_an_import(tmp_path, sent):
    """Nothing is raised into a library that is being imported, and unfinished files are removed."""
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
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=heed_interrupts,
    )
    assert done.returncode == 128 + sent, done.stderr
    assert done.stderr == ("stopped\n" if sent == signal.SIGINT else "")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopped_within_a_finalizer(tmp_path, sent):
    """Python drops exceptions that are raised there: the process ends all the same, and unfinished files are removed."""
    code = (
        "import os\n"
        "import secondsight.cli\n"
        "from secondsight.__main__ import main\n"
        "from secondsight.support.files import atomic\n"
        "class Closing:\n"
        "    def __del__(self):\n"
        f"        os.kill(os.getpid(), {int(sent)})\n"
        "        [i for i in range(10**9)]\n"
        "def command():\n"
        f"    with atomic({str(tmp_path / 'out' / 'e.html')!r}):\n"
        "        Closing()\n"
        "        print('went on')\n"
        "secondsight.cli.main = command\n"
        "main()\n"
    )
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=heed_interrupts)
    assert (done.returncode, done.stdout) == (128 + sent, ""), done.stderr
    assert done.stderr == ("stopped\n" if sent == signal.SIGINT else "")
    assert list((tmp_path / "out").iterdir()) == []


def test_threads_share_an_explainer():
    """Many threads, one model in the middle of training: the numbers of one thread, and the model unchanged."""
    host = clip(torch.float64).train()
    model = ss.wrap(host)
    settings = [(seed, layer) for seed in range(6) for layer in (-1, 1)]

    def explain(setting: tuple[int, int]) -> torch.Tensor:
        seed, layer = setting
        method = ss.IntegratedJacobian(layer=layer, steps=4)
        return ss.explain(model, pixels(seed=seed), tokens(), method).matrix

    expected, before = [explain(setting) for setting in settings], snapshot(host)
    with ThreadPoolExecutor(6) as threads:
        for _ in range(3):
            matrices = list(threads.map(explain, settings))
            assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(matrices, expected, strict=True))
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
    folder, lengths = tmp_path / "s", []

    def read() -> None:
        while not stop.is_set():
            try:
                store = open_store(folder)
            except ss.InputError:
                continue  # before its first file
            lengths.append(len(store))
            assert store.verify() == []

    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(read)
        decompose(of_data(world, "text"), model, folder, part=3)
        stop.set()
        reader.result(60)
    assert lengths == sorted(lengths)
    assert len(open_store(folder)) == 20
