"""The paper's findings, looked for in the scenes' world, whose truth is known: one table that says what holds ([M25] §4).

Every finding is a sentence with a test of significance: Wilcoxon's signed ranks for paired scores, the sign test for
paired hits and for shares against a half, Fisher's exact test for two shares, Kruskal and Wallis' for classes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from secondsight.data.scenes import Scenes, classes
from secondsight.data.scenes.dataset import FULLY
from secondsight.encoders.registry import load
from secondsight.evaluation.grounding import FAILED
from secondsight.evaluation.report import overview, shown_value, with_names, write
from secondsight.evaluation.run import EXPERIMENTS, Run, run
from secondsight.methods import (
    Banzhaf,
    BilinearLime,
    IntegratedJacobian,
    JacobianTimesInput,
    Method,
    Occlusion,
    TokenEmbeddings,
)
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import atomic

LEVEL = 0.001
"""A finding holds where its direction is the paper's and p lies below this."""

SMALL = 0.08
"""An object whose box is less than this share of the image counts as small."""

SIZES = {
    "methods": 24,
    "pointing": 300,
    "layers": 24,
    "pairs": 300,
    "paths": 12,
    "masks": 12,
    "references": 60,
    "train": 6144,
}
"""Captions that each part looks at, and scenes that fine-tuning sees."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Finding:
    """A sentence, where it comes from, what we see here in words, the test's p, and whether it holds."""

    finding: str
    source: str
    here: str
    cases: int
    p: float
    holds: bool

    @property
    def verdict(self) -> str:
        """yes, no (significantly something else), or unclear."""
        return "yes" if self.holds else "no" if self.p < LEVEL else "unclear"


@dataclass
class World:
    """Where things are written, the model under test, and how much is looked at."""

    out: Path
    seed: int
    share: float
    progress: Progress | None

    def size(self, part: str) -> int:
        """How many captions a part looks at."""
        return max(round(SIZES[part] * self.share), 4)

    def run(
        self,
        name: str,
        style: str,
        models: Sequence[tuple[str, DualEncoder]],
        methods: Sequence[tuple[str, Method]] = (),
        *,
        part: str,
        place: str,
        layers: Sequence[Any] = (),
        **options: Any,
    ) -> tuple[Run, dict[str, pd.DataFrame]]:
        """One experiment on scenes of one style and its tables; its report is written."""
        from secondsight.evaluation import settings

        limit = self.size(part)
        # Some captions cannot be judged, so there are more scenes than are looked at.
        data = Scenes(3 * limit, style=style, seed=self.seed)
        chosen = settings(models, methods, layers)
        folder = self.out / place
        for one in chosen:
            one.cache = self.out / "pairs"
        made = run(
            EXPERIMENTS[name](seed=self.seed, **options), data, chosen, folder, limit=limit, progress=self.progress
        )
        return made, write(made, folder)


def scenes_paper(
    out: str | os.PathLike[str],
    *,
    model: str = "scenes",
    share: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Run every experiment on the scenes' world and write findings.html, .csv, .json and .md under `out`.

    `model` is "scenes" or "scenes:WEIGHTS"; `share` scales how much is looked at (1 takes under a quarter of an hour on
    two cores). Goes on where it was stopped. Returns the findings as a table. Raises `InputError` for other models.
    """
    if model.partition(":")[0] != "scenes":
        raise InputError(f"'scenes-paper' looks into the scenes model, not {model!r}: give scenes or scenes:WEIGHTS")
    if not 0 < share <= 10:
        raise InputError(f"share={share!r} must lie above 0 and not above 10")
    place = Path(out)
    world = World(place, seed, share, progress)
    original = load(model)
    found: list[Finding] = []
    tables: dict[str, pd.DataFrame] = {}
    for part in (_methods, _layers, _domains, _objects, _negatives, _failures, _paths, _masks):
        part(world, original, model, found, tables)
    listed = pd.DataFrame(
        [
            {"finding": f.finding, "source": f.source, "here": f.here, "cases": f.cases, "p": f.p, "holds": f.verdict}
            for f in found
        ]
    )
    _written(place, listed, tables, model)
    return listed


# --- parts -------------------------------------------------------------------------------------------------------------


def _methods(
    world: World, model: DualEncoder, name: str, found: list[Finding], tables: dict[str, pd.DataFrame]
) -> None:
    """Table 1a, Fig. 4: methods on the same cases."""
    middle = model.left.encoder.depth // 2
    methods: list[tuple[str, Method]] = [
        (OURS, IntegratedJacobian()),
        (f"integrated-jacobian, layer {middle}", replace(PATH, layer=(middle, -1))),
        ("InteractionCAM", JacobianTimesInput(pool_gradients=True, relu=True)),
        ("ITSM-O", TokenEmbeddings()),
        ("ITSM-H", TokenEmbeddings(hidden=True)),
        ("ILIME", BilinearLime()),
        ("occlusion", Occlusion()),
        ("banzhaf", Banzhaf()),
    ]
    made, own = world.run("compare", "noto", [(name, model)], methods, part="methods", place="methods")
    tables["methods on the same cases"] = own["overall"]
    for other, _ in methods[2:]:
        published = other in ("InteractionCAM", "ITSM-O", "ITSM-H", "ILIME")
        a, b = _paired(made.frame, OURS, other)
        found.append(
            _higher(
                f"Integrated Jacobians (last layer) have more attribution in the box than {other}",
                "[M25] Table 1a, Fig. 4" if published else "not in [M25]",
                "PGE",
                a,
                b,
            )
        )


OURS = "integrated-jacobian"

TUNING = "[M25] Table 1b, Fig. 5"

PATH = IntegratedJacobian(steps=8)
"""For earlier layers, which have no closed form: eight nodes, whatever error they leave."""


def _layers(world: World, model: DualEncoder, name: str, found: list[Finding], tables: dict[str, pd.DataFrame]) -> None:
    """Which depth of either side grounds best."""
    depth = model.left.encoder.depth
    # Token embeddings are each one word's own; later layers' tokens know of the words before them.
    depths = [*((k, -1) for k in range(depth)), *((k, 0) for k in range(depth // 2 - 1, depth))]
    made, _ = world.run(
        "pointing",
        "noto",
        [(name, model)],
        [(OURS, PATH)],
        part="layers",
        place="layers",
        layers=depths,
        rule="centre",
    )
    cases = made.frame[made.frame.kind == "case"]
    by_layer = cases.groupby("setting", sort=False).agg(
        PGA=("hit", "mean"), **{"median PGE": ("energy", "median"), "cases": ("energy", "size")}
    )
    table = by_layer.reset_index(drop=True)
    table.insert(0, "image layer", [image for image, _ in depths])
    table.insert(1, "text layer", [text for _, text in depths])
    tables["layers (centre rule)"] = table
    labels = [str(label) for label in by_layer.index]
    last = labels[depths.index((depth - 1, -1))]
    best = str(by_layer.PGA[labels[:depth]].idxmax())
    a, b = _paired(made.frame, best, last, "hit")
    about = f"An earlier image layer (here {labels.index(best)}) points better than the last"
    found.append(_hits(about, "not in [M25]", a, b))
    a, b = _paired(made.frame, labels[depths.index((depth - 1, 0))], last)
    about = "Attribution to token embeddings is better grounded than to the text's last layer"
    found.append(_higher(about, "not in [M25]", "PGE", a, b))


def _domains(
    world: World, model: DualEncoder, name: str, found: list[Finding], tables: dict[str, pd.DataFrame]
) -> None:
    """Grounding in and out of the domain, and what fine-tuning repairs (Table 1b, Figs. 5 and 6)."""
    frames = {}
    for style in ("noto", "twemoji", "fluent"):
        made, _ = world.run("pointing", style, [(name, model)], part="pointing", place=f"domains/{style}")
        frames[style] = _cases(made.frame)
    for style in ("twemoji", "fluent"):
        a, b = _common(frames["noto"], frames[style])
        found.append(
            _higher(f"Grounding is worse out of the domain ({style})", "[M25] §4.3", "PGE", a.energy, b.energy)
        )
        found.append(_hits(f"Pointing is worse out of the domain ({style})", "[M25] §4.3", a.hit, b.hit))
    tuned = _tuned(world, name)
    after = {}
    for style in ("twemoji", "noto", "fluent"):
        made, _ = world.run(
            "compare", style, [("before", model), ("after", tuned)], part="pointing", place=f"fine-tuning/{style}"
        )
        after[style] = _cases(made.frame[made.frame.setting == "after"])
    rows = []
    for state, some in (("before", frames), ("after fine-tuning on twemoji", after)):
        for style, cases in some.items():
            one = {"model": state, "style": style, "cases": len(cases), "PGA": cases.hit.mean()}
            rows.append({**one, "median PGE": cases.energy.median(), "chance": cases.chance.mean()})
    tables["domains and fine-tuning"] = pd.DataFrame(rows)
    a, b = _common(after["twemoji"], frames["twemoji"])
    raised = {
        "median PGE": _higher("Fine-tuning raises PGE on the new style", TUNING, "PGE", a.energy, b.energy),
        "PGA": _hits("Fine-tuning raises PGA on the new style", TUNING, a.hit, b.hit),
    }
    found += raised.values()
    three = frames["twemoji"], after["twemoji"], frames["noto"]
    for measure, values in (("median PGE", [x.energy.median() for x in three]), ("PGA", [x.hit.mean() for x in three])):
        before, now, home = map(float, values)
        part = (now - before) / (home - before) if home > before else float("nan")
        p = raised[measure].p
        here = f"{before:.2f} to {now:.2f} of {home:.2f} in the domain: {part:.0%}"
        about = f"Fine-tuning recovers at least half of the lost {measure}"
        found.append(Finding(about, "ours", here, len(a), p, part >= 0.5 and p < LEVEL))
    _classes(frames["noto"], a, b, found, tables)


def _classes(
    home: pd.DataFrame, after: pd.DataFrame, before: pd.DataFrame, found: list[Finding], tables: dict[str, pd.DataFrame]
) -> None:
    """Fig. 6: classes differ, and those that were bad gain most."""
    groups = [g.energy.to_numpy() for _, g in home.groupby("label") if len(g) > 2]
    p = float(stats.kruskal(*groups).pvalue) if len(groups) > 1 else 1.0
    means = home.groupby("label").energy.mean()
    found.append(
        Finding(
            "Classes differ widely in how well they are grounded",
            "[M25] Fig. 6",
            f"mean PGE by class from {means.min():.2f} to {means.max():.2f}",
            len(home),
            p,
            p < LEVEL,
        )
    )
    labels = before.label.to_numpy()
    gain = pd.Series(after.energy.to_numpy() - before.energy.to_numpy()).groupby(labels).mean()
    start = pd.Series(before.energy.to_numpy()).groupby(labels).mean()
    tables["classes by gain"] = (
        pd.DataFrame({"mean PGE before": start, "gain": gain, "cases": before.groupby("label").size()})
        .sort_values("gain", ascending=False)
        .rename_axis("class")
        .reset_index()
    )
    test = stats.spearmanr(start, gain) if len(start) > 3 else None
    rank, p = (float(test.statistic), float(test.pvalue)) if test is not None else (float("nan"), 1.0)
    found.append(
        Finding(
            "Classes that were grounded badly gain most from fine-tuning",
            "[M25] Fig. 6",
            f"rank correlation of PGE before with gain {rank:+.2f}",
            len(start),
            p,
            rank < 0 and p < LEVEL,
        )
    )


def _objects(
    world: World, model: DualEncoder, name: str, found: list[Finding], tables: dict[str, pd.DataFrame]
) -> None:
    """Fig. 7: own-box and cross-attribution."""
    made, own = world.run("discrimination", "noto", [(name, model)], part="pairs", place="discrimination")
    pairs = made.frame
    tables["two objects"] = own["overall"]
    found.append(
        _mostly("A phrase's attribution to its own object is positive", "[M25] Fig. 7 (94.1 %)", pairs.own > 0)
    )
    apart = pairs[pairs.overlap == 0]
    found.append(_mostly("Its attribution to another object is negative", "[M25] Fig. 7 (68.4 %)", apart.cross < 0))


def _negatives(
    world: World, model: DualEncoder, name: str, found: list[Finding], tables: dict[str, pd.DataFrame]
) -> None:
    """Fig. 8: hard negatives."""
    made, own = world.run("hard-negatives", "noto", [(name, model)], part="pairs", place="hard-negatives")
    frame = made.frame
    tables["hard negatives"] = own["overall"]
    wrong = frame[frame.kind == "replace_object"]
    change = wrong.delta_attribution.astype(float).dropna()
    found.append(
        _mostly(
            "Replacing an object in the caption lowers the similarity",
            "[M25] Fig. 8 (95.2 %)",
            wrong.delta_similarity < 0,
        )
    )
    found.append(_mostly("It lowers the attribution to the object's box", "[M25] Fig. 8 (95.2 %)", change < 0))
    for kind, about in (("swap_relation", "relation"), ("swap_size", "size"), ("swap_place", "background")):
        part = frame[frame.kind == kind]
        if len(part):
            found.append(_mostly(f"A wrong {about} lowers the similarity", "not in [M25]", part.delta_similarity < 0))


def _failures(
    world: World, model: DualEncoder, name: str, found: list[Finding], tables: dict[str, pd.DataFrame]
) -> None:
    """Fig. 9, with what is true of every case instead of a person's judgement."""
    truths: dict[str, pd.DataFrame] = {}
    for style in ("noto", "twemoji"):
        made, own = world.run("failures", style, [(name, model)], part="pointing", place=f"failures/{style}")
        truths[style] = _truths(made)
        tables[f"failures by proposed category ({style})"] = own["categories"]
    both = pd.concat(truths.values(), ignore_index=True)
    rows = []
    for fact, about in FACTS.items():
        with_it, without = both[both[fact]], both[~both[fact]]
        if not len(with_it) or not len(without):
            continue
        shares = [float(part.failed.mean()) for part in (with_it, without)]
        counts = [[int(part.failed.sum()), int((~part.failed).sum())] for part in (with_it, without)]
        p = float(stats.fisher_exact(counts).pvalue)
        rows.append(
            {
                "cases where": about,
                "count": len(with_it),
                "failures": shares[0],
                "failures elsewhere": shares[1],
                "p": p,
            }
        )
        found.append(
            Finding(
                f"Grounding fails more often where {about}",
                "[M25] Fig. 9",
                f"{shares[0]:.0%} of {len(with_it)} against {shares[1]:.0%} of {len(without)} cases",
                len(both),
                p,
                shares[0] > shares[1] and p < LEVEL,
            )
        )
    tables["failures by what is true (noto and twemoji)"] = pd.DataFrame(rows)


FACTS = {
    "covered": "another object covers the object",
    "small": "the object is small",
    "alike": "another object of its supercategory is there",
    "correlated": "other objects of its theme are there",
    "foreign": "the style is new",
}


def _truths(made: Run) -> pd.DataFrame:
    """What the generator knows of every case."""
    rows = []
    for case in made.frame.to_dict("records"):
        example = made.examples[case["key"]]
        label = case["label"]
        own = next(r for r in example.regions if r.label == label)
        others = [r for r in example.regions if r.label != label]
        theme = example.facts["theme"]
        rows.append(
            {
                "failed": case["energy"] < FAILED,
                "covered": own.visible < FULLY,
                "small": case["chance"] < SMALL,
                "alike": any(r.group == own.group for r in others),
                "correlated": bool(theme) and any(theme in classes()[r.label].themes for r in others),
                "foreign": not example.image_key.startswith("noto"),
            }
        )
    return pd.DataFrame(rows)


def _paths(world: World, model: DualEncoder, name: str, found: list[Finding], tables: dict[str, pd.DataFrame]) -> None:
    """Figs. 20 and 21: nodes and references."""
    method = [(OURS, IntegratedJacobian())]
    nodes = (1, 2, 4, 8, 16, 32)
    made, own = world.run("approximation", "noto", [(name, model)], method, part="paths", place="paths", nodes=nodes)
    tables["relative residual over nodes (last layer)"] = own["overall"]
    image = made.frame[made.frame.kind == "image"]
    rule = {q: image[(image.quadrature == q)] for q in ("riemann", "gauss-legendre")}
    many = [rule["riemann"][rule["riemann"].nodes == n].residual for n in (2, 32)]
    found.append(
        _higher("The error of the sums falls with the number of nodes (2 to 32)", "[M25] Fig. 20", "residual", *many)
    )
    same = [rule[q][rule[q].nodes == 8].residual for q in rule]
    found.append(
        _higher("Gauss's nodes are more exact than Riemann's, at eight nodes", "not in [M25]", "residual", *same)
    )
    made, own = world.run("references", "noto", [(name, model)], part="references", place="references")
    tables["maps under two references"] = own["overall"]
    values = made.frame.correlation.dropna()
    found.append(_mostly("Maps under two references correlate by more than 0.5", "[M25] Fig. 21", values > 0.5))


def _masks(world: World, model: DualEncoder, name: str, found: list[Finding], tables: dict[str, pd.DataFrame]) -> None:
    """Faithfulness under masks and collages, against FIxLIP's game."""
    methods: list[tuple[str, Method]] = [
        (OURS, IntegratedJacobian()),
        (f"integrated-jacobian, layer {model.left.encoder.depth // 2}",
         replace(PATH, layer=(model.left.encoder.depth // 2, -1))),
        ("banzhaf", Banzhaf()),
        ("FIxLIP's least squares", Banzhaf(prior=False, smooth=False, ridge=0.0)),
    ]  # fmt: skip
    made, own = world.run("faithfulness", "noto", [(name, model)], methods, part="masks", place="faithfulness")
    tables["faithfulness"] = own["overall"]
    for other in (OURS, "FIxLIP's least squares"):
        a, b = _paired(made.frame, "banzhaf", other, "correlation")
        found.append(
            _higher(
                f"Our mask regression predicts masked similarities better than {other}", "ours", "correlation", a, b
            )
        )
    made, own = world.run("collage", "noto", [(name, model)], methods, part="masks", place="collage", size=192)
    tables["collages"] = own["overall"]


# --- tests ---------------------------------------------------------------------------------------------------------------


def _higher(finding: str, source: str, measure: str, a: Any, b: Any) -> Finding:
    """Whether paired scores `a` lie above `b`; Wilcoxon's signed ranks, two-sided."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    moved = bool(np.any(a != b))
    p = float(stats.wilcoxon(a, b).pvalue) if len(a) > 5 and moved else 1.0
    up = float(np.median(a - b)) > 0 or (float(np.median(a - b)) == 0 and float(np.mean(a - b)) > 0)
    here = f"median {measure} {shown_value(float(np.median(a)))} against {shown_value(float(np.median(b)))}"
    return Finding(finding, source, here, len(a), p, up and p < LEVEL)


def _hits(finding: str, source: str, a: Any, b: Any) -> Finding:
    """Whether paired hits `a` are more than `b`; the sign test on the cases that differ."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    up, down = int((a > b).sum()), int((a < b).sum())
    p = float(stats.binomtest(up, up + down).pvalue) if up + down else 1.0
    return Finding(finding, source, f"PGA {a.mean():.3f} against {b.mean():.3f}", len(a), p, up > down and p < LEVEL)


def _mostly(finding: str, source: str, which: Any) -> Finding:
    """Whether something is true of more than half of the cases; binomial test."""
    yes = np.asarray(which, bool)
    p = float(stats.binomtest(int(yes.sum()), len(yes)).pvalue) if len(yes) else 1.0
    share = float(yes.mean()) if len(yes) else float("nan")
    return Finding(finding, source, f"{share:.1%} of the cases", len(yes), p, share > 0.5 and p < LEVEL)


def _cases(frame: pd.DataFrame) -> pd.DataFrame:
    """Cases with a name that is the same in every style: scenes of one seed differ in their drawings alone."""
    cases = frame[frame.kind == "case"].copy()
    number = cases.key.str.extract(r"-(\d+/\d+-\d+)$")[0]
    return cases.assign(case=number + " " + cases.words + " " + cases.span.map(str)).set_index("case")


def _common(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    both = a.index.intersection(b.index)
    return a.loc[both], b.loc[both]


def _paired(frame: pd.DataFrame, one: str, other: str, value: str = "energy") -> tuple[Any, Any]:
    """Values of two settings on the cases that both have."""
    cases = frame[frame[value].notna()]
    named = cases.assign(case=cases.key + (" " + cases.span.map(str) if "span" in cases else ""))
    wide = named.pivot_table(index="case", columns="setting", values=value, sort=False)
    found = wide.dropna(subset=[one, other])
    return found[one], found[other]


def _tuned(world: World, name: str) -> DualEncoder:
    """The model after fine-tuning on the new style, in scenes of another seed."""
    from secondsight.training import Recipe, finetune, tuned_name

    count = max(world.size("train"), 64)
    data = Scenes(count, style="twemoji", seed=world.seed + 1_000_003)
    recipe = Recipe(epochs=2, batch=32, lr=8e-4, start_lr=8e-6, warm_up=20, seed=world.seed, final_lr=0.0)
    tell = world.progress
    final = finetune(
        name, data, world.out / "tuned", recipe, progress=(lambda i, n, _: tell("fine-tuning", i, n)) if tell else None
    )
    return load(tuned_name(name, final))


# --- what is left behind ---------------------------------------------------------------------------------------------------


def _written(place: Path, found: pd.DataFrame, tables: dict[str, pd.DataFrame], model: str) -> None:
    with atomic(place / "findings.csv") as file:
        file.write(found.to_csv(index=False).encode())
    kept = {"model": model, "findings": found.to_dict("records")}
    kept["tables"] = {k: json.loads(with_names(t).to_json(orient="records")) for k, t in tables.items()}
    with atomic(place / "findings.json") as file:
        file.write(json.dumps(kept, indent=1, ensure_ascii=False).encode())
    parts = [f"## {title.capitalize()}\n\n{markdown(table)}" for title, table in {"findings": found, **tables}.items()]
    with atomic(place / "findings.md") as file:
        file.write("\n".join(parts).encode())
    about = (
        f"The model {model} in the scenes' world, whose truth is known. A finding holds where its direction is as stated "
        f"and p lies below {LEVEL}."
    )
    with atomic(place / "findings.html") as file:
        file.write(overview("findings in the scenes' world", about, {"findings": found, **tables}, place).encode())


def markdown(table: pd.DataFrame) -> str:
    """A table as GitHub shows it."""
    shown = with_names(table)
    rows = [[str(c).replace("|", "\\|") for c in shown.columns], ["---"] * len(shown.columns)]
    rows += [[shown_value(v).replace("|", "\\|") for v in row] for row in shown.itertuples(index=False)]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
