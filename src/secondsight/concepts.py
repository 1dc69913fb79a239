"""Concepts: the contribution vectors of one side as sparse sums of the vectors of words that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.encoders.registry import as_model, known_name
from secondsight.model import DualEncoder, Side
from secondsight.support.errors import InputError
from secondsight.support.files import one_line, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 40
"""Words that a sentence about a missing one names."""

_ITERATIONS = 10_000
"""Rounds of coordinate descent at most; a vocabulary of a hundred words takes tens."""


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary:
    """Words as unit vectors (word, joint) of a model's joint space, encoded once for any number of pairs.

    `model` is the model's name.
    """

    words: tuple[str, ...]
    vectors: Float[Tensor, "word joint"]
    model: str

    def __repr__(self) -> str:
        return f"Vocabulary({len(self.words)} words, {self.model!r})"

    @classmethod
    def encode(
        cls, model: DualEncoder | str, words: Sequence[str], *, template: str = "{}", center: bool = True
    ) -> Vocabulary:
        """Encode words with the model's text side, each in a `template` such as "a photo of a {}".

        `center` takes the mean of all words off before vectors get unit length: the texts of one model share most of their
        direction, which would make every word nearly every other (SpLiCE, Bhalla et al., 2024, centres both modalities;
        contributions are differences from a reference and need it no more). Raises `InputError` for no words, one word twice,
        words that the model does not know or tell apart, and models without a text side.
        """
        model = as_model(model)
        checked = _checked(words, template, center)
        vectors = _text_side(model).embed([template.format(word) for word in checked]).double().cpu()
        unknown = [word for word, size in zip(checked, vectors.norm(dim=-1).tolist(), strict=True) if not size]
        if unknown:
            raise InputError(f"{model.name!r} does not know {unknown[0]!r}: its embedding is zero; leave it out")
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
        distances = torch.cdist(vectors, vectors).fill_diagonal_(torch.inf)
        if float(distances.min()) < 1e-5:
            first, second = divmod(int(distances.argmin()), len(checked))
            raise InputError(
                f"{model.name!r} reads {checked[first]!r} and {checked[second]!r} as the same: leave one out"
            )
        if center:
            vectors = vectors - vectors.mean(0)
            vectors = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        return cls(tuple(checked), vectors, model.name)


@dataclass(frozen=True)
class Part:
    """What a concept, the rest or the special positions add to a pair's similarity.

    `alone` is its part of the left side's own term, `interaction` that of the interaction; `weight` is the sum of its weights
    over the left features, 0 for the rest and for special positions.
    """

    name: str
    weight: float
    alone: float
    interaction: float

    @property
    def similarity(self) -> float:
        """alone + interaction."""
        return self.alone + self.interaction


@dataclass(frozen=True, eq=False, repr=False)
class Concepts:
    """The left side's contribution vectors as non-negative sums of word vectors: U_i = Σ_w c_iw t_w + rest_i, exactly.

    `weights` c (left, word) are sparse and zero at special positions, whose vectors are in the rest.
    """

    pair: Interactions
    vocabulary: Vocabulary
    weights: Float[Tensor, "left word"]
    penalty: float

    def __repr__(self) -> str:
        strongest = ", ".join(f"{part.name} {part.similarity:+.4f}" for part in self.parts[:3])
        return f"Concepts({strongest or 'none'}; rest {self.rest.similarity:+.4f})"

    @cached_property
    def rest_vectors(self) -> Float[Tensor, "left joint"]:
        """What the words leave of every contribution vector; at special positions all of it."""
        return _left(self.pair).vectors.double().cpu() - self.weights @ self.vocabulary.vectors

    @cached_property
    def rest_share(self) -> float:
        """Σ‖rest_i‖² / Σ‖U_i‖² over the visible features, in 0 … 1: how much of the vectors no word of the list names."""
        visible = self.pair.left_layout.visible
        total = float(_left(self.pair).vectors.double()[visible].square().sum())
        return float(self.rest_vectors[visible].square().sum()) / total if total else 0.0

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The concepts that occur, by the size of what they add to the similarity.

        With `rest` and `special` they add up to the pair's `terms.left` and `terms.interaction`.
        """
        sums = self.weights.sum(0)
        alone, interaction = (sums * (self.vocabulary.vectors @ direction) for direction in self._directions)
        parts = [
            Part(word, float(sums[i]), float(alone[i]), float(interaction[i]))
            for i, word in enumerate(self.vocabulary.words)
            if sums[i]
        ]
        return tuple(sorted(parts, key=lambda part: -abs(part.similarity)))

    @property
    def rest(self) -> Part:
        """What the words leave, at visible features."""
        return self._of_features("rest", self.pair.left_layout.visible)

    @property
    def special(self) -> Part:
        """What special positions add."""
        return self._of_features("special", list(self.pair.left_layout.special))

    def __getitem__(self, word: str) -> Tensor:
        """What a concept adds to the similarity at every left feature, as the layout shows it; `InputError` for other words."""
        return self.pair.left_layout.view(self.values(word))

    def heatmap(self, word: str) -> Float[Tensor, "height width"]:
        """The map of `self[word]` upsampled bilinearly to the original image's pixels."""
        return self.pair.left_layout.heatmap(self.values(word))

    def values(self, word: str) -> Float[Tensor, " left"]:
        """What a concept adds to the similarity at every left feature."""
        words = self.vocabulary.words
        if word not in words:
            listed = ", ".join(repr(w) for w in words[:_NAMED]) + (", …" if len(words) > _NAMED else "")
            raise InputError(f"{shortened(word)} is not in the vocabulary; its words are {listed}")
        number = words.index(word)
        return self.weights[:, number] * float(self.vocabulary.vectors[number] @ sum(self._directions))

    def within(self, selection: Any = None) -> list[tuple[str, float]]:
        """(word, weight) of what a selection of the left side (box, span, indices; None: all visible) is called, by weight.

        The vectors of its features are added up, cells by their covered share, and the sum is decomposed like one vector: that
        names an object more often than the sum of its cells' weights, each of which is a part of it.
        """
        selected = self.pair.left_layout.select(selection).double()
        vector = selected @ _left(self.pair).vectors.double().cpu()
        weights = _sparse_weights(vector[None], self.vocabulary.vectors, self.penalty)[0]
        entries = zip(self.vocabulary.words, weights.tolist(), strict=True)
        return sorted(((word, value) for word, value in entries if value), key=lambda entry: -entry[1])

    def plot(self, k: int = 4) -> Figure:
        """A matplotlib figure with a row for each of the k strongest concepts: its map, and what it adds."""
        from secondsight.visual.rows import plot_concepts

        return plot_concepts(self, k)

    def _of_features(self, name: str, features: list[int]) -> Part:
        alone, interaction = (self.rest_vectors[features].sum(0) @ direction for direction in self._directions)
        return Part(name, 0.0, float(alone), float(interaction))

    @cached_property
    def _directions(self) -> tuple[Tensor, Tensor]:
        """What contribution vectors are multiplied with for the left side's own term, and for the interaction."""
        left, right = _left(self.pair), self.pair.right_contributions
        assert right is not None  # it is there where the left one is
        scale = left.scale * right.scale
        return right.reference_embedding.double().cpu() * scale, right.rows.total().cpu() * scale


def concepts(
    pair: Interactions,
    vocabulary: Sequence[str] | Vocabulary,
    model: DualEncoder | str | None = None,
    *,
    template: str = "{}",
    center: bool = True,
    penalty: float = 0.1,
) -> Concepts:
    """The left side's contribution vectors as sparse non-negative sums of the vectors of words, plus a rest.

    `vocabulary` is a list of words, or a `Vocabulary` that was encoded before; `model` the model of the pair, by default the
    one of its name; `template` and `center` as in `Vocabulary.encode`. The weights solve
    min_c ½‖U_i − Σ_w c_w t_w‖² + λ_i Σ_w c_w, c ≥ 0, for every visible feature by coordinate descent (Lasso, Tibshirani
    1996; for embeddings SpLiCE, Bhalla et al., 2024), with λ_i = `penalty` · max_w U_i·t_w: from 1 on no feature has a
    concept. Needs scikit-learn.

    Raises `InputError` for pairs without contributions, of late interaction, or of another model, and for lists of words that
    `Vocabulary.encode` refuses.
    """
    if not isinstance(penalty, (int, float)) or not 0 < penalty < float("inf"):
        raise InputError(f"penalty={penalty!r} must be a positive number, such as 0.1")
    left = _left(pair)
    name = pair.about.get("model")
    if not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary.encode(_model_of(model, name), vocabulary, template=template, center=center)
    if name and vocabulary.model != name:
        raise InputError(f"the words were encoded by {vocabulary.model!r} and the pair by {name!r}: use one model")
    vectors, visible = left.vectors.double().cpu(), pair.left_layout.visible
    if vectors.shape[1] != vocabulary.vectors.shape[1]:
        raise InputError(
            f"word vectors of {vocabulary.vectors.shape[1]} dimensions do not describe contributions of {vectors.shape[1]}: "
            "both must come from the same model"
        )
    weights = torch.zeros(len(vectors), len(vocabulary.words), dtype=torch.float64)
    weights[visible] = _sparse_weights(vectors[visible], vocabulary.vectors, penalty)
    return Concepts(pair, vocabulary, weights, penalty)


def _sparse_weights(
    vectors: Float[Tensor, "feature joint"], words: Float[Tensor, "word joint"], penalty: float
) -> Float[Tensor, "feature word"]:
    try:
        from sklearn.decomposition import sparse_encode
    except ImportError as missing:
        raise InputError("concepts need scikit-learn: pip install 'secondsight[eval]'") from missing
    weights = torch.zeros(len(vectors), len(words), dtype=torch.float64)
    largest = (vectors @ words.T).amax(1, keepdim=True)
    # A vector that points away from every word has no concept.
    reachable = largest[:, 0] > 0
    if bool(reachable.any()):
        scaled, options = (vectors[reachable] / largest[reachable]).numpy(), {"positive": True, "max_iter": _ITERATIONS}
        solved = sparse_encode(scaled, words.numpy(), algorithm="lasso_cd", alpha=penalty, **options)
        weights[reachable] = torch.from_numpy(solved).double() * largest[reachable]
    return weights


def _left(pair: Interactions) -> Contributions:
    left = pair.left_contributions
    if left is None or pair.right_contributions is None:
        raise InputError(
            "concepts need the pair's contribution vectors, which differences, contrasts, jointly fitted pairs and pairs read "
            "from files do not have: explain one pair, or multiply contributions, as in left @ (a - b)"
        )
    if left.pairing is not None or left.space is not None:
        raise InputError("concepts need one vector for a text: models of late interaction have one for every token")
    return left


def _model_of(model: DualEncoder | str | None, name: Any) -> DualEncoder:
    if model is not None:
        return as_model(model)
    try:
        known_name(name)
    except InputError as problem:
        raise InputError("give the model that encodes the words, as in e.concepts(words, model)") from problem
    return as_model(name)


def _text_side(model: DualEncoder) -> Side:
    """The side that reads texts; where both do, the right one."""
    for side in (model.right, model.left):
        if side.kind == "text":
            return side
    raise InputError(f"{model.name!r} has no text side, so that it cannot encode words: it has {model.left.kind} sides")


def _checked(words: Sequence[str], template: str, center: bool) -> list[str]:
    """The words without spaces around them; `InputError` for what is no list of different words."""
    if isinstance(words, str) or not isinstance(words, Sequence):
        raise InputError(f"{shortened(words)} is not a vocabulary: give a list of words, such as ['dog', 'grass']")
    if not isinstance(template, str) or "{}" not in template:
        raise InputError(
            f"template={template!r} must be a text with {{}} in the word's place, such as 'a photo of a {{}}'"
        )
    wrong = next((word for word in words if not isinstance(word, str) or not word.strip()), None)
    if wrong is not None:
        raise InputError(f"{shortened(wrong)} is no word of a vocabulary: give texts that are not empty")
    stripped = [word.strip() for word in words]
    if not stripped:
        raise InputError("the vocabulary is empty: give at least two words")
    repeated = next((word for number, word in enumerate(stripped) if word in stripped[:number]), None)
    if repeated is not None:
        raise InputError(f"the vocabulary has {one_line(repeated)!r} twice: name every word once")
    if center and len(stripped) < 2:
        raise InputError(f"{stripped[0]!r} alone cannot be centred: give more words, or center=False")
    return stripped
