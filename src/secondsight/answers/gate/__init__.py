"""A gate for checkpoints: which pairs, classes and words moved from one model to the next beyond chance and tolerance."""

from secondsight.answers.gate.compare import FAIL_ON
from secondsight.answers.gate.pairs import TextPairs, collect_pairs, open_pairs
from secondsight.answers.gate.report import Gate
from secondsight.answers.gate.run import gate

__all__ = ["FAIL_ON", "Gate", "TextPairs", "collect_pairs", "gate", "open_pairs"]
