"""Which document token each query token of a late-interaction pair chooses, and by how much."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from secondsight.algebra.layout import Layout
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.algebra.contributions import Contributions


@dataclass(frozen=True, eq=False)
class Assignment:
    """Similarities (query, document) of the tokens that are compared; `query` and `document` are these tokens' positions.

    `mean` says that the similarity is the best matches' mean (MeanMaxSim) instead of their sum (MaxSim).
    """

    similarities: Float[Tensor, "query document"]
    query: Int[Tensor, " query"]
    document: Int[Tensor, " document"]
    mean: bool = False

    @cached_property
    def best(self) -> Int[Tensor, " query"]:
        """Of every compared query token the column of its best match, the first of equal ones."""
        return self.similarities.argmax(1)

    @property
    def choice(self) -> Int[Tensor, " query"]:
        """Of every compared query token the position of its best match in the document."""
        return self.document[self.best]

    @property
    def weight(self) -> float:
        """What each match counts in the similarity."""
        return 1 / len(self.query) if self.mean else 1.0

    @cached_property
    def similarity(self) -> float:
        """MaxSim, or its mean over query tokens."""
        return float(self.similarities.double().amax(1).sum()) * self.weight

    @cached_property
    def runner_up(self) -> Int[Tensor, " query"] | None:
        """Of every compared query token the column of its second best match; None in a document of one token."""
        if self.similarities.shape[1] < 2:
            return None
        rest = self.similarities.scatter(1, self.best[:, None], -torch.inf)
        return rest.argmax(1)

    @property
    def margins(self) -> Float[Tensor, " query"]:
        """By how much the best match wins over the second best; infinite in a document of one token."""
        values = self.similarities.amax(1)
        if self.runner_up is None:
            return torch.full_like(values, torch.inf)
        return values - self.similarities.gather(1, self.runner_up[:, None])[:, 0]

    @cached_property
    def name(self) -> str:
        """Names the pair that this assignment belongs to."""
        return "pair " + hashlib.sha256(self.similarities.double().cpu().numpy().tobytes()).hexdigest()[:16]

    def matrix(self, size: tuple[int, int]) -> Float[Tensor, "all_query all_document"]:
        """What every pair of all tokens adds to the similarity: the best matches' similarities, zero elsewhere."""
        matrix = self.similarities.new_zeros(size)
        matrix[self.query, self.choice] = self.similarities.amax(1) * self.weight
        return matrix

    def facts(self, query: Layout, document: Layout) -> list[dict[str, Any]]:
        """One entry for every compared query token: its best match, the similarity, the margin, and the runner-up.

        `margin` is how much the similarity of the best match would have to fall behind for the choice to flip to
        `runner_up`; both are None in a document of one token. Positions count all tokens, compared or not.
        """
        names = token_names(query), token_names(document)
        margins, values = self.margins.tolist(), self.similarities.amax(1).tolist()
        entries = []
        for row, (position, match) in enumerate(zip(self.query.tolist(), self.choice.tolist(), strict=True)):
            second = None if self.runner_up is None else int(self.document[self.runner_up[row]])
            entries.append(
                {
                    "token": names[0][position],
                    "position": position,
                    "match": names[1][match],
                    "match_position": match,
                    "similarity": values[row],
                    "margin": None if second is None else margins[row],
                    "runner_up": None if second is None else names[1][second],
                    "runner_up_position": second,
                }
            )
        return entries


@dataclass(frozen=True)
class TokenPairing:
    """How token vectors of a late-interaction model are multiplied: those of a query with their best matches in a document.

    `role` is "query" or "document", `compared` the positions that the host compares, `mean` as in `Assignment`.
    """

    role: str
    compared: tuple[int, ...]
    mean: bool = False

    def assign(self, own: Contributions, partner: Contributions) -> Assignment:
        """The assignment of a query and a document, whichever of the two comes first; `InputError` for two of one role.

        Its similarities are those of the vectors themselves, without the factors of their contributions.
        """
        sides = {c.pairing.role: c for c in (own, partner) if c.pairing is not None}
        if len(sides) < 2:
            raise InputError(
                f"token vectors of a {self.role} match those of the other role only: multiply a query with a document"
            )
        query, document = sides["query"], sides["document"]
        # Positions are numbers of this machine's memory, wherever the model is.
        vectors = [_compared(c).double().cpu() for c in (query, document)]
        positions = [torch.tensor(c.pairing.compared) for c in (query, document) if c.pairing is not None]
        return Assignment(vectors[0] @ vectors[1].T, positions[0], positions[1], self.mean)

    def without(self, weights: Float[Tensor, " feature"]) -> TokenPairing:
        """The same without tokens of weight 1; `InputError` where none is left to compare."""
        left = tuple(position for position in self.compared if float(weights[position]) < 1)
        if not left:
            raise InputError(f"nothing of the {self.role} is left to compare: take away fewer of its tokens")
        return replace(self, compared=left)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return {"role": self.role, "compared": list(self.compared), "mean": self.mean}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> TokenPairing | None:
        """The pairing that `to_json` wrote; None for none."""
        return None if data is None else cls(data["role"], tuple(data["compared"]), data["mean"])


def _compared(c: Contributions) -> Tensor:
    return c.vectors if c.pairing is None else c.vectors[list(c.pairing.compared)]


def token_names(layout: Layout) -> Sequence[str]:
    """What people call each feature: its part of the text, the token where it stands for none, or its grid cell."""
    tokens: Sequence[str] | None = getattr(layout, "tokens", None)
    if tokens is not None:
        places = layout.offsets or (None,) * layout.size
        text = layout.text or ""
        return [token if place is None else text[slice(*place)] for token, place in zip(tokens, places, strict=True)]
    names = [f"{layout.modality} {position}" for position in range(layout.size)]
    for (row, column), position in _cells(layout):
        names[position] = f"row {row + 1}, column {column + 1}"
    for position, name in layout.special.items():
        names[position] = name
    return names


def _cells(layout: Layout) -> list[tuple[tuple[int, int], int]]:
    cells = layout.cells
    if cells.ndim != 2:
        return []
    return [
        ((row, column), int(cells[row, column])) for row in range(cells.shape[0]) for column in range(cells.shape[1])
    ]
