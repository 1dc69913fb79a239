"""Where tokens lie in the original text when a tokenizer cleaned it first, or only spells its tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from secondsight.inputs.prepared import Offsets

_MARKS = ("▁", "Ġ", "##", "</w>")
"""What tokenizers write for a space, the middle of a word, or its end."""


def align(original: str, cleaned: str) -> list[int]:
    """For every character of a cleaned text the index of the character of the original that it came from.

    Cleaning lowers case, collapses spaces, straightens quotes and mends encodings; replaced characters map in order.
    """
    # Lowering may lengthen a character; comparing per character keeps the positions of the original.
    lowered = [c.lower()[:1] or c for c in original]
    matcher = SequenceMatcher(None, lowered, [c.lower()[:1] or c for c in cleaned], autojunk=False)
    places = []
    for _, i0, i1, j0, j1 in matcher.get_opcodes():
        # Equal stretches map one to one; in unequal ones every character gets its share, an insertion what precedes it.
        places += [i0 + k * (i1 - i0) // (j1 - j0) if i1 > i0 else max(i0 - 1, 0) for k in range(j1 - j0)]
    return places


def byte_offsets(original: str, cleaned: str, pieces: Sequence[bytes]) -> Offsets:
    """Offsets in the original of byte-level tokens that together spell the cleaned text without its white space."""
    places = align(original, cleaned)
    places_of_bytes = [places[j] for j, c in enumerate(cleaned) if not c.isspace() for _ in c.encode()]
    offsets: list[tuple[int, int] | None] = []
    position = 0
    for piece in pieces:
        span = places_of_bytes[position : position + len(piece)]
        position += len(piece)
        offsets.append((min(span), max(span) + 1) if span else None)
    return tuple(offsets)


def spelled_offsets(text: str, tokens: Sequence[str], special: Mapping[int, str]) -> Offsets:
    """Offsets of tokens that only spell themselves, as those of slow tokenizers do, by aligning them with the text."""
    pieces: list[bytes] = []
    for i, token in enumerate(tokens):
        byte = re.fullmatch(r"<0x([0-9A-F]{2})>", token)
        for mark in _MARKS:
            token = token.replace(mark, "")
        pieces.append(b"" if i in special else bytes([int(byte[1], 16)]) if byte else "".join(token.split()).encode())
    spelled = b"".join(pieces).decode("utf-8", errors="replace")
    return byte_offsets(text, spelled, pieces)
