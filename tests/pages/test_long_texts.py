"""Long texts on the page: paragraphs, the strongest sentences, and what is picked on either side."""

import numpy as np
import pytest
from PIL import Image

from pages import chromium, faults, needs_browser, page_of
from secondsight.visual.page import save_page
from secondsight.visual.passages import passages
from texts import DOCUMENT, QUERY, paired_inputs

pytestmark = needs_browser
WIDE = {"width": 1100, "height": 700}


@pytest.fixture(scope="module")
def browser():
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def e():
    return paired_inputs(QUERY, DOCUMENT)


def visit(page, e, tmp_path):
    """The page, with its handle kept as `shown`."""
    save_page(e, tmp_path / "e.html")
    text = (tmp_path / "e.html").read_text()
    (tmp_path / "e.html").write_text(text.replace("\nview(document", "\nwindow.shown = view(document"))
    page.goto((tmp_path / "e.html").as_uri())
    page.wait_for_selector(".ss-long .ss-word")


def state(page):
    return page.evaluate("window.shown.state()")


def strongest(e, row=None):
    """The words of the passage with the largest sum in the direction of the whole, for one word of the query or all."""
    scores = e.matrix.sum(0) if row is None else e.matrix[row]
    sign = 1 if scores.sum() > 0 else -1
    return max(
        (range(part.first, part.end) for part in passages(e.right_layout)),
        key=lambda part: float(sign * scores[part.start : part.stop].sum()),
    )


def test_the_text_keeps_its_line_breaks(browser, e, tmp_path):
    with page_of(browser, viewport={"width": 1100, "height": 1600}) as page:
        visit(page, e, tmp_path)
        assert page.locator(".ss-long").inner_text() == DOCUMENT
        tops = page.locator(".ss-long .ss-word").evaluate_all(
            "nodes => nodes.map((n) => n.getBoundingClientRect().top)"
        )
        for word, following, top, below in zip(
            e.right_layout.words, e.right_layout.words[1:], tops, tops[1:], strict=False
        ):
            between = DOCUMENT[word.end : following.start]
            if "\n" in between:
                assert below > top
            elif not between:
                # No line begins with a full stop.
                assert below == pytest.approx(top, abs=4)
        assert page.evaluate("document.documentElement.scrollWidth") <= 1100
        assert faults(page) == []


def test_a_picked_word_marks_lists_and_shows_its_strongest_sentence(browser, e, tmp_path):
    inside = """() => {
      const [text, best] = [document.querySelector(".ss-long"), document.querySelector(".ss-best")];
      const [outer, inner] = [text, best].map((node) => node.getBoundingClientRect());
      return inner.top >= outer.top - 1 && inner.top < outer.bottom;
    }"""
    with page_of(browser, viewport={"width": 500, "height": 420}) as page:
        visit(page, e, tmp_path)
        for row in range(3):
            page.evaluate("(row) => window.shown.set({left: [row]})", row)
            words = strongest(e, row)
            marked = page.locator(".ss-best .ss-word").all_inner_texts()
            assert marked == [e.right_layout.words[i].text for i in words]
            listed = page.locator(".ss-listed button").first.inner_text()
            value = float(e.matrix[row, words.start : words.stop].sum())
            assert float(listed.split()[0].replace("−", "-")) == pytest.approx(value, abs=6e-5)
            assert marked[0] in listed
            assert page.evaluate(inside)
        # The page itself stays where it was.
        assert page.evaluate("scrollY") == 0


def test_a_sentence_is_picked_from_the_list_and_by_a_double_click(browser, e, tmp_path):
    with page_of(browser, viewport=WIDE) as page:
        visit(page, e, tmp_path)
        page.locator(".ss-listed button").first.press("Enter")
        words = strongest(e)
        assert state(page)["right"] == list(words)
        assert state(page)["value"] == pytest.approx(float(e.matrix[:, words.start : words.stop].sum()), abs=1e-6)
        # The words of the query have the colours, and so the numbers, of this sentence alone.
        told = page.locator(".ss-text").first.locator(".ss-word").evaluate_all("n => n.map((x) => x.ariaLabel)")
        values = [float(label.split()[-1].replace("−", "-")) for label in told]
        assert np.allclose(values, e.matrix[:, words.start : words.stop].sum(1), atol=6e-5)
        assert page.evaluate("document.activeElement.tagName") == "BUTTON"
        page.keyboard.press("Escape")
        assert state(page)["right"] is None
        page.locator(".ss-long .ss-word").nth(3).dblclick()
        assert state(page)["right"] == list(range(passages(e.right_layout)[0].end))


def test_keys_move_and_pick_as_in_short_texts(browser, e, tmp_path):
    with page_of(browser, viewport=WIDE) as page:
        visit(page, e, tmp_path)
        page.locator(".ss-long .ss-word").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.keyboard.press("Shift+ArrowRight")
        assert state(page)["right"] == [1, 2]
        word = page.locator(".ss-long").get_by_role("button", pressed=True).first
        assert word.inner_text() == e.right_layout.words[1].text


def test_the_table_has_the_strongest_words_and_says_so(browser, e, tmp_path):
    with page_of(browser, viewport=WIDE) as page:
        visit(page, e, tmp_path)
        most = e.matrix.abs().amax(0)
        columns = sorted(most.argsort(descending=True)[:24].tolist())
        heads = page.locator(".ss-matrix thead th").all_inner_texts()
        assert heads == [e.right_layout.words[j].text for j in columns]
        assert (
            f"the 24 strongest of {len(most)} words of the second text"
            in page.locator(".ss-matrix caption").inner_text()
        )
        page.locator(".ss-matrix tbody tr").nth(2).locator("td").nth(5).click()
        assert (state(page)["left"], state(page)["right"]) == ([2], [columns[5]])


def test_photographs_and_two_long_texts(browser, tmp_path):
    with page_of(browser, viewport=WIDE) as page:
        visit(page, paired_inputs(Image.new("RGB", (400, 300), "grey"), DOCUMENT), tmp_path)
        photo, text = (page.locator(place).bounding_box() for place in (".ss-photo", ".ss-long"))
        assert text["x"] > photo["x"] + photo["width"]
        assert text["height"] < WIDE["height"]
        visit(page, paired_inputs(DOCUMENT, DOCUMENT), tmp_path)
        first, second = (page.locator(".ss-long").nth(i).bounding_box() for i in (0, 1))
        assert second["x"] > first["x"] + first["width"]
        assert faults(page) == []


def test_eight_thousand_words_stay_quick_and_can_be_saved(browser, tmp_path):
    text = "\n\n".join([DOCUMENT] * 62)
    spent = """async () => {
      const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
      const times = [];
      for (let i = 0; i < 5; i++) {
        await painted();
        const begun = performance.now();
        window.shown.set({left: [i]});
        await painted();
        times.push(performance.now() - begun);
      }
      return times.sort((a, b) => a - b)[2];
    }"""
    with page_of(browser, viewport=WIDE) as page:
        visit(page, paired_inputs(QUERY, text), tmp_path)
        words = page.locator(".ss-long .ss-word").count()
        assert words > 8000
        # A word is one element; the table and the list have some hundreds.
        assert page.evaluate("document.querySelectorAll('*').length") < words + 2000
        # A bound for broken code, far above what it takes: shared machines stall.
        assert page.evaluate(spent) < 3000
        with page.expect_download() as waiting:
            page.get_by_role("button", name="PNG").click()
        waiting.value.save_as(tmp_path / "seen.png")
        assert Image.open(tmp_path / "seen.png").height <= 16_000
