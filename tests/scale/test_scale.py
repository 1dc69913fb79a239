"""Stores: what goes in comes out, complete or not at all, whoever was killed; retrieval that adds up."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import secondsight as ss
from secondsight.algebra.layout import TokenLayout
from secondsight.data import ListedDataset, Scenes
from secondsight.methods import base as methods_base
from sides import InMemory
from stores import random_contributions

pa = pytest.importorskip("pyarrow", reason="needs secondsight[scale]")

from secondsight.scale import decompose, open_source, open_store, search  # noqa: E402
from secondsight.scale.decompose import Engine, Report  # noqa: E402
from secondsight.scale.place import move_model  # noqa: E402
from secondsight.scale.search import query_of, words_of_ranking  # noqa: E402
from secondsight.scale.sources import Source, of_data  # noqa: E402
from secondsight.scale.store import create_store, write_part  # noqa: E402
from secondsight.support.memory import out_of_memory  # noqa: E402


@pytest.fixture(scope="module")
def model():
    return ss.load("scenes")


@pytest.fixture(scope="module")
def world():
    return Scenes(40, seed=11)


@pytest.fixture(scope="module")
def stores(model, world, tmp_path_factory):
    place = tmp_path_factory.mktemp("stores")
    for side in ("image", "text"):
        decompose(of_data(world, side), model, place / side, part=16)
    return open_store(place / "image"), open_store(place / "text")


@pytest.mark.parametrize(
    ("dtype", "close"), [("float32", 0.0), ("float16", 6e-4), ("int8", 1e-2)], ids=["float32", "float16", "int8"]
)
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_what_goes_in_comes_out_and_rounding_is_told(model, tmp_path, dtype, close, size):
    store = create_store(tmp_path / "s", model, ss.IntegratedJacobian(), 0, dtype)
    inputs = {f"k{i} – ü": random_contributions(i, features=7, size=size) for i in range(5)}
    write_part(store.folder, 0, list(inputs), list(inputs.values()), dtype)
    opened = open_store(tmp_path / "s")
    assert list(opened) == list(inputs)
    for key, one in inputs.items():
        got = opened[key]
        missed = float((got.vectors - one.vectors).norm() / one.vectors.norm())
        assert missed <= close
        assert got.about["rounding"] == pytest.approx(missed, rel=1e-3, abs=1e-12)
        assert torch.equal(got.embedding, one.embedding)
        assert torch.equal(got.reference_embedding, one.reference_embedding)
        assert (got.layout, got.scale, got.outcome) == (one.layout, one.scale, one.outcome)
    assert opened.summary()["largest rounding"] <= max(close, 1e-12)


def test_pairs_of_stores_are_those_of_the_model(model, world, stores):
    images, texts = stores
    assert (len(images), len(texts)) == (40, 40)
    assert images.table()["converged"].to_pylist() == [True] * 40
    assert min(images.table()["nodes"].to_pylist()) > 0
    for i in (0, 7, 39):
        one = world[i]
        pair = images[one.image_key] @ texts[f"{one.image_key}/{one.key}"]
        e = model.left.contributions([one.image])[0] @ model.right.contributions([one.caption])[0]
        assert pair.similarity == pytest.approx(e.similarity, abs=1e-5)
        assert torch.allclose(pair.matrix, e.matrix, atol=2e-3 * float(e.matrix.abs().max()))
        assert pair.error < 5e-3
        assert images[one.image_key].outcome.layer == model.left.contributions([one.image])[0].outcome.layer
        assert pair.left_layout == e.left_layout
    # Every pair's error holds what rounding added.
    assert images.summary()["largest rounding"] < 6e-4


def test_texts_and_images_of_other_makes_are_refused(model, world, stores, tmp_path):
    images, texts = stores
    other = ss.IntegratedJacobian(layer=0, steps=2)
    decompose(of_data(world, "text").first(3), model, tmp_path / "text", other)
    mine = open_store(tmp_path / "text")
    with pytest.raises(ss.InputError, match="different models, methods or pairs"):
        images[next(iter(images))] @ mine[next(iter(mine))]
    with pytest.raises(ss.InputError, match="another method"):
        decompose(of_data(world, "text"), model, texts.folder, other)
    with pytest.raises(ss.InputError, match="another dtype"):
        decompose(of_data(world, "text"), model, texts.folder, dtype="int8")
    with pytest.raises(ss.InputError, match="another side"):
        decompose(of_data(world, "image"), model, texts.folder)
    with pytest.raises(ss.InputError, match="cannot be written down"):
        decompose(of_data(world, "image"), model, tmp_path / "x", ss.IntegratedJacobian(reference=torch.zeros(1)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ss.InputError, match="exists and is not a store"):
        decompose(of_data(world, "image"), model, tmp_path / "full")
    for folder in (tmp_path / "full", tmp_path / "nowhere"):
        with pytest.raises(ss.InputError, match="is not a store of contributions"):
            open_store(folder)
    with pytest.raises(ss.InputError, match="has no 'nothing'"):
        images["nothing"]
    assert images.get("nothing") is None


def test_stores_of_another_format_say_what_they_are(model, world, tmp_path):
    decompose(of_data(world, "image").first(2), model, tmp_path)
    facts = json.loads((tmp_path / "store.json").read_text())
    for version in (1, 3):
        (tmp_path / "store.json").write_text(json.dumps({**facts, "format": f"secondsight-store-{version}"}))
        message = f"'secondsight-store-{version}' of another version .* run secondsight decompose again"
        with pytest.raises(ss.InputError, match=message):
            open_store(tmp_path)
        with pytest.raises(ss.InputError, match=message):
            decompose(of_data(world, "image"), model, tmp_path)


@pytest.fixture(params=["float16", "int8", "float32"])
def rows_of_three(request, model, tmp_path):
    """A store of a dtype, and what it holds as arrays by key; entries differ in their number of features."""
    store = create_store(tmp_path / "s", model, ss.IntegratedJacobian(), 0, request.param)
    entries = [random_contributions(i, features=5 + i) for i in range(3)]
    write_part(store.folder, 0, ["a", "b"], entries[:2], request.param)
    write_part(store.folder, 2, ["c"], entries[2:], request.param)
    store.refresh()
    return store, {key: store[key].vectors.numpy() for key in store}


def test_pandas_reads_numbers(rows_of_three):
    import pyarrow.dataset

    store, expected = rows_of_three
    frame = pyarrow.dataset.dataset(sorted(store.folder.glob("part-*")), format="arrow").to_table().to_pandas()
    assert frame.equals(store.table().to_pandas())
    assert list(frame.key) == list(expected)
    for row in frame.itertuples():
        vectors = np.stack(row.vectors)
        assert vectors.dtype == store.facts["dtype"]
        assert np.array_equal(vectors.astype("f4") * row.step_sizes[:, None], expected[row.key])
        assert np.array_equal(row.embedding, store[row.key].embedding)


def test_polars_reads_numbers(rows_of_three):
    polars = pytest.importorskip("polars", reason="needs secondsight[dev]")
    store, expected = rows_of_three
    frame = polars.read_ipc(str(store.folder / "part-*.arrow"))
    assert frame["key"].to_list() == list(expected)
    for key, vectors, steps in frame.select("key", "vectors", "step_sizes").iter_rows():
        assert np.array_equal(np.array(vectors, "f4") * np.array(steps, "f4")[:, None], expected[key])


def test_duckdb_reads_numbers(rows_of_three):
    duckdb = pytest.importorskip("duckdb", reason="needs secondsight[dev]")
    store, expected = rows_of_three
    rows = store.table()
    if store.facts["dtype"] == "float16":
        # DuckDB has no half precision.
        wide = pa.list_(pa.list_(pa.float32(), 12))
        rows = rows.set_column(rows.column_names.index("vectors"), "vectors", rows["vectors"].cast(wide))
    with duckdb.connect() as database:
        database.register("rows", rows)
        answer = database.sql("select key, vectors, step_sizes, residual < 1e-3 from rows").fetchall()
    assert [key for key, *_ in answer] == list(expected)
    for key, vectors, steps, small in answer:
        assert small is True
        assert np.array_equal(np.array(vectors, "f4") * np.array(steps, "f4")[:, None], expected[key])


def test_a_run_goes_on_where_it_stopped(model, world, tmp_path):
    source = of_data(world, "image")
    first = decompose(source.first(17), model, tmp_path / "s", part=8)
    assert (first.done, first.skipped) == (17, 0)
    names = {p.name for p in (tmp_path / "s").glob("part-*")}
    again = decompose(source, model, tmp_path / "s", part=8)
    assert (again.done, again.skipped) == (23, 17)
    assert names < {p.name for p in (tmp_path / "s").glob("part-*")}
    assert list(open_store(tmp_path / "s")) == list(source.keys)


@pytest.mark.parametrize("edited", ["a bird\na dog\n", "a bird\na cat\na dog\n"], ids=["changed", "inserted"])
def test_an_edited_text_is_no_text_that_is_stored_already(model, tmp_path, edited):
    file = tmp_path / "t.txt"
    file.write_text("a cat\na dog\n")
    decompose(open_source(file, "text"), model, tmp_path / "s")
    written = {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()}
    file.write_text(edited)
    with pytest.raises(ss.InputError, match=r"the text '1' was another one .* is 'a bird' now: decompose into another"):
        decompose(open_source(file, "text"), model, tmp_path / "s")
    assert {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()} == written
    file.write_text("a cat\na dog\na bird\n")
    assert decompose(open_source(file, "text"), model, tmp_path / "s").done == 1
    store = open_store(tmp_path / "s")
    assert [store[key].layout.text for key in ("1", "2", "3")] == ["a cat", "a dog", "a bird"]
    assert "text_digest" not in store["1"].about


def test_an_edited_caption_of_a_data_set_is_refused(model, world, tmp_path):
    captions = [world[0], world[1]]
    decompose(of_data(ListedDataset("before", captions), "text"), model, tmp_path / "s")
    captions[1] = replace(captions[1], caption="something else", phrases=(), negatives=())
    with pytest.raises(ss.InputError, match="is 'something else' now"):
        decompose(of_data(ListedDataset("after", captions), "text"), model, tmp_path / "s")


def test_broken_inputs_are_listed_and_the_others_are_there(model, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(5):
        Image.new("RGB", (40, 40), (40 * i, 0, 0)).save(photos / f"{i}.png")
    (photos / "2.png").write_bytes(b"broken")
    seen = []
    report = decompose(
        open_source(f"photos:{photos}", "image"), model, tmp_path / "s", progress=lambda r: seen.append(r.done)
    )
    assert list(report.problems) == ["2.png"]
    assert "is not a photograph that can be read" in report.problems["2.png"]
    assert list(open_store(tmp_path / "s")) == ["0.png", "1.png", "3.png", "4.png"]
    assert seen[-1] == 4
    assert report.rate > 0


def test_worker_processes_give_the_same(model, world, tmp_path):
    source = of_data(world, "image").first(12)
    for workers in (0, 2):
        decompose(source, model, tmp_path / str(workers), dtype="float32", workers=workers)
    one, other = (open_store(tmp_path / str(w)) for w in (0, 2))
    assert all(torch.equal(one[k].vectors, other[k].vectors) for k in one)


def test_sources(world, tmp_path):
    (tmp_path / "t.txt").write_text("a cat\n\n  a dog  \n", encoding="utf-8")
    texts = open_source(f"texts:{tmp_path / 't.txt'}", "text")
    assert [(k, texts.read(i)) for i, k in enumerate(texts.keys)] == [("1", "a cat"), ("3", "a dog")]
    assert open_source(tmp_path / "t.txt", "text").keys == texts.keys
    both = Scenes(5, captions=3, seed=2)
    assert (len(of_data(both, "image")), len(of_data(both, "text"))) == (5, 15)
    for spec, side, words in (
        ("photos:/nowhere", "image", "not a folder"),
        (f"photos:{tmp_path}", "image", "no photographs"),
        (f"photos:{tmp_path}", "text", "no texts"),
        ("texts:/nowhere", "text", "cannot be read"),
        (f"texts:{tmp_path / 't.txt'}", "image", "no images"),
        ("magic:x", "image", "unknown kind"),
        (tmp_path, "image", "cannot recognise the data .*; or photos:FOLDER, or texts:FILE with a text a line"),
    ):
        with pytest.raises(ss.InputError, match=words):
            open_source(spec, side)


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_byte_is_found_wherever_it_is(stores, tmp_path, seed):
    images, _ = stores
    rng = random.Random(seed)
    part = sorted(images.folder.glob("part-*"))[0]
    data = bytearray(part.read_bytes())
    (tmp_path / "store.json").write_bytes((images.folder / "store.json").read_bytes())
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)
    (tmp_path / part.name).write_bytes(data)
    before = {key: images[key] for key in list(images)[:16]}
    try:
        damaged = open_store(tmp_path)
    except ss.InputError as problem:
        # The part's own frame is hit: nothing of it can be read.
        told = str(problem)
        damaged = None
    if damaged is None:
        assert "damaged" in told
        return
    problems = damaged.verify()
    if not problems:
        # Padding and unused fields of the format carry nothing: what is read is what was written.
        assert list(damaged) == list(before)
        for key, one in before.items():
            assert torch.equal(damaged[key].vectors, one.vectors)
            assert damaged[key].layout == one.layout
    else:
        assert all("decompose again" in problem for problem in problems)


def test_damage_in_the_numbers_is_named_and_mended(model, world, tmp_path):
    source = of_data(world, "image").first(12)
    decompose(source, model, tmp_path / "s", part=4)
    store = open_store(tmp_path / "s")
    part = sorted((tmp_path / "s").glob("part-*"))[1]
    data = bytearray(part.read_bytes())
    vectors = store._parts[part.name].row(2)["vectors"].tobytes()
    data[data.index(vectors) + 100] ^= 4
    part.write_bytes(data)
    store = open_store(tmp_path / "s")
    key = source.keys[6]
    with pytest.raises(ss.InputError, match="is damaged"):
        store[key]
    assert len(store.verify()) == 1
    assert store[source.keys[5]] is not None
    part.unlink()
    assert decompose(source, model, tmp_path / "s", part=4).done == 4
    assert open_store(tmp_path / "s").verify() == []


WRITER = """
import os, signal, sys
from pathlib import Path
from secondsight.scale.store import Store, write_part
from stores import random_contributions

folder, whole = Path(sys.argv[1]), int(sys.argv[2])

def write(limit):
    store = Store(folder)
    todo = [i for i in range(whole) if f"{i:06d}" not in store]
    for part, at in enumerate(range(0, len(todo), 4)):
        if part == limit:
            signal.pause()
        group = todo[at : at + 4]
        entries = [random_contributions(i, 200, 64) for i in group]
        write_part(folder, group[0], [f"{i:06d}" for i in group], entries, "float16")

# Imported once; every line asks for a new process, which goes on writing and waits to be killed after so many parts.
for line in sys.stdin:
    child = os.fork()
    if not child:
        write(int(line))
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_a_writer_killed_twenty_times_loses_nothing(model, tmp_path):
    folder, whole, rng = tmp_path / "s", 1600, random.Random(0)
    create_store(folder, model, ss.IntegratedJacobian(), 0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    path = [str(Path(__file__).parents[1] / "support"), environment.get("PYTHONPATH", "")]
    writers = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(whole)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": os.pathsep.join(path)},
    )

    def start(limit):
        writers.stdin.write(f"{limit}\n")
        writers.stdin.flush()
        return int(writers.stdout.readline())

    def parts():
        return len(list(folder.glob("part-*")))

    for _ in range(20):
        goal = rng.randrange(1, 12)
        before, pid = parts(), start(goal + 3)
        while parts() < before + goal:
            os.kill(pid, 0)  # still alive
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        assert int(writers.stdout.readline()) == signal.SIGKILL
        assert before + goal <= parts() <= before + goal + 3
    start(-1)
    assert int(writers.stdout.readline()) == 0
    writers.stdin.close()
    store = open_store(folder)
    assert sorted(store) == [f"{i:06d}" for i in range(whole)]
    assert len(store.table()) == whole
    assert store.verify() == []
    for i in (0, 777, whole - 1):
        expected = random_contributions(i, 200, 64).vectors
        assert float((store[f"{i:06d}"].vectors - expected).norm() / expected.norm()) < 6e-4


def test_memory_that_runs_out_halves_the_batch(model, world, monkeypatch):
    # Methods list themselves by being defined.
    monkeypatch.setattr(methods_base, "METHODS", dict(methods_base.METHODS))
    inputs = model.left.prepare([world[i].image for i in range(6)])
    method = ss.IntegratedJacobian()

    asked = []

    class Small(ss.IntegratedJacobian):
        name = "small"

        def contributions(self, side, some):
            asked.append(len(some))
            if len(some) > 2:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …")
            return method.contributions(side, some)

    engine = Engine(model.left, Small(), batch=5)
    assert len(engine.run(inputs)) == 6
    assert asked == [5, 2, 2, 2]

    class Never(ss.IntegratedJacobian):
        name = "never"

        def contributions(self, side, some):
            raise MemoryError

    with pytest.raises(ss.InputError, match="not enough memory for a single input"):
        Engine(model.left, Never(), batch=4).run(inputs)

    class Other(ss.IntegratedJacobian):
        name = "other"

        def contributions(self, side, some):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Engine(model.left, Other()).run(inputs)
    assert not out_of_memory(ValueError("out of memory"))
    # A small budget makes small batches, a large one larger.
    few = Engine(model.left, method, max_memory=1e6)
    few.run(inputs[:1])
    many = Engine(model.left, method, max_memory=1e9)
    many.run(inputs[:1])
    assert few.batch == 1 < many.batch


def test_search_is_exact_and_explains_itself(model, world, stores):
    images, texts = stores
    query = texts[list(texts)[3]]
    hits = search(images, query, 5)
    every = {key: float((images[key] @ query).similarity) for key in images}
    best = sorted(every, key=lambda k: -every[k])[:5]
    assert [hit.key for hit in hits] == best
    assert [hit.similarity for hit in hits] == pytest.approx([every[k] for k in best], abs=1e-6)
    # Why the first is above the third: a margin that adds up, over both images' cells and the query's words.
    why = hits[0].above(hits[2])
    assert why.similarity == pytest.approx(hits[0].similarity - hits[2].similarity, abs=1e-6)
    assert why.error < 1e-2
    assert why.left_layout.size == hits[0].entry.layout.size + hits[2].entry.layout.size
    words = words_of_ranking(hits)
    above = torch.stack([hits[0].above(h).toward_right(None) for h in hits[1:]]).mean(0)
    visible = query.layout.visible
    assert sum(v for _, v in words) == pytest.approx(float(above[visible].sum()), abs=1e-5)
    # An index of somebody else's, asked the same way as faiss's.
    vectors = images.embeddings.numpy()

    class Flat:
        def search(self, queries, k):
            products = queries @ vectors.T
            rows = np.argsort(-products, 1)[:, :k]
            return np.take_along_axis(products, rows, 1), rows

    assert [hit.key for hit in search(images, query, 5, index=Flat())] == best
    assert len(search(images, query, 1000)) == 40
    with pytest.raises(ss.InputError, match="at least 1"):
        search(images, query, 0)


def test_search_works_on_contributions_in_memory(stores):
    images, texts = stores
    query = texts[texts.keys()[3]]
    hits = search(InMemory({key: images[key] for key in images}), query, 7)
    expected = search(images, query, 7)
    assert [hit.key for hit in hits] == [hit.key for hit in expected]
    assert [hit.similarity for hit in hits] == [hit.similarity for hit in expected]
    twins = InMemory({key: images[images.keys()[0]] for key in "cab"})
    assert [hit.key for hit in search(twins, query, 2)] == ["c", "a"]


def test_queries_are_made_by_the_stores_model_and_method(model, world, stores):
    images, _ = stores
    query = query_of(images, model, world[4].caption)
    assert search(images, query, 3)[0].key == world[4].image_key
    alike = query_of(images, model, world[4].image)
    assert search(images, alike, 1)[0].similarity == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ss.InputError, match="other weights"):
        query_of(images, ss.wrap(*_parts()), "a cat")


def _parts():
    import open_clip

    from models import clip

    model = clip(torch.float32, text={"context_length": 40, "vocab_size": 49408})
    return model, open_clip.image_transform(32, is_train=False), open_clip.SimpleTokenizer(context_length=40)


def test_commands(model, world, tmp_path, capsys, monkeypatch):
    from secondsight.cli import main

    def run(*arguments, code=0):
        monkeypatch.setattr("sys.argv", ["secondsight", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        return capsys.readouterr()

    made = run("decompose", "--data", "scenes:noto/12#5", "--model", "scenes", "--out", tmp_path / "s", "--limit", 8)
    assert "8 entries" in made.out
    again = run("decompose", "--data", "scenes:noto/12#5", "--model", "scenes", "--out", tmp_path / "s")
    assert "4 new, 8 were there" in again.out
    found = run("search", tmp_path / "s" / "image", "a cat", "--model", "scenes", "-k", 3)
    assert "words above the rest" in found.out
    assert "12 entries, 0 damaged" in run("verify", tmp_path / "s" / "image").out
    part = next((tmp_path / "s" / "image").glob("part-*"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 255
    part.write_bytes(data)
    assert "damaged" in run("verify", tmp_path / "s" / "image", code=1).out
    assert "unknown side" in run("decompose", "--data", "x", "--out", tmp_path, "--side", "left", code=2).err
    assert (
        "cannot be used here"
        in run(
            "decompose",
            "--data",
            "scenes:noto/2",
            "--model",
            "scenes",
            "--device",
            "xpu:7",
            "--out",
            tmp_path / "d",
            code=2,
        ).err
    )


def test_report_tells_what_is_left():
    report = Report(100, done=20, skipped=10)
    report.begun -= 10
    assert report.rate == pytest.approx(2, rel=0.01)
    assert report.left == pytest.approx(35, rel=0.01)
    assert json.dumps(Report(3).left) == "Infinity"


def test_the_text_layout_survives(stores, world):
    _, texts = stores
    layout = texts[f"{world[0].image_key}/{world[0].key}"].layout
    assert isinstance(layout, TokenLayout)
    assert layout.text == world[0].caption


def test_a_source_is_what_it_says():
    source = Source("text", ["a", "b"], lambda i: "xy"[i])
    assert (len(source), len(source.first(1)), len(source.first(None))) == (2, 1, 2)


def test_one_bad_input_is_listed_and_bad_options_are_said(model, world, tmp_path, monkeypatch):
    source = of_data(world, "image").first(6)
    monkeypatch.setattr(methods_base, "METHODS", dict(methods_base.METHODS))

    class Overflowing(ss.IntegratedJacobian):
        name = "overflowing"

        def contributions(self, side, some):
            bad = model.left.encoder.prepare(world[2].image).tensor
            made = super().contributions(side, some)
            pairs = zip(some, made, strict=True)
            return [replace(m, factor=m.vectors * float("nan")) if torch.equal(p.tensor, bad) else m for p, m in pairs]

    report = decompose(source, model, tmp_path / "s", Overflowing())
    assert report.problems == {world[2].image_key: "its contributions hold NaN or infinity"}
    assert len(open_store(tmp_path / "s")) == 5
    with pytest.raises(ss.InputError, match="none of 6 inputs could be decomposed: "):
        decompose(source, model, tmp_path / "t", ss.IntegratedJacobian(layer=77))


def test_a_store_that_was_killed_at_birth_can_be_made(model, world, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".store.json.abc").write_text("{")
    assert decompose(of_data(world, "image").first(2), model, tmp_path / "s").done == 2
    empty = create_store(tmp_path / "e", model, ss.IntegratedJacobian(), 0)
    assert len(empty.embeddings) == 0
    with pytest.raises(ss.InputError, match="no entries"):
        search(empty, open_store(tmp_path / "s")[world[0].image_key])


@pytest.mark.filterwarnings("ignore::secondsight.ConvergenceWarning")
def test_half_precision_forwards_are_near_the_whole_ones(world, stores, tmp_path):
    half = move_model(ss.load("scenes"), "cpu", "bf16")
    assert next(half.left.encoder.module.parameters()).dtype == torch.bfloat16
    decompose(of_data(world, "image").first(4), half, tmp_path / "s")
    mine, whole = open_store(tmp_path / "s"), stores[0]
    assert (mine.facts["precision"], whole.facts["precision"]) == ("bfloat16", "float32")
    assert mine.facts["weights"] != whole.facts["weights"]
    for key in mine:
        a, b = mine[key], whole[key]
        assert torch.cosine_similarity(a.vectors.flatten(), b.vectors.flatten(), dim=0) > 0.99
        # The decomposition itself runs in float32: it adds up to its own embedding.
        assert a.relative_residual < 5e-3
    with pytest.raises(ss.InputError, match="unknown precision"):
        move_model(half, None, "int4")
