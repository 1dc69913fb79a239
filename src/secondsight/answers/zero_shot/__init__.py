"""Zero-shot classification: how often a model is right, and why it is wrong where it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from secondsight.answers.collection import Progress, decomposing, storable_method
from secondsight.answers.report import Answer, write_answer
from secondsight.answers.significance import check_alpha
from secondsight.answers.zero_shot.cases import Cases, why
from secondsight.answers.zero_shot.classes import (
    TEMPLATE,
    Classifier,
    Names,
    Prompt,
    check_templates,
    class_names,
    fill,
)
from secondsight.answers.zero_shot.margins import explain_margins
from secondsight.answers.zero_shot.sections import sections
from secondsight.data.grounded import GroundedDataset
from secondsight.data.labelled import LabelledData, LabelledImage, open_labelled
from secondsight.evaluation.report import parquet, write_bytes
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.scale.decompose import Report, decompose
from secondsight.scale.sources import Source
from secondsight.scale.store import Store, open_store
from secondsight.support.errors import InputError

__all__ = ["TEMPLATE", "Classifier", "zero_shot"]

Decompose = Callable[..., Report]
"""`secondsight.scale.decompose`, or one with the same arguments that uses a cluster."""


def zero_shot(
    data: str | Path | GroundedDataset | LabelledData,
    model: DualEncoder,
    out: str | os.PathLike[str],
    method: Method | type[Method] | str | None = None,
    *,
    classes: Names | Sequence[str] | str | Path | None = None,
    templates: str | Path | Sequence[str] = (TEMPLATE,),
    articles: bool = False,
    alpha: float = 0.05,
    dtype: str = "float16",
    limit: int | None = None,
    engine: Decompose = decompose,
    progress: Progress | None = None,
) -> Answer:
    """Classify labelled images by the prompts of their classes, and explain every answer in parts that add up exactly.

    `data` are labelled images, see `open_labelled`; `classes` are names, names with the words that prompts use for them, or a
    file of them, by default those of the data; `templates` are prompts with {} in the place of the word, or the `Path` of a
    file of them, taken literally unless `articles` sets "a" or "an". The default method, "collection", attributes the last
    image layer and the prompts' token embeddings, where a class's word is not yet mixed into the end token. `alpha` is the
    false discovery rate of what is claimed beyond chance.

    The report and its tables are written to `out`, beside the stores of images (in `dtype`) and prompts, from which a stopped
    call goes on. "records" of the answer, also records.parquet, has each image's answer, margin and parts. Raises
    `InputError` for data, classes or templates that cannot be used, or a model without an image and a text side.
    """
    labelled = open_labelled(data).first(limit)
    if not model.factorises:
        raise InputError(
            f"{model.name!r} matches token by token, and a class has one direction: use a model with one embedding"
        )
    names, filled = class_names(classes, labelled), check_templates(templates)
    check_alpha(alpha)
    prompts = {name: [fill(t, word, articles) for t in filled for word in words] for name, words in names.items()}
    folder, method = Path(out), storable_method(model, method)
    classifier = Classifier(prompts, _prompt_store(prompts, model, folder / "text", method, progress))
    pictures = Source("image", labelled.keys, _Images(labelled))
    told = decomposing("images", progress)
    report = engine(pictures, model, folder / "image", method, dtype=dtype, progress=told)
    images = open_store(folder / "image")
    margins = explain_margins(
        labelled, images, classifier, progress and (lambda done, whole: progress("explaining", done, whole))
    )
    margins.records["why"] = [why(record) for record in margins.records.to_dict("records")]
    facts = {
        "data": f"{labelled.name}, {len(margins.records)} images of {len(set(labelled.labels))} classes",
        "classes": len(names),
        "templates": "; ".join(filled),
        "model": model.name,
        "similarity": model.measure,
        "method": images.facts["method"]["name"],
        "alpha": f"{alpha:g}: of the claims of one kind that are beyond chance, at most this share is false on average",
        "largest part of a margin that is not attributed": f"{margins.records['not attributed'].abs().max():.1e}",
    }
    answer = write_answer(
        folder,
        "zero-shot classification",
        "Images are given the class whose prompts they are closest to. Which words and regions decide, and what is decided "
        "before the picture is seen? records.parquet has every image with all its parts.",
        sections(margins, Cases(labelled, images, classifier), alpha),
        facts,
        {**labelled.problems, **report.problems},
    )
    write_bytes(folder / "records.parquet", parquet(margins.records))
    answer["records"] = margins.records
    return answer


def _prompt_store(
    prompts: Mapping[str, Sequence[Prompt]], model: DualEncoder, folder: Path, method: Method, progress: Progress | None
) -> Store:
    """The contributions of all prompts under their texts; `InputError` where one cannot be used as it is."""
    texts = list(dict.fromkeys(prompt.text for of_class in prompts.values() for prompt in of_class))
    source, told = Source("text", texts, texts.__getitem__), decomposing("prompts", progress)
    report = decompose(source, model, folder, method, dtype="float32", truncate=False, progress=told)
    for text, reason in report.problems.items():
        raise InputError(f"the prompt {text!r} cannot be used: {reason}")
    return open_store(folder)


class _Images:
    """Reads labelled images as inputs of a model; a class, so that it can be sent to other processes."""

    def __init__(self, data: LabelledData) -> None:
        self.data = data

    def __call__(self, index: int) -> Any:
        image: LabelledImage = self.data[index]
        return image.image
