"""Queries by a store's own model and method."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from secondsight.algebra.contributions import Contributions
from secondsight.edits import HOW, Removal, shortened_text
from secondsight.encoders.fingerprint import fingerprint
from secondsight.inputs.kinds import possible_kinds
from secondsight.methods import method_named
from secondsight.methods.base import one_of
from secondsight.model import DualEncoder, Side
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.scale.store import Store


def query_of(store: Store, model: DualEncoder, raw: Any) -> Contributions:
    """The contributions of a raw query by the store's method; raises `InputError` if `model` is not the store's."""
    side = query_side(store, model, raw)
    method = method_named(store.facts["method"]["name"], **_options(store))
    return replace(side.contributions([raw], method)[0], space=store.facts["space"])


def edited_query(
    store: Store, model: DualEncoder, raw: Any, without: Any, how: str = "deleted"
) -> tuple[Contributions, Contributions]:
    """A raw query's contributions, and the query really encoded again without a part of it.

    `how` "deleted" strikes words from a text, "replaced" and "layer" put the method's reference in their place, see
    `secondsight.edits`; a photograph's boxes are always replaced. Of a replaced query only the embedding is measured, its
    vectors are those that `query.without` leaves. Raises `InputError` for late interaction unless words are deleted.
    """
    one_of("how", how, HOW)
    query = query_of(store, model, raw)
    side = query_side(store, model, raw)
    if how == "deleted" and side.kind == "text":
        return query, query_of(store, model, shortened_text(query.layout, without))
    if query.pairing is not None:
        raise InputError('token vectors of a query depend on its whole text: verify with how="deleted"')
    removal = Removal(side, side.encoder.prepare(raw), query.outcome, "layer" if how == "layer" else "replaced")
    embedding = removal.embeddings(removal.weights(query.layout, without)[None])[0].to(query.embedding)
    scale = 1 / float(embedding.double().norm()) if side.cosine else query.scale
    return query, replace(query.without(without), embedding=embedding, scale=scale)


def query_side(store: Store, model: DualEncoder, raw: Any) -> Side:
    """The side that encodes a query: a text searches images and an image texts; otherwise it is of the store's kind."""
    if fingerprint(model) != store.facts["weights"]:
        raise InputError(
            f"the store was made by {store.facts['model']!r} with other weights or in another precision than "
            f"{model.name!r}: load the store's model, with its --precision"
        )
    stored_side = model.side(store.facts.get("encoder", store.facts["side"]))
    opposite = model.right if stored_side is model.left else model.left
    return opposite if opposite.kind in possible_kinds(raw) else stored_side


def _options(store: Store) -> dict[str, Any]:
    return {name: ast.literal_eval(literal) for name, literal in store.facts["method"]["options"].items()}
