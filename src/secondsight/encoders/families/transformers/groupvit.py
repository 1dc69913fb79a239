"""GroupViT's image side: patches that are assigned to groups, each to one, and groups whose mean is the embedding.

Which group a patch goes to is a choice, which has no derivative: the choice that the full input makes is held. The function
that is explained is then smooth, and at the input it is the host's own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secondsight.algebra.layout import Layout
from secondsight.encoders.base import Context, Encoder, Head, Reference, States
from secondsight.encoders.families.transformers.encoders import HubImageEncoder
from secondsight.inputs.images import grid_layout
from secondsight.inputs.prepared import Prepared


class GroupVitImage(HubImageEncoder):
    """The layers are the blocks of the first stage, where positions are patches, and behind them the group tokens."""

    pool = "mean of groups"
    # Pixels move the choice of groups, so that their layer has no context to hold it by.
    from_input = Encoder.from_input

    def reference_key(self, context: Context) -> Hashable:
        """The input itself, whose choice of groups is held."""
        return super().reference_key(context), context.tensor.double().cpu().numpy().tobytes()

    def reference_features(self, tensor: Tensor, layer: int, context: Context) -> Reference:
        """The reference's hidden states, and its embedding with the input's choice of groups."""
        with _holding(self.module, self._choices(context.tensor)):
            return super().reference_features(tensor, layer, context)

    def head(self, layer: int, context: Context, dtype: torch.dtype) -> Head:
        """The host from a layer on, with the input's choice of groups."""
        choices = [choice.to(dtype) for choice in self._choices(context.tensor)]
        head, module = super().head(layer, context, dtype), self.in_precision(dtype)

        def held(x: Tensor) -> Tensor:
            with _holding(module, choices):
                return head(x)

        return held

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """The patches, then the group tokens."""
        assert self.patch is not None  # its configuration has one
        rows, columns = (n // p for n, p in zip(prepared.tensor.shape[-2:], self.patch, strict=True))
        groups = range(rows * columns, len(states.hidden))
        return grid_layout(prepared.placement, (rows, columns), dict.fromkeys(groups, "group"))

    def _choices(self, tensors: Tensor) -> list[Tensor]:
        """Of every stage that assigns: which position goes to which group, (1, group, position) of zeros and ones."""
        choices: list[Tensor] = []

        def noting(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def assign(scores: Tensor, gumbel: bool = True, hard: bool = True) -> Tensor:
                weights = original(scores, gumbel=gumbel, hard=hard)
                if hard:
                    choices.append(weights.detach().round())
                return weights

            return assign

        module: Any = self.module
        with _assigning(module, [noting] * len(_assigners(module))), torch.no_grad():
            self.encode(module, self.to_model(tensors))
        return choices


def _assigners(module: nn.Module) -> list[Any]:
    """The attentions that assign positions to groups."""
    tower: Any = module.tower
    return [stage.downsample.assign for stage in tower.encoder.stages if stage.downsample is not None]


@contextmanager
def _assigning(
    module: nn.Module, changes: Sequence[Callable[[Callable[..., Tensor]], Callable[..., Tensor]]]
) -> Iterator[None]:
    """Change how each attention assigns, within the context."""
    assigners: list[nn.Module] = _assigners(module)
    try:
        for assigner, change in zip(assigners, changes, strict=True):
            assigner.__dict__["get_attn"] = change(assigner.get_attn)  # type: ignore[arg-type]  # a method
        yield
    finally:
        for assigner in assigners:
            assigner.__dict__.pop("get_attn", None)


@contextmanager
def _holding(module: nn.Module, choices: Sequence[Tensor]) -> Iterator[None]:
    """Assign as `choices` say, whatever the scores."""

    def holding(choice: Tensor) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
        def change(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def assign(scores: Tensor, gumbel: bool = True, hard: bool = True) -> Tensor:
                return choice.expand(len(scores), -1, -1) if hard else original(scores, gumbel=gumbel, hard=hard)

            return assign

        return change

    with _assigning(module, [holding(choice) for choice in choices]):
        yield
