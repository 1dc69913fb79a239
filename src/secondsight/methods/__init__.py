"""Ways to make contribution vectors, one short file each."""

from secondsight.methods.banzhaf import Banzhaf
from secondsight.methods.base import METHODS, Method, method_named
from secondsight.methods.bilinear_lime import BilinearLime
from secondsight.methods.integrated_jacobian import IntegratedJacobian
from secondsight.methods.jacobian_times_input import JacobianTimesInput
from secondsight.methods.occlusion import Occlusion
from secondsight.methods.shapley import Shapley
from secondsight.methods.token_embeddings import TokenEmbeddings
from secondsight.methods.waypoint_jacobian import WaypointJacobian

__all__ = [
    "METHODS",
    "Banzhaf",
    "BilinearLime",
    "IntegratedJacobian",
    "JacobianTimesInput",
    "Method",
    "Occlusion",
    "Shapley",
    "TokenEmbeddings",
    "WaypointJacobian",
    "method_named",
]
