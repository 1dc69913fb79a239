"""What `paper` runs and compares with: models, experiments and published numbers, as a YAML file lists them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypedDict

import yaml

from secondsight.evaluation.experiments import EXPERIMENTS
from secondsight.support.errors import InputError
from secondsight.support.files import brief


class Configuration(TypedDict):
    """Models by name, experiments by kind of data, and what the paper states.

    `limits` bounds the captions of an experiment, whatever the data's size. `baselines` are the experiments that also run
    with the paper's other methods, on as many captions as `limits` gives "baselines". `published` are rows of data, model,
    fine-tuning, measure and value; `largest_gains` rows of data, model and the classes that gain most.
    """

    models: dict[str, str]
    experiments: dict[str, list[str]]
    limits: dict[str, int]
    baselines: list[str]
    published: list[list[Any]]
    largest_gains: list[list[Any]]


def configuration(path: str | os.PathLike[str] | None = None) -> Configuration:
    """The package's configuration, or that of a YAML file of the same form."""
    try:
        if path is None:
            text = files("secondsight.evaluation.studies").joinpath("paper.yaml").read_text(encoding="utf-8")
        else:
            text = Path(path).read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise InputError(f"{str(path)!r} cannot be read as YAML ({brief(problem)})") from problem
    fault = _fault(content)
    if fault:
        raise InputError(f"{str(path)!r} {fault}")
    return {
        "models": content["models"],
        "experiments": content.get("experiments", {}),
        "limits": content.get("limits", {}),
        "baselines": content.get("baselines", []),
        "published": content.get("published", []),
        "largest_gains": content.get("largest_gains", []),
    }


def _fault(content: Any) -> str:
    """Why a configuration cannot be used; empty if it can."""
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict) or not models or not _all_texts([*models, *models.values()]):
        return "needs 'models', names with what ss.load takes"
    unknown = [key for key in content if key not in Configuration.__annotations__]
    if unknown:
        return f"has an unknown key {str(unknown[0])[:40]!r}; known: {', '.join(Configuration.__annotations__)}"
    experiments = content.get("experiments", {})
    if not isinstance(experiments, dict) or not all(map(_is_experiment_list, experiments.items())):
        return "needs lists of experiments by kind of data under 'experiments'"
    baselines = content.get("baselines", [])
    if not isinstance(baselines, list) or not _all_texts(baselines):
        return "needs a list of experiments under 'baselines'"
    unlisted = next(
        (name for names in (*experiments.values(), baselines) for name in names if name not in EXPERIMENTS), None
    )
    if unlisted is not None:
        return f"names an unknown experiment {unlisted[:40]!r}; known: {', '.join(sorted(EXPERIMENTS))}"
    rows = content.get("published", [])
    if not isinstance(rows, list) or not all(map(_is_published, rows)):
        return "needs rows of data, model, fine-tuning, measure and value under 'published'"
    limits = content.get("limits", {})
    if not isinstance(limits, dict) or not all(type(n) is int and n > 0 for n in limits.values()):
        return "needs numbers of captions by experiment under 'limits'"
    gains = content.get("largest_gains", [])
    if not isinstance(gains, list) or not all(map(_is_gains, gains)):
        return "needs rows of data, model and a list of classes under 'largest_gains'"
    return ""


def _is_experiment_list(item: tuple[Any, Any]) -> bool:
    kind, names = item
    return isinstance(names, list) and _all_texts([kind, *names])


def _is_published(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 5 and _all_texts(row[:4]) and type(row[4]) in (int, float)


def _is_gains(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 3 and isinstance(row[2], list) and _all_texts([*row[:2], *row[2]])


def _all_texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
