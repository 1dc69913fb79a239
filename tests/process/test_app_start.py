"""The app's first contact: examples, links that last, jobs that end, refusals at the door."""

import asyncio
import json
import socket
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import secondsight as ss
from pages import chromium, faults, needs_browser, page_of

pytest.importorskip("fastapi", reason="needs secondsight[web]")

from secondsight.cli import main
from secondsight.data import Scenes
from secondsight.server import Limits, create_app
from secondsight.server.examples import PHOTOGRAPHS, check_picture, examples_of
from secondsight.server.guard import Guard
from secondsight.server.jobs import Jobs, until_done
from secondsight.server.kept import KeptResult, Shelf
from secondsight.support.errors import InputError
from serving import ask, encode, serving
from texts import DOCUMENT

ROOT = Path(__file__).parents[2]

PLACES = {
    "coffee": (150, 10, 450, 330),
    "cat": (60, 50, 400, 300),
    "camera": (250, 150, 420, 512),
    "rocket": (250, 150, 350, 400),
    "astronaut": (330, 0, 470, 300),
    "officer": (0, 40, 512, 600),
    "raccoon": (200, 20, 560, 300),
}
"""Where the example's word is in its photograph, in pixels."""


@pytest.fixture(scope="module")
def model():
    return ss.load("scenes")


@pytest.fixture(scope="module")
def address(model):
    with serving(create_app({"scenes": model}, limits=Limits(body=3_000_000))) as url:
        yield url


@pytest.fixture(scope="module")
def scene():
    return next(iter(Scenes(1, seed=3, size=192)))


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# Examples


def test_the_builtin_model_answers_its_examples_as_the_page_says(tmp_path):
    builtin = ss.load("builtin")
    for example in examples_of("builtin"):
        path = tmp_path / f"{example.picture}.jpg"
        path.write_bytes(check_picture(example.picture))
        fits, wrong = (ss.explain(builtin, path, caption) for caption in example.captions)
        assert (fits.similarity > wrong.similarity) is example.right, example.picture
        image = Image.open(path)
        heat = torch.nn.functional.interpolate(
            fits[example.word][None, None], (image.height, image.width), mode="bilinear"
        )[0, 0]
        row, column = divmod(int(heat.argmax()), image.width)
        x0, y0, x1, y1 = PLACES[example.picture]
        assert x0 <= column <= x1, (example.picture, column, row)
        assert y0 <= row <= y1, (example.picture, column, row)
    assert [example.picture for example in examples_of("builtin") if not example.right] == ["raccoon"]


def test_notes_agree_with_the_charts(tmp_path):
    """What the notes say of the terms, and of places beside the one that is expected."""
    builtin, notes = ss.load("builtin"), {example.picture: example.why for example in PHOTOGRAPHS}

    def explained(name):
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(check_picture(name))
        captions = next(example.captions for example in PHOTOGRAPHS if example.picture == name)
        return [ss.explain(builtin, path, caption) for caption in captions]

    raccoon, cat = (e.terms for e in explained("raccoon"))
    assert f"favours “a raccoon”, by {raccoon.interaction - cat.interaction:.2f}" in notes["raccoon"]
    assert f"{cat.left - raccoon.left:.2f} in the line “image alone”" in notes["raccoon"]
    assert f"{cat.right - raccoon.right:.2f} in “text alone”" in notes["raccoon"]
    coffee, beer = explained("coffee")
    assert beer["beer"].argmax() in coffee["coffee"].flatten().topk(9).indices
    camera, park = (e.terms for e in explained("camera"))
    assert park.interaction > camera.interaction
    assert park.right < camera.right - 0.1
    heat = explained("astronaut")[0]["shuttle"]
    collar, shuttle = heat[3:6, 3:5].max(), heat[:4, 6:8].max()
    assert 0.7 < collar / shuttle < 1.1


def test_photographs_are_small_and_the_coffee_is_the_readmes():
    names = [example.picture for example in PHOTOGRAPHS]
    assert check_picture("coffee") == (ROOT / "examples" / "coffee.jpg").read_bytes()
    assert all(len(check_picture(name)) <= 60_000 for name in names if name != "coffee")
    sources = (ROOT / "src" / "secondsight" / "server" / "web" / "examples" / "README.md").read_text()
    assert all(f"`{name}.jpg`" in sources for name in names)


def test_examples_belong_to_the_model():
    drawn, foreign = examples_of("scenes"), examples_of("open_clip:ViT-B-16/openai")
    assert all(example.picture.startswith("scene-") for example in drawn)
    assert [example.checked for example in foreign] == [False] * len(PHOTOGRAPHS)
    assert not any(example.why or not example.right for example in foreign)
    assert examples_of("st:all-MiniLM-L6-v2") == ()


def test_examples_are_ready_before_anybody_asks(address, model):
    example = ask(f"{address}/api/about")[1]["examples"]["scenes"][0]
    question = {"example": example["name"], "captions": example["captions"], "wait": False}
    wait_for(lambda: ask(f"{address}/api/explain", question)[1]["state"] == "done")
    first, second = (ask(f"{address}/api/explain", question)[1]["id"] for _ in range(2))
    assert first == second
    view = ask(f"{address}/api/explanations/{first}/view")[1]
    assert view["question"]["model"] == "scenes"
    assert view["question"]["captions"] == example["captions"]


# One answer to the same question


def test_the_same_question_is_computed_once(address, scene):
    question = {"image": encode(scene.image), "captions": [scene.caption, "a zebra"]}
    first = ask(f"{address}/api/explain", question)[1]["id"]
    assert ask(f"{address}/api/explain", question)[1]["id"] == first
    others = [
        {"captions": ["a zebra"]},
        {"layer": -1},
        {"method": "token-embeddings"},
        {"truncate": True},
        {"select": scene.caption.split()[1]},
        {"image": encode(scene.image.rotate(90))},
    ]
    ids = {ask(f"{address}/api/explain", {**question, **change})[1]["id"] for change in others}
    assert len(ids - {first}) == len(others)
    status, answer, _ = ask(f"{address}/api/explain", {**question, "select": "giraffe"})
    assert (status, "has no 'giraffe'" in answer["error"]) == (422, True)


def test_the_estimate_is_learned():
    jobs, go = Jobs(waiting=4, seconds=30, results=4), threading.Event()
    first = jobs.submit(lambda tell: time.sleep(0.2), kind="slow")
    assert jobs.remaining(first) is None
    first.future.result(30)
    held = jobs.submit(lambda tell: go.wait(30), kind="slow")
    behind = jobs.submit(lambda tell: None, kind="slow")
    assert 0.15 < jobs.remaining(behind) < 1
    assert jobs.remaining(held) <= 0.5
    assert jobs.remaining(jobs.submit(lambda tell: None, kind="new")) is None
    go.set()
    behind.future.result(30)
    jobs.stop()


# Jobs that nobody waits for


def forward_until(event):
    def work(tell):
        while not event.is_set():
            torch.nn.Identity()(torch.zeros(1))
        return "done"

    return work


def test_jobs_of_clients_that_leave_end():
    jobs, go = Jobs(waiting=4, seconds=30, results=9), threading.Event()
    running = jobs.submit(forward_until(go), key="same")
    wait_for(lambda: running.state == "running")
    waiting = jobs.submit(lambda tell: "never")
    jobs.leave(waiting.id)
    assert (waiting.state, waiting.status) == ("failed", 410)
    # Two clients wait for the same answer: it goes on for the second one.
    assert jobs.submit(forward_until(go), key="same") is running
    jobs.leave(running.id)
    time.sleep(0.1)
    assert running.state == "running"
    jobs.leave(running.id)
    assert running.future.result(30) is None
    assert "nobody waits" in running.error
    # A question asked again after that is computed.
    go.set()
    assert jobs.submit(forward_until(go), key="same").future.result(30) == "done"
    jobs.stop()


def test_watched_jobs_end_when_nobody_looks():
    jobs, go = Jobs(waiting=4, seconds=30, results=9, patience=0.3), threading.Event()
    plain = jobs.submit(forward_until(go))
    watched = jobs.submit(forward_until(go), watched=True)
    time.sleep(0.5)
    assert plain.state == "running"
    go.set()
    assert plain.future.result(30) == "done"
    assert watched.future.result(30) is None
    assert watched.status == 410
    jobs.stop()


def test_questions_interrupt_background_work():
    """The step of the background never ends by itself while the question waits: without way being made this hangs."""
    jobs, begun, answered = Jobs(waiting=4, seconds=30, results=4), threading.Event(), threading.Event()

    def step():
        begun.set()
        return forward_until(answered)(None)

    finished = []

    def steps():
        finished.append((yield from until_done(step)))

    jobs.background(steps())
    assert begun.wait(30)
    question = jobs.submit(lambda tell: answered.set() or "answer")
    assert question.future.result(30) == "answer"
    wait_for(lambda: finished == ["done"])
    assert jobs.background_error is None
    jobs.stop()


# Links that last


def test_kept_links_survive_a_restart(model, scene, tmp_path):
    question = {"image": encode(scene.image), "captions": [scene.caption]}
    with serving(create_app({"scenes": model}, keep=tmp_path / "kept")) as url:
        answer = ask(f"{url}/api/explain", question)[1]
        view = ask(f"{url}/api/explanations/{answer['id']}/view")[1]
    with serving(create_app({"scenes": model}, keep=tmp_path / "kept")) as url:
        assert ask(f"{url}/api/explanations/{answer['id']}")[1] == answer
        assert ask(f"{url}/api/explanations/{answer['id']}/view")[1] == view
        assert b"<!doctype html>" in ask(f"{url}/api/explanations/{answer['id']}/page")[1]
        assert "never existed" in ask(f"{url}/api/explanations/AAAAAAAAAAAAAAAA")[1]["error"]
        (tmp_path / "kept" / f"{'B' * 16}.json.gz").write_bytes(b"damaged")
        status, answer, _ = ask(f"{url}/api/explanations/{'B' * 16}")
        assert (status, "damaged" in answer["error"]) == (404, True)
    with serving(create_app({"scenes": model})) as url:
        assert "--keep" in ask(f"{url}/api/explanations/{'C' * 16}")[1]["error"]


def test_the_shelf_is_bounded_and_takes_no_paths(tmp_path):
    shelf = Shelf(tmp_path / "kept", most=2)
    result = KeptResult([{"similarity": 0.5}], [], {"cases": []})
    for letter in "abc":
        shelf.store(letter * 16, result)
        time.sleep(0.02)
    assert shelf.get("a" * 16) is None
    assert shelf.get("c" * 16).explanations == [{"similarity": 0.5}]
    (tmp_path / "outside.json.gz").write_bytes((shelf.folder / f"{'c' * 16}.json.gz").read_bytes())
    assert shelf.get("../outside") is None
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another place"):
        Shelf(tmp_path / "file")


# Refusals at the door


def test_a_taken_port_is_said_before_the_address(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("sys.argv", ["secondsight", "serve", "--port", str(port)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert "choose another --port" in " ".join(said.err.split())
    assert "http://" not in said.out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"captions": 3}, "captions must be a list"),
        ({"captions": [3]}, "captions.0 must be a text"),
        ({"captions": []}, "captions is empty: give at least one"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": "many"}, "steps must be a whole number"),
        ({"tol": 2}, "tol must be less than 1"),
        ({"truncate": "perhaps"}, "truncate must be true or false"),
        ({"scale": "metres"}, "scale must be 'similarity' or 'logit'"),
        ({"layer": "last"}, "layer must be the number of a block, “input” or “grounded”"),
        ({"colour": 1}, "there is no field colour; GET /openapi.json lists the fields"),
    ],
)
def test_the_schema_refuses_in_our_words(address, change, sentence):
    assert ask(f"{address}/api/explain", {"text": "a", "captions": ["b"], **change})[1] == {"error": sentence}


def test_too_long_a_body_is_refused_at_its_header(address):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        head = f"POST /api/explain HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: 3000001\r\n\r\n".encode())
        answer = client.recv(65536)
        while b"larger than" not in answer:
            piece = client.recv(65536)
            assert piece
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413")


def test_slow_bodies_are_cut():
    assert Limits().upload_seconds == 20
    sent = []

    async def endless():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": [(b"host", b"localhost")]}
    guard = Guard(None, body=100, seconds=0.1, hosts=None)
    asyncio.run(guard(scope, endless, send))
    assert sent[0]["status"] == 408
    assert "did not arrive within 0.1 s" in json.loads(sent[1]["body"])["error"]


# In the browser


@needs_browser
@pytest.mark.parametrize("look", [{"viewport": {"width": 360, "height": 740}}, {"color_scheme": "dark"}])
def test_start_example_and_shared_link(browser, address, look):
    with page_of(browser, **look) as page:
        page.goto(address)
        page.locator("#cards button").first.wait_for()
        assert faults(page) == []
        page.locator("#cards button").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#view .ss-word")
        assert page.locator("#progress").inner_text()
        page.goto(f"{address}/#/")
        page.locator("#cards button").first.click()
        page.get_by_text("from memory").wait_for()
        page.wait_for_selector("#view .ss-word")
        caption = page.locator("#captions textarea").first.input_value()
        assert "Explained by the scenes model" in page.locator("#asked").inner_text()
        assert page.locator("#welcome").is_hidden()
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
        with page_of(browser, **look) as second:
            second.goto(page.url)
            second.wait_for_selector("#view .ss-word")
            assert caption in second.locator("#asked").inner_text()
            assert caption in second.title()
            assert second.evaluate("document.documentElement.scrollWidth") <= second.viewport_size["width"]
        page.get_by_text("Explain something else").click()
        page.locator("#cards button").first.wait_for()
        assert page.locator("#view").is_hidden()


@needs_browser
def test_a_gone_link_says_so(browser, address):
    with page_of(browser) as page:
        page.expected = ["404"]
        page.goto(f"{address}/#/e/{'x' * 16}")
        page.get_by_text("explain the pair again").wait_for()
        assert page.locator("#cards button").first.is_visible()


@needs_browser
@pytest.mark.parametrize("way", ["close", "cancel"])
def test_a_closed_tab_and_a_cancelled_question_end_their_job(browser, model, scene, monkeypatch, way):
    begun, never = threading.Event(), threading.Event()
    ended = []

    def explain(*_):
        begun.set()
        try:
            return forward_until(never)(None)
        finally:
            ended.append(True)

    with serving(create_app({"scenes": model})) as url, page_of(browser) as page:
        page.goto(url)
        page.locator("#cards button").first.wait_for()
        monkeypatch.setattr("secondsight.server.app.explain_question", explain)
        page.locator("input[name=kind][value=texts]").check()
        page.locator("#text").fill("a cat")
        page.locator("#captions textarea").first.fill("a dog")
        page.get_by_role("button", name="Explain", exact=True).click()
        assert begun.wait(30)
        page.locator("#bar").wait_for()
        if way == "cancel":
            page.get_by_role("button", name="Cancel").click()
            assert page.locator("#bar").is_hidden()
            assert page.get_by_role("button", name="Cancel").is_hidden()
            assert page.get_by_role("button", name="Explain", exact=True).is_enabled()
            assert page.locator("#text").input_value() == "a cat"
            assert page.locator("#progress").inner_text() == ""
        else:
            page.goto(f"{url}/api")
        wait_for(lambda: ended)
        if way == "cancel":
            # The same question is asked and answered anew.
            monkeypatch.undo()
            page.get_by_role("button", name="Explain", exact=True).click()
            page.wait_for_selector("#view .ss-word")
        monkeypatch.undo()


@needs_browser
def test_long_texts_keep_their_lines_and_stay_out_of_titles(browser, address):
    with page_of(browser, viewport={"width": 1100, "height": 900}) as page:
        page.goto(address)
        page.locator("#cards button").first.wait_for()
        page.locator("input[name=kind][value=texts]").check()
        page.locator("#text").fill("a red ball")
        page.get_by_text("More options").click()
        page.locator("#truncate").check()
        caption = page.locator("#captions textarea").first
        single = caption.bounding_box()["height"]
        caption.fill(DOCUMENT)
        assert single < 50 < caption.bounding_box()["height"]
        caption.press("Enter")
        page.wait_for_selector("#view .ss-long")
        assert page.locator("#view .ss-long").inner_text() == DOCUMENT
        assert (
            page.locator("#asked").inner_text().startswith("How well does “The harbour was rebuilt after two storms.")
        )
        assert len(page.locator("#asked").inner_text()) < 260
        assert len(page.title()) < 200
        assert page.locator(".ss-listed button").count() > 0
        assert faults(page) == []
