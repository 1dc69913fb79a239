"""Words that the sentences of all answers have in common."""

from __future__ import annotations

LEAST_P = 1e-4
"""Smaller p-values are told as smaller than this: how much smaller, the tests' assumptions do not say."""


def p_text(name: str, value: float) -> str:
    """A p-value or q-value in a sentence: "p = 0.012", or "p < 0.0001"."""
    return f"{name} < {LEAST_P:.4f}" if value < LEAST_P else f"{name} = {value:.2g}"


def plural(noun: str) -> str:
    """Several of what an English noun names: "queries" for "query"."""
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def count(number: int, noun: str) -> str:
    """A number of things: "1 image", "2 images"."""
    return f"{number} {noun if number == 1 else plural(noun)}"


def times(number: int) -> str:
    """How often: "once", "2 times"."""
    return "once" if number == 1 else f"{number} times"


def capitalised(text: str) -> str:
    """A text that begins a sentence; only its first letter changes."""
    return text[:1].upper() + text[1:]
