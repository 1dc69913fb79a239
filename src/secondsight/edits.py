"""Edit and verify: what an explanation predicts for a pair without a part, and what the model really makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.assignment import Assignment
from secondsight.algebra.edit import Edit, predict, removed_weights, several
from secondsight.algebra.layout import JoinedLayout, Layout, owners_in
from secondsight.algebra.outcome import Outcome
from secondsight.encoders.base import ATTENTION_POOL, Encoder, check_finite
from secondsight.encoders.input_layer import at_layer
from secondsight.encoders.late_interaction import LateInteractionEncoder
from secondsight.encoders.late_model import LateInteraction
from secondsight.encoders.registry import as_model
from secondsight.inputs.prepared import Prepared
from secondsight.methods.base import REFERENCES, one_of
from secondsight.model import DualEncoder, Side
from secondsight.support.errors import InputError
from secondsight.support.guard import untouched

if TYPE_CHECKING:
    from secondsight.explanation import Explanation

HOW = ("replaced", "deleted", "layer")
"""How a part is really removed, see `Removal` and `edit`."""

_BATCH = 16
"""Edited inputs that go through the model at once."""

_SAME = 1e-3
"""Similarities of the same pair by the same model differ by less than this, relative to their size or to 1."""


class Removal:
    """One input at its own pixels, samples or token embeddings, or at a layer, where a part takes the reference's values.

    x_i becomes x_i − w_i (x_i − r_i), with the masks and the pooling of the input itself. `how` "replaced" looks at the input
    whatever the explanation's layer, "layer" at the hidden states that enter it. The reference is the method's, as its
    `outcome` names it; where that is zero, zeros at a layer and the usual reference at the input.
    """

    def __init__(self, side: Side, prepared: Prepared, outcome: Outcome | None, how: str = "replaced", seed: int = 0):
        self.side, self.how = side, how
        reference = _reference(outcome, side.encoder, how)
        with untouched(side.encoder.module):
            self.encoder, number = _place(side.encoder, outcome, how)
            state = self.encoder.features(prepared.tensor, number)[0]
            check_finite(self.encoder, state.embedding, prepared.tensor)
            self.layout = self.encoder.layout(prepared, number, state)
            self.hidden, self.embedding = state.hidden, state.embedding
            if reference == "zero":
                self.absent = torch.zeros_like(state.hidden)
            else:
                filling = self.encoder.reference(prepared, reference, seed)
                self.absent = self.encoder.reference_at(filling, number, state.context).hidden
            self._head = self.encoder.head(number, state.context, self.encoder.dtype())

    def weights(self, layout: Layout, selection: Any) -> Float[Tensor, " feature"]:
        """What a selection of the explanation's layout takes away here: boxes to the pixel, cells with all their pixels.

        Raises `InputError` for special positions where they do not exist.
        """
        return torch.stack([self._weights(layout, part) for part in several(selection)]).sum(0).clamp(max=1)

    def _weights(self, layout: Layout, selection: Any) -> Tensor:
        weights = layout.select(selection)
        if layout == self.layout:
            return weights
        special = [name for i, name in layout.special.items() if float(weights[i])]
        if special and self.how == "replaced":
            raise InputError(
                f"the position {special[0]!r} is no part of the {layout.modality} itself and exists at a layer only: give "
                'how="layer"'
            )
        if isinstance(selection, str | tuple):
            return self.layout.select(selection)
        return torch.cat([weights, torch.zeros(1)])[owners_in(self.layout, layout)]

    def hidden_without(self, weights: Float[Tensor, "edit feature"]) -> Float[Tensor, "edit position width"]:
        """What is left of the input, or of its hidden states."""
        return self.hidden - weights.to(self.hidden)[..., None] * (self.hidden - self.absent)

    def embeddings(self, weights: Float[Tensor, "edit feature"]) -> Float[Tensor, "edit joint"]:
        """The model's own embeddings of the edited input, in double precision."""
        rows = []
        with untouched(self.side.encoder.module):
            for part in weights.split(_BATCH):
                rows.append(self._head(self.hidden_without(part)).double().cpu())
        embeddings = torch.cat(rows)
        check_finite(self.encoder, embeddings, None)
        return embeddings


def _place(encoder: Encoder, outcome: Outcome | None, how: str) -> tuple[Encoder, int]:
    """The encoder and the number of the layer where a part is removed."""
    if how == "replaced":
        if encoder.kind == "text" and encoder.token_embedding(torch.float32) is None:
            return at_layer(encoder, 0)  # as masks do without a known table of embeddings
        return at_layer(encoder, "input")
    if outcome is None:
        raise InputError('the explanation does not say at which layer it looked: leave out how="layer"')
    if outcome.layer in ("output", "hidden") and not isinstance(encoder, LateInteractionEncoder):
        last = encoder.depth - 1 if encoder.pool == ATTENTION_POOL else encoder.depth
        return encoder, last if outcome.layer == "output" else max(last - 1, 0)
    return at_layer(encoder, outcome.layer)


def _reference(outcome: Outcome | None, encoder: Encoder, how: str) -> str | None:
    """The method's reference by its name; None for the usual one."""
    name = None if outcome is None else outcome.reference
    if name == "tensor":
        raise InputError(
            "the explanation took a reference of your own, which it does not keep: explain with the name of one to verify"
        )
    if name == "zero":
        return "zero" if how == "layer" else None
    return name if name in REFERENCES and name in encoder.references else None


@dataclass(frozen=True, eq=False)
class _Encoded:
    """One input before and after the edit, as embeddings (joint,), or as token vectors with the positions compared."""

    sign: int
    before: Tensor
    after: Tensor
    compared: tuple[Tensor, Tensor] | None = None


def edit(
    e: Explanation,
    selection: Any = None,
    left: Any = None,
    *,
    verify: bool = False,
    how: str = "replaced",
    model: DualEncoder | str | None = None,
    inputs: tuple[Any, Any] | None = None,
    seed: int = 0,
) -> Edit:
    """See `Explanation.without`."""
    one_of("how", how, HOW)
    prediction = predict(e, left, selection)
    if not verify:
        return prediction
    if e.quantity == "difference":
        raise InputError("a difference of two explanations is no number of one model: verify an edit of each")
    measured = _measure(e, selection, left, how, model, inputs, seed)
    return replace(prediction, measured=measured, how=how)


def _measure(
    e: Explanation, selection: Any, left: Any, how: str, model: DualEncoder | str | None, inputs: Any, seed: int
) -> float:
    """The explained number after the part was really removed, by the model itself."""
    given = (e.left_input, e.right_input) if inputs is None else inputs
    raws = [layout.each(raw) for layout, raw in zip((e.left_layout, e.right_layout), given, strict=True)]
    if any(raw is None for side in raws for raw in side):
        raise InputError("the explanation does not keep its model-ready inputs: give them as inputs=(left, right)")
    dual = _model_of(e, model).fitting(raws[0][0], raws[1][0])
    encoded = []
    for side, layout, own_raws, chosen, outcome in zip(
        (dual.left, dual.right), (e.left_layout, e.right_layout), raws, (left, selection), e.outcomes, strict=True
    ):
        parts = _of_parts(layout, chosen)
        prepared = [side.encoder.prepare(raw, truncate=True) for raw in own_raws]
        encoded.append(
            [
                _encode(side, p, part, sign, selections, outcome, how, seed)
                for p, part, sign, selections in zip(prepared, layout.parts, layout.signs, parts, strict=True)
            ]
        )
    before, after = (_total(dual, e.about.get("scale"), encoded, edited) for edited in (False, True))
    if not abs(before - e.similarity) <= _SAME * max(1.0, abs(e.similarity)):
        raise InputError(
            f"{dual.name!r} gives {before:.4f} for the inputs as the explanation shows them, which has {e.similarity:.4f}: "
            "give model= and inputs=(left, right), those that were explained"
        )
    return after


def _model_of(e: Explanation, model: DualEncoder | str | None) -> DualEncoder:
    if isinstance(model, DualEncoder):
        return model
    name = e.about.get("model", e.model)  # margins keep it among their facts
    try:
        return as_model(model or name)
    except InputError as problem:
        if model:
            raise
        raise InputError(f"the explanation's model {name!r} cannot be loaded by its name: give model=") from problem


def _of_parts(layout: Layout, selection: Any) -> Sequence[list[Any]]:
    """The selections in each part of a layout, empty where nothing is taken away."""
    if selection is None:
        return [[] for _ in layout.parts]
    if not isinstance(layout, JoinedLayout):
        return [several(selection)]
    by_part: list[list[Any]] = [[] for _ in layout.parts]
    for part in several(selection):
        weights = layout.split(layout.select(part))
        if isinstance(part, tuple):
            by_part[part[0]].append(part[1])
        else:
            for selections, part_weights in zip(by_part, weights, strict=True):
                selections += [part_weights.nonzero()[:, 0].tolist()] if bool(part_weights.any()) else []
    return by_part


def _encode(
    side: Side,
    prepared: Prepared,
    layout: Layout,
    sign: int,
    selections: list[Any],
    outcome: Outcome | None,
    how: str,
    seed: int,
) -> _Encoded:
    """One input before and after some of it is taken away."""
    late = side.encoder if isinstance(side.encoder, LateInteractionEncoder) else None
    if not selections or (how == "deleted" and layout.kind == "text"):
        texts = [prepared]
        if selections:
            texts.append(side.encoder.prepare(shortened_text(layout, selections), truncate=True))
        if late is None:
            embeddings = side.embed_prepared(texts)
            return _Encoded(sign, embeddings[0], embeddings[-1])
        hosts = [late.host_vectors(text) for text in texts]
        return _Encoded(sign, hosts[0].vectors, hosts[-1].vectors, (hosts[0].compared, hosts[-1].compared))
    removal = Removal(side, prepared, outcome, "layer" if how == "layer" else "replaced", seed)
    weights = removal.weights(layout, selections)
    if late is None:
        return _Encoded(sign, removal.embedding, removal.embeddings(weights[None])[0])
    host = late.host_vectors(prepared)
    if removal.encoder is late.ends.get("output"):
        # A vector that was taken away is compared no more.
        left = host.compared[weights[host.compared] < 1]
        if not len(left):
            raise InputError(f"nothing of the {late.role} is left to compare: take away fewer of its tokens")
        after = removal.hidden_without(weights[None])[0].cpu()
        return _Encoded(sign, host.vectors, after, (host.compared, left))
    after = removal.embeddings(weights[None])[0].unflatten(0, host.vectors.shape)
    return _Encoded(sign, host.vectors, after, (host.compared, host.compared))


def _total(dual: DualEncoder, scale: str | None, encoded: list[list[_Encoded]], edited: bool) -> float:
    """The similarity or margin of all inputs, before or after the edit."""
    total = 0.0
    for a, b in ((a, b) for a in encoded[0] for b in encoded[1]):
        vectors = [(x.after if edited else x.before).double().cpu() for x in (a, b)]
        if isinstance(dual, LateInteraction):
            value = _best_matches(dual, vectors, [x.compared[edited] for x in (a, b) if x.compared is not None])
        else:
            value = float(torch.dot(*(F.normalize(v, dim=0) if dual.cosine else v for v in vectors)))
        if scale == "logit":
            value = value * float(dual.logit_scale or 1.0) + dual.logit_bias
        total += a.sign * b.sign * value
    return total


def _best_matches(dual: LateInteraction, vectors: list[Tensor], compared: list[Tensor]) -> float:
    """MaxSim, or MeanMaxSim, of the token vectors of both sides."""
    if dual.left.name == "document":
        vectors, compared = vectors[::-1], compared[::-1]
    query, document = (v[positions] for v, positions in zip(vectors, compared, strict=True))
    return Assignment(query @ document.T, compared[0], compared[1], dual.mean).similarity


def shortened_text(layout: Layout, selections: Any) -> str:
    """A text without the characters of the selected tokens; `InputError` where these are unknown or nothing is left."""
    text = layout.text
    struck = removed_weights(layout, selections).nonzero()[:, 0].tolist()
    spans = sorted(span for i in struck if (span := layout.offsets[i]) is not None)
    if text is None or not spans:
        raise InputError('only words of a text can be struck from it: give how="replaced" or "layer"')
    rest = " ".join(re.sub(r"\s+", " ", "".join(_between(text, spans))).split())
    if not rest:
        raise InputError(f"nothing is left of {text!r}: strike fewer words")
    return rest


def _between(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[str]:
    """What lies before, between and behind spans of a text."""
    position = 0
    for start, end in spans:
        yield text[position : max(start, position)]
        position = max(end, position)
    yield text[position:]
