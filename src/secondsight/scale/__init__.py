"""From a hundred pairs to a million: stores of contributions, the runs that fill them, retrieval that explains itself."""

from secondsight.support.errors import InputError

try:
    from secondsight.scale.decompose import decompose
    from secondsight.scale.search import Hit, search
    from secondsight.scale.sources import Source, open_source
    from secondsight.scale.store import Store, open_store
except ModuleNotFoundError as problem:
    raise InputError(f"stores need the package {problem.name!r}: pip install 'secondsight[scale]'") from problem

__all__ = ["Hit", "Source", "Store", "decompose", "open_source", "open_store", "search"]
