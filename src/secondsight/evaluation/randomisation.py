"""Copies of models with shuffled weights: all of them, or those nearest to the output (Adebayo et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn

from secondsight.encoders.base import Encoder
from secondsight.encoders.host import HostEncoder
from secondsight.inputs.prepared import Prepared
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

_PROBES = {
    "image": Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)),
    "text": "a photograph of two dogs",
}
"""Inputs that tell which weights come before an encoder's blocks."""


def shuffle_weights(model: DualEncoder, seed: int, kept: Iterable[nn.Parameter] = ()) -> DualEncoder:
    """A copy of the model with the values of each parameter shuffled; the model itself is unchanged.

    Vectors, such as biases, stay as they are. The parameters in `kept` do too, and the copy shares them with the model; the
    others are shuffled alike whatever is kept.
    """
    shared = {id(parameter): parameter for parameter in kept}
    copied = copy.deepcopy(model, dict(shared))
    generator = torch.Generator().manual_seed(seed)
    visited: set[int] = set()
    for side in (copied.left, copied.right):
        for parameter in _matrices(side.encoder.module):
            if id(parameter) not in visited:
                visited.add(id(parameter))
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                if id(parameter) not in shared:
                    with torch.no_grad():
                        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copied


def cascade(model: DualEncoder, seed: int, stages: int) -> list[DualEncoder]:
    """Copies whose weights are shuffled from the output down: stage i of n has i/n of each tower's parts shuffled.

    The last one is `shuffle_weights` of the whole model.
    """
    towers = [parts_from_output(side.encoder) for side in (model.left, model.right)]
    copies = []
    for stage in range(1, stages + 1):
        shuffled: set[int] = set()
        for parts in towers:
            for part in parts[: round(len(parts) * stage / stages)]:
                shuffled |= {id(parameter) for parameter in part}
        kept = [p for parts in towers for part in parts for p in part if id(p) not in shuffled]
        copies.append(shuffle_weights(model, seed, kept))
    return copies


def parts_from_output(encoder: Encoder) -> list[list[nn.Parameter]]:
    """An encoder's matrices from its output down: those behind the blocks, of each block, and before the blocks."""
    blocks = [_matrices(block) for block in _blocks(encoder)]
    within = {id(parameter) for block in blocks for parameter in block}
    outside = [p for p in _matrices(encoder.module) if id(p) not in within]
    before = _before_blocks(encoder, outside)
    parts = [[p for p in outside if id(p) not in before], *reversed(blocks), [p for p in outside if id(p) in before]]
    return [part for part in parts if part]


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are shuffled."""
    return [parameter for parameter in module.parameters() if parameter.ndim > 1]


def _blocks(encoder: Encoder) -> Sequence[nn.Module]:
    """The encoder's blocks; of encoders that do not name them, the largest list of `depth` modules."""
    if isinstance(encoder, HostEncoder):
        return encoder.blocks(encoder.module)
    lists = [m for m in encoder.module.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    lists = [m for m in lists if len(m) == encoder.depth]
    if not lists:
        raise InputError(f"the {encoder.kind} encoder does not name its blocks: leave out cascade")
    return list(max(lists, key=lambda m: sum(parameter.numel() for parameter in m.parameters())))


def _before_blocks(encoder: Encoder, parameters: Sequence[nn.Parameter]) -> set[int]:
    """Ids of the parameters that the first block's input depends on, as shuffling each in a copy shows."""
    places = {id(p): name for name, p in encoder.module.named_parameters()}
    tried = copy.deepcopy(encoder)
    weights = dict(tried.module.named_parameters())
    probe: Prepared = encoder.prepare(_PROBES[encoder.kind])
    generator = torch.Generator().manual_seed(0)
    before = set()
    with untouched(tried.module):
        usual = tried.features(probe.tensor, 0)[0].hidden
        for parameter in parameters:
            weight = weights[places[id(parameter)]]
            values = weight.clone()
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(values.flatten()[order].view_as(weight))
            if not torch.equal(tried.features(probe.tensor, 0)[0].hidden, usual):
                before.add(id(parameter))
            weight.copy_(values)
    return before
