"""What each word of a caption adds to its similarity to its own image, and to the others.

The part of token j in the similarity to an image a is V_j·g(a): its column of the matrix and its effect alone. What it does for
the ranking is its part with its own image above that with the others, V_j·(g(a) − ḡ), with ḡ the others' mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Float

from secondsight.algebra.contributions import Contributions
from secondsight.answers.collection import Collection, Progress
from secondsight.answers.partial import by_part, partial_folder
from secondsight.support.errors import InputError

CONTENT, FUNCTION, PUNCTUATION = "content words", "function words", "punctuation"
SPECIAL, REFERENCE, MISSED = "special positions", "reference", "not attributed"
PARTS = (CONTENT, FUNCTION, PUNCTUATION, SPECIAL, REFERENCE, MISSED)
"""What a caption's similarity consists of. The reference's part is what an image scores whatever the words."""

_ENGLISH = """
    a an the this that these those some any each every another and or but nor as than then so if of in on at to into onto from
    with without by for about during via i you he she it we they me him her us them my your his its our their who whom whose
    which what there here is are am was were be been being has have had do does did can could will would shall should may
    might must not no just also very too
"""

FUNCTION_WORDS = frozenset(_ENGLISH.split())
"""Words of English grammar, which a model may rightly ignore."""


def part_of(word: str) -> str:
    """Whether a word is a content word, a function word of English, or punctuation."""
    if not re.search(r"\w", word):
        return PUNCTUATION
    return FUNCTION if word.lower() in FUNCTION_WORDS else CONTENT


@dataclass(frozen=True, eq=False)
class WordMeasure:
    """Measures the words of the captions with given keys, as a table with a row for each word and image.

    Columns: `part` of the caption, `word` (lower-cased; empty for what is none), `image` (its row in the store), `count` of
    occurrences, and sums over these of `own` and `others`, the word's part in the similarity to its own image, and its mean
    part in those to the others.
    """

    collection: Collection

    @cached_property
    def _image_of(self) -> dict[str, int]:
        """The row of each caption's own image."""
        rows = {key: row for row, key in enumerate(self.collection.images.keys())}
        return {text: rows[image] for image, text in self.collection.pairs}

    @cached_property
    def _total(self) -> Float[np.ndarray, " joint"]:
        """The sum of all images' embeddings."""
        if len(self.collection.images) < 2:
            raise InputError("a word's part with other images needs at least two images: decompose more")
        return self.collection.images.embeddings.double().sum(0).numpy()

    def directions(self, key: str) -> Float[np.ndarray, "2 joint"]:
        """The embedding of a caption's own image, and the mean of the others'."""
        image_embedding = self.collection.images.embeddings[self._image_of[key]].double().numpy()
        return np.stack([image_embedding, (self._total - image_embedding) / (len(self.collection.images) - 1)])

    def __call__(self, keys: Sequence[str]) -> pd.DataFrame:
        """The table of these captions; those that belong to no image are left out."""
        rows = [
            (part, word, self._image_of[key], 1, own, others)
            for key in keys
            if key in self._image_of
            for part, word, own, others in caption_parts(self.collection.texts[key], self.directions(key))
        ]
        return _summed(pd.DataFrame(rows, columns=["part", "word", "image", "count", "own", "others"]))


def caption_parts(
    caption: Contributions, directions: Float[np.ndarray, "2 joint"]
) -> list[tuple[str, str, float, float]]:
    """(part, word, along the first direction, along the second) for every word and for what else a caption consists of.

    They add up to the caption's similarities to both directions. Raises `InputError` for token vectors that are matched one by
    one, whose similarity is no sum over words for all images.
    """
    if caption.pairing is not None:
        raise InputError("this model matches token vectors one by one: its words have no parts in a mean similarity")
    scaled = directions * caption.scale
    tokens = scaled @ caption.vectors.double().numpy().T
    reference = scaled @ caption.reference_embedding.double().numpy()
    similarity = scaled @ caption.embedding.double().numpy()
    values = [(word.text, tokens[:, list(word.features)].sum(1)) for word in caption.layout.words if word.features]
    in_words = {feature for word in caption.layout.words for feature in word.features}
    special = [feature for feature in range(tokens.shape[1]) if feature not in in_words]
    parts = [(part_of(word), word.lower(), value) for word, value in values]
    parts = [(part, "" if part == PUNCTUATION else word, value) for part, word, value in parts]
    parts.append((SPECIAL, "", tokens[:, special].sum(1)))
    parts.append((REFERENCE, "", reference))
    parts.append((MISSED, "", similarity - reference - tokens.sum(1)))
    return [(part, word, float(value[0]), float(value[1])) for part, word, value in parts]


def word_parts(collection: Collection, progress: Progress | None = None) -> pd.DataFrame:
    """What every word adds in each image: the columns of `WordMeasure` with means for sums, and `gain` = own − others.

    The tables of the store's part files are kept in its folder, so that a killed run goes on and a repeated one is quick.
    """
    measure = WordMeasure(collection)
    table = _summed(by_part(collection, partial_folder(collection, "words"), measure, "measuring words", progress))
    for name in ("own", "others"):
        table[name] /= table["count"]
    return table.assign(gain=table["own"] - table["others"])


def _summed(table: pd.DataFrame) -> pd.DataFrame:
    return table.groupby(["part", "word", "image"], as_index=False).sum()
