"""Compositionality: whether the right caption wins, and if not, which words and which term of the similarity are to blame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from secondsight.algebra.interactions import Interactions
from secondsight.data.compositional import compared
from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.evaluation.changed_words import changed_word_record
from secondsight.evaluation.choices import SCORES, chances, scores
from secondsight.evaluation.experiments.base import Experiment, Record, groups
from secondsight.evaluation.experiments.hard_negatives import with_negatives
from secondsight.evaluation.setting import Setting
from secondsight.evaluation.statistics import bootstrap_interval
from secondsight.visual.charts import histograms, stacked_shares

ALIKE = 0.9
"""Maps of the changed words that correlate by this much are the same map."""

UNMOVED = 0.1
"""A change of the changed words' attribution by less than this share of it is none."""

MISSED = 0.2
"""Words with less than this share of their positive attribution in their box miss their object."""

SAME_PLACE = 0.5
"""Maps of the changed words that correlate by this much lie at the same place."""

_DRAWN = 20_000_000
"""The number of cases that are drawn for an interval, all draws together."""

_BARS = 20
"""The number of tags whose causes are drawn, those with most failures."""

LISTED = 40
"""The number of failures that the report shows."""

CHANGED = {
    "mean δS": "delta_similarity", "δ text alone": "delta_text", "δ reference": "delta_reference",
    "δ interaction": "delta_interaction", "right words": "right_words", "wrong words": "wrong_words",
    "maps alike": "alike", "same peak": "same_peak", "right words in box": "energy",
    "wrong words in box": "wrong_energy", "box by chance": "chance",
}  # fmt: skip
"""Columns of the table of changed words, and what they are the means of."""

SWAPPED = {
    "maps alike": "swapped_alike", "own box": "own_box", "own box, wrong caption": "wrong_own_box", "other's box": "other_box",
}  # fmt: skip
"""Columns of the table of words that changed places."""

ALL = "all"
"""The row of all tags together."""


class Evidence(TypedDict):
    """What one wrong caption changed; None where it is not known."""

    delta_text: float | None
    delta_interaction: float | None
    delta_reference: float | None
    right_words: float | None
    wrong_words: float | None
    alike: float | None
    energy: float | None


class Compositionality(Experiment):
    """Does the right caption win, and why not? Text, image and group score, and the cause of every wrong choice.

    Data without wrong captions gets generated ones, as in `hard-negatives`. A choice is one right against one wrong caption
    of an image. Its difference of similarity, wrong less right, is split into what the text adds alone and the interaction;
    the words that differ are looked at in both captions.
    """

    name: ClassVar[str] = "compositionality"
    needs: ClassVar[str] = "a wrong caption beside it, or an object whose name can be replaced"
    categories: ClassVar[tuple[str, ...]] = (
        "text alone prefers it",
        "reference prefers it",
        "change not noticed",
        "other words decide",
        "right words miss their object",
        "wrong words match the same place",
        "wrong words match another place",
        "not told",
    )

    def examples(self, data: GroundedDataset) -> Iterable[GroundedCaption]:
        """The data set's captions, with generated negatives if it has none."""
        return with_negatives(data, self.seed)

    def wants(self, example: GroundedCaption) -> bool:
        """Captions with wrong ones."""
        return bool(example.negatives)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record for each wrong caption: both similarities, the terms of their difference, the changed words' maps."""
        part = compared(example)
        comparison = part.comparison
        assert comparison is not None
        right, *wrong = setting.explain(example, [example.caption, *(n.caption for n in example.negatives)])
        common = {
            "comparison": comparison.key,
            "cluster": comparison.key if len(comparison.images) > 1 else example.image_key,
            "group": comparison.group,
            "choices": sum(len(comparison.captions) - len(comparison.fits[image]) for image, _ in comparison.pairs()),
            "image_number": part.image_number,
            "caption_number": part.caption_number,
            "right_caption": example.caption,
            "similarity": right.similarity,
        }
        records = []
        for number, negative, e in zip(part.wrong_numbers, example.negatives, wrong, strict=True):
            record = {
                "kind": negative.kind or "negative",
                **common,
                "tags": list(dict.fromkeys(filter(None, (*comparison.tags, negative.kind)))),
                "wrong_number": number,
                "caption": negative.caption,
                "wrong_similarity": e.similarity,
                "delta_similarity": e.similarity - right.similarity,
                **_terms(setting, right, e),
                **changed_word_record(setting, example, negative, self.rule),
            }
            failed = record["delta_similarity"] >= 0
            records.append({**record, "cause": propose(record) if failed else None})
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Scores by tag, what failures and successes look like, counts of causes, and every failure."""
        rows: list[dict[str, Any]] = []
        causes, looks, swaps = [], [], []
        for setting, group in groups(frame, "setting"):
            start = len(rows)
            for tag, chosen in _by_tag(group.assign(whole=_whole(group))):
                rows += [{"setting": setting, "tag": tag, **row} for row in _score_rows(chosen)]
                failed = chosen[chosen.delta_similarity >= 0]
                counts = {cause: int((failed.cause == cause).sum()) for cause in self.categories}
                causes.append(
                    {"setting": setting, "tag": tag, "choices": len(chosen), "failures": len(failed), **counts}
                )
            rows += [{"setting": setting, **row} for row in _tag_means(rows[start:])]
            for outcome, chosen in (("right", group.delta_similarity < 0), ("wrong", group.delta_similarity >= 0)):
                if chosen.any():
                    looks.append({"setting": setting, "choice": outcome, **_means(group[chosen], CHANGED)})
                swapped = chosen & (group.swapped_words > 0)
                if swapped.any():
                    swaps.append({"setting": setting, "choice": outcome, **_means(group[swapped], SWAPPED)})
        failures = frame[frame.delta_similarity >= 0]
        columns = ["setting", "key", "kind", "cause", "right_caption", "caption", "words", "wrong", "delta_similarity"]
        columns += [
            "delta_text",
            "delta_reference",
            "delta_interaction",
            "right_words",
            "wrong_words",
            "alike",
            "energy",
            "wrong_energy",
        ]
        tables = {
            "overall": pd.DataFrame(rows),
            "causes": pd.DataFrame(causes),
            "changed words": pd.DataFrame(looks),
            "swapped words": pd.DataFrame(swaps),
            "failures": failures[columns].reset_index(drop=True),
        }
        return {name: table for name, table in tables.items() if len(table) or name != "swapped words"}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Causes of failures, and the two terms of the difference of similarity."""
        figures = {}
        causes = self.tables(frame)["causes"]
        causes = causes[causes.failures > 0]
        if len(causes):
            causes = causes.loc[causes.failures.nlargest(_BARS).index.sort_values()]
            names = [f"{row.setting}, {row.tag}" for row in causes.itertuples()]
            counts = causes[list(self.categories)].set_axis(names, axis=0)
            figures["causes"] = stacked_shares(counts, "wrong choices by cause")
        for i, (setting, group) in enumerate(groups(frame, "setting"), 1):
            terms = group[["delta_text", "delta_interaction"]].astype(float).dropna()
            if len(terms):
                values = {"text alone": terms.delta_text.to_numpy(), "interaction": terms.delta_interaction.to_numpy()}
                figures[f"terms {i}"] = histograms(values, "wrong caption less right caption", str(setting))
        return figures

    def gallery(self, frame: pd.DataFrame) -> list[Record]:
        """The clearest failures, both captions beside each other, whose causes a person can correct in the report."""
        failed = frame[frame.delta_similarity >= 0].sort_values(["setting", "delta_similarity", "key"], ascending=False)
        return [_card(row.to_dict()) for _, row in failed.head(LISTED).iterrows()]


def propose(evidence: Evidence | Record) -> str:
    """The cause of a wrong choice that the evidence suggests, by these rules in this order.

    Text alone, or the reference: of all terms this one speaks most for the wrong caption. Not told: no term speaks for it,
    or the method's terms do not add up. Else it is the interaction. Not noticed: the changed words' maps are one map (`ALIKE`)
    of the same sum (`UNMOVED`). Other words: the changed ones have less attribution in the wrong caption. Missed: less than
    `MISSED` of the right words' attribution lies in their box. Else the wrong words match the picture, at the same place
    (`SAME_PLACE`) or another.
    """
    text, reference, interaction = evidence["delta_text"], evidence["delta_reference"], evidence["delta_interaction"]
    if text is None or reference is None or interaction is None or max(text, reference, interaction) <= 0:
        return "not told"
    if max(text, reference) > interaction:
        return "text alone prefers it" if text >= reference else "reference prefers it"
    right, wrong, alike = evidence["right_words"], evidence["wrong_words"], evidence["alike"]
    if right is None or wrong is None:
        return "not told"
    if alike is not None and alike >= ALIKE and abs(wrong - right) < UNMOVED * max(abs(right), abs(wrong)):
        return "change not noticed"
    if wrong < right:
        return "other words decide"
    if evidence["energy"] is not None and evidence["energy"] < MISSED:
        return "right words miss their object"
    same = alike is not None and alike >= SAME_PLACE
    return "wrong words match the same place" if same else "wrong words match another place"


def _terms(setting: Setting, right: Interactions, wrong: Interactions) -> Record:
    """The difference of similarity, wrong less right, in terms; None for methods whose terms are not meant to add up.

    The reference's term is the picture's similarity to what stands for an empty caption (base and image alone): it depends
    on a caption by its number of tokens and the norm of its embedding.
    """
    if not setting.method.adds_up:
        return dict.fromkeys(("delta_text", "delta_reference", "delta_interaction"))
    a, b = right.terms, wrong.terms
    reference = b.base + b.left - a.base - a.left
    return {
        "delta_text": b.right - a.right,
        "delta_reference": reference,
        "delta_interaction": b.interaction - a.interaction,
    }


def _by_tag(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The records of all tags, and those of each tag where there are several."""
    tags = sorted({tag for tags in frame.tags for tag in tags})
    parts = [(tag, frame[[tag in tags for tags in frame.tags]]) for tag in tags]
    return [(ALL, frame), *(parts if len(parts) > 1 else [])]


def _score_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every score with its 95 % interval and chance; comparisons of which a part is missing have no scores."""
    right = (frame.delta_similarity < 0).to_numpy(float)
    values = {"accuracy": [(value, cluster, 0.5) for value, cluster in zip(right, frame.cluster, strict=True)]}
    values |= {name: [] for name in SCORES}
    sets: dict[str, list[tuple[bool, float]]] = {}
    for _, group in groups(frame[frame.whole], "comparison"):
        similarities, fits = {}, set()
        for row in group.itertuples():
            fits.add((row.image_number, row.caption_number))
            similarities[row.image_number, row.caption_number] = row.similarity
            similarities[row.image_number, row.wrong_number] = row.wrong_similarity
        fitting, chance = frozenset(fits), chances(frozenset(similarities), frozenset(fits))
        for name, holds in scores(similarities, fitting).items():
            values[name].append((float(holds), group.cluster.iloc[0], chance[name]))
            if name == "text" and group.group.iloc[0]:
                sets.setdefault(group.group.iloc[0], []).append((holds, chance[name]))
    values["set"] = [
        (float(all(holds for holds, _ in listed)), name, float(np.prod([chance for _, chance in listed])))
        for name, listed in sets.items()
    ]
    rows = []
    for name, listed in values.items():
        if listed:
            numbers, clusters, chance_levels = zip(*listed, strict=True)
            # Of tens of thousands of cases a few hundred draws tell as much, and fit into memory.
            draws = min(max(_DRAWN // len(numbers), 200), 2000)
            low, high = bootstrap_interval(numbers, clusters, bootstraps=draws)
            row = {"score": name, "cases": len(numbers), "value": float(np.mean(numbers)), "low": low, "high": high}
            rows.append({**row, "chance": float(np.mean(chance_levels))})
    return rows


def _tag_means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over tags, which count alike however many cases they have; none where there is one tag."""
    of_tags = [row for row in rows if row["tag"] != ALL]
    means = []
    for score in dict.fromkeys(row["score"] for row in of_tags):
        values, levels = zip(*[(r["value"], r["chance"]) for r in of_tags if r["score"] == score], strict=True)
        means.append({"tag": "mean of tags", "score": score, "cases": len(values), "value": float(np.mean(values))})
        means[-1] |= {"low": float("nan"), "high": float("nan"), "chance": float(np.mean(levels))}
    return means


def _whole(frame: pd.DataFrame) -> pd.Series:
    """Whether all records of a row's comparison are there, which a limit or an unusable image can prevent."""
    return frame.groupby("comparison").comparison.transform("size") >= frame.choices


def _means(frame: pd.DataFrame, names: dict[str, str]) -> dict[str, Any]:
    """What choices of one outcome have in common: means over those where a number is known."""
    return {"choices": len(frame)} | {name: frame[column].astype(float).mean() for name, column in names.items()}


def _card(record: Record) -> Record:
    """A failure for the report: the changed words' maps in the right and in the wrong caption."""
    spans = [
        tuple(record[span]) if isinstance(record[span], list) else (0, len(record[caption]))
        for span, caption in (("span", "right_caption"), ("wrong_span", "caption"))
    ]
    facts = f"similarity {record['similarity']:.3f}, of the wrong caption {record['wrong_similarity']:.3f}"
    return {name: value for name, value in record.items() if name != "energy"} | {
        "span": spans[0],
        "words": f"{record['words']} → {record['wrong']}",
        "also": {"caption": record["caption"], "span": spans[1]},
        "facts": facts,
        "category": record["cause"],
    }
