"""Methods that read attention: against their formulas written out, with loops, in double precision."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secondsight as ss
from families import FAMILIES, photographs
from families.late_interaction import st_late_plain
from models import clip, pixels, tokens
from secondsight.methods.attention_maps import AttentiveInput
from secondsight.paths.recorded_attention import AttentionRecorder
from secondsight.support.guard import differentiable, untouched
from secondsight.testing import changed, snapshot

ATTENTION = [name for name, kind in ss.METHODS.items() if issubclass(kind, ss.methods.FirstOrder)]
CAPTION = "a dog and a cat"


def assert_close(found: Tensor, wanted: Tensor, relative: float = 1e-8) -> None:
    assert wanted.abs().max() > 0
    assert (found - wanted).abs().max() <= relative * wanted.abs().max()


# The oracle: a tower of standard blocks, run head by head -------------------------------------------------------------


@dataclass
class Tower:
    """The parts of a tower of blocks with norms first, whatever library they come from.

    `start` (position, width) are the states that enter the first block, `finish` maps one position's state to the embedding.
    """

    start: Tensor
    blocks: list[Any]
    heads: int
    pool: int
    finish: Any
    causal: bool = False

    def attend(self, x: Tensor, block: Any) -> dict[str, Any]:
        """Queries, keys, values, and every head's probabilities, as leaves or parts of the graph."""
        q, k, v = block.project(block.norm1(x))
        width = q.shape[1] // self.heads
        probabilities, outputs = [], []
        for head in range(self.heads):
            at = slice(head * width, (head + 1) * width)
            scores = q[:, at] @ k[:, at].T / width**0.5
            if self.causal:
                scores = scores + torch.full_like(scores, -torch.inf).triu(1)
            probabilities.append(scores.softmax(1).requires_grad_())
            outputs.append(probabilities[-1] @ v[:, at])
        output = torch.cat(outputs, 1)
        y = x + block.out(output)
        return {"q": q, "k": k, "v": v, "A": probabilities, "o": output, "y": y + block.mlp(block.norm2(y))}

    def run(self) -> list[dict[str, Any]]:
        """What every block computes."""
        x, computed = self.start, []
        for block in self.blocks:
            computed.append(self.attend(x, block))
            x = computed[-1]["y"]
        return computed


@dataclass
class Block:
    norm1: Any
    project: Any
    out: Any
    norm2: Any
    mlp: Any


def open_clip_block(block: nn.Module) -> Block:
    weights = zip(block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3), strict=True)
    linear = [(w.detach(), b.detach()) for w, b in weights]
    return Block(
        block.ln_1, lambda x: [F.linear(x, w, b) for w, b in linear], block.attn.out_proj, block.ln_2, block.mlp
    )


def hub_block(layer: nn.Module) -> Block:
    attention = layer.self_attn
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    return Block(
        layer.layer_norm1, lambda x: [part(x) for part in parts], attention.out_proj, layer.layer_norm2, layer.mlp
    )


def entering(module: nn.Module, run: Any) -> Tensor:
    """The first argument of a module while the host runs."""
    kept = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: kept.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    with torch.no_grad():
        run()
    handle.remove()
    return kept[0][0].detach()


def open_clip_towers(host: nn.Module, image: Tensor, text: Tensor) -> tuple[Tower, Tower]:
    visual, blocks = host.visual, host.transformer.resblocks
    end = int(text[0].argmax())
    return (
        Tower(
            entering(visual.transformer.resblocks[0], lambda: host.encode_image(image)),
            [open_clip_block(block) for block in visual.transformer.resblocks],
            visual.transformer.resblocks[0].attn.num_heads,
            0,
            lambda y: visual.ln_post(y) @ visual.proj,
        ),
        Tower(
            entering(blocks[0], lambda: host.encode_text(text))[: end + 1],
            [open_clip_block(block) for block in blocks],
            blocks[0].attn.num_heads,
            end,
            lambda y: host.ln_final(y) @ host.text_projection,
            causal=True,
        ),
    )


def hub_towers(example: Any, image: Tensor, text: Tensor) -> tuple[Tower, Tower]:
    host = example.host
    vision, words = host.vision_model, host.text_model
    return (
        Tower(
            entering(vision.encoder.layers[0], lambda: host.get_image_features(image)),
            [hub_block(layer) for layer in vision.encoder.layers],
            host.config.vision_config.num_attention_heads,
            0,
            lambda y: host.visual_projection(vision.post_layernorm(y)),
        ),
        Tower(
            entering(words.encoder.layers[0], lambda: host.get_text_features(text)),
            [hub_block(layer) for layer in words.encoder.layers],
            host.config.text_config.num_attention_heads,
            text.shape[1] - 1,
            lambda y: host.text_projection(words.final_layer_norm(y)),
            causal=True,
        ),
    )


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
    assert e.about["order"] == 1
    assert [o.residual for o in e.outcomes] == [1, 1]
    assert e.converged


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


# The recorder ---------------------------------------------------------------------------------------------------------


def recorded(side: Any, tensor: Tensor) -> list:
    with untouched(side.encoder.module), differentiable(), torch.enable_grad(), AttentionRecorder() as recorder:
        side.encoder.features(tensor, side.encoder.depth - 1)
    return recorder.attentions


@pytest.mark.parametrize("family", ["hf-clip", "hf-siglip", "hf-chinese-clip", "st-mpnet-dense"])
def test_recorded_attention_is_what_the_host_gives_out(family):
    example = FAMILIES[family](torch.float32)
    host: Any = example.host[0].auto_model if family.startswith("st-") else example.host
    text = example.model.right.encoder.prepare(example.right[0]).tensor
    tower = getattr(host, "text_model", host)
    seen = recorded(example.model.right, text)
    for part in (host, tower):
        part.set_attn_implementation("eager")
    with torch.no_grad():
        given = tower(input_ids=text, attention_mask=torch.ones_like(text), output_attentions=True).attentions
    assert len(seen) == len(given)
    for attention, wanted in zip(seen, given, strict=True):
        assert_close(attention.probabilities.detach(), wanted, 1e-5)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("family", ["hf-clip", "hf-siglip"])
def test_fused_and_plain_attention_give_the_same_numbers(family, name):
    example = FAMILIES[family](torch.float32)
    fused = ss.explain(example.model, example.left[0], example.right[0], name)
    example.host.set_attn_implementation("eager")
    plain = ss.explain(example.model, example.left[0], example.right[0], name)
    assert_close(fused.matrix, plain.matrix, 1e-3)


def test_torchs_own_attention_is_written_out_with_its_masks():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False, False, False, False, True]])
    for options in ({}, {"attn_mask": later}, {"attn_mask": later, "key_padding_mask": padding}):
        wanted, weights = attention(x, x, x, average_attn_weights=False, **options)
        with AttentionRecorder() as recorder:
            found, found_weights = attention(x, x, x, average_attn_weights=False, **options)
            alone, nothing = attention(x, x, x, need_weights=False, **options)
        assert nothing is None
        assert_close(found, wanted, 1e-12)
        assert_close(alone, wanted, 1e-12)
        assert_close(found_weights, weights, 1e-12)
        assert_close(recorder.attentions[0].probabilities, weights, 1e-12)
    with torch.no_grad(), AttentionRecorder() as recorder:
        extended = nn.MultiheadAttention(12, 3, add_bias_kv=True, batch_first=True).double()
        extended(x, x, x)
    assert recorder.attentions == []


@pytest.mark.parametrize("frozen", [True, False])
def test_weights_get_no_gradients_and_may_be_frozen(frozen):
    host = clip().requires_grad_(not frozen)
    e = ss.explain(ss.wrap(host), pixels(), tokens(), "grad-eclip")
    assert e.matrix.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad != frozen for p in host.parameters())


@pytest.mark.parametrize("name", ATTENTION)
def test_scenes(name):
    e = ss.explain("scenes", photographs()[0], "a red cat left of a tree", name)
    assert e["cat"].shape == (12, 12)
    assert e.matrix.sum() > 0
