"""The layout of any features, which the layouts of images, texts and sounds refine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from secondsight.support.errors import InputError

Span = str | int | tuple[int, int] | list[int] | slice
"""A substring, a token index, (start, end) character offsets, a list of token indices, or a slice of them."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the original image."""

_MAX_FEATURES = 100_000_000
"""Features of the largest layout that is read from a file."""

_CLASSES: dict[str, type[Layout]] = {}
"""Every layout class by its `kind`."""


@dataclass(frozen=True)
class Word:
    """A word of the caption: its text, its character offsets, and the features (tokens) that make it up."""

    text: str
    start: int
    end: int
    features: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The features of one input, in the order of the rows of its contributions.

    `size` counts them all. `special` names those that are not a patch or word (class token, start, end, padding, mean
    token): they keep their row so that sums stay exact, and views hide them.

    A subclass sets `kind`, by which `from_json` finds it, and overrides the members in which it differs.
    """

    size: int
    special: Mapping[int, str] = field(default_factory=dict)
    kind: ClassVar[str] = "features"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _CLASSES[cls.kind] = cls

    def __post_init__(self) -> None:
        if any(not 0 <= i < self.size for i in self.special):
            raise InputError(f"special features {sorted(self.special)} do not fit a layout of {self.size} features")

    @cached_property
    def visible(self) -> list[int]:
        """Indices of the features that are not special, in order."""
        return [i for i in range(self.size) if i not in self.special]

    @property
    def modality(self) -> str:
        """What the features are parts of: "image", "text", "audio", or "features" if it is unknown."""
        return self.kind

    @cached_property
    def cells(self) -> Int[Tensor, ...]:
        """The index of the feature in every place of `view`."""
        return torch.arange(self.size)

    @property
    def words(self) -> list[Word]:
        """The words of the input's text; empty for images and sound."""
        return []

    @property
    def text(self) -> str | None:
        """The input's text; None for images, sound, and tokens of unknown wording."""
        return None

    @property
    def offsets(self) -> tuple[tuple[int, int] | None, ...]:
        """The (start, end) of every feature in the text; None for features that are not part of it."""
        return (None,) * self.size

    @property
    def parts(self) -> tuple[Layout, ...]:
        """The layouts of the inputs that the features belong to; for a single input the layout itself."""
        return (self,)

    @property
    def signs(self) -> tuple[int, ...]:
        """Whether each part adds to the similarity (1) or is subtracted (−1)."""
        return (1,) * len(self.parts)

    def split(self, values: Shaped[Tensor, "... feature"]) -> list[Tensor]:
        """Per-feature values of every part."""
        return [values]

    def each(self, inputs: Any) -> tuple[Any, ...]:
        """The input of every part, out of what the whole layout describes; None for each if it is not available."""
        return (inputs,)

    def select(self, selection: Any) -> Float[Tensor, " feature"]:
        """0/1 weights over the features for token or cell indices, a slice, or None (all visible features).

        Raises `InputError` for an index outside the layout or a selection that this kind does not know.
        """
        if selection is None:
            return self.indicator(self.visible)
        if isinstance(selection, slice):
            try:
                return self.indicator(range(self.size)[selection])
            except (TypeError, ValueError) as error:
                raise InputError(f"cannot select {selection!r}: a slice must have whole numbers") from error
        if isinstance(selection, int):
            selection = [selection]
        if isinstance(selection, list) and all(isinstance(i, int) for i in selection) and selection:
            outside = [i for i in selection if not -self.size <= i < self.size]
            if outside:
                raise InputError(f"feature index {outside[0]} is outside 0 … {self.size - 1}")
            return self.indicator([i % self.size for i in selection])
        raise InputError(f"cannot select {selection!r} from {self.kind}: use an index, a list of indices or a slice")

    def cover(self, box: Any) -> Float[Tensor, " feature"]:
        """Share of every cell's area that lies in the box (original pixels); `InputError` without an image."""
        del box
        raise InputError(f"a box needs an image, not {self.modality}")

    def view(self, values: Tensor) -> Tensor:
        """Per-feature values as this kind shows them, see `cells`."""
        return values[..., self.cells.to(values.device)]

    def heatmap(
        self, values: Float[Tensor, " feature"], size: tuple[int, int] | None = None
    ) -> Float[Tensor, "height width"]:
        """Per-feature values as (height, width) pixels of the input, by default the original image's.

        Raises `InputError` for a kind that is not drawn as a picture, or has no size of its own.
        """
        del values, size
        raise InputError(f"a heatmap needs an image, not {self.modality}")

    def with_special(self, names: Sequence[str]) -> Layout:
        """The layout with more special features, of these names, behind its own features."""
        special = {**self.special, **{self.size + i: name for i, name in enumerate(names)}}
        return replace(self, size=self.size + len(names), special=special)

    def common_layout(self, target: Layout) -> Layout:
        """A layout for this input's features as well as another's of the same kind, its last feature for the rest.

        Raises `InputError` for layouts of different inputs.
        """
        del target
        raise InputError("the features of the two explanations differ and have no common layout")

    def shares_in(self, target: Layout) -> Float[Tensor, "other feature"]:
        """The share, in 0 … 1, of every feature that lies in every visible feature of another layout of this input."""
        if self != target:
            raise InputError(f"features of {self.kind} cannot be distributed over those of {target.kind}")
        return torch.eye(self.size, dtype=torch.float64)

    def indicator(self, indices: Sequence[int] | range) -> Float[Tensor, " feature"]:
        """1 for the features of these indices, 0 for the others."""
        weights = torch.zeros(self.size)
        weights[list(indices)] = 1.0
        return weights

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Layout.from_json` reads back."""
        return {
            "kind": self.kind,
            "size": self.size,
            "special": {str(i): name for i, name in self.special.items()},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Layout:
        """The layout that `to_json` wrote; `InputError` for an unknown kind."""
        # A damaged or hostile file must not make us allocate what no real layout needs.
        if not isinstance(data["size"], int) or not 0 <= data["size"] <= _MAX_FEATURES:
            raise InputError(f"a layout must have 0 … {_MAX_FEATURES} features, not {data['size']!r}")
        special = {int(i): name for i, name in data["special"].items()}
        layout = _CLASSES.get(data["kind"])
        if layout is None:
            raise InputError(f"unknown layout kind {data['kind']!r}; known: {', '.join(_CLASSES)}")
        return layout.from_fields(data["size"], special, data)

    @classmethod
    def from_fields(cls, size: int, special: dict[int, str], data: Mapping[str, Any]) -> Layout:
        """The layout of this class that `to_json` wrote; subclasses read their own fields."""
        del data
        return cls(size, special)


_CLASSES[Layout.kind] = Layout


def word_scores(layout: Layout, values: Float[Tensor, " feature"]) -> list[tuple[str, float]]:
    """Per-feature values summed over the tokens of each word, in reading order; `InputError` without a text."""
    if not layout.words:
        raise InputError(f"words need a text, not {layout.modality}")
    return [(word.text, float(values[list(word.features)].sum())) for word in layout.words]
