"""Contexts that own every change to a user's model and to torch's global switches, and undo them whatever happens."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

_ONE_AT_A_TIME = threading.RLock()
"""Held while anything below is changed: modes, hooks and switches belong to the whole process, not to a thread."""

if hasattr(os, "register_at_fork"):
    # A child that was forked while another thread held the lock would wait for a thread that it does not have.
    os.register_at_fork(after_in_child=lambda: globals().update(_ONE_AT_A_TIME=threading.RLock()))


@contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, checkpointing or autocast, the random state kept; all is put back at the end.

    Threads take turns: the next one waits here until all is put back.
    """
    with _ONE_AT_A_TIME:
        yield from _untouched(modules)


def _untouched(modules: Sequence[nn.Module]) -> Iterator[None]:
    modes = [(m, m.training) for module in modules for m in module.modules()]
    # Recomputing activations has no forward-mode rule, and some libraries do it in evaluation mode too.
    checkpointing = [
        (m, name) for m, _ in modes for name in ("grad_checkpointing", "gradient_checkpointing") if vars(m).get(name)
    ]
    # Set beside checkpointing by transformers: asks inputs for gradients, which functional derivatives do not allow.
    asking = [
        (m, dict(m._forward_hooks))
        for m, _ in modes
        if any(getattr(hook, "__name__", "") == "make_inputs_require_grads" for hook in m._forward_hooks.values())
    ]
    random_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        # The flag itself, not eval(): models override train() with side effects of their own.
        for module, _ in modes:
            module.training = False
        for module, name in checkpointing:
            setattr(module, name, False)
        for module, hooks in asking:
            for key, hook in hooks.items():
                if getattr(hook, "__name__", "") == "make_inputs_require_grads":
                    del module._forward_hooks[key]
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            for device in ("cpu", "cuda"):
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name in checkpointing:
            setattr(module, name, True)
        for module, hooks in asking:
            module._forward_hooks.clear()
            module._forward_hooks.update(hooks)
        torch.set_rng_state(random_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


@contextmanager
def differentiable() -> Iterator[None]:
    """Attention kernels that have forward-mode rules: fused ones have none."""
    with _ONE_AT_A_TIME:
        fast = torch.backends.mha.get_fastpath_enabled()
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def first_not_finite(module: nn.Module, run: Callable[[], object]) -> str:
    """Where in a module NaN or infinity appears first while `run` uses it, in words; empty where it never does."""
    found: list[str] = []

    def bad(value: object) -> bool:
        if isinstance(value, torch.Tensor):
            return value.is_floating_point() and not bool(torch.isfinite(value).all())
        if isinstance(value, dict):
            return any(map(bad, value.values()))
        return isinstance(value, (list, tuple)) and any(map(bad, value))

    def look(name: str) -> Callable[..., None]:
        def hook(own: nn.Module, args: tuple[object, ...], output: object) -> None:
            if found or not bad(output):
                return
            weights = [key for key, value in own.named_parameters() if bad(value)]
            of_weights = f", whose {weights[0]!r} holds such values" if weights else ""
            found.append(f"{type(own).__name__} {name!r}{of_weights}")

        return hook

    handles = [part.register_forward_hook(look(name)) for name, part in module.named_modules()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


@contextmanager
def capturing(module: nn.Module, seen: dict[str, object]) -> Iterator[None]:
    """Keep the positional and keyword arguments of the module's first call in `seen["args"]`, `seen["kwargs"]`.

    Tensors are copied: some modules work on their inputs in place.
    """

    def copied(value: object) -> object:
        return value.clone() if isinstance(value, torch.Tensor) else value

    def keep(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if "args" not in seen:
            seen.update(args=tuple(map(copied, args)), kwargs={k: copied(v) for k, v in kwargs.items()})

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def observing(module: nn.Module, look: Callable[[object], None]) -> Iterator[None]:
    """Show the output of every call of the module to `look`."""

    def hook(_: nn.Module, args: tuple[object, ...], output: object) -> None:
        look(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replacing(module: nn.Module, value: torch.Tensor) -> Iterator[None]:
    """Give a copy of `value` to the module's first call in place of its first argument."""
    used: list[bool] = []

    def swap(
        _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]] | None:
        if used:
            return None
        used.append(True)
        own = value.clone()
        return ((own, *args[1:]), kwargs) if args else (args, {**kwargs, next(iter(kwargs)): own})

    handle = module.register_forward_pre_hook(swap, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def answering(module: nn.Module, value: torch.Tensor) -> Iterator[None]:
    """Let the module's first call return a copy of `value`."""
    used: list[bool] = []

    def swap(_: nn.Module, args: tuple[object, ...], output: object) -> torch.Tensor | None:
        if used:
            return None
        used.append(True)
        return value.clone()

    handle = module.register_forward_hook(swap)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def skipping(modules: Sequence[nn.Module], length: int | None) -> Iterator[None]:
    """The modules pass their first argument on unchanged, as a tuple of `length` where that is their form."""

    def past(*args: object, **kwargs: object) -> object:
        value = args[0] if args else next(iter(kwargs.values()))
        return value if length is None else (value, *[None] * (length - 1))

    # Set beside the class's own forward; one of the instance's own, somebody's patch, comes back at the end.
    before = [(module, module.__dict__.get("forward")) for module in modules]
    try:
        for module in modules:
            module.__dict__["forward"] = past
        yield
    finally:
        for module, own in before:
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own
