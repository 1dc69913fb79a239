"""Models inside other objects: what training and serving put around a model is taken off, or named in a sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from secondsight.support.errors import InputError

_WRAPPED = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "_FabricModule": "_original_module",
    "DeepSpeedEngine": "module",
}
"""Classes that run the module in one of their attributes and add nothing to what it computes."""

_QUANTISED_LIBRARIES = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torchao",
    "bitsandbytes",
    "auto_gptq",
    "gptqmodel",
    "awq",
    "hqq",
    "eetq",
    "optimum.quanto",
)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without `torch.compile`, data parallelism, PEFT and the like around it or around its parts.

    Weights and bare parts are shared, the model itself stays as it is: where a part is wrapped, the modules that hold it
    are shallow copies. Raises `InputError` for PEFT's learned prompts.
    """
    return unwrapped_parts(model)[id(model)]


def unwrapped_parts(model: nn.Module) -> dict[int, nn.Module]:
    """The same for the model and every part of it, by the `id` of each as it was given."""
    known: dict[int, nn.Module] = {}
    _unwrapped(model, known)
    return known


def _unwrapped(model: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    if id(model) in known:
        return known[id(model)]
    known[id(model)] = model
    inner = _inside(model)
    if inner is not None:
        known[id(model)] = _unwrapped(inner, known)
        return known[id(model)]
    parts = {name: None if part is None else _unwrapped(part, known) for name, part in model._modules.items()}
    if any(part is not model._modules[name] for name, part in parts.items()):
        known[id(model)] = copy.copy(model)
        known[id(model)]._modules = parts
    return known[id(model)]


def _inside(model: nn.Module) -> nn.Module | None:
    """The module that a wrapper wraps, None for any other module."""
    for ancestor in type(model).__mro__:
        if _library(ancestor) == "peft" and ancestor.__name__ in ("PeftModel", "PeftMixedModel"):
            return _adapted(model)
        if ancestor.__name__ in _WRAPPED:
            return model._modules.get(_WRAPPED[ancestor.__name__])
    return None


def _adapted(model: nn.Module) -> nn.Module:
    """The model inside a PeftModel, whose layers run their adapters themselves."""
    tuner = model._modules["base_model"]
    inner = None if tuner is None or _library(type(tuner)) != "peft" else tuner._modules.get("model")
    if inner is None:
        raise InputError(
            f"{type(model).__name__} puts learned prompts before its inputs, which none of its layers shows: describe its "
            "sides with ss.TorchEncoder"
        )
    return inner


def _library(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def models_within(holder: nn.Module, recognises: Callable[[nn.Module], bool]) -> dict[str, nn.Module]:
    """The parts of a module that are recognised as models, by their path; each model once, and none inside another."""
    models: dict[str, nn.Module] = {}
    for name, part in holder.named_children():
        if recognises(part):
            candidates = {name: part}
        else:
            candidates = {f"{name}.{path}": model for path, model in models_within(part, recognises).items()}
        models |= {path: model for path, model in candidates.items() if model not in models.values()}
    return models


def check_explainable(model: nn.Module) -> None:
    """`InputError` for a model in which some part cannot be watched or differentiated."""
    for path, part in model.named_modules():
        where = f"{type(part).__name__} {path!r}" if path else type(part).__name__
        if isinstance(part, torch.jit.ScriptModule):
            raise InputError(
                f"{where} is scripted, so that its layers cannot be watched: give the model it was made from"
            )
        if not path and isinstance(part, torch.fx.GraphModule):
            raise InputError(f"{where} is a graph whose layers cannot be watched: give the model it was exported from")
        if _is_sharded(part):
            raise InputError(
                f"{where} spreads its weights over processes: gather them (get_model_state_dict with full_state_dict=True) "
                "and load them into the plain model"
            )
        if _is_quantised(part):
            raise InputError(
                f"{where} has quantised weights, whose operations have no derivative: load the model's float weights "
                "(before quantize_dynamic, or without quantization_config=)"
            )


def class_names(value: object) -> set[str]:
    """The names of an object's class and of the classes that it derives from."""
    return {ancestor.__name__ for ancestor in type(value).__mro__}


def _is_sharded(part: nn.Module) -> bool:
    names = class_names(part)
    weights = part.parameters(recurse=False)
    return bool(names & {"FullyShardedDataParallel", "FSDPModule"}) or any(
        type(weight).__name__ == "DTensor" or hasattr(weight, "ds_tensor") for weight in weights
    )


def _is_quantised(part: nn.Module) -> bool:
    weights = list(part.parameters(recurse=False))
    kinds = [type(part), *map(type, weights)]
    if any(f"{kind.__module__}.".startswith(f"{name}.") for kind in kinds for name in _QUANTISED_LIBRARIES):
        return True
    # Whatever the library is called: weights of one byte, or packed into whole numbers.
    packed = any(weight.itemsize == 1 or not (weight.is_floating_point() or weight.is_complex()) for weight in weights)
    return packed or "qweight" in part._buffers
