"""What a pair would be without a part of it, predicted by linear algebra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.factors import WeightedFactor
from secondsight.algebra.layout import Layout
from secondsight.algebra.matrix import FactoredMatrix
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.algebra.contributions import Contributions
    from secondsight.algebra.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Edit:
    """A part taken away: `before` it, as the contributions predict, and as the model finds it where somebody asked.

    `removed` names the part, `pair` is the predicted pair, whose similarity is `predicted`. `standard_error` is that of the
    prediction where a method samples, else None. `measured` is the number after the part was really removed, None where
    that was not verified, and `how` says in words what removed it.
    """

    removed: str
    before: float
    predicted: float
    pair: Interactions
    standard_error: float | None = None
    measured: float | None = None
    how: str = ""

    @property
    def error(self) -> float | None:
        """|predicted − measured|; None where nothing was measured."""
        return None if self.measured is None else abs(self.predicted - self.measured)

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        spread = "" if self.standard_error is None else f" ± {self.standard_error:.3f}"
        measured = "" if self.measured is None else f", {self.measured:.3f} measured"
        return f"without {self.removed}: {self.predicted:.3f}{spread} predicted{measured}, from {self.before:.3f}"

    def __repr__(self) -> str:
        return self.sentence

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain data."""
        names = ("removed", "before", "predicted", "standard_error", "measured", "how")
        return {name: getattr(self, name) for name in names}


def several(selection: Any) -> list[Any]:
    """A list of selections as one for each; anything else, also a list of indices, as the only one."""
    if isinstance(selection, list) and selection and not all(isinstance(part, int) for part in selection):
        return selection
    return [selection]


def removed_weights(layout: Layout, selection: Any) -> Float[Tensor, " feature"]:
    """What a selection, or all of a list of them, take away of every feature, 0 … 1."""
    return torch.stack([layout.select(part) for part in several(selection)]).sum(0).clamp(max=1)


def predict(pair: Interactions, left: Any = None, right: Any = None) -> Edit:
    """The pair without the left and right features that two selections weight; None takes nothing of that side.

    Either side becomes g(a) − Σ w_i U_i, and the lengths by which a cosine divides stay what they were. Of pairs without
    contributions (fitted jointly, margins, read from a file) effects, rows and columns are taken off the similarity, what
    left and right share once. A late-interaction pair keeps its assignment. Raises `InputError` where nothing is selected, and
    for maps of first order, which predict nothing.
    """
    if left is None and right is None:
        raise InputError("nothing is selected: name words, a box or positions to take away, or left=")
    if pair.order == 1:
        method = pair.about.get("method", "one map a side")
        raise InputError(
            f"a map of first order ({method}) does not say what the {pair.quantity} would be without a part: explain "
            "the pair with a method whose terms add up, such as 'grounded'"
        )
    if pair.left_contributions is not None and pair.right_contributions is not None:
        predicted, error = _of_contributions(pair, pair.left_contributions, pair.right_contributions, left, right)
    else:
        predicted, error = _of_matrix(pair, left, right), None
    names = [
        described(layout, selection)
        for layout, selection in ((pair.right_layout, right), (pair.left_layout, left))
        if selection is not None
    ]
    return Edit(" and ".join(names), pair.similarity, predicted.similarity, predicted, error)


def _of_contributions(
    pair: Interactions, a: Contributions, b: Contributions, left: Any, right: Any
) -> tuple[Interactions, float | None]:
    """The product of what is left of both sides, and the standard error of its similarity."""
    edited_a = a if left is None else a.without(left)
    edited_b = b if right is None else b.without(right)
    product = edited_a @ edited_b
    # A logit's bias is in no contribution.
    bias = pair.similarity - a.similarity_to(b)
    predicted = replace(
        product,
        base=product.base + bias,
        similarity=product.similarity + bias,
        about={**pair.about, **product.about},
        quantity=pair.quantity,
    )
    variances = [
        _variance(side, selection, partner) * (a.scale * b.scale) ** 2
        for side, selection, partner in ((a, left, edited_b), (b, right, edited_a))
        if selection is not None and side.deviations is not None
    ]
    return predicted, sum(variances) ** 0.5 if variances else None


def _variance(side: Contributions, selection: Any, partner: Contributions) -> float:
    """That of the part's product with the partner: errors of the part's features move together."""
    assert side.deviations is not None  # the caller looked
    weights = removed_weights(side.layout, selection).double()
    moved = torch.einsum("gfk,f,k->g", side.deviations.double().cpu(), weights, partner.embedding.double().cpu())
    return float(moved.square().sum())


def _of_matrix(pair: Interactions, left: Any, right: Any) -> Interactions:
    """The pair with its effects and attributions scaled by what is left of every feature."""
    keep_left, keep_right = (
        torch.ones_like(effects) if selection is None else 1 - removed_weights(layout, selection).to(effects)
        for layout, selection, effects in (
            (pair.left_layout, left, pair.left_effects),
            (pair.right_layout, right, pair.right_effects),
        )
    )
    matrix = pair.attributions
    scaled: Tensor | FactoredMatrix
    if isinstance(matrix, Tensor):
        scaled = matrix * keep_left[:, None] * keep_right
    else:
        scaled = FactoredMatrix(
            WeightedFactor(matrix.left, keep_left), WeightedFactor(matrix.right, keep_right), matrix.scale
        )
    edited = replace(
        pair,
        attributions=scaled,
        left_effects=pair.left_effects * keep_left,
        right_effects=pair.right_effects * keep_right,
        standard_errors=None
        if pair.standard_errors is None
        else pair.standard_errors * keep_left[:, None] * keep_right,
    )
    return replace(edited, similarity=pair.similarity + edited.terms.total - pair.terms.total)


def described(layout: Layout, selection: Any) -> str:
    """A selection in words, such as 'dog', a box, or so many positions."""
    return " and ".join(_described(layout, part) for part in several(selection))


def _described(layout: Layout, selection: Any) -> str:
    if isinstance(selection, str):
        return repr(selection)
    if isinstance(selection, tuple):
        if layout.kind == "text" and layout.text is not None:
            return repr(layout.text[slice(*selection)])
        if layout.kind == "joined":
            return _described(layout.parts[selection[0]], selection[1])
        return f"{'box' if layout.kind == 'image' else 'part'} {','.join(f'{v:g}' for v in selection)}"
    indices = layout.select(selection).nonzero()[:, 0].tolist()
    names = sorted({layout.special[i] for i in indices if i in layout.special})
    visible = [i for i in indices if i not in layout.special]
    if len(visible) == len(layout.visible):
        parts: Sequence[str] = [f"all of the {layout.modality}"]
    else:
        parts = (
            [f"{len(visible)} {_UNITS.get(layout.kind, 'position')}{'s' if len(visible) > 1 else ''}"]
            if visible
            else []
        )
    return " and ".join([*parts, *names]) or "nothing"


_UNITS = {"image": "cell", "text": "token", "audio": "cell"}
