"""What each feature of an input is and where it lies: grid cells on the original image, tokens in the original text."""

from secondsight.algebra.layout.base import Box, Layout, Span, Word, word_scores
from secondsight.algebra.layout.grid import GridLayout
from secondsight.algebra.layout.joined import JoinedLayout
from secondsight.algebra.layout.overlay import common, owners_in
from secondsight.algebra.layout.spectrogram import SpectrogramLayout
from secondsight.algebra.layout.tokens import TokenLayout

__all__ = [
    "Box",
    "GridLayout",
    "JoinedLayout",
    "Layout",
    "Span",
    "SpectrogramLayout",
    "TokenLayout",
    "Word",
    "common",
    "owners_in",
    "word_scores",
]
