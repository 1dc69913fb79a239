"""Dual encoders of transformers against the library's own logits, as they are saved, and inside larger models."""

import pytest
import torch
import torch.nn.functional as F
import transformers

import secondsight as ss
from families import CAPTIONS, FAMILIES, Example, Pair, photographs, save_hub
from families.example import VISION, resized, text_config
from secondsight.encoders.input_layer import at_layer
from secondsight.support.guard import untouched

pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")

NEW = ("metaclip-2", "groupvit", "clipseg", "owlvit", "owlv2", "flava", "aimv2", "tipsv2")
NEW += ("joined-vit-bert", "joined-dinov2-roberta", "joined-swin-mpnet")
# These compute norms or softmax in float32 whatever their precision.
COARSE = ("hf-aimv2",)


def logits(example: Example, image: object, text: str) -> float:
    """The host's own logits of one pair, divided by the scale that it multiplies by."""
    images, tokenizer = example.parts
    inputs = {**images(images=image, return_tensors="pt"), **tokenizer(text, return_tensors="pt")}
    dtype = next(example.host.parameters()).dtype
    with torch.no_grad():
        output = example.host(**{k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()})
    return float(output.logits_per_image) / example.model.logit_scale


def embedding(side: ss.DualEncoder, raw: object, layer: object) -> torch.Tensor:
    """What the head of a layer makes of its hidden states."""
    encoder, number = at_layer(side.encoder, layer)
    with untouched(encoder.module):
        state = encoder.features(encoder.prepare(raw).tensor, number)[0]
        return encoder.head(number, state.context, encoder.dtype())(state.hidden[None])[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", [f"hf-{name}" for name in NEW])
def test_every_layer_gives_the_hosts_similarity(name, dtype):
    example = FAMILIES[name](dtype)
    image, text, model = example.left[0], example.right[1], example.model
    with torch.no_grad():
        if name == "hf-flava":  # without logits of its own
            host = float(F.cosine_similarity(example.host_left(image), example.host_right(text), dim=0))
        else:
            host = logits(example, image, text)
    allowed = 1e-10 if dtype == torch.float64 and name not in COARSE else 1e-6
    for n in range(max(model.left.encoder.depth, model.right.encoder.depth)):
        layers = (min(n, side.encoder.depth - 1) for side in (model.left, model.right))
        g, h = (embedding(s, r, k) for s, r, k in zip((model.left, model.right), (image, text), layers, strict=True))
        assert float(F.cosine_similarity(g, h, dim=0)) == pytest.approx(host, abs=allowed), n
    assert ss.explain(model, image, text).similarity == pytest.approx(host, abs=max(allowed, 1e-7))


def test_two_encoders_of_dpr_are_two_sides():
    example = FAMILIES["hf-dpr"](torch.float64)
    question, context = example.host
    query, passage, tokenizer = CAPTIONS[1], CAPTIONS[0], example.parts[0]
    with torch.no_grad():
        a, b = (
            m(**tokenizer(t, return_tensors="pt")).pooler_output[0] for m, t in ((question, query), (context, passage))
        )
    for n in range(2):
        g, h = embedding(example.model.left, query, n), embedding(example.model.right, passage, n)
        assert float(g @ h) == pytest.approx(float(a @ b), rel=1e-10)
    swapped = ss.wrap((context, question), tokenizer=(tokenizer, tokenizer))
    e = ss.explain(swapped, passage, query)
    assert e.similarity == pytest.approx(float(a @ b), rel=1e-6)
    with pytest.raises(ss.InputError, match="pair of texts"):
        swapped.left.embed([{"input_ids": torch.ones(1, 4).long(), "token_type_ids": torch.tensor([[0, 0, 1, 1]])}])
    for wrong in (question, context):
        with pytest.raises(
            ss.InputError, match=r"\(dpr\) is one side of DPR: load both .* ss.wrap\(\(question_encoder,"
        ):
            ss.wrap(wrong, tokenizer)
    with pytest.raises(ss.InputError, match="not the two sides of one model"):
        ss.wrap((question, FAMILIES["hf-clip"](torch.float32).host))


def test_two_halves_of_clip_are_one_model():
    example = FAMILIES["hf-clip"](torch.float64)
    config = example.host.config
    config.vision_config.projection_dim = config.text_config.projection_dim = config.projection_dim
    image = transformers.CLIPVisionModelWithProjection(config.vision_config)
    text = transformers.CLIPTextModelWithProjection(config.text_config)
    weights = example.host.state_dict()
    for half in (image.eval().double(), text.eval().double()):
        half.load_state_dict({k: v for k, v in weights.items() if k in half.state_dict()})
    halves = ss.wrap((image, text), Pair(*example.parts))
    expected = ss.explain(example.model, photographs()[0], CAPTIONS[0])
    e = ss.explain(halves, photographs()[0], CAPTIONS[0])
    assert torch.allclose(e.matrix, expected.matrix, atol=1e-12)
    assert halves.logit_scale is None


def _holder(name: str) -> torch.nn.Module:
    """A model that holds a dual encoder beside what it is for."""
    example = FAMILIES[f"hf-{name}"](torch.float32)
    holders = {
        "clipseg": transformers.CLIPSegForImageSegmentation,
        "owlvit": transformers.OwlViTForObjectDetection,
        "owlv2": transformers.Owlv2ForObjectDetection,
        "flava": transformers.FlavaForPreTraining,
    }
    config = example.host.config
    if name == "clipseg":
        config.update({"extract_layers": [0, 1], "reduce_dim": 8, "decoder_num_attention_heads": 2})
    if name == "flava":
        config.update({"init_codebook": False})
    holder = holders[name](config)
    holder.base_model.load_state_dict(example.host.state_dict())
    return holder.eval()


@pytest.mark.parametrize("name", ["clipseg", "owlvit", "owlv2", "flava"])
def test_the_dual_encoder_inside_a_larger_model(name, tmp_path):
    example, holder = FAMILIES[f"hf-{name}"](torch.float32), _holder(name)
    model = ss.wrap(holder, Pair(*example.parts))
    image, text = example.left[0], example.right[0]
    expected = [example.model.left.embed([image]), example.model.right.embed([text])]
    assert torch.equal(model.left.embed([image]), expected[0])
    assert torch.equal(model.right.embed([text]), expected[1])
    assert model.logit_scale == pytest.approx(example.model.logit_scale)
    save_hub(example, tmp_path)
    holder.save_pretrained(tmp_path)
    loaded = ss.load(f"hf:{tmp_path}")
    assert torch.allclose(loaded.left.embed([image]), expected[0], atol=1e-6)
    assert loaded.logit_scale == pytest.approx(example.model.logit_scale)


def test_flavas_logits_are_the_ones_it_was_trained_with():
    holder, example = _holder("flava"), FAMILIES["hf-flava"](torch.float32)
    images, tokenizer = example.parts
    inputs = {**images(images=photographs()[0], return_tensors="pt"), **tokenizer(CAPTIONS[0], return_tensors="pt")}
    with torch.no_grad():
        expected = float(holder(**inputs, return_loss=False).contrastive_logits_per_image)
    model = ss.wrap(holder, Pair(images, tokenizer))
    e = ss.explain(model, photographs()[0], CAPTIONS[0], scale="logit")
    assert e.similarity == pytest.approx(expected, abs=1e-5)


def test_groupvits_choice_of_groups_is_held():
    example = FAMILIES["hf-groupvit"](torch.float64)
    image, text = photographs()[0], CAPTIONS[0]
    e = ss.explain(example.model, image, text, ss.IntegratedJacobian(layer=0, tol=1e-4))
    assert e.similarity == pytest.approx(logits(example, image, text), abs=1e-10)
    assert e.error < 1e-3
    assert e["spoon"].shape == (4, 4)
    special = e.left_layout.special
    assert list(special.values()) == ["group"] * 5
    assert all("get_attn" not in vars(module) for module in example.host.modules())
    with pytest.raises(ss.InputError, match="use layer=0"):
        ss.explain(example.model, image, text, ss.IntegratedJacobian(layer="input"))


def test_grey_padding_is_no_part_of_the_image():
    encoder = FAMILIES["hf-owlv2"](torch.float32).model.image.encoder
    for size in ((150, 240), (120, 90)):
        frame = encoder.prepare(photographs()[0].resize(size)).placement.frame
        # The processor pads below and on the right to a square.
        assert frame == pytest.approx((0, 0, max(size), max(size)), abs=0.02 * max(size))


def test_a_model_that_was_saved_without_one_side(tmp_path):
    example = FAMILIES["hf-clip"](torch.float32)
    save_hub(example, tmp_path)
    texts = {k: v for k, v in example.host.state_dict().items() if k.startswith("text")}
    example.host.save_pretrained(tmp_path, state_dict=texts)
    with pytest.raises(
        ss.InputError, match=r"saved without logit_scale, vision_model\.\w+.* of CLIPModel: give a repos"
    ):
        ss.load(f"hf:{tmp_path}")


def test_aimv2_says_where_it_loses_its_mask():
    text = text_config(FAMILIES["hf-aimv2"](torch.float32).parts[1], 24)
    config = transformers.Aimv2Config(vision_config=VISION | {"use_head": True}, text_config=text)
    host = transformers.Aimv2Model._from_config(config, attn_implementation="sdpa")
    with pytest.warns(ss.AssumptionWarning, match="attn_implementation='eager'"):
        ss.wrap(host, resized())


REFUSED = {
    "BertModel": r"\(bert\) is one text encoder: .*'st:.*layers such as 'encoder.layer.0'",
    "BertForSequenceClassification": r"is one text encoder, whose encoder is model.bert",
    "Dinov2Model": r"\(dinov2\) is one encoder of the kind 'image': .*'encoder.layer.0'.*VisionTextDualEncoderModel",
    "ViTForImageClassification": r"whose encoder is model.vit",
    "GPT2LMHeadModel": r"generates text",
    "BlipForConditionalGeneration": r"\(blip\) generates text.*look at model.vision_model, model.text_decoder",
    "LlavaForConditionalGeneration": r"generates text.*look at model.model.vision_tower, model.model.language_model",
    "XCLIPModel": r"changes its text embedding by the video",
    "VideoPrismClipModel": r"does not know: .*look at model.video_model.*, model.text_model",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_with_what_fits_them(name, tmp_path):
    kind = getattr(transformers, name, None)
    if kind is None:
        pytest.skip("this transformers does not have it yet")
    config = kind.config_class()
    with torch.device("meta"):
        model = kind(config)
    with pytest.raises(ss.InputError, match=REFUSED[name]):
        ss.wrap(model)
    if name.startswith("Blip"):  # by its configuration it is a known family: its weights say that it is not
        return
    config.architectures = [name]
    config.save_pretrained(tmp_path)
    with pytest.raises(ss.InputError, match=REFUSED[name]):
        ss.load(f"hf:{tmp_path}")


def test_a_tower_that_does_not_pool_is_refused():
    text = transformers.DistilBertModel(transformers.DistilBertConfig(dim=8, hidden_dim=8, n_layers=1, n_heads=1))
    vision = transformers.ViTModel(transformers.ViTConfig(**VISION, pooler_output_size=32))
    model = ss.wrap(transformers.VisionTextDualEncoderModel(vision_model=vision, text_model=text))
    with pytest.raises(ss.InputError, match="text_model DistilBertModel gives no pooled output"):
        model.text.embed([torch.ones(1, 4, dtype=torch.long)])
