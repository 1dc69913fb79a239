"""The audit: its sections put together into one report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secondsight.answers.audit.grounding import grounding_section
from secondsight.answers.audit.spurious import spurious_section
from secondsight.answers.audit.words import words_section
from secondsight.answers.collection import Collection, Progress, collect
from secondsight.answers.report import Answer, Section, write_answer
from secondsight.data.grounded import GroundedDataset
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError

ABOUT = (
    "What the model confuses, ignores and over-uses, as sentences; click one to see its cases. Red cells and words raise the "
    "similarity, blue ones lower it."
)


def audit(
    data: str | Path | GroundedDataset,
    model: DualEncoder,
    out: str | os.PathLike[str],
    *,
    method: Method | type[Method] | str | None = None,
    limit: int | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Answer:
    """Decompose a data set into stores under OUT, look for what is wrong, and write OUT/report.html with its tables.

    Claims of a section have a false discovery rate of at most `alpha`. Without boxes, sections that need them are left out.
    Continues where an earlier call stopped. Raises `InputError` for unusable data or options.
    """
    check_alpha(alpha)
    folder = Path(out)
    collection = collect(data, model, folder / "stores", method, limit=limit, progress=progress)
    return audit_collection(collection, folder, alpha=alpha, seed=seed, progress=progress)


def audit_collection(
    collection: Collection,
    out: str | os.PathLike[str],
    *,
    alpha: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Answer:
    """The audit of stores that are there already, see `audit`."""
    check_alpha(alpha)
    options: dict[str, Any] = dict(alpha=alpha, seed=seed, progress=progress)
    makers = [grounding_section, spurious_section] if collection.has_boxes else []
    # Token vectors that are matched one by one have no words whose parts add up over all images.
    if len(collection.images) > 1 and collection.texts[collection.pairs[0][1]].pairing is None:
        makers.append(words_section)
    sections = [maker(collection, **options) for maker in makers]
    return write_answer(Path(out), "audit", ABOUT, sections, facts_of(collection, alpha, sections), collection.problems)


def facts_of(collection: Collection, alpha: float, sections: Sequence[Section]) -> dict[str, Any]:
    """What was looked at, for the head of the report."""
    method = collection.images.facts["method"]
    options = ", ".join(f"{name}={value}" for name, value in method["options"].items())
    return {
        "data": collection.data.name if collection.data is not None else f"stores {collection.images.folder.parent}",
        "model": collection.images.facts["model"],
        "method": f"{method['name']} ({options})" if options else method["name"],
        "looked at": f"{len(collection)} captions of {len(collection.images)} images",
        "alpha": f"{alpha:g}: of the claims of a section at most this share is false on average",
        "claims": sum(len(section.claims) for section in sections),
    }


def check_alpha(alpha: float) -> None:
    """Refuse an alpha that is no rate."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha={alpha!r} must lie between 0 and 1, such as 0.05")
