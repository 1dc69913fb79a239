"""Fill a store: inputs are read and prepared beside the model, decomposed in batches, written in whole parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from secondsight.algebra.contributions import Contributions
from secondsight.encoders.base import Encoder
from secondsight.inputs.prepared import Prepared
from secondsight.methods import Method
from secondsight.model import DualEncoder, Side
from secondsight.scale.rows import is_finite, with_digest
from secondsight.scale.sources import Source
from secondsight.scale.store import Store, create_store, write_part
from secondsight.support.errors import InputError
from secondsight.support.files import one_line
from secondsight.support.memory import free_memory, out_of_memory

PART = 256
"""Entries of a part file: a killed run loses at most so many."""

Progress = Callable[["Report"], None]


@dataclass
class Report:
    """Progress of a run: `done` and `skipped` (already stored) of `whole`, and `problems` as one sentence per key."""

    whole: int
    done: int = 0
    skipped: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Entries per second in this run."""
        return self.done / max(time.monotonic() - self.begun, 1e-9)

    def check(self) -> None:
        """`InputError` if every input failed for the same reason, which then lies in the options and not in the inputs."""
        reasons = set(self.problems.values())
        if len(reasons) == 1 and not self.done and not self.skipped:
            raise InputError(f"none of {len(self.problems)} inputs could be decomposed: {reasons.pop()}")

    @property
    def left(self) -> float:
        """Estimated seconds left."""
        return (self.whole - self.done - self.skipped - len(self.problems)) / self.rate if self.done else float("inf")


def decompose(
    source: Source,
    model: DualEncoder,
    out: str | os.PathLike[str],
    method: Method | None = None,
    *,
    dtype: str = "float16",
    batch: int | None = None,
    max_memory: float | None = None,
    workers: int | None = None,
    truncate: bool = True,
    part: int = PART,
    side: Side | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write the contributions of every input of `source` to the store `out`; continues where an earlier run stopped.

    `dtype` is "float16", "int8" or "float32". `batch` inputs go through the model together; None takes as many as fit into
    `max_memory` bytes (None: a quarter of the free memory). `workers` processes read and prepare inputs (None: by the number
    of cores). Inputs that cannot be used are listed in the report, never fatal. Memory does not grow with the number of
    inputs. `side` is the model's side that encodes them, by default the one for what is searched, such as documents. Raises
    `InputError` for a store of another model or method, or that has another text under a key.
    """
    method = model.storable(method)
    side = model.collection_side(source.kind) if side is None else side
    store = create_store(out, model, method, side.index, dtype)
    sweep(store.folder)
    check_texts(source, store)
    todo = [i for i, key in enumerate(source.keys) if key not in store]
    report = Report(len(source), skipped=len(source) - len(todo))
    if progress:
        progress(report)
    engine = Engine(side, method, batch=batch, max_memory=max_memory)
    pending: list[tuple[int, str, Contributions]] = []
    for group in load_groups(source, side.encoder, todo, workers=workers, truncate=truncate):
        rows, problems = engine.rows(source, group)
        pending += rows
        report.problems |= problems
        while len(pending) >= part:
            _write(store, pending[:part], dtype, report)
            pending = pending[part:]
        if progress:
            progress(report)
    if pending:
        _write(store, pending, dtype, report)
    report.check()
    if progress:
        progress(report)
    return report


def check_texts(source: Source, store: Store) -> None:
    """`InputError` where a store has another text under the key of one of the source's; nothing for other inputs."""
    if source.kind != "text":
        return
    for index, key in enumerate(source.keys):
        if key in store and not store.has_text(key, text := source.read(index)):
            raise InputError(
                f"the text {key!r} was another one when {str(store.folder)!r} was decomposed, and is {one_line(text)!r} "
                "now: decompose into another folder"
            )


def _write(store: Store, rows: Sequence[tuple[int, str, Contributions]], dtype: str, report: Report) -> None:
    write_rows(store.folder, rows, dtype)
    report.done += len(rows)


def write_rows(folder: Path, rows: Sequence[tuple[int, str, Contributions]], dtype: str) -> None:
    """(index, key, contributions) as a part of a store."""
    write_part(folder, rows[0][0], [key for _, key, _ in rows], [contributions for *_, contributions in rows], dtype)


def sweep(folder: Path) -> None:
    """Remove temporary files of killed writers; files younger than an hour may belong to a simultaneous run."""
    for path in folder.glob(".part-*"):
        if time.time() - path.stat().st_mtime > 3600:
            path.unlink(missing_ok=True)


class Engine:
    """Contributions of prepared inputs in batches that fit into memory; a batch that does not fit is halved for good."""

    def __init__(
        self, side: Side, method: Method, *, batch: int | None = None, max_memory: float | None = None
    ) -> None:
        if batch is not None and batch < 1:
            raise InputError(f"batch={batch!r} must be at least 1")
        self.side, self.method, self.batch, self.max_memory = side, method, batch, max_memory

    def rows(
        self, source: Source, group: Sequence[tuple[int, Prepared | str]]
    ) -> tuple[list[tuple[int, str, Contributions]], dict[str, str]]:
        """(index, key, contributions) of the usable inputs of a group, and by key why the rest cannot be used."""
        keys = source.keys
        problems = {keys[i]: prepared for i, prepared in group if isinstance(prepared, str)}
        ready = [(i, prepared) for i, prepared in group if not isinstance(prepared, str)]
        rows = []
        for (i, _), result in zip(ready, self.run([prepared for _, prepared in ready]), strict=True):
            if isinstance(result, str):
                problems[keys[i]] = result
            else:
                rows.append((i, keys[i], with_digest(result, source.read(i)) if source.kind == "text" else result))
        return rows, problems

    def run(self, inputs: Sequence[Prepared]) -> list[Contributions | str]:
        """One result per input: its contributions, or a sentence that says why there are none."""
        # Inputs of one shape go through the model together.
        order = sorted(range(len(inputs)), key=lambda i: tuple(inputs[i].tensor.shape))
        results: dict[int, Contributions | str] = {}
        at = 0
        while at < len(order):
            if self.batch is None:
                self.batch = self._fitting_batch(inputs[order[at]])
            batch = order[at : at + self.batch]
            try:
                results.update(zip(batch, self._decompose([inputs[i] for i in batch]), strict=True))
            except (MemoryError, RuntimeError) as problem:
                if not out_of_memory(problem):
                    raise
                if self.batch == 1:
                    raise InputError(
                        "not enough memory for a single input: use a later layer or fewer steps"
                    ) from problem
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()
                self.batch = max(1, self.batch // 2)
                continue
            at += len(batch)
        return [results[i] for i in range(len(inputs))]

    def _decompose(self, inputs: list[Prepared]) -> list[Contributions | str]:
        try:
            batch = [_on_cpu(entry) for entry in self.method.contributions(self.side, inputs)]
            return [entry if is_finite(entry) else "its contributions hold NaN or infinity" for entry in batch]
        except InputError as problem:
            if len(inputs) == 1:
                return [str(problem)]
        # One unusable input must not cost the rest of the batch.
        return [result for prepared in inputs for result in self._decompose([prepared])]

    def _fitting_batch(self, example: Prepared) -> int:
        """How many inputs' activations fit, assuming that one block at a time needs at most forty times its input."""
        encoder = self.side.encoder
        width = max((p.shape[-1] for p in encoder.module.parameters() if p.ndim > 1), default=1024)
        positions = max(example.tensor.numel() // 256, example.tensor.shape[-1], 64)
        bytes_each = 40 * positions * width * 4
        budget = self.max_memory if self.max_memory is not None else free_memory(encoder.device()) / 4
        return int(max(1, min(budget // bytes_each, 256 if encoder.device().type == "cuda" else 32)))


def _on_cpu(contributions: Contributions) -> Contributions:
    return replace(
        contributions,
        factor=contributions.vectors.cpu(),
        embedding=contributions.embedding.cpu(),
        reference_embedding=contributions.reference_embedding.cpu(),
        deviations=None,
    )


class _Prepared(Dataset[Any]):
    """Inputs prepared by worker processes: (index, prepared input) or (index, why there is none)."""

    def __init__(self, source: Source, encoder: Encoder, indices: Sequence[int], truncate: bool) -> None:
        self.source, self.encoder, self.indices, self.truncate = source, encoder, indices, truncate

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, at: int) -> tuple[int, Prepared | str]:
        return prepared_input(self.source, self.encoder, self.indices[at], self.truncate)


def prepared_input(source: Source, encoder: Encoder, index: int, truncate: bool) -> tuple[int, Prepared | str]:
    """The index and the prepared input, without its photograph, or a sentence that says why it cannot be used."""
    try:
        prepared = encoder.prepare(source.read(index), truncate=truncate)
    except InputError as problem:
        return index, str(problem)
    return index, replace(prepared, display=None) if source.kind == "image" else prepared


def load_groups(
    source: Source,
    encoder: Encoder,
    indices: Sequence[int],
    *,
    workers: int | None = None,
    truncate: bool = True,
    group: int = 64,
) -> Iterator[list[tuple[int, Prepared | str]]]:
    """The prepared inputs in order and in groups, read ahead by worker processes."""
    if workers is None:
        # On CPUs, workers compete with the model for cores.
        workers = max(0, min(8, (os.cpu_count() or 1) // 4)) if source.kind == "image" else 0
    data = _Prepared(source, encoder, indices, truncate)
    size = group if source.kind == "image" else 4 * group
    yield from DataLoader(
        data,
        batch_size=size,
        num_workers=workers,
        collate_fn=list,
        prefetch_factor=2 if workers else None,
        pin_memory=False,
        # Forked workers share the model's memory.
        multiprocessing_context="fork" if workers and hasattr(os, "fork") else None,
    )
