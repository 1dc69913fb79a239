"""The paper's figures of single pairs: selections both ways, two texts, two images, methods, references, examples."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from secondsight.data.grounded import Box, GroundedCaption
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.approximation import IMAGE_REFERENCES, TEXT_REFERENCES
from secondsight.evaluation.maps import image_layout
from secondsight.evaluation.report import small_picture
from secondsight.evaluation.setting import Setting, Span
from secondsight.evaluation.studies.paper_methods import METHODS, OURS
from secondsight.evaluation.studies.paper_records import replaced_objects
from secondsight.explanation import Explanation, explain
from secondsight.inputs.images import open_image
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.support.errors import ConvergenceWarning
from secondsight.visual.charts import picture_rows
from secondsight.visual.figures import method_grid, pairs

SHOWN = 2
"""Examples of a kind that stand in one figure."""

Figures = dict[str, Figure]


@dataclass(frozen=True)
class Example:
    """A caption with two or more phrases that are grounded well: their spans and boxes, the best first."""

    caption: GroundedCaption
    spans: list[Span]
    boxes: list[Box]

    def words(self, number: int) -> str:
        """A phrase's characters."""
        start, end = self.spans[number]
        return self.caption.caption[start:end]


def example_figures(
    model: DualEncoder,
    cases: pd.DataFrame,
    negatives: pd.DataFrame,
    captions: Mapping[str, GroundedCaption],
) -> dict[str, Figures]:
    """Figures of single pairs of one model by their numbers in the paper.

    `cases` are the model's records of pointing, `negatives` those of hard negatives; `captions` are by the records' "key".
    """
    examples = choose(cases, captions)
    if not examples:
        return {}
    best = examples[0]
    figures = {
        "1": {"selections": selections_both_ways(model, examples[:SHOWN])},
        "7": {"examples": two_objects(model, examples[: SHOWN + 1])},
        "12": {"methods and phrases": methods_and_phrases(model, best)},
        "21": {"maps": maps_of_references(model, best)},
    }
    related = next(((a, b) for a in examples for b in examples if _shared(a, b)), None)
    if related is not None:
        figures["2"] = {"two texts": two_texts(model, *related)}
        figures["11"] = {"two images": two_images(model, *related)}
    if len(negatives):
        wrong = wrong_words(model, negatives, captions)
        figures |= {"8": {"examples": wrong}} if wrong is not None else {}
    return figures


def choose(cases: pd.DataFrame, captions: Mapping[str, GroundedCaption]) -> list[Example]:
    """The captions with two or more judged phrases, those whose boxes lie apart first.

    Of each kind, the first are those of the highest PGE of the second-best phrase.
    """
    examples = []
    for key, group in cases.groupby("key", sort=False):
        caption = captions.get(str(key))
        # A phrase is picked by its words, which must stand in the caption once.
        if caption is not None and len(group) > 1 and all(caption.caption.count(words) == 1 for words in group.words):
            ordered = group.sort_values("energy", ascending=False)
            spans = [(int(a), int(b)) for a, b in ordered.span]
            boxes = [(float(a), float(b), float(c), float(d)) for a, b, c, d in ordered.box]
            rank = (measures.overlap(*boxes[:2]) > 0, -float(ordered.energy.iloc[1]))
            examples.append((rank, Example(caption, spans, boxes)))
    return [example for _, example in sorted(examples, key=lambda ranked: ranked[0])]


def selections_both_ways(model: DualEncoder, examples: list[Example]) -> Figure:
    """A phrase's map, and the words for a box, of each example ([M25] Fig. 1)."""
    entries = []
    for example in examples:
        e = _explain(model, example.caption.image, example.caption.caption)
        entries += [(e, example.spans[0]), (e, example.boxes[1])]
    return pairs(entries, columns=2)


def two_texts(model: DualEncoder, first: Example, second: Example) -> Figure:
    """Two captions that name the same class: what matches the phrase, and what matches everything ([M25] Fig. 2)."""
    e = _explain(model.pair("text", "text"), first.caption.caption, second.caption.caption)
    number = _shared(first, second)[0][1]
    return pairs([(e, second.spans[number]), (e, None)], columns=2)


def two_images(model: DualEncoder, first: Example, second: Example) -> Figure:
    """Two images of the same class: what matches the object's box in the first, and everything ([M25] Fig. 11)."""
    e = _explain(model.pair("image", "image"), first.caption.image, second.caption.image)
    number = _shared(first, second)[0][0]
    return pairs([(e, first.boxes[number]), (e, None)], columns=2)


def methods_and_phrases(model: DualEncoder, example: Example) -> Figure:
    """Every method on one pair, for each phrase ([M25] Fig. 12)."""
    explanations = [
        _explain(model, example.caption.image, example.caption.caption, method) for method in METHODS.values()
    ]
    return method_grid(explanations, _phrases(example), list(METHODS))


def maps_of_references(model: DualEncoder, example: Example) -> Figure:
    """Maps under all combinations of references ([M25] Fig. 21)."""
    image, text = model.left.encoder, model.right.encoder
    names = product(
        [name for name in IMAGE_REFERENCES if name in image.references],
        [name for name in TEXT_REFERENCES if name in text.references],
    )
    explanations, titles = [], []
    for references in names:
        method = replace(METHODS[OURS], reference=references)  # type: ignore[type-var]  # a dataclass, typed as its base
        explanations.append(_explain(model, example.caption.image, example.caption.caption, method))
        titles.append(", ".join(references))
    return method_grid(explanations, _phrases(example), titles)


def two_objects(model: DualEncoder, examples: list[Example]) -> Figure:
    """Both phrases' maps with both boxes, the phrase's own white, the other one orange ([M25] Fig. 7)."""
    rows: dict[str, list[tuple[Image.Image, str]]] = {}
    for example in examples:
        e = _explain(model, example.caption.image, example.caption.caption)
        rows[example.caption.caption] = []
        for own, other in ((0, 1), (1, 0)):
            values, layout = e.toward_left(example.spans[own]), image_layout(e.left_layout)
            own_sum, cross_sum = (
                float((values * layout.cover(example.boxes[i]).to(values)).sum()) for i in (own, other)
            )
            picture = small_picture(
                open_image(example.caption.image),
                layout.heatmap(values).double().numpy(),
                [example.boxes[own]],
                others=[example.boxes[other]],
            )
            text = f"{example.words(own)}: own box {own_sum:+.3f}, other {cross_sum:+.3f}"
            rows[example.caption.caption].append((picture, text))
    return picture_rows(rows)


def wrong_words(model: DualEncoder, negatives: pd.DataFrame, captions: Mapping[str, GroundedCaption]) -> Figure | None:
    """The right phrase's map beside that of the wrong word, where the attribution falls most ([M25] Fig. 8)."""
    setting = Setting(model, METHODS[OURS], OURS)
    judged = replaced_objects(negatives[negatives.delta_attribution.notna()])
    ordered = judged.assign(change=judged.delta_attribution.astype(float)).sort_values("change")
    rows: dict[str, list[tuple[Image.Image, str]]] = {}
    for record in ordered.drop_duplicates("key").to_dict("records"):
        example = captions.get(record["key"])
        negative = next((n for n in example.negatives if n.caption == record["caption"]), None) if example else None
        if example is None or negative is None or negative.span is None:
            continue
        right = next((p for p in example.phrases if p.label == record["label"]), None)
        if right is None:
            continue
        texts = (
            (example, right.span, example.words(right)),
            (
                replace(example, caption=negative.caption),
                negative.span,
                f"{negative.caption[slice(*negative.span)]}: δS {record['delta_similarity']:+.3f}, δA {record['change']:+.3f}",
            ),
        )
        pictures = []
        for caption, span, text in texts:
            e, selection = setting.explain_span(caption, span)
            heat = image_layout(e.left_layout).heatmap(e.toward_left(selection)).double().numpy()
            pictures.append((small_picture(open_image(example.image), heat, right.boxes), text))
        rows[example.caption] = pictures
        if len(rows) > SHOWN:
            break
    return picture_rows(rows) if rows else None


def _phrases(example: Example) -> list[str]:
    """The words of the two phrases that are grounded best."""
    return [example.words(number) for number in range(2)]


def _shared(first: Example, second: Example) -> list[tuple[int, int]]:
    """The numbers of phrases of the same words in two captions of different images."""
    if first.caption.image_key == second.caption.image_key:
        return []
    return [
        (i, j)
        for i, j in product(range(len(first.spans)), range(len(second.spans)))
        if first.words(i) == second.words(j)
    ]


def _explain(
    model: DualEncoder, left: Image.Image | Path | str, right: Image.Image | Path | str, method: Method | None = None
) -> Explanation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return explain(model, left, right, method or METHODS[OURS], truncate=True)
