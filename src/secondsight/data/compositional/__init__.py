"""Benchmarks of compositionality by one schema: images, captions, and which fits which."""

from secondsight.data.compositional.jsonl import read_compositional, write_compositional
from secondsight.data.compositional.readers import aro, mmvp_vlm, sugarcrepe_pp, vl_checklist, whatsup, winoground
from secondsight.data.compositional.scene_pairs import open_scene_pairs, scene_pairs
from secondsight.data.compositional.schema import ComparedCaption, Comparison, Comparisons, compared, comparison_of

__all__ = [
    "ComparedCaption",
    "Comparison",
    "Comparisons",
    "aro",
    "compared",
    "comparison_of",
    "mmvp_vlm",
    "open_scene_pairs",
    "read_compositional",
    "scene_pairs",
    "sugarcrepe_pp",
    "vl_checklist",
    "whatsup",
    "winoground",
    "write_compositional",
]
