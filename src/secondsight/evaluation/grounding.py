"""Experiments on boxes: pointing, discrimination, hard negatives, failures, collages ([M25] §4.2-4.5)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout
from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.data.negatives import hard_negatives
from secondsight.evaluation import measures
from secondsight.evaluation.run import Case, Experiment, Record, Setting, cases, image_layout
from secondsight.support.errors import InputError

FAILED = 0.2
"""Below this PGE an explanation counts as a failure of grounding ([M25] §4.5)."""


def span_map(e: Interactions, span: tuple[int, int]) -> tuple[np.ndarray, GridLayout]:
    """The attribution of a span of the caption to the cells of the image, and the layout that places them."""
    layout = image_layout(e.left_layout)
    return layout.view(e.toward_left(span)).double().numpy(), layout


def box_sum(e: Interactions, span: tuple[int, int], box: tuple[float, float, float, float]) -> float:
    """Attribution between a span and a box, cells counted by the part of them that the box covers."""
    layout = image_layout(e.left_layout)
    values = e.toward_left(span)
    return float((values * layout.cover(box).to(values)).sum())


class Grounding(Experiment):
    """What the experiments on single phrases share."""

    def wants(self, example: GroundedCaption) -> bool:
        """Captions with a phrase that has one box, and one object of its class."""
        counts = Counter(region.label for region in example.regions)
        return any(len(phrase.boxes) == 1 and counts[phrase.label] < 2 for phrase in example.phrases)

    def judged(self, setting: Setting, example: GroundedCaption) -> tuple[Interactions, list[Case], Counter[str]]:
        """The caption explained, its cases, and why phrases were left out."""
        e = setting.explain(example)[0]
        left: Counter[str] = Counter()
        found = cases(example, image_layout(e.left_layout), lambda reason: left.update([reason]))
        usable = []
        for case in found:
            try:
                e.right_layout.select(case.phrase.span)
            except InputError:
                # The phrase lies in the part of a long caption that was cut off.
                left.update(["cut from the caption"])
            else:
                usable.append(case)
        return e, usable, left

    def scored(self, e: Interactions, case: Case, example: GroundedCaption) -> Record:
        """PGA, PGE and chance of one phrase."""
        map_, layout = span_map(e, case.phrase.span)
        about = (map_, [case.box], layout.image_size, layout.frame, self.rule)
        return {
            "label": case.phrase.label,
            "words": example.words(case.phrase),
            "span": list(case.phrase.span),
            "box": list(case.box),
            "hit": measures.pointing(*about),
            "energy": measures.energy(*about),
            "chance": case.share,
            "attribution": float(map_.sum()),
            "similarity": e.similarity,
            "error": e.error,
        }


class Pointing(Grounding):
    """Does a phrase's map point at its object? PGA and PGE, over all and by class ([M25] Table 1, Fig. 4-6)."""

    name: ClassVar[str] = "pointing"

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record a case, and one a reason for leaving phrases out."""
        e, found, left = self.judged(setting, example)
        made: list[Record] = [{"kind": "case", **self.scored(e, case, example)} for case in found]
        return made + [{"kind": "skipped", "reason": reason, "count": count} for reason, count in sorted(left.items())]

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Over all cases, by class, what was left out, and every pair of settings compared."""
        from secondsight.evaluation.statistics import almost_stochastic_order

        found = only(frame, "case")
        overall = [self.row(group).rename(setting) for setting, group in by(found, "setting")]
        tables = {"overall": whole(overall), "classes": self.classes(found)}
        left = only(frame, "skipped")
        if len(left):
            counts = left.groupby(["setting", "reason"], sort=False)["count"].sum().astype(int).reset_index()
            tables["left out"] = counts
        names = list(found.setting.unique())
        orders = []
        for a, b in permutations(names, 2):
            common = paired(found, a, b)
            if len(common) > 1:
                epsilon = almost_stochastic_order(common[a], common[b], confidence=0.999, seed=self.seed)
                one = {"PGE of": a, "above that of": b, "cases": len(common), "epsilon": epsilon}
                orders.append({**one, "at 0.01": epsilon <= 0.01})
        if orders:
            tables["almost stochastic order"] = pd.DataFrame(orders)
        return tables

    @staticmethod
    def classes(found: pd.DataFrame) -> pd.DataFrame:
        """PGA and PGE by class."""
        classes = []
        for (setting, label), group in by(found, ["setting", "label"]):
            one = {"setting": setting, "class": label, "cases": len(group), "PGA": group.hit.mean()}
            one |= {"mean PGE": group.energy.mean(), "sd PGE": group.energy.std(ddof=0)}
            classes.append({**one, "mean area": group.chance.mean()})
        return pd.DataFrame(classes)

    @staticmethod
    def row(group: pd.DataFrame) -> pd.Series:
        """PGA, PGE and chance of a group of cases."""
        values = {
            "cases": len(group),
            "PGA": group.hit.mean(),
            "median PGE": group.energy.median(),
            "mean PGE": group.energy.mean(),
            "PGE above 0.8": (group.energy > 0.8).mean(),
            "chance": group.chance.mean(),
            "mean error": group.error.mean(),
        }
        return pd.Series(values)

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Cumulative distributions of PGE, and classes side by side."""
        from secondsight.visual.charts import class_bars, distributions

        found = only(frame, "case")
        named = {setting: group.energy.to_numpy() for setting, group in by(found, "setting")}
        made = {"energy": distributions(named, "PGE: positive attribution in the box")}
        classes = self.classes(found)
        if classes["class"].nunique() > 1:
            made["classes"] = class_bars(classes, "mean PGE", "sd PGE")
        return made

    def gallery(self, frame: pd.DataFrame) -> list[Record]:
        """The best, the middle and the worst of each setting."""
        picked = []
        for _, group in by(only(frame, "case"), "setting"):
            ordered = group.sort_values(["energy", "key", "words"])
            n = len(ordered)
            places = sorted({n - 1, 3 * n // 4, n // 2, n // 4, 0} & set(range(n)), reverse=True)
            picked += [ordered.iloc[i].to_dict() for i in places]
        return picked


class Discrimination(Grounding):
    """Do phrases tell two objects of one image apart? Own-box and other-box attribution ([M25] Fig. 7)."""

    name: ClassVar[str] = "discrimination"

    def wants(self, example: GroundedCaption) -> bool:
        """Captions that name two classes."""
        return len({phrase.label for phrase in example.phrases if len(phrase.boxes) == 1}) > 1

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """Every ordered pair of phrases, each with its own box and the other's."""
        e, found, _ = self.judged(setting, example)
        made = []
        for one, other in permutations(found, 2):
            if one.phrase.label == other.phrase.label:
                continue
            made.append(
                {
                    "kind": "pair",
                    "label": one.phrase.label,
                    "other": other.phrase.label,
                    "own": box_sum(e, one.phrase.span, one.box),
                    "cross": box_sum(e, one.phrase.span, other.box),
                    "overlap": measures.overlap(other.box, one.box),
                }
            )
        return made

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Shares of signs, over all pairs and those whose boxes do not overlap."""
        rows = []
        for setting, group in by(frame, "setting"):
            for name, part in (("all", group), ("boxes apart", group[group.overlap == 0])):
                if len(part):
                    one = {"setting": setting, "pairs": name, "count": len(part), "own positive": (part.own > 0).mean()}
                    one |= {
                        "cross negative": (part.cross < 0).mean(),
                        "own above cross": (part.own > part.cross).mean(),
                    }
                    rows.append({**one, "mean own": part.own.mean(), "mean cross": part.cross.mean()})
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Distributions of own-box and other-box attribution."""
        from secondsight.visual.charts import histograms

        return {
            f"attribution {i}": histograms(
                {"own box": group.own.to_numpy(), "other object's box": group.cross.to_numpy()},
                "attribution of a phrase to a box",
                str(setting),
            )
            for i, (setting, group) in enumerate(by(frame, "setting"), 1)
        }


class HardNegatives(Experiment):
    """What a wrong word changes: δS of the similarity, δA of the attribution to the object's box ([M25] Fig. 8).

    Data without wrong captions gets its own: one object's name replaced by a plausible other's.
    """

    name: ClassVar[str] = "hard-negatives"

    def examples(self, data: GroundedDataset) -> Iterable[GroundedCaption]:
        """The data set's own negatives, or made ones."""
        listed = list(data)
        return listed if any(one.negatives for one in listed) else hard_negatives(listed, self.seed)

    def wants(self, example: GroundedCaption) -> bool:
        """Captions with wrong ones."""
        return bool(example.negatives)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record a wrong caption; δA only where the replaced phrase has one box."""
        right, *wrong = setting.explain(example, [example.caption, *(n.caption for n in example.negatives)])
        judged = cases(example, right.left_layout) if isinstance(right.left_layout, GridLayout) else []
        made = []
        for negative, other in zip(example.negatives, wrong, strict=True):
            record: Record = {
                "kind": negative.kind or "negative",
                "caption": negative.caption,
                "delta_similarity": other.similarity - right.similarity,
                "delta_attribution": None,
            }
            case = next((c for c in judged if _meets(c.phrase.span, negative.phrase)), None)
            if case is not None and negative.span is not None:
                try:
                    before = box_sum(right, case.phrase.span, case.box)
                    after = box_sum(other, negative.span, case.box)
                except InputError:
                    pass  # one of the phrases was cut off with the end of a long caption
                else:
                    record |= {"delta_attribution": after - before, "label": case.phrase.label}
            made.append(record)
        return made

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Shares of falling similarity and attribution, by kind of change."""
        rows = []
        for (setting, kind), group in [*by(frame, ["setting", "kind"])]:
            change = group.delta_attribution.astype(float).dropna()
            one = {"setting": setting, "kind": kind, "captions": len(group)}
            one |= {"δS negative": (group.delta_similarity < 0).mean(), "mean δS": group.delta_similarity.mean()}
            one |= {"with a box": len(change), "δA negative": (change < 0).mean() if len(change) else float("nan")}
            rows.append({**one, "mean δA": change.mean() if len(change) else float("nan")})
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Distributions of δS and δA."""
        from secondsight.visual.charts import histograms

        made = {}
        for i, (setting, group) in enumerate(by(frame, "setting"), 1):
            change = group.delta_attribution.astype(float).dropna().to_numpy()
            named = {"δS, similarity": group.delta_similarity.to_numpy()}
            if len(change):
                named["δA, attribution to the box"] = change
            made[f"change {i}"] = histograms(named, "wrong caption less right caption", str(setting))
        return made


def _meets(span: tuple[int, int], other: tuple[int, int] | None) -> bool:
    return other is not None and span[0] < other[1] and other[0] < span[1]


class Failures(Grounding):
    """Phrases with PGE below 0.2, and what probably went wrong, for a person to confirm ([M25] Fig. 9)."""

    name: ClassVar[str] = "failures"
    kinds: ClassVar[tuple[str, ...]] = ("misidentified", "spill over the box", "covered or partly visible",
                                        "correlated scene", "unusual")  # fmt: skip

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """Every case with its evidence, and of the failed ones the proposed category."""
        e, found, _ = self.judged(setting, example)
        made = []
        for case in found:
            record = {"kind": "case", **self.scored(e, case, example)}
            evidence = self.evidence(e, case, example)
            failed = record["energy"] < FAILED
            made.append({**record, **evidence, "category": propose(evidence) if failed else None})
        return made

    def evidence(self, e: Interactions, case: Case, example: GroundedCaption) -> dict[str, Any]:
        """Shares of positive attribution, and facts about the box, that categories are told from."""
        map_, layout = span_map(e, case.phrase.span)
        own = next((r for r in example.regions if r.label == case.phrase.label), None)
        others = [r for r in example.regions if r is not own]
        alike = [r.box for r in others if own is not None and r.group and r.group == own.group and r.label != own.label]
        other_boxes = [r.box for r in others if r.label != case.phrase.label]

        def share(boxes: list[Any]) -> float:
            return measures.energy(map_, boxes, layout.image_size, layout.frame, self.rule) if boxes else 0.0

        x0, y0, x1, y1 = case.box
        wide, high = 0.5 * (x1 - x0), 0.5 * (y1 - y0)
        around = (x0 - wide, y0 - high, x1 + wide, y1 + high)
        inner = share([case.box])
        whole = case.phrase.boxes[0]
        margin = 0.01 * max(layout.image_size)
        edge = whole[0] <= margin or whole[1] <= margin or whole[2] >= layout.image_size[0] - margin
        edge = edge or whole[3] >= layout.image_size[1] - margin
        covered = max((measures.overlap(case.box, box) for box in other_boxes), default=0.0)
        covered = max(covered, 1 - own.visible) if own is not None else covered
        peak = [b for b in alike if measures.pointing(map_, [b], layout.image_size, layout.frame, self.rule) > 0]
        return {
            "around": share([around]) - inner,
            "on_others": share(other_boxes),
            "on_alike": share(alike),
            "peak_on_alike": bool(peak),
            "covered": covered,
            "at_edge": bool(edge),
            "area": case.share,
            "positive": float(np.clip(map_, 0, None).sum()),
        }

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Counts by category, and every failure with its evidence."""
        rows = []
        for setting, group in by(frame, "setting"):
            failed = group[group.energy < FAILED]
            one: dict[str, Any] = {"setting": setting, "cases": len(group), "failures": len(failed)}
            rows.append(one | {kind: int((failed.category == kind).sum()) for kind in self.kinds})
        failed = frame[frame.energy < FAILED]
        evidence = ["around", "on_others", "on_alike", "covered", "at_edge", "area", "attribution"]
        listed = failed[["setting", "key", "label", "words", "energy", "category", *evidence]]
        return {"categories": pd.DataFrame(rows), "failures": listed.reset_index(drop=True)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Counts, and failures by likeness of their evidence."""
        from secondsight.visual.charts import clusters, stacked_counts

        failed = frame[frame.energy < FAILED]
        if not len(failed):
            return {}
        counts = self.tables(frame)["categories"].set_index("setting")[list(self.kinds)]
        made = {"categories": stacked_counts(counts)}
        evidence = failed[["around", "on_others", "on_alike", "covered", "area"]].to_numpy(float)
        if len(evidence) > 2:
            made["clusters"] = clusters(evidence, failed.category.tolist(), failed.words.tolist(), self.kinds)
        return made

    def gallery(self, frame: pd.DataFrame) -> list[Record]:
        """All failures, the clearest first; the report asks a person to confirm the category."""
        failed = frame[frame.energy < FAILED].sort_values(["setting", "energy", "key"])
        return [row.to_dict() for _, row in failed.head(60).iterrows()]


def propose(evidence: dict[str, Any]) -> str:
    """The category that the evidence speaks for, in this order of rules.

    Misidentified: the peak or a third of the attribution lies on another class of the same supercategory. Spill: over
    0.4 lies within half a box around it. Covered: another box covers 0.4 of the object, or it is cut by the image's edge
    and small. Correlated scene: there is positive attribution, and it lies elsewhere. Unusual: there is next to none.
    """
    if evidence["peak_on_alike"] or evidence["on_alike"] > 1 / 3:
        return "misidentified"
    if evidence["around"] > 0.4:
        return "spill over the box"
    if evidence["covered"] > 0.4 or (evidence["at_edge"] and evidence["area"] < 0.1):
        return "covered or partly visible"
    return "correlated scene" if evidence["positive"] > 0.01 else "unusual"


class Collage(Grounding):
    """Four images in one: is a phrase's attribution in the quadrant that shows it? (FIxLIP's game.)"""

    name: ClassVar[str] = "collage"

    def __init__(self, *, size: int = 448, **options: Any) -> None:
        super().__init__(**options)
        self.size = size
        self._others: list[GroundedCaption] = []

    def examples(self, data: GroundedDataset) -> Iterator[GroundedCaption]:
        """All captions; three images that show none of a caption's classes are drawn from the others."""
        self._others = list(data)
        return iter(self._others)

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record a phrase: the signed share of its quadrant, and whether the highest cell lies there."""
        chance = random.Random(f"{self.seed}/{example.image_key}/{example.key}")
        shown = {phrase.label for phrase in example.phrases}
        fitting = [
            o for o in self._others if o.image_key != example.image_key and not shown & {r.label for r in o.regions}
        ]
        distinct = {one.image_key: one for one in fitting}
        if len(distinct) < 3:
            raise InputError("a collage needs three other images without the caption's objects")
        chosen = chance.sample([distinct[key] for key in sorted(distinct)], 3)
        place = chance.randrange(4)
        tiles = [*chosen[:place], example, *chosen[place:]]
        picture, corners = collage([one.image for one in tiles], self.size)
        made = GroundedCaption(f"collage {example.key}", f"collage {example.key} {self.seed}", picture, example.caption)
        e = setting.explain(made)[0]
        records = []
        for phrase in example.phrases:
            try:
                map_, layout = span_map(e, phrase.span)
            except InputError:
                continue  # cut off with the end of a long caption
            about = ([corners[place]], layout.image_size, layout.frame)
            records.append(
                {
                    "kind": "case",
                    "label": phrase.label,
                    "words": example.words(phrase),
                    "share": measures.signed_share(map_, *about, "centre"),
                    "hit": measures.pointing(map_, *about, "centre"),
                    "energy": measures.energy(map_, *about, "centre"),
                }
            )
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Mean signed share and hits."""
        rows = []
        for setting, group in by(frame, "setting"):
            one = {"setting": setting, "phrases": len(group), "signed share": group["share"].mean()}
            rows.append({**one, "hits": group.hit.mean(), "mean PGE": group.energy.mean(), "chance": 0.25})
        return {"overall": pd.DataFrame(rows)}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Distributions of the signed share."""
        from secondsight.visual.charts import histograms

        named = {str(setting): group["share"].to_numpy() for setting, group in by(frame, "setting")}
        return {"share": histograms(named, "signed share of attribution in the right quadrant", "")}


def collage(images: list[Any], size: int) -> tuple[Image.Image, list[tuple[float, float, float, float]]]:
    """Four images as a square of `size` pixels a side, and the quadrants' boxes, row by row."""
    from secondsight.inputs.images import open_image

    half = size // 2
    picture = Image.new("RGB", (2 * half, 2 * half))
    corners = []
    for i, image in enumerate(images):
        tile = open_image(image).resize((half, half), Image.Resampling.BICUBIC)
        x, y = half * (i % 2), half * (i // 2)
        picture.paste(tile, (x, y))
        corners.append((float(x), float(y), float(x + half), float(y + half)))
    return picture, corners


def whole(rows: list[Any]) -> pd.DataFrame:
    """Rows as a table whose counts are whole numbers."""
    return pd.DataFrame(rows).astype({"cases": int})


def only(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The records of one kind."""
    return frame[frame["kind"] == kind]


def by(frame: pd.DataFrame, names: Any) -> Any:
    """Groups in the order of the records."""
    return frame.groupby(names, sort=False)


def paired(frame: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """PGE of two settings on the cases that both judged."""
    wide = frame.assign(case=frame["key"] + frame["words"] + frame["span"].astype(str))
    table = wide.pivot_table(index="case", columns="setting", values="energy", aggfunc="first", sort=False)
    return table[[a, b]].dropna()
