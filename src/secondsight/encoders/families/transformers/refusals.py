"""What to do with models of transformers that are no dual encoder, judged by what they have."""

from __future__ import annotations

from typing import Any

from torch import nn

from secondsight.support.errors import InputError


def blocks_path(module: nn.Module) -> str | None:
    """The name of a module's list of blocks: the longest of those that lie least deep."""
    lists = [(n, m) for n, m in module.named_modules() if n and isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        return None
    least = min(name.count(".") for name, _ in lists)
    return max((entry for entry in lists if entry[0].count(".") == least), key=lambda entry: len(entry[1]))[0]


def refusal(model: nn.Module, name: str) -> InputError:
    """The error for a model of transformers that is no known dual encoder: what it is, and the remedy that fits.

    `model` may be without weights; `name` is how the user called it, such as "hf:NAME", or the name of its class.
    """
    config: Any = getattr(model, "config", None)
    what = f"{name} ({getattr(config, 'model_type', 'of no known type')})"
    if getattr(config, "model_type", None) == "dpr" and not hasattr(model, "span_predictor"):
        return InputError(
            f"{what} is one side of DPR: load both and wrap them together, "
            "ss.wrap((question_encoder, context_encoder), tokenizer=tokenizer)"
        )
    if hasattr(model, "prompts_generator"):
        return InputError(
            f"{what} changes its text embedding by the video that it is compared with: it is no dual encoder, "
            "explain the CLIP that it was made from"
        )
    if hasattr(model, "get_text_features"):
        return InputError(
            f"{what} is a dual encoder that secondsight does not know: describe its sides with ss.TorchEncoder "
            f"(look at {_towers(model)})"
        )
    if _generates(model):
        return InputError(
            f"{what} generates text, and compares no two embeddings: give a dual encoder, or describe two sides of "
            f"your own with ss.TorchEncoder (look at {_towers(model)})"
        )
    encoder = getattr(model, getattr(model, "base_model_prefix", "") or "base_model", model)
    inside = "" if encoder is model else f", whose encoder is model.{model.base_model_prefix}"
    modality = _modality(model)
    blocks = blocks_path(model)
    layers = f"layers such as '{blocks}.0'" if blocks else "its layers by name"
    if modality == "text":
        known = name.removeprefix("hf:") if name.startswith("hf:") else "NAME"
        return InputError(
            f"{what} is one text encoder{inside}: for pairs of texts use sentence-transformers, which says how it pools "
            f"(ss.load('st:{known}')), or describe it with ss.TorchEncoder ({layers})"
        )
    if modality is not None:
        paired = ", or join it to a text encoder as VisionTextDualEncoderModel" if modality == "image" else ""
        return InputError(
            f"{what} is one encoder of the kind {modality!r}{inside}: for pairs of that kind describe it with "
            f"ss.TorchEncoder ({layers}){paired}"
        )
    return InputError(
        f"{what} is no dual encoder that secondsight knows: describe two sides with ss.TorchEncoder (look at {_towers(model)})"
    )


def _generates(model: Any) -> bool:
    return bool(getattr(model, "can_generate", lambda: False)())


def _modality(model: Any) -> str | None:
    """The only kind of input that a model takes; None where it takes several, or does not say."""
    given: str | tuple[str, ...] = getattr(model, "input_modalities", None) or ()
    kinds = (given,) if isinstance(given, str) else tuple(given)
    if len(kinds) > 1:
        return None
    inputs = {"input_ids": "text", "pixel_values": "image", "input_values": "audio", "input_features": "audio"}
    by_name = inputs.get(str(getattr(model, "main_input_name", "")))
    return kinds[0] if kinds else by_name


def _towers(model: nn.Module) -> str:
    """The models inside a model, as attributes to look at."""
    from transformers import PreTrainedModel

    names: list[str] = []
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{other}.") for other in names)
        holds = any(isinstance(m, PreTrainedModel) for m in module.modules() if m is not module)
        if name and isinstance(module, PreTrainedModel) and not inner and not holds:
            names.append(name)
    return ", ".join(f"model.{name}" for name in names[:4]) or "its submodules"
