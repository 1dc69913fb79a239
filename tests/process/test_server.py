"""The app: its API, its limits, its pages in a browser, two users at once."""

import base64
import io
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import secondsight as ss
from pages import chromium, faults, needs_browser, page_of, unpacked
from secondsight.data import Scenes
from serving import ask, encode, serving

pytest.importorskip("fastapi", reason="needs secondsight[web]")
uvicorn = pytest.importorskip("uvicorn", reason="needs secondsight[web]")

from secondsight.cli import main  # noqa: E402
from secondsight.scale import OrdinaryQueries, ordinary_captions  # noqa: E402
from secondsight.scale.lead import NINTHS  # noqa: E402
from secondsight.server import Limits, create_app  # noqa: E402
from secondsight.server.explaining import explain_question  # noqa: E402
from secondsight.server.jobs import Busy, Jobs  # noqa: E402
from secondsight.server.photos import NOTICES  # noqa: E402
from secondsight.server.questions import Models, Question, check_question  # noqa: E402
from secondsight.support.memory import retry_smaller  # noqa: E402


@pytest.fixture(scope="module")
def world():
    return list(Scenes(6, seed=3, size=192))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, world):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deeper").mkdir()
    for i, scene in enumerate(world):
        scene.image.save(folder / ("deeper" if i % 2 else ".") / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def model():
    return ss.load("scenes")


@pytest.fixture(scope="module")
def address(folder, model):
    with serving(create_app({"scenes": model}, photos=folder, limits=Limits(body=3_000_000, pixels=1_000_000))) as url:
        deadline = time.monotonic() + 120
        while ask(f"{url}/api/about")[1]["photos"]["done"] < 7 and time.monotonic() < deadline:
            time.sleep(0.1)
        yield url


def test_the_numbers_are_those_of_explain(address, world, model):
    scene = world[0]
    question = {"image": encode(scene.image), "captions": [scene.caption, "a zebra"], "layer": -1}
    status, answer, _ = ask(f"{address}/api/explain", question)
    assert status == 200
    for caption, explanation in zip(question["captions"], answer["explanations"], strict=True):
        e = ss.explain(model, scene.image, caption, ss.ChainedJacobian(layer=-1))
        assert explanation["similarity"] == pytest.approx(e.similarity, abs=1e-6)
        assert np.allclose(explanation["attributions"], e.matrix, atol=1e-6)
        assert explanation["right"]["text"] == caption
    view = ask(f"{address}/api/explanations/{answer['id']}/view")[1]
    assert [case["called"] for case in view["cases"]] == ["similarity", "similarity", "margin"]
    matrix = unpacked(view["cases"][0]["matrix"], 144)
    e = ss.explain(model, scene.image, scene.caption, ss.ChainedJacobian(layer=-1))
    assert matrix.sum() == pytest.approx(float(sum(v for _, v in e.words)), abs=1e-5)
    page = ask(f"{address}/api/explanations/{answer['id']}/page")
    assert b"<!doctype html>" in page[1]
    assert "attachment" in page[2]["content-disposition"]


def test_two_texts_two_photos_and_examples(address, world):
    explain = f"{address}/api/explain"
    assert ask(explain, {"text": "a cat", "captions": ["a dog"]})[0] == 200
    photos = {"image": encode(world[0].image), "other_image": encode(world[1].image)}
    status, answer, _ = ask(explain, photos)
    assert status == 200
    assert answer["explanations"][0]["right"]["kind"] == "image"
    about = ask(f"{address}/api/about")[1]
    assert len(about["examples"]["scenes"]) == 6
    example = about["examples"]["scenes"][1]
    assert ask(f"{address}/api/examples/{example['name']}")[2]["content-type"] == "image/jpeg"
    status, answer, _ = ask(explain, {"example": example["name"], "captions": example["captions"]})
    assert status == 200
    assert answer["explanations"][0]["similarity"] > answer["explanations"][1]["similarity"]


def test_texts_are_never_paths(address, world, tmp_path):
    world[0].image.save(tmp_path / "secret.png")
    for text in (str(tmp_path / "secret.png"), "/etc/passwd", "photo.jpg", "../x"):
        status, answer, _ = ask(f"{address}/api/explain", {"text": text, "captions": [text], "truncate": True})
        assert status == 200
        assert answer["explanations"][0]["left"]["text"] == text
    for name in ("../app.html", "%2e%2e/app.html", "/etc/passwd", "coffee.jpg"):
        assert ask(f"{address}/api/examples/{name}")[0] == 404


def test_the_requested_method_explains(address, world):
    question = {"image": encode(world[0].image), "captions": ["a cat"], "method": "token-embeddings"}
    status, answer, _ = ask(f"{address}/api/explain", question)
    assert status == 200
    assert answer["explanations"][0]["method"] == "token-embeddings"


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"image": "!!"}, 422, "not base64"),
        (
            {"image": base64.b64encode(b"hello").decode()},
            422,
            "is not a photograph that can be read: use JPEG, PNG or WebP",
        ),
        ({"image": encode(Image.new("RGB", (1001, 1000)), "PNG")}, 422, "more than 1 million"),
        ({"image": encode(Image.new("RGB", (1, 1)))}, 422, "too small"),
        (
            {"image": base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").decode()},
            422,
            "is not a photograph",
        ),
        ({"other_image": encode(Image.new("RGB", (64, 64))), "captions": None, "layer": "input"}, 422, "too many"),
        ({"image": None}, 422, "give one of image, example, photo and text"),
        ({"text": "also"}, 422, "give one of image, example, photo and text"),
        ({"captions": []}, 422, "captions"),
        ({"captions": ["  "]}, 422, "empty"),
        ({"captions": ["x" * 64_001]}, 422, "shorten it"),
        ({"captions": ["a"] * 9}, 422, "more than 8"),
        ({"captions": None}, 422, "either captions or other_image"),
        ({"captions": ["\ud800"]}, 422, "Unicode"),
        ({"captions": ["cat " * 200]}, 422, "tokens"),
        ({"captions": 3}, 422, "captions"),
        ({"model": "hf:/etc"}, 422, "no model 'hf:/etc'"),
        ({"method": "magic"}, 422, "unknown method"),
        ({"layer": 99}, 422, "layer"),
        ({"layer": "output"}, 422, "layer"),
        ({"method": "banzhaf", "steps": 3}, 422, "no option"),
        ({"steps": 0}, 422, "steps"),
        ({"surprise": 1}, 422, "surprise"),
        ({"image": "A" * 3_100_000}, 413, "larger than"),
    ],
)
def test_bad_questions_are_refused_in_one_sentence(address, world, change, status, sentence):
    question = {"image": encode(world[0].image), "captions": ["a cat"], **change}
    if question["image"] is None:
        del question["image"]
    answered, answer, _ = ask(f"{address}/api/explain", question)
    assert answered == status
    assert list(answer) == ["error"]
    assert sentence in answer["error"]
    assert "\n" not in answer["error"]


def test_other_refusals(address):
    assert ask(f"{address}/api/explain", raw=b"{")[0] == 422
    assert ask(f"{address}/nothing")[0] == 404
    assert ask(f"{address}/api/jobs/unknown")[0] == 404
    assert ask(f"{address}/api/explanations/unknown")[0] == 404
    assert ask(f"{address}/api/photos/99")[0] == 404
    assert ask(f"{address}/api/about", {})[0] == 405
    # Another site's page, by its host name or by its origin.
    assert ask(f"{address}/api/about", headers={"host": "evil.example"})[0] == 421
    status, answer, _ = ask(f"{address}/api/explain", {}, {"origin": "http://evil.example"})
    assert (status, "not answered" in answer["error"]) == (403, True)
    headers = ask(f"{address}/")[2]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_search_ranks_without_encoding_images(address, world, model, monkeypatch):
    calls, plain = [], model.left.encoder.features
    monkeypatch.setattr(
        model.left.encoder, "features", lambda *a, **k: calls.append(1) or plain(*a, **k), raising=False
    )
    query = world[2].caption
    status, answer, _ = ask(f"{address}/api/search", {"query": query, "limit": 4})
    assert status == 200
    assert calls == []
    monkeypatch.undo()
    assert answer["photos"] == 6
    values = {f"{i}.png": ss.explain(model, scene.image, query).similarity for i, scene in enumerate(world)}
    usual = OrdinaryQueries.of(model.right, ordinary_captions()).similarities(
        torch.nn.functional.normalize(model.left.embed([scene.image for scene in world]).double(), dim=-1)
    )
    scores = {name: values[name] - float(usual[i]) for i, name in enumerate(values)}
    for hit in answer["hits"]:
        name = Path(hit["name"]).name
        assert hit["similarity"] == pytest.approx(values[name], abs=1e-5)
        assert hit["score"] == pytest.approx(scores[name], abs=1e-5)
        assert hit["usual"]["rank"] == 1 + sum(float(u) > hit["usual"]["similarity"] + 1e-7 for u in usual)
        assert hit["usual"]["entries"] == 6
    best = sorted(scores, key=lambda name: -scores[name])[:4]
    assert [Path(hit["name"]).name for hit in answer["hits"]] == best
    plain = ask(f"{address}/api/search", {"query": query, "limit": 4, "rank": "similarity"})[1]["hits"]
    assert [hit["similarity"] for hit in plain] == pytest.approx(sorted(values.values())[::-1][:4], abs=1e-5)
    assert [hit["score"] for hit in plain] == [hit["similarity"] for hit in plain]
    assert answer["hits"][0]["name"] == "2.png"
    assert unpacked(answer["hits"][0]["view"]["cases"][0]["matrix"], 144).shape[1] == len(
        ss.explain(model, world[2].image, query).words
    )
    assert ask(f"{address}/api/photos/{answer['hits'][0]['photo']}")[0] == 200
    about = ask(f"{address}/api/about")[1]["photos"]
    assert about == {"all": 7, "done": 7, "skipped": ["broken.jpg"], "trouble": None, "notice": NOTICES["scenes"]}
    assert ask(f"{address}/api/search", {"query": " "})[0] == 422
    assert "rank" in ask(f"{address}/api/search", {"query": "a", "rank": "best"})[1]["error"]


def test_two_hits_are_compared_in_parts_that_add_up(address, world):
    query = world[2].caption
    for rank in ("similarity", "above-usual"):
        hits = ask(f"{address}/api/search", {"query": query, "rank": rank})[1]["hits"]
        question = {"query": query, "first": hits[3]["photo"], "second": hits[0]["photo"], "rank": rank}
        status, answer, _ = ask(f"{address}/api/search/compare", question)
        assert status == 200
        # The one that leads comes first, whatever the order of the question.
        assert answer["names"] == [hits[0]["name"], hits[3]["name"]]
        assert answer["lead"] == pytest.approx(hits[0]["score"] - hits[3]["score"], abs=1e-9)
        assert answer["sentence"].startswith(f"{hits[0]['name']} leads {hits[3]['name']} by {answer['lead']:.4f}")
        for parts in (answer["by_word"], answer["by_region"]):
            assert sum(part["value"] for part in parts) == pytest.approx(answer["lead"], abs=1e-9)
        assert [part["name"] for part in answer["by_word"]][:2] == query.split()[:2]
        assert answer["view"]["cases"][0]["similarity"] == pytest.approx(answer["lead"], abs=1e-6)
    for change, sentence in (({"second": 99}, "no photograph 99"), ({"second": question["first"]}, "two different")):
        status, answer, _ = ask(f"{address}/api/search/compare", question | change)
        assert status == 422
        assert sentence in answer["error"]


def test_a_photograph_of_the_folder_is_explained_by_its_number(address, world, model):
    query = "a cat"
    hit = ask(f"{address}/api/search", {"query": query})[1]["hits"][0]
    status, answer, _ = ask(f"{address}/api/explain", {"photo": hit["photo"], "captions": [query]})
    assert status == 200
    number = int(Path(hit["name"]).stem)
    expected = ss.explain(model, world[number].image, query)
    assert answer["explanations"][0]["similarity"] == pytest.approx(expected.similarity, abs=1e-5)
    assert answer["explanations"][0]["similarity"] == pytest.approx(hit["similarity"], abs=1e-5)
    for photo in (-1, 99):
        status, answer, _ = ask(f"{address}/api/explain", {"photo": photo, "captions": [query]})
        assert status == 422
        assert f"no photograph {photo}" in answer["error"]


def test_many_at_once_do_not_mix(address, world):
    answers = {}

    def explain(i):
        question = {"image": encode(world[i % 6].image), "captions": [f"caption number {i}"]}
        answers[i] = ask(f"{address}/api/explain", question)

    threads = [threading.Thread(target=explain, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, (status, answer, _) in answers.items():
        assert status == 200
        assert answer["explanations"][0]["right"]["text"] == f"caption number {i}"
    assert len({answer["id"] for _, answer, _ in answers.values()}) == 12


def test_searches_displace_no_explanation(address, world):
    id = ask(f"{address}/api/explain", {"image": encode(world[0].image), "captions": ["a cat"]})[1]["id"]
    for i in range(70):
        assert ask(f"{address}/api/search", {"query": f"cat {i}", "limit": 1})[0] == 200
    assert ask(f"{address}/api/explanations/{id}")[0] == 200


def test_stored_results_use_no_model(model, world):
    """Other threads write the answers, and only the worker may use a model; lazy matrices would."""
    question = Question(image=encode(world[0].image), captions=["a cat", "a dog"], layer=1)
    checked = check_question(question, ["scenes"], Limits())
    stages: list[str] = []
    result = explain_question(checked, Models({"scenes": model}), Limits(), stages.append)
    assert "explaining, 100%" in stages
    e = ss.explain(model, world[0].image, "a cat", ss.ChainedJacobian(layer=1))
    assert not isinstance(e.attributions, torch.Tensor)
    assert all(isinstance(interactions.attributions, torch.Tensor) for interactions in result.interactions)
    assert torch.allclose(result.interactions[0].matrix, e.matrix, atol=1e-6)


def test_slow_waiting_and_deleted_jobs():
    jobs, go = Jobs(waiting=2, seconds=0.2, results=2), threading.Event()
    first = jobs.submit(lambda tell: go.wait(30))
    while first.state == "waiting":
        time.sleep(0.001)
    second, third = jobs.submit(lambda tell: 2), jobs.submit(lambda tell: 3)
    assert (jobs.before(second), jobs.before(third)) == (1, 2)
    with pytest.raises(Busy):
        jobs.submit(lambda tell: 4)
    go.set()
    assert (second.future.result(30), third.future.result(30)) == (2, 3)

    def endless(tell):
        while True:
            torch.nn.Identity()(torch.zeros(1))

    slow = jobs.submit(endless)
    assert slow.future.result(30) is None
    assert (slow.status, "longer than 0.2 s" in slow.error) == (504, True)
    failing = jobs.submit(lambda tell: 1 / 0)
    failing.future.result(30)
    assert (failing.status, failing.error) == (500, "an internal error; the server's log has the details")
    # The bound on stored results holds; running jobs are never deleted.
    assert jobs.get(first.id) is None
    assert jobs.get(failing.id) is failing
    jobs.stop()
    # The hook of the time limit is gone.
    torch.nn.Identity()(torch.zeros(1))


def test_exhausted_memory_is_not_the_fault_of_the_question():
    def hungry():
        raise MemoryError

    jobs = Jobs(waiting=3, seconds=5, results=4)
    reported = jobs.submit(lambda tell: retry_smaller(hungry, hungry))
    raw = jobs.submit(lambda tell: hungry())
    wrong = jobs.submit(lambda tell: ss.methods.method_named("none"))
    for job, status in ((reported, 503), (raw, 503), (wrong, 422)):
        job.future.result(30)
        assert job.status == status, job.error
    assert "memory" in reported.error
    assert "memory" in raw.error
    jobs.stop()


def test_an_answer_is_fetched_by_its_id(address, world):
    question = {"image": encode(world[0].image), "captions": ["a cat"], "wait": False}
    status, job, _ = ask(f"{address}/api/explain", question)
    assert status == 202
    while job["state"] in ("waiting", "running"):
        time.sleep(0.05)
        job = ask(f"{address}/api/jobs/{job['id']}")[1]
    assert job["state"] == "done"
    assert ask(f"{address}/api/explanations/{job['id']}")[1]["explanations"][0]["right"]["text"] == "a cat"


def test_the_command_refuses_bad_options_in_one_sentence(capsys, monkeypatch, tmp_path):
    for arguments, sentence in (
        (["--model", "nothing"], "unknown model 'nothing'"),
        (["--photos", str(tmp_path / "no")], "is not a folder"),
        (["--photos", str(tmp_path)], "holds no photographs"),
    ):
        monkeypatch.setattr("sys.argv", ["secondsight", "serve", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert sentence in " ".join(capsys.readouterr().err.split())


def test_the_description_holds_against_generated_requests(address):
    """Schemathesis: no request, allowed by the description or not, makes the server fail."""
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    answered = []
    for operation in schema.get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(
            max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
        )
        def holds(case):
            answer = case.call()
            answered.append((case.operation.path, answer.status_code))
            assert answer.status_code < 500
            # That exactly one input and known models are given is more than a description of types can say.
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])

        holds()
    assert {"/api/explain", "/api/search", "/api/about"} <= {path for path, _ in answered}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def choose_photo(page, image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    page.locator("#file-left").set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": buffer.getvalue()})


@needs_browser
def test_upload_explain_compare_and_link(browser, address, world, model):
    scene = world[1]
    with page_of(browser, viewport={"width": 1200, "height": 1000}) as page:
        page.goto(address)
        choose_photo(page, scene.image)
        page.get_by_label("Caption", exact=True).fill(scene.caption)
        page.get_by_role("button", name="another caption").click()
        page.get_by_label("Another caption").fill("a zebra")
        page.get_by_role("button", name="Explain").click()
        page.wait_for_selector("#view .ss-word")
        e = ss.explain(model, scene.image, scene.caption)
        assert f"similarity of {e.similarity:.4f}" in page.locator(".ss-status").inner_text().replace("−", "-")
        assert page.get_by_role("radiogroup", name="Caption").locator("label").count() == 3
        assert faults(page) == []
        link = page.url
        assert "#/e/" in link
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Link to this explanation").click()
        page.get_by_text("copied", exact=True).wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == link
        # The link opens the same for another user, who has no file.
        with page_of(browser) as second:
            second.goto(link)
            second.wait_for_selector("#view .ss-word")
            assert second.locator(".ss-status").inner_text() == page.locator(".ss-status").inner_text()
            # Without leave to copy, the address is selected.
            second.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
            second.get_by_role("button", name="Link to this explanation").click()
            second.get_by_text("copy this address").wait_for()
            assert second.evaluate("getSelection().toString()") == link
            assert faults(second) == []
        with page.expect_download() as download:
            page.get_by_text("Save as one HTML file").click()
        assert download.value.suggested_filename == "explanation.html"


@needs_browser
def test_users_faster_than_the_server_and_the_disk(browser, address, world):
    """A photo chosen before the server has answered, and a question while the photo is still being read."""
    with page_of(browser) as page:
        page.add_init_script("""
            const read = FileReader.prototype.readAsDataURL, ask = window.fetch;
            FileReader.prototype.readAsDataURL = function (file) { setTimeout(() => read.call(this, file), 700); };
            window.fetch = (...call) => new Promise((resolve) => setTimeout(() => resolve(ask(...call)), 500));
        """)
        page.goto(address)
        choose_photo(page, world[0].image)
        page.get_by_label("Caption", exact=True).fill(world[0].caption)
        page.get_by_role("button", name="Explain").click()
        page.wait_for_selector("#view .ss-word")
        assert page.locator("#problem").is_hidden()
        # Of two photos the last one stays, and the button is enabled again.
        choose_photo(page, world[1].image)
        choose_photo(page, world[2].image)
        page.get_by_role("button", name="Explain").click()
        page.wait_for_function("() => document.querySelector('#progress').textContent.startsWith('done')")
        assert page.evaluate("document.querySelector('#drop-left img').src").endswith(encode(world[2].image))
        page.evaluate("() => { FileReader.prototype.readAsDataURL = function () { this.onerror(); }; }")
        choose_photo(page, world[1].image)
        page.get_by_text("x.png cannot be read: choose it again").wait_for()


@needs_browser
@pytest.mark.parametrize("event", ["paste", "drop"])
def test_photos_come_by_paste_and_drop(browser, address, world, event):
    source = encode(world[0].image)
    dispatch = """([source, kind]) => {
      const bytes = Uint8Array.from(atob(source), (c) => c.charCodeAt(0)), data = new DataTransfer();
      data.items.add(new File([bytes], "x.png", {type: "image/png"}));
      const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
        : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
      (kind === "paste" ? document : document.getElementById("drop-left")).dispatchEvent(event);
    }"""
    with page_of(browser) as page:
        page.goto(address)
        page.locator("#method option").first.wait_for(state="attached")
        page.evaluate(dispatch, [source, event])
        page.locator("#drop-left img").wait_for()
        page.get_by_label("Caption", exact=True).fill("a cat")
        page.get_by_role("button", name="Explain").click()
        page.wait_for_selector("#view .ss-word")


@needs_browser
def test_errors_are_shown_where_they_happen(browser, address, world):
    with page_of(browser, viewport={"width": 390, "height": 800}) as page:
        page.expected = ["404"]
        page.goto(address)
        problem = page.locator("#problem")
        page.get_by_role("button", name="Explain").click()
        assert problem.inner_text() == "choose a photo first"
        file = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"no image"}
        page.locator("#file-left").set_input_files(file)
        page.get_by_text("x.jpg is not a photograph that can be read: use JPEG, PNG or WebP").wait_for()
        assert page.locator("#drop-left .hint").is_visible()
        page.get_by_label("Caption", exact=True).fill("a cat")
        choose_photo(page, world[0].image)
        page.locator("#drop-left .file").wait_for()
        assert page.locator("#drop-left .file").inner_text() == "x.png"
        assert problem.is_hidden()
        page.get_by_text("More options").click()
        page.get_by_role("textbox", name="Layer").fill("last")
        page.get_by_role("button", name="Explain").click()
        assert "neither a number" in problem.inner_text()
        page.goto(f"{address}/#/e/unknown")
        page.get_by_text("no such explanation").wait_for()
        # At the top, where the explanation would be.
        assert page.locator("#missing").bounding_box()["y"] < page.locator("#cards").bounding_box()["y"]
        assert page.evaluate("scrollY") == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert faults(page) == []


@needs_browser
def test_two_users_at_once(browser, address, world):
    with page_of(browser) as first, page_of(browser) as second:
        for page, scene in ((first, world[0]), (second, world[1])):
            page.goto(address)
            choose_photo(page, scene.image)
            page.get_by_label("Caption", exact=True).fill(scene.caption)
        first.get_by_role("button", name="Explain").click()
        second.get_by_role("button", name="Explain").click()
        for page, scene in ((first, world[0]), (second, world[1])):
            page.wait_for_selector("#view .ss-word")
            assert " ".join(page.locator(".ss-word").all_inner_texts()).startswith(scene.caption.split()[0])
            assert [w for w in page.locator("#view .ss-word").all_inner_texts() if w.isalnum()] == scene.caption.split()


@needs_browser
def test_gallery_search_and_api_pages(browser, address, world):
    with page_of(browser, viewport={"width": 1200, "height": 900}) as page:
        page.goto(address)
        page.locator("#cards button").nth(1).click()
        page.wait_for_selector("#view .ss-word")
        search_for(page, address, world[2].caption)
        assert "2.png" in page.locator(".hit").first.inner_text()
        before = page.locator(".hit .picked").first.inner_text()
        page.locator("#query-words button").nth(1).click()
        assert page.locator(".hit .picked").first.inner_text() != before
        assert page.locator("#hits-legend .ss-scale").count() == 1
        page.get_by_role("button", name="show colours").click()
        assert page.locator(".hit canvas").first.is_hidden()
        assert page.locator(".hit img").first.evaluate("image => getComputedStyle(image).filter") == "none"
        page.get_by_role("button", name="back to the maps").click()
        assert page.locator(".hit canvas").first.is_visible()
        assert faults(page) == []
        page.goto(f"{address}/api")
        page.wait_for_selector("table.fields")
        assert "POST /api/explain" in page.locator("main").inner_text()
        assert faults(page) == []


@needs_browser
def test_a_card_has_the_number_that_ranks_and_opens_as_an_explanation(browser, address, world, model):
    with page_of(browser, viewport={"width": 1200, "height": 900}) as page:
        page.goto(f"{address}/#/search")
        page.wait_for_selector("#folder-notice")
        assert page.locator("#folder-notice").inner_text() == NOTICES["scenes"]
        page.get_by_label("What to look for").fill("a cat")
        page.get_by_role("button", name="Search").click()
        page.wait_for_selector(".hit canvas")
        for rank, label in (("above-usual", "closer than usual"), ("similarity", "similarity")):
            with page.expect_response("**/api/search") as answered:
                if rank == "similarity":
                    page.get_by_role("radio", name=label).check()
                else:
                    page.get_by_role("button", name="Search").click()
            hits = answered.value.json()["hits"]
            assert answered.value.request.post_data_json["rank"] == rank
            page.wait_for_function(
                "score => document.querySelector('.hit .score')?.textContent === score",
                arg=f"{hits[0]['score']:+.4f}".replace("-", "−"),
            )
            shown = [text.replace("−", "-") for text in page.locator(".hit .score").all_inner_texts()]
            assert shown == [f"{hit['score']:+.4f}" for hit in hits]
            assert shown == sorted(shown, key=float, reverse=True)
        assert faults(page) == []
        page.get_by_role("button", name=f"explain {hits[0]['name']}").click()
        page.wait_for_selector("#view .ss-word")
        assert "#/e/" in page.url
        e = ss.explain(model, world[int(Path(hits[0]["name"]).stem)].image, "a cat")
        assert f"{e.similarity:.4f}" in page.locator("#view").inner_text().replace("−", "-")
        assert faults(page) == []


def search_for(page, address, query):
    """Type a query into the search page and wait for its hits."""
    page.goto(f"{address}/#/search")
    page.get_by_label("What to look for").fill(query)
    page.get_by_role("button", name="Search").click()
    page.wait_for_selector(".hit canvas")


@needs_browser
def test_a_search_is_in_the_address(browser, address, world):
    with page_of(browser, viewport={"width": 1200, "height": 900}) as page:
        search_for(page, address, world[2].caption)
        page.get_by_role("radio", name="similarity").check()
        page.wait_for_url("**rank=similarity")
        searched, count = page.url, page.locator(".hit").count()
        page.reload()
        page.wait_for_selector(".hit canvas")
        assert page.get_by_label("What to look for").input_value() == world[2].caption
        assert page.get_by_role("radio", name="similarity").is_checked()
        page.wait_for_function("n => document.querySelectorAll('.hit').length === n", arg=count)
        names = page.locator(".hit .name").all_inner_texts()
        # A click on a photograph explains it; one step back leads to the hits.
        page.locator(".hit canvas").first.click()
        page.wait_for_selector("#view .ss-word")
        assert "#/e/" in page.url
        page.go_back()
        page.locator(".hit canvas").first.wait_for()
        assert page.url == searched
        assert page.locator(".hit .name").all_inner_texts() == names
        # Photographs of all shapes make even rows.
        heights = page.locator(".hit").evaluate_all("cards => cards.slice(0, 3).map((card) => card.offsetHeight)")
        assert len(set(heights)) == 1
        page.get_by_label("What to look for").fill(" ")
        page.get_by_role("button", name="Search").click()
        page.get_by_text("type what to look for").wait_for()
        assert page.locator(".hit").count() == 0
        assert page.locator("#hits-legend").inner_text() == ""
        page.go_back()
        page.locator(".hit canvas").first.wait_for()
        assert page.locator("#query-problem").is_hidden()


@needs_browser
def test_two_cards_are_compared_on_the_page(browser, address, world):
    with page_of(browser, viewport={"width": 390, "height": 800}) as page:
        search_for(page, address, world[2].caption)
        picks = page.locator(".hit .actions [aria-pressed]")
        picks.nth(2).click()
        assert "Choose a second" in page.locator("#comparison").inner_text()
        with page.expect_response("**/api/search/compare") as answered:
            picks.nth(0).click()
        answer = answered.value.json()
        page.wait_for_selector("#comparison .ss-word")
        assert page.locator("#lead").inner_text().replace("−", "-") == f"{answer['sentence']}."
        assert page.locator("#comparison .name").all_inner_texts() == answer["names"]
        title = "{} fits better than {}.".format(*answer["names"])
        assert page.locator("#comparison .ss-title").inner_text().startswith(title)
        assert page.locator(".regions").first.is_hidden()
        page.get_by_text("By word and by region").click()
        for i in (0, 1):
            cells = [text.replace("−", "-") for text in page.locator(".regions").nth(i).locator("td").all_inner_texts()]
            ninths = [part for part in answer["by_region"] if part["entry"] == i and part["name"] in NINTHS]
            assert cells == [f"{part['value']:+.4f}" for part in ninths]
        rest = sum(part["value"] for part in answer["by_region"] if part["entry"] is None)
        text = page.locator("#comparison .rest").inner_text().replace("−", "-")
        assert f"{rest:+.4f} that is in neither, are together {answer['lead']:+.4f}" in text
        sums = [text.replace("−", "-") for text in page.locator("#comparison .sum td").all_inner_texts()]
        assert sums == [f"{answer['lead']:+.4f}"]
        assert [picks.nth(i).get_attribute("aria-pressed") for i in range(3)] == ["true", "false", "true"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert faults(page) == []
        page.set_viewport_size({"width": 1200, "height": 900})
        left, right = (page.locator("#comparison .ss-photo").nth(i).bounding_box() for i in (0, 1))
        assert left["x"] + left["width"] <= right["x"]
        assert abs(left["y"] - right["y"]) < 2
        page.get_by_role("button", name="Close the comparison").click()
        assert page.locator("#comparison").is_hidden()
        assert picks.nth(0).get_attribute("aria-pressed") == "false"


@needs_browser
def test_hubs_are_marked_with_their_rank(browser, address):
    def mark_first(route):
        answer = route.fetch().json()
        answer["hits"][0]["usual"] |= {"hub": True, "rank": 1, "entries": 80}
        route.fulfill(json=answer)

    with page_of(browser) as page:
        page.route("**/api/search", mark_first)
        page.goto(f"{address}/#/search")
        page.get_by_label("What to look for").fill("a cat")
        page.get_by_role("button", name="Search").click()
        page.wait_for_selector(".hit canvas")
        assert page.locator(".hit .hub").all_inner_texts() == ["close to most captions (rank 1 of 80)"]
        assert page.locator(".hit").first.locator(".hub").count() == 1
