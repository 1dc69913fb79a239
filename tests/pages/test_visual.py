"""Figure and page: what is drawn is what was computed, and the page needs nobody else."""

import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import open_clip
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

import secondsight as ss
from models import clip, pixels, tokens
from pages import unpacked
from secondsight.algebra.layout import owners_in
from secondsight.explanation import contrast
from secondsight.visual import charts
from secondsight.visual.colours import NEGATIVE, POSITIVE, SCALES, overlay
from secondsight.visual.figures import draw
from secondsight.visual.page import embed_page, render_page, web_file
from secondsight.visual.page_data import page_data
from secondsight.visual.saving import save, with_names
from secondsight.visual.terminal import picture, terminal

mpl.use("Agg")

CAPTION = 'A dog & a cat <b>{{script}}</script> play 🎾 "ball"'


@cache
def CLIP():
    model = clip(torch.float32, text={"context_length": 40, "vocab_size": 49408})
    return ss.wrap(model, open_clip.image_transform(32, is_train=False), open_clip.SimpleTokenizer(context_length=40))


@pytest.fixture(scope="module")
def e() -> ss.Explanation:
    dual = CLIP()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    return ss.explain(dual, photo, CAPTION)


def test_page_data_are_the_numbers(e):
    (data,) = page_data(e, "dog")["cases"]
    words = [w["text"] for w in data["right"]["words"]]
    matrix = unpacked(data["matrix"], 16)
    assert matrix.shape == (16, len(words))
    assert np.allclose(matrix[:, words.index("dog")].reshape(4, 4), e["dog"].numpy(), atol=1e-7)
    box = (20.0, 5.0, 60.0, 50.0)
    cover = e.left_layout.view(e.left_layout.cover(box)).flatten().numpy()
    assert np.allclose(cover @ matrix, [s for _, s in e.box(*box)], atol=1e-6)
    assert [words[i] for i in data["start"][1]] == ["dog"]
    assert sum(v for _, v in data["terms"]) == pytest.approx(data["similarity"], abs=data["error"] + 1e-9)
    assert matrix.astype(float).sum() + data["hidden"] == pytest.approx(e.terms.interaction, abs=1e-6)
    own = unpacked(data["alone"][0], 1)[0]
    assert np.allclose(own, e.left_effects[e.left_layout.visible].numpy(), atol=1e-7)


def test_offsets_count_as_javascript_does(e):
    units = CAPTION.encode("utf-16-le")
    for word in page_data(e)["cases"][0]["right"]["words"]:
        assert units[2 * word["start"] : 2 * word["end"]].decode("utf-16-le") == word["text"]


def test_the_page_is_self_contained_and_a_caption_cannot_break_it(e):
    page = render_page(e)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|src=[\"'](?!data:)|@import|url\((?!#)", page)
    assert page.count("</script>") == 2
    data = re.search(r'id="secondsight-data">(.*?)</script>', page, re.S)[1]
    assert json.loads(data)["cases"][0]["right"]["text"] == CAPTION
    assert "<title>secondsight: A dog &amp; a cat &lt;b&gt;" in page
    assert "srcdoc=" in embed_page(e)


def test_the_view_is_small():
    assert len(web_file("view.js").encode()) + len(web_file("view.css").encode()) < 68_500


def test_several_captions_are_cases_with_their_difference(e):
    other = ss.explain(CLIP(), e.left_input, "a zebra")
    data = page_data([e, other])
    assert [case["name"][:7] for case in data["cases"]] == ["A dog &", "a zebra", "differe"]
    # One photograph, however many cases show it.
    assert len(data["pictures"]) == 1
    assert data["cases"][2]["similarity"] == pytest.approx(e.similarity - other.similarity)
    assert len(page_data([e, other, other])["cases"]) == 3
    with pytest.raises(ss.InputError, match="at least one"):
        page_data([])


def test_a_page_starts_with_what_was_asked_for(e):
    start = page_data(e, (0, 5), (20, 5, 60, 50))["cases"][0]["start"]
    assert start == [[20.0, 5.0, 60.0, 50.0], [0, 1]]
    assert page_data(e.T, (20, 5, 60, 50))["cases"][0]["start"] == [None, [20.0, 5.0, 60.0, 50.0]]
    # Single cells are shown as the box around them.
    cells = page_data(e.T, [5, 6])["cases"][0]["start"][1]
    assert np.allclose(cells, e.left_layout.cell_boxes()[[4, 5]].reshape(-1)[[0, 1, 6, 7]])


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_even_and_safe_for_the_colour_blind(scale):
    ends = [np.array(c) for c in SCALES[scale]]
    lightness = [oklab(linear(c))[0] for c in ends]
    assert abs(lightness[0] - lightness[1]) < 0.05
    for seen in BLIND.values():
        a, b = (oklab(np.clip(seen @ linear(c), 0, 1)) for c in ends)
        assert np.linalg.norm(a - b) > 0.2


def linear(c):
    c = c / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Björn Ottosson's OKLab of linear sRGB."""
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    to_lms.append([0.0883024619, 0.2817188376, 0.6299787005])
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    to_lab.append([0.0259040371, 0.7827717662, -0.8086757660])
    return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ rgb)


BLIND = {
    # Machado, Oliveira, Fernandes 2009, severity 1, on linear sRGB.
    "none": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def test_red_is_positive_blue_negative_and_zero_invisible():
    rgba = overlay(np.array([2.0, -2.0, 0.0]), 2.0)
    assert np.allclose(rgba[0, :3] * 255, POSITIVE)
    assert np.allclose(rgba[1, :3] * 255, NEGATIVE)
    assert rgba[2, 3] == 0
    assert rgba[0, 3] == rgba[1, 3]


def test_figures(e, tmp_path):
    assert isinstance(e.plot(), Figure)
    assert isinstance(e.plot("dog"), Figure)
    assert isinstance(e.plot(box=(10, 10, 50, 50)), Figure)
    mpl.pyplot.close("all")
    for suffix in ("png", "svg", "pdf"):
        e.save(tmp_path / f"e.{suffix}", "dog")
        assert (tmp_path / f"e.{suffix}").stat().st_size > 5000
    assert isinstance(e.plot("dog", box=(1, 1, 50, 50)), Figure)
    mpl.pyplot.close("all")
    with pytest.raises(ss.InputError, match="its words are"):
        e.plot("horse")
    assert mpl.pyplot.get_fignums() == []
    with pytest.raises(ss.InputError, match=r"must end in \.html"):
        e.save(tmp_path / "e.gif")


def test_token_ids_without_text_can_be_shown(tmp_path):
    e = ss.explain(
        ss.wrap(clip(torch.float32)),
        pixels(dtype=torch.float32),
        tokens(),
        ss.IntegratedJacobian(reference=(torch.zeros(1, 3, 32, 32), None)),
    )
    e.save(tmp_path / "e.html")
    e.save(tmp_path / "e.png")
    assert page_data(e)["cases"][0]["right"]["text"] is None


def test_two_images_and_two_texts_can_be_shown(builtin, tmp_path):
    for side, pair in ((builtin.left, [np.zeros((40, 60, 3), np.uint8)] * 2), (builtin.right, ["a dog", "the cat"])):
        same = ss.DualEncoder(side.encoder, side.encoder, name="same")
        e = ss.explain(
            same,
            *[np.random.default_rng(i).random((40, 60, 3)) if side.kind == "image" else p for i, p in enumerate(pair)],
        )
        e.save(tmp_path / f"{side.kind}.html")
        e.save(tmp_path / f"{side.kind}.png")
        assert e.error < 1e-3


def test_a_grid_has_a_column_for_every_method_and_a_row_for_every_selection(e):
    from secondsight.visual.figures import method_grid

    other = ss.explain(
        ss.wrap(
            clip(torch.float32, text={"context_length": 40, "vocab_size": 49408}),
            open_clip.image_transform(32, is_train=False),
            open_clip.SimpleTokenizer(context_length=40),
        ),
        e.left_input,
        CAPTION,
        ss.TokenEmbeddings(),
    )
    figure = method_grid([e, other], ["dog", "cat", None])
    assert len(figure.axes) == 6
    labels = [text.get_text() for text in figure.texts]
    assert {"dog", "cat", "all", "token-embeddings"} <= set(labels)
    # Each map is on its own scale, whose end is written on it.
    corner = figure.axes[0].texts[0].get_text()
    assert float(corner.removeprefix("±")) == pytest.approx(float(e["dog"].abs().max()), rel=0.05)
    with pytest.raises(ss.InputError, match="at least one"):
        method_grid([], ["dog"])
    with pytest.raises(ss.InputError, match="images on the left"):
        method_grid([e.T], [None])


def test_pairs_stand_side_by_side_with_what_was_picked(e):
    box = (10.0, 10.0, 50.0, 50.0)
    figure = ss.visual.pairs([(e, "dog"), (e, box), (e, None), (e, "cat")], columns=2)
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 4
    assert [len(axes.patches) for axes in pictures] == [0, 1, 0, 0]
    assert pictures[1].patches[0].get_xy() == box[:2]
    # Two in a row, two rows.
    assert len({round(axes.get_position().x0, 3) for axes in pictures}) == 2
    assert len({round(axes.get_position().y0, 3) for axes in pictures}) == 2
    with pytest.raises(ss.InputError, match="at least one"):
        ss.visual.pairs([])


def test_latex_has_every_word_its_colour_and_no_command_of_the_caption(e):
    text = ss.visual.latex(e, "dog")
    assert text.count(r"\colorbox[rgb]") + text.count(r"\fcolorbox[rgb]") == len(e.words)
    assert re.search(r"\\fcolorbox\[rgb\]\{0.2,0.2,0.2\}\{[\d.,]+\}\{(\\color\{white\})?\\strut dog\}", text)
    assert r"\&" in text
    assert r"\{" in text
    strongest = max((w for w in e.words if w[0].isalpha() and w[0] != "a"), key=lambda w: abs(w[1]))
    shade = re.search(r"\{([\d.]+),([\d.]+),([\d.]+)\}\{\S*\\strut " + re.escape(strongest[0]) + r"\}", text)
    red, _, blue = map(float, shade.groups())
    assert (red > blue) == (strongest[1] > 0)
    with pytest.raises(ss.InputError, match="not text"):
        ss.visual.latex(e.T)


def test_latex_has_a_line_for_every_text():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    text = ss.visual.latex(ss.explain(CLIP(), photo, "a dog", against="a kite"))
    first, second = text.split("\\\\\n")
    assert [w.strip("}") for w in re.findall(r"\\strut (\w+)", first)] == ["a", "dog"]
    assert [w.strip("}") for w in re.findall(r"\\strut (\w+)", second)] == ["a", "kite"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(e, tmp_path):
    source = (
        r"\documentclass{article}\usepackage{xcolor}\begin{document}"
        + ss.visual.latex(ascii_only(e))
        + r"\end{document}"
    )
    (tmp_path / "x.tex").write_text(source)
    subprocess.run(["pdflatex", "-halt-on-error", "x.tex"], cwd=tmp_path, check=True, capture_output=True)


def ascii_only(e):
    return ss.explain(CLIP(), e.left_input, "50% of a_b & {c} ~ ^ \\ # $")


def test_the_terminal_shows_the_map(e):
    shown = picture(e, "dog", columns=30)
    lines = shown.plain.rstrip("\n").split("\n")
    assert {len(line) for line in lines} == {30}
    assert len(lines) == round(30 * 60 / 90 / 2)
    # Where the map is strongest and positive, the character's colour is redder than where it is most negative.
    heat = e.heatmap("dog")
    colours = [[int(v) for v in re.findall(r"\d+", span.style)] for span in shown.spans]
    redness = np.array([above[0] - above[2] for above in colours]).reshape(len(lines), 30)
    small = torch.nn.functional.adaptive_avg_pool2d(heat[None, None].float(), (2 * len(lines), 30))[0, 0, ::2].numpy()
    assert redness.flat[small.argmax()] > redness.flat[small.argmin()]


def test_a_figure_is_written_the_same_every_time(tmp_path):
    draw = lambda: charts.distributions({"a model with a long name": [0.1, 0.4, 0.9], "b": [0.2]}, "PGE")  # noqa: E731
    for kind in ("pdf", "svg", "png"):
        for name in ("one", "two"):
            save(draw(), tmp_path / f"{name}.{kind}")
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    assert "a model with a long name" in (tmp_path / "one.svg").read_text()
    with pytest.raises(ss.InputError, match=r"must end in \.pdf"):
        save(draw(), tmp_path / "x.gif")


def test_legends_lie_outside_the_data_however_long_the_names():
    for name in ("short", "a very long name of a setting " * 6):
        figure = charts.curves(
            {name: np.random.rand(4, 5), "other": np.random.rand(4, 5)}, "share", "similarity", "CID"
        )
        figure.canvas.draw()
        (axes,) = figure.axes
        inside, legend = axes.get_window_extent(), axes.get_legend().get_window_extent()
        assert legend.y0 >= inside.y1 - 1
        assert legend.x1 <= figure.bbox.x1 + 1
        assert inside.height > 50


def test_a_gallery_of_pictures():
    shown = [(Image.new("RGB", (40, 40)), f"case {i}, a long description that needs another line") for i in range(5)]
    figure = charts.gallery(shown)
    assert sum(bool(axes.images) for axes in figure.axes) == 5
    with pytest.raises(ss.InputError, match="at least one"):
        charts.gallery([])


def test_cases_of_one_text_are_numbered(e):
    query = [replace(turned, left_input="a query") for turned in (e.T, e.T)]
    names = [case["name"] for case in page_data(query)["cases"]]
    assert names == ["1: a query", "2: a query", "difference"]


def test_other_photographs_of_one_size_have_no_difference(e):
    photo = Image.fromarray(255 - np.asarray(e.left_input))
    other = ss.explain(CLIP(), photo, CAPTION)
    assert len(page_data([e, other])["cases"]) == 2
    deeper = ss.explain(CLIP(), e.left_input, CAPTION, ss.IntegratedJacobian(layer=0))
    assert len(page_data([e, deeper])["cases"]) == 2
    with pytest.raises(ss.InputError, match="one left input"):
        contrast(e, other)


def test_cells_of_a_fine_grid_are_summed_in_equal_numbers():
    for n in (65, 96, 224, 336):
        fine = ss.GridLayout(n * n, {}, (n, n), (n, n), (0.0, 0.0, float(n), float(n)))
        coarse = fine.coarsen(64)
        rows, columns = coarse.grid
        counts = np.bincount(owners_in(fine, coarse))
        assert rows == columns <= 64
        assert counts.min() == counts.max()


def test_captions_that_look_like_markup_or_mathematics_are_shown(e, tmp_path):
    for caption in ("[/bold] a [red]cat", "costs $5 or $6", "a \x07 bell"):
        other = ss.explain(CLIP(), e.left_input, caption)
        Console(file=io.StringIO()).print(terminal(other, columns=20))
        Console(file=io.StringIO()).print(terminal(other.T))
        other.save(tmp_path / "x.png")


@pytest.mark.filterwarnings("error")
def test_figures_name_symbols_that_their_font_has_not(e):
    figure = Figure()
    draw(figure, e, None, None)
    figure.canvas.draw()
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "[tennis racquet and ball]" in words
    assert with_names("☕ 猫") == "☕ 猫"


@pytest.mark.parametrize("size", [(4000, 200), (200, 4000)])
def test_the_scale_of_very_wide_and_tall_pictures_can_be_read(size):
    figure = Figure()
    draw(figure, ss.explain(CLIP(), Image.new("RGB", size, "grey"), "a dog"), None, None)
    figure.canvas.draw()
    (scale,) = [axes for axes in figure.axes if any("raises" in label.get_text() for label in axes.get_yticklabels())]
    boxes = [label.get_window_extent() for label in scale.get_yticklabels()]
    assert [label.get_text().split("\n")[0] for label in scale.get_yticklabels()] == ["lowers", "0", "raises"]
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)


def test_an_explanation_that_has_not_converged_says_so(e):
    assert page_data(e)["cases"][0]["warning"] is None
    outcome = replace(e.outcomes[0], converged=False)
    missed = replace(e, outcomes=(outcome, e.outcomes[1]))
    (case,) = page_data(missed)["cases"]
    assert case["warning"].startswith("This explanation has not converged")
    console = Console(file=io.StringIO(), width=200)
    console.print(terminal(missed))
    assert case["warning"] in console.file.getvalue()
    texts = [text.get_text() for text in missed.plot().texts]
    assert any("not converged" in text for text in texts)
    assert not any("not converged" in text.get_text() for text in e.plot().texts)
