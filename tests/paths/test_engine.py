"""Every fast path is the naive formula; every explanation adds up."""

import itertools
import warnings

import pytest
import torch

import secondsight as ss
from models import clip, mlp_mixer, naive, pixels, resnet, tokens
from secondsight.paths.line import LinePath
from secondsight.paths.quadrature import rule
from secondsight.support.guard import differentiable, untouched

VARIANTS = {
    "vit": dict(),
    "quick-gelu": dict(quick_gelu=True),
    "layer-scale": dict(vision={"ls_init_value": 0.5}, text={"ls_init_value": 0.5}),
    "average-pool": dict(vision={"pool_type": "avg", "final_ln_after_pool": True}),
    "no-ln-pre": dict(vision={"no_ln_pre": True}),
    "bidirectional-last": dict(text={"no_causal_mask": True, "pool_type": "last"}),
    "first": dict(text={"no_causal_mask": True, "pool_type": "first"}),
}


def model_of(name: str, dtype: torch.dtype = torch.float64) -> ss.DualEncoder:
    if name == "resnet":
        return ss.wrap(resnet(dtype))
    if name == "mixer":
        mean, std = (0.5,) * 3, (0.25,) * 3
        image = ss.TorchEncoder(mlp_mixer(dtype), ["blocks.0", "blocks.1"], mean=mean, std=std, grid=(3, 3))
        return ss.DualEncoder(image, ss.wrap(clip(dtype)).right.encoder)
    return ss.wrap(clip(dtype, **VARIANTS[name]))


def inputs_of(name: str, dtype: torch.dtype = torch.float64):
    return pixels({"resnet": 64, "mixer": 24}.get(name, 32), dtype), tokens()


pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")

MODELS = [*VARIANTS, "resnet", "mixer"]
CASES = [
    (name, side, layer)
    for name, side in itertools.product(MODELS, (0, 1))
    for layer in ((-1, 1, 0) if name in ("vit", "resnet") else (-1, 0))
    if not (name in ("resnet", "mixer") and side == 1)
]


@pytest.mark.parametrize(("name", "index", "layer"), CASES)
def test_every_strategy_is_the_naive_formula_in_float64(name, index, layer):
    model = model_of(name)
    side, value = (model.left, model.right)[index], inputs_of(name)[index]
    encoder = side.encoder
    prepared = encoder.prepare(value)
    with untouched(encoder.module), differentiable():
        state = encoder.features(prepared.tensor, encoder.resolve(layer))[0]
        reference = encoder.reference_features(
            encoder.reference(prepared, None, 0), encoder.resolve(layer), state.context
        )
        head = encoder.head(encoder.resolve(layer), state.context, torch.float64)
        r = rule("gauss-legendre", 5)
        oracle = naive(head, reference.hidden, state.hidden, r.nodes, r.weights)
    tried = ["forward", "reverse"]
    if encoder.closed_form(encoder.resolve(layer), state.context, torch.float64) is not None:
        tried.append("pooled")
    for strategy in tried:
        method = ss.IntegratedJacobian(layer=layer, steps=5, strategy=strategy, kinks="pointwise")
        vectors = side.contributions([value], method)[0].vectors
        assert float((vectors - oracle).abs().max() / oracle.abs().max()) < 1e-10, strategy


def test_the_closed_form_exists_where_it_is_promised():
    found = {}
    for name in MODELS:
        model = model_of(name)
        for side, value in zip((model.left, model.right), inputs_of(name), strict=True):
            encoder = side.encoder
            last = encoder.depth - 1
            with untouched(encoder.module):
                context = encoder.features(encoder.prepare(value).tensor, last)[0].context
            found[name, side.kind] = encoder.closed_form(last, context, torch.float64) is not None
    assert not found.pop(("average-pool", "image"))
    assert not found.pop(("mixer", "image"))
    assert all(found.values()), found


@pytest.mark.parametrize("layer", [-1, 1])
@pytest.mark.parametrize("name", MODELS)
def test_a_pair_by_pulling_back_is_the_product_of_vectors(name, layer):
    model, (image, text) = model_of(name), inputs_of(name)
    options = dict(layer=layer, steps=4)
    whole = ss.explain(model, image, text, ss.IntegratedJacobian(**options, strategy="forward"))
    pair = ss.explain(model, image, text, ss.IntegratedJacobian(**options, strategy="paired"))
    size = float(whole.matrix.abs().max())
    columns = [pair[[j]] for j in range(whole.matrix.shape[1])]  # lazily, before the matrix is made
    region = pair.toward_right(slice(None))
    assert float((pair.matrix - whole.matrix).abs().max()) < 1e-10 * size
    assert torch.allclose(
        torch.stack(columns), torch.stack([whole[[j]] for j in range(len(columns))]), atol=1e-10 * size
    )
    assert torch.allclose(region, whole.matrix.sum(0), atol=1e-9 * size)
    assert torch.allclose(pair.left_effects, whole.left_effects, atol=1e-10)
    assert torch.allclose(pair.right_effects, whole.right_effects, atol=1e-10)
    assert pair.terms.total == pytest.approx(whole.terms.total, abs=1e-10)


@pytest.mark.parametrize("normalize", ["outside", "inside"])
@pytest.mark.parametrize("layer", [-1, 1, 0])
@pytest.mark.parametrize("name", MODELS)
def test_the_four_terms_add_up_to_the_host_similarity(name, layer, normalize):
    model, (image, text) = model_of(name, torch.float32), inputs_of(name, torch.float32)
    method = ss.IntegratedJacobian(layer=layer, tol=1e-6, max_steps=512, normalize=normalize)
    with warnings.catch_warnings():
        # Rounding in float32 may keep the residual just above this tolerance; the sum is what counts here.
        warnings.simplefilter("ignore", ss.ConvergenceWarning)
        e = ss.explain(model, image, text, method)
    host = torch.nn.functional.cosine_similarity(
        *(s.embed(v) for s, v in zip((model.left, model.right), (image, text), strict=True))
    )
    assert abs(e.similarity - float(host)) < 1e-6
    assert abs(float(host) - e.terms.total) < 1e-5
    assert e.error == pytest.approx(abs(e.similarity - e.terms.total))


@pytest.mark.parametrize("quadrature", ["gauss-legendre", "clenshaw-curtis", "gauss-kronrod", "trapezoid", "riemann"])
def test_contributions_sum_to_the_embedding_difference_by_every_quadrature(quadrature):
    model = ss.wrap(clip())
    tol = 1e-3 if quadrature in ("trapezoid", "riemann") else 1e-8
    method = ss.IntegratedJacobian(quadrature=quadrature, tol=tol, max_steps=4096)
    for side, value in zip((model.left, model.right), inputs_of("vit"), strict=True):
        c = side.contributions([value], method)[0]
        assert c.relative_residual <= tol * 1.001
        assert c.relative_residual == pytest.approx(c.about["residual"], rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("name", ["resnet", "builtin"])
def test_averaged_slopes_converge_to_the_integral_of_pointwise_ones(name, request):
    if name == "builtin":
        model, image = request.getfixturevalue("builtin"), torch.rand(1, 3, 64, 64) * 2 - 1
        layer = -1
    else:
        model, image, layer = ss.wrap(resnet(torch.float32)), pixels(64, torch.float32), 2
    side = model.left

    def vectors(**options):
        return side.contributions([image], ss.IntegratedJacobian(layer=layer, **options))[0].vectors

    truth = vectors(steps=2000, kinks="pointwise")
    size = float(truth.norm())

    def error(steps: int, kinks: str) -> float:
        return float((vectors(steps=steps, kinks=kinks) - truth).norm()) / size

    averaged, pointwise, finer = error(16, "average"), error(16, "pointwise"), error(64, "average")
    assert averaged < 0.06
    assert finer < averaged / 2
    # A small ResNet's error is mostly that of its smooth attention pool; in the piecewise linear tower kinks are all.
    assert averaged < (pointwise / 2.5 if name == "builtin" else pointwise)


def test_a_cap_that_is_hit_warns_with_the_reached_residual():
    model = ss.wrap(clip())
    with pytest.warns(ss.ConvergenceWarning, match=r"relative residual .* with 4 nodes"):
        c = model.left.contributions(pixels(), ss.IntegratedJacobian(layer=0, tol=1e-9, max_steps=4))[0]
    assert c.about["steps"] == 4


def test_a_batch_equals_one_by_one():
    model = ss.wrap(clip())
    images = torch.cat([pixels(seed=s) for s in range(5)])
    texts = torch.cat([tokens(5, 6), tokens(7, 8, 9, 10), tokens(11)])
    for side, batch in ((model.left, images), (model.right, texts)):
        together = side.contributions(batch)
        for one, row in zip(together, batch.split(1), strict=True):
            assert torch.allclose(one.vectors, side.contributions(row)[0].vectors, atol=1e-12)


def test_positions_behind_the_end_of_a_caption_do_not_matter():
    model = ss.wrap(clip())
    short, padded = tokens(length=7), tokens(length=12)
    behind = padded.clone()
    behind[0, 8:] = 9
    a, b = (model.right.contributions(v)[0] for v in (padded, behind))
    assert torch.equal(a.vectors, b.vectors)
    assert len(a) == short.shape[1]


def test_half_precision_models_are_decomposed_in_float32():
    model = ss.wrap(clip(torch.bfloat16))
    e = ss.explain(model, pixels(dtype=torch.bfloat16), tokens(), ss.IntegratedJacobian(tol=1e-4))
    assert e.matrix.dtype == torch.float32
    assert e.error < 1e-3
    assert next(model.left.encoder.module.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(quadrature="simpson"), "gauss-legendre, clenshaw-curtis"),
        (dict(strategy="magic"), "auto, pooled"),
        (dict(normalize="no"), "outside, inside"),
        (dict(steps=0), "at least 1"),
        (dict(quadrature="gauss-kronrod", steps=7), "multiple of 15"),
        (dict(tol=0.0), "positive"),
        (dict(layer=9), "blocks 0 … 2"),
        (dict(layer=(1, 2, 3)), "pair"),
        (dict(layer=0, strategy="pooled"), "closed form"),
        (dict(reference="white"), "black, mean, noise, blur"),
        (dict(reference=("white", None)), "black, mean, noise, blur"),
        (dict(reference=(None, "zeros")), "padding, empty"),
        (dict(reference=(torch.zeros(1, 3, 8, 8), None)), "input's shape"),
    ],
)
def test_bad_options_are_named_with_the_remedy(options, words):
    with pytest.raises(ss.InputError, match=words):
        ss.explain(ss.wrap(clip()), pixels(), tokens(), ss.IntegratedJacobian(**options))


@pytest.mark.parametrize("reference", ["black", "mean", "noise", "blur", "local-mean"])
def test_image_references(reference):
    model = ss.wrap(clip())
    method = ss.IntegratedJacobian(reference=(reference, None), tol=1e-6)
    c = model.left.contributions(pixels(), method)[0]
    assert c.relative_residual < 1e-6


def test_the_noise_reference_is_its_seed():
    model = ss.wrap(clip())
    one, same, other = (
        model.left.contributions(pixels(), ss.IntegratedJacobian(reference="noise", seed=s, steps=4))[0].vectors
        for s in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_text_references_keep_start_and_end():
    encoder = ss.wrap(clip()).right.encoder
    prepared = encoder.prepare(tokens())
    assert encoder.reference(prepared, None, 0).tolist() == [[62, 0, 0, 0, 0, 0, 63, 0, 0, 0, 0, 0]]
    assert encoder.reference(prepared, "empty", 0).tolist() == [[62, 63] + [0] * 10]


def test_black_means_black_pixels():
    image = ss.TorchEncoder(mlp_mixer(), "blocks.0", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), grid=(3, 3))
    black = image.reference(image.prepare(pixels(24)), None, 0)
    assert torch.allclose(black[0, :, 0, 0], torch.tensor([-2.5, -2.0, -3.0], dtype=torch.float64))


def test_reference_states_follow_changed_weights():
    host = clip()
    model = ss.wrap(host)
    before = ss.explain(model, pixels(), tokens())
    with torch.no_grad():
        host.visual.conv1.weight.mul_(-1.5)
    after, fresh = ss.explain(model, pixels(), tokens()), ss.explain(ss.wrap(host), pixels(), tokens())
    assert torch.equal(after.matrix, fresh.matrix)
    assert not torch.allclose(after.matrix, before.matrix)


def test_fixed_nodes_warn_where_the_error_is_large_against_the_interaction():
    model = ss.wrap(clip())
    with pytest.warns(ss.ConvergenceWarning, match="fixed number of nodes leaves an error of .* use more steps"):
        rough = ss.explain(model, pixels(), tokens(), ss.IntegratedJacobian(layer=0, steps=1))
    assert rough.error > 0.1 * abs(rough.terms.interaction)
    assert not rough.converged
    with warnings.catch_warnings():
        warnings.simplefilter("error", ss.ConvergenceWarning)
        fine = ss.explain(model, pixels(), tokens(), ss.IntegratedJacobian(steps=16))
    assert fine.converged
    assert fine.outcomes[0].tolerance is None
    assert fine.outcomes[0].nodes == 16


def test_a_missed_tolerance_is_in_the_value():
    model = ss.wrap(clip())
    with pytest.warns(ss.ConvergenceWarning, match="misses tol=1e-06; raise max_steps or tol"):
        e = ss.explain(model, pixels(), tokens(), ss.IntegratedJacobian(layer=0, tol=1e-6, max_steps=4))
    assert not e.converged
    assert [outcome.converged for outcome in e.outcomes] == [False, False]
    assert e.outcomes[0].residual == pytest.approx(e.left_contributions.relative_residual, rel=1e-6)
    assert e.T.outcomes == e.outcomes[::-1]


def test_tolerances_below_the_precision_are_capped_or_refused():
    model = ss.wrap(clip().float())
    with pytest.warns(
        ss.ConvergenceWarning, match="float32 sums reach about 2e-07: raise tol, or use the model in float64"
    ):
        e = ss.explain(model, pixels().float(), tokens(), ss.IntegratedJacobian(tol=1e-12))
    assert e.outcomes[0].tolerance == 2 * torch.finfo(torch.float32).eps
    assert max(outcome.nodes for outcome in e.outcomes) < 64
    with pytest.raises(ss.InputError, match="below what double precision can reach: use at least 1e-15"):
        ss.IntegratedJacobian(tol=1e-30)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_short_text_against_a_long_one_costs_the_same_in_either_order(order, monkeypatch):
    model = ss.wrap(clip()).pair("text", "text")
    texts = tokens(3), tokens(3, 9, 4, 7, 5, 2, 8, 6, 1)
    pulled = []
    original = LinePath.pull

    def recorded(path, rule, directions):
        pulled.append((path.positions, len(directions)))
        return original(path, rule, directions)

    monkeypatch.setattr(LinePath, "pull", recorded)
    a, b = texts[order[0]], texts[order[1]]
    e = ss.explain(model, a, b, ss.IntegratedJacobian(layer=0, steps=4))
    forward = ss.explain(model, a, b, ss.IntegratedJacobian(layer=0, steps=4, strategy="forward"))
    assert torch.allclose(e.matrix, forward.matrix, atol=1e-12)
    short, long = (ss.wrap(clip()).right.contributions([text])[0].layout.size for text in texts)
    # The long text's effects against the reference, then its attributions to every token of the short one.
    assert {positions for positions, _ in pulled} == {long}
    assert sum(rows for _, rows in pulled) <= short + 1
