"""Models as people have them: mixed precision, checkpointing, slow tokenizers, swapped weights, odd containers."""

import numpy as np
import open_clip
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer
from torch import nn

import secondsight as ss
from families import CAPTIONS, FAMILIES, photographs
from models import clip, pixels, tokens
from pages import unpacked
from secondsight.encoders.families.transformers import encoders as hub
from secondsight.encoders.loading import loading_error
from secondsight.inputs import offsets, texts
from secondsight.inputs.audio import open_audio
from secondsight.testing import changed, check_encoder, snapshot
from secondsight.visual.page_data import page_data

pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layer", [-1, 0, "input"])
def test_open_clips_own_mixed_precision(dtype, layer):
    host = clip(torch.float32)
    open_clip.model.convert_weights_to_lp(host, dtype)
    assert len({p.dtype for p in host.parameters()}) == 2
    method = ss.IntegratedJacobian(layer=layer, steps=4)
    image = pixels(dtype=torch.float32)
    model = ss.wrap(host)
    g = model.right.embed([tokens()])[0]
    c = method.contributions(model.right, [model.right.encoder.prepare(tokens())])[0]
    assert torch.cosine_similarity(c.embedding.float(), g.float(), dim=0) > 0.999
    if layer != "input" or dtype == torch.bfloat16:
        e = ss.explain(model, image, tokens(), method)
        assert torch.isfinite(e.matrix).all()


@pytest.mark.parametrize(
    "name", ["open-clip-vit", "open-clip-timm-registers", "open-clip-eva", "open-clip-coca", "hf-clip"]
)
def test_gradient_checkpointing_is_switched_off_and_on_again(name):
    example = FAMILIES[name](torch.float64)
    expected = ss.explain(
        example.model, example.left[0], example.right[0], ss.IntegratedJacobian(layer=0, steps=3)
    ).matrix
    switch = getattr(example.host, "set_grad_checkpointing", None) or example.host.gradient_checkpointing_enable
    switch()
    before = [{**vars(m), "_forward_hooks": dict(m._forward_hooks)} for m in example.host.modules()]
    matrix = ss.explain(
        example.model, example.left[0], example.right[0], ss.IntegratedJacobian(layer=0, steps=3)
    ).matrix
    assert torch.allclose(matrix, expected, atol=1e-10)
    after = [dict(vars(m)) for m in example.host.modules()]
    for a, b in zip(before, after, strict=True):
        for flag in ("grad_checkpointing", "gradient_checkpointing"):
            assert a.get(flag) == b.get(flag)
    assert any(a.get("grad_checkpointing") or a.get("gradient_checkpointing") for a in after)


def test_stereo_integers_are_scaled_like_mono_ones():
    mono = (np.sin(np.arange(800)) * 20000).astype(np.int16)
    stereo = np.stack([mono, mono], 1)
    assert np.allclose(open_audio(mono, 8000), open_audio(stereo, 8000))
    assert np.abs(open_audio(stereo, 8000)).max() < 1


def test_containers_of_inputs():
    example = FAMILIES["hf-clip"](torch.float64)
    side, tokenizer = example.model.right, example.parts[1]
    embeddings = side.embed(CAPTIONS)
    encoding = tokenizer(CAPTIONS, return_tensors="pt", padding=True)
    assert torch.allclose(side.embed(encoding), embeddings, atol=1e-9)
    ids = tokenizer(CAPTIONS[0], return_tensors="pt")["input_ids"]
    assert torch.allclose(side.embed(ids[0]), embeddings[:1], atol=1e-9)
    assert torch.allclose(side.embed(ids), embeddings[:1], atol=1e-9)
    for wrong in (np.zeros((50, 40, 3)), "a dog", 7):
        with pytest.raises(ss.InputError, match="give a list"):
            example.model.left.contributions(wrong)


def test_padding_that_a_model_reads_is_kept():
    example = FAMILIES["hf-siglip"](torch.float64)
    side, tokenizer = example.model.right, example.parts[1]
    length = example.host.config.text_config.max_position_embeddings
    encoding = tokenizer([CAPTIONS[1]], return_tensors="pt", padding="max_length", max_length=length)
    assert "attention_mask" in encoding
    assert torch.allclose(side.embed(encoding), side.embed([CAPTIONS[1]]), atol=1e-9)


def test_slow_tokenizers_know_where_their_tokens_lie():
    slow = transformers.ByT5Tokenizer()
    assert not slow.is_fast
    tokens_ = texts.HubTokens(slow, vocabulary=400, context=64)
    text = "a naïve dog, 2×"
    layout = tokens_.prepare(text).tokenized.layout(len(slow(text)["input_ids"]))
    assert [text[s:e] for s, e in filter(None, layout.offsets)][:2] == ["a", "n"]
    covered = {i for o in layout.offsets if o for i in range(*o)}
    assert covered == {i for i, c in enumerate(text) if not c.isspace()}
    assert [w.text for w in layout.words] == ["a", "naïve", "dog", ",", "2", "×"]
    weights = layout.select("dog")
    assert "".join(layout.tokens[i] for i in weights.nonzero().flatten().tolist()) == "dog"
    spelled = offsets.spelled_offsets("A cat, sat", ["▁a", "▁cat", "▁s", "at", "</s>"], {4: "end"})
    assert spelled == ((0, 1), (2, 5), (7, 8), (8, 10), None)


def test_weights_that_change_are_seen():
    host = clip(torch.float64)
    model = ss.wrap(host)
    first = ss.explain(model, pixels(), tokens(), scale="logit")
    assert first.terms.total == pytest.approx(first.similarity, abs=0.1)
    with torch.no_grad():
        host.logit_scale += 1
    assert model.logit_scale == pytest.approx(float(host.logit_scale.exp()))
    second = clip(torch.float64, seed=3)
    for p, q in zip(host.parameters(), second.parameters(), strict=True):
        p.data.copy_(q.data)
    expected = ss.explain(ss.wrap(second), pixels(), tokens()).matrix
    assert torch.allclose(ss.explain(model, pixels(), tokens()).matrix, expected, atol=1e-12)


def test_a_dot_product_of_cut_unit_vectors():
    example = FAMILIES["st-minilm-mean"](torch.float64)
    host = SentenceTransformer(modules=list(example.host), device="cpu", truncate_dim=7, similarity_fn_name="dot")
    model = ss.wrap(host.eval())
    e = ss.explain(model, *CAPTIONS)
    a, b = host.encode(CAPTIONS, convert_to_tensor=True)
    assert not model.cosine
    assert e.similarity == pytest.approx(float(a @ b), abs=1e-6)
    assert e.error < 1e-2


def test_contrasts_do_not_guess():
    model = clip(torch.float64, text={"context_length": 24, "vocab_size": 49408})
    dual = ss.wrap(
        model,
        lambda im: open_clip.image_transform(32, is_train=False)(im).double(),
        open_clip.SimpleTokenizer(context_length=24),
    )
    photo = photographs()[0]
    e = ss.explain(dual, photo, "a dog", against="a dog beside a dog")
    with pytest.raises(ss.InputError, match="occurs 2 times"):
        e["dog"]
    assert e[(0, "dog")].shape == (4, 4)
    e = ss.explain(dual, photo, "a dog", against=("a dog", "a cat"), scale="logit")
    assert e.right_input == ("a dog", "a cat")
    a, b = e.about["similarities"]
    assert a - b == pytest.approx(e.similarity)
    with pytest.raises(ss.InputError, match="only the input itself"):
        ss.explain(dual, photo, "a dog", against=["a dog"])
    lazy = ss.explain(dual, photo, "a dog", ss.IntegratedJacobian(layer=0, steps=2), against="a cat")
    assert lazy.toward_left(slice(100, 200)).abs().sum() == 0


def test_a_text_encoder_with_a_reference_of_its_own():
    table, tower = nn.Embedding(20, 8).double(), nn.Sequential(nn.Linear(8, 6), nn.Tanh()).double()

    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = tower

        def forward(self, x):
            return self.tower(x).mean(1)

    encoder = ss.TorchEncoder(features=table, head=Read(), kind="text", reference=torch.zeros_like)
    dual = ss.DualEncoder(encoder, encoder)
    check_encoder(dual.left, [torch.randint(0, 20, (1, 5)), torch.randint(0, 20, (1, 7))])


def test_a_series_is_attributed_by_position_at_the_input():
    torch.manual_seed(0)

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(5, 6)

        def forward(self, x):
            return torch.tanh(self.mix(x)).mean(1)

    tower = Tower().double()
    encoder = ss.TorchEncoder(tower, ["mix"], kind="series", reference=torch.zeros_like)
    dual = ss.DualEncoder(encoder, encoder)
    x, y = torch.randn(1, 7, 5, dtype=torch.float64), torch.randn(1, 3, 5, dtype=torch.float64)
    at_input, at_layer = (ss.explain(dual, x, y, ss.IntegratedJacobian(layer=k)) for k in ("input", 0))
    assert at_input.matrix.shape == (7, 3)
    assert torch.allclose(at_input.matrix, at_layer.matrix)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (OSError("We couldn't connect to the hub"), "cannot be reached"),
        (ConnectionError("x"), "cannot be reached"),
        (FileNotFoundError("no file in /data/networks/connect"), "cannot be loaded"),
        (OSError("x is not a local folder and is not a valid model identifier"), "cannot be loaded"),
        (ImportError("\nTokenizer requires sentencepiece"), "requires sentencepiece"),
        (type("RepositoryNotFoundError", (Exception,), {})("404"), "has no model"),
    ],
)
def test_what_kept_a_model_from_loading(problem, words):
    assert words in str(loading_error("hf:x", problem, "a local folder"))


def test_boxes_on_the_right_of_a_page_are_those_of_python():
    model = clip(torch.float32, text={"context_length": 24, "vocab_size": 49408})
    dual = ss.wrap(model, open_clip.image_transform(32, is_train=False), open_clip.SimpleTokenizer(context_length=24))
    a, b = photographs()
    e, box = ss.explain(dual, a, b), (10.0, 10.0, 100.0, 120.0)
    (data,) = page_data(e, box)["cases"]
    matrix = unpacked(data["matrix"], 16)
    # The view's own tests compare what it makes of a box; here cells are cells on both sides.
    heat = matrix @ e.right_layout.cover(box)[e.right_layout.visible].numpy()
    assert np.allclose(heat.reshape(4, 4), e[box].numpy(), atol=1e-6 * np.abs(matrix).max())
    assert data["start"] == [None, list(box)]


def test_pixels_are_summed_to_cells_for_the_page():
    model = clip(torch.float32, vision={"image_size": 96}, text={"context_length": 24, "vocab_size": 49408})
    dual = ss.wrap(model, open_clip.image_transform(96, is_train=False), open_clip.SimpleTokenizer(context_length=24))
    before = snapshot(model)
    e = ss.explain(dual, photographs()[0], "a dog", ss.IntegratedJacobian(layer=("input", -1), steps=1))
    assert e.left_layout.grid == (96, 96)
    (data,) = page_data(e)["cases"]
    # The largest equal division that the page can show.
    assert data["left"]["grid"] == [48, 48]
    whole = e.matrix[:, e.right_layout.visible].double().sum()
    assert unpacked(data["matrix"], 48 * 48).sum() == pytest.approx(float(whole), rel=1e-3)
    assert changed(before, snapshot(model)) == []


def test_naflex_models_say_where_torch_is_too_old(monkeypatch):
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Siglip2Config(vision_config=tower | {"num_patches": 4}, text_config=tower | {"vocab_size": 9})
    host = transformers.Siglip2Model(config)
    if hub.sizes_can_be_read():
        ss.wrap(host)
    monkeypatch.setattr(hub, "sizes_can_be_read", lambda: False)
    with pytest.raises(ss.InputError, match=r"Siglip2Model reads sizes .*use a later torch"):
        ss.wrap(host)
