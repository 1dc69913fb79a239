"""Contexts that own every change to a user's model and to torch's global switches, and undo them whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, no autocast, and the random state kept; everything is put back at the end."""
    modes = [(m, m.training) for module in modules for m in module.modules()]
    random_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        # The flag itself, not eval(): models override train() with side effects of their own.
        for module, _ in modes:
            module.training = False
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            for device in ("cpu", "cuda"):
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        for module, training in modes:
            module.training = training
        torch.set_rng_state(random_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


@contextmanager
def differentiable() -> Iterator[None]:
    """Attention kernels that have forward-mode rules: fused ones have none."""
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def capturing(module: nn.Module, seen: dict[str, object]) -> Iterator[None]:
    """Keep the positional and keyword arguments of the module's first call in `seen["args"]`, `seen["kwargs"]`."""

    def keep(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if "args" not in seen:
            seen.update(args=args, kwargs=kwargs)

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replacing(module: nn.Module, value: torch.Tensor) -> Iterator[None]:
    """Give `value` to the module's first call in place of its first positional argument."""
    used: list[bool] = []

    def swap(_: nn.Module, args: tuple[object, ...]) -> tuple[object, ...] | None:
        if used:
            return None
        used.append(True)
        return (value, *args[1:])

    handle = module.register_forward_pre_hook(swap)
    try:
        yield
    finally:
        handle.remove()
