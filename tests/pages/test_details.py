"""What pages, figures and the terminal say of late-interaction and sparse models, and of the number a model explains."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console

import secondsight as ss
from families import FAMILIES
from families.late_interaction import LATE
from secondsight.visual.details import axes, details, matches
from secondsight.visual.figures import draw
from secondsight.visual.page_data import page_data
from secondsight.visual.sentences import meanings
from secondsight.visual.terminal import terminal

QUERY, DOCUMENT, OTHER = "a red cup of coffee", "two dogs play with a cup <b>and</b> a ball", "a cat on a wooden table"

pytestmark = pytest.mark.filterwarnings("ignore:the model does not know")


@cache
def explained(name: str, against: str | None = None, layer: int | str = 2) -> ss.Explanation:
    model = ss.wrap(LATE[name](torch.float32)) if name in LATE else FAMILIES[name](torch.float32).model
    return ss.explain(model, QUERY, DOCUMENT, ss.ChainedJacobian(layer=layer), against=against)


def drawn(e: ss.Explanation) -> str:
    figure = Figure()
    draw(figure, e, None, None)
    assert all(len(text.get_text()) > 1 for text in figure.texts)
    return " ".join(text.get_text() for text in figure.texts).replace("\u00a0", " ")


def printed(e: ss.Explanation) -> str:
    console = Console(width=200, record=True)
    console.print(terminal(e))
    return console.export_text()


@pytest.mark.parametrize("name", ["st-late-plain", "st-late-colbert"])
def test_the_page_and_the_figure_have_every_best_match(name):
    e = explained(name)
    (table,) = matches(e)
    (html,) = [case["details"] for case in page_data(e)["cases"]]
    rows = re.findall(r"<tr( class=\"ss-marked\")?>\n?(.*?)</tr>", html, re.S)[1:]
    assert len(rows) == len(table.rows) == len(e.about["assignment"])
    margins = [entry["margin"] for entry in e.about["assignment"]]
    assert [bool(marked) for marked, _ in rows].index(True) == margins.index(min(margins)) == table.marked
    for (_, row), entry in zip(rows, e.about["assignment"], strict=True):
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
        assert cells == [
            entry["token"],
            entry["match"].replace("<", "&lt;").replace(">", "&gt;"),
            f"{entry['similarity']:.4f}",
            f"{entry['margin']:.4f}",
            entry["runner_up"].replace("<", "&lt;").replace(">", "&gt;"),
        ]
    assert table.short[0] in drawn(e)
    assert "<b>" not in html


def test_a_margin_has_the_matches_of_both_documents_under_their_texts():
    e = explained("st-late-plain", OTHER)
    first, second = matches(e)
    assert first.title.startswith(f"“{DOCUMENT}”: ")
    assert second.title.startswith(f"“{OTHER}”: ")
    alone = explained("st-late-plain")
    assert first.rows == matches(alone)[0].rows
    difference, _, rival = page_data(e)["cases"]
    assert difference["details"].count("<details>") == 2
    assert rival["details"].count("<details>") == 1
    assert all(table.short[0] in drawn(e) for table in (first, second))


def test_sparse_models_name_the_words_that_make_up_the_similarity(tmp_path):
    e = explained("st-splade")
    (table,) = axes(e)
    assert table.rows[0] == (e.about["axes"][0][0], f"{e.about['axes'][0][1]:+.4f}")
    assert table.title in printed(e)
    assert table.rows[0][1] in printed(e)
    assert table.short[0] in drawn(e)
    assert page_data(e)["cases"][0]["details"].count("<tr") == 1 + len(table.rows)
    e.save(tmp_path / "e.json")
    assert axes(ss.Explanation.load(tmp_path / "e.json")) == [table]
    margin = explained("st-splade", OTHER)
    assert [t.rows for t in axes(margin)] == [table.rows, axes(margin.parts[1])[0].rows]


def test_other_models_have_no_such_tables():
    e = explained("st-minilm-mean")
    assert details(e) == []
    assert page_data(e)["cases"][0]["details"] == ""


@pytest.mark.parametrize(
    ("name", "measure", "said", "unsaid"),
    [
        ("st-minilm-mean", "cosine", "the cosine of their vectors. 1 is the most", "no largest"),
        ("st-roberta-cls-dot", "dot product", "inner product of their vectors. It grows", "1 is"),
        ("st-late-plain", "MaxSim", "its best match in the document, all added up", "1 is"),
        ("st-late-mean", "MeanMaxSim", "the mean of these", "1 is"),
    ],
)
def test_the_page_says_what_the_similarity_is(name, measure, said, unsaid):
    e = explained(name)
    assert e.about["measure"] == measure
    text = meanings(e)["similarity"]
    assert said in text
    assert unsaid not in text
    alone = meanings(e)["left alone"]
    assert ("lengths of the pair's vectors" in alone) == (measure == "cosine")
    # Of stored contributions nobody knows, so what is said holds for any.
    assert "A cosine is 1 at most" in meanings(ss.Interactions(**{**vars(e.interactions), "about": {}}))["similarity"]


def test_a_logit_is_called_one():
    e = ss.explain("scenes", torch.zeros(1, 3, 96, 96), "a dog", scale="logit")
    assert "times the model's scale" in meanings(e)["similarity"]


def test_at_the_output_both_sides_are_compared_with_zero():
    said = meanings(explained("st-late-plain", layer="output"))
    assert "between vectors of zero and vectors of zero" in said["base"]


def test_two_texts_are_told_apart_in_the_terminal():
    text = printed(explained("st-minilm-mean"))
    assert "of two empty texts" in text
    assert "what the left text adds by itself" in text
    assert "what the right text adds by itself" in text
    # A title is as wide as the terminal.
    assert f"words × {DOCUMENT}" in text
