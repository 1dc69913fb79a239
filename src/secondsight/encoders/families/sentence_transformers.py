"""sentence-transformers models: two texts, compared token by token, as in xsbert (Möller et al. 2023, 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from secondsight.encoders.families.multi_vector import is_multi_vector, wrap_multi_vector
from secondsight.encoders.families.sentence_sides import TASKS, Agreement, SentenceEncoder, kind_of, prompt_of, route
from secondsight.encoders.loading import loading, saved_folder
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.packages import require

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Prompts = str | Sequence[str | None] | None
"""Of queries and documents, or of both: a name among the model's prompts or the text itself, "" for none, None for its own."""


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
    if any(c.__name__ == "MultiVectorEncoder" for c in type(model).__mro__):
        if prompts is not None:
            raise InputError(
                "a MultiVectorEncoder takes its prompts from model.prompts: change these instead of prompts="
            )
        return wrap_multi_vector(model, name)
    similarity = model.similarity_fn_name
    if similarity not in ("cosine", "dot"):
        raise InputError(f"similarity {similarity!r} is not an inner product: only cosine and dot can be explained")
    chosen = _chosen_prompts(model, prompts)
    routes = [route(model, task) for task in TASKS]
    joint: int | None = getattr(model, "truncate_dim", None)
    normalised = all(kind_of(parts[-1]) == "Normalize" for parts in routes)
    # A dot product of normalised vectors is their cosine, but not when they are cut afterwards.
    cosine = similarity == "cosine" or (normalised and joint is None)
    if cosine:
        routes = [parts[:-1] if kind_of(parts[-1]) == "Normalize" else parts for parts in routes]
    left = SentenceEncoder(routes[0], TASKS[0], chosen[0], joint)
    right = SentenceEncoder(routes[1], TASKS[1], chosen[1], joint)
    if _same(left, right):
        right = left
    left.agreement = right.agreement = Agreement(model, left, right, cosine=cosine, name=name)
    return DualEncoder(left, right, name=name, cosine=cosine, names=TASKS)


def _same(left: SentenceEncoder, right: SentenceEncoder) -> bool:
    """Whether both sides are one function."""
    parts = [list(side.module) for side in (left, right)]
    same_modules = len(parts[0]) == len(parts[1]) and all(a is b for a, b in zip(*parts, strict=True))
    task_matters = any("task" in getattr(part, "forward_kwargs", ()) for part in parts[0])
    same_length = left.tokens.context == right.tokens.context
    return same_modules and same_length and left.prompt == right.prompt and not task_matters


def _chosen_prompts(model: SentenceTransformer, prompts: Prompts) -> tuple[str, str]:
    """The texts of both prompts."""
    pair = (prompts, prompts) if prompts is None or isinstance(prompts, str) else tuple(prompts)
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
        kind = library.MultiVectorEncoder if is_multi_vector(folder) else library.SentenceTransformer
        model = kind(folder, device="cpu").eval()
    return wrap_sentences(model, name=f"st:{name}", prompts=prompts)
