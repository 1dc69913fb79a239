"""Averaged slopes for activations with kinks.

The derivative of a ReLU network along a path is a sum of thousands of steps, so that any rule that samples it converges
only like 1/nodes: EfficientNet's last stage misses the difference of embeddings by 3e-3 with 256 Gauss nodes. But every
node stands for a cell of [0, 1], and over a cell the mean slope of an elementwise activation is known: rise over run
between the cell's edges, exact where its input is linear in α. With these slopes in place of those at the node itself,
the sums telescope, so they are complete for any number of nodes in a piecewise linear network, and single contributions
converge about ten times sooner there (16 nodes for the accuracy of 200). Smooth parts still see the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp

KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid)
"""Elementwise activations whose derivative jumps."""

Slopes = list[tuple[nn.Module, Tensor]]
"""Mean slopes, (node, …) each, in the order in which the activations were called."""


def kinked(module: nn.Module) -> list[nn.Module]:
    """The module's activations with kinks."""
    return [m for m in module.modules() if isinstance(m, KINKED)]


def called_modules(head: Callable[[Tensor], Tensor], modules: Sequence[nn.Module], at: Tensor) -> list[nn.Module]:
    """The modules that the head calls; above a layer there may be none of them."""
    called: list[nn.Module] = []
    if modules:
        with torch.no_grad(), _seeing(modules, lambda module, _, __: called.append(module)):
            head(at[None])
    return list(dict.fromkeys(called))


@contextmanager
def _seeing(
    modules: Sequence[nn.Module], replace: Callable[[nn.Module, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """`replace(module, input, output)` after every call of one of the modules; what it returns takes the output's place."""
    inputs: dict[nn.Module, Tensor] = {}

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs[module] = args[0]
        # In-place activations would overwrite the input that the slope is taken over.
        return (args[0].clone(), *args[1:]) if getattr(module, "inplace", False) else args

    def after(module: nn.Module, _: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return replace(module, inputs.pop(module), output)

    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def mean_slopes(head: Callable[[Tensor], Tensor], modules: Sequence[nn.Module], at_edges: Tensor) -> Slopes:
    """Slopes of every activation between neighbouring rows of `at_edges`, the hidden states at the cells' edges."""
    slopes: Slopes = []

    def record(module: nn.Module, z: Tensor, y: Tensor) -> None:
        run, rise = z[1:] - z[:-1], y[1:] - y[:-1]
        still = run == 0
        slope = rise / torch.where(still, torch.ones_like(run), run)
        if bool(still.any()):
            at = z[:-1].clone()
            plain = jvp(lambda x: type(module).forward(module, x.clone()), (at,), (torch.ones_like(at),))[1]
            slope = torch.where(still, plain, slope)
        slopes.append((module, slope))

    with torch.no_grad(), _seeing(modules, record):
        head(at_edges)
    return slopes


def averaged(head: Callable[[Tensor], Tensor], slopes: Slopes) -> Callable[[Tensor], Tensor]:
    """The head with the same values, but mean slopes as its activations' derivatives, row by row."""
    modules = list(dict.fromkeys(module for module, _ in slopes))

    def run(x: Tensor) -> Tensor:
        order = iter(slopes)

        def replace(module: nn.Module, z: Tensor, y: Tensor) -> Tensor:
            _, slope = next(order)
            return y.detach() + slope * (z - z.detach())

        with _seeing(modules, replace):
            return head(x)

    return run
