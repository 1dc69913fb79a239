"""secondsight explains dual encoders: which part of a caption matched which part of an image, by how much, and how exactly.

Method: Möller, Tilli, Vu, Padó, "Explaining Caption-Image Interactions in CLIP Models with Second-Order Attributions",
TMLR 2025 (arXiv 2408.14153), cited as [M25].
"""

from secondsight import methods, testing, visual
from secondsight.contributions import Contributions
from secondsight.encoders.base import DualEncoder, Encoder
from secondsight.encoders.registry import load, wrap
from secondsight.encoders.torch import TorchEncoder
from secondsight.errors import AdapterError, AssumptionWarning, ConvergenceWarning, InputError
from secondsight.explanation import Explanation, explain
from secondsight.interactions import Interactions, Terms
from secondsight.layout import GridLayout, JoinedLayout, Layout, SpectrogramLayout, TokenLayout
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

__version__ = "0.1.0"

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
