"""Every method: the same call everywhere, brute force on small games, the same numbers for the same seed."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.func import jacrev

import secondsight as ss
from families import FAMILIES, photographs
from models import small
from secondsight.methods.banzhaf import _smooth_kernels
from secondsight.methods.game import open_game
from secondsight.methods.mask_regression import all_masks, banzhaf_weights, bernoulli_masks, fit_masks
from secondsight.model import Side
from secondsight.testing import changed, snapshot

CAPTION = "a dog and a cat"
METHODS = {
    "integrated-jacobian": ss.IntegratedJacobian(),
    "waypoint-jacobian": ss.WaypointJacobian(waypoints=1, tol=1e-2),
    "jacobian-times-input": ss.JacobianTimesInput(),
    "grad-cam": ss.JacobianTimesInput(pool_gradients=True),
    "interaction-cam": ss.JacobianTimesInput(relu=True),
    "itsm-o": ss.TokenEmbeddings(),
    "itsm-h": ss.TokenEmbeddings(hidden=True),
    "occlusion": ss.Occlusion(),
    "banzhaf": ss.Banzhaf(budget=16),
    "shapley": ss.Shapley(orders=1),
    "ilime": ss.BilinearLime(samples=16, epochs=2),
    "ilime-closed": ss.BilinearLime(samples=16, solver="closed"),
    "ilime-factorised": ss.BilinearLime(samples=16, solver="factorised"),
}
# A method that is defined is tried, with its defaults where nothing else is said above.
METHODS |= {name: made() for name, made in ss.METHODS.items() if name not in {m.name for m in METHODS.values()}}


FIRST_ORDER = [name for name, method in METHODS.items() if method.order == 1]


@pytest.fixture(scope="module")
def model() -> ss.DualEncoder:
    return small()


# The same call everywhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ss.METHODS)
def test_what_lists_say_of_a_method(name):
    """Lists and the app show the first line of its docstring, so that is a sentence."""
    said = (ss.METHODS[name].__doc__ or "").strip().splitlines()[0]
    assert said.endswith((".", ":", ";", ",")) or len(said) > 60
    assert ss.METHODS[name].name == name


def shown(e: ss.Explanation) -> None:
    assert torch.isfinite(e.matrix).all()
    # First-order maps are cut off at zero, which may leave nothing of a random model's.
    assert e.matrix.abs().sum() > 0 or e.order == 1
    assert e.matrix.shape == (e.left_layout.size, e.right_layout.size)
    assert e.about["method"] in ss.METHODS
    assert math.isfinite(e.error)
    total = float(e.matrix.double().sum())
    assert e.terms.interaction == pytest.approx(total, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_one_call_for_open_clip(model, method):
    host = model.left.encoder.module
    before = snapshot(host)
    e = ss.explain(model, photographs()[0], CAPTION, method)
    assert changed(before, snapshot(host)) == []
    shown(e)
    assert e["dog"].shape == (4, 4)
    assert [w for w, _ in e.words] == CAPTION.split()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("family", ["st-minilm-mean", "hf-siglip", "open-clip-resnet", "hf-clap"])
def test_one_call_for_other_families(family, method):
    example = FAMILIES[family](torch.float64)
    # Sound has neither last hidden states of its own nor a blur.
    name = next(n for n, m in METHODS.items() if m is method)
    if family == "hf-clap" and name in {"itsm-o", "itsm-h", "waypoint-jacobian"}:
        with pytest.raises(ss.InputError, match="use IntegratedJacobian"):
            ss.explain(example.model, example.left[0], example.right[0], method)
        return
    # Their attention is in windows, or in the pool alone.
    if name in FIRST_ORDER and name != "grad-eclip" and family in ("hf-clap", "open-clip-resnet"):
        with pytest.raises(ss.InputError, match=r"method='grounded'"):
            ss.explain(example.model, example.left[0], example.right[0], method)
        return
    if family == "hf-clap" and name == "mask-clip":
        with pytest.raises(ss.InputError, match="use token-embeddings"):
            ss.explain(example.model, example.left[0], example.right[0], method)
        return
    shown(ss.explain(example.model, example.left[0], example.right[0], method))


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("integrated-jacobian", "waypoint-jacobian")])
def test_one_call_for_builtin(builtin, name):
    if name in FIRST_ORDER:
        # Convolutions have no attention.
        with pytest.raises(ss.InputError, match=r"method='grounded'"):
            ss.explain(builtin, photographs()[0], "a cup", METHODS[name])
        return
    if name == "mask-clip":
        # Convolutions have no values.
        with pytest.raises(ss.InputError, match="use token-embeddings"):
            ss.explain(builtin, photographs()[0], "a cup", METHODS[name])
        return
    shown(ss.explain(builtin, photographs()[0], "a cup", METHODS[name]))


def test_one_call_for_a_trained_sentence_encoder(builtin):
    text = builtin.pair("text", "text")
    for name, method in METHODS.items():
        e = ss.explain(text, "a dog runs", "a puppy sleeps", method)
        shown(e)
        assert e.left_layout.text == "a dog runs", name


# Brute force ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def games() -> tuple[ss.DualEncoder, list]:
    """Both sides as games of four players: four patches and four words, raw embeddings and unit ones."""
    model = small(16)
    inputs = [model.left.encoder.prepare(photographs()[0]), model.right.encoder.prepare("dog cat table spoon")]
    return model, inputs


def values_of(side: Side, prepared, normalize: str = "inside") -> torch.Tensor:
    g = open_game(side, prepared, "input", None, 0, normalize)
    assert g.players == 4
    return g.values(all_masks(4))


@pytest.mark.parametrize("normalize", ["inside", "outside"])
def test_the_whole_and_the_empty_game_are_input_and_reference(games, normalize):
    model, inputs = games
    for side, prepared in zip((model.left, model.right), inputs, strict=True):
        values = values_of(side, prepared, normalize)
        own = side.encoder.features(prepared.tensor, 2)[0]
        reference = side.encoder.reference(prepared, "mean" if side.kind == "image" else None, 0)
        other = side.encoder.reference_features(reference, 2, own.context)
        for row, state in ((15, own), (0, other)):
            wanted = state.embedding / state.embedding.norm() if normalize == "inside" else state.embedding
            assert torch.allclose(values[row], wanted, atol=1e-9)


def test_occlusion_banzhaf_and_shapley_equal_brute_force(games):
    model, inputs = games
    for side, prepared in zip((model.left, model.right), inputs, strict=True):
        values = values_of(side, prepared)
        subsets = [frozenset(s) for n in range(5) for s in itertools.combinations(range(4), n)]
        v = {s: values[sum(2**i for i in s)] for s in subsets}
        banzhaf, shapley, weighted, occluded = ([] for _ in range(4))
        p = 0.3
        for i in range(4):
            without = [s for s in subsets if i not in s]
            gains = {s: v[s | {i}] - v[s] for s in without}
            banzhaf.append(sum(gains.values()) / 8)
            weighted.append(sum(p ** len(s) * (1 - p) ** (3 - len(s)) * gains[s] for s in without))
            shapley.append(sum(gains[s] / (4 * math.comb(3, len(s))) for s in without))
            occluded.append(gains[frozenset(range(4)) - {i}])
        rows = side.contributions([prepared.tensor])[0].layout.visible[:4]
        for method, wanted in (
            (ss.Occlusion(), occluded),
            (ss.Banzhaf(budget=16), banzhaf),
            (ss.Banzhaf(p=p, budget=16), weighted),
        ):
            found = method.contributions(side, [prepared])[0]
            rows = found.layout.visible
            assert torch.allclose(found.vectors[rows], torch.stack(wanted), atol=1e-6), method
            assert found.vectors[list(found.layout.special)].abs().sum() == 0
        found = ss.Shapley(orders=300).contributions(side, [prepared])[0] if side.kind == "text" else None
        if found is not None:
            gap = (found.vectors[rows] - torch.stack(shapley)).abs().max()
            assert gap < 0.06 * torch.stack(shapley).abs().max()
        every = torch.stack([_order(v, order) for order in itertools.permutations(range(4))]).mean(0)
        assert torch.allclose(every, torch.stack(shapley), atol=1e-9)


def _order(v, order) -> torch.Tensor:
    out, before = torch.zeros(4, 16, dtype=torch.float64), frozenset()
    for i in order:
        out[i] = v[before | {i}] - v[before]
        before = before | {i}
    return out


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_the_joint_fit_of_a_pair_is_the_product_of_the_sides_fits(games, p):
    """FIxLIP's weighted least squares on all pairs of masks, by brute force: intercept, both sides' terms, interactions."""
    model, inputs = games
    e = ss.Banzhaf(p=p, budget=16).interactions(model.left, model.right, inputs[0], inputs[1:])[0]
    g, h = values_of(model.left, inputs[0]), values_of(model.right, inputs[1])
    masks = all_masks(4).double()
    weights = banzhaf_weights(all_masks(4), p)
    rows, y, w = [], [], []
    for i, j in itertools.product(range(16), range(16)):
        za, zb = masks[i], masks[j]
        rows.append(torch.cat([torch.ones(1, dtype=torch.float64), za, zb, torch.outer(za, zb).flatten()]))
        y.append(g[i] @ h[j])
        w.append(weights[i] * weights[j])
    x, y, root = torch.stack(rows), torch.stack(y), torch.stack(w).sqrt()
    solution = torch.linalg.lstsq(x * root[:, None], (y * root)[:, None], driver="gelsd").solution[:, 0]
    a, b = e.left_layout.visible, e.right_layout.visible
    assert e.base == pytest.approx(float(solution[0]), abs=1e-6)
    assert torch.allclose(e.left_effects[a], solution[1:5], atol=1e-6)
    assert torch.allclose(e.right_effects[b], solution[5:9], atol=1e-6)
    assert torch.allclose(e.matrix[a][:, b], solution[9:].reshape(4, 4), atol=1e-6)


def test_the_errors_of_sampled_pairs_are_of_their_spread_over_seeds():
    """The jackknife's errors lie above the spread, as leaving out masks does where there are few, and not far above."""
    side = small().left
    (prepared,) = side.prepare(photographs()[:1])
    method = {"budget": 60, "pairs": 3, "prior": False, "smooth": False, "ridge": 1e-9}
    made = [ss.Banzhaf(**method, seed=seed).contributions(side, [prepared])[0] for seed in range(16)]
    vectors, players = torch.stack([c.vectors for c in made]), made[0].layout.visible
    assert all(c.deviations.shape == (8, *c.vectors.shape) for c in made)
    spread = vectors[:, players].var(0).sum(-1).sqrt().mean()
    told = torch.stack([c.deviations.square().sum((0, 2)) for c in made]).sqrt().mean(0)
    assert 0.4 < float(spread / told[players].mean()) < 1.1
    # Features of pairs have theirs, and positions that always stay have none.
    assert bool((told[-3:] > 0).all())
    assert float(told[0]) == 0


def test_shapiq_agrees_on_a_small_game(games):
    shapiq = pytest.importorskip("shapiq", reason="the package shapiq is the oracle here")
    model, inputs = games
    g, h = values_of(model.left, inputs[0]), values_of(model.right, inputs[1])

    def similarity(coalitions):
        x = torch.as_tensor(coalitions).long()
        bits = 2 ** torch.arange(4)
        return (g[(x[:, :4] * bits).sum(1)] * h[(x[:, 4:] * bits).sum(1)]).sum(-1).numpy()

    exact = shapiq.ExactComputer(n_players=8, game=similarity)
    found = exact(index="BII", order=2)
    e = ss.Banzhaf(budget=16).interactions(model.left, model.right, inputs[0], inputs[1:])[0]
    a, b = e.left_layout.visible, e.right_layout.visible
    # A Banzhaf interaction of one player of each side is what both together add on average: U_i · V_j.
    for i, j in itertools.product(range(4), range(4)):
        assert float(found[(i, 4 + j)]) == pytest.approx(float(e.matrix[a[i], b[j]]), abs=1e-6)


def test_pairs_within_an_input_complete_the_fit(games):
    model, inputs = games
    side, prepared = model.left, inputs[0]
    c = ss.Banzhaf(budget=16, pairs=6).contributions(side, [prepared])[0]
    values = values_of(side, prepared)
    masks = all_masks(4).double()
    products = [masks[:, i] * masks[:, j] for i, j in itertools.combinations(range(4), 2)]
    x = torch.cat([torch.ones(16, 1, dtype=torch.float64), masks, torch.stack(products, 1)], 1)
    solution = torch.linalg.lstsq(x, values).solution
    assert torch.allclose(c.reference_embedding, solution[0], atol=1e-6)
    assert torch.allclose(c.vectors[c.layout.visible], solution[1:5], atol=1e-6)
    names = {name: i for i, name in c.layout.special.items() if name.startswith("pair")}
    assert len(names) == 6
    for k, (i, j) in enumerate(itertools.combinations(range(4), 2)):
        row = names[f"pair {c.layout.visible[i]},{c.layout.visible[j]}"]
        assert torch.allclose(c.vectors[row], solution[5 + k], atol=1e-6)
    plain = ss.Banzhaf(budget=16).contributions(side, [prepared])[0]
    assert c.relative_residual < plain.relative_residual
    assert (c @ c).matrix.shape == (c.layout.size,) * 2


# Known relations -----------------------------------------------------------------------------------------------------


def test_jacobian_times_input_is_one_node_with_a_zero_reference(model):
    """[M25] App. G, against whole Jacobians."""
    for side, raw in ((model.left, photographs()[0]), (model.right, CAPTION)):
        prepared = side.encoder.prepare(raw)
        state = side.encoder.features(prepared.tensor, 1)[0]
        head = side.encoder.head(1, state.context, torch.float64)
        jacobian = jacrev(lambda x, head=head: head(x[None])[0])(state.hidden)
        c = ss.JacobianTimesInput(layer=1).contributions(side, [prepared])[0]
        assert torch.allclose(c.vectors, torch.einsum("kpd,pd->pk", jacobian, state.hidden), atol=1e-10)
        pooled = ss.JacobianTimesInput(layer=1, pool_gradients=True).contributions(side, [prepared])[0]
        assert torch.allclose(pooled.vectors, state.hidden @ jacobian.mean(1).T, atol=1e-10)
        assert c.reference_embedding.abs().sum() == 0
    e = ss.explain(model, photographs()[0], CAPTION, ss.JacobianTimesInput(layer=1))
    cut = ss.explain(model, photographs()[0], CAPTION, ss.JacobianTimesInput(layer=1, relu=True))
    assert torch.equal(cut.matrix, e.matrix.clamp(min=0))


def test_on_a_linear_model_all_exact_methods_coincide():
    torch.manual_seed(0)
    towers = [nn.Linear(5, 7, bias=False).double() for _ in range(2)]

    class Mean(nn.Module):
        def __init__(self, tower):
            super().__init__()
            self.tower = tower

        def forward(self, x):
            return self.tower(x).mean(1)

    def encoder(tower):
        return ss.TorchEncoder(features=nn.Identity(), head=Mean(tower), kind="features", reference=torch.zeros_like)

    dual = ss.DualEncoder(encoder(towers[0]), encoder(towers[1]), cosine=False)
    a, b = torch.randn(1, 6, 5, dtype=torch.float64), torch.randn(1, 4, 5, dtype=torch.float64)
    wanted = towers[0](a[0]) @ towers[1](b[0]).T / 24
    outside = dict(layer=0, normalize="outside")
    for method in (
        ss.IntegratedJacobian(layer=0),
        ss.JacobianTimesInput(layer=0),
        ss.Occlusion(**outside),
        ss.Shapley(orders=1, **outside),
        ss.Banzhaf(budget=64, **outside),
        ss.Banzhaf(budget=20, ridge=0.0, **outside),
    ):
        e = ss.explain(dual, a, b, method)
        assert torch.allclose(e.matrix, wanted, atol=1e-9), method
        assert e.error < 1e-9


def test_grad_cam_and_gradient_times_input_are_those_of_autograd():
    example = FAMILIES["open-clip-resnet"](torch.float64)
    host, model = example.host, example.model
    image = model.left.encoder.prepare(example.left[0])
    with torch.no_grad():
        other = host.encode_text(model.right.encoder.prepare(example.right[0]).tensor)[0]
    kept = []
    handle = host.visual.layer4.register_forward_pre_hook(lambda _, args: kept.append(args[0].retain_grad() or args[0]))
    g = host.encode_image(image.tensor.double().requires_grad_(True))[0]
    handle.remove()
    (g @ other / g.norm().detach() / other.norm()).backward()
    activations, gradients = kept[0][0], kept[0].grad[0]
    right = model.right.contributions([example.right[0]])[0]
    for pooled, wanted in (
        (False, (activations * gradients).sum(0)),
        (True, (activations * gradients.mean((1, 2), keepdim=True)).sum(0)),
    ):
        method = ss.JacobianTimesInput(layer=3, pool_gradients=pooled)
        left = method.contributions(model.left, [image])[0]
        assert torch.allclose(left.layout.view(left.first_order(right)), wanted.detach(), atol=1e-9)


@pytest.mark.parametrize("layer", ["input", 1, -1])
def test_bent_paths_add_up_and_differ_from_the_straight_one(model, layer):
    straight = ss.IntegratedJacobian(layer=layer, tol=1e-4)
    bent = ss.WaypointJacobian(layer=layer, tol=1e-4, waypoints=2)
    for side, raw in ((model.left, photographs()[0]), (model.right, CAPTION)):
        prepared = side.encoder.prepare(raw)
        a, b = straight.contributions(side, [prepared])[0], bent.contributions(side, [prepared])[0]
        assert torch.allclose(a.embedding, b.embedding)
        assert torch.allclose(a.reference_embedding, b.reference_embedding)
        assert b.relative_residual < 5e-4
        assert (a.vectors - b.vectors).norm() > 1e-2 * a.vectors.norm()


def test_token_embeddings_of_known_towers(model):
    host = model.left.encoder.module
    prepared = model.left.encoder.prepare(photographs()[0])
    kept = []
    handle = host.transformer.register_forward_hook(lambda _, __, out: kept.append(out))
    with torch.no_grad():
        host(prepared.tensor)
    handle.remove()
    wanted = host.ln_post(kept[0][0]) @ host.proj
    c = ss.TokenEmbeddings().contributions(model.left, [prepared])[0]
    assert torch.allclose(c.vectors, wanted, atol=1e-10)
    # The class token's is the model's own embedding.
    assert torch.allclose(c.vectors[0], c.embedding, atol=1e-10)
    hidden = model.left.encoder.features(prepared.tensor, 2)[0].hidden
    c = ss.TokenEmbeddings(hidden=True).contributions(model.left, [prepared])[0]
    assert torch.allclose(c.vectors, host.ln_post(hidden) @ host.proj, atol=1e-10)
    e = ss.explain(model, photographs()[0], CAPTION, ss.TokenEmbeddings(unit=True))
    assert e.matrix.abs().max() <= 1 + 1e-9
    # Means pool a token to itself; SigLIP's attention pool reads its value.
    text = FAMILIES["st-minilm-mean"](torch.float64).model.right
    c = ss.TokenEmbeddings().contributions(text, text.prepare([CAPTION]))[0]
    assert torch.allclose(c.vectors.mean(0), c.embedding, atol=1e-9)


@dataclass(frozen=True)
class Samples:
    """Bilinear LIME's samples of a pair of four patches and four words, by loops."""

    z: tuple[torch.Tensor, torch.Tensor]
    similarities: torch.Tensor
    weights: torch.Tensor


@pytest.fixture(scope="module")
def samples(games) -> Samples:
    """[M25] Eq. 17-19, one masked input after the other, through the host itself."""
    model, inputs = games
    masks = [bernoulli_masks(4, 200, 0.7, k) for k in range(2)]
    similarities, weights = [], []
    whole = [side.embed([raw.tensor])[0].double() for side, raw in zip((model.left, model.right), inputs, strict=True)]
    ids, words = inputs[1].tensor, list(model.right.contributions([inputs[1].tensor])[0].layout.visible)
    padding = model.right.encoder.reference(inputs[1], "padding", 0)
    for i in range(200):
        pixels, caption = inputs[0].tensor.clone(), ids.clone()
        for patch in range(4):
            if not masks[0][i, patch]:
                y, x = 8 * (patch // 2), 8 * (patch % 2)
                for colour in range(3):
                    pixels[0, colour, y : y + 8, x : x + 8] = inputs[0].tensor[0, colour].mean()
        for number, position in enumerate(words):
            if not masks[1][i, number]:
                caption[0, position] = padding[0, position]
        a, b = model.left.embed([pixels])[0].double(), model.right.embed([caption])[0].double()
        similarities.append(a @ b / (a.norm() * b.norm()))
        cosines = [whole[0] @ a / (whole[0].norm() * a.norm()), whole[1] @ b / (whole[1].norm() * b.norm())]
        weights.append((cosines[0] + cosines[1]) / 2)
    weights = torch.stack(weights)
    assert weights.min() > 0
    z = masks[0].double() / 2, masks[1].double() / 2
    return Samples(z, torch.stack(similarities), weights)


def fitted_lime(games, **options) -> tuple[torch.Tensor, float]:
    """W of scaled masks, and c."""
    model, inputs = games
    e = ss.BilinearLime(samples=200, **options).interactions(model.left, model.right, inputs[0], inputs[1:])[0]
    return e.matrix[e.left_layout.visible][:, e.right_layout.visible] * 4, e.base


def test_the_closed_form_of_bilinear_lime_is_the_minimum_of_the_papers_objective(games, samples):
    w, c = fitted_lime(games, solver="closed", decay=1e-4)

    def objective(w: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        total = 1e-4 * w.square().sum()
        for za, zb, s, weight in zip(*samples.z, samples.similarities, samples.weights, strict=True):
            total = total + weight * (za @ w @ zb + c - s) ** 2 / samples.weights.sum()
        return total

    w, c = w.requires_grad_(), torch.tensor(c, dtype=torch.float64, requires_grad=True)
    objective(w, c).backward()
    assert w.grad.abs().max() < 1e-8
    assert c.grad.abs() < 1e-8


def test_bilinear_lime_descends_as_torch_does(games, samples):
    w, c = torch.zeros(4, 4, dtype=torch.float64, requires_grad=True), samples.similarities.mean().requires_grad_()
    optimizer = torch.optim.SGD([{"params": [w], "weight_decay": 1e-3}, {"params": [c]}], lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for batch in torch.randperm(200, generator=generator).split(32):
            optimizer.zero_grad()
            errors = [
                samples.weights[i] * (samples.z[0][i] @ w @ samples.z[1][i] + c - samples.similarities[i]) ** 2
                for i in batch
            ]
            torch.stack(errors).mean().backward()
            optimizer.step()
    matrix, base = fitted_lime(games, epochs=2)
    assert torch.allclose(matrix, w.detach(), atol=1e-10)
    assert base == pytest.approx(float(c.detach()), abs=1e-10)


def test_descent_of_bilinear_lime_approaches_its_closed_form(games):
    closed, _ = fitted_lime(games, solver="closed", decay=1e-4)
    descended, _ = fitted_lime(games, solver="sgd", lr=0.2, epochs=1500, decay=1e-4)
    together = torch.stack([closed.flatten(), descended.flatten()])
    assert torch.corrcoef(together)[0, 1] > 0.98


def test_bilinear_lime_may_weigh_by_masks(games):
    by_masks, by_embeddings = (
        fitted_lime(games, solver="closed", closeness=closeness)[0] for closeness in ("masks", "embeddings")
    )
    assert (by_masks - by_embeddings).norm() > 1e-3 * by_embeddings.norm()


# Randomness, errors, budgets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["banzhaf", "shapley", "ilime", "waypoint-jacobian"])
def test_a_seed_decides(model, name):
    made = []
    for seed in (0, 0, 7):
        method = type(METHODS[name])(**{**METHODS[name].__dict__, "seed": seed})
        made.append(ss.explain(model, photographs()[0], CAPTION, method).matrix)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    "make", [lambda s: ss.Banzhaf(budget=96, ridge=1e-6, seed=s), lambda s: ss.Shapley(orders=4, seed=s)]
)
def test_standard_errors_are_what_repetition_shows(model, make):
    prepared = [model.left.encoder.prepare(photographs()[0]), model.right.encoder.prepare(CAPTION)]
    runs = [make(seed).interactions(model.left, model.right, prepared[0], prepared[1:])[0] for seed in range(12)]
    spread = torch.stack([e.matrix for e in runs]).std(0)
    claimed = torch.stack([e.standard_errors for e in runs]).square().mean(0).sqrt()
    a, b = runs[0].left_layout.visible, runs[0].right_layout.visible
    ratio = claimed[a][:, b].mean() / spread[a][:, b].mean()
    assert 0.6 < ratio < 1.7, float(ratio)


def test_what_is_spent_is_told(model):
    prepared = model.left.encoder.prepare(photographs()[0])
    players = 16
    for method, most in (
        (ss.Occlusion(), players + 3),
        (ss.Banzhaf(budget=40), 41),
        (ss.Banzhaf(), 2 * players + 1),
        (ss.Shapley(orders=2), 4 * (players - 1) + 3),
        (ss.Shapley(budget=60), 60 + 3),
    ):
        c = method.contributions(model.left, [prepared])[0]
        assert players < c.about["encodings"] <= most, method
    assert ss.TokenEmbeddings().contributions(model.left, [prepared])[0].about["encodings"] == 1
    assert ss.JacobianTimesInput().contributions(model.left, [prepared])[0].about["passes"] == 16


def test_a_tolerance_stops_when_it_is_met_and_a_prior_helps(model):
    prepared = model.left.encoder.prepare(photographs()[0])
    loose, tight = (ss.Banzhaf(budget=2000, tol=t).contributions(model.left, [prepared])[0].about for t in (0.5, 0.05))
    assert loose["masks"] < tight["masks"] <= 2000
    assert loose["standard_error"] <= 0.5
    exact = ss.Banzhaf(budget=4000, ridge=0.0).contributions(model.left, [prepared])[0].vectors
    errors = [
        float((ss.Banzhaf(budget=8, prior=prior).contributions(model.left, [prepared])[0].vectors - exact).norm())
        for prior in (None, ss.Occlusion())
    ]
    assert errors[1] < errors[0]
    with pytest.raises(ss.InputError, match="the prior's features are not those of the masks"):
        ss.Banzhaf(prior=ss.IntegratedJacobian(layer="input", steps=1)).contributions(model.left, [prepared])


def test_what_is_known_before_masks_is_used_and_told(model):
    photo = model.left.encoder.prepare(photographs()[0])
    c = ss.Banzhaf(budget=16).contributions(model.left, [photo])[0]
    assert c.about["prior"]["method"] == "integrated-jacobian"
    assert c.about["prior"]["scale"] >= 0
    for off in (ss.Banzhaf(budget=16, prior=False, smooth=False), ss.Banzhaf(budget=16, ridge=0.0)):
        about = off.contributions(model.left, [photo])[0].about
        assert "prior" not in about
        assert "smooth" not in about
    # A guess stands on the same ground as the masks: the reference that absent features take.
    path = ss.IntegratedJacobian(reference="mean", normalize="inside", steps=8)
    given = ss.Banzhaf(budget=16, prior=path).contributions(model.left, [photo])[0]
    assert torch.equal(given.vectors, c.vectors)


def test_results_of_sampling_are_kept(model, tmp_path):
    c = ss.Banzhaf(budget=32).contributions(model.left, [model.left.encoder.prepare(photographs()[0])])[0]
    e = ss.explain(model, photographs()[0], CAPTION, ss.Banzhaf(budget=32))
    assert torch.allclose(e.T.standard_errors, e.standard_errors.T)
    for ending in ("json", "npz"):
        c.save(tmp_path / f"c.{ending}")
        assert torch.equal(ss.Contributions.load(tmp_path / f"c.{ending}").deviations, c.deviations)
        e.save(tmp_path / f"e.{ending}")
        assert torch.equal(ss.Interactions.load(tmp_path / f"e.{ending}").standard_errors, e.standard_errors)
    texts = model.right.contributions([CAPTION, "coffee"], ss.Banzhaf(budget=32))
    margin = c @ (texts[0] - texts[1])
    single = c @ texts[0]
    assert torch.allclose(margin.standard_errors[:, : single.matrix.shape[1]], single.standard_errors, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ss.Banzhaf(p=0), "must be a probability"),
        (lambda: ss.Banzhaf(budget=2), "must be at least 4"),
        (lambda: ss.Banzhaf(tol=0), "tol=.* must be positive"),
        (lambda: ss.Banzhaf(ridge=-1), "must be zero or positive"),
        (lambda: ss.Banzhaf(pairs=-1), "must not be negative"),
        (lambda: ss.Shapley(orders=0), "at least 1"),
        (lambda: ss.BilinearLime(drop=1), "must be a probability"),
        (lambda: ss.BilinearLime(solver="magic"), "known: sgd, closed, factorised"),
        (lambda: ss.BilinearLime(samples=0), "must be positive"),
        (lambda: ss.BilinearLime(closeness="width"), "known: embeddings, masks"),
        (lambda: ss.WaypointJacobian(waypoints=0), "at least 1"),
        (lambda: ss.WaypointJacobian(strategy="paired"), "straight path"),
        (lambda: ss.Occlusion(normalize="none"), "known: outside, inside"),
        (lambda: ss.methods.method_named("occlusion", steps=3), "has no option 'steps'; it has layer, reference"),
    ],
)
def test_options_that_make_no_sense(make, words):
    with pytest.raises(ss.InputError, match=words):
        make()


# The regression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 60])
@pytest.mark.parametrize("ridge", [1e-2, 1.0])
def test_the_fit_is_the_penalised_least_squares_solution(count, ridge):
    generator = torch.Generator().manual_seed(0)
    x = bernoulli_masks(20, count, 0.4, 0).double()
    y = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    w = torch.rand(count, generator=generator, dtype=torch.float64)
    prior = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    y = y + x @ prior
    found = fit_masks(x, y, ridge=ridge, weights=w, prior=prior, groups=0)
    w = w / w.sum()
    centred = (x - w @ x) * w.sqrt()[:, None]
    unit = float((centred**2).sum()) / 20
    full = torch.cat([x, torch.ones(count, 1, dtype=torch.float64)], 1)
    penalty = ridge * unit * torch.diag(torch.tensor([1.0] * 20 + [0.0], dtype=torch.float64))
    assert found.scale > 0
    drawn = torch.cat([found.scale * prior, torch.zeros(1, 3, dtype=torch.float64)])
    target = full.T @ (w[:, None] * y) + penalty @ drawn
    solution = torch.linalg.solve(full.T @ (w[:, None] * full) + penalty, target)
    assert torch.allclose(found.effects, solution[:20], atol=1e-9)
    assert torch.allclose(found.intercept, solution[20], atol=1e-9)


@pytest.mark.parametrize("count", [12, 60])
def test_cross_validation_chooses_ridge_and_scale_together(count):
    generator = torch.Generator().manual_seed(3)
    x = bernoulli_masks(20, count, 0.5, 0).double()
    truth = torch.randn(20, 4, generator=generator, dtype=torch.float64)
    prior = truth / 3 + 0.1 * torch.randn(20, 4, generator=generator, dtype=torch.float64)
    y = x @ truth + torch.randn(count, 4, generator=generator, dtype=torch.float64)
    found = fit_masks(x, y, prior=prior, groups=0)

    def score(ridge, scale):
        """Generalised cross-validation by its definition: the hat matrix and its trace."""
        centred, target = x - x.mean(0), (y - scale * x @ prior) - (y - scale * x @ prior).mean(0)
        gram = centred.T @ centred / count
        unit = float(gram.trace()) / 20
        hat = centred @ torch.linalg.solve(gram + ridge * unit * torch.eye(20, dtype=torch.float64), centred.T) / count
        return float((target - hat @ target).square().sum()) / (1 - (float(hat.trace()) + 2) / count) ** 2

    best = score(found.ridge, found.scale)
    assert 1 < found.scale < 4
    for ridge in torch.logspace(-6, 3, 46, dtype=torch.float64).tolist():
        for scale in (0.5, 1.0, 2.0, found.scale * 0.98, found.scale, found.scale * 1.02):
            assert best <= score(ridge, scale) * (1 + 1e-6)


def test_a_prior_against_the_values_is_not_followed():
    x = bernoulli_masks(20, 60, 0.5, 0).double()
    truth = torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = fit_masks(x, x @ truth, prior=-truth, groups=0)
    assert found.scale == 0
    assert torch.allclose(found.effects, truth, atol=1e-3)


def test_neighbours_help_where_effects_are_smooth():
    layout = ss.GridLayout(64, {}, (8, 8), (64, 64), (0.0, 0.0, 64.0, 64.0))
    kernels = _smooth_kernels(layout)
    generator = torch.Generator().manual_seed(0)
    smooth = torch.linalg.cholesky(kernels[2]) @ torch.randn(64, 5, generator=generator, dtype=torch.float64)
    rough = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    x = bernoulli_masks(64, 48, 0.5, 0).double()
    errors = {}
    for name, truth in (("smooth", smooth), ("rough", rough)):
        alone, helped = fit_masks(x, x @ truth, groups=0), fit_masks(x, x @ truth, kernels=kernels, groups=0)
        errors[name] = [float((found.effects - truth).norm() / truth.norm()) for found in (alone, helped)]
        assert (helped.kernel > 0) == (name == "smooth")
    assert errors["smooth"][1] < 0.85 * errors["smooth"][0]
    assert errors["rough"][1] == errors["rough"][0]


def test_masks_are_antithetic_and_have_the_wanted_share():
    for p in (0.5, 0.3, 0.8):
        masks = bernoulli_masks(50, 2000, p, seed=1)
        assert float(masks.double().mean()) == pytest.approx(p, abs=0.01)
        pairs = masks.reshape(1000, 2, 50).double()
        together = ((pairs[:, 0] - p) * (pairs[:, 1] - p)).mean()
        assert together < 0
        assert torch.equal(masks, bernoulli_masks(50, 2000, p, seed=1))
    assert torch.equal(bernoulli_masks(9, 4, 0.5, 0)[0], ~bernoulli_masks(9, 4, 0.5, 0)[1])
    assert len(bernoulli_masks(5, 7, 0.5, 0)) == 7
