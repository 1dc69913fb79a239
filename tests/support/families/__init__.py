"""Every family that secondsight knows, as a small random model with the family's own preprocessing.

To add a family, add a builder to the module of its library: the conformance suite and the generated table in
docs/families.md follow.
"""

from __future__ import annotations

import copy
from importlib import import_module
from pathlib import Path

import transformers
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from families.example import CAPTIONS, FAMILIES, PHOTO, Example, Pair, family, photographs, settled

__all__ = ["CAPTIONS", "FAMILIES", "PHOTO", "Example", "Pair", "family", "photographs", "save_hub", "settled"]

# Each module lists its builders; the order is that of the table in the docs.
for _module in ("hub", "hub_more", "open_clip_towers", "sentences"):
    import_module(f"families.{_module}")


def save_hub(example: Example, folder: Path) -> None:
    """A model of transformers and its processor, as a hub has them."""
    example.host.save_pretrained(folder)
    processor = getattr(transformers, PROCESSOR_MAPPING_NAMES[example.host.config.model_type])
    # Saving writes the processor's name into the tokenizer object.
    processor(*copy.deepcopy(example.parts)).save_pretrained(folder)
