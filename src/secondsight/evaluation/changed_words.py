"""The words that differ between a right and a wrong caption of an image: their maps in both, and their objects' boxes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from secondsight.algebra.layout import GridLayout
from secondsight.data.grounded import Box, GroundedCaption, Negative
from secondsight.evaluation import measures
from secondsight.evaluation.maps import span_map
from secondsight.evaluation.setting import Setting, Span
from secondsight.support.errors import InputError

WordMap = tuple[np.ndarray, GridLayout]
"""The map of some words over the image, and the layout of its cells."""

_ARTICLES = {"a", "an"}


def changed_word_record(setting: Setting, example: GroundedCaption, negative: Negative, rule: str) -> dict[str, Any]:
    """The changed words in the right and the wrong caption; None for what is not known.

    Their texts and spans, the sums of their maps (0 where a caption has none of them), the maps' correlation ("alike") and
    whether their peaks are at most a cell apart; the share of positive attribution in the boxes that the right words name,
    in both captions and by chance; and what `swapped_word_record` says.
    """
    before = word_map(setting, example, example.caption, negative.phrase)
    after = word_map(setting, example, negative.caption, negative.span)
    record: dict[str, Any] = {
        "span": list(negative.phrase) if negative.phrase else None,
        "wrong_span": list(negative.span) if negative.span else None,
        "words": example.caption[slice(*negative.phrase)] if negative.phrase else "",
        "wrong": negative.caption[slice(*negative.span)] if negative.span else "",
        "right_words": _total(before, negative.phrase),
        "wrong_words": _total(after, negative.span),
        "alike": _alike(before, after),
        "same_peak": None if before is None or after is None else _peak_distance(before[0], after[0]) <= 1,
    }
    boxes = [box for phrase in example.phrases if overlap(phrase.span, negative.phrase) for box in phrase.boxes]
    shares = {"energy": _share(before, boxes, rule), "wrong_energy": _share(after, boxes, rule)}
    evenly = None if before is None else (np.ones_like(before[0]), before[1])
    record |= {"boxes": [list(box) for box in boxes], **shares, "chance": _share(evenly, boxes, rule)}
    return record | swapped_word_record(setting, example, negative, rule)


def swapped_word_record(setting: Setting, example: GroundedCaption, negative: Negative, rule: str) -> dict[str, Any]:
    """Where the same words stand in both captions in another order: means over the words that changed places.

    The number of such words, the correlation of a word's two maps, and the share of its positive attribution in its own
    box in the right and in the wrong caption, and in the other words' boxes.
    """
    names = ("swapped_alike", "own_box", "wrong_own_box", "other_box")
    values: dict[str, list[float | None]] = {name: [] for name in names}
    words = _swapped_words(example, negative)
    for span, wrong_span, boxes in words:
        before = word_map(setting, example, example.caption, span)
        after = word_map(setting, example, negative.caption, wrong_span)
        others = [box for other, _, listed in words if other != span for box in listed]
        shares = (_share(before, boxes, rule), _share(after, boxes, rule), _share(before, others, rule))
        for name, value in zip(names, (_alike(before, after), *shares), strict=True):
            values[name].append(value)
    return {"swapped_words": len(words), **{name: _mean(listed) for name, listed in values.items()}}


def word_map(setting: Setting, example: GroundedCaption, caption: str, span: Span | None) -> WordMap | None:
    """The map of a caption's words; None if there are none, if they were cut off, or if the image has no cells."""
    if span is None:
        return None
    try:
        return span_map(*setting.explain_span(replace(example, caption=caption), span))
    except InputError:
        return None


def overlap(a: Span, b: Span | None) -> bool:
    """Whether two spans have characters in common."""
    return b is not None and a[0] < b[1] and b[0] < a[1]


def _swapped_words(example: GroundedCaption, negative: Negative) -> list[tuple[Span, Span, Sequence[Box]]]:
    """The words' spans in both captions, and their boxes; empty unless both changed spans have the same words.

    Words are the phrases of the right caption, or single words of three letters or more where it has none.
    """
    if negative.phrase is None or negative.span is None:
        return []
    right, wrong = example.caption[slice(*negative.phrase)], negative.caption[slice(*negative.span)]
    if _words(right) != _words(wrong):
        return []
    spans = [(p.span, p.boxes) for p in example.phrases if overlap(p.span, negative.phrase)]
    if not spans:
        start = negative.phrase[0]
        spans = [((m.start() + start, m.end() + start), ()) for m in re.finditer(r"\w{3,}", right)]
    words: list[tuple[Span, Span, Sequence[Box]]] = []
    for span, boxes in spans:
        text = re.escape(example.caption[slice(*span)])
        places = [match.span() for match in re.finditer(rf"(?<!\w){text}(?!\w)", negative.caption, re.IGNORECASE)]
        # A word that stands twice, or after as many words as before, did not change places.
        if len(places) == 1 and _position(negative.caption, places[0]) != _position(example.caption, span):
            words.append((span, places[0], boxes))
    return words


def _position(text: str, span: Span) -> int:
    """The number of words before a span."""
    return len(re.findall(r"\w+", text[: span[0]]))


def _words(text: str) -> list[str]:
    """The words in order of the alphabet, without the articles, which depend on their noun."""
    return sorted(word for word in re.findall(r"\w+", text.lower()) if word not in _ARTICLES)


def _share(words: WordMap | None, boxes: Sequence[Box], rule: str) -> float | None:
    """The share of positive attribution in the visible part of the boxes; None if there is no map or no box."""
    if words is None:
        return None
    map_, layout = words
    visible = [box for box in boxes if measures.clip_box(box, layout.frame) is not None]
    return measures.energy(map_, visible, layout.image_size, layout.frame, rule) if visible else None


def _alike(before: WordMap | None, after: WordMap | None) -> float | None:
    """The correlation of two maps."""
    if before is None or after is None:
        return None
    alike = measures.correlation(before[0], after[0])
    return None if np.isnan(alike) else alike


def _total(words: WordMap | None, span: Span | None) -> float | None:
    """The attribution of words: 0 where a caption has none of them, None where their map is not known."""
    if words is None:
        return 0.0 if span is None else None
    return float(words[0].sum())


def _peak_distance(a: np.ndarray, b: np.ndarray) -> int:
    """Cells between the highest values of two maps, along the longer direction."""
    peaks = [np.unravel_index(map_.argmax(), map_.shape) for map_ in (a, b)]
    return max(abs(int(p) - int(q)) for p, q in zip(*peaks, strict=True))


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of the known values."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
