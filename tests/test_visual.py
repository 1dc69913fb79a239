"""Figure and page: what is drawn is what was computed, and the page needs nobody else."""

import json
import re
import shutil
import subprocess

import matplotlib as mpl
import numpy as np
import open_clip
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import secondsight as ss
from models import clip, pixels, tokens
from secondsight.visual.colours import NEGATIVE, POSITIVE, overlay
from secondsight.visual.page import embed_page, page_data, render_page

mpl.use("Agg")

CAPTION = 'A dog & a cat <b>{{script}}</script> play 🎾 "ball"'


@pytest.fixture(scope="module")
def e() -> ss.Explanation:
    model = clip(torch.float32, text={"context_length": 40, "vocab_size": 49408})
    dual = ss.wrap(model, open_clip.image_transform(32, is_train=False), open_clip.SimpleTokenizer(context_length=40))
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8))
    return ss.explain(dual, photo, CAPTION)


def test_page_data_are_the_numbers(e):
    data = page_data(e, "dog")
    words = [w["text"] for w in data["right"]["words"]]
    assert np.array(data["matrix"]).shape == (16, len(words))
    dog = np.array(data["matrix"])[:, words.index("dog")]
    assert np.allclose(dog.reshape(4, 4), e["dog"].numpy(), rtol=1e-4)
    box = (20.0, 5.0, 60.0, 50.0)
    cover = e.left_layout.view(e.left_layout.cover(box)).flatten().numpy()
    assert np.allclose(cover @ np.array(data["matrix"]), [s for _, s in e.box(*box)], atol=1e-6)
    assert [words[i] for i in data["start"]] == ["dog"]
    assert sum(v for _, v in data["terms"]) == pytest.approx(data["similarity"], abs=data["error"] + 1e-9)


def test_offsets_count_as_javascript_does(e):
    units = CAPTION.encode("utf-16-le")
    for word in page_data(e)["right"]["words"]:
        assert units[2 * word["start"] : 2 * word["end"]].decode("utf-16-le") == word["text"]


def test_the_page_is_self_contained_and_a_caption_cannot_break_it(e):
    page = render_page(e)
    assert not re.search(r"https?://|src=[\"'](?!data:)|@import|url\(", page)
    assert page.count("</script>") == 2
    data = re.search(r'id="secondsight-data">(.*?)</script>', page, re.S)[1]
    assert json.loads(data)["right"]["text"] == CAPTION
    assert "<title>secondsight: A dog &amp; a cat &lt;b&gt;" in page
    assert "srcdoc=" in embed_page(e)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_the_page_runs_in_a_browser(e, tmp_path):
    e.save(tmp_path / "e.html", "dog")
    # A click as a person makes it, then the page's own words about it.
    probe = """<script>
      const word = [...document.querySelectorAll(".ss-word")].find((w) => w.textContent === "cat");
      word.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
      document.body.dataset.seen = document.querySelector(".ss-status").textContent;
    </script></body>"""
    page = (tmp_path / "e.html").read_text().replace("</body>", probe)
    (tmp_path / "e.html").write_text(page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    command = ["chromium", *flags, "--virtual-time-budget=2000", "--dump-dom", (tmp_path / "e.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    total = float(e["cat"].sum())
    assert f"Interaction of “cat”: {'−' if total < 0 else '+'}{abs(total):.4f}" in dom
    assert 'aria-pressed="true"' in dom


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
    with pytest.raises(ss.InputError, match="not both"):
        e.plot("dog", box=(1, 1, 5, 5))
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
    assert page_data(e)["right"]["text"] is None


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
