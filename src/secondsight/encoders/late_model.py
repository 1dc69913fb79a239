"""The late-interaction model: a query side and a document side whose similarity is MaxSim, explained pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.assignment import Assignment
from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import Layout
from secondsight.encoders.agreement import require_agreement
from secondsight.encoders.late_interaction import LateInteractionEncoder
from secondsight.inputs.kinds import possible_kinds
from secondsight.inputs.prepared import Prepared
from secondsight.methods import IntegratedJacobian, as_method
from secondsight.methods.layer_input import LayerMethod
from secondsight.model import DualEncoder, Side
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.methods.base import Method

HostSimilarity = Callable[[Prepared, Prepared], float | None]
"""The host's own similarity of a query and a document; None where it cannot be asked for these."""


@dataclass(eq=False)
class FirstPair:
    """The host's own similarity, and whether a pair was compared already; a model with its sides exchanged shares it."""

    similarity: HostSimilarity
    compared: bool = False


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


def token_vectors(method: Method | type[Method] | str | None) -> Method:
    """The method that gives token vectors themselves for None, or a method if it does; `InputError` for any other."""
    chosen = IntegratedJacobian(layer="output") if method is None else as_method(method)
    if not isinstance(chosen, LayerMethod) or chosen.layer != "output":
        raise InputError(
            "a late-interaction model's contributions serve any number of partners as its token vectors only, by "
            "integrated-jacobian:layer=output: elsewhere they depend on what a partner chooses, so use ss.explain"
        )
    return chosen


class TokenSide(Side):
    """A side of a late-interaction model outside of a pair: it has token vectors, and no embedding."""

    def embed_prepared(self, inputs: Sequence[Prepared]) -> Float[Tensor, "input joint"]:
        """`InputError`."""
        raise InputError(
            f"a late-interaction model has a vector for every token and no embedding of the whole {self.kind}: "
            "use model.similarity_map(query, document)"
        )

    def contributions(
        self, inputs: Any, method: Method | type[Method] | str | None = None, *, truncate: bool = False
    ) -> list[Contributions]:
        """Token vectors of a batch of inputs, whose products with a partner's are MaxSim; see `token_vectors` for `method`."""
        return super().contributions(inputs, token_vectors(method), truncate=truncate)


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
        self._encoders, self.mean, self._host = (left, right), mean, host and FirstPair(host)
        left.mean = right.mean = mean
        self.left, self.right = (
            TokenSide(encoder, index, False, name=encoder.role) for index, encoder in enumerate(self._encoders)
        )

    def __getstate__(self) -> dict[str, Any]:
        # The host's similarity is that of this object's weights, which a copy may change.
        return {**self.__dict__, "_host": None}

    @property
    def measure(self) -> str:
        """See `DualEncoder.measure`."""
        return "MeanMaxSim" if self.mean else "MaxSim"

    def storable(self, method: Method | type[Method] | str | None = None) -> Method:
        """See `token_vectors`."""
        return token_vectors(method)

    def pair(self, left: str, right: str) -> LateInteraction:
        """This model, or with its sides exchanged; `InputError` for two queries or two documents."""
        orders = (self.left.kind, self.right.kind), (self.left.name, self.right.name)
        if (left, right) in orders:
            return self
        if (right, left) in orders:
            turned = LateInteraction(*self._encoders[::-1], name=self.name, mean=self.mean)
            turned._host = self._host
            return turned
        raise InputError(
            f"{self.name!r} compares a query ({self.query.kind}) with a document ({self.document.kind}), "
            f"not {left} with {right}"
        )

    def similarity_map(self, query: Any, document: Any, *, truncate: bool = False) -> SimilarityMap:
        """How similar every token of a query is to every token of a document; see `SimilarityMap`.

        An image and a text may come in either order, as in `explain`.
        """
        query_side, document_side = self.side("query"), self.side("document")
        if query_side.kind not in possible_kinds(query) and query_side.kind in possible_kinds(document):
            query, document = document, query
        (a,), (b,) = (
            query_side.prepare([query], truncate=truncate),
            document_side.prepare([document], truncate=truncate),
        )
        if self.left is document_side:
            a, b = b, a
        assignment, layouts = next(self._assigned(a, [b]))
        matrix = torch.zeros(layouts[0].size, layouts[1].size, dtype=assignment.similarities.dtype)
        matrix[assignment.query[:, None], assignment.document] = assignment.similarities
        return SimilarityMap(matrix, *layouts, assignment.similarity, assignment.facts(*layouts))

    def interactions(self, method: Method, a: Prepared, partners: Sequence[Prepared]) -> list[Interactions]:
        """Interactions of one left input with each of several right ones, each pair under its own assignment."""
        pairs = []
        for b, (assignment, layouts) in zip(partners, self._assigned(a, partners), strict=True):
            left, right = self._sides_of(assignment)
            for pair in method.interactions(left, right, a, [b]):
                pairs.append(replace(pair, about={**pair.about, "assignment": assignment.facts(*layouts)}))
        return pairs

    def similarities(self, a: Prepared, partners: Sequence[Prepared]) -> Float[Tensor, " partner"]:
        """MaxSim of a left input and each of several right ones."""
        values = [assignment.similarity for assignment, _ in self._assigned(a, partners)]
        return torch.tensor(values, dtype=torch.float64)

    def __repr__(self) -> str:
        return f"LateInteraction({self.name!r}, left={self.left.name}, right={self.right.name})"

    def _assigned(
        self, a: Prepared, partners: Sequence[Prepared]
    ) -> Iterator[tuple[Assignment, tuple[Layout, Layout]]]:
        """Of a left input and each right one which document token every query token chooses, by the host's own vectors.

        With what each token of the query and of the document is.
        """
        anchor = self._encoders[0].host_vectors(a)
        for b in partners:
            partner = self._encoders[1].host_vectors(b)
            turned = self._encoders[0].role == "document"
            query, document = (partner, anchor) if turned else (anchor, partner)
            similarities = query.vectors[query.compared] @ document.vectors[document.compared].T
            assignment = Assignment(similarities, query.compared, document.compared, self.mean)
            self._check_host(assignment, *((b, a) if turned else (a, b)))
            yield assignment, (query.layout, document.layout)

    def _sides_of(self, assignment: Assignment) -> list[Side]:
        """Both sides with the vectors that the assignment multiplies as their embeddings."""
        choices = {"query": (assignment.query, assignment.weight), "document": (assignment.choice, 1.0)}
        return [
            Side(encoder.choosing(*choices[encoder.role]), index, False, assignment.name)
            for index, encoder in enumerate(self._encoders)
        ]

    def _check_host(self, assignment: Assignment, query: Prepared, document: Prepared) -> None:
        """`AdapterError` unless the similarity is the host's, for the first pair that the host can be asked about."""
        if self._host is None or self._host.compared:
            return
        host = self._host.similarity(query, document)
        if host is not None:
            modules = [encoder.module for encoder in self._encoders]
            what = f"the similarity of {self.name!r}"
            require_agreement(host, assignment.similarity, max(1.0, abs(host)), modules, what)
            self._host.compared = True
