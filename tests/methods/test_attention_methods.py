"""Methods that read attention: against their formulas written out, with loops, in double precision."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import secondsight as ss
from families import FAMILIES
from models import clip, pixels, tokens
from secondsight.methods.attention_maps import AttentionMethod, AttentiveInput
from secondsight.support.guard import untouched
from secondsight.testing import changed, snapshot
from towers import Tower, assert_close, entering, hub_block, hub_towers, open_clip_towers

ATTENTION = [name for name, kind in ss.METHODS.items() if issubclass(kind, AttentionMethod)]


@pytest.fixture(scope="module", params=["open_clip", "transformers"])
def pair(request) -> tuple[ss.DualEncoder, Any, Any, tuple[Tower, Tower]]:
    """A model, its prepared inputs, and the oracle's towers of these."""
    if request.param == "open_clip":
        host = clip()
        model, image, text = ss.wrap(host), pixels(), tokens()
        return model, image, text, open_clip_towers(host, image, text)
    example = FAMILIES["hf-clip"](torch.float64)
    image = example.model.left.encoder.prepare(example.left[0]).tensor.double()
    text = example.model.right.encoder.prepare(example.right[0]).tensor
    return example.model, image, text, hub_towers(example, image, text)


def embeddings(towers: tuple[Tower, Tower]) -> list[tuple[list[dict[str, Any]], Tensor]]:
    runs = [tower.run() for tower in towers]
    return [(run, tower.finish(run[-1]["y"][tower.pool])) for run, tower in zip(runs, towers, strict=True)]


def compare(e: ss.Explanation, wanted: list[Tensor]) -> None:
    """A pair's map and shares are the oracle's, without special positions."""
    image, text = (
        w.detach().clamp(min=0) * layout.indicator(layout.visible)
        for w, layout in zip(wanted, (e.left_layout, e.right_layout), strict=True)
    )
    assert_close(e.toward_left(None), image)
    assert_close(e.T.toward_left(None), text / text.sum() * image.sum())


def test_the_oracle_is_the_host(pair):
    model, image, text, towers = pair
    (_, a), (_, b) = embeddings(towers)
    e = ss.explain(model, image, text, "grad-eclip")
    assert e.similarity == pytest.approx(float(torch.cosine_similarity(a, b, dim=0).detach()), abs=1e-10)


# Grad-ECLIP -----------------------------------------------------------------------------------------------------------


def grad_eclip(tower: Tower, run: list, similarity: Tensor, layers: int, compared: list[int]) -> Tensor:
    """H_i = ReLU(Σ_c w_c λ_i v_ic), position by position."""
    size = len(tower.start)
    total = torch.zeros(size, dtype=torch.float64)
    for computed in run[-layers:]:
        w = torch.autograd.grad(similarity, computed["o"], retain_graph=True)[0][tower.pool]
        q, k, v = (computed[name].detach() for name in "qkv")
        cosines = [float(q[tower.pool] @ k[i] / q[tower.pool].norm() / k[i].norm()) for i in range(size)]
        lowest, highest = min(cosines[i] for i in compared), max(cosines[i] for i in compared)
        for i in range(size):
            total[i] += (cosines[i] - lowest) / (highest - lowest) * float(w @ v[i])
    return total.clamp(min=0)


@pytest.mark.parametrize("layers", [1, 2])
def test_grad_eclip_is_its_formula(pair, layers):
    model, image, text, towers = pair
    (left, a), (right, b) = embeddings(towers)
    similarity = torch.cosine_similarity(a, b, dim=0)
    e = ss.explain(model, image, text, ss.GradEclip(layers=layers))
    patches, all_tokens = e.left_layout.visible, list(range(e.right_layout.size))
    compare(
        e,
        [
            grad_eclip(towers[0], left, similarity, layers, patches),
            grad_eclip(towers[1], right, similarity, layers, all_tokens),
        ],
    )


def encoded(method: ss.Method, side: Any, tensor: Tensor) -> AttentiveInput:
    with untouched(side.encoder.module), torch.enable_grad():
        return method.encode(side, side.encoder.prepare(tensor))


def test_grad_eclip_with_the_softmax_is_gradient_times_attention_output(pair):
    """Σ_i Σ_c w_c A_i v_ic = w · o: the loosened weights are all that sets the two apart."""
    model, image, text, _ = pair
    method = ss.GradEclip(spatial="softmax")
    for side, tensor, other in ((model.left, image, text), (model.right, text, image)):
        partner = (model.right if side is model.left else model.left).embed_prepared(
            [(model.right if side is model.left else model.left).encoder.prepare(other)]
        )[0]
        seen = encoded(method, side, tensor)
        with torch.enable_grad():
            terms = method.terms(seen, partner)
            output = seen.attentions[-1].output
            gradient = torch.autograd.grad(seen.similarity(partner), output, retain_graph=True)[0]
        assert float(terms.sum()) == pytest.approx(float((gradient * output).sum()), rel=1e-9)


# Rollout, relevance, LeGrad -------------------------------------------------------------------------------------------


def mean_head(matrices: list[Tensor]) -> Tensor:
    return torch.stack(list(matrices)).mean(0)


def rollout(tower: Tower, run: list, start: int) -> Tensor:
    """Row of the pooled position in Â_L … Â_start, Â = ½ A + ½ I."""
    eye = torch.eye(len(tower.start), dtype=torch.float64)
    product = eye
    for computed in run[start:]:
        product = (0.5 * mean_head([A.detach() for A in computed["A"]]) + 0.5 * eye) @ product
    return product[tower.pool]


def relevance(tower: Tower, run: list, similarity: Tensor, start: int, scale: float) -> Tensor:
    """R ← R + Ā R with Ā the mean over heads of (∇A ⊙ A)⁺; the pooled row without its own identity."""
    total = torch.eye(len(tower.start), dtype=torch.float64)
    for computed in run[start:]:
        slopes = torch.autograd.grad(scale * similarity, computed["A"], retain_graph=True)
        bar = mean_head([(slope * A.detach()).clamp(min=0) for slope, A in zip(slopes, computed["A"], strict=True)])
        total = total + bar @ total
    row = total[tower.pool].clone()
    row[tower.pool] -= 1
    return row


def legrad(tower: Tower, run: list, partner: Tensor, start: int, pooled: str) -> Tensor:
    """Σ_l mean over heads and queries of (∂s_l / ∂A_l)⁺."""
    total = torch.zeros(len(tower.start), dtype=torch.float64)
    for computed in run[start:]:
        state = computed["y"].mean(0) if pooled == "mean" else computed["y"][tower.pool]
        similarity = torch.cosine_similarity(tower.finish(state), partner.detach(), dim=0)
        slopes = torch.autograd.grad(similarity, computed["A"], retain_graph=True)
        total += mean_head([slope.clamp(min=0) for slope in slopes]).mean(0)
    return total


@pytest.mark.parametrize("start", [0, -2])
def test_rollout_is_its_formula(pair, start):
    model, image, text, towers = pair
    runs = [tower.run() for tower in towers]
    e = ss.explain(model, image, text, ss.AttentionRollout(start=start))
    compare(e, [rollout(tower, run, start) for tower, run in zip(towers, runs, strict=True)])


@pytest.mark.parametrize(("start", "scale"), [(0, 1.0), (0, 100.0), (-1, 1.0)])
def test_relevance_is_its_formula(pair, start, scale):
    model, image, text, towers = pair
    (left, a), (right, b) = embeddings(towers)
    similarity = torch.cosine_similarity(a, b, dim=0)
    e = ss.explain(model, image, text, ss.AttentionRelevance(start=start, scale=scale))
    compare(e, [relevance(towers[k], run, similarity, start, scale) for k, run in enumerate((left, right))])


@pytest.mark.parametrize("pooled", ["mean", "model"])
@pytest.mark.parametrize("start", [0, -1])
def test_legrad_is_its_formula(pair, start, pooled):
    model, image, text, towers = pair
    (left, a), (right, b) = embeddings(towers)
    e = ss.explain(model, image, text, ss.LeGrad(start=start, pooled=pooled))
    compare(e, [legrad(towers[0], left, b, start, pooled), legrad(towers[1], right, a, start, pooled)])


def test_attention_pools_are_read_at_their_query():
    """SigLIP's pool, whose query is learned: by the host's own parts."""
    example = FAMILIES["hf-siglip"](torch.float64)
    vision = example.host.vision_model
    image = example.model.left.encoder.prepare(example.left[0]).tensor.double()
    text = example.model.right.encoder.prepare(example.right[0]).tensor
    partner = example.model.right.embed_prepared(example.model.right.prepare([example.right[0]]))[0]
    layers, head = vision.encoder.layers, vision.head
    tower = Tower(
        entering(layers[0], lambda: example.host.get_image_features(image)),
        [hub_block(layer) for layer in layers],
        example.host.config.vision_config.num_attention_heads,
        0,
        None,
    )
    run = tower.run()
    weights = zip(head.attention.in_proj_weight.chunk(3), head.attention.in_proj_bias.chunk(3), strict=True)
    (wq, bq), (wk, bk), (wv, bv) = weights

    def pool(states: Tensor) -> dict[str, Any]:
        x = vision.post_layernorm(states)
        q, k, v = F.linear(head.probe[0], wq, bq), F.linear(x, wk, bk), F.linear(x, wv, bv)
        width = q.shape[1] // tower.heads
        at = [slice(h * width, (h + 1) * width) for h in range(tower.heads)]
        probabilities = [(q[:, part] @ k[:, part].T / width**0.5).softmax(1) for part in at]
        output = torch.cat([A @ v[:, part] for A, part in zip(probabilities, at, strict=True)], 1)
        y = head.attention.out_proj(output)
        return {
            "q": q, "k": k, "v": v, "A": probabilities, "o": output, "e": (y + head.mlp(head.layernorm(y)))[0]
        }  # fmt: skip

    last = pool(run[-1]["y"])
    similarity = torch.cosine_similarity(last["e"], partner, dim=0)
    patches = list(range(len(tower.start)))
    bars = []
    for computed in (*run, last):
        slopes = torch.autograd.grad(similarity, computed["A"], retain_graph=True)
        bars.append(mean_head([(g * A.detach()).clamp(min=0) for g, A in zip(slopes, computed["A"], strict=True)]))
    product = torch.eye(len(patches), dtype=torch.float64)
    carried = product
    sensitivity = torch.zeros(len(patches), dtype=torch.float64)
    for computed, bar in zip(run, bars[:-1], strict=True):
        product = product + bar @ product
        carried = (mean_head([A.detach() for A in computed["A"]]) + torch.eye(len(patches))) / 2 @ carried
        pooled = pool(computed["y"])
        alike = torch.cosine_similarity(pooled["e"], partner, dim=0)
        slopes = torch.autograd.grad(alike, pooled["A"], retain_graph=True)
        sensitivity += mean_head([slope.clamp(min=0) for slope in slopes])[0]
    wanted = {
        "grad-eclip": grad_eclip(tower, [last], similarity, 1, patches),
        "attention-relevance": (bars[-1] @ product)[0],
        "attention-rollout": (mean_head([A.detach() for A in last["A"]]) @ carried)[0],
        "legrad": sensitivity,
    }
    assert set(wanted) == set(ATTENTION)
    for name, values in wanted.items():
        e = ss.explain(example.model, image, text, name)
        assert_close(e.toward_left(None), values.detach().clamp(min=0))


def test_means_of_positions_are_read_at_all_rows():
    example = FAMILIES["open-clip-average-pool"](torch.float64)
    image = example.model.left.encoder.prepare(example.left[0])
    seen = encoded(ss.AttentionRollout(), example.model.left, image.tensor)
    # The class token is not part of this mean.
    assert seen.pooled_rows == list(range(1, seen.layout.size))
    product = torch.eye(seen.layout.size, dtype=torch.float64)
    for attention in seen.attentions:
        product = (attention.probabilities.detach()[0].mean(0) + torch.eye(seen.layout.size)) / 2 @ product
    e = ss.explain(example.model, example.left[0], example.right[0], "attention-rollout")
    assert_close(e.toward_left(None)[1:], product[1:, 1:].mean(0))


# Relations ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def single_head() -> tuple[ss.DualEncoder, Tensor, Tensor]:
    return ss.wrap(clip(vision={"head_width": 32}, text={"heads": 1})), pixels(), tokens()


def test_rollout_of_the_last_block_is_half_its_attention(pair):
    model, image, text, _ = pair
    e = ss.explain(model, image, text, ss.AttentionRollout(start=-1))
    seen = encoded(ss.AttentionRollout(), model.left, image)
    row = seen.attentions[-1].probabilities.detach()[0, :, 0].mean(0)
    assert_close(e.toward_left(None)[1:], row[1:] / 2)


def test_relevance_of_the_last_block_is_grad_eclip_with_the_softmax(single_head):
    """∂s/∂A_i = w · v_i, so that one head's (∇A ⊙ A)⁺ is ReLU(Σ_c w_c A_i v_ic)."""
    relevance = ss.explain(*single_head, ss.AttentionRelevance(start=-1))
    eclip = ss.explain(*single_head, ss.GradEclip(spatial="softmax"))
    assert_close(relevance.matrix, eclip.matrix)


def test_legrad_of_the_last_block_is_grad_eclip_without_spatial_weights(single_head):
    """(∂s/∂A_i)⁺ = ReLU(w · v_i), in the mean over all queries, of which only the pooled one counts."""
    legrad = ss.explain(*single_head, ss.LeGrad(start=-1, pooled="model"))
    eclip = ss.explain(*single_head, ss.GradEclip(spatial="none"))
    assert_close(legrad.matrix * legrad.left_layout.size, eclip.matrix)


def test_rollout_knows_nothing_of_its_partner_and_the_others_do():
    model = ss.wrap(clip())
    for name in ATTENTION:
        first, second = (
            ss.explain(model, pixels(), tokens(*ids), name).toward_left(None) for ids in ((5, 17), (40, 3))
        )
        assert torch.allclose(first, second, atol=1e-12) == (name == "attention-rollout")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ss.GradEclip(layers=0), "must be at least 1"),
        (lambda: ss.GradEclip(spatial="magic"), "known: cosine, softmax, none"),
        (lambda: ss.AttentionRelevance(scale=0), "must be positive"),
        (lambda: ss.LeGrad(pooled="max"), "known: mean, model"),
        (lambda: ss.explain(ss.wrap(clip()), pixels(), tokens(), ss.GradEclip(layers=4)), "more than the 3 blocks"),
        (lambda: ss.explain(ss.wrap(clip()), pixels(), tokens(), ss.LeGrad(start=3)), "not one of the 3 blocks"),
        (lambda: ss.explain(ss.wrap(clip()), pixels(), tokens(), ss.AttentionRollout(start=-4)), "not one of the 3"),
    ],
)
def test_options_that_make_no_sense(make, words):
    with pytest.raises(ss.InputError, match=words):
        make()


# First order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTENTION)
def test_a_pair_is_the_left_map_times_the_right_maps_shares(pair, name):
    model, image, text, _ = pair
    before = snapshot(model.left.encoder.module)
    e = ss.explain(model, image, text, name)
    assert changed(before, snapshot(model.left.encoder.module)) == []
    assert ss.METHODS[name].order == 1
    assert not ss.METHODS[name].adds_up
    assert int(torch.linalg.matrix_rank(e.matrix)) == 1
    assert (e.matrix >= 0).all()
    # Any selection scales the one map.
    whole, strongest = e.toward_left(None), int(e.toward_right(None).argmax())
    part = e.toward_left([strongest])
    assert_close(part, whole * float(part.sum() / whole.sum()), 1e-12)
    # Special positions have nothing, and no term is given.
    assert e.special_share() == (0, 0)
    assert e.terms.base == e.terms.left == e.terms.right == 0
    assert e.error == pytest.approx(abs(e.similarity - float(whole.sum())))
    assert e.order == 1
    assert [o.residual for o in e.outcomes] == [1, 1]
    assert e.converged
