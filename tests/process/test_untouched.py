"""A user's model is left exactly as it was, also when an explanation fails half-way."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import secondsight as ss
from models import clip, mlp_mixer, pixels, resnet, tokens
from secondsight.testing import changed, snapshot

pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")


def assert_untouched(model: nn.Module, act: Callable[[], object]) -> None:
    before = snapshot(model)
    act()
    assert changed(before, snapshot(model)) == []


def in_use() -> nn.Module:
    """A model in the middle of somebody's training."""
    model = clip(torch.float32).train()
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
        parameter.grad = torch.full_like(parameter, 0.5) if i % 3 == 0 else None
    model.visual.transformer.resblocks[0].eval()
    return model


@pytest.mark.parametrize("strategy", ["auto", "forward", "reverse", "paired"])
@pytest.mark.parametrize("layer", [-1, 1])
def test_after_an_explanation(layer, strategy):
    model = in_use()
    method = ss.IntegratedJacobian(layer=layer, strategy=strategy, steps=3)

    def act() -> None:
        e = ss.explain(ss.wrap(model), pixels(dtype=torch.float32), tokens(), method)
        assert e.matrix.shape == (17, 7)
        assert e.toward_left([2]).shape == (17,)

    assert_untouched(model, act)


def test_after_a_lazy_part_is_read_later():
    model = in_use()
    e = ss.explain(ss.wrap(model), pixels(dtype=torch.float32), tokens(), ss.IntegratedJacobian(layer=1, steps=3))
    assert_untouched(model, lambda: (e.toward_left([2]), e.toward_right([3]), e.matrix))


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("method", [ss.IntegratedJacobian(layer=1, steps=4), ss.ChainedJacobian(layer=1)])
def test_after_an_exception_in_the_middle(problem, call, method):
    model = in_use()
    target, calls = model.visual.transformer.resblocks[-1].mlp, []
    original = target.forward

    def failing(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == call:
            raise problem("stop")
        return original(x)

    dual = ss.wrap(model)
    target.forward = failing

    def act() -> None:
        with pytest.raises(problem):
            ss.explain(dual, pixels(dtype=torch.float32), tokens(), method)

    assert_untouched(model, act)


@pytest.mark.parametrize("fails", [False, True])
def test_kinks_and_replaced_layers_leave_no_hooks(fails):
    host = resnet(torch.float32)
    plain = mlp_mixer(torch.float32)
    encoder = ss.TorchEncoder(plain, ["blocks.0"], mean=(0.5,) * 3, std=(0.5,) * 3, grid=(3, 3))
    side = ss.DualEncoder(encoder, ss.wrap(host).right.encoder).left
    method = ss.IntegratedJacobian(layer=0, steps=2)

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("stop")

    if fails:
        host.visual.attnpool.forward = broken
        plain.out.forward = broken

    def act() -> None:
        for work in (
            lambda: ss.wrap(host).left.contributions(pixels(64, torch.float32), method),
            lambda: side.contributions(pixels(24, torch.float32), method),
        ):
            if fails:
                with pytest.raises(RuntimeError):
                    work()
            else:
                work()

    assert_untouched(host, act)
    assert_untouched(plain, act)


def test_in_inference_mode_and_under_autocast():
    model = clip(torch.float32)
    outside = ss.explain(ss.wrap(model), pixels(dtype=torch.float32), tokens())
    with torch.inference_mode():
        inside = ss.explain(ss.wrap(model), pixels(dtype=torch.float32), tokens())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = ss.explain(ss.wrap(model), pixels(dtype=torch.float32), tokens())
    assert torch.allclose(outside.matrix, inside.matrix)
    assert torch.allclose(outside.matrix, cast.matrix)


def test_loading_does_not_move_the_random_state(builtin):
    del builtin
    before = torch.get_rng_state()
    ss.load("builtin")
    assert torch.equal(before, torch.get_rng_state())
