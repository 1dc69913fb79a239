"""From a hundred pairs to a million: stores of contributions, the runs that fill them, retrieval that explains itself."""

from typing import Any

from secondsight.scale.lead import Lead
from secondsight.scale.search import Hit, Searchable, search
from secondsight.scale.usual import OrdinaryQueries, ordinary_captions, ordinary_queries
from secondsight.support.errors import InputError

try:
    from secondsight.scale.decompose import decompose
    from secondsight.scale.sources import Source, open_source
    from secondsight.scale.store import Store, open_store
except ModuleNotFoundError as problem:
    _missing = problem.name

    def __getattr__(name: str) -> Any:
        """Only `search` works without Arrow."""
        if name in __all__:
            raise InputError(f"stores need the package {_missing!r}: pip install 'secondsight[scale]'")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Hit",
    "Lead",
    "OrdinaryQueries",
    "Searchable",
    "Source",
    "Store",
    "decompose",
    "open_source",
    "open_store",
    "ordinary_captions",
    "ordinary_queries",
    "search",
]
