"""Encoders give the host's own numbers, or fail loudly."""

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import secondsight as ss
from models import clip, mlp_mixer, pixels, resnet, tokens
from secondsight.support.guard import untouched

pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")

CAPTION = "A white husky and a black dog’s naïve  FRISBEE-game, 42 times!"


@pytest.fixture(scope="module")
def tokenized() -> ss.DualEncoder:
    """A small model with open_clip's real vocabulary, preprocessing and tokenizer."""
    model = clip(torch.float32, text={"context_length": 32, "vocab_size": 49408})
    preprocess = open_clip.image_transform(32, is_train=False)
    return ss.wrap(model, preprocess, open_clip.SimpleTokenizer(context_length=32))


def test_every_head_reproduces_the_host_at_every_layer():
    for host, image in ((clip(), pixels()), (resnet(), pixels(64))):
        model = ss.wrap(host)
        with torch.no_grad():
            embeddings = host.encode_image(image)[0], host.encode_text(tokens())[0]
        for side, value, expected in zip((model.left, model.right), (image, tokens()), embeddings, strict=True):
            for layer in range(side.encoder.depth):
                with untouched(host):
                    state = side.encoder.features(value, layer)[0]
                    embedding = side.encoder.head(layer, state.context, torch.float64)(state.hidden[None])[0]
                assert torch.allclose(embedding, expected, atol=1e-10), (side.kind, layer)


def test_caption_offsets_point_into_the_original_text(tokenized):
    layout = ss.explain(tokenized, pixels(dtype=torch.float32), CAPTION).right_layout
    for index, offset in enumerate(layout.offsets):
        if offset is None:
            assert index in layout.special
        else:
            assert layout.tokens[index][0].lower() == CAPTION[offset[0]].lower() or not CAPTION[offset[0]].isascii()
    assert "".join(sorted({CAPTION[s:e] for s, e in filter(None, layout.offsets)})) != ""
    covered = {i for o in layout.offsets if o for i in range(*o)}
    assert covered == {i for i, c in enumerate(CAPTION) if not c.isspace()}
    assert [w.text for w in layout.words][:4] == ["A", "white", "husky", "and"]
    assert all(word.features for word in layout.words)


def test_a_text_and_its_tokens_give_the_same_numbers(tokenized):
    image = pixels(dtype=torch.float32)
    by_text = ss.explain(tokenized, image, CAPTION)
    by_ids = ss.explain(tokenized, image, open_clip.SimpleTokenizer(context_length=32)([CAPTION]))
    assert torch.equal(by_text.matrix, by_ids.matrix)
    assert by_ids.right_layout.special == by_text.right_layout.special


def test_a_caption_longer_than_the_context(tokenized):
    long = " ".join(["husky"] * 40) + " frisbee"
    image = pixels(dtype=torch.float32)
    with pytest.raises(ss.InputError, match=r"takes 43 tokens, the model reads 32.*truncate=True"):
        ss.explain(tokenized, image, long)
    e = ss.explain(tokenized, image, long, truncate=True)
    assert e.error < 1e-3
    with pytest.raises(ss.InputError, match="was cut off"):
        e["frisbee"]


@pytest.mark.parametrize("caption", ["", "   ", "\n"])
def test_empty_captions(tokenized, caption):
    with pytest.raises(ss.InputError, match="is empty"):
        ss.explain(tokenized, pixels(dtype=torch.float32), caption)


def test_logits_scale_everything_and_add_the_bias():
    host = clip()
    host.logit_bias = nn.Parameter(torch.tensor(-3.0))
    model = ss.wrap(host)
    plain, logit = (ss.explain(model, pixels(), tokens(), scale=s) for s in ("similarity", "logit"))
    factor = float(host.logit_scale.detach().exp())
    assert logit.similarity == pytest.approx(plain.similarity * factor - 3)
    assert logit.terms.base == pytest.approx(plain.terms.base * factor - 3)
    assert torch.allclose(logit.matrix, plain.matrix * factor)
    assert logit.error < 1e-2 * factor


def test_sides_go_by_their_kind():
    model = ss.wrap(clip())
    assert model.image is model.left
    assert model.text is model.right
    with pytest.raises(AttributeError):
        model.audio


def test_custom_text_models():
    host = open_clip.CustomTextCLIP(
        16,
        {"image_size": 32, "layers": 2, "width": 32, "head_width": 8, "patch_size": 8},
        {"context_length": 12, "vocab_size": 64, "width": 24, "heads": 3, "layers": 2},
    ).eval()
    e = ss.explain(ss.wrap(host), pixels(dtype=torch.float32), tokens())
    with torch.no_grad():
        s = (
            host.encode_image(pixels(dtype=torch.float32), normalize=True)
            @ host.encode_text(tokens(), normalize=True).T
        )
    assert e.similarity == pytest.approx(float(s), abs=1e-6)
    assert e.terms.total == pytest.approx(float(s), abs=1e-3)


def test_a_local_checkpoint_by_name(tmp_path):
    torch.manual_seed(5)
    host = open_clip.create_model("RN50").eval()
    save_file(host.state_dict(), tmp_path / "weights.safetensors")
    model = ss.load(f"open_clip:RN50/{tmp_path}/weights.safetensors")
    image = torch.rand(1, 3, 224, 224)
    assert torch.allclose(model.image.embed(image)[0], host.encode_image(image).detach()[0], atol=1e-6)
    assert model.text.embed(["a dog"]).shape == (1, 1024)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clip", "known: builtin, scenes, scenes:…, open_clip"),
        ("open_clip:ViT-B-999/openai", "near it: .*ViT-B"),
        ("open_clip:ViT-B-32", "names no weights"),
        ("open_clip:ViT-B-32/nonsense", "neither a file nor one of"),
    ],
)
def test_unknown_models_list_the_known_ones(name, words):
    with pytest.raises(ss.InputError, match=words):
        ss.load(name)


def test_a_hub_model_without_network_says_what_to_do(monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("cannot connect to the hub")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", unreachable)
    with pytest.raises(ss.InputError, match="local checkpoint .* or the offline model 'builtin'"):
        ss.load("open_clip:ViT-B-32/openai")


def test_a_damaged_checkpoint_is_one_sentence(tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ss.InputError, match="cannot be loaded"):
        ss.load(f"open_clip:RN50/{tmp_path}/broken.pt")


def test_broken_weights_are_said_to_be_broken():
    host = clip()
    with torch.no_grad():
        host.visual.proj[0, 0] = float("nan")
    with pytest.raises(ss.InputError, match="NaN or infinity"):
        ss.explain(ss.wrap(host), pixels(), tokens())


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(1, 3, 16, 16), "do not fit this model, which takes 32×32"),
        (torch.zeros(2, 3, 32, 32), "not a model-ready image"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "normalised floats"),
        (torch.full((1, 3, 32, 32), float("nan")), "NaN"),
        ("photo.jpg", "without preprocessing"),
    ],
)
def test_unusable_pixels(image, words):
    with pytest.raises(ss.InputError, match=words):
        ss.explain(ss.wrap(clip(torch.float32)), image, tokens())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a dog", "without a tokenizer"),
        (torch.tensor([[62, 99, 63]]), "vocabulary of 64"),
        (torch.zeros(1, 99, dtype=torch.long), "takes 99 tokens"),
        (torch.zeros(1, 5), "token ids are needed"),
        (7, "cannot use int as a text"),
    ],
)
def test_unusable_texts(text, words):
    with pytest.raises(ss.InputError, match=words):
        ss.explain(ss.wrap(clip(torch.float32)), pixels(dtype=torch.float32), text)


def test_only_models_can_be_wrapped():
    with pytest.raises(ss.InputError, match="cannot wrap str"):
        ss.wrap("ViT-B-32")
    with pytest.raises(ss.InputError, match="TorchEncoder"):
        ss.wrap(nn.Linear(2, 2))


def mixer_side(**options) -> ss.DualEncoder:
    image = ss.TorchEncoder(mean=(0.5,) * 3, std=(0.5,) * 3, grid=(3, 3), **options)
    return ss.DualEncoder(image, ss.wrap(clip()).right.encoder)


def test_any_module_by_layer_and_by_functions_agree():
    module = mlp_mixer()

    def features(x):
        return module.blocks[0](module.embed(x).flatten(2).mT)

    def head(h):
        return module.out(module.norm(module.blocks[1](h))).mean(1)

    method = ss.IntegratedJacobian(steps=6)
    by_layer = ss.explain(mixer_side(module=module, layers=["blocks.0", "blocks.1"]), pixels(24), tokens(), method)
    by_functions = ss.explain(mixer_side(features=features, head=head, module=module), pixels(24), tokens(), method)
    assert torch.allclose(by_layer.matrix, by_functions.matrix, atol=1e-12)
    assert by_layer[3].shape == (3, 3)


def test_convolutions_give_their_grid():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 4, 4), nn.SiLU(), nn.Conv2d(6, 16, 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    image = ss.TorchEncoder(net.double().eval(), ["2"], mean=(0.5,) * 3, std=(0.5,) * 3)
    e = ss.explain(ss.DualEncoder(image, ss.wrap(clip()).right.encoder), pixels(24), tokens())
    assert e[3].shape == (6, 6)
    assert e.error < 1e-4


def test_two_sides_of_ones_own_and_a_dot_product():
    module = mlp_mixer()
    side = ss.TorchEncoder(module, "blocks.1", mean=(0.5,) * 3, std=(0.5,) * 3, grid=(3, 3))
    model = ss.DualEncoder(side, side, cosine=False)
    e = ss.explain(model, pixels(24), pixels(24, seed=2), ss.IntegratedJacobian(tol=1e-8))
    with torch.no_grad():
        dot = float(module(pixels(24))[0] @ module(pixels(24, seed=2))[0])
    assert e.similarity == pytest.approx(dot)
    assert e.terms.total == pytest.approx(dot, abs=1e-6)


def test_a_partial_description_fails_loudly():
    class Bypassed(nn.Module):
        """The embedding also depends on the input past the named layer."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.past = mlp_mixer(), nn.Linear(3, 16).double()

        def forward(self, x):
            return self.inner(x) + self.past(x.mean((2, 3)))

    with pytest.raises(ss.AdapterError, match="misses a part"):
        ss.explain(mixer_side(module=Bypassed(), layers="inner.blocks.0"), pixels(24), tokens())


def test_a_wrong_head_fails_loudly():
    module = mlp_mixer()
    wrong = dict(features=lambda x: module.embed(x).flatten(2).mT, head=lambda h: module.out(h).mean(1))
    with pytest.raises(ss.AdapterError, match="head gives another embedding"):
        ss.explain(mixer_side(module=module, **wrong), pixels(24), tokens())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(), "needs a module"),
        (dict(features=torch.relu), "belong together"),
        (dict(module=mlp_mixer(), layers="blocks.7"), "it has embed, blocks, blocks.0"),
        (dict(module=mlp_mixer(), layers=[nn.Linear(1, 1)]), "not a part"),
        (dict(module=mlp_mixer(), layers="out", features=torch.relu, head=torch.relu), "not both"),
    ],
)
def test_impossible_descriptions(options, words):
    with pytest.raises(ss.InputError, match=words):
        ss.TorchEncoder(**options)


def test_a_model_whose_output_is_no_embedding_per_input():
    with pytest.raises(ss.AdapterError, match=r"\(batch, joint\) is needed"):
        ss.explain(mixer_side(module=nn.Sequential(nn.Conv2d(3, 4, 3)).double(), layers="0"), pixels(24), tokens())
