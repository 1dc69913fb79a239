"""A user's model leaves exactly as it came, also when something goes wrong in the middle."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import secondsight as ss
from models import clip, mlp_mixer, pixels, resnet, tokens

pytestmark = pytest.mark.filterwarnings("ignore::secondsight.AssumptionWarning")


def photograph(model: nn.Module) -> dict[str, object]:
    """Everything about a model and torch that a guest could change."""
    return {
        "modes": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "requires": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "dtypes": [p.dtype for p in model.parameters()],
        "identity": [id(p) for p in model.parameters()],
        "values": [p.detach().clone() for p in [*model.parameters(), *model.buffers()]],
        "random": torch.get_rng_state(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "kernels": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()),
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
    }


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def assert_untouched(model: nn.Module, act: Callable[[], object]) -> None:
    before = photograph(model)
    act()
    after = photograph(model)
    assert [k for k in before if not same(before[k], after[k])] == []


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
@pytest.mark.parametrize("call", [1, 2, 3, 5])
def test_after_an_exception_in_the_middle(problem, call):
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
            ss.explain(dual, pixels(dtype=torch.float32), tokens(), ss.IntegratedJacobian(layer=1, steps=4))

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
