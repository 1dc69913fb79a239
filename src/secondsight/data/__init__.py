"""Data sets of images, captions and boxes, read from their official files on disk."""

from secondsight.data.coco import Coco
from secondsight.data.compositional import (
    Comparison,
    Comparisons,
    comparison_of,
    read_compositional,
    write_compositional,
)
from secondsight.data.flickr30k import Flickr30k
from secondsight.data.grounded import (
    EntryError,
    GroundedCaption,
    GroundedDataset,
    ListedDataset,
    Negative,
    Phrase,
    Region,
)
from secondsight.data.hnc import Hnc
from secondsight.data.jsonl import Jsonl, write_jsonl
from secondsight.data.kinds import KINDS, Kind, open_data
from secondsight.data.masks import Mask, mask_of
from secondsight.data.negatives import hard_negatives
from secondsight.data.photographs import photographs
from secondsight.data.phrases import PhraseFinder, coco_synonyms
from secondsight.data.scenes import Scenes, export_coco, open_scenes
from secondsight.data.stsb import SentencePair, SentencePairs, open_sentence_pairs, stsb
from secondsight.data.sugarcrepe import sugarcrepe

__all__ = [
    "KINDS",
    "Coco",
    "Comparison",
    "Comparisons",
    "EntryError",
    "Flickr30k",
    "GroundedCaption",
    "GroundedDataset",
    "Hnc",
    "Jsonl",
    "Kind",
    "ListedDataset",
    "Mask",
    "Negative",
    "Phrase",
    "PhraseFinder",
    "Region",
    "Scenes",
    "SentencePair",
    "SentencePairs",
    "coco_synonyms",
    "comparison_of",
    "export_coco",
    "hard_negatives",
    "mask_of",
    "open_data",
    "open_scenes",
    "open_sentence_pairs",
    "photographs",
    "read_compositional",
    "stsb",
    "sugarcrepe",
    "write_compositional",
    "write_jsonl",
]
