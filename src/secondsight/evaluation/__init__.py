"""Experiments on data sets: measures, records that survive a kill, tables, figures, one report ([M25] §4)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from secondsight.data import open_data
from secondsight.data.grounded import GroundedDataset
from secondsight.encoders.fingerprint import fingerprint
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError

try:
    from secondsight.evaluation import checks as _checks
    from secondsight.evaluation import masked as _masked
    from secondsight.evaluation.grounding import Pointing
    from secondsight.evaluation.report import Results, write
    from secondsight.evaluation.run import EXPERIMENTS, Experiment, Run, Setting, run
except ModuleNotFoundError as problem:
    raise InputError(f"experiments need the package {problem.name!r}: pip install 'secondsight[eval]'") from problem
from secondsight.methods import IntegratedJacobian, Method


class Compare(Pointing):
    """Two or more settings on the same cases: pointing, class by class, and which is almost stochastically larger."""

    name = "compare"

    def tables(self, frame: Any) -> dict[str, Any]:
        """Pointing's tables, and differences of class means against the first setting."""
        tables = super().tables(frame)
        names = list(dict.fromkeys(tables["classes"].setting))
        if len(names) < 2:
            raise InputError("'compare' needs two settings: give another --model, --method or --layer")
        wide = tables["classes"].pivot_table(index="class", columns="setting", values="mean PGE", sort=False)[names]
        changed = wide.sub(wide[names[0]], axis=0)[names[1:]].add_suffix(f", less {names[0]}")
        return {**tables, "differences of mean PGE": changed.reset_index()}


def settings(
    models: Sequence[tuple[str, DualEncoder]],
    methods: Sequence[tuple[str, Method]] = (),
    layers: Sequence[Any] = (),
) -> list[Setting]:
    """Every model under every method at every layer; `layers` may be ("all",), the image side's blocks one by one."""
    made = []
    chosen = list(methods) or [("integrated-jacobian", IntegratedJacobian())]
    for model_name, model in models:
        weights = fingerprint(model)
        for method_name, method in chosen:
            depths: list[Any] = [None]
            if layers:
                depths = [(k, -1) for k in range(model.left.encoder.depth)] if list(layers) == ["all"] else list(layers)
            for layer in depths:
                own = method
                if layer is not None:
                    if "layer" not in {f.name for f in fields(method)} if is_dataclass(method) else True:
                        raise InputError(f"the method {method_name!r} has no layers")
                    own = type(method)(**{**_options(method), "layer": layer})
                parts = [model_name] if len(models) > 1 or len(chosen) < 2 else []
                parts += [method_name] if len(chosen) > 1 or len(models) < 2 else []
                parts += [f"layer {_layer(layer)}"] if layer is not None else []
                # A checkpoint may be written anew under its old name, so weights are told apart by themselves.
                spec: dict[str, Any] = {"model": model_name, "weights": weights, "method": own.name}
                spec["options"] = {k: repr(v) for k, v in _options(own).items()}
                made.append(Setting(model, own, " · ".join(parts), spec))
    return made


def _options(method: Method) -> dict[str, Any]:
    return {f.name: getattr(method, f.name) for f in fields(method)} if is_dataclass(method) else {}


def _layer(layer: Any) -> str:
    return " / ".join(str(part) for part in layer) if isinstance(layer, tuple) else str(layer)


def evaluate(
    name: str,
    data: str | Path | GroundedDataset,
    models: Sequence[tuple[str, DualEncoder]],
    methods: Sequence[tuple[str, Method]] = (),
    *,
    layers: Sequence[Any] = (),
    out: str | os.PathLike[str],
    limit: int | None = None,
    seed: int = 0,
    rule: str = "pixel",
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Results:
    """Run the experiment `name` and write its report under `out`; its tables, and in `figures` and `gallery()` its pictures.

    `data` is a data set or what `open_data` opens, `models` and `methods` are named, `limit` takes the first captions that
    can be judged, `rule` says how maps meet boxes (`measures.inside`), `options` are the experiment's own. A run that was
    stopped goes on where it was when it is started again with the same `out`.
    """
    if name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {name!r}; known: {', '.join(sorted(EXPERIMENTS))}")
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit!r} leaves nothing to look at")
    place = Path(out)
    if place.exists() and not place.is_dir():
        raise InputError(f"{str(out)!r} is a file: give a folder")
    opened = open_data(data) if isinstance(data, str | Path) else data
    try:
        experiment = EXPERIMENTS[name](rule=rule, seed=seed, **options)
    except TypeError as problem:
        raise InputError(f"the experiment {name!r} cannot be made with these options ({problem})") from problem
    chosen = settings(models, methods, layers)
    if name == "compare" and len(chosen) < 2:
        raise InputError("'compare' needs two settings: give another model, method or layer")
    return write(run(experiment, opened, chosen, place, limit=limit, progress=progress), place)


__all__ = ["EXPERIMENTS", "Experiment", "Results", "Run", "Setting", "evaluate", "run", "settings"]
_ = _checks, _masked
