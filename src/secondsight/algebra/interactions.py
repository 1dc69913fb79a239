"""Interactions: a pair's similarity split into four terms and a matrix over the features of both sides."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.factors import JoinedFactor
from secondsight.algebra.layout import JoinedLayout, Layout, word_scores
from secondsight.algebra.matrix import FactoredMatrix
from secondsight.algebra.outcome import LARGE_ERROR, Outcome, joint_outcome
from secondsight.support.errors import InputError
from secondsight.support.files import json_record, load_record, reading, save_record

if TYPE_CHECKING:
    from secondsight.algebra.contributions import Contributions
    from secondsight.algebra.edit import Edit
    from secondsight.algebra.heads import Heads
    from secondsight.algebra.modes import Modes

_FORMAT = "secondsight-interactions-2"


@dataclass(frozen=True)
class Terms:
    """The four parts that a similarity splits into; they add up to it within the explanation's error.

    `base` is the two references' similarity, `left` and `right` what either input adds alone against the other's
    reference, `interaction` what only the two together add. `image` and `image_alone` name `left` by its kind, where the kinds
    differ, and `text` and `text_alone` the right side.
    """

    base: float
    left: float
    right: float
    interaction: float
    kinds: tuple[str, str] = ("left", "right")

    @property
    def total(self) -> float:
        """base + left + right + interaction."""
        return self.base + self.left + self.right + self.interaction

    def __getattr__(self, name: str) -> float:
        kinds, kind = self.__dict__.get("kinds", ()), name.removesuffix("_alone")
        if kind in kinds and len(set(kinds)) == 2:
            return self.left if kinds[0] == kind else self.right
        raise AttributeError(f"terms have base, left, right, interaction, {', '.join(kinds)}; not {name!r}")

    def __repr__(self) -> str:
        return f"Terms({', '.join(f'{name}={value:+.4f}' for name, value in self.by_name().items())})"

    def by_name(self) -> dict[str, float]:
        """Every term by the name that files use, such as image_alone."""
        return {label.replace(" ", "_"): value for label, value in self.labels()}

    def labels(self) -> tuple[tuple[str, float], ...]:
        """(name, value) of every term, the sides named by their kind where the kinds differ."""
        left, right = self.kinds if len(set(self.kinds)) == 2 else ("left", "right")
        return (
            ("base", self.base),
            (f"{left} alone", self.left),
            (f"{right} alone", self.right),
            ("interaction", self.interaction),
        )


@dataclass(frozen=True, eq=False)
class Interactions:
    """One pair: similarity = base + Σ left_effects + Σ right_effects + Σ matrix ± error ([M25] Eq. 10).

    `left_effects` (left,) and `right_effects` (right,) are what each feature adds against the other side's reference.
    `attributions` (left, right) are those of feature pairs, A_ij = U_i·V_j, as a tensor or as the `FactoredMatrix` that
    computes them when they are needed; `matrix` is always the tensor. All are in units of the similarity.
    `standard_errors` (left, right) are those of the matrix where a method samples, else None. `outcomes` says how the
    computation of each side went. `left_contributions` and `right_contributions` are the two sides whose product this is;
    None for pairs that were fitted jointly, subtracted, or read from a file.
    """

    attributions: Float[Tensor, "left right"] | FactoredMatrix
    left_effects: Float[Tensor, " left"]
    right_effects: Float[Tensor, " right"]
    base: float
    similarity: float
    left_layout: Layout
    right_layout: Layout
    about: Mapping[str, Any] = field(default_factory=dict)
    standard_errors: Float[Tensor, "left right"] | None = None
    outcomes: tuple[Outcome | None, Outcome | None] = (None, None)
    quantity: str = "similarity"
    left_contributions: Contributions | None = None
    right_contributions: Contributions | None = None

    def __post_init__(self) -> None:
        shape = (self.left_layout.size, self.right_layout.size)
        effects = (len(self.left_effects), len(self.right_effects))
        if effects != shape:
            raise InputError(f"effects of {effects} features do not fit layouts of {shape}")
        if tuple(self.attributions.shape) != shape:
            raise InputError(f"a matrix {tuple(self.attributions.shape)} does not fit layouts of {shape} features")

    def __repr__(self) -> str:
        shape = f"{self.left_layout.modality} {self.left_layout.size} × {self.right_layout.modality} {self.right_layout.size}"
        return f"{type(self).__name__}({shape}, {self.quantity} {self.similarity:.4f})"

    @property
    def order(self) -> int:
        """2, or 1 where each side has one map that any selection of the other side only scales, as `Method.order`."""
        return int(self.about.get("order", 2))

    @cached_property
    def matrix(self) -> Float[Tensor, "left right"]:
        """The feature-pair attributions A; computed here where they are lazy."""
        return self.attributions if isinstance(self.attributions, Tensor) else self.attributions.dense()

    def dense(self) -> Interactions:
        """The same pair with its matrix at hand and without the contributions, so that it needs the model no more."""
        return replace(self, attributions=self.matrix, left_contributions=None, right_contributions=None)

    @property
    def T(self) -> Interactions:  # as tensors name it
        """The same pair with its sides exchanged: `e.T[box]` is the map over the right side for a box of the left image."""
        about = dict(self.about)
        about |= {new: self.about[old] for new, old in (("left", "right"), ("right", "left")) if old in about}
        return Interactions(
            attributions=self.attributions.T,
            left_effects=self.right_effects,
            right_effects=self.left_effects,
            base=self.base,
            similarity=self.similarity,
            left_layout=self.right_layout,
            right_layout=self.left_layout,
            about=about,
            standard_errors=None if self.standard_errors is None else self.standard_errors.T,
            outcomes=self.outcomes[::-1],
            quantity=self.quantity,
            left_contributions=self.right_contributions,
            right_contributions=self.left_contributions,
        )

    @cached_property
    def terms(self) -> Terms:
        """The four terms of the similarity."""
        matrix = self.attributions
        interaction = float(matrix.double().sum()) if isinstance(matrix, Tensor) else matrix.sum()
        left, right = float(self.left_effects.double().sum()), float(self.right_effects.double().sum())
        return Terms(self.base, left, right, interaction, (self.left_layout.modality, self.right_layout.modality))

    @property
    def error(self) -> float:
        """|similarity − sum of the four terms|, measured."""
        return abs(self.similarity - self.terms.total)

    @property
    def converged(self) -> bool:
        """Whether both sides reached their tolerance.

        With a fixed number of nodes: whether both residuals are at most a tenth, and the error a tenth of the interaction.
        """
        outcomes = [outcome for outcome in self.outcomes if outcome is not None]
        if not all(outcome.converged for outcome in outcomes):
            return False
        fixed = any(outcome.fixed_nodes for outcome in outcomes)
        return not fixed or self.error <= LARGE_ERROR * abs(self.terms.interaction)

    def toward_left(self, selection: Any = None) -> Float[Tensor, " left"]:
        """Attribution of every left feature to a selection of right ones (span, box, indices; None: all visible)."""
        return self.attributions @ _weights(self.right_layout, self.left_layout, selection).to(self.left_effects)

    def toward_right(self, selection: Any = None) -> Float[Tensor, " right"]:
        """Attribution of every right feature to a selection of left ones (span, box, indices; None: all visible)."""
        return self.attributions.T @ _weights(self.left_layout, self.right_layout, selection).to(self.right_effects)

    def __getitem__(self, selection: Any) -> Tensor:
        """Attribution map over the left side for a span (or other selection) of the right side.

        An image gives its grid (rows, columns) without special features, a text its tokens.
        """
        return self.left_layout.view(self.toward_left(selection))

    def heatmap(self, selection: Any = None) -> Float[Tensor, "height width"]:
        """The map of `self[selection]` upsampled bilinearly to the original image's pixels, zero where not seen."""
        return self.left_layout.heatmap(self.toward_left(selection))

    def box(self, *corners: Any) -> list[tuple[str, float]]:
        """(word, score) for a box of the left image, x0, y0, x1, y1 in pixels of the original, also as one tuple.

        Cells count by their covered share. Raises `InputError` for anything but a box that meets the image.
        """
        box = corners[0] if len(corners) == 1 else corners
        weights = self.left_layout.cover(box).to(self.right_effects)
        if not self.right_layout.words:
            raise InputError(f"the right side is {self.right_layout.modality}, not text: use e.T[box] for its map")
        return word_scores(self.right_layout, self.attributions.T @ weights)

    @property
    def words(self) -> list[tuple[str, float]]:
        """(word, score) summed over all visible left features."""
        return word_scores(self.right_layout, self.toward_right(None))

    def modes(self, k: int | None = 3) -> Modes:
        """The k strongest singular parts of the matrix, each a map and a set of words; see `secondsight.algebra.modes`."""
        from secondsight.algebra.modes import modes

        return modes(self, k)

    def heads(self) -> Heads:
        """The pair split by the attention heads of the left side's last block; see `secondsight.algebra.heads`."""
        from secondsight.algebra.heads import heads

        return heads(self)

    def __sub__(self, subtracted: Interactions) -> Interactions:
        """What this model, method or layer sees more than another of the same pair, see `secondsight.algebra.difference`."""
        if not isinstance(subtracted, Interactions):
            return NotImplemented
        from secondsight.algebra.difference import difference

        return difference(self, subtracted)

    def without(self, selection: Any = None, *, left: Any = None) -> Edit:
        """What the pair would be without some words, boxes or positions of the right side, and of the left one.

        A prediction by linear algebra, see `secondsight.algebra.edit.predict`; `Explanation.without` verifies it.
        """
        from secondsight.algebra.edit import predict

        return predict(self, left, selection)

    def special_share(self, name: str | None = None) -> tuple[float, float]:
        """Share of Σ|A| that lies in special rows (left) and special columns (right), in 0 … 1; views hide these.

        With `name` only positions of that name count, such as "prompt".
        """
        size = self.matrix.abs().double()
        total = float(size.sum()) or 1.0
        left, right = (
            [i for i, called in layout.special.items() if name in (None, called)]
            for layout in (self.left_layout, self.right_layout)
        )
        return float(size[left].sum()) / total, float(size[:, right].sum()) / total

    def to_json(self) -> dict[str, Any]:
        """Plain data that `load` reads back: similarity, error, every term by its name, the words' scores, layouts, matrix.

        `docs/reference/json.md` explains every key.
        """
        return json_record(self._tensors(), self._facts())

    def _tensors(self) -> dict[str, Tensor]:
        effects = {"left_effects": self.left_effects, "right_effects": self.right_effects}
        errors = {} if self.standard_errors is None else {"standard_errors": self.standard_errors}
        return {"attributions": self.matrix, **effects, **errors}

    def _facts(self) -> dict[str, Any]:
        terms = self.terms
        sides = (
            ("left", self.left_layout, self.toward_left(None)),
            ("right", self.right_layout, self.toward_right(None)),
        )
        return {
            "format": _FORMAT,
            "similarity": self.similarity,
            "terms": {"base": terms.base, "left": terms.left, "right": terms.right, "interaction": terms.interaction},
            "error": self.error,
            **terms.by_name(),
            "words": {side: _word_list(layout, values) for side, layout, values in sides if layout.words},
            **self.about,
            "left": {**self.left_layout.to_json(), **self.about.get("left", {})},
            "right": {**self.right_layout.to_json(), **self.about.get("right", {})},
            "quantity": self.quantity,
            "converged": self.converged,
            "outcomes": [None if outcome is None else outcome.to_json() for outcome in self.outcomes],
            "about": dict(self.about),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to .npz or .json, exactly; the file appears only when it is complete."""
        save_record(path, self._tensors(), self._facts())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Interactions:
        """Read what `save` wrote; raises `InputError` for anything else."""
        tensors, facts = load_record(path, _FORMAT)
        with reading(path, "interactions"):
            left, right = facts["outcomes"]
            return Interactions(
                attributions=tensors["attributions"],
                left_effects=tensors["left_effects"],
                right_effects=tensors["right_effects"],
                standard_errors=tensors.get("standard_errors"),
                base=facts["terms"]["base"],
                similarity=facts["similarity"],
                left_layout=Layout.from_json(facts["left"]),
                right_layout=Layout.from_json(facts["right"]),
                about=facts["about"],
                outcomes=(Outcome.from_json(left), Outcome.from_json(right)),
                quantity=facts["quantity"],
            )


def _weights(layout: Layout, other: Layout, selection: Any) -> Float[Tensor, " feature"]:
    """What a selection of a side weights; a word that only the other side has is refused with the way to it."""
    try:
        return layout.select(selection)
    except InputError as problem:
        if not isinstance(selection, str) or not _selects(other, selection):
            raise
        raise InputError(f"{problem}; the other side has it: e.T exchanges the sides") from problem


def _selects(layout: Layout, selection: Any) -> bool:
    try:
        layout.select(selection)
    except InputError:
        return False
    return True


def _word_list(layout: Layout, values: Float[Tensor, " feature"]) -> list[dict[str, Any]]:
    """Every word with its place in its text and its score."""
    scores = word_scores(layout, values)
    return [
        {"word": word.text, "start": word.start, "end": word.end, "score": score}
        for word, (_, score) in zip(layout.words, scores, strict=True)
    ]


def margin(first: Interactions, second: Interactions) -> Interactions:
    """Why the left input matches the first right one rather than the second: s(a, b₁) − s(a, b₂) in the same four terms.

    The right side has the features of both, those of the second subtracted. Raises `InputError` where the left sides
    differ.
    """
    if first.left_layout != second.left_layout:
        raise InputError("a margin needs the same left input twice")
    pair, signs = (first, second), (1, -1)
    # What only one of the two pairs has is told of both.
    own = {fact: [p.about.get(fact) for p in pair] for fact in ("assignment", "axes") if fact in first.about}
    return Interactions(
        attributions=_side_by_side(first, second),
        left_effects=first.left_effects - second.left_effects,
        right_effects=torch.cat([first.right_effects, -second.right_effects]),
        base=first.base - second.base,
        similarity=first.similarity - second.similarity,
        left_layout=first.left_layout,
        right_layout=JoinedLayout.of([p.right_layout for p in pair], signs),
        about={**first.about, **own, "right": joint_facts([p.about.get("right", {}) for p in pair])},
        standard_errors=None
        if first.standard_errors is None or second.standard_errors is None
        else torch.cat([first.standard_errors, second.standard_errors], 1),
        outcomes=(first.outcomes[0], joint_outcome([p.outcomes[1] for p in pair])),
        quantity="margin",
    )


def _side_by_side(first: Interactions, second: Interactions) -> Tensor | FactoredMatrix:
    """The matrices of one left input beside each other, the second negative; lazy where both come from one left side."""
    left, rights = first.left_contributions, (first.right_contributions, second.right_contributions)
    matrices = (first.attributions, second.attributions)
    if (
        left is None
        or left is not second.left_contributions
        or all(isinstance(m, Tensor) or m.computed for m in matrices)
    ):
        return torch.cat([first.matrix, -second.matrix], 1)
    scales = [sign * left.scale * right.scale for sign, right in zip((1, -1), rights, strict=True) if right is not None]
    return FactoredMatrix(left.rows, JoinedFactor([right.rows for right in rights if right is not None], scales))


def joint_facts(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several sets of facts share, and under "inputs" each of them."""
    first, *rest = facts
    shared = {k: v for k, v in first.items() if k != "inputs" and all(facts_of.get(k) == v for facts_of in rest)}
    return {**shared, "inputs": [entry for f in facts for entry in f.get("inputs", [dict(f)])]}
