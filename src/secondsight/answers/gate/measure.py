"""How far each right pair of a collection stands out among the wrong ones, and how much of that each word carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.answers.collection import Collection
from secondsight.support.errors import InputError

Span = tuple[int, int]
"""The characters of a word in its caption."""

ROUNDING = 1e-6
"""Similarities that differ by less are taken for equal."""

BLOCK = 2048
"""Rows of the matrix of similarities that are in memory at once."""


@dataclass(frozen=True, eq=False)
class Advantages:
    """Each pair's advantage m = (g − ḡ)·(h − h̄) / spread, pair by pair.

    m is the pair's similarity less what its image and its caption have with everything, in spreads: standard deviations of
    the same quantity over all wrong pairs. `captions` are the right sides' texts. `words` are every caption's words by their
    characters, with the part of m that each carries, V·(g − ḡ) / spread. `first_caption` says whether no caption of another
    image is closer to the image, `first_image` whether no other image is closer to the caption; `rival_caption` is the pair
    whose caption is the closest wrong one.
    """

    total: Float[np.ndarray, " pair"]
    similarity: Float[np.ndarray, " pair"]
    captions: Sequence[str]
    words: Sequence[Mapping[Span, float]]
    first_caption: Bool[np.ndarray, " pair"]
    first_image: Bool[np.ndarray, " pair"]
    rival_caption: Int[np.ndarray, " pair"]
    spread: float


def measure(
    collection: Collection, pairs: Sequence[tuple[str, str]], progress: Callable[[int, int], None] | None = None
) -> Advantages:
    """The advantages of these pairs among themselves. Raises `InputError` where nothing is wrong to compare with."""
    images, image_of = _rows(collection.images.keys(), [image for image, _ in pairs])
    texts, text_of = _rows(collection.texts.keys(), [text for _, text in pairs])
    left, right = collection.images.embeddings[images].double(), collection.texts.embeddings[texts].double()
    g, h = left - left.mean(0), right - right.mean(0)
    centred = (g[image_of] * h[text_of]).sum(1)
    spread = _spread(g, h, centred)
    similarity = (left[image_of] * right[text_of]).sum(1)
    first_caption, rivals = _first(left, image_of, right[text_of], image_of, similarity)
    first_image, _ = _first(right, text_of, left, torch.arange(len(left)), similarity, image_of)
    captions, words = [], []
    for number, (_, key) in enumerate(pairs):
        caption = collection.texts[key]
        if caption.pairing is not None:
            raise InputError("a gate compares models with one embedding for each input, not late interaction")
        captions.append(caption.layout.text or "")
        words.append(_word_parts(caption, g[image_of[number]] / spread))
        if progress:
            progress(number + 1, len(pairs))
    return Advantages(
        total=(centred / spread).numpy(),
        similarity=similarity.numpy(),
        captions=captions,
        words=words,
        first_caption=first_caption.numpy(),
        first_image=first_image.numpy(),
        rival_caption=rivals.numpy(),
        spread=spread,
    )


def _rows(keys: Sequence[str], used: Sequence[str]) -> tuple[Int[Tensor, " row"], Int[Tensor, " pair"]]:
    """The rows of a store that are used, each once, and which of them every pair uses."""
    at = {key: row for row, key in enumerate(keys)}
    distinct = list(dict.fromkeys(used))
    place = {key: row for row, key in enumerate(distinct)}
    return torch.tensor([at[key] for key in distinct]), torch.tensor([place[key] for key in used])


def _spread(
    g: Float[Tensor, "image joint"], h: Float[Tensor, "text joint"], right_pairs: Float[Tensor, " pair"]
) -> float:
    """The standard deviation of (g − ḡ)·(h − h̄) over all wrong pairs; the sum over all pairs is zero."""
    wrong = len(g) * len(h) - len(right_pairs)
    if len(g) < 2 or wrong < 2:
        raise InputError("an advantage over other pairs needs at least two images: give more pairs")
    squares = float(((g.mT @ g) * (h.mT @ h)).sum()) - float(right_pairs.square().sum())
    variance = squares / wrong - (float(right_pairs.sum()) / wrong) ** 2
    if not variance > 1e-16:
        raise InputError("all pairs have the same similarity: the model does not tell these inputs apart")
    return float(np.sqrt(variance))


def _first(
    rows: Float[Tensor, "row joint"],
    row_of: Int[Tensor, " pair"],
    columns: Float[Tensor, "column joint"],
    owner: Int[Tensor, " column"],
    similarity: Float[Tensor, " pair"],
    owner_of: Int[Tensor, " pair"] | None = None,
) -> tuple[Bool[Tensor, " pair"], Int[Tensor, " pair"]]:
    """Whether a pair's similarity is the largest of its row but for columns of its own, and the closest other column."""
    owner_of = row_of if owner_of is None else owner_of
    best, rival = torch.empty_like(similarity), torch.empty_like(row_of)
    for numbers in torch.arange(len(row_of)).split(BLOCK):
        block = rows[row_of[numbers]] @ columns.T
        block[owner_of[numbers][:, None] == owner[None]] = -torch.inf
        best[numbers], rival[numbers] = block.max(1)
    return similarity >= best - ROUNDING, rival


def _word_parts(caption: Contributions, direction: Float[Tensor, " joint"]) -> dict[Span, float]:
    """What each word of a caption has in a direction of the joint space; words that were cut off have nothing."""
    scores = (caption.vectors.double() @ direction) * caption.scale
    return {
        (word.start, word.end): float(scores[list(word.features)].sum())
        for word in caption.layout.words
        if word.features
    }
