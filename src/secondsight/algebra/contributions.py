"""Contributions: one vector in the joint space per feature, which add up to an embedding."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.assignment import TokenPairing
from secondsight.algebra.edit import removed_weights
from secondsight.algebra.factors import DenseFactor, Factor, JoinedFactor, WeightedFactor
from secondsight.algebra.interactions import Interactions, joint_facts
from secondsight.algebra.layout import JoinedLayout, Layout
from secondsight.algebra.matrix import factored
from secondsight.algebra.outcome import Outcome, joint_outcome
from secondsight.support.errors import InputError
from secondsight.support.files import load_record, reading, save_record

_FORMAT = "secondsight-contributions-2"
_TENSORS = ("vectors", "embedding", "reference_embedding")


@dataclass(frozen=True, eq=False, repr=False)
class Contributions:
    """One input's features as vectors of the joint space: g(a) = g(r) + Σ_i U_i + residual.

    `factor` holds the vectors U (feature, joint), as a tensor or as a `Factor` that computes them when they are needed;
    `vectors` is always the tensor. `embedding` g(a) and `reference_embedding` g(r) are (joint,), all in the space in which
    the method decomposed. `scale` is what the similarity multiplies this side by: 1/‖g(a)‖ where a cosine is decomposed
    outside its normalisation ([M25] §3), else 1. `outcome` says how well the computation went; `about` holds further facts
    for people. `deviations` (group, features, joint), of methods that sample, are such that Σ_g (D_gi·d)² is the variance
    of U_i·d in any direction d. `space` names the run whose contributions can be multiplied with each other, where that
    is known. `pairing` is set for the token vectors of a late-interaction model: products are then MaxSim.
    """

    factor: Float[Tensor, "feature joint"] | Factor
    embedding: Float[Tensor, " joint"]
    reference_embedding: Float[Tensor, " joint"]
    layout: Layout
    scale: float = 1.0
    about: Mapping[str, Any] = field(default_factory=dict)
    deviations: Float[Tensor, "group feature joint"] | None = None
    outcome: Outcome | None = None
    space: str | None = None
    pairing: TokenPairing | None = None

    def __post_init__(self) -> None:
        if self.factor.shape != (self.layout.size, *self.embedding.shape):
            raise InputError(
                f"vectors {tuple(self.factor.shape)} fit neither the layout's {self.layout.size} features nor the "
                f"embedding {tuple(self.embedding.shape)}"
            )
        if self.embedding.shape != self.reference_embedding.shape:
            raise InputError(
                f"embedding {tuple(self.embedding.shape)} and reference embedding "
                f"{tuple(self.reference_embedding.shape)} differ"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.layout.modality} {self.layout.size} × {len(self.embedding)})"

    def __len__(self) -> int:
        return self.layout.size

    @property
    def vectors(self) -> Float[Tensor, "feature joint"]:
        """The contribution vectors U; computed here where they are lazy."""
        return self.factor if isinstance(self.factor, Tensor) else self.factor.vectors()

    @property
    def rows(self) -> Factor:
        """The vectors as a `Factor`, whose products may cost less than the vectors."""
        return DenseFactor(self.factor) if isinstance(self.factor, Tensor) else self.factor

    def dense(self) -> Contributions:
        """The same contributions with their vectors at hand, which need the model no more."""
        return self if isinstance(self.factor, Tensor) else replace(self, factor=self.vectors)

    @property
    def residual(self) -> Float[Tensor, " joint"]:
        """What the vectors miss: g(a) − g(r) − Σ_i U_i."""
        total = self.rows.total().to(self.embedding.device)
        return (self.embedding.double() - self.reference_embedding.double() - total).to(self.factor.dtype)

    @property
    def relative_residual(self) -> float:
        """‖residual‖ / ‖g(a) − g(r)‖, in 0 … ∞; 0 where input and reference are the same."""
        moved = float((self.embedding.double() - self.reference_embedding.double()).norm())
        missed = float(self.residual.double().norm())
        return missed / moved if moved else missed

    def without(self, selection: Any) -> Contributions:
        """This input without a part of it, as its contributions predict: g(a) − Σ w_i U_i, with rows (1 − w_i) U_i.

        The selection, or list of selections, weights features as everywhere: words, boxes, indices (which special positions
        are selected by), None for all visible ones. What these vectors miss stays what it was, and so does `scale`. Token
        vectors that are taken away are compared no more. Raises `InputError` for a selection that the layout refuses.
        """
        weights = removed_weights(self.layout, selection).to(self.embedding)
        keep = 1 - weights
        removed = self.rows.push(weights)
        pairing = None if self.pairing is None else self.pairing.without(weights)
        return replace(
            self,
            factor=self.factor * keep[:, None]
            if isinstance(self.factor, Tensor)
            else WeightedFactor(self.factor, keep),
            embedding=(self.embedding.double() - removed.to(self.embedding.device).double()).to(self.embedding.dtype),
            deviations=None if self.deviations is None else self.deviations * keep.to(self.deviations)[:, None],
            pairing=pairing,
        )

    def project(self, direction: Float[Tensor, "*row joint"]) -> Float[Tensor, "*row feature"]:
        """First-order scores of every feature along directions of the joint space: U·d."""
        return direction @ self.vectors.T

    def first_order(self, partner: Contributions) -> Float[Tensor, " feature"]:
        """First-order attribution of the pair's similarity to this side's features: U·h(b), the other input held fixed.

        With `IntegratedJacobian` these are integrated gradients of the similarity, with `JacobianTimesInput` gradient ×
        input, and with its `pool_gradients` at a convolutional layer Grad-CAM before its ReLU.
        """
        self.check_same_space(partner)
        if self.pairing is not None:
            return (self @ partner).toward_left(slice(None))
        return self.project(partner.embedding.to(self.vectors)) * (self.scale * partner.scale)

    def standard_error(self, direction: Float[Tensor, "*row joint"]) -> Float[Tensor, "*row feature"]:
        """Standard error of `project(direction)`; zero where the method does not sample."""
        if self.deviations is None:
            return torch.zeros_like(self.project(direction))
        return torch.einsum("gfk,...k->g...f", self.deviations, direction).square().sum(0).sqrt()

    def __matmul__(self, partner: Contributions) -> Interactions:
        """The pair's similarity in four terms: base, either side alone, and interactions A = U Vᵀ ([M25] Eq. 10)."""
        if not isinstance(partner, Contributions):
            return NotImplemented
        self.check_same_space(partner)
        if self.pairing is not None:
            return self._best_matches(partner, self.pairing)
        scale = self.scale * partner.scale
        g0, h0 = self.reference_embedding.double(), partner.reference_embedding.double()
        matrix, left_effects, right_effects = factored(self.rows, partner.rows, g0, h0, scale)
        return Interactions(
            attributions=matrix,
            left_effects=left_effects,
            right_effects=right_effects,
            base=float(g0 @ h0) * scale,
            similarity=float(self.embedding.double() @ partner.embedding.double()) * scale,
            left_layout=self.layout,
            right_layout=partner.layout,
            about={"left": dict(self.about), "right": dict(partner.about)},
            standard_errors=self._errors(partner, scale, matrix.dtype),
            outcomes=(self.outcome, partner.outcome),
            quantity="margin" if "joined" in (self.layout.kind, partner.layout.kind) else "similarity",
            left_contributions=self,
            right_contributions=partner,
        )

    def similarity_to(self, partner: Contributions) -> float:
        """The pair's similarity alone, in double precision as in the pair's terms."""
        unscaled = (
            float(self.embedding.double() @ partner.embedding.double())
            if self.pairing is None
            else self.pairing.assign(self, partner).similarity
        )
        return unscaled * self.scale * partner.scale

    def _best_matches(self, partner: Contributions, pairing: TokenPairing) -> Interactions:
        """MaxSim as interactions: the best matches, and nothing that either side adds alone."""
        assignment = pairing.assign(self, partner)
        query, document = (self, partner) if pairing.role == "query" else (partner, self)
        scale = self.scale * partner.scale
        matrix = assignment.matrix((len(query), len(document))) * scale
        matrix = matrix.to(self.embedding.device, torch.promote_types(self.factor.dtype, partner.factor.dtype))
        return Interactions(
            attributions=matrix if query is self else matrix.T,
            left_effects=matrix.new_zeros(len(self)),
            right_effects=matrix.new_zeros(len(partner)),
            base=0.0,
            similarity=assignment.similarity * scale,
            left_layout=self.layout,
            right_layout=partner.layout,
            about={
                "left": dict(self.about),
                "right": dict(partner.about),
                "assignment": assignment.facts(query.layout, document.layout),
            },
            outcomes=(self.outcome, partner.outcome),
        )

    def _errors(self, partner: Contributions, scale: float, dtype: torch.dtype) -> Tensor | None:
        """Standard errors of the attributions: the two sides sample independently."""
        if self.deviations is None and partner.deviations is None:
            return None
        from_left = self.standard_error(partner.vectors.to(self.vectors)).double()
        from_right = partner.standard_error(self.vectors.to(partner.vectors)).double()
        return ((from_left.mT.square() + from_right.square()).sqrt() * abs(scale)).to(dtype)

    def check_same_space(self, partner: Contributions) -> None:
        """`InputError` unless both are vectors of one joint space."""
        if (self.pairing is None) != (partner.pairing is None):
            raise InputError("token vectors match token vectors only: decompose both inputs with layer='output'")
        if self.space and partner.space and self.space != partner.space:
            raise InputError(
                "these contributions come from different models, methods or pairs "
                f"({' and '.join(sorted((self.space, partner.space)))}): decompose both sides with the same, "
                "and both inputs of a late-interaction model together, with ss.explain"
            )
        if self.embedding.shape != partner.embedding.shape:
            raise InputError(
                f"joint spaces of {len(self.embedding)} and {len(partner.embedding)} dimensions do not match: "
                "both must come from the same model"
            )

    def __mul__(self, factor: float) -> Contributions:
        """The same vectors with their similarities times `factor`."""
        if not isinstance(factor, (int, float)):
            return NotImplemented
        return replace(self, scale=self.scale * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Contributions:
        """The same vectors with their similarities divided by `divisor`."""
        return self * (1 / divisor)

    def __neg__(self) -> Contributions:
        """The same vectors with their similarities' sign changed."""
        return self * -1

    def __add__(self, added: Contributions) -> Contributions:
        """Both inputs as one: `left @ (a + b)` is `left @ a` and `left @ b` side by side, their similarities added."""
        if not isinstance(added, Contributions):
            return NotImplemented
        self.check_same_space(added)
        if self.pairing is not None:
            raise InputError(
                "token vectors of several inputs have no sum: each query token matches one of each input; use "
                "ss.explain(model, query, document, against=...)"
            )
        parts = (self, added)
        return Contributions(
            factor=JoinedFactor([c.rows for c in parts], [c.scale for c in parts])
            if any(isinstance(c.factor, Factor) for c in parts)
            else torch.cat([c.vectors * c.scale for c in parts]),
            embedding=self.embedding * self.scale + added.embedding * added.scale,
            reference_embedding=self.reference_embedding * self.scale + added.reference_embedding * added.scale,
            layout=JoinedLayout.of([c.layout for c in parts], [-1 if c.scale < 0 else 1 for c in parts]),
            about=joint_facts([c.about for c in parts]),
            deviations=_stacked(parts),
            outcome=joint_outcome([c.outcome for c in parts]),
            space=self.space or added.space,
        )

    def __radd__(self, added: object) -> Contributions:
        """So that `sum` of several works: the start of 0 changes nothing."""
        return self if added == 0 else NotImplemented

    def __sub__(self, subtracted: Contributions) -> Contributions:
        """Why one rather than the other: `left @ (a - b)` explains the margin s(left, a) − s(left, b)."""
        if not isinstance(subtracted, Contributions):
            return NotImplemented
        return self + -subtracted

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to .npz or .json, exactly; the file appears only when it is complete."""
        facts = {
            "format": _FORMAT,
            "layout": self.layout.to_json(),
            "scale": self.scale,
            "about": dict(self.about),
            "outcome": None if self.outcome is None else self.outcome.to_json(),
            "space": self.space,
            "pairing": None if self.pairing is None else self.pairing.to_json(),
        }
        names = _TENSORS if self.deviations is None else (*_TENSORS, "deviations")
        save_record(path, {name: getattr(self, name) for name in names}, facts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Contributions:
        """Read what `save` wrote; raises `InputError` for anything else."""
        tensors, facts = load_record(path, _FORMAT)
        with reading(path, "contributions"):
            return cls(
                tensors.pop("vectors"),
                **tensors,
                layout=Layout.from_json(facts["layout"]),
                scale=facts["scale"],
                about=facts["about"],
                outcome=Outcome.from_json(facts["outcome"]),
                space=facts["space"],
                pairing=TokenPairing.from_json(facts.get("pairing")),
            )


def _stacked(parts: Sequence[Contributions]) -> Tensor | None:
    """Deviations of inputs that were sampled apart: every group moves the features of its own input only."""
    if all(c.deviations is None for c in parts):
        return None
    groups = [torch.zeros(0, *c.vectors.shape) if c.deviations is None else c.deviations * c.scale for c in parts]
    sizes = [len(c) for c in parts]
    return torch.cat(
        [F.pad(d, (0, 0, sum(sizes[:i]), sum(sizes[i + 1 :]))).to(parts[0].vectors) for i, d in enumerate(groups)]
    )
