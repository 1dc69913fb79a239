"""The late-interaction model: a query side and a document side whose similarity is MaxSim, explained pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.assignment import Assignment
from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import Layout
from secondsight.encoders.base import check_finite
from secondsight.encoders.late_interaction import LateInteractionEncoder
from secondsight.inputs.prepared import Prepared
from secondsight.methods import IntegratedJacobian, as_method
from secondsight.methods.layer_input import LayerMethod
from secondsight.model import DualEncoder, Side
from secondsight.support.errors import AdapterError, InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.methods.base import Method

HostSimilarity = Callable[[Prepared, Prepared], float | None]
"""The host's own similarity of a query and a document; None where it cannot be asked for these."""

_ALLOWED = 1e-4
_ALLOWED_HALF = 3e-2
"""Relative differences to the host's similarity, for models in half precision the larger one."""


@dataclass(frozen=True, eq=False, repr=False)
class SimilarityMap:
    """Similarities (query, document) of every query token with every document token, zero where the host compares none.

    `similarity` is MaxSim as the host computes it; `assignment` is as in an explanation's `about["assignment"]`.
    """

    matrix: Float[Tensor, "query document"]
    query_layout: Layout
    document_layout: Layout
    similarity: float
    assignment: list[dict[str, Any]]

    def __repr__(self) -> str:
        return f"SimilarityMap({' × '.join(map(str, self.matrix.shape))} tokens, similarity {self.similarity:.4f})"

    def __getitem__(self, selection: Any) -> Tensor:
        """The map over the document for words (or token indices) of the query, their tokens' similarities added."""
        weights = self.query_layout.select(selection).to(self.matrix)
        return self.document_layout.view(weights @ self.matrix)


TOKEN_VECTORS = IntegratedJacobian(layer="output")
"""The method that gives token vectors themselves."""


class TokenSide(Side):
    """A side of a late-interaction model outside of a pair: it has token vectors, and no embedding."""

    def embed_prepared(self, inputs: Sequence[Prepared]) -> Float[Tensor, "input joint"]:
        """`InputError`."""
        raise InputError(
            f"a late-interaction model has a vector for every token of a {self.kind} and no embedding of the whole: "
            "use model.similarity_map(query, document)"
        )

    def contributions(
        self, inputs: Any, method: Method | type[Method] | str | None = None, *, truncate: bool = False
    ) -> list[Contributions]:
        """Contributions of a batch of inputs; by default their token vectors, whose products with a partner's are MaxSim."""
        return super().contributions(inputs, TOKEN_VECTORS if method is None else method, truncate=truncate)


class LateInteraction(DualEncoder):
    """A query side and a document side, by their encoders' `role`s; their similarity is MaxSim, or with `mean` MeanMaxSim.

    For each pair the document tokens that win at the full inputs are held: the similarity is then an inner product of
    two vectors, which methods explain as any other. `host` is the host's own similarity, to which ours is compared for
    the first pair; `AdapterError` if they differ. Raises `InputError` unless there is one side of each role.
    """

    left: Side
    right: Side
    factorises = False

    def __init__(
        self,
        left: LateInteractionEncoder,
        right: LateInteractionEncoder,
        *,
        name: str = "late interaction",
        mean: bool = False,
        host: HostSimilarity | None = None,
    ) -> None:
        super().__init__(left, right, name=name, cosine=False)
        if {left.role, right.role} != {"query", "document"}:
            raise InputError(
                f"late interaction compares a query with a document, not a {left.role} with a {right.role}"
            )
        self._encoders, self.mean, self._host = (left, right), mean, host
        left.mean = right.mean = mean
        self.left, self.right = (
            TokenSide(encoder, index, False, f"{encoder.role} tokens of {name} outside of a pair", encoder.role)
            for index, encoder in enumerate(self._encoders)
        )

    def __getstate__(self) -> dict[str, Any]:
        # The host's similarity is that of this object's weights, which a copy may change.
        return {**self.__dict__, "_host": None}

    @property
    def measure(self) -> str:
        """See `DualEncoder.measure`."""
        return "MeanMaxSim" if self.mean else "MaxSim"

    @property
    def query(self) -> Side:
        """The side of queries."""
        return self.left if self._encoders[0].role == "query" else self.right

    @property
    def document(self) -> Side:
        """The side of documents."""
        return self.right if self._encoders[0].role == "query" else self.left

    def collection_side(self, kind: str) -> Side:
        """The side of documents, where it takes the kind."""
        return self.document if kind == self.document.kind else self.side(kind)

    def storable(self, method: Method | type[Method] | str | None = None) -> Method:
        """A method at the layer "output", by default the token vectors themselves; `InputError` for other layers."""
        chosen = TOKEN_VECTORS if method is None else as_method(method)
        if not isinstance(chosen, LayerMethod) or chosen.layer != "output":
            raise InputError(
                "a late-interaction model's contributions serve any number of partners as its token vectors only, by "
                "integrated-jacobian:layer=output: elsewhere they depend on what a partner chooses, so use ss.explain"
            )
        return chosen

    def pair(self, left: str, right: str) -> LateInteraction:
        """This model, or with its sides exchanged; `InputError` for two queries or two documents."""
        orders = (self.left.kind, self.right.kind), (self.left.name, self.right.name)
        if (left, right) in orders:
            return self
        if (right, left) in orders:
            return LateInteraction(*self._encoders[::-1], name=self.name, mean=self.mean, host=self._host)
        raise InputError(
            f"{self.name!r} compares a query ({self.query.kind}) with a document ({self.document.kind}), "
            f"not {left} with {right}"
        )

    def similarity_map(self, query: Any, document: Any, *, truncate: bool = False) -> SimilarityMap:
        """How similar every token of a query is to every token of a document; see `SimilarityMap`."""
        query_encoder, document_encoder = self._by_role()
        pair = (
            query_encoder.prepare(query, truncate=truncate),
            document_encoder.prepare(document, truncate=truncate),
        )
        assignment = self.assignment(*pair)
        layouts = self._layouts(*pair)
        matrix = torch.zeros(layouts[0].size, layouts[1].size, dtype=assignment.similarities.dtype)
        matrix[assignment.query[:, None], assignment.document] = assignment.similarities
        return SimilarityMap(matrix, *layouts, assignment.similarity, assignment.facts(*layouts))

    def assignment(self, query: Prepared, document: Prepared) -> Assignment:
        """Which document token every query token chooses, by the host's own vectors of the full inputs."""
        vectors, positions = [], []
        for encoder, prepared in zip(self._by_role(), (query, document), strict=True):
            tokens, compared = encoder.host_vectors(prepared)
            check_finite(encoder, tokens, prepared.tensor)
            if not bool(compared.any()):
                raise InputError(f"the model compares no token of this {encoder.role}: give more words")
            vectors.append(tokens.to(encoder.dtype()).cpu()[compared])
            positions.append(compared.nonzero()[:, 0])
        assignment = Assignment(vectors[0] @ vectors[1].T, positions[0], positions[1], self.mean)
        self._check_host(assignment, query, document)
        return assignment

    def interactions(self, method: Method, a: Prepared, partners: Sequence[Prepared]) -> list[Interactions]:
        """Interactions of one left input with each of several right ones, each pair under its own assignment."""
        pairs = []
        for b in partners:
            inputs = (a, b) if self.query is self.left else (b, a)
            assignment = self.assignment(*inputs)
            left, right = self._sides_of(assignment)
            for pair in method.interactions(left, right, a, [b]):
                facts = {"assignment": assignment.facts(*self._layouts(*inputs))}
                pairs.append(replace(pair, about={**pair.about, **facts}))
        return pairs

    def similarities(self, a: Prepared, partners: Sequence[Prepared]) -> Float[Tensor, " partner"]:
        """MaxSim of a left input and each of several right ones."""
        ordered = [(a, b) if self.query is self.left else (b, a) for b in partners]
        return torch.tensor([self.assignment(*inputs).similarity for inputs in ordered], dtype=torch.float64)

    def __repr__(self) -> str:
        return f"LateInteraction({self.name!r}, left={self.left.name}, right={self.right.name})"

    def _by_role(self) -> tuple[LateInteractionEncoder, LateInteractionEncoder]:
        first, second = self._encoders
        return (first, second) if first.role == "query" else (second, first)

    def _sides_of(self, assignment: Assignment) -> list[Side]:
        """Both sides with the vectors that the assignment multiplies as their embeddings."""
        choices = {"query": (assignment.query, assignment.weight), "document": (assignment.choice, 1.0)}
        return [
            Side(encoder.choosing(*choices[encoder.role]), index, False, assignment.name)
            for index, encoder in enumerate(self._encoders)
        ]

    def _layouts(self, query: Prepared, document: Prepared) -> tuple[Layout, Layout]:
        """What each token of a query and of a document is."""
        layouts = []
        for encoder, prepared in zip(self._by_role(), (query, document), strict=True):
            output = encoder.output_encoder()
            with untouched(encoder.module):
                layouts.append(output.layout(prepared, 0, output.features(prepared.tensor, 0)[0]))
        return layouts[0], layouts[1]

    def _check_host(self, assignment: Assignment, query: Prepared, document: Prepared) -> None:
        """`AdapterError` unless the similarity is the host's, for the first pair that the host can be asked about."""
        if self._host is None:
            return
        host = self._host(query, document)
        if host is None:
            return
        half = any(p.dtype in (torch.float16, torch.bfloat16) for e in self._encoders for p in e.module.parameters())
        gap = abs(host - assignment.similarity)
        if not gap <= (_ALLOWED_HALF if half else _ALLOWED) * max(1.0, abs(host)):
            raise AdapterError(
                f"the similarity of {self.name!r} is {host:.4f} in its own library and {assignment.similarity:.4f} here: "
                "its description misses a part of the model"
            )
        self._host = None
