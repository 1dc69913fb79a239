"""The same run on several machines: Ray Data reads and prepares, actors decompose, and each writes whole parts itself.

A part's name is made of its keys, so work that Ray repeats after a machine was lost writes the same file again: nothing is
lost, nothing doubled. All machines need to see the folder of the store, and the data.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from secondsight.encoders.registry import load
from secondsight.methods import IntegratedJacobian, Method
from secondsight.model import DualEncoder
from secondsight.scale.decompose import Engine, Progress, Report, prepared_input, write_rows
from secondsight.scale.place import placed
from secondsight.scale.sources import Source
from secondsight.scale.store import create_store
from secondsight.support.errors import InputError


def decompose_with_ray(
    source: Source,
    model: str | DualEncoder,
    out: str | os.PathLike[str],
    method: Method | None = None,
    *,
    dtype: str = "float16",
    address: str | None = None,
    actors: int = 1,
    gpus: float = 0,
    cpus: float = 1,
    device: str | None = None,
    precision: str | None = None,
    batch: int | None = None,
    max_memory: float | None = None,
    truncate: bool = True,
    part: int = 64,
    progress: Progress | None = None,
) -> Report:
    """`decompose` by `actors` workers of a Ray cluster, each with `cpus` cores and `gpus` GPUs (a share of one is fine).

    `address` is the cluster's ("auto" the one that this machine belongs to); None starts Ray on this machine. `model` is a
    name that every worker loads, or the model itself, which is sent to them. Raises `InputError` where there is no cluster.
    """
    method = method or IntegratedJacobian()
    _started(address)
    own = placed(load(model), None, precision) if isinstance(model, str) else model
    side = own.side(source.kind)
    store = create_store(out, own, method, side.index, dtype)
    todo = [i for i, key in enumerate(source.keys) if key not in store]
    report = Report(len(source), skipped=len(source) - len(todo))
    if not todo:
        return report
    shared = ray.put(source)
    encoder = ray.put(side.encoder.for_preparing())
    blocks = -(-len(todo) // part)
    rows = ray.data.from_items([{"index": i} for i in todo], override_num_blocks=blocks)
    prepared = rows.map_batches(
        _prepare, fn_kwargs={"source": shared, "encoder": encoder, "truncate": truncate}, batch_size=part
    )
    options = {
        "model": model if isinstance(model, str) else ray.put(model),
        "side": side.index,
        "method": method,
        "folder": str(Path(out).absolute()),
        "dtype": dtype,
        "keys": shared,
        "batch": batch,
        "max_memory": max_memory,
        "device": device or ("cuda" if gpus else None),
        "precision": precision,
    }
    results = _by_actors(prepared, _Decomposer, {"options": options}, part, actors, gpus, cpus)
    for row in results.iter_rows():
        report.done += int(row["done"])
        report.problems.update(json.loads(row["problems"]))
        if progress:
            progress(report)
    report.check()
    return report


def _prepare(batch: dict[str, np.ndarray], source: Any, encoder: Any, truncate: bool) -> dict[str, Any]:
    """Prepared inputs, pickled: Arrow has no column for them."""
    source, encoder = _local(source), _local(encoder)
    made = [prepared_input(source, encoder, int(i), truncate) for i in batch["index"]]
    return {"index": batch["index"], "prepared": np.array([pickle.dumps(one) for _, one in made], dtype=object)}


def _local(value: Any) -> Any:
    return ray.get(value) if isinstance(value, ray.ObjectRef) else value


class _Decomposer:
    """An actor: one model, one part a call."""

    def __init__(self, options: dict[str, Any]) -> None:
        model = _local(options["model"])
        dual = load(model) if isinstance(model, str) else model
        dual = placed(dual, options["device"], options["precision"])
        self.options, self.source = options, _local(options["keys"])
        side = (dual.left, dual.right)[options["side"]]
        self.engine = Engine(side, options["method"], batch=options["batch"], max_memory=options["max_memory"])

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        group = [(int(i), pickle.loads(one)) for i, one in zip(batch["index"], batch["prepared"], strict=True)]
        rows, problems = self.engine.rows(self.source.keys, group)
        if rows:
            write_rows(Path(self.options["folder"]), rows, self.options["dtype"])
        return {"done": [len(rows)], "problems": [json.dumps(problems)]}


def explain_with_ray(
    name: str,
    data: str,
    models: Sequence[str],
    methods: Sequence[tuple[str, Method]] = (),
    *,
    layers: Sequence[Any] = (),
    out: str | os.PathLike[str],
    limit: int | None = None,
    address: str | None = None,
    actors: int = 1,
    gpus: float = 0,
    cpus: float = 1,
    device: str | None = None,
    part: int = 16,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> int:
    """Explain the pairs that an experiment will ask for, on a cluster; `evaluate` with the same arguments then reads them.

    Returns how many captions were looked at. What is there already is not made again, so this too goes on where it was
    stopped. All machines need to see the data and the folder `out`. Raises `InputError` as `evaluate` does.
    """
    from secondsight.data import open_data
    from secondsight.evaluation import EXPERIMENTS

    if name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {name!r}; known: {', '.join(sorted(EXPERIMENTS))}")
    _started(address)
    opened, experiment = open_data(data), EXPERIMENTS[name](**options)
    wanted: list[int] = []
    for index in range(len(opened)):
        if limit is not None and len(wanted) >= limit:
            break
        try:
            if experiment.wants(opened[index]):
                wanted.append(index)
        except InputError:
            continue
    if not wanted:
        return 0
    rows = ray.data.from_items([{"index": i} for i in wanted], override_num_blocks=-(-len(wanted) // part))
    asked = {
        "data": data,
        "models": list(models),
        "methods": list(methods),
        "layers": list(layers),
        "cache": str(Path(out).absolute() / "pairs"),
        "device": device or ("cuda" if gpus else None),
    }
    done = _by_actors(rows, _Explainer, {"asked": asked}, part, actors, gpus, cpus)
    seen = 0
    for row in done.iter_rows():
        seen += int(row["seen"])
        if progress:
            progress(seen, len(wanted))
    return seen


class _Explainer:
    """An actor: its own models, the pairs of some captions a call, each kept in a file of its own."""

    def __init__(self, asked: dict[str, Any]) -> None:
        from secondsight.data import open_data
        from secondsight.evaluation import settings

        named = [(name, placed(load(name), asked["device"])) for name in asked["models"]]
        self.data = open_data(asked["data"])
        self.settings = settings(named, asked["methods"], asked["layers"])
        for setting in self.settings:
            setting.cache = Path(asked["cache"])

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        for index in batch["index"]:
            example = self.data[int(index)]
            for setting in self.settings:
                # What cannot be explained is listed by the experiment, when it asks for it.
                with contextlib.suppress(InputError):
                    setting.explain(example)
        return {"seen": [len(batch["index"])]}


def _by_actors(rows: Any, actor: type, given: dict[str, Any], part: int, actors: int, gpus: float, cpus: float) -> Any:
    """Rows through a pool of actors, `part` of them a call."""
    return rows.map_batches(
        actor,
        fn_constructor_kwargs=given,
        batch_size=part,
        concurrency=actors,
        num_gpus=gpus or None,
        num_cpus=cpus,
    )


def _started(address: str | None) -> None:
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
        except ConnectionError as problem:
            raise InputError(f"there is no Ray cluster at {address!r} ({problem})") from problem
    ray.data.DataContext.get_current().enable_progress_bars = False
