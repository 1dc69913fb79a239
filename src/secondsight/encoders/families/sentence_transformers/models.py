"""sentence-transformers models: two texts, compared token by token, as in xsbert (Möller et al. 2023, 2024)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secondsight.encoders.families.sentence_transformers.lookups import LOOKUPS, LookupEncoder
from secondsight.encoders.families.sentence_transformers.multi_vector import wrap_multi_vector
from secondsight.encoders.families.sentence_transformers.multimodal import is_multimodal, wrap_multimodal
from secondsight.encoders.families.sentence_transformers.sides import (
    PAIR,
    TASKS,
    Agreement,
    SentenceEncoder,
    kind_of,
    prompt_of,
    reads_task,
    route,
)
from secondsight.encoders.families.transformers.pages import ENCODERS
from secondsight.encoders.loading import loading, saved_folder
from secondsight.encoders.wrappers import class_names
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.packages import require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

Prompts = str | Sequence[str | None] | None
"""Of queries and documents, or of both: a name among the model's prompts or the text itself, "" for none, None for its own."""

_LATE_KINDS = ("MultiVectorEncoder", "ColBERT")
_LATE_ARCHITECTURES = ("HF_ColBERT", *ENCODERS)
"""What saved late-interaction models say that they are, by this library, by PyLate, and by their own."""

_CROSS_ENCODER = (
    "a CrossEncoder reads both texts together and gives one score: there are no two encoders whose similarity could be "
    "split; explain the SentenceTransformer that found its candidates"
)


def wrap_sentences(
    model: SentenceTransformer,
    preprocess: object = None,
    tokenizer: object = None,
    name: str = "sentence-transformers",
    *,
    prompts: Prompts = None,
) -> DualEncoder:
    """A dual encoder of two texts around a SentenceTransformer object; the model itself stays as it is.

    The left side is what the model's `encode_query` runs, the right one `encode_document`; where the two are the same, so
    are the sides. The model brings its own tokenizer, so `preprocess` and `tokenizer` are not used. Raises `InputError`
    where its similarity is not an inner product.
    """
    kinds = class_names(model)
    if "CrossEncoder" in kinds:
        raise InputError(_CROSS_ENCODER)
    if "MultiVectorEncoder" in kinds:
        if prompts is not None:
            raise InputError(
                "a MultiVectorEncoder takes its prompts from model.prompts: change these instead of prompts="
            )
        return wrap_multi_vector(model, name)
    if not hasattr(model, "similarity_fn_name"):
        raise InputError(
            f"{type(model).__name__} is a part of a sentence-transformers model: wrap the whole, "
            "ss.wrap(SentenceTransformer(…)), or what makes one of its parts, SentenceTransformer(modules=[…])"
        )
    similarity = model.similarity_fn_name
    if similarity not in ("cosine", "dot"):
        raise InputError(f"similarity {similarity!r} is not an inner product: only cosine and dot can be explained")
    _check_smooth(model)
    chosen = _chosen_prompts(model, prompts)
    routes = [route(model, task) for task in TASKS]
    kept: int | None = getattr(model, "truncate_dim", None)
    normalised = all(kind_of(parts[-1]) == "Normalize" for parts in routes)
    # A dot product of normalised vectors is their cosine, but not when they are cut afterwards.
    cosine = similarity == "cosine" or (normalised and kept is None)
    if cosine:
        routes = [parts[:-1] if kind_of(parts[-1]) == "Normalize" else parts for parts in routes]
    if is_multimodal(routes[0]):
        return wrap_multimodal(model, routes[0], chosen, cosine=cosine, name=name)
    left, right = (
        (LookupEncoder if kind_of(parts[0]) in LOOKUPS else SentenceEncoder)(parts, task, prompt, kept)
        for parts, task, prompt in zip(routes, TASKS, chosen, strict=True)
    )
    if _same(left, right, routes):
        right = left
    pair = left.known_text(PAIR[0]), right.known_text(PAIR[1])
    left.agreement = right.agreement = Agreement(model, left, right, cosine=cosine, name=name, pair=pair)
    return DualEncoder(left, right, name=name, cosine=cosine, names=TASKS)


def _check_smooth(model: SentenceTransformer) -> None:
    """`InputError` for a model that keeps only some dimensions, others for every text: it jumps along any path."""
    if any(kind_of(part) == "SparseAutoEncoder" for part in model):
        raise InputError(
            "SparseAutoEncoder keeps the largest dimensions of an embedding, others for every text, which no contributions "
            "add up to: explain the embedding before it, SentenceTransformer(modules=list(model)[:-1])"
        )
    most: int | None = getattr(model, "max_active_dims", None)
    if most is not None:
        raise InputError(
            f"the model keeps only the {most} largest dimensions of an embedding, which are others for every text: set "
            "model.max_active_dims=None"
        )


def _same(left: SentenceEncoder, right: SentenceEncoder, routes: Sequence[Sequence[nn.Module]]) -> bool:
    """Whether both sides are one function."""
    same_modules = list(map(id, routes[0])) == list(map(id, routes[1]))
    task_matters = any(map(reads_task, routes[0]))
    same_length = left.tokens.context == right.tokens.context
    return same_modules and same_length and left.prompt == right.prompt and not task_matters


def _chosen_prompts(model: SentenceTransformer, prompts: Prompts) -> tuple[str, str]:
    """The texts of both prompts."""
    pair = prompts if isinstance(prompts, (tuple, list)) else (prompts, prompts)
    if len(pair) != 2 or not all(prompt is None or isinstance(prompt, str) for prompt in pair):
        raise InputError(f"prompts={prompts!r} must be two, for queries and documents: names or texts, '' for none")
    texts = []
    for prompt, task in zip(pair, TASKS, strict=True):
        if prompt is None:
            texts.append(prompt_of(model, task))
            continue
        if prompt not in model.prompts and prompt.isidentifier():
            known = ", ".join(map(repr, model.prompts)) or "none"
            raise InputError(
                f"{prompt!r} is not the name of one of the model's prompts ({known}): give one of these, or a text "
                f"such as '{prompt}: '"
            )
        texts.append(model.prompts.get(prompt, prompt) or "")
    return texts[0], texts[1]


def load_sentences(name: str, *, prompts: Prompts = None) -> DualEncoder:
    """A model by its name on the hub or its local folder; `InputError` where it cannot be had."""
    library = require("sentence-transformers", "st", lambda: __import__("sentence_transformers"))
    folder = saved_folder("st", name, "modules.json", "config.json")
    with loading(f"st:{name}", "a local folder (st:PATH)"):
        model = getattr(library, _class_name(folder))(folder, device="cpu").eval()
    return wrap_sentences(model, name=f"st:{name}", prompts=prompts)


def _class_name(name: str) -> str:
    """The library's class for a name on the hub or a folder; `InputError` for a cross-encoder."""
    from sentence_transformers.util import load_file_path

    saved = {}
    for file in ("config.json", "config_sentence_transformers.json"):
        path = load_file_path(name, file)
        saved[file] = {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    kind: str = saved["config_sentence_transformers.json"].get("model_type", "SentenceTransformer")
    architectures = saved["config.json"].get("architectures") or ()
    if kind in _LATE_KINDS or any(architecture in _LATE_ARCHITECTURES for architecture in architectures):
        return "MultiVectorEncoder"
    scores_pairs = any(architecture.endswith("ForSequenceClassification") for architecture in architectures)
    if kind == "CrossEncoder" or (scores_pairs and load_file_path(name, "modules.json") is None):
        raise InputError(_CROSS_ENCODER)
    return kind if kind == "SparseEncoder" else "SentenceTransformer"
