"""The interactive page in a browser: by mouse, by keys, on a phone; its numbers are the explanation's."""

import json
import re
import time

import numpy as np
import pytest
import torch
from PIL import Image

import secondsight as ss
from pages import chromium, faults, needs_browser, page_of
from secondsight.algebra.layout import GridLayout, TokenLayout
from secondsight.data import Scenes
from secondsight.visual.page import save_page
from secondsight.visual.page_data import page_data

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser():
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def scene():
    return next(one for one in Scenes(40, seed=7, size=384) if len(one.regions) > 1 and one.negatives)


@pytest.fixture(scope="module")
def e(scene):
    return ss.explain(ss.load("scenes"), scene.image, scene.caption)


@pytest.fixture(scope="module")
def against(scene):
    return ss.explain(ss.load("scenes"), scene.image, scene.caption, against=scene.negatives[0].caption)


def number(page) -> float:
    """The first signed number of the status line."""
    return float(page.locator(".ss-status b").filter(has_text="0.").first.inner_text().replace("−", "-"))


def visit(page, e, tmp_path, *args, **options):
    save_page(e, tmp_path / "e.html", *args, **options)
    page.goto((tmp_path / "e.html").as_uri())
    page.wait_for_selector(".ss-word, .ss-photo")


def state(page):
    """What the page itself computes for what is picked, in full precision."""
    return page.evaluate("window.shown.state()")


def visit_open(page, e, tmp_path, *args, **options):
    """The same page with its handle kept, so that numbers can be read before they are rounded."""
    save_page(e, tmp_path / "open.html", *args, **options)
    text = (tmp_path / "open.html").read_text()
    assert text.count("\nview(document") == 1
    (tmp_path / "open.html").write_text(text.replace("\nview(document", "\nwindow.shown = view(document"))
    page.goto((tmp_path / "open.html").as_uri())
    page.wait_for_selector(".ss-word, .ss-photo")


def drag(page, a, b, steps=6):
    """Press, move, release, in shares of the photo."""
    box = page.locator(".ss-photo").first.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (a, b)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=steps)
    page.mouse.up()


def test_words_box_and_both_are_the_numbers(browser, e, tmp_path):
    word = e.words[1][0]
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, e, tmp_path)
        everything = float(e.toward_left(None)[e.left_layout.visible].double().sum())
        assert state(page)["value"] == pytest.approx(everything, abs=1e-6)
        page.get_by_role("button", name=word).first.click()
        assert state(page)["value"] == pytest.approx(float(e[word].double().sum()), abs=1e-6)
        assert number(page) == pytest.approx(float(e[word].sum()), abs=5e-5)
        drag(page, (0.1, 0.2), (0.6, 0.7))
        seen = state(page)
        box, weights = seen["left"], e.left_layout.select(tuple(seen["left"])).double()
        assert np.allclose(np.array(box) / 384, [0.1, 0.2, 0.6, 0.7], atol=0.01)
        both = float(weights @ e.matrix.double() @ e.right_layout.select(word).double())
        assert seen["value"] == pytest.approx(both, abs=1e-6)
        assert "the box" in page.locator(".ss-status").inner_text()
        # The words stay coloured by the box alone.
        score = dict(e.box(*box))[word]
        told = page.get_by_role("button", name=word).first.get_attribute("aria-label")
        assert float(told.split()[-1].replace("−", "-")) == pytest.approx(score, abs=5e-5)
        page.keyboard.press("Escape")
        assert state(page)["left"] is None
        assert state(page)["right"] is None


def test_the_box_moves_and_is_sized(browser, e, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, e, tmp_path)
        drag(page, (0.2, 0.2), (0.4, 0.4))
        drag(page, (0.3, 0.3), (0.5, 0.5))
        assert np.allclose(np.array(state(page)["left"]) / 384, [0.4, 0.4, 0.6, 0.6], atol=0.01)
        drag(page, (0.6, 0.6), (0.8, 0.7))
        assert np.allclose(np.array(state(page)["left"]) / 384, [0.4, 0.4, 0.8, 0.7], atol=0.01)
        drag(page, (0.4, 0.55), (0.3, 0.55))
        assert np.allclose(np.array(state(page)["left"]) / 384, [0.3, 0.4, 0.8, 0.7], atol=0.01)
        drag(page, (0.5, 0.5), (1.5, 0.5))
        assert np.allclose(np.array(state(page)["left"]) / 384, [0.5, 0.4, 1.0, 0.7], atol=0.01)
        drag(page, (0.1, 0.1), (0.1, 0.1))
        assert state(page)["left"] is None


def test_everything_by_keys(browser, e, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, e, tmp_path)
        page.locator(".ss-photo").focus()
        page.keyboard.press("ArrowRight")
        assert "row" in page.locator(".ss-tip").inner_text()
        page.keyboard.press("Enter")
        one = state(page)["left"]
        assert one[2] - one[0] == pytest.approx(384 / 12)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Shift+ArrowRight")
        moved = state(page)["left"]
        assert moved == pytest.approx([one[0], one[1] + 32, one[2] + 32, one[3] + 32])
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "show its colours"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "ss-word"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.keyboard.press("Shift+ArrowRight")
        assert state(page)["right"] == [1, 2]
        page.keyboard.press("Escape")
        assert (state(page)["left"], state(page)["right"]) == (None, None)


def test_several_words_by_mouse(browser, e, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, e, tmp_path)
        words = page.locator(".ss-word")
        words.nth(0).click()
        words.nth(2).click(modifiers=["Shift"])
        assert state(page)["right"] == [0, 1, 2]
        words.nth(1).click(modifiers=["Control"])
        assert state(page)["right"] == [0, 2]
        a, b = words.nth(1).bounding_box(), words.nth(3).bounding_box()
        page.mouse.move(a["x"] + 5, a["y"] + 8)
        page.mouse.down()
        page.mouse.move(b["x"] + 5, b["y"] + 8, steps=8)
        page.mouse.up()
        assert state(page)["right"] == [1, 2, 3]


def test_first_order_and_other_captions(browser, against, tmp_path):
    difference, first, second = against, *against.parts
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, against, tmp_path)
        page.get_by_text("each side alone").click()
        seen = state(page)
        visible = difference.left_layout.visible
        assert seen["alone"][0] == pytest.approx(float(difference.left_effects[visible].double().sum()), abs=1e-6)
        page.get_by_text("together", exact=True).click()
        drag(page, (0.1, 0.2), (0.6, 0.7))
        box = state(page)["left"]
        for index, one in ((1, first), (2, second), (0, difference)):
            page.get_by_role("radiogroup", name="Caption").locator("label").nth(index).click()
            seen = state(page)
            assert seen["case"] == index
            # The box stays where it was: the photo is the same.
            assert seen["left"] == box
            shown = one.left_layout.select(tuple(box)).double() @ one.matrix.double()
            assert seen["value"] == pytest.approx(float(shown[one.right_layout.visible].sum()), abs=1e-6)
            assert f"{one.similarity:.4f}" in page.locator(".ss-status").inner_text().replace("−", "-")


def test_pages_start_as_asked(browser, e, against, tmp_path):
    word, box = e.words[1][0], (40.0, 50.0, 200.0, 210.0)
    with page_of(browser) as page:
        visit_open(page, e, tmp_path, word, box)
        seen = state(page)
        assert seen["left"] == list(box)
        assert [page.locator(".ss-word").nth(i).inner_text() for i in seen["right"]] == [word]
        visit_open(page, [*against.parts], tmp_path)
        names = page.get_by_role("radiogroup", name="Caption").locator("label").all_inner_texts()
        assert names[2] == "difference"


@pytest.mark.parametrize("kinds", ["image-image", "text-text"])
def test_two_of_a_kind(browser, kinds, scene, tmp_path):
    model, other = ss.load("scenes"), list(Scenes(2, seed=9, size=200))[1].image
    if kinds == "image-image":
        e = ss.explain(model, scene.image, other)
    else:
        e = ss.explain(model, "a cat and a dog", "a dog on grass")
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, e, tmp_path)
        if kinds == "image-image":
            drag(page, (0.1, 0.2), (0.6, 0.7))
            box = state(page)["left"]
            shown = e.left_layout.select(tuple(box)).double() @ e.matrix.double()
            assert state(page)["value"] == pytest.approx(float(shown[e.right_layout.visible].sum()), abs=1e-6)
            assert page.locator(".ss-photo canvas").count() == 2
        else:
            page.locator(".ss-matrix tbody tr").nth(4).locator("td").nth(1).click()
            seen = state(page)
            assert (seen["left"], seen["right"]) == ([4], [1])
            dog = e.left_layout.select("dog").double() @ e.matrix.double() @ e.right_layout.select("dog").double()
            assert seen["value"] == pytest.approx(float(dog), abs=1e-6)
        assert faults(page) == []


def test_one_word_on_both_sides_is_not_everything(browser, tmp_path):
    e = ss.explain(ss.load("scenes"), "a dog", "a dog")
    with page_of(browser) as page:
        visit_open(page, e, tmp_path, "dog")
        page.locator(".ss-text").nth(0).locator(".ss-word").nth(1).click()
        assert "“dog” with “dog”" in page.locator(".ss-status").inner_text()


def test_a_trembling_hand_keeps_what_was_picked(browser, e, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, e, tmp_path)
        words = page.locator(".ss-word")
        words.nth(0).click()
        box = words.nth(2).bounding_box()
        page.keyboard.down("Control")
        page.mouse.move(box["x"] + 8, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(box["x"] + 9, box["y"] + 11)
        page.mouse.up()
        page.keyboard.up("Control")
        assert state(page)["right"] == [0, 2]


def test_other_cases_answer_to_escape_and_keep_their_switches(browser, against, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, against, tmp_path)
        page.evaluate("window.shown.set({case: 1, reading: 'alone'})")
        assert page.locator(".ss-choice input:checked").evaluate_all("n => n.map(x => x.nextSibling.textContent)")[
            1
        ] == ("each side alone")
        page.locator(".ss-word").nth(1).click()
        assert state(page)["right"] == [1]
        page.keyboard.press("Escape")
        assert state(page)["right"] is None


def test_escape_works_wherever_the_focus_is(browser, e, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, e, tmp_path, e.words[1][0], (40.0, 50.0, 200.0, 210.0))
        assert page.evaluate("document.activeElement === document.body")
        page.keyboard.press("Escape")
        assert (state(page)["left"], state(page)["right"]) == (None, None)
        # A field beside the view, as the app has them, keeps its Escape; a button beside it does not.
        page.evaluate(
            "for (const tag of ['input', 'button']) document.body.append(document.createElement(tag));"
            "window.shown.set({right: [1]})"
        )
        page.locator("body > input").focus()
        page.keyboard.press("Escape")
        assert state(page)["right"] == [1]
        page.locator("body > button").focus()
        page.keyboard.press("Escape")
        assert state(page)["right"] is None


@pytest.mark.parametrize("palette", ["red and blue", "orange and blue", "orange and purple"])
def test_the_legend_says_which_colour_raises_and_where_the_scale_ends(browser, e, tmp_path, palette):
    raises, lowers = palette.split(" and ")
    ends = (e.toward_left(None)[e.left_layout.visible].abs().max(), max(abs(value) for _, value in e.words))
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit(page, e, tmp_path)
        page.get_by_label("Colours").select_option(palette)
        legends = [text.replace("\n", " ") for text in page.locator(".ss-scale").all_inner_texts()]
        assert legends == [f"{lowers} lowers −{end:.4f} +{end:.4f} {raises} raises" for end in ends]
        assert "its scale is wider than the map’s" in page.locator(".ss-note").last.inner_text()


def test_the_photograph_says_why_it_is_grey_and_shows_its_colours(browser, e, tmp_path):
    seen = "(() => getComputedStyle(document.querySelector('.ss-photo img')).filter)()"
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit(page, e, tmp_path)
        assert "is grey so that its own colours are not taken for values" in page.locator(".ss-note").first.inner_text()
        assert "saturate(0)" in page.evaluate(seen)
        page.get_by_role("button", name="show its colours").press("Enter")
        assert page.evaluate(seen) == "none"
        assert page.locator(".ss-photo canvas").is_hidden()
        page.get_by_role("button", name="back to the map", pressed=True).click()
        assert "saturate(0)" in page.evaluate(seen)
        assert page.locator(".ss-photo canvas").is_visible()


def test_the_maps_controls_rest_while_the_photograph_has_its_colours(browser, e, against, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit(page, [e, *against.parts[1:]], tmp_path)
        controls = [page.get_by_label("smooth"), page.get_by_label("overlay")]
        assert all(control.is_enabled() for control in controls)
        page.get_by_role("button", name="show its colours").click()
        assert all(control.is_disabled() for control in controls)
        assert faults(page) == []
        page.get_by_role("button", name="back to the map").click()
        assert all(control.is_enabled() for control in controls)
        # Another caption begins with the map.
        page.get_by_role("button", name="show its colours").click()
        page.get_by_role("radiogroup", name="Caption").locator("label").nth(1).click()
        assert all(control.is_enabled() for control in controls)


@pytest.mark.parametrize("width", [360, 480])
def test_phones_fold_the_controls_so_that_picture_and_words_come_first(browser, e, tmp_path, width):
    with page_of(browser, viewport={"width": width, "height": 760}, has_touch=True) as page:
        visit(page, e, tmp_path)
        summary, colours = page.locator(".ss-fold summary"), page.get_by_label("Colours")
        assert summary.inner_text() == "View"
        assert colours.is_hidden()
        assert page.locator(".ss-photo").bounding_box()["y"] < 380
        summary.press("Enter")
        assert colours.is_visible()
        assert page.get_by_role("button", name="PNG").is_visible()
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        summary.tap()
        assert colours.is_hidden()
        page.locator(".ss-word").first.click()
        assert page.locator(".ss-status button").inner_text() == "clear"
        # Turned sideways there is room.
        page.set_viewport_size({"width": 1000, "height": width})
        colours.wait_for(state="visible")
        assert summary.is_hidden()


@pytest.mark.parametrize(("touch", "label"), [(False, "clear (Esc)"), (True, "clear")])
def test_only_keyboards_have_an_escape_key(browser, e, tmp_path, touch, label):
    with page_of(browser, viewport={"width": 1100, "height": 900}, has_touch=touch, is_mobile=touch) as page:
        visit(page, e, tmp_path, e.words[1][0])
        assert page.locator(".ss-status button").inner_text() == label
        page.locator(".ss-status button").click()
        assert page.locator(".ss-status button").count() == 0


def test_every_term_says_what_it_is(browser, against, tmp_path):
    with page_of(browser, viewport={"width": 360, "height": 760}, has_touch=True) as page:
        visit(page, against, tmp_path)
        rows = page.locator(".ss-sum th[scope=row]")
        names = [name.split("?")[0].strip() for name in rows.all_inner_texts()]
        assert {"base", "image alone", "text alone", "interaction", "margin", "error"} <= set(names)
        assert page.locator(".ss-meaning").count() == len(names)
        for i in range(len(names)):
            button, meaning = rows.nth(i).get_by_role("button"), page.locator(".ss-meaning").nth(i)
            assert button.get_attribute("aria-label") == f"What is “{names[i]}”?"
            assert meaning.is_hidden()
            if i % 2:
                button.press("Enter")
            else:
                button.tap()
            assert button.get_attribute("aria-expanded") == "true"
            assert len(meaning.inner_text()) > 30
        # Another palette draws the table again; what was opened stays open.
        page.locator(".ss-fold summary").tap()
        page.get_by_label("Colours").select_option("orange and purple")
        assert all(page.locator(".ss-meaning").nth(i).is_visible() for i in range(len(names)))
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert faults(page) == []


def test_the_title_is_the_first_thing_to_read(browser, e, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit(page, e, tmp_path)
        title = page.locator(".ss-status .ss-title")
        assert re.fullmatch(r"“.+” matches best, most of all in the .+ of the picture\.", title.inner_text())
        assert f"similarity of {e.similarity:.4f}" in page.locator(".ss-status").inner_text().replace("−", "-")
        word = e.words[1][0]
        page.get_by_role("button", name=word).first.click()
        assert re.match(f"“{word}” (raises|lowers) the similarity, most of all in the ", title.inner_text())


@pytest.mark.parametrize("width", [360, 1100])
def test_several_captions_begin_with_the_answer(browser, scene, against, tmp_path, width):
    first, second = against.parts
    best, worst = sorted(against.parts, key=lambda part: -part.similarity)
    with page_of(browser, viewport={"width": width, "height": 900}) as page:
        for explanations in (against, [first, second]):
            visit(page, explanations, tmp_path)
            answer = page.locator(".ss-answer")
            numbers = re.findall(r"\((.+?)\)", answer.inner_text().replace("−", "-"))
            assert [float(n) for n in numbers] == pytest.approx([best.similarity, worst.similarity], abs=0.005)
            assert "prefers “" in answer.inner_text()
            tops = [page.locator(place).first.bounding_box()["y"] for place in (".ss-answer", ".ss-choice")]
            assert tops[0] < tops[1]
            assert "fits" not in page.locator(".ss-status").inner_text()
        texts = [scene.caption, scene.negatives[0].caption, "a zebra"]
        many = [ss.explain(ss.load("scenes"), scene.image, text) for text in texts]
        visit(page, many, tmp_path)
        ranks = page.locator(".ss-ranks th").all_inner_texts()
        assert ranks == sorted(texts, key=lambda text: -many[texts.index(text)].similarity)
        widths = [bar.bounding_box()["width"] for bar in page.locator(".ss-rank i").all()]
        shares = [abs(one.similarity) for one in sorted(many, key=lambda one: -one.similarity)]
        assert np.allclose(np.array(widths) / widths[0], np.array(shares) / shares[0], atol=0.05)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert faults(page) == []
        visit(page, first, tmp_path)
        assert page.locator(".ss-answer").is_hidden()


def test_titles_keep_their_direction_whatever_they_quote(browser, tmp_path):
    e = paired(Image.new("RGB", (400, 300), "grey"), "فنجان قهوة على الطاولة")
    rest = "(() => { const r = document.createRange(), t = document.querySelector('.ss-status .ss-title').lastChild;"
    rest += "r.selectNodeContents(t); return r.getBoundingClientRect().left; })()"
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, e, tmp_path)
        page.locator(".ss-word").nth(1).click()
        title = page.locator(".ss-status .ss-title")
        assert title.get_attribute("dir") == "ltr"
        assert title.locator("bdi").inner_text() == "قهوة"
        # The quoted word, then the English that follows it, from the left edge on.
        word = title.locator("bdi").bounding_box()
        assert word["x"] - title.bounding_box()["x"] < 15
        assert page.evaluate(rest) >= word["x"] + word["width"]
        svg = page.evaluate("window.shown.picture('svg').then((blob) => blob.text())")
        assert "“\u2068قهوة\u2069”" in svg


def paired(photo, text: str) -> ss.Explanation:
    """A photograph of 3 × 4 patches and a text of words."""
    g, words, offsets = torch.Generator().manual_seed(0), text.split(), []
    for word in words:
        start = text.index(word, offsets[-1][1] if offsets else 0)
        offsets.append((start, start + len(word)))
    width, height = photo.size
    return ss.Explanation(
        torch.randn(12, len(words), generator=g) / 50,
        torch.randn(12, generator=g) / 50,
        torch.randn(len(words), generator=g) / 50,
        0.1,
        0.3,
        GridLayout(size=12, special={}, grid=(3, 4), image_size=photo.size, frame=(0.0, 0.0, width, height)),
        TokenLayout(size=len(words), special={}, text=text, offsets=tuple(offsets), tokens=tuple(words)),
        left_input=photo,
        right_input=text,
    )


@pytest.mark.parametrize(
    ("text", "order"),
    [
        # From left to right on the screen.
        ("فنجان قهوة على الطاولة", [3, 2, 1, 0]),
        ("فنجان coffee cup قهوة", [3, 1, 2, 0]),
        ("the words فنجان قهوة stand here", [0, 1, 3, 2, 4, 5]),
        ("a cup of coffee", [0, 1, 2, 3]),
    ],
)
def test_words_stand_in_the_order_of_their_script(browser, tmp_path, text, order):
    e = paired(Image.new("RGB", (400, 300), "grey"), text)
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit_open(page, e, tmp_path)
        places = page.locator(".ss-word").evaluate_all(
            "nodes => nodes.map((node) => node.getBoundingClientRect().left)"
        )
        assert sorted(range(len(places)), key=places.__getitem__) == order
        for word in order:
            page.locator(".ss-word").nth(word).click()
            assert state(page)["right"] == [word]
            page.keyboard.press("Escape")
        # The arrows go where they point.
        page.locator(".ss-word").first.focus()
        page.keyboard.press("ArrowLeft" if order[-1] == 0 else "ArrowRight")
        page.keyboard.press("Enter")
        assert state(page)["right"] == [1]


def test_symbols_that_the_font_has_not_have_their_names(browser, tmp_path):
    e = paired(Image.new("RGB", (400, 300), "grey"), "a \U0001f3be cup ☕")
    data = page_data(e)["cases"][0]["right"]["words"]
    assert data[1]["symbols"] == [["\U0001f3be", "tennis racquet and ball"]]
    assert "symbols" not in data[2]
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        # Fonts differ between machines: here the canvas that asks for the glyph draws the box of unknown characters.
        page.add_init_script(
            "const draw = CanvasRenderingContext2D.prototype.fillText; CanvasRenderingContext2D.prototype.fillText ="
            "function (text, ...at) { draw.call(this, text === '\U0001f3be' ? '\U0010fffd' : text, ...at); };"
        )
        visit(page, e, tmp_path)
        word = page.locator(".ss-word").nth(1)
        assert word.inner_text() == "[tennis racquet and ball]"
        assert "ss-named" in word.get_attribute("class")
        assert word.get_attribute("title") == "tennis racquet and ball"
        assert page.locator(".ss-word").nth(2).inner_text() == "cup"
        word.click()
        assert page.locator(".ss-title").inner_text().startswith("“[tennis racquet and ball]” ")


@pytest.mark.parametrize("size", [(4000, 200), (200, 4000), (800, 600)])
@pytest.mark.parametrize("width", [360, 1280])
def test_photographs_of_every_shape_fit_the_screen(browser, tmp_path, size, width):
    with page_of(browser, viewport={"width": width, "height": 760}) as page:
        visit_open(page, paired(Image.new("RGB", size, "grey"), "a dog"), tmp_path)
        box = page.locator(".ss-photo").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert 48 <= box["height"] <= 760 * 0.69
        assert box["width"] >= 60
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        stretched = "Drawn stretched" in page.locator(".ss-note").first.inner_text()
        assert stretched == (max(size) > 12 * min(size))
        if not stretched:
            assert box["width"] / box["height"] == pytest.approx(size[0] / size[1], rel=0.02)
        page.locator(".ss-photo").evaluate("node => node.scrollIntoView({block: 'center'})")
        drag(page, (0.25, 0.25), (0.75, 0.75))
        assert np.allclose(np.array(state(page)["left"]) / [*size, *size], [0.25, 0.25, 0.75, 0.75], atol=0.03)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_against_the_page(browser, against, tmp_path, scheme):
    with page_of(browser, viewport={"width": 390, "height": 800}, color_scheme=scheme) as page:
        visit(page, against, tmp_path)
        page.locator(".ss-word").nth(1).click()
        assert faults(page) == []
        # A phone shows everything without scrolling sideways.
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_seen_can_be_saved(browser, e, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1000}) as page:
        visit(page, e, tmp_path, e.words[1][0], (40.0, 50.0, 200.0, 210.0))
        for kind in ("PNG", "SVG"):
            with page.expect_download() as waiting:
                page.get_by_role("button", name=kind).click()
            waiting.value.save_as(tmp_path / f"seen.{kind.lower()}")
        image = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))
        assert image.shape[1] == 1440
        # The frame of the box, in its own yellow.
        assert (np.abs(image.astype(int) - [255, 212, 0]).sum(-1) < 30).sum() > 500
        svg = (tmp_path / "seen.svg").read_text()
        assert all(f">{word}<" in svg for word, _ in e.words)
        assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_colours_and_cells(browser, e, tmp_path):
    pixels = "(() => { const c = document.querySelector('.ss-photo canvas'); return c.toDataURL(); })()"
    with page_of(browser) as page:
        visit(page, e, tmp_path)
        seen = [page.evaluate(pixels)]
        page.get_by_label("Colours").select_option("orange and purple")
        seen.append(page.evaluate(pixels))
        page.get_by_label("smooth").uncheck()
        seen.append(page.evaluate(pixels))
        page.get_by_label("overlay").fill("0.3")
        seen.append(page.evaluate(pixels))
        assert len(set(seen)) == 4
        page.locator(".ss-photo").hover(position={"x": 30, "y": 30})
        assert "row 1, column 1" in page.locator(".ss-tip").inner_text()


def large() -> ss.Explanation:
    """24 megapixels, 24 × 24 cells, 77 tokens."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).resize((6000, 4000))
    words = [f"word{i}" for i in range(77)]
    text, offsets, place = " ".join(words), [], 0
    for word in words:
        offsets.append((place, place + len(word)))
        place += len(word) + 1
    g = torch.Generator().manual_seed(0)
    return ss.Explanation(
        torch.randn(576, 77, generator=g) / 500,
        torch.randn(576, generator=g) / 500,
        torch.randn(77, generator=g) / 50,
        0.1,
        0.3,
        GridLayout(size=576, special={}, grid=(24, 24), image_size=(6000, 4000), frame=(1000.0, 0.0, 5000.0, 4000.0)),
        TokenLayout(size=77, special={}, text=text, offsets=tuple(offsets), tokens=tuple(words)),
        left_input=photo,
        right_input=text,
    )


def test_the_largest_pair_stays_fluid(browser, tmp_path):
    e = large()
    probe = """async () => {
      const photo = document.querySelector(".ss-photo"), spent = [];
      const r = photo.getBoundingClientRect();
      const at = (x, y) => ({clientX: r.left + x * r.width, clientY: r.top + y * r.height, pointerId: 1, bubbles: true});
      const send = (kind, x, y) => photo.dispatchEvent(new PointerEvent(kind, at(x, y)));
      photo.setPointerCapture = () => {};
      const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
      for (let i = 0; i < 15; i++) {
        await painted();
        const word = document.querySelectorAll(".ss-word")[i], begun = performance.now();
        word.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
        await painted();
        spent.push(performance.now() - begun);
      }
      send("pointerdown", 0.2, 0.2);
      for (let i = 0; i < 15; i++) {
        await painted();
        const begun = performance.now();
        send("pointermove", 0.3 + i / 40, 0.4 + i / 40);
        await painted();
        spent.push(performance.now() - begun);
      }
      send("pointerup", 0.8, 0.8);
      spent.sort((a, b) => a - b);
      return {median: spent[15], all: spent, box: window.shown.state().left};
    }"""
    with page_of(browser, viewport={"width": 1200, "height": 1000}) as page:
        visit_open(page, e, tmp_path)
        times = page.evaluate(probe)
        assert times["box"] is not None
        print(json.dumps({"selection to paint, ms": times["median"], "slowest": times["all"][-1]}))
        # A bound for broken code, far above what it takes: shared machines stall.
        assert times["median"] < 1000


def test_page_data_is_quick_and_small():
    begun = time.perf_counter()
    data = page_data(large())
    assert len(json.dumps({**data, "pictures": []})) < 600_000
    assert time.perf_counter() - begun < 60
