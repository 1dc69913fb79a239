"""The heads of a side's last block: they add up to the pair exactly, and come only where the closed form has them."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

import secondsight as ss
from families import FAMILIES
from models import clip, pixels, resnet, small, tokens
from secondsight import InputError
from secondsight.paths.pooled import PooledPath

EXACT = ss.IntegratedJacobian(steps=12)


def explained(host=None, left=None, right=None, **options) -> ss.Explanation:
    return ss.explain(
        ss.wrap(host or clip()),
        pixels() if left is None else left,
        tokens() if right is None else right,
        EXACT,
        **options,
    )


def check_sums(e) -> None:
    parts = e.heads()
    assert torch.allclose(sum(part.matrix for part in parts), e.matrix, rtol=1e-9, atol=1e-12)
    assert torch.allclose(sum(part.effects for part in parts), e.left_effects, rtol=1e-9, atol=1e-12)
    assert sum(part.interaction for part in parts) == pytest.approx(e.terms.interaction)
    assert sum(part.alone for part in parts) == pytest.approx(e.terms.left)


def test_heads_of_both_sides_add_up_to_the_pair():
    e = explained()
    check_sums(e)
    check_sums(e.T)
    assert len(e.heads()) == 32 // 8 + 1
    assert len(e.T.heads()) == 3 + 1
    check_sums(explained(scale="logit"))
    image = explained(left=pixels(seed=3), right=pixels(seed=4))
    check_sums(image)
    check_sums(image.T)


@pytest.mark.parametrize("family", ["hf-siglip", "hf-joined-vit-bert", "st-roberta-cls-dot"])
def test_probes_and_blocks_that_norm_at_their_end(family):
    """SigLIP's pooling probe, and the blocks of BERT, which norm after their sums."""
    example = FAMILIES[family](torch.float64)
    e = ss.explain(example.model, example.left[0], example.right[0], EXACT)
    check_sums(e)
    check_sums(e.T)


def test_attention_pools_have_no_stream():
    """CLIP-ResNet's attention pool has no residual stream; its heads are those of the pool."""
    host = resnet()
    parts = explained(host, pixels(64)).heads()
    assert len(parts) == host.visual.attnpool.num_heads + 1
    assert float(parts.stream.matrix.abs().max()) == 0.0
    check_sums(explained(host, pixels(64)))


def test_a_silent_head_has_no_part():
    """Without its rows of the out-projection, a head moves nothing; the others keep theirs."""
    host = clip()
    with torch.no_grad():
        host.visual.transformer.resblocks[-1].attn.out_proj.weight[:, 8:16] = 0
    parts = explained(host).heads()
    sizes = [float(part.matrix.abs().max()) for part in parts]
    assert sizes[1] < 1e-12 < min(sizes[0], *sizes[2:])


def test_parts_are_read_like_interactions():
    e = ss.explain(small(), Image.new("RGB", (64, 48), "red"), "a red dog", EXACT)
    first, stream = e.heads()[0], e.heads().stream
    assert (first.name, stream.name) == ("head 0", "stream")
    assert first["dog"].shape == e["dog"].shape
    assert torch.allclose(sum(part["dog"] for part in e.heads()), e["dog"].double())
    assert [word for word, _ in first.words] == ["a", "red", "dog"]
    strongest = e.heads().strongest(2)
    assert abs(strongest[0].interaction) >= abs(strongest[1].interaction)
    assert "head 0: interaction" in repr(first)
    figure = e.heads().plot(2, "dog")
    assert figure.texts[0].get_text().startswith(f"{strongest[0].name}: ")


def test_heads_of_sides_without_a_part_and_of_margins():
    """What is made of lazy sides has their heads."""
    first, second = explained(), explained(right=tokens(9, 4, 30))
    left, right = first.left_contributions, first.right_contributions
    check_sums(left.without([3, 4]) @ right)
    assert not (left.without([3, 4]) @ right).heads()[0].matrix[3:5].any()
    check_sums((right - second.right_contributions) @ left)


def test_nobody_pays_for_heads_who_does_not_ask(monkeypatch):
    def refuse(*_):
        raise AssertionError("heads were computed")

    monkeypatch.setattr(PooledPath, "vectors_by_head", refuse)
    e = explained()
    assert e.matrix.shape == (17, 7)
    with pytest.raises(AssertionError, match="heads were computed"):
        e.heads()


def test_the_model_leaves_as_it_came():
    host = clip()
    before = {name: value.clone() for name, value in host.state_dict().items()}
    host.train()
    explained(host).heads()
    assert host.training
    assert all(torch.equal(before[name], value) for name, value in host.state_dict().items())
    assert not any(module._forward_hooks for module in host.modules() if isinstance(module, nn.Module))


def test_without_the_closed_form_there_are_none():
    model = ss.wrap(clip())
    deep = ss.explain(model, pixels(), tokens(), "grounded")
    with pytest.raises(InputError, match="closed form of a last block"):
        deep.heads()
    left, right = model.left.contributions(pixels())[0], model.right.contributions(tokens())[0]
    with pytest.raises(InputError, match="stored vectors"):
        (left @ right).heads()
    with pytest.raises(InputError, match="heads need the pair's contributions"):
        replace(explained(), left_contributions=None).heads()
