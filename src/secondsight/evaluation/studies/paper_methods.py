"""The methods that [M25] compares, with the paper's options."""

from __future__ import annotations

from secondsight.methods import BilinearLime, IntegratedJacobian, JacobianTimesInput, Method, TokenEmbeddings

OURS = "integrated Jacobian"

METHODS: dict[str, Method] = {
    OURS: IntegratedJacobian(),
    "InteractionCAM": JacobianTimesInput(pool_gradients=True, relu=True),
    "ITSM-H": TokenEmbeddings(hidden=True),
    "ITSM-O": TokenEmbeddings(),
    "ILIME": BilinearLime(),
}
"""By their names in the paper, whose own is the first."""

IN_CURVES = (OURS, "InteractionCAM", "ITSM-H")
"""Those whose curves are drawn together; the others would need a thousand encodings an example, or crowd the figure."""
