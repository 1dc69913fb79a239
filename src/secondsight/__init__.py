"""secondsight explains dual encoders: which part of a caption matched which part of an image, by how much, and how exactly.

Method: Möller, Tilli, Vu, Padó, "Explaining Caption-Image Interactions in CLIP Models with Second-Order Attributions",
TMLR 2025 (arXiv 2408.14153), cited as [M25].
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secondsight import methods, testing, visual
    from secondsight.algebra.contributions import Contributions
    from secondsight.algebra.interactions import Interactions, Terms
    from secondsight.algebra.layout import GridLayout, JoinedLayout, Layout, SpectrogramLayout, TokenLayout
    from secondsight.encoders.base import Encoder
    from secondsight.encoders.families.torch import TorchEncoder
    from secondsight.encoders.registry import load, wrap
    from secondsight.explanation import Explanation, explain
    from secondsight.methods import (
        METHODS,
        Banzhaf,
        BilinearLime,
        IntegratedJacobian,
        JacobianTimesInput,
        Method,
        Occlusion,
        Shapley,
        TokenEmbeddings,
        WaypointJacobian,
    )
    from secondsight.model import DualEncoder
    from secondsight.support.errors import AdapterError, AssumptionWarning, ConvergenceWarning, InputError

__version__ = "0.1.0"

_HOMES = {
    "algebra.contributions": ("Contributions",),
    "encoders.base": ("Encoder",),
    "model": ("DualEncoder",),
    "encoders.registry": ("load", "wrap"),
    "encoders.families.torch": ("TorchEncoder",),
    "support.errors": ("AdapterError", "AssumptionWarning", "ConvergenceWarning", "InputError"),
    "explanation": ("Explanation", "explain"),
    "algebra.interactions": ("Interactions", "Terms"),
    "algebra.layout": ("GridLayout", "JoinedLayout", "Layout", "SpectrogramLayout", "TokenLayout"),
}
"""Where names are defined; all others of `__all__` are methods."""

_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Looked up when it is first asked for: the command line's help should not wait for torch."""
    if name in ("methods", "testing", "visual"):
        return import_module(f"secondsight.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'secondsight' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"secondsight.{_HOME.get(name, 'methods')}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


__all__ = [
    "METHODS",
    "AdapterError",
    "AssumptionWarning",
    "Banzhaf",
    "BilinearLime",
    "Contributions",
    "ConvergenceWarning",
    "DualEncoder",
    "Encoder",
    "Explanation",
    "GridLayout",
    "InputError",
    "IntegratedJacobian",
    "Interactions",
    "JacobianTimesInput",
    "JoinedLayout",
    "Layout",
    "Method",
    "Occlusion",
    "Shapley",
    "SpectrogramLayout",
    "Terms",
    "TokenEmbeddings",
    "TokenLayout",
    "TorchEncoder",
    "WaypointJacobian",
    "explain",
    "load",
    "methods",
    "testing",
    "visual",
    "wrap",
]
