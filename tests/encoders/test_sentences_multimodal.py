"""Images and texts in sentence-transformers: a dual encoder of transformers, compared as the host does it."""

import pytest
import sentence_transformers as st
import torch
from sentence_transformers.sentence_transformer import modules

import secondsight as ss
from families import CAPTIONS, FAMILIES, photographs


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", ["st-clip", "st-siglip-cut"])
def test_images_and_texts_in_any_order_are_explained_as_the_host_compares_them(name, dtype, tolerance):
    example = FAMILIES[name](dtype)
    host, (photo, detail) = example.host, photographs()
    for pair in ((photo, CAPTIONS[0]), (CAPTIONS[1], photo), (photo, detail), tuple(CAPTIONS)):
        similarity = float(host.similarity(*(host.encode(raw, convert_to_tensor=True) for raw in pair)))
        for layer in (0, -1):
            e = ss.explain(example.model, *pair, ss.ChainedJacobian(layer=layer))
            assert e.similarity == pytest.approx(similarity, abs=tolerance)
            assert e.terms.total == pytest.approx(similarity, abs=1e2 * tolerance)


def test_one_prompt_precedes_all_texts():
    host = FAMILIES["st-clip"](torch.float32).host
    model = ss.wrap(host, prompts="a photo of ")
    e = ss.explain(model, photographs()[0], "a red cup", "last-layer")
    encoded = host.encode(photographs()[0]), host.encode_query("a red cup", prompt="a photo of ")
    assert e.similarity == pytest.approx(float(host.similarity(*encoded)), abs=1e-6)
    assert list(e.right_layout.special.values()).count("prompt") >= 3
    with pytest.raises(ss.InputError, match="choose one prompt for all"):
        ss.wrap(host, prompts=("a photo of ", ""))


def test_modules_that_change_its_embeddings_are_refused():
    host = FAMILIES["st-clip"](torch.float32).host
    changed = st.SentenceTransformer(modules=[host[0], modules.Dense(16, 8)], device="cpu")
    with pytest.raises(ss.InputError, match="Dense changes the embeddings of CLIPModel"):
        ss.wrap(changed)


def test_texts_in_a_chat_template_are_refused():
    transformer = FAMILIES["st-minilm-mean"](torch.float32).host[0]
    transformer.modality_config["message"] = {**transformer.modality_config["text"], "format": "flat"}
    host = st.SentenceTransformer(modules=[transformer, modules.Pooling(24)], device="cpu")
    with pytest.raises(ss.InputError, match="puts texts into a chat template"):
        ss.wrap(host)
