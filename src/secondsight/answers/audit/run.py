"""The audit: its sections put together into one report."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from secondsight.answers.audit.changes import changes_section
from secondsight.answers.audit.clusters import clusters_section
from secondsight.answers.audit.exchanged import exchanged_section
from secondsight.answers.audit.grounding import grounding_section
from secondsight.answers.audit.hubs import hubs_section
from secondsight.answers.audit.spurious import spurious_section
from secondsight.answers.audit.words import words_section
from secondsight.answers.collection import Collection, Progress, collect
from secondsight.answers.report import Answer, Section, write_answer
from secondsight.answers.significance import check_alpha
from secondsight.data import open_data
from secondsight.data.grounded import GroundedDataset
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError

ABOUT = (
    "What the model confuses, ignores and over-uses, as sentences; click one to see its cases. Red cells and words raise the "
    "similarity, blue ones lower it; white boxes are the word's own object, orange ones another. "
    "All tables lie beside this page as CSV and Parquet."
)

IN_SHORT = 5
"""Claims at the head of the report."""


def audit(
    data: str | Path | GroundedDataset,
    model: DualEncoder,
    out: str | os.PathLike[str],
    *,
    against: DualEncoder | None = None,
    method: Method | type[Method] | str | None = None,
    limit: int | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Answer:
    """Decompose a data set into stores under OUT, look for what is wrong, and write OUT/report.html with its tables.

    With `against`, an earlier model, the report begins with what changed since. Claims of a section have a false discovery
    rate of at most `alpha` each kind. Without boxes, sections that need them are left out. At most 2,000 captions with an
    exchanged word, drawn with `seed`, are encoded besides. Continues where an earlier call stopped.
    Raises `InputError` for unusable data or options.
    """
    check_alpha(alpha)
    folder = Path(out)
    dataset = open_data(data) if isinstance(data, str | Path) else data
    before = None
    if against is not None:
        before = collect(dataset, against, folder / "stores-before", method, limit=limit, progress=progress)
    collection = collect(dataset, model, folder / "stores", method, limit=limit, progress=progress)
    options: dict[str, Any] = dict(alpha=alpha, seed=seed, progress=progress)
    return audit_collection(collection, folder, model=model, against=before, **options)


def audit_collection(
    collection: Collection,
    out: str | os.PathLike[str],
    *,
    model: DualEncoder | None = None,
    against: Collection | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Answer:
    """The audit of stores that are there already, see `audit`; `model` is theirs, without which no words are exchanged."""
    check_alpha(alpha)
    options: dict[str, Any] = dict(alpha=alpha, seed=seed, progress=progress)
    # Token vectors that are matched one by one have no parts that add up over all images.
    additive = len(collection.images) > 1 and collection.texts[collection.pairs[0][1]].pairing is None
    sections: list[Section] = []
    if against is not None:
        sections.append(changes_section(against, collection, **options))
    makers: list[Callable[..., Section]] = [grounding_section, spurious_section] if collection.has_boxes else []
    if additive:
        exchanged = [] if model is None else [partial(exchanged_section, model=model)]
        clusters = [] if collection.has_boxes else [clusters_section]
        makers += [words_section, *exchanged, *clusters, hubs_section]
    if not makers and not sections:
        raise InputError("a late-interaction model is audited by boxes alone: give --data with annotated objects")
    sections += [maker(collection, **options) for maker in makers]
    facts = facts_of(collection, against, alpha)
    if additive and model is None:
        facts["left out"] = "exchanged words, which are encoded again: give the stores' model with model= or --model"
    return write_answer(Path(out), "audit", ABOUT, sections, facts, collection.problems, in_short=IN_SHORT)


def facts_of(collection: Collection, against: Collection | None, alpha: float) -> dict[str, Any]:
    """What was looked at, for the head of the report."""
    method = collection.images.facts["method"]
    # The options that people choose; store.json has all.
    options = ", ".join(
        f"{name} {method['options'][name]}" for name in ("layer", "budget") if name in method["options"]
    )
    before = {} if against is None else {"compared with": against.images.facts["model"]}
    return {
        "data": collection.data.name if collection.data is not None else f"stores {collection.images.folder.parent}",
        "model": collection.images.facts["model"],
        **before,
        "method": f"{method['name']} ({options})" if options else method["name"],
        "looked at": f"{len(collection)} captions of {len(collection.images)} images",
        "alpha": f"{alpha:g}: of the claims of one kind, at most this share is false on average",
    }
