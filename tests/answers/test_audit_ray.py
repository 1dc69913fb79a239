"""The audit's passes by Ray's actors: the tables of one process, also when an actor is killed in the middle."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from clusters import workers
from worlds import World

pytest.importorskip("ray", reason="needs secondsight[scale]")

from secondsight.answers.audit.clusters import clusters_section
from secondsight.answers.audit.ray_engine import Measurer, clusters_with_ray, measure_parts, words_with_ray
from secondsight.answers.audit.word_parts import WordMeasure, word_parts
from secondsight.answers.partial import partial_folder


def tables(collection):
    return sorted(path.name for path in collection.texts.folder.glob("audit-*/*.parquet"))


def test_actors_write_the_tables_of_one_process(cluster, tmp_path, monkeypatch):
    world = World(images=40, part=8)
    (tmp_path / "local").mkdir()
    (tmp_path / "ray").mkdir()
    local, spread = world.write(tmp_path / "local"), world.write(tmp_path / "ray")
    expected_words, expected = word_parts(local), clusters_section(local).tables["words and clusters"]
    assert words_with_ray(spread, actors=2) == 40
    assert clusters_with_ray(spread, actors=2) == 40
    assert len(tables(spread)) == 10
    # Everything is there: nothing is measured again.
    monkeypatch.setattr(WordMeasure, "__call__", None)
    assert word_parts(spread).equals(expected_words)
    assert clusters_section(spread).tables["words and clusters"].equals(expected)


def test_an_actor_reads_the_stores_and_writes_its_parts(tmp_path, monkeypatch):
    world = World(images=24, part=8)
    (tmp_path / "local").mkdir()
    (tmp_path / "ray").mkdir()
    expected, spread = word_parts(world.write(tmp_path / "local")), world.write(tmp_path / "ray")
    options = {
        "images": str(spread.images.folder),
        "texts": str(spread.texts.folder),
        "pairs": spread.pairs,
        "folder": str(partial_folder(spread, "words")),
        "measure": WordMeasure,
        "arguments": (),
    }
    first, *rest = spread.texts.parts()
    assert Measurer(options)({"part": np.array([first])}) == {"captions": [8]}
    assert Measurer(options)({"part": np.array(rest)}) == {"captions": [16]}
    monkeypatch.setattr(WordMeasure, "__call__", None)
    assert word_parts(spread).equals(expected)


def test_a_killed_actor_costs_nothing(cluster, tmp_path):
    world = World(images=40, part=8)
    (tmp_path / "local").mkdir()
    (tmp_path / "ray").mkdir()
    local, spread = world.write(tmp_path / "local"), world.write(tmp_path / "ray")
    gate, last, ended, killed = tmp_path / "gate", spread.texts.keys()[-1], threading.Event(), []

    class Gated(WordMeasure):
        """The last part waits until the actor is killed."""

        def __call__(self, keys):
            while last in keys and not gate.exists():
                time.sleep(0.01)
            return super().__call__(keys)

    def wait_for(event):
        while not (value := event()):
            assert not ended.wait(0.005), "the run ended before its actor was killed"
        return value

    def kill():
        wait_for(lambda: tables(spread))
        os.kill(wait_for(lambda: workers("Measurer"))[0], signal.SIGKILL)
        killed.append("actor")
        gate.touch()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        assert measure_parts(spread, partial_folder(spread, "words"), Gated) == 40
    finally:
        ended.set()
        thread.join()
    assert killed == ["actor"]
    assert word_parts(spread).equals(word_parts(local))
