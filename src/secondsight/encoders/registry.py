"""Names of models, and model objects, as dual encoders."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

from torch import nn
from torch.export import ExportedProgram

from secondsight.encoders.names import FAMILIES as FAMILIES
from secondsight.encoders.names import Family
from secondsight.encoders.names import known_name as known_name
from secondsight.encoders.wrappers import check_explainable, models_within, unwrapped
from secondsight.model import DualEncoder
from secondsight.support.errors import AssumptionWarning, InputError
from secondsight.support.files import shortened


def _function(path: str) -> Callable[..., DualEncoder]:
    module, name = path.split(":")
    with warnings.catch_warnings():
        # Libraries of models use functions that torch is about to drop: nothing that our users could change.
        warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        function: Callable[..., DualEncoder] = getattr(import_module(module), name)
    return function


def load(name: Any, *, prompts: Any = None) -> DualEncoder:
    """The model of that name: "builtin", "open_clip:ARCHITECTURE/TAG_OR_PATH", "hf:NAME_OR_FOLDER", "st:NAME_OR_FOLDER".

    `prompts` as in `wrap`. Raises `InputError` for unknown names, and where weights are neither on this machine nor
    reachable.
    """
    family = known_name(name)
    loader, options = _function(family.loader), _options(family, name, prompts)
    return loader(name.removeprefix(family.prefix), **options) if family.prefix.endswith(":") else loader()


def _options(family: Family, name: str, prompts: Any) -> dict[str, Any]:
    if prompts is None:
        return {}
    if not family.prompts:
        raise InputError(
            f"{name} has no prompts: only sentence-transformers models take prompts=; write it into the text"
        )
    return {"prompts": prompts}


def as_model(model: Any) -> DualEncoder:
    """A dual encoder, or the model of a name; the one that was named last stays loaded. `InputError` for anything else."""
    if isinstance(model, DualEncoder):
        return model
    if isinstance(model, str):
        return _loaded(model)
    if isinstance(model, nn.Module):
        raise InputError(f"{type(model).__name__} is not a dual encoder yet: wrap it first, ss.wrap(model)")
    raise InputError(
        f"{shortened(model)} is not a model: give a name such as 'builtin', or what ss.load or ss.wrap gave"
    )


@lru_cache(maxsize=1)
def _loaded(name: str) -> DualEncoder:
    return load(name)


def wrap(
    model: Any, preprocess: Any = None, tokenizer: Any = None, *, name: str | None = None, prompts: Any = None
) -> DualEncoder:
    """A dual encoder around a model object that the user already has; the model stays as it is.

    For open_clip, `preprocess` maps a PIL image to a tensor (3, H, W) and `tokenizer` a list of strings to token ids; for
    transformers `preprocess` is the model's processor, or its image processor or feature extractor beside a `tokenizer`.
    Without them only model-ready tensors can be explained. What `torch.compile`, data parallelism, PEFT or Lightning put
    around a model is taken off; the tuple that open_clip gives is a model and its `preprocess`.
    A pair of transformers' models are the two sides of one, such as DPR's (question_encoder, context_encoder).

    `prompts` are the texts that precede queries and documents of a sentence-transformers model, ("query: ", "passage: "),
    or their names among the model's own; "" for none, by default what its `encode_query` and `encode_document` take.

    Raises `InputError` for objects of an unknown family, and for models that are quantised, scripted or spread over
    processes.
    """
    for option, value in (("preprocess", preprocess), ("tokenizer", tokenizer)):
        if isinstance(value, str):
            raise InputError(
                f"{option}={value!r} is a name: give the object, such as open_clip.get_tokenizer(…) or "
                "AutoProcessor.from_pretrained(…)"
            )
    pair = _pair(model)
    if pair is not None:
        called = " and ".join(type(part).__name__ for part in pair)
        options = _options(_PAIRS, called, prompts)
        return _function(str(_PAIRS.wrapper))(pair, preprocess, tokenizer, name or called, **options)
    if isinstance(model, tuple) and model and isinstance(model[0], nn.Module):
        model, *transforms = model
        preprocess = (transforms or None) if preprocess is None else preprocess
    if isinstance(preprocess, (tuple, list)):
        # open_clip gives a transform for training and one for evaluation.
        preprocess = preprocess[-1]
    if not isinstance(model, nn.Module):
        remedy = "the model that it was exported from" if isinstance(model, ExportedProgram) else "a model object"
        raise InputError(f"cannot wrap {type(model).__name__}: give {remedy}, or load a name with ss.load")
    bare = unwrapped(model)
    path, inner = _known_part(bare)
    check_explainable(inner)
    family, kind = _family(inner), type(inner).__name__
    assert family is not None  # it is known
    options = _options(family, kind, prompts)
    try:
        dual = _function(str(family.wrapper))(inner, preprocess, tokenizer, name or kind, **options)
    except InputError as problem:
        if not path:
            raise
        raise InputError(f"of {type(bare).__name__} only {path} could be explained, but {problem}") from problem
    _warn_of_rest(bare, path, inner)
    return dual


_PAIRS = next(family for family in FAMILIES if family.pairs)


def _pair(model: Any) -> tuple[nn.Module, nn.Module] | None:
    """Two models of the family that takes them as two sides; None for anything else."""
    if not isinstance(model, tuple) or len(model) != 2 or not all(isinstance(part, nn.Module) for part in model):
        return None
    left, right = (unwrapped(part) for part in model)
    for part in (left, right):
        check_explainable(part)
    return (left, right) if _PAIRS.recognises(left) and _PAIRS.recognises(right) else None


def _known_part(model: nn.Module) -> tuple[str, nn.Module]:
    """A model of a known family with the path "", or the only one within a module that holds it."""
    if _family(model) is not None:
        return "", model
    name, held = type(model).__name__, models_within(model, lambda part: _family(part) is not None)
    if not held:
        check_explainable(model)
        raise InputError(f"{name} is not a model that secondsight knows: describe its sides with ss.TorchEncoder")
    if len(held) > 1:
        parts = ", ".join(f"{path} ({type(part).__name__})" for path, part in held.items())
        first = re.sub(r"\.(\d+)", r"[\1]", f"model.{next(iter(held))}")
        raise InputError(
            f"{name} holds several models, {parts}: wrap one of them, as in ss.wrap({first}), or describe the sides with "
            "ss.TorchEncoder"
        )
    return next(iter(held.items()))


def _warn_of_rest(model: nn.Module, path: str, inner: nn.Module) -> None:
    """Warn of weights of a model that the part to be explained does not use."""
    within = {id(weight) for weight in inner.parameters()}
    others = [key for key, weight in model.named_parameters() if id(weight) not in within]
    if others:
        names = list(dict.fromkeys(key.rpartition(".")[0] or key for key in others))
        warnings.warn(
            f"{type(model).__name__} is explained by its {path} ({type(inner).__name__}) alone, without "
            f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}: describe its sides with ss.TorchEncoder if these matter",
            AssumptionWarning,
            stacklevel=3,
        )


def _family(model: nn.Module) -> Family | None:
    return next((f for f in FAMILIES if f.wrapper is not None and f.recognises(model)), None)
