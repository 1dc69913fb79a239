"""The view's sums, boxes and maps in a JavaScript engine without a browser: the explanation's own numbers."""

import base64
import io
import json
import re
from dataclasses import replace
from importlib.resources import files

import matplotlib.pyplot as plt
import numpy as np
import pytest
import quickjs
import torch
from PIL import Image
from rich.console import Console

import secondsight as ss
from secondsight.algebra.layout import GridLayout, JoinedLayout, TokenLayout
from secondsight.visual.headline import headline
from secondsight.visual.page import web_file
from secondsight.visual.page_data import page_data
from secondsight.visual.terminal import terminal

PURE = ("state", "headline", "answer", "colours", "boxes")
FOLDER = files("secondsight.visual") / "web"


class Script:
    """The modules that know no page; arguments and results travel as JSON, typed arrays as lists."""

    def __init__(self) -> None:
        self.context = quickjs.Context()
        # Strings with zero bytes do not pass between the engine and Python.
        self.context.add_callable("bytesOf", lambda text: json.dumps(list(base64.b64decode(text))))
        self.context.eval("globalThis.atob = (text) => String.fromCharCode(...JSON.parse(bytesOf(text)));")
        for name in PURE:
            source = (FOLDER / f"{name}.js").read_text()
            self.context.eval(re.sub(r"^import [^;]*;$|^export ", "", source, flags=re.M))
        self.context.eval(
            "const plain = (key, value) => ArrayBuffer.isView(value) ? Array.from(value) : "
            "value instanceof Set ? [...value] : value;"
        )

    def __call__(self, expression: str, **names):
        declared = "".join(f"const {name} = {json.dumps(value)};" for name, value in names.items())
        return json.loads(self.context.eval(f"(() => {{ {declared} return JSON.stringify({expression}, plain); }})()"))


@pytest.fixture(scope="module")
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def e() -> ss.Explanation:
    g = torch.Generator().manual_seed(0)
    words = ("a", "dog", "and", "a", "cat")
    offsets, text = [], " ".join(words)
    for word in words:
        start = offsets[-1][1] + 1 if offsets else 0
        offsets.append((start, start + len(word)))
    return ss.Explanation(
        torch.randn(12, 5, generator=g),
        torch.randn(12, generator=g),
        torch.randn(5, generator=g),
        0.1,
        0.3,
        GridLayout(size=12, special={}, grid=(3, 4), image_size=(90, 60), frame=(10.0, 0.0, 90.0, 60.0)),
        TokenLayout(size=5, special={}, text=text, offsets=tuple(offsets), tokens=words),
        left_input=Image.new("RGB", (90, 60)),
        right_input=text,
    )


@pytest.fixture(scope="module")
def case(e):
    return page_data(e)["cases"][0]


BOX = (22.0, 7.0, 71.0, 44.0)


def test_scores_of_a_selection(script, e, case):
    words = e.right_layout.select([1, 2])
    left = script("scores(readCase(data), 0, weights)", data=case, weights=words.tolist())
    assert np.allclose(left, e.toward_left([1, 2]), atol=1e-5)
    cells = script("boxWeights(data.left, box)", data=case, box=BOX)
    assert np.allclose(cells, e.left_layout.cover(BOX), atol=1e-6)
    right = script("scores(readCase(data), 1, weights)", data=case, weights=cells)
    assert np.allclose(right, e.toward_right(BOX), atol=1e-5)
    assert np.allclose(script("scores(readCase(data), 1, null)", data=case), e.toward_right(None), atol=1e-5)
    picked = script("mapOf(data, new Set([1, 2]))", data=case)
    assert picked["sum"] == pytest.approx(float(e.toward_left([1, 2]).sum()), abs=1e-5)
    assert picked["limit"] == pytest.approx(float(e.toward_left([1, 2]).abs().max()), abs=1e-6)


def test_totals_of_a_box_and_words(script, e, case):
    cells, words = e.left_layout.cover(BOX).double(), e.right_layout.select([4]).double()
    weights = [cells.tolist(), words.tolist()]
    totals = script("totals(readCase(data), weights)", data=case, weights=weights)
    assert totals["value"] == pytest.approx(float(cells @ e.matrix.double() @ words), abs=1e-6)
    assert totals["alone"][0] == pytest.approx(float(cells @ e.left_effects.double()), abs=1e-6)
    assert totals["alone"][1] == pytest.approx(float(words @ e.right_effects.double()), abs=1e-6)
    everything = script("totals(readCase(data), [null, null])", data=case)
    assert everything["value"] == pytest.approx(float(e.matrix.double().sum()), abs=1e-5)


def test_what_is_picked_taken_out(script, e, case):
    """The similarity less every number of the picked rows and columns, special features included, each counted once."""
    rows, columns = e.left_layout.cover(BOX).double(), e.right_layout.select([4]).double()
    for picked in ([rows, None], [None, columns], [rows, columns]):
        keep = [1 - w if w is not None else torch.ones(n).double() for w, n in zip(picked, e.matrix.shape, strict=True)]
        left = e.base + float(keep[0] @ e.left_effects.double() + keep[1] @ e.right_effects.double())
        expected = left + float(keep[0] @ e.matrix.double() @ keep[1]) + (e.similarity - e.terms.total)
        weights = [None if w is None else w.tolist() for w in picked]
        predicted = script("predictWithout(readCase(data), weights)", data=case, weights=weights)
        assert predicted == pytest.approx(expected, abs=1e-5)
    assert script("predictWithout(readCase(data), [null, null])", data=case) is None
    # A map of first order predicts nothing, and lacks no match.
    data = {**case, "order": 1}
    assert script("predictWithout(readCase(data), weights)", data=data, weights=weights) is None
    detail = script("detailLine(readCase(data), 'together', [null, null], [], [])", data=data)
    assert detail[-1][0] == ", to which this map does not add up."
    assert not script("isUnmatched({...readCase(data), similarity: -9})", data=data)


def test_special_features_go_with_what_is_taken_out(script):
    layout = TokenLayout(
        size=3, special={0: "start"}, text="a b", offsets=((0, 0), (0, 1), (2, 3)), tokens=("<s>", "a", "b")
    )
    pair = ss.Explanation(
        torch.arange(9.0).reshape(3, 3), torch.ones(3), torch.ones(3) * 2, 0.0, 45.0, layout, layout,
        left_input="a b", right_input="a b",
    )  # fmt: skip
    case = page_data(pair)["cases"][0]
    predicted = script("predictWithout(readCase(data), [null, [0, 1]])", data=case)
    assert predicted == pytest.approx(45.0 - 2 - float(pair.matrix[:, 2].sum()))


@pytest.mark.parametrize("smooth", [True, False])
def test_maps_are_the_heatmap_in_the_colours_of_figures(script, e, case, smooth):
    from secondsight.visual.colours import SCALES, overlay

    values = e.toward_left("dog")
    limit = float(values.abs().max())
    positive, negative = SCALES["red and blue"]
    look = {"scale": {"positive": positive, "negative": negative}, "strength": 0.82, "smooth": smooth}
    expression = "mapPixels(data.left, values, limit, look)"
    pixels = script(expression, data=case, values=values.tolist(), limit=limit, look=look)
    pixels = np.array(pixels).reshape(60, 90, 4)
    if smooth:
        heat = e.left_layout.heatmap(values).numpy()
    else:
        heat = np.zeros((60, 90))
        heat[:, 10:] = np.kron(values.reshape(3, 4).numpy(), np.ones((20, 20)))
    wanted = 255 * overlay(heat, limit)
    assert not pixels[:, :10, 3].any()
    assert np.abs(pixels[..., 3] - wanted[..., 3]).max() <= 2
    visible = wanted[..., 3] > 4
    assert np.abs(pixels[visible][:, :3] - wanted[visible][:, :3]).max() <= 1


def test_boxes_move_and_stay_inside_the_picture(script, e, case):
    side = case["left"]
    assert np.allclose(script("cellBox(side, [1, 2])", side=side), e.left_layout.cell_boxes()[2 * 4 + 1])
    assert script("cellAt(side, 31, 41)", side=side) == [1, 2]
    assert script("cellAt(side, 5, 41)", side=side) is None
    assert script("unseenBoxes(side)", side=side) == [[0, 0, 10, 60]]
    assert script("movedBox([90, 60], [10, 10, 30, 30], 100, -100)") == [70, 0, 90, 20]
    assert script("draggedBox([90, 60], [10, 10, 30, 30], {across: 1, down: 0}, -40, 9)") == [0, 10, 10, 30]
    assert script("grownBox(side, [10, 10, 30, 30], [-1, 1])", side=side) == [10, 10, 20, 50]
    grips = [script("gripAt([10, 10, 50, 50], point, 1, 9)", point=point) for point in ([10, 50], [30, 30], [80, 30])]
    assert grips == [{"across": -1, "down": 1}, {"across": 0, "down": 0}, None]
    assert [script("gripCursor(grip)", grip=grip) for grip in grips] == ["nesw-resize", "move", "crosshair"]


def test_words_are_picked_one_by_one_and_in_ranges(script):
    assert script("pickWord(new Set([1]), 1, false)") == []
    assert script("pickWord(new Set([1, 2]), 1, false)") == [1]
    assert sorted(script("pickWord(new Set([1]), 3, true)")) == [1, 3]
    assert script("pickWord(new Set([1, 3]), 3, true)") == [1]
    assert script("wordRange([0, 1, 3, 4], 3, 1)") == [1, 3]


def test_inputs_of_one_side_are_weighed_one_after_another(script):
    joined = JoinedLayout.of([GridLayout(2, {}, (1, 2), (8, 4), (0.0, 0.0, 8.0, 4.0)), ss.Layout(3)], [1, -1])
    weights = joined.select((1, [0, 2])).tolist()
    second = "[{weights: null, groups: 2}, {weights: [1, 0, 1], groups: 3}]"
    assert script(f"joinWeights({second})") == weights
    assert script("joinWeights([{weights: null, groups: 2}, {weights: null, groups: 3}])") is None


def test_terms_begin_where_the_last_one_ended(script, e, case):
    drawn = script("waterfall(readCase(data))", data=case)
    ends = np.concatenate([[0.0], np.cumsum([value for _, value in case["terms"]])])
    width = ends.max() - ends.min()
    bars = [bar for bar in drawn["bars"] if not bar["detail"]]
    assert np.allclose([bar["length"] for bar in bars], np.abs(np.diff(ends)) / width)
    assert np.allclose([bar["start"] for bar in bars], (np.minimum(ends[:-1], ends[1:]) - ends.min()) / width)
    assert drawn["zero"] == pytest.approx(-ends.min() / width)
    hidden = script("waterfall({...readCase(data), hidden: 0.25})", data=case)["bars"]
    assert [bar["value"] for bar in hidden if bar["detail"]] == pytest.approx([e.terms.interaction - 0.25, 0.25])


def said(script, e, weights=(None, None), names=("the whole image", "all words"), reading="interactions"):
    """The title, and the sentence below it."""
    values = {"data": page_data(e)["cases"][0], "reading": reading, "weights": weights, "names": names}
    all_of = ["the whole image", "all words"]
    title = script("titleLine(readCase(data), reading, weights, names)", **values)
    detail = script("detailLine(readCase(data), reading, weights, names, all)", all=all_of, **values)
    return title, "".join(text for text, _ in detail)


def test_the_title_says_what_matches_best_and_where(script, e):
    words = dict(zip(("a", "dog", "and", "a ", "cat"), e.toward_right(None).tolist(), strict=True))
    best = max(words, key=words.get).strip()
    column = e.matrix[:, list(words.values()).index(max(words.values()))].reshape(3, 4).double()
    # The picture's width of 90 in thirds: the cells' middles lie at 20, 40, 60, 80.
    ninths = {
        (row, column_name): float(column[i, cells].max())
        for i, row in enumerate(("top", "", "bottom"))
        for column_name, cells in (("left", [0]), ("", [1]), ("right", [2, 3]))
    }
    where = " ".join(part for part in max(ninths, key=ninths.get) if part) or "middle"
    title, detail = said(script, e)
    assert title == f"“{best}” matches best, most of all in the {where} of the picture."
    without = e.terms.base + e.terms.left + e.terms.right
    assert detail.replace("−", "-") == (
        f"The model gives them a similarity of 0.3000; without what they have in common it would be {without:.4f}."
    )


def test_sentences_of_what_is_picked(script, e):
    cat, box = e.right_layout.select([4]).double(), e.left_layout.cover(BOX).double()
    matrix = e.matrix.double()
    values = {
        "cat": float((matrix @ cat).sum()),
        "box": float((box @ matrix).sum()),
        "both": float(box @ matrix @ cat),
        "all": float(matrix.sum()),
    }
    numbers = {name: f"{value:+.4f}".replace("-", "−") for name, value in values.items()}

    def share(name, number, others):
        """The part, the whole, and a word on it where the part is the larger one."""
        part, whole = values[number], values["all"]
        link = " of the " if (part < 0) == (whole < 0) else ", against the "
        common = (
            "by which the picture and the caption disagree"
            if whole < 0
            else "that the picture and the caption have in common"
        )
        larger = link == " of the " and abs(part) > abs(whole)
        rest = (
            f"; other {others} " + ("make up for some of it" if part < 0 else "take some of it away") if larger else ""
        )
        return f"{name} counts {numbers[number]}{link}{numbers['all']} {common}{rest}. The similarity is 0.3000."

    title, detail = said(script, e, (None, cat.tolist()), ("the whole image", "“cat”"))
    assert title.startswith(
        "“cat” " + ("raises" if values["cat"] > 0 else "lowers") + " the similarity, most of all in the "
    )
    assert detail == share("“cat”", "cat", "words")
    title, detail = said(script, e, (box.tolist(), None), ("the box", "all words"))
    assert title.startswith("The box " + ("raises" if values["box"] > 0 else "lowers"))
    assert "most of all through “" in title
    assert detail == share("The box", "box", "places")
    title, detail = said(script, e, (box.tolist(), cat.tolist()), ("the box", "“cat”"))
    assert title.startswith("“cat” in the box ")
    assert detail.startswith(f"Together they count {numbers['both']}. For comparison, ")
    assert detail.endswith(" The similarity is 0.3000.")
    assert f"the box with all words: {numbers['box']}; “cat” with the whole image: {numbers['cat']}." in detail


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ([0.3, -0.1], "“dog” counts +0.3000 of the +0.2000 that the two have; other words take some of it away."),
        ([0.1, 0.3], "“dog” counts +0.1000 of the +0.4000 that the two have."),
        ([-0.1, 0.3], "“dog” counts −0.1000, against the +0.2000 that the two have."),
        ([0.1, -0.3], "“dog” counts +0.1000, against the −0.2000 by which the two disagree."),
        (
            [-0.3, 0.1],
            "“dog” counts −0.3000 of the −0.2000 by which the two disagree; other words make up for some of it.",
        ),
        ([-0.1, -0.3], "“dog” counts −0.1000 of the −0.4000 by which the two disagree."),
    ],
)
def test_a_part_that_is_larger_than_the_whole_says_why(script, e, columns, sentence):
    text = TokenLayout(size=2, special={}, text="dog cat", offsets=((0, 3), (4, 7)), tokens=("dog", "cat"))
    matrix = torch.tensor(columns).repeat(12, 1) / 12
    pair = replace(e, attributions=matrix, right_effects=torch.zeros(2), right_layout=text, right_input=text.text)
    # What is left over lies in no special position here.
    pair = replace(pair, similarity=pair.terms.base + pair.terms.left + pair.terms.right + sum(columns))
    detail = said(script, pair, (None, [1.0, 0.0]), ("the whole image", "“dog”"))[1]
    pictured = sentence.replace("the two have", "the picture and the caption have in common")
    assert detail.startswith(pictured.replace("the two disagree", "the picture and the caption disagree"))


@pytest.mark.parametrize("selection", [None, "cat", "dog"])
@pytest.mark.parametrize("box", [None, BOX])
def test_figures_and_terminal_have_the_pages_title(script, e, selection, box):
    weights = [
        None if box is None else e.left_layout.cover(box),
        None if selection is None else e.right_layout.select(selection),
    ]
    names = ["the box 22–71 × 7–44" if box else "the whole image", f"“{selection}”" if selection else "all words"]
    title, _ = said(script, e, [None if w is None else w.tolist() for w in weights], names)
    assert headline(e, selection, box) == title
    if box is None:
        figure = e.plot(selection)
        assert title in " ".join(text.get_text() for text in figure.texts)
        plt.close(figure)
        console = Console(file=io.StringIO(), width=200)
        console.print(terminal(e, selection=selection))
        assert title in console.file.getvalue()


@pytest.mark.parametrize("noise", [0.0, 1e-7, -1e-7])
def test_a_word_that_counts_nothing_neither_raises_nor_lowers(script, e, noise):
    matrix = e.matrix.clone()
    matrix[:, 4] = noise
    pair, cat = replace(e, attributions=matrix), e.right_layout.select([4]).tolist()
    title, detail = said(script, pair, (None, cat), ("the whole image", "“cat”"))
    assert title == headline(pair, "cat") == "“cat” neither raises nor lowers the similarity."
    assert detail.startswith("“cat” counts +0.0000 of the ")
    title, _ = said(script, pair, (e.left_layout.cover(BOX).tolist(), cat), ("the box 22–71 × 7–44", "“cat”"))
    assert (
        title == headline(pair, "cat", BOX) == "“cat” in the box 22–71 × 7–44 neither raises nor lowers the similarity."
    )


def test_page_figure_and_terminal_say_how_much_lies_in_a_prompt(e):
    layout = replace(
        e.right_layout, special={0: "start", 1: "prompt"}, offsets=(None, None, *e.right_layout.offsets[2:])
    )
    pair, plain = replace(e, right_layout=layout), replace(e, right_layout=e.right_layout)
    size = e.matrix.abs()
    special, prompt = (float(size[:, columns].sum() / size.sum()) for columns in ([0, 1], [1]))
    where = f"lies in text positions that are not a word, {prompt:.0%} in the prompt"
    sentence = f"{special:.0%} of all interaction (by size) {where}"

    def shown(explanation):
        figure, console = explanation.plot(), Console(file=io.StringIO(), width=200)
        console.print(terminal(explanation))
        plt.close(figure)
        assert all(len(text.get_text()) > 1 for text in figure.texts)
        return (
            page_data(explanation)["cases"][0]["note"],
            " ".join(text.get_text() for text in figure.texts),
            console.file.getvalue(),
        )

    assert all(sentence in text for text in shown(pair))
    assert not any("of all interaction" in text for text in shown(plain))
    words = float(e.matrix[:, 2:].double().sum())
    assert re.search(rf"of it shown +{re.escape(f'{words:+.4f}')}  word by word above", shown(pair)[2])
    assert "word by word above" in shown(plain)[2]


def test_a_pair_without_anything_that_matches_says_so(script, e):
    title, _ = said(script, replace(e, attributions=-e.matrix.abs()))
    assert title == "Nothing matches: all of it lowers the similarity."


def test_a_similarity_below_that_of_blank_inputs_is_no_match(script, e):
    title, _ = said(script, e)
    closest = title.removesuffix(".").replace(" matches best", "")
    for similarity, expected in ((0.05, f"The model sees no match here; closest is {closest}."), (0.1, title)):
        low = replace(e, similarity=similarity)
        assert said(script, low)[0] == expected
        assert headline(low) == expected


def ranked(script, similarities, base=0.0, left="image"):
    pair = {"left": {"kind": left}, "right": {"kind": "text"}, "called": "similarity", "terms": [["base", base]]}
    cases = [{**pair, "name": name, "similarity": value} for name, value in zip("abcd", similarities, strict=False)]
    data = {"cases": [{}, *cases], "alternatives": list(range(1, len(cases) + 1))}
    return script("answerLine(ranking(data))", data=data), script("rankNumbers(ranking(data))", data=data)


def test_of_several_texts_the_answer_comes_first(script):
    assert ranked(script, [0.05, 0.18])[0] == "The model prefers “b” (0.18) to “a” (0.05)."
    assert ranked(script, [0.1811, 0.1814])[0] == "The model prefers “b” (0.1814) to “a” (0.1811)."
    assert ranked(script, [0.18, 0.18])[0] == "The model does not prefer either: “a” (0.1800), “b” (0.1800)."
    line, numbers = ranked(script, [0.05, 0.18, -0.031])
    assert line == "Of 3 texts the model prefers “b” (0.18)."
    assert numbers == ["0.18", "0.05", "−0.03"]
    # No zero has a sign.
    assert ranked(script, [0.18, -0.004])[1] == ["0.18", "0.00"]
    low = ranked(script, [-0.05, -0.01], 0.02)[0]
    assert low == "The model sees no match with either; “b” (−0.01) is closer than “a” (−0.05)."
    assert ranked(script, [0.0, -0.1, 0.01], 0.02)[0].endswith("with any of these; “c” (0.01) is closest.")
    # Two texts may have much in common without any content, as both are texts.
    assert ranked(script, [0.7, 0.5], 0.9, "text")[0] == "The model prefers “a” (0.70) to “b” (0.50)."


def test_the_terms_are_explained_as_what_they_are(e):
    """The picture alone is compared with a blank text, whose length is the caption's: two captions may give two numbers."""
    photo = Image.effect_noise((64, 48), 90).convert("RGB")
    pair = page_data(e)["cases"][0]["meanings"]
    assert "an empty text as long as this one" in pair["image alone"]
    assert "may still differ from pair to pair, for the text's length and the lengths" in pair["image alone"]
    assert "against a black picture" in pair["text alone"]
    assert "no content of the image counts here" in pair["text alone"]
    assert "because they meet" in pair["interaction"]
    cases = page_data(ss.explain("scenes", photo, "a dog", against="a big red cat"))["cases"]
    margin = cases[0]["meanings"]
    assert margin["text alone"].startswith("How much better the first text than the second fits a black picture")
    assert "in place of the first text, less the same for the second" in margin["image alone"]
    assert "less the same for the second" in margin["interaction"]
    # What the words say of the numbers.
    difference, first, second = (dict(case["terms"]) for case in cases)
    for name in ("base", "image alone", "text alone", "interaction"):
        assert difference[name] == pytest.approx(first[name] - second[name], abs=1e-6)
    assert abs(first["image alone"] - second["image alone"]) > 1e-3
    assert not any("deserved" in text for case in cases for text in case["meanings"].values())


def test_only_texts_of_one_picture_are_alternatives():
    photo = Image.effect_noise((64, 48), 90).convert("RGB")
    dog, cat = (ss.explain("scenes", photo, text) for text in ("a dog", "a cat"))
    assert page_data([dog, cat])["alternatives"] == [0, 1]
    assert page_data(ss.explain("scenes", photo, "a dog", against="a cat"))["alternatives"] == [1, 2]
    elsewhere = ss.explain("scenes", Image.new("RGB", (64, 48), "red"), "a cat")
    assert page_data([dog, elsewhere])["alternatives"] == []
    assert page_data([dog, dog])["alternatives"] == []
    assert page_data(dog)["alternatives"] == []


def test_a_margin_that_no_word_raises_says_which_one_fits_better(script, e):
    margin = replace(e, attributions=-e.matrix.abs(), quantity="margin")
    title, _ = said(script, margin)
    assert title == "The first fits better than the second. No word raises the margin."
    assert headline(margin) == title


def test_a_margin_between_short_captions_names_them(script):
    why = ss.explain("scenes", Image.effect_noise((64, 48), 90).convert("RGB"), "a dog", against="a zebra")
    title, _ = said(script, why)
    assert title.startswith(f"“a dog” fits {'worse' if why.similarity < 0 else 'better'} than “a zebra”. ")
    assert headline(why) == title


def test_each_side_alone_adds_up_to_the_table(script, e):
    """Positions without a place count as well: the sentence and the table's lines are one number, split up."""
    layout = TokenLayout(
        size=5, special={0: "start"}, text="dog and a cat", offsets=(None, (0, 3), (4, 7), (8, 9), (10, 13)),
        tokens=("", "dog", "and", "a", "cat"),
    )  # fmt: skip
    marked = replace(e, right_layout=layout, right_input=layout.text)
    _, detail = said(script, marked, reading="alone")
    terms, start = marked.terms, float(marked.right_effects[0])
    assert detail.replace("−", "-") == (
        f"the whole image alone: {terms.left:+.4f}; all words alone: {terms.right:+.4f}, {start:+.4f} of it in special "
        "positions, of a similarity of 0.3000."
    )
    bars = script("waterfall(readCase(data))", data=page_data(marked)["cases"][0])["bars"]
    third = [bar["name"] for bar in bars].index("text alone")
    shown, special = bars[third + 1 : third + 3]
    assert (shown["name"], special["name"]) == ("of it shown", "of it in special positions")
    assert special["value"] == pytest.approx(start, abs=1e-6)
    assert shown["value"] + special["value"] == pytest.approx(bars[third]["value"])
    assert float(marked.right_effects[1:].sum()) == pytest.approx(shown["value"], abs=1e-5)


def test_the_joined_script_has_every_module_once():
    script = web_file("view.js")
    modules = sorted(path.name for path in FOLDER.iterdir() if path.name.endswith(".js"))
    assert len(modules) > 5
    assert not re.search(r"^import ", script, re.M)
    names = []
    for module in modules:
        source = (FOLDER / module).read_text()
        declared = re.findall(r"^(?:export )?(?:async )?(?:const|function|class) (\w+)", source, re.M)
        assert all(re.search(rf"\b{name}\b", script) for name in declared), module
        names += declared
        assert max(map(len, source.splitlines())) <= 120
    # They share one scope.
    assert len(names) == len(set(names))
