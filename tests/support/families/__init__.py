"""Every family that secondsight knows, as a small random model with the family's own preprocessing.

To add a family, add a builder to the module of its library: the conformance suite and the generated table in
docs/families.md follow.
"""

from __future__ import annotations

from importlib import import_module

from families.example import CAPTIONS, FAMILIES, PHOTO, Example, Pair, family, photographs, save_hub, settled

__all__ = ["CAPTIONS", "FAMILIES", "PHOTO", "Example", "Pair", "family", "photographs", "save_hub", "settled"]

# Each module lists its builders; the order is that of the table in the docs.
for _module in ("hub", "hub_more", "open_clip_towers", "sentences"):
    import_module(f"families.{_module}")
