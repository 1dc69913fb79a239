"""Interactions: a pair's similarity split into four terms and a matrix over the features of both sides."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.layout import Box, GridLayout, JoinedLayout, Layout, word_scores, words_of
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, load_arrays, load_json, reading, save_arrays

_TENSORS = ("attributions", "left_effects", "right_effects")


@runtime_checkable
class LazyMatrix(Protocol):
    """An attribution matrix whose parts are computed when asked for."""

    def times(self, right: Float[Tensor, " right"]) -> Float[Tensor, " left"]:
        """Σ_j A_ij w_j."""

    def times_left(self, left: Float[Tensor, " left"]) -> Float[Tensor, " right"]:
        """Σ_i w_i A_ij."""

    def total(self) -> float:
        """Σ_ij A_ij."""

    def dense(self) -> Float[Tensor, "left right"]:
        """The whole matrix."""


@dataclass(frozen=True, eq=False)
class _Swapped:
    """A lazy matrix transposed."""

    matrix: LazyMatrix

    def times(self, right: Tensor) -> Tensor:
        return self.matrix.times_left(right)

    def times_left(self, left: Tensor) -> Tensor:
        return self.matrix.times(left)

    def total(self) -> float:
        return self.matrix.total()

    def dense(self) -> Tensor:
        return self.matrix.dense().T


@dataclass(frozen=True, eq=False)
class _Dense:
    """A tensor with the face of a lazy matrix."""

    tensor: Tensor

    def times(self, right: Tensor) -> Tensor:
        return self.tensor @ right

    def times_left(self, left: Tensor) -> Tensor:
        return left @ self.tensor

    def total(self) -> float:
        return float(self.tensor.double().sum())

    def dense(self) -> Tensor:
        return self.tensor


@dataclass(frozen=True, eq=False)
class _Joined:
    """Matrices of the same left features side by side, each with its sign."""

    parts: tuple[LazyMatrix, ...]
    sizes: tuple[int, ...]
    signs: tuple[int, ...]

    def times(self, right: Tensor) -> Tensor:
        shares = zip(self.parts, self.signs, right.split(list(self.sizes)), strict=True)
        # What nobody asked for may cost a pass through the model.
        asked = [s * part.times(own) for part, s, own in shares if bool(own.any())]
        return torch.stack(asked).sum(0) if asked else self.parts[0].times(right[: self.sizes[0]])

    def times_left(self, left: Tensor) -> Tensor:
        return torch.cat([sign * part.times_left(left) for part, sign in zip(self.parts, self.signs, strict=True)])

    def total(self) -> float:
        return sum(sign * part.total() for part, sign in zip(self.parts, self.signs, strict=True))

    def dense(self) -> Tensor:
        return torch.cat([sign * part.dense() for part, sign in zip(self.parts, self.signs, strict=True)], dim=1)


@dataclass(frozen=True)
class Terms:
    """The four parts that a similarity splits into; they add up to it within the explanation's error.

    `base` is the two references' similarity, `left` and `right` what either input adds alone against the other's
    reference, `interaction` what only the two together add. `image` and `text` name `left` and `right` by their kind.
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
        kinds = self.__dict__.get("kinds", ())
        if name in kinds and len(set(kinds)) == 2:
            return self.left if kinds[0] == name else self.right
        raise AttributeError(f"terms have base, left, right, interaction, {', '.join(kinds)}; not {name!r}")

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
    `attributions` (left, right) are those of feature pairs, A_ij = U_i·V_j, or something that computes them when asked;
    `matrix` is always the tensor. All are in units of the similarity. `standard_errors` (left, right) are those of the
    matrix where a method samples, else None.
    """

    attributions: Float[Tensor, "left right"] | LazyMatrix
    left_effects: Float[Tensor, " left"]
    right_effects: Float[Tensor, " right"]
    base: float
    similarity: float
    left_layout: Layout
    right_layout: Layout
    about: Mapping[str, Any] = field(default_factory=dict)
    standard_errors: Float[Tensor, "left right"] | None = None

    def __post_init__(self) -> None:
        shape = (self.left_layout.size, self.right_layout.size)
        effects = (len(self.left_effects), len(self.right_effects))
        if effects != shape:
            raise InputError(f"effects of {effects} features do not fit layouts of {shape}")
        if isinstance(self.attributions, Tensor) and self.attributions.shape != shape:
            raise InputError(f"a matrix {tuple(self.attributions.shape)} does not fit layouts of {shape} features")

    def __repr__(self) -> str:
        shape = f"{self.left_layout.modality} {self.left_layout.size} × {self.right_layout.modality} {self.right_layout.size}"
        return f"{type(self).__name__}({shape}, {self.called} {self.similarity:.4f})"

    @cached_property
    def matrix(self) -> Float[Tensor, "left right"]:
        """The feature-pair attributions A; computed here where they are lazy."""
        return self._lazy.dense()

    @property
    def _lazy(self) -> LazyMatrix:
        if isinstance(self.attributions, Tensor):
            return _Dense(self.attributions)
        # Once the whole is known, its parts cost no pass through the model.
        return _Dense(self.matrix) if "matrix" in self.__dict__ else self.attributions

    @property
    def T(self) -> Interactions:  # as tensors name it
        """The same pair with its sides exchanged: `e.T[box]` is the map over the right side for a box of the left image."""
        lazy, about = self.attributions, dict(self.about)
        about |= {side: self.about[other] for side, other in (("left", "right"), ("right", "left")) if other in about}
        return Interactions(
            attributions=lazy.T if isinstance(lazy, Tensor) else _Swapped(lazy),
            left_effects=self.right_effects,
            right_effects=self.left_effects,
            base=self.base,
            similarity=self.similarity,
            left_layout=self.right_layout,
            right_layout=self.left_layout,
            about=about,
            standard_errors=None if self.standard_errors is None else self.standard_errors.T,
        )

    @cached_property
    def terms(self) -> Terms:
        """The four terms of the similarity."""
        interaction = self._lazy.total()
        left, right = float(self.left_effects.double().sum()), float(self.right_effects.double().sum())
        return Terms(self.base, left, right, interaction, (self.left_layout.modality, self.right_layout.modality))

    @property
    def called(self) -> str:
        """What `similarity` is: the similarity, a margin between two inputs, or a difference of two explanations."""
        if "difference" in self.about:
            return "difference"
        joined = isinstance(self.left_layout, JoinedLayout) or isinstance(self.right_layout, JoinedLayout)
        return "margin" if joined else "similarity"

    @property
    def error(self) -> float:
        """|similarity − sum of the four terms|, measured."""
        return abs(self.similarity - self.terms.total)

    def toward_left(self, selection: Any = None) -> Float[Tensor, " left"]:
        """Attribution of every left feature to a selection of right ones (span, box, indices; None: all visible)."""
        return self._lazy.times(self.right_layout.select(selection).to(self.left_effects))

    def toward_right(self, selection: Any = None) -> Float[Tensor, " right"]:
        """Attribution of every right feature to a selection of left ones (span, box, indices; None: all visible)."""
        return self._lazy.times_left(self.left_layout.select(selection).to(self.right_effects))

    def __getitem__(self, selection: Any) -> Tensor:
        """Attribution map over the left side for a span (or other selection) of the right side.

        An image gives its grid (rows, columns) without special features, a text its tokens.
        """
        return self.left_layout.view(self.toward_left(selection))

    def heatmap(self, selection: Any = None) -> Float[Tensor, "height width"]:
        """The map of `self[selection]` upsampled bilinearly to the original image's pixels, zero where not seen."""
        if not isinstance(self.left_layout, GridLayout):
            raise InputError(f"a heatmap needs an image on the left side, which is {self.left_layout.modality}")
        return self.left_layout.heatmap(self.toward_left(selection))

    def box(self, x0: float, y0: float, x1: float, y1: float) -> list[tuple[str, float]]:
        """(word, score) for a box of the left image, in pixels of the original; cells count by their covered share."""
        if not isinstance(self.left_layout, GridLayout):
            raise InputError(f"a box needs an image on the left side, which is {self.left_layout.modality}")
        if not words_of(self.right_layout):
            raise InputError(f"the right side is {self.right_layout.modality}, not text: use e.T[box] for its map")
        box: Box = (x0, y0, x1, y1)
        return word_scores(self.right_layout, self.toward_right(box))

    @property
    def words(self) -> list[tuple[str, float]]:
        """(word, score) summed over all visible left features."""
        return word_scores(self.right_layout, self.toward_right(None))

    def __sub__(self, other: Interactions) -> Interactions:
        """What this model, method or layer sees more than another of the same pair, see `secondsight.algebra.difference`."""
        if not isinstance(other, Interactions):
            return NotImplemented
        from secondsight.algebra.difference import difference

        return difference(self, other)

    def special_share(self) -> tuple[float, float]:
        """Share of Σ|A| that lies in special rows (left) and special columns (right), in 0 … 1; views hide these."""
        size = self.matrix.abs().double()
        total = float(size.sum()) or 1.0
        left, right = list(self.left_layout.special), list(self.right_layout.special)
        return float(size[left].sum()) / total, float(size[:, right].sum()) / total

    def to_json(self) -> dict[str, Any]:
        """Plain data: similarity, terms, error, both layouts, attributions and effects; `load` reads it back."""
        terms = self.terms
        return {
            "format": "secondsight-interactions-1",
            "similarity": self.similarity,
            "terms": {"base": terms.base, "left": terms.left, "right": terms.right, "interaction": terms.interaction},
            "error": self.error,
            **self.about,
            "left": {**self.left_layout.to_json(), **self.about.get("left", {}), "effects": self.left_effects.tolist()},
            "right": {
                **self.right_layout.to_json(),
                **self.about.get("right", {}),
                "effects": self.right_effects.tolist(),
            },
            "attributions": self.matrix.tolist(),
            **({} if self.standard_errors is None else {"standard_errors": self.standard_errors.tolist()}),
            "dtype": str(self.matrix.dtype).removeprefix("torch."),
            "about": dict(self.about),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to .npz or .json, exactly; the file appears only when it is complete."""
        if Path(path).suffix == ".npz":
            facts = {
                "format": "secondsight-interactions-1",
                "base": self.base,
                "similarity": self.similarity,
                "left": self.left_layout.to_json(),
                "right": self.right_layout.to_json(),
                "about": dict(self.about),
            }
            tensors = dict(zip(_TENSORS, (self.matrix, self.left_effects, self.right_effects), strict=True))
            if self.standard_errors is not None:
                tensors["standard_errors"] = self.standard_errors
            save_arrays(path, tensors, facts)
        elif Path(path).suffix == ".json":
            with atomic(path) as file:
                write_json(file, self.to_json())
        else:
            raise InputError(f"cannot save interactions as {str(path)!r}: the name must end in .npz or .json")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Interactions:
        """Read what `save` wrote; raises `InputError` for anything else."""
        with reading(path, "interactions"):
            if Path(path).suffix == ".npz":
                tensors, facts = load_arrays(path)
                base = facts.get("base", 0.0)
            else:
                tensors, facts = {}, load_json(path)
                base = facts.get("terms", {}).get("base", 0.0)
            if facts.get("format") != "secondsight-interactions-1":
                raise InputError(f"{str(path)!r} holds no interactions")
            if not tensors:
                dtype = getattr(torch, facts["dtype"])
                sources = (facts["attributions"], facts["left"]["effects"], facts["right"]["effects"])
                tensors = {n: torch.tensor(s, dtype=dtype) for n, s in zip(_TENSORS, sources, strict=True)}
                if "standard_errors" in facts:
                    tensors["standard_errors"] = torch.tensor(facts["standard_errors"], dtype=dtype)
            return Interactions(
                **tensors,
                base=base,
                similarity=facts["similarity"],
                left_layout=Layout.from_json(facts["left"]),
                right_layout=Layout.from_json(facts["right"]),
                about=facts["about"],
            )


def margin(first: Interactions, second: Interactions) -> Interactions:
    """Why the left input matches the first right one rather than the second: s(a, b₁) − s(a, b₂) in the same four terms.

    The right side has the features of both, those of the second subtracted. Raises `InputError` where the left sides
    differ.
    """
    if first.left_layout != second.left_layout:
        raise InputError("a margin needs the same left input twice")
    pair, signs = (first, second), (1, -1)
    return Interactions(
        attributions=_Joined(tuple(p._lazy for p in pair), tuple(p.right_layout.size for p in pair), signs),
        left_effects=first.left_effects - second.left_effects,
        right_effects=torch.cat([first.right_effects, -second.right_effects]),
        base=first.base - second.base,
        similarity=first.similarity - second.similarity,
        left_layout=first.left_layout,
        right_layout=JoinedLayout.of([p.right_layout for p in pair], signs),
        about={**first.about, "right": joint_facts([p.about.get("right", {}) for p in pair])},
        standard_errors=None
        if first.standard_errors is None or second.standard_errors is None
        else torch.cat([first.standard_errors, second.standard_errors], 1),
    )


def joint_facts(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several sets of facts share, and under "inputs" each of them."""
    first, *others = facts
    shared = {k: v for k, v in first.items() if k != "inputs" and all(o.get(k) == v for o in others)}
    return {**shared, "inputs": [one for f in facts for one in f.get("inputs", [dict(f)])]}


def tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    """A tensor as plain data; decimal floats read back to the same bits."""
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "data": tensor.tolist()}


def tensor_from_json(data: Mapping[str, Any]) -> Tensor:
    """The tensor that `tensor_to_json` described."""
    return torch.tensor(data["data"], dtype=getattr(torch, data["dtype"]))


def write_json(file: IO[bytes], data: Mapping[str, Any]) -> None:
    """Write one JSON object as UTF-8."""
    file.write(json.dumps(data, ensure_ascii=False, allow_nan=False).encode())
