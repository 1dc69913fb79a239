"""When to use which method, in plain words; the command line and the app list these."""

from __future__ import annotations

from secondsight.methods.base import METHODS
from secondsight.methods.presets import PRESET_LINES

USES = {
    "attention-relevance": "Use this when you compare with the relevance maps of Chefer, Gur and Wolf (GAME).",
    "attention-rollout": "Use this when you compare with attention rollout, which knows nothing of the other input.",
    "banzhaf": "Use this when you want to know what hiding parts of the input would do, and can wait for a few hundred runs.",
    "bilinear-lime": "Use this when you compare with published results of LIME for pairs; it is slow and random.",
    "chained-jacobian": "Use this when you want sums that are exact at any layer, without a setting to choose.",
    "collection": "Use this when you audit a whole collection: cheap for images, and words are told apart.",
    "grad-eclip": "Use this when you compare with Grad-ECLIP, which weights values of the last attention.",
    "integrated-jacobian": "Use this when you want the published method, with its accuracy and layers in your hands.",
    "jacobian-times-input": "Use this when you need a quick look, or compare with Grad-CAM; its sums are not exact.",
    "legrad": "Use this when you compare with LeGrad, which asks how much every block's attention matters.",
    "mask-clip": "Use this when you compare with training-free segmentation by CLIP: MaskCLIP, ClearCLIP, SCLIP.",
    "occlusion": "Use this when you want the simplest question answered: what is lost when one part alone is hidden?",
    "shapley": "Use this when shares must be fair and add up, and you can wait for thousands of runs.",
    "token-embeddings": "Use this when you compare with plain similarity maps of patches and words; nothing adds up.",
    "waypoint-jacobian": "Use this when you doubt the straight way from an empty input to yours: it "
    "goes by blurred photographs and half-filled captions.",
}


def method_lines() -> dict[str, str]:
    """Every preset and method with a line that says when to use it, and whether it is of first order.

    A method of the user's own has its first line.
    """
    lines = {name: USES.get(name) or (kind.__doc__ or "").strip().partition("\n")[0] for name, kind in METHODS.items()}
    first_order = {
        name: f"{lines[name]} First order: one map for all words." for name, kind in METHODS.items() if kind.order == 1
    }
    return PRESET_LINES | dict(sorted((lines | first_order).items()))
