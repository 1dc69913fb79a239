"""Contexts for every change to a user's model and to torch's global switches, which undo it also after exceptions."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle

from secondsight.support.errors import InputError

_LOCK = threading.RLock()
"""Held during every change below: modes, hooks and switches belong to the process, not to a thread."""

if hasattr(os, "register_at_fork"):
    # A process forked while another thread holds the lock would wait for a thread that it does not have.
    os.register_at_fork(after_in_child=lambda: globals().update(_LOCK=threading.RLock()))


@contextmanager
def untouched(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, checkpointing or autocast; restores these and the random state at the end.

    Threads take turns: each waits here until the previous one has restored everything.
    """
    with _LOCK:
        yield from _untouched(modules)


def _untouched(modules: Sequence[nn.Module]) -> Iterator[None]:
    modes = [(m, m.training) for module in modules for m in module.modules()]
    # Checkpointing has no forward-mode derivative, and some libraries use it in evaluation mode too.
    checkpointing = [
        (m, name) for m, _ in modes for name in ("grad_checkpointing", "gradient_checkpointing") if vars(m).get(name)
    ]
    # Transformers adds a hook with checkpointing that calls requires_grad_, which functional derivatives do not allow.
    gradient_hooks = [
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
        for module, hooks in gradient_hooks:
            for key, hook in hooks.items():
                if getattr(hook, "__name__", "") == "make_inputs_require_grads":
                    del module._forward_hooks[key]
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            for device in ("cpu", "cuda"):
                stack.enter_context(torch.autocast(device, enabled=False))
            stack.enter_context(_uncompiled())
            if any(isinstance(module, nn.RNNBase) for module, _ in modes):
                stack.enter_context(_plain_recurrence())
            yield
    finally:
        for module, training in modes:
            module.training = training
        for module, name in checkpointing:
            setattr(module, name, True)
        for module, hooks in gradient_hooks:
            module._forward_hooks.clear()
            module._forward_hooks.update(hooks)
        torch.set_rng_state(random_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run what `torch.compile` compiled as it was written: compiled code calls no hooks and cannot be recorded."""
    # Where the compiler was never imported nothing is compiled, and importing it takes a second.
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _plain_recurrence() -> Iterator[None]:
    """Run LSTMs and GRUs as single operations: the fused ones of oneDNN and cuDNN lack derivatives."""
    libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    enabled = [library.enabled for library in libraries]
    try:
        for library in libraries:
            library.enabled = False
        yield
    finally:
        for library, value in zip(libraries, enabled, strict=True):
            library.enabled = value


@contextmanager
def differentiable() -> Iterator[None]:
    """Use attention kernels with forward-mode derivatives, which fused kernels lack.

    Raises `InputError` where torch has no such derivative of another operation.
    """
    with _LOCK:
        fast_path = torch.backends.mha.get_fastpath_enabled()
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            with sdpa_kernel(SDPBackend.MATH):
                yield
        except NotImplementedError as problem:
            operation = re.search(r"forward AD with (\w+)", str(problem))
            if operation is None:
                raise
            raise InputError(
                f"torch has no forward derivative of the operation {operation[1]}, which the model runs above the layer: "
                "use a later layer, or a model without it"
            ) from problem
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)


def first_not_finite(module: nn.Module, run: Callable[[], object]) -> str:
    """Which submodule outputs NaN or infinity first while `run` uses the module, in words; empty if none does."""
    sources: list[str] = []

    def look_at(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, args: tuple[object, ...], output: object) -> None:
            if sources or not _has_not_finite(output):
                return
            weights = [key for key, value in part.named_parameters() if _has_not_finite(value)]
            cause = f", whose {weights[0]!r} holds such values" if weights else ""
            sources.append(f"{type(part).__name__} {name!r}{cause}")

        return hook

    with ExitStack() as stack:
        for name, part in module.named_modules():
            stack.enter_context(part.register_forward_hook(look_at(name)))
        run()
    return sources[0] if sources else ""


def _has_not_finite(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() and not bool(torch.isfinite(value).all())
    if isinstance(value, dict):
        return any(map(_has_not_finite, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_not_finite, value))


# Contexts with one temporary hook each: torch removes a hook at the end of a `with` block, also after exceptions.


def capturing(module: nn.Module, arguments: dict[str, Any]) -> RemovableHandle:
    """Copy the arguments of the module's first call to `arguments["args"]` and `arguments["kwargs"]`.

    Tensors are cloned because some modules change their inputs in place.
    """

    def copy(value: object) -> object:
        return value.clone() if isinstance(value, torch.Tensor) else value

    def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if "args" not in arguments:
            arguments.update(args=tuple(map(copy, args)), kwargs={name: copy(v) for name, v in kwargs.items()})

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def observing(module: nn.Module, observe: Callable[[object], None]) -> RemovableHandle:
    """Call `observe` with the output of every call of the module."""

    def hook(_: nn.Module, args: tuple[object, ...], output: object) -> None:
        observe(output)

    return module.register_forward_hook(hook)


@contextmanager
def following(module: nn.Module, path: list[str]) -> Iterator[None]:
    """Keep in `path` the submodules that are running, outermost first, each as its class and name."""

    def enter(name: str) -> Callable[..., None]:
        return lambda part, *_: path.append(f"{type(part).__name__} {name!r}" if name else type(part).__name__)

    def leave(*_: object) -> None:
        path.pop()

    with ExitStack() as stack:
        for name, part in module.named_modules():
            stack.enter_context(part.register_forward_pre_hook(enter(name)))
            stack.enter_context(part.register_forward_hook(leave))
        yield


def replacing(module: nn.Module, value: torch.Tensor) -> RemovableHandle:
    """Pass a copy of `value` to the module's first call instead of its first argument."""
    replacements = [value]

    def hook(
        _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]] | None:
        if not replacements:
            return None
        replacement = replacements.pop().clone()
        if args:
            return (replacement, *args[1:]), kwargs
        return args, {**kwargs, next(iter(kwargs)): replacement}

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def answering(module: nn.Module, value: torch.Tensor) -> RemovableHandle:
    """Make the module's first call return a copy of `value`."""
    replacements = [value]

    def hook(_: nn.Module, args: tuple[object, ...], output: object) -> torch.Tensor | None:
        return replacements.pop().clone() if replacements else None

    return module.register_forward_hook(hook)


@contextmanager
def skipping(modules: Sequence[nn.Module], length: int | None) -> Iterator[None]:
    """Make the modules return their first argument unchanged, as the first of a tuple of `length` unless that is None.

    No hook can do this: a module with hooks still runs its `forward`.
    """

    def forward(*args: object, **kwargs: object) -> object:
        value = args[0] if args else next(iter(kwargs.values()))
        return value if length is None else (value, *[None] * (length - 1))

    # A user may have patched `forward` on the instance; the patch is restored at the end.
    patches = [(module, module.__dict__.get("forward")) for module in modules]
    try:
        for module in modules:
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, patch in patches:
            if patch is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = patch
