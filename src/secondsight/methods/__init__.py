"""Ways to make contribution vectors, one short file each."""

from secondsight.methods.base import METHODS, Method, method_named
from secondsight.methods.integrated_jacobian import IntegratedJacobian

__all__ = ["METHODS", "IntegratedJacobian", "Method", "method_named"]
