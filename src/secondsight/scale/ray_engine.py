"""`decompose` on several machines: Ray Data reads and prepares inputs, actors decompose them and write complete part files.

A part file is named after its keys, so work that Ray repeats after losing a machine writes the same file again: nothing is
lost or duplicated. All machines need access to the data and to the folder of the store.
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
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.scale.decompose import Engine, Progress, Report, check_texts, prepared_input, write_rows
from secondsight.scale.place import move_model
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
    connect(address)
    dual = move_model(load(model), None, precision) if isinstance(model, str) else model
    method = dual.storable(method)
    side = dual.collection_side(source.kind)
    store = create_store(out, dual, method, side.index, dtype)
    check_texts(source, store)
    todo = [i for i, key in enumerate(source.keys) if key not in store]
    report = Report(len(source), skipped=len(source) - len(todo))
    if not todo:
        return report
    shared = ray.put(source)
    encoder = ray.put(side.encoder.for_preparing())
    rows = ray.data.from_items([{"index": i} for i in todo], override_num_blocks=-(-len(todo) // part))
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
    results = by_actors(prepared, _Decomposer, {"options": options}, part, actors, gpus, cpus)
    for row in results.iter_rows():
        report.done += int(row["done"])
        report.problems.update(json.loads(row["problems"]))
        if progress:
            progress(report)
    report.check()
    return report


def _prepare(batch: dict[str, np.ndarray], source: Any, encoder: Any, truncate: bool) -> dict[str, Any]:
    """Prepared inputs, pickled because Arrow has no column type for them."""
    source, encoder = _local(source), _local(encoder)
    prepared = [prepared_input(source, encoder, int(i), truncate) for i in batch["index"]]
    return {"index": batch["index"], "prepared": np.array([pickle.dumps(entry) for _, entry in prepared], dtype=object)}


def _local(value: Any) -> Any:
    return ray.get(value) if isinstance(value, ray.ObjectRef) else value


class _Decomposer:
    """An actor with one model; a call writes one part file."""

    def __init__(self, options: dict[str, Any]) -> None:
        model = _local(options["model"])
        dual = load(model) if isinstance(model, str) else model
        dual = move_model(dual, options["device"], options["precision"])
        self.options, self.source = options, _local(options["keys"])
        side = (dual.left, dual.right)[options["side"]]
        self.engine = Engine(side, options["method"], batch=options["batch"], max_memory=options["max_memory"])

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        group = [(int(i), pickle.loads(entry)) for i, entry in zip(batch["index"], batch["prepared"], strict=True)]
        rows, problems = self.engine.rows(self.source, group)
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
    alone: Sequence[str] = (),
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
    """Explain the pairs of an experiment on a cluster; `evaluate` with the same arguments then reads the results.

    Returns the number of captions. Existing explanations are kept, so a stopped run continues where it stopped. All machines
    need access to the data and to the folder `out`. Raises `InputError` as `evaluate` does.
    """
    from secondsight.data import open_data
    from secondsight.evaluation import EXPERIMENTS

    if name not in EXPERIMENTS:
        raise InputError(f"unknown experiment {name!r}; known: {', '.join(sorted(EXPERIMENTS))}")
    if EXPERIMENTS[name].pairs_of_texts:
        raise InputError(f"{name!r} compares short texts, which needs no cluster: leave out the engine")
    connect(address)
    opened, experiment = open_data(data), EXPERIMENTS[name](**options)
    indices = _wanted(opened, experiment, limit)
    if not indices:
        return 0
    rows = ray.data.from_items([{"index": i} for i in indices], override_num_blocks=-(-len(indices) // part))
    arguments = {
        "data": data,
        "models": list(models),
        "methods": list(methods),
        "layers": list(layers),
        "alone": list(alone),
        "cache": str(Path(out).absolute() / "pairs"),
        "device": device or ("cuda" if gpus else None),
    }
    batches = by_actors(rows, _Explainer, {"options": arguments}, part, actors, gpus, cpus)
    explained = 0
    for row in batches.iter_rows():
        explained += int(row["captions"])
        if progress:
            progress(explained, len(indices))
    return explained


def _wanted(data: Any, experiment: Any, limit: int | None) -> list[int]:
    """The numbers of the first captions that the experiment can use."""
    indices: list[int] = []
    for index in range(len(data)):
        if limit is not None and len(indices) >= limit:
            break
        with contextlib.suppress(InputError):
            if experiment.wants(data[index]):
                indices.append(index)
    return indices


class _Explainer:
    """An actor with its own models; a call explains the pairs of a batch of captions, each written to its own file."""

    def __init__(self, options: dict[str, Any]) -> None:
        from secondsight.data import open_data
        from secondsight.evaluation import settings

        models = [(name, move_model(load(name), options["device"])) for name in options["models"]]
        self.data = open_data(options["data"])
        self.settings = settings(models, options["methods"], options["layers"], options["alone"])
        for setting in self.settings:
            setting.cache = Path(options["cache"])

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        for index in batch["index"]:
            example = self.data[int(index)]
            for setting in self.settings:
                # The experiment itself lists what cannot be explained.
                with contextlib.suppress(InputError):
                    setting.explain(example)
                for phrase in example.phrases if setting.phrases_alone else ():
                    with contextlib.suppress(InputError):
                        setting.explain_span(example, phrase.span)
        return {"captions": [len(batch["index"])]}


def by_actors(
    rows: Any, actor: type, arguments: dict[str, Any], part: int, actors: int, gpus: float, cpus: float
) -> Any:
    """Rows processed by a pool of actors, `part` rows per call."""
    return rows.map_batches(
        actor,
        fn_constructor_kwargs=arguments,
        batch_size=part,
        concurrency=actors,
        num_gpus=gpus or None,
        num_cpus=cpus,
    )


def connect(address: str | None) -> None:
    """Join the cluster at an address, or start Ray on this machine; raises `InputError` where there is no cluster."""
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
        except ConnectionError as problem:
            raise InputError(f"cannot reach a Ray cluster at {address!r} ({problem})") from problem
    ray.data.DataContext.get_current().enable_progress_bars = False
