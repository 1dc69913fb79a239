"""secondsight explains dual encoders: which part of a caption matched which part of an image, by how much, and how exactly.

Method: Möller, Tilli, Vu, Padó, "Explaining Caption-Image Interactions in CLIP Models with Second-Order Attributions",
TMLR 2025 (arXiv 2408.14153), cited as [M25].
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from secondsight import methods as methods
    from secondsight import testing as testing
    from secondsight import visual as visual
    from secondsight.algebra.contributions import Contributions as Contributions
    from secondsight.algebra.interactions import Interactions as Interactions
    from secondsight.algebra.interactions import Terms as Terms
    from secondsight.algebra.layout import GridLayout as GridLayout
    from secondsight.algebra.layout import JoinedLayout as JoinedLayout
    from secondsight.algebra.layout import Layout as Layout
    from secondsight.algebra.layout import SpectrogramLayout as SpectrogramLayout
    from secondsight.algebra.layout import TokenLayout as TokenLayout
    from secondsight.encoders.base import Encoder as Encoder
    from secondsight.encoders.families.torch import TorchEncoder as TorchEncoder
    from secondsight.encoders.registry import load as load
    from secondsight.encoders.registry import wrap as wrap
    from secondsight.explanation import Explanation as Explanation
    from secondsight.explanation import explain as explain
    from secondsight.methods import METHODS as METHODS
    from secondsight.methods import PRESETS as PRESETS
    from secondsight.methods import AttentionRelevance as AttentionRelevance
    from secondsight.methods import AttentionRollout as AttentionRollout
    from secondsight.methods import Banzhaf as Banzhaf
    from secondsight.methods import BilinearLime as BilinearLime
    from secondsight.methods import ChainedJacobian as ChainedJacobian
    from secondsight.methods import CollectionMethod as CollectionMethod
    from secondsight.methods import GradEclip as GradEclip
    from secondsight.methods import IntegratedJacobian as IntegratedJacobian
    from secondsight.methods import JacobianTimesInput as JacobianTimesInput
    from secondsight.methods import LeGrad as LeGrad
    from secondsight.methods import MaskClip as MaskClip
    from secondsight.methods import Method as Method
    from secondsight.methods import Occlusion as Occlusion
    from secondsight.methods import Shapley as Shapley
    from secondsight.methods import TokenEmbeddings as TokenEmbeddings
    from secondsight.methods import WaypointJacobian as WaypointJacobian
    from secondsight.model import DualEncoder as DualEncoder
    from secondsight.support.errors import AdapterError as AdapterError
    from secondsight.support.errors import AssumptionWarning as AssumptionWarning
    from secondsight.support.errors import ConvergenceWarning as ConvergenceWarning
    from secondsight.support.errors import InputError as InputError

__version__ = "0.1.0"

_NAMES = {
    "algebra.contributions": ("Contributions",),
    "algebra.interactions": ("Interactions", "Terms"),
    "algebra.layout": ("GridLayout", "JoinedLayout", "Layout", "SpectrogramLayout", "TokenLayout"),
    "encoders.base": ("Encoder",),
    "encoders.families.torch": ("TorchEncoder",),
    "encoders.registry": ("load", "wrap"),
    "explanation": ("Explanation", "explain"),
    "methods": (
        "METHODS",
        "PRESETS",
        "AttentionRelevance",
        "AttentionRollout",
        "Banzhaf",
        "BilinearLime",
        "ChainedJacobian",
        "CollectionMethod",
        "GradEclip",
        "IntegratedJacobian",
        "JacobianTimesInput",
        "LeGrad",
        "MaskClip",
        "Method",
        "Occlusion",
        "Shapley",
        "TokenEmbeddings",
        "WaypointJacobian",
    ),
    "model": ("DualEncoder",),
    "support.errors": ("AdapterError", "AssumptionWarning", "ConvergenceWarning", "InputError"),
}
"""Module → the names that are exported from it, the same as those imported above for type checkers."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_MODULES, "methods", "testing", "visual"])


def __getattr__(name: str) -> Any:
    """Import at first use, so that the command line's help need not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module 'secondsight' has no attribute {name!r}")
    module = import_module(f"secondsight.{_MODULES.get(name, name)}")
    value = globals()[name] = getattr(module, name) if name in _MODULES else module
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
