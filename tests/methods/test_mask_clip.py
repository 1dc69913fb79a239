"""MaskCLIP and its kin against loops over heads and positions, and what they have to do with other methods."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secondsight as ss
from families import FAMILIES, photographs
from families.pages import hf_colpali
from models import clip, pixels, small, tokens
from secondsight.evaluation.setting import settings
from secondsight.paths.tails import Step

CAPTION = "a dog and a cat"
VARIANTS = ("values", "identity", "clearclip", "sclip")


def softmax(scores: list[Tensor]) -> list[Tensor]:
    largest = max(scores)
    total = sum(math.exp(score - largest) for score in scores)
    return [math.exp(score - largest) / total for score in scores]


def attended(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Σ_j softmax(q_i·k_j/√d) v_j of every head, one position after the other."""
    size = queries.shape[1] // heads
    out = torch.zeros_like(values)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(values)):
            scores = [queries[i, part] @ keys[j, part] / math.sqrt(size) for j in range(len(values))]
            for j, weight in enumerate(softmax(scores)):
                out[i, part] += weight * values[j, part]
    return out


def mixed(variant: str, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    if variant == "clearclip":
        return attended(query, query, value, heads)
    if variant == "sclip":
        return attended(query, query, value, heads) + attended(key, key, value, heads)
    return value


def naive_open_clip(visual: nn.Module, image: Tensor, variant: str) -> Tensor:
    """Every position's vector, from the last block's own weights."""
    seen = []
    with torch.no_grad():
        handle = visual.transformer.resblocks[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
        visual(image)
        handle.remove()
        (x,) = seen
        block = visual.transformer.resblocks[-1]
        rows = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        query, key, value = rows.chunk(3, dim=-1)
        out = block.attn.out_proj(mixed(variant, query, key, value, block.attn.num_heads))
        if variant in ("identity", "sclip"):
            out = x + out
            out = out + block.mlp(block.ln_2(out))
        return F.normalize(visual.ln_post(out) @ visual.proj, dim=-1)


def vectors(side, raw, **options) -> Tensor:
    return ss.MaskClip(**options).contributions(side, [side.encoder.prepare(raw)])[0].vectors


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_vectors_of_an_open_clip_image_are_those_of_the_papers(variant):
    host = clip()
    model = ss.wrap(host)
    found = vectors(model.left, pixels(), variant=variant)
    assert torch.allclose(found, naive_open_clip(host.visual, pixels(), variant), atol=1e-8)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_vectors_of_a_transformers_clip_are_those_of_the_papers(variant):
    example = FAMILIES["hf-clip"](torch.float64)
    tower, block = example.host.vision_model, example.host.vision_model.encoder.layers[-1]
    prepared = example.model.image.encoder.prepare(example.left[0])
    with torch.no_grad():
        x = tower(prepared.tensor, output_hidden_states=True).hidden_states[-2][0]
        attention, normed = block.self_attn, block.layer_norm1(x)
        projected = [layer(normed) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
        out = attention.out_proj(mixed(variant, *projected, attention.num_heads))
        if variant in ("identity", "sclip"):
            out = x + out
            out = out + block.mlp(block.layer_norm2(out))
        expected = F.normalize(example.host.visual_projection(tower.post_layernorm(out)), dim=-1)
    found = ss.MaskClip(variant).contributions(example.model.image, [prepared])[0].vectors
    assert torch.allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize(("variant", "same"), [("clearclip", "values"), ("sclip", "identity")])
def test_the_tokens_of_a_text_are_never_mixed(variant, same):
    host = clip()
    model = ss.wrap(host)
    found = vectors(model.right, tokens(), variant=variant)
    assert torch.equal(found, vectors(model.right, tokens(), variant=same))
    block = host.transformer.resblocks[-1]
    x = model.right.encoder.features(tokens(), 2)[0].hidden
    with torch.no_grad():
        value = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)[:, 48:]
        out = block.attn.out_proj(value)
        if same == "identity":
            out = x + out
            out = out + block.mlp(block.ln_2(out))
        expected = F.normalize(host.ln_final(out) @ host.text_projection, dim=-1)
    assert torch.allclose(found, expected, atol=1e-8)


def test_a_block_with_norms_after_its_parts_keeps_them():
    """BERT: norm(norm(out(value(x)))) without the residuals and the feed-forward layer."""
    example = FAMILIES["st-minilm-mean"](torch.float64)
    side = example.model.left
    prepared = side.encoder.prepare(CAPTION)
    layer = example.host[0].auto_model.encoder.layer[-1]
    x = side.encoder.features(prepared.tensor, side.encoder.depth - 1)[0].hidden
    with torch.no_grad():
        attention = layer.attention
        out = attention.output.LayerNorm(attention.output.dense(attention.self.value(x)))
        expected = F.normalize(layer.output.LayerNorm(out), dim=-1)
    found = ss.MaskClip().contributions(side, [prepared])[0].vectors
    assert torch.allclose(found, expected, atol=1e-8)


FAMILIES_WITH_BLOCKS = {
    "hf-clip": True,
    "hf-blip": False,
    "hf-flava": False,
    "hf-joined-dinov2-roberta": False,
    "open-clip-timm-registers": True,
    "open-clip-average-pool": True,
    "open-clip-bert-text": False,
    "st-minilm-mean": False,
}
"""Whether the texts' attention is causal."""


@pytest.mark.parametrize("family", FAMILIES_WITH_BLOCKS)
def test_the_blocks_that_values_are_read_from_are_those_of_the_hosts(family):
    """With the model's own attention at every position, the description gives the output of the host's last block."""
    example = FAMILIES[family](torch.float64)
    for side, raw in ((example.model.left, example.left[0]), (example.model.right, example.right[0])):
        encoder = side.encoder
        prepared, last = encoder.prepare(raw), encoder.depth - 1
        with torch.no_grad():
            hidden, expected = (encoder.features(prepared.tensor, layer)[0].hidden for layer in (last, last + 1))
            block = encoder.attention_block(torch.float64)
            x = hidden if block.norm is None else value_of(block.norm, hidden)
            query, key, value = (
                layer(x).unflatten(-1, (block.heads, -1)) for layer in (block.query, block.key, block.value)
            )
            causal = side.kind == "text" and FAMILIES_WITH_BLOCKS[family]
            out = F.scaled_dot_product_attention(*(y.transpose(0, 1) for y in (query, key, value)), is_causal=causal)
            out = block.out(out.transpose(0, 1).flatten(1))
            out = hidden + (out if block.gain is None else out * block.gain)
        assert torch.allclose(value_of(block.tail, out), expected, atol=1e-8)


def value_of(step: Step, x: Tensor) -> Tensor:
    return step.linearise(x, torch.zeros_like(x))[0]


class ValuesOnly(nn.Module):
    """A block of attention whose positions see themselves, with or without its residuals and feed-forward layer."""

    def __init__(self, block: nn.Module, whole: bool) -> None:
        super().__init__()
        self.block, self.whole = block, whole

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        attention = self.block.attn
        value = F.linear(self.block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)[2]
        out = attention.out_proj(value)
        if not self.whole:
            return out
        return x + out + self.block.mlp(self.block.ln_2(x + out))


@pytest.mark.parametrize("variant", ["values", "identity"])
def test_the_values_are_the_token_embeddings_of_a_model_whose_last_attention_is_the_identity(variant):
    host = clip()
    changed = copy.deepcopy(host)
    changed.visual.transformer.resblocks[-1] = ValuesOnly(
        changed.visual.transformer.resblocks[-1], variant == "identity"
    )
    found = vectors(ss.wrap(host).left, pixels(), variant=variant)
    side = ss.wrap(changed).left
    expected = ss.TokenEmbeddings(unit=True).contributions(side, [side.encoder.prepare(pixels())])[0].vectors
    assert torch.allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("family", ["hf-siglip", "open-clip-resnet", "open-clip-coca"])
def test_at_an_attention_pool_the_values_are_the_token_embeddings(family):
    example = FAMILIES[family](torch.float64)
    side = example.model.image
    prepared = side.encoder.prepare(example.left[0])
    pairs = [m.contributions(side, [prepared])[0].vectors for m in (ss.MaskClip(), ss.TokenEmbeddings(unit=True))]
    assert torch.allclose(*pairs, atol=1e-8)
    assert torch.equal(pairs[0], ss.MaskClip("identity").contributions(side, [prepared])[0].vectors)


def test_at_a_resnets_pool_the_values_are_those_of_the_pool():
    example = FAMILIES["open-clip-resnet"](torch.float64)
    side = example.model.image
    prepared = side.encoder.prepare(example.left[0])
    pool, x = example.host.visual.attnpool, side.encoder.features(prepared.tensor, 4)[0].hidden
    expected = F.normalize(pool.c_proj(pool.v_proj(x)), dim=-1)
    assert torch.allclose(ss.MaskClip().contributions(side, [prepared])[0].vectors, expected, atol=1e-8)


def test_the_weighted_values_of_every_head_add_up_to_what_the_class_token_takes_in():
    """Per head: attention is not one weight a position where there are several heads."""
    host = clip()
    visual, side = host.visual, ss.wrap(host).left
    block = visual.transformer.resblocks[-1]
    x = side.encoder.features(pixels(), 2)[0].hidden
    with torch.no_grad():
        normed = block.ln_1(x)
        wanted, weights = block.attn(normed[None], normed[None], normed[None], average_attn_weights=False)
        description = side.encoder.attention_block(torch.float64)
        values = description.value(normed)
        total = block.attn.out_proj.bias.clone()
        size = values.shape[1] // block.attn.num_heads
        for head in range(block.attn.num_heads):
            part = slice(head * size, (head + 1) * size)
            for j in range(len(x)):
                total += weights[0, head, 0, j] * (block.attn.out_proj.weight[:, part] @ values[j, part])
    assert torch.allclose(total, wanted[0, 0], atol=1e-8)


# As a method of pairs ------------------------------------------------------------------------------------------------


def test_attributions_are_cosines_and_the_similarity_is_the_hosts():
    model = small()
    for variant in VARIANTS:
        e = ss.explain(model, photographs()[0], CAPTION, ss.MaskClip(variant))
        a = vectors(model.left, photographs()[0], variant=variant)
        b = vectors(model.right, CAPTION, variant=variant)
        assert torch.allclose(e.matrix, a @ b.T, atol=1e-10)
        assert e.matrix.abs().max() <= 1 + 1e-9
        usual = ss.explain(model, photographs()[0], CAPTION)
        assert e.similarity == pytest.approx(usual.similarity, abs=1e-9)


def test_a_texts_embedding_gives_the_published_map_of_a_prompt():
    model = small()
    method = ss.MaskClip(text="embedding")
    e = ss.explain(model, photographs()[0], CAPTION, method)
    prompt = F.normalize(model.text.embed([CAPTION])[0].double(), dim=-1)
    a = ss.MaskClip().contributions(model.left, [model.left.encoder.prepare(photographs()[0])])[0]
    whole = e.left_layout.view(a.vectors @ prompt)
    assert torch.allclose(e[CAPTION], whole, atol=1e-9)
    assert torch.allclose(e["dog"] * 5, whole, atol=1e-9)
    # Maps of one side are asked for with the phrase as a text of its own.
    assert method.order == e.order == 1
    assert ss.MaskClip().order == 2
    chosen = settings([("small", model)], [("prompts", method), ("tokens", ss.MaskClip())])
    assert [setting.phrases_alone for setting in chosen] == [True, False]
    assert not method.adds_up


def test_models_in_half_precision_are_read_in_single():
    host = clip(torch.float32)
    full, half = (vectors(ss.wrap(h).left, pixels(dtype=torch.float32)) for h in (host, copy.deepcopy(host).bfloat16()))
    assert half.dtype == torch.float32
    assert F.cosine_similarity(full, half, dim=-1).min() > 0.95


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("open-clip-convnext", {}, "this image encoder does not end in a block of attention.*: use token-embeddings"),
        ("hf-aimv2", {}, "this text encoder does not end in .*: use text='embedding' or token-embeddings"),
        ("hf-siglip", {"variant": "clearclip"}, "'clearclip' mixes positions .*: use variant='values'"),
        ("hf-clap", {"text": "embedding"}, "this audio encoder does not end in a block of attention"),
    ],
)
def test_models_without_such_values_are_refused(family, options, words):
    example = FAMILIES[family](torch.float32)
    with pytest.raises(ss.InputError, match=words):
        ss.explain(example.model, example.left[0], example.right[0], ss.MaskClip(**options))


def test_a_text_tower_that_is_not_known_may_give_its_embedding():
    example = FAMILIES["hf-aimv2"](torch.float64)
    e = ss.explain(example.model, example.left[0], example.right[0], ss.MaskClip(text="embedding"))
    assert torch.isfinite(e.matrix).all()


def test_late_interaction_is_refused():
    model = hf_colpali(torch.float32).model
    with pytest.raises(ss.InputError, match="late-interaction model .*: use token-embeddings"):
        ss.explain(model, "a cup", photographs()[0], ss.MaskClip())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"variant": "keys"}, "known: values, identity, clearclip, sclip"), ({"text": "all"}, "known: tokens, embedding")],
)
def test_options_that_are_not_known(options, words):
    with pytest.raises(ss.InputError, match=words):
        ss.MaskClip(**options)
