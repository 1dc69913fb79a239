"""When to use which method, in plain words; the command line and the app list these."""

from __future__ import annotations

from secondsight.methods.base import METHODS
from secondsight.methods.presets import PRESET_LINES

USES = {
    "attention-relevance": "Use this when you compare with the relevance maps of Chefer et al.: one map for all words; "
    "nothing adds up.",
    "attention-rollout": "Use this when you compare with attention rollout, which knows nothing of the other input.",
    "banzhaf": "Use this when you want to know what hiding parts of the input would do, and can wait for a few hundred runs.",
    "bilinear-lime": "Use this when you compare with published results of LIME for pairs; it is slow and random.",
    "chained-jacobian": "Use this when you want sums that are exact at any layer, without a setting to choose.",
    "collection": "Use this when you audit a whole collection: cheap for images, and words are told apart.",
    "grad-eclip": "Use this when you compare with Grad-ECLIP: one map for all words from the last attention; nothing adds up.",
    "integrated-jacobian": "Use this when you want the published method, with its accuracy and layers in your hands.",
    "jacobian-times-input": "Use this when you need a quick look, or compare with Grad-CAM; its sums are not exact.",
    "legrad": "Use this when you compare with LeGrad: one map for all words from all blocks' attention; nothing adds up.",
    "mask-clip": "Use this when you compare with training-free segmentation by CLIP: MaskCLIP, ClearCLIP, SCLIP.",
    "occlusion": "Use this when you want the simplest question answered: what is lost when one part alone is hidden?",
    "shapley": "Use this when shares must be fair and add up, and you can wait for thousands of runs.",
    "token-embeddings": "Use this when you compare with plain similarity maps of patches and words; nothing adds up.",
    "waypoint-jacobian": "Use this when you doubt the straight way from an empty input to yours: it "
    "goes by blurred photographs and half-filled captions.",
}


def method_lines() -> dict[str, str]:
    """Every preset and method with a line that says when to use it; a method of the user's own with its first line."""
    first_lines = {name: (method.__doc__ or "").strip().partition("\n")[0] for name, method in sorted(METHODS.items())}
    return {**PRESET_LINES, **first_lines, **{name: USES[name] for name in first_lines if name in USES}}
