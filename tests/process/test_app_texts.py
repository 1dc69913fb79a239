"""The app with models of texts: late interaction and a sentence encoder."""

import pytest
import torch

import secondsight as ss
from families import FAMILIES
from families.late_interaction import LATE
from pages import chromium, faults, needs_browser, page_of

pytest.importorskip("fastapi", reason="needs secondsight[web]")

from secondsight.server import create_app
from serving import ask, serving

QUERY, DOCUMENT, OTHER = "a red cup of coffee", "two dogs play with a cup and a ball", "a cat on a wooden table"

pytestmark = pytest.mark.filterwarnings("ignore:the model does not know")


@pytest.fixture(scope="module")
def models():
    late = ss.wrap(LATE["st-late-plain"](torch.float32), name="st:late")
    return {"st:late": late, "st:sentences": FAMILIES["st-minilm-mean"](torch.float32).model}


@pytest.fixture(scope="module")
def address(models):
    with serving(create_app(models)) as url:
        yield url


def test_the_api_explains_late_interaction_at_its_output(address, models):
    question = {"text": QUERY, "captions": [DOCUMENT, OTHER], "layer": "output"}
    status, answer, _ = ask(f"{address}/api/explain", question)
    assert status == 200
    for told, document in zip(answer["explanations"], (DOCUMENT, OTHER), strict=True):
        e = ss.explain(models["st:late"], QUERY, document, ss.ChainedJacobian(layer="output"))
        assert told["similarity"] == pytest.approx(e.similarity, abs=1e-5)
        assert told["about"]["measure"] == "MaxSim"
    _, view, _ = ask(f"{address}/api/explanations/{answer['id']}/view")
    assert [case["details"].count("<details>") for case in view["cases"]] == [1, 1, 2]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"layer": "output", "model": "st:sentences"}, "layer 'output' is one of late-interaction models"),
        ({"scale": "logit"}, "has no logit scale"),
        ({"method": "mask-clip"}, "a late-interaction model compares token embeddings itself"),
    ],
)
def test_what_a_model_of_texts_cannot_do_is_said(address, asked, said):
    status, answer, _ = ask(f"{address}/api/explain", {"text": QUERY, "captions": [DOCUMENT], **asked})
    assert status == 422
    assert said in answer["error"]


def test_a_text_of_one_word_has_shares(address, models):
    """There is nothing to take away between all and none."""
    question = {"text": "cup", "captions": ["coffee"], "method": "shapley", "model": "st:sentences"}
    status, answer, _ = ask(f"{address}/api/explain", question)
    assert status == 200
    assert answer["explanations"][0]["error"] < 1e-5


@needs_browser
def test_the_form_begins_with_two_texts_and_the_page_opens_the_matches(address):
    with chromium() as browser, page_of(browser, viewport={"width": 1200, "height": 1000}) as page:
        page.goto(address)
        page.wait_for_function("document.querySelector('#model').options.length === 2")
        assert page.locator("input[name=kind][value=texts]").is_checked()
        page.locator("#text-field textarea, #text-field input").first.fill(QUERY)
        page.get_by_label("Caption", exact=True).fill(DOCUMENT)
        page.get_by_role("button", name="Explain").click()
        page.wait_for_selector("#view .ss-word")
        rows = page.locator(".ss-more td")
        assert rows.first.is_hidden()
        page.locator(".ss-more summary").click()
        assert rows.first.is_visible()
        assert faults(page) == []
