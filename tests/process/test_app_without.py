"""Taking parts out in the app: the explanation's prediction beside what the model finds when it encodes again."""

import pytest
from PIL import Image

import secondsight as ss
from pages import chromium, faults, needs_browser, page_of
from secondsight.data import Scenes
from serving import ask, encode, serving

pytest.importorskip("fastapi", reason="needs secondsight[web]")

from secondsight.server import (
    create_app,
    explaining,
)


@pytest.fixture(scope="module")
def model():
    return ss.load("scenes")


@pytest.fixture(scope="module")
def scene():
    return Scenes(3, seed=5, size=192)[1]


@pytest.fixture(scope="module")
def address(model):
    with serving(create_app({"scenes": model})) as url:
        yield url


@pytest.fixture(scope="module")
def explained(address, scene):
    """The address of an explanation of the scene with its caption, and with another one."""
    question = {"image": encode(scene.image, "PNG"), "captions": [scene.caption, "a zebra"]}
    status, answer, _ = ask(f"{address}/api/explain", question)
    assert status == 200
    return f"{address}/api/explanations/{answer['id']}"


def test_words_and_boxes_are_taken_out_as_in_python(model, scene, explained):
    words = scene.caption.split()
    number, box = words.index("people"), scene.regions[0].box
    e = ss.explain(model, scene.image, scene.caption)
    for asked, edit in (
        ({"right": [number]}, e.without("people", verify=True, how="deleted")),
        ({"left": list(box)}, e.without(left=box, verify=True, how="deleted")),
        ({"left": list(box), "right": [number]}, e.without("people", left=box, verify=True, how="deleted")),
    ):
        status, answer, _ = ask(f"{explained}/without", asked)
        assert status == 200
        expected = {"similarity": e.similarity, "predicted": edit.predicted, "measured": edit.measured}
        assert answer == pytest.approx(expected, abs=1e-5)
    shorter = " ".join(word for word in words if word != "people")
    answer = ask(f"{explained}/without", {"right": [number]})[1]
    assert answer["measured"] == pytest.approx(ss.explain(model, scene.image, shorter).similarity, abs=1e-5)
    assert ask(f"{explained}/without", {"case": 1, "right": [1]})[1]["similarity"] < e.similarity


@pytest.mark.parametrize(
    ("asked", "status", "sentence"),
    [
        ({}, 422, "give left or right"),
        ({"right": [99]}, 422, "there is no word 99"),
        ({"right": [0.5]}, 422, "there is no word 0.5"),
        ({"left": [1.0, 2.0]}, 422, "box"),
        ({"left": [900, 900, 950, 950]}, 422, "outside"),
        ({"case": 7, "right": [0]}, 422, "there is no caption 7"),
        ({"case": 1, "right": [0, 1]}, 422, "nothing is left of"),
        ({"right": []}, 422, "right"),
    ],
)
def test_what_cannot_be_taken_out(explained, asked, status, sentence):
    answer = ask(f"{explained}/without", asked)
    assert answer[0] == status
    assert sentence in answer[1]["error"]


def test_large_pictures_are_not_kept(address, scene, monkeypatch):
    monkeypatch.setattr(explaining, "_LARGEST_KEPT", 100)
    question = {"image": encode(Image.new("RGB", (80, 80), "red"), "PNG"), "captions": ["a dog"]}
    id = ask(f"{address}/api/explain", question)[1]["id"]
    status, answer, _ = ask(f"{address}/api/explanations/{id}/without", {"right": [1]})
    assert status == 422
    assert "too large to be kept" in answer["error"]


@needs_browser
def test_a_word_is_struck_and_a_region_painted_over(address, scene, explained):
    with chromium() as browser, page_of(browser, viewport={"width": 1200, "height": 1000}) as page:
        page.goto(f"{address}/#/e/{explained.rpartition('/')[2]}")
        page.locator(".ss-word", has_text="people").click()
        line = page.locator(".ss-without")
        assert line.inner_text().startswith("Without “people” the similarity would be ")
        predicted = float(line.locator("b").first.inner_text().split(" ")[0].replace("−", "-"))
        line.get_by_role("button").click()
        line.get_by_text("Measured:").wait_for()
        number = scene.caption.split().index("people")
        answer = ask(f"{explained}/without", {"right": [number]})[1]
        assert predicted == pytest.approx(answer["predicted"], abs=6e-5)
        measured = line.locator("b").last.inner_text()
        assert float(measured.split(" ")[0].replace("−", "-")) == pytest.approx(answer["measured"], abs=6e-5)
        struck = page.locator(".ss-word.ss-on").evaluate("node => getComputedStyle(node).textDecorationLine")
        assert struck == "line-through"
        # Another pick is another question.
        page.locator(".ss-word", has_text="bird").click()
        assert "Measured" not in line.inner_text()
        photo = page.locator(".ss-photo").bounding_box()
        page.mouse.move(photo["x"] + 0.3 * photo["width"], photo["y"] + 0.3 * photo["height"])
        page.mouse.down()
        page.mouse.move(photo["x"] + 0.8 * photo["width"], photo["y"] + 0.8 * photo["height"], steps=4)
        page.mouse.up()
        line.get_by_role("button").click()
        line.get_by_text("Measured:").wait_for()
        assert "gradient" in page.locator(".ss-box").evaluate("node => getComputedStyle(node).backgroundImage")
        page.keyboard.press("Escape")
        assert line.is_hidden()
        assert faults(page) == []
