"""Queries by a store's own model and method."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from secondsight.algebra.contributions import Contributions
from secondsight.encoders.fingerprint import fingerprint
from secondsight.inputs.kinds import possible_kinds
from secondsight.methods import method_named
from secondsight.model import DualEncoder, Side
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.scale.store import Store


def query_of(store: Store, model: DualEncoder, raw: Any) -> Contributions:
    """The contributions of a raw query by the store's method; raises `InputError` if `model` is not the store's."""
    side = query_side(store, model, raw)
    method = method_named(store.facts["method"]["name"], **_options(store))
    return replace(side.contributions([raw], method)[0], space=store.facts["space"])


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
