"""Contrastive fine-tuning of open_clip models and the scenes model ([M25] §4.1)."""

from __future__ import annotations

from secondsight.support.errors import InputError

try:
    from secondsight.training.finetune import Recipe, finetune, tuned_name
except ModuleNotFoundError as problem:
    raise InputError(f"fine-tuning needs the package {problem.name!r}: pip install 'secondsight[train]'") from problem

__all__ = ["Recipe", "finetune", "tuned_name"]
