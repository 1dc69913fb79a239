"""What a reader and a user notice of methods that read attention, and which models they refuse."""

from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
import torch
from rich.console import Console

import secondsight as ss
from families import FAMILIES, photographs
from families.late_interaction import st_late_plain
from models import clip, pixels, tokens
from secondsight.methods.attention_maps import AttentionMethod
from secondsight.methods.uses import method_lines
from secondsight.visual.page_data import page_data
from secondsight.visual.terminal import terminal
from towers import assert_close

ATTENTION = [name for name, kind in ss.METHODS.items() if issubclass(kind, AttentionMethod)]


def printed(e: ss.Explanation) -> str:
    console = Console(width=200, record=True, file=StringIO())
    console.print(terminal(e))
    return console.export_text()


def test_readers_are_told_that_nothing_adds_up():
    e = ss.explain("scenes", photographs()[0], "a cat left of a tree", "grad-eclip")
    assert e.similarity < 0
    text = printed(e)
    assert (
        "First order: one map for all words, which any selection scales. It does not add up to the similarity." in text
    )
    assert "not converged" not in text
    assert "sees no match" not in text
    assert "sum of the map" in text
    (case,) = page_data(e)["cases"]
    assert "First order: one map for all words" in case["note"]
    assert case["warning"] is None
    assert case["order"] == 1
    assert case["meanings"]["interaction"].startswith("The sum of the map")
    assert "First order" not in printed(ss.explain("scenes", photographs()[0], "a cat left of a tree"))


@pytest.mark.parametrize("name", ATTENTION)
def test_what_a_map_would_predict_is_not_said(name):
    e = ss.explain("scenes", photographs()[0], "a cat left of a tree", name)
    with pytest.raises(
        ss.InputError, match=rf"map of first order \({name}\) does not say .* without a part.*'grounded'"
    ):
        e.without("cat")


def test_weights_without_gradients_are_named():
    with torch.inference_mode():
        host = clip()
    with pytest.raises(ss.InputError, match=r"made in torch.inference_mode\(\)"):
        ss.explain(ss.wrap(host), pixels(), tokens(), "grad-eclip")
    model = ss.wrap(clip())
    with torch.inference_mode():
        e = ss.explain(model, pixels(), tokens(), "grad-eclip")
    assert torch.equal(e.matrix, ss.explain(model, pixels(), tokens(), "grad-eclip").matrix)


def test_threads_do_not_see_each_others_attention():
    model = ss.wrap(clip())
    images = [pixels(seed=seed) for seed in range(4)]
    wanted = [ss.explain(model, image, tokens(), "grad-eclip").matrix for image in images]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda image: ss.explain(model, image, tokens(), "grad-eclip").matrix, images))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_lists_mark_methods_of_first_order():
    marked = {name for name, line in method_lines().items() if line.endswith("First order: one map for all words.")}
    assert marked == {name for name, kind in ss.METHODS.items() if kind.order == 1}
    assert set(ATTENTION) <= marked


@pytest.mark.parametrize("name", ATTENTION)
def test_first_order_methods_have_no_vectors(name):
    model = ss.wrap(clip())
    with pytest.raises(ss.InputError, match=r"a map of a pair and no vectors of one input.*'last-layer'"):
        model.left.contributions(pixels(), name)


@pytest.mark.parametrize("name", ATTENTION)
def test_sides_without_attention_are_refused_with_a_remedy(builtin, name):
    with pytest.raises(ss.InputError, match=r"this image encoder has no attention to read.*'grounded'"):
        ss.explain(builtin, photographs()[0], "a cup", name)
    late = ss.wrap(st_late_plain(torch.float32))
    with pytest.raises(ss.InputError, match=r"a late-interaction model has no embedding"):
        ss.explain(late, "a query", "a document about cups", name)
    windows = FAMILIES["open-clip-swin"](torch.float64)
    with pytest.raises(ss.InputError, match="over windows"):
        ss.explain(windows.model, windows.left[0], windows.right[0], name)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("family", ["hf-clip", "hf-siglip"])
def test_fused_and_plain_attention_give_the_same_numbers(family, name):
    example = FAMILIES[family](torch.float32)
    fused = ss.explain(example.model, example.left[0], example.right[0], name)
    example.host.set_attn_implementation("eager")
    plain = ss.explain(example.model, example.left[0], example.right[0], name)
    assert_close(fused.matrix, plain.matrix, 1e-3)


@pytest.mark.parametrize("frozen", [True, False])
def test_weights_get_no_gradients_and_may_be_frozen(frozen):
    host = clip().requires_grad_(not frozen)
    e = ss.explain(ss.wrap(host), pixels(), tokens(), "grad-eclip")
    assert e.matrix.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad != frozen for p in host.parameters())


FEW = ("open-clip-timm-registers", "open-clip-eva", "open-clip-coca", "hf-siglip2-naflex", "hf-flava", "st-mpnet-dense")


@pytest.mark.parametrize("family", FEW)
def test_other_families_are_explained_with_the_hosts_own_similarity(family):
    example = FAMILIES[family](torch.float64)
    left, right = example.left[0], example.right[0]
    with torch.no_grad():
        host = torch.cosine_similarity(example.host_left(left), example.host_right(right), dim=-1)
    for name in ATTENTION:
        e = ss.explain(example.model, left, right, name)
        assert e.similarity == pytest.approx(float(host), abs=1e-9)
        assert torch.isfinite(e.matrix).all()


@pytest.mark.parametrize("name", ATTENTION)
def test_scenes(name):
    e = ss.explain("scenes", photographs()[0], "a red cat left of a tree", name)
    assert e["cat"].shape == (12, 12)
    assert e.matrix.sum() > 0
