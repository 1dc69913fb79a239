"""What must hold whatever the numbers are: huge activations, half precision, constant images, NaN, padding, batches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import secondsight as ss
from models import clip, pixels, tokens
from secondsight.testing import changed, snapshot
from sides import image_layout, random_side, seeds, text_layout

pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")

METHODS = {
    "integrated-jacobian": ss.IntegratedJacobian(),
    "deep": ss.IntegratedJacobian(layer=1, steps=4),
    "reverse": ss.IntegratedJacobian(strategy="reverse", steps=4),
    "waypoints": ss.METHODS["waypoint-jacobian"](steps=4),
    "jacobian-times-input": ss.METHODS["jacobian-times-input"](),
    "token-embeddings": ss.METHODS["token-embeddings"](),
    "occlusion": ss.METHODS["occlusion"](),
    "banzhaf": ss.METHODS["banzhaf"](budget=64),
    "shapley": ss.METHODS["shapley"](budget=64),
    "bilinear-lime": ss.METHODS["bilinear-lime"](samples=64, epochs=2),
    **{name: kind() for name, kind in ss.METHODS.items() if issubclass(kind, ss.methods.FirstOrder)},
}


def assert_close(a: torch.Tensor, b: torch.Tensor, relative: float) -> None:
    gap = float((a.double() - b.double()).abs().max())
    assert gap <= relative * float(b.double().abs().max()), gap


# The algebra


@settings(deadline=None)
@given(seeds, seeds, seeds, st.floats(-4, 4), st.floats(-4, 4))
def test_a_pair_is_linear_in_either_side(a, b, c, x, y):
    """⟨a, x·b + y·c⟩ = x⟨a, b⟩ + y⟨a, c⟩ in every term and every cell, on the left as on the right."""
    u, v, w = (
        random_side(layout, s, torch.float64)
        for layout, s in ((image_layout(), a), (text_layout(), b), (text_layout(), c))
    )
    joined, first, second = u @ (v * x + w * y), u @ v, u @ w
    assert joined.similarity == pytest.approx(x * first.similarity + y * second.similarity, abs=1e-9)
    for term in ("base", "left", "right", "interaction"):
        expected = x * getattr(first.terms, term) + y * getattr(second.terms, term)
        assert getattr(joined.terms, term) == pytest.approx(expected, abs=1e-9)
    assert torch.allclose(joined.matrix, torch.cat([x * first.matrix, y * second.matrix], 1), atol=1e-10)
    assert torch.allclose(((v * x + w * y) @ u).matrix, joined.matrix.T, atol=1e-10)


@settings(deadline=None)
@given(seeds, seeds, st.data())
def test_selections_add_up(a, b, data):
    """Attribution toward disjoint selections adds up to that toward both; toward everything it is the matrix's sum."""
    e = random_side(image_layout(), a, torch.float64) @ random_side(text_layout(), b, torch.float64)
    selection = data.draw(st.sets(st.sampled_from(range(1, 9)), min_size=1, max_size=7))
    rest = sorted(set(range(1, 9)) - selection)
    assert torch.allclose(e.toward_left(sorted(selection)) + e.toward_left(rest), e.toward_left(None), atol=1e-12)
    visible = e.matrix[e.left_layout.visible][:, e.right_layout.visible]
    assert float(e.toward_left(None)[e.left_layout.visible].sum()) == pytest.approx(float(visible.sum()), abs=1e-10)
    assert e.terms.interaction == pytest.approx(float(e.matrix.sum()), abs=1e-10)


@settings(deadline=None)
@given(seeds, seeds, st.sampled_from([1e-30, 1e-12, 1.0, 1e12, 1e30]))
def test_the_size_of_the_embeddings_does_not_matter(a, b, size):
    """A cosine is the same whatever its vectors are measured in."""
    u, v = random_side(image_layout(), a, torch.float64), random_side(text_layout(), b, torch.float64)
    grown = ss.Contributions(
        u.vectors * size, u.embedding * size, u.reference_embedding * size, u.layout, u.scale / size
    )
    assert_close((grown @ v).matrix, (u @ v).matrix, 1e-12)
    assert (grown @ v).similarity == pytest.approx((u @ v).similarity, rel=1e-12)
    assert grown.relative_residual == pytest.approx(u.relative_residual, abs=1e-12)


# Models


@pytest.fixture(scope="module")
def wide() -> ss.DualEncoder:
    """A model with outlier channels, as large transformers have: a few hidden channels hundreds of times the others."""
    host = clip()
    with torch.no_grad():
        for block in (*host.visual.transformer.resblocks, *host.transformer.resblocks):
            block.mlp.c_proj.bias[3] += 400.0
            block.attn.out_proj.bias[7] -= 250.0
    return ss.wrap(host)


@pytest.mark.parametrize("layer", [-1, 1])
def test_outlier_channels_add_up(wide, layer):
    e = ss.explain(wide, pixels(), tokens(), ss.IntegratedJacobian(layer=layer, tol=1e-8))
    assert float(wide.left.encoder.features(pixels(), 2)[0].hidden.detach().abs().max()) > 500
    assert e.error < 1e-7


@pytest.mark.parametrize("layer", [-1, 0])
def test_outlier_channels_in_single_precision(wide, layer):
    """The same weights in float32: the same map within what rounding at this size allows."""
    host = clip(torch.float32)
    with torch.no_grad():
        for block in (*host.visual.transformer.resblocks, *host.transformer.resblocks):
            block.mlp.c_proj.bias[3] += 400.0
            block.attn.out_proj.bias[7] -= 250.0
    exact = ss.explain(wide, pixels(), tokens(), ss.IntegratedJacobian(layer=layer, steps=8))
    rough = ss.explain(
        ss.wrap(host), pixels(dtype=torch.float32), tokens(), ss.IntegratedJacobian(layer=layer, steps=8)
    )
    assert_close(rough.matrix, exact.matrix, 2e-3)
    assert rough.similarity == pytest.approx(exact.similarity, abs=1e-4)


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-4), (torch.float16, 2e-2), (torch.bfloat16, 0.15)])
@pytest.mark.parametrize("layer", [-1, 1])
def test_agreement_over_precisions(dtype, allowed, layer):
    """Relative to the largest attribution in float64; halves carry 11 and 8 bits, which the forward pass loses."""
    method = ss.IntegratedJacobian(layer=layer, steps=8)
    exact = ss.explain(ss.wrap(clip()), pixels(), tokens(), method)
    e = ss.explain(ss.wrap(clip(dtype)), pixels(dtype=dtype), tokens(), method)
    assert e.matrix.dtype == torch.float32
    assert_close(e.matrix, exact.matrix, allowed)
    assert abs(e.similarity - exact.similarity) <= allowed


def test_half_precision_that_overflows_is_said_with_the_place():
    host = clip(torch.float16)
    with torch.no_grad():
        host.visual.transformer.resblocks[1].mlp.c_fc.bias += 6e4
        host.visual.transformer.resblocks[1].mlp.c_fc.weight *= 1e3
    with pytest.raises(
        ss.InputError, match=r"image encoder gave NaN or infinity, first in .*resblocks\.1\.mlp.*float32"
    ):
        ss.explain(ss.wrap(host), pixels(dtype=torch.float16), tokens())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("side", ["image", "text"])
def test_nan_weights_are_named_by_every_method(method, side):
    host = clip()
    part = host.visual.transformer.resblocks[2].mlp if side == "image" else host.transformer.resblocks[1].mlp
    with torch.no_grad():
        part.c_fc.weight[0, 0] = math.nan
    model, before = ss.wrap(host), snapshot(host)
    place = rf"transformer\.resblocks\.{2 if side == 'image' else 1}"
    with pytest.raises(ss.InputError, match=rf"the {side} encoder gave NaN.*{place}\.mlp\.c_fc', whose 'weight'"):
        ss.explain(model, pixels(), tokens(), METHODS[method])
    assert changed(before, snapshot(host)) == []


def test_nan_in_the_input_itself():
    broken = pixels()
    broken[0, 0, 5, 5] = math.nan
    with pytest.raises(ss.InputError, match="pixels contain NaN or infinity"):
        ss.explain(ss.wrap(clip()), broken, tokens())


def test_nan_on_the_way_only():
    """Both ends are fine and the model breaks between them: said at once, with the place, instead of more and more nodes."""

    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = nn.Identity(), nn.Linear(4, 3, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # The root of something that is negative in the middle of the way from 0 to 1.
            return self.out(torch.sqrt((self.inner(x) - 0.5) ** 2 - 0.04)).mean(1)

    encoder = ss.TorchEncoder(Between(), ["inner"], kind="series", reference=torch.zeros_like)
    dual = ss.DualEncoder(encoder, encoder, cosine=False)
    with pytest.raises(ss.InputError, match=r"NaN or infinity on the way from the reference to the input, at 0\.[3-6]"):
        dual.left.contributions([torch.ones(1, 5, 4, dtype=torch.float64)])


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("method", ["integrated-jacobian", "deep", "occlusion", "banzhaf"])
def test_images_of_one_colour(value, method):
    """Black is its own reference and has nothing to attribute; grey and white are as good as any photograph."""
    model = ss.load("scenes")
    e = ss.explain(model, Image.new("RGB", (50, 40), (value,) * 3), "a cat left of a tree", METHODS[method])
    assert torch.isfinite(e.matrix).all()
    assert math.isfinite(e.error)
    if value == 0 and "jacobian" in e.about["method"]:
        assert float(e.matrix.abs().max()) < 1e-6
        assert e.terms.left == pytest.approx(0, abs=1e-6)
        assert e.error < (1e-3 if method == "integrated-jacobian" else 2e-2)  # four nodes of the caption's path


@pytest.mark.parametrize("method", METHODS)
def test_captions_of_one_token(method):
    model = ss.wrap(clip())
    e = ss.explain(model, pixels(), tokens(5), METHODS[method])
    assert e.matrix.shape[1] == 3
    assert torch.isfinite(e.matrix).all()


@pytest.mark.parametrize(
    "method", ["integrated-jacobian", "deep", "reverse", "jacobian-times-input", "token-embeddings"]
)
def test_the_order_of_a_batch_does_not_matter(method):
    model, inputs = ss.wrap(clip()), [pixels(seed=s) for s in range(5)]
    batch = model.left.contributions(torch.cat(inputs), METHODS[method])
    order = [3, 0, 4, 2, 1]
    reordered = model.left.contributions(torch.cat([inputs[i] for i in order]), METHODS[method])
    single = [model.left.contributions(image, METHODS[method])[0] for image in inputs]
    for place, i in enumerate(order):
        assert_close(reordered[place].vectors, batch[i].vectors, 1e-10)
        assert_close(single[i].vectors, batch[i].vectors, 1e-10)


# Memory that runs out, as a device's allocator says it


class Narrow:
    """Makes a module refuse batches that are too large, and counts the refusals."""

    def __init__(self, module: nn.Module, most: int) -> None:
        self.most, self.refused = most, 0
        module.register_forward_pre_hook(self)

    def __call__(self, _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].numel() > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_memory_that_runs_out_is_met_by_smaller_chunks(monkeypatch):
    host = clip()
    model, method = ss.wrap(host), ss.IntegratedJacobian(layer=1, steps=8, strategy="forward")
    expected = model.left.contributions(pixels(), method)[0].vectors
    narrow = Narrow(host.visual.transformer.resblocks[2].mlp, 17 * 32 * 4)
    monkeypatch.setattr("secondsight.paths.line._WORKING_FLOATS", 2**18)
    result = model.left.contributions(pixels(), method)[0].vectors
    assert narrow.refused
    assert_close(result, expected, 1e-12)


def test_memory_that_runs_out_in_a_batch_is_met_one_by_one():
    host = clip()
    model, inputs = ss.wrap(host), torch.cat([pixels(seed=s) for s in range(4)])
    expected = model.left.contributions(inputs)
    narrow = Narrow(host.visual.transformer.resblocks[0], 17 * 32 * 2)
    result = model.left.contributions(inputs)
    assert narrow.refused == 1
    assert all(
        torch.equal(a.vectors, b.vectors) or torch.allclose(a.vectors, b.vectors)
        for a, b in zip(result, expected, strict=True)
    )


def test_memory_that_is_never_enough_is_one_sentence():
    host = clip()
    narrow = Narrow(host.visual.transformer.resblocks[0], 1)
    with pytest.raises(ss.InputError, match="not enough memory for a single input: use"):
        ss.explain(ss.wrap(host), pixels(), tokens())
    assert narrow.refused
