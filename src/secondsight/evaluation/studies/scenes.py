"""The paper's findings, looked for in the scenes' world, whose truth is known: one table that says what holds ([M25] §4).

Every finding is a sentence with a test of significance: Wilcoxon's signed ranks for paired scores, the sign test for
paired hits and for shares against a half, Fisher's exact test for two shares, Kruskal and Wallis' for classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

from secondsight.data.scenes import classes
from secondsight.data.scenes.dataset import FULLY
from secondsight.encoders.registry import load
from secondsight.evaluation.experiments.base import of_kind
from secondsight.evaluation.experiments.failures import FAILED
from secondsight.evaluation.run import Progress, Run
from secondsight.evaluation.studies.findings import LEVEL, Finding, as_table, higher, more_hits, mostly, write_findings
from secondsight.evaluation.studies.world import Tables, World, fine_tuned, on_common_cases, paired_values, scene_cases
from secondsight.methods import (
    Banzhaf,
    BilinearLime,
    IntegratedJacobian,
    JacobianTimesInput,
    Method,
    Occlusion,
    TokenEmbeddings,
)
from secondsight.support.errors import InputError

SMALL = 0.08
"""An object whose box is less than this share of the image counts as small."""

NODES = (1, 2, 4, 8, 16, 32)

OURS = "integrated-jacobian"
FIXLIP = "FIxLIP's least squares"
IN_PAPER = ("InteractionCAM", "ITSM-O", "ITSM-H", "ILIME")
"""The methods that [M25] compares with."""

TUNING = "[M25] Table 1b, Fig. 5"
NOT_IN_PAPER = "not in [M25]"

SWAPS = {"swap_relation": "relation", "swap_size": "size", "swap_place": "background"}

FACTS = {
    "covered": "another object covers the object",
    "small": "the object is small",
    "alike": "another object of its supercategory is there",
    "correlated": "other objects of its theme are there",
    "foreign": "the style is new",
}
"""What is true of a case, in words."""

ABOUT = (
    "The model {model} in the scenes' world, whose truth is known. A finding holds where its direction is as stated and p "
    f"lies below {LEVEL}."
)

Outcome = tuple[list[Finding], Tables]


def scenes_paper(
    out: str | os.PathLike[str],
    *,
    model: str = "scenes",
    share: float = 1.0,
    masks: int | None = None,
    nodes: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Run every experiment on the scenes' world and write findings.html, .csv, .json and .md under `out`.

    `model` is "scenes" or "scenes:WEIGHTS"; `share` scales the number of captions (1 takes under a quarter of an hour on
    two cores), `masks` is the number of masks of each input (None: every method's own), `nodes` that of the paths from
    earlier layers. Continues where it was stopped. Returns the findings as a table. Raises `InputError` for other models.
    """
    if model.partition(":")[0] != "scenes":
        raise InputError(f"'scenes-paper' needs the scenes model, not {model!r}: give scenes or scenes:WEIGHTS")
    if not 0 < share <= 10:
        raise InputError(f"share={share!r} must be above 0 and at most 10")
    world = World(load(model), model, Path(out), seed, share, masks, nodes, progress)
    findings: list[Finding] = []
    tables: Tables = {}
    for part in PARTS:
        part_findings, part_tables = part(world)
        findings += part_findings
        tables |= part_tables
    table = as_table(findings)
    write_findings(world.out, table, tables, model, "findings in the scenes' world", ABOUT.format(model=model))
    return table


def compare_methods(world: World) -> Outcome:
    """Table 1a, Fig. 4: methods on the same cases."""
    lime = BilinearLime() if world.masks is None else BilinearLime(samples=world.masks)
    methods: list[tuple[str, Method]] = [
        (OURS, IntegratedJacobian()),
        (f"{OURS}, layer {world.middle}", world.path((world.middle, -1))),
        ("InteractionCAM", JacobianTimesInput(pool_gradients=True, relu=True)),
        ("ITSM-O", TokenEmbeddings()),
        ("ITSM-H", TokenEmbeddings(hidden=True)),
        ("ILIME", lime),
        ("occlusion", Occlusion()),
        ("banzhaf", Banzhaf(budget=world.masks)),
    ]
    finished, tables = world.run("compare", "noto", methods, part="methods", folder="methods")
    findings = []
    for name, _ in methods[2:]:
        sentence = f"Integrated Jacobians (last layer) have more attribution in the box than {name}"
        source = "[M25] Table 1a, Fig. 4" if name in IN_PAPER else NOT_IN_PAPER
        findings.append(higher(sentence, source, "PGE", *paired_values(finished.frame, OURS, name)))
    return findings, {"methods on the same cases": tables["overall"]}


def compare_layers(world: World) -> Outcome:
    """Which depth of either side grounds best."""
    depth = world.model.left.encoder.depth
    # Each token embedding belongs to one word; tokens of later layers know of the words before them.
    depths = [*((k, -1) for k in range(depth)), *((k, 0) for k in range(depth // 2 - 1, depth))]
    finished, _ = world.run(
        "pointing", "noto", [(OURS, world.path())], part="layers", folder="layers", layers=depths, rule="centre"
    )
    by_layer = (
        of_kind(finished.frame, "case")
        .groupby("setting", sort=False)
        .agg(PGA=("hit", "mean"), **{"median PGE": ("energy", "median"), "cases": ("energy", "size")})
    )
    table = by_layer.reset_index(drop=True)
    table.insert(0, "image layer", [image for image, _ in depths])
    table.insert(1, "text layer", [text for _, text in depths])
    labels = [str(label) for label in by_layer.index]
    last, embeddings = (labels[depths.index((depth - 1, text))] for text in (-1, 0))
    best = str(by_layer.PGA[labels[:depth]].idxmax())
    points = f"An earlier image layer (here {labels.index(best)}) points better than the last"
    grounds = "Attribution to token embeddings is better grounded than to the text's last layer"
    findings = [
        more_hits(points, NOT_IN_PAPER, *paired_values(finished.frame, best, last, "hit")),
        higher(grounds, NOT_IN_PAPER, "PGE", *paired_values(finished.frame, embeddings, last)),
    ]
    return findings, {"layers (centre rule)": table}


def compare_domains(world: World) -> Outcome:
    """Grounding in and out of the domain, and after fine-tuning (Table 1b, Figs. 5 and 6)."""
    before, after, findings = {}, {}, []
    for style in ("noto", "twemoji", "fluent"):
        finished, _ = world.run("pointing", style, part="pointing", folder=f"domains/{style}")
        before[style] = scene_cases(finished.frame)
    for style in ("twemoji", "fluent"):
        a, b = on_common_cases(before["noto"], before[style])
        findings += [
            higher(f"Grounding is worse out of the domain ({style})", "[M25] §4.3", "PGE", a.energy, b.energy),
            more_hits(f"Pointing is worse out of the domain ({style})", "[M25] §4.3", a.hit, b.hit),
        ]
    models = [("before", world.model), ("after", fine_tuned(world))]
    for style in ("twemoji", "noto", "fluent"):
        finished, _ = world.run("compare", style, part="pointing", folder=f"fine-tuning/{style}", models=models)
        after[style] = scene_cases(finished.frame[finished.frame.setting == "after"])
    rows = [
        {
            "model": state,
            "style": style,
            "cases": len(cases),
            "PGA": cases.hit.mean(),
            "median PGE": cases.energy.median(),
            "chance": cases.chance.mean(),
        }
        for state, by_style in (("before", before), ("after fine-tuning on twemoji", after))
        for style, cases in by_style.items()
    ]
    findings += recovery(before, after)
    class_findings, class_tables = compare_classes(before, after)
    return findings + class_findings, {"domains and fine-tuning": pd.DataFrame(rows), **class_tables}


def recovery(before: Tables, after: Tables) -> list[Finding]:
    """How much of the grounding that the new style lost is won back by fine-tuning on it."""
    a, b = on_common_cases(after["twemoji"], before["twemoji"])
    raised_energy = higher("Fine-tuning raises PGE on the new style", TUNING, "PGE", a.energy, b.energy)
    raised_hits = more_hits("Fine-tuning raises PGA on the new style", TUNING, a.hit, b.hit)
    findings = [raised_energy, raised_hits]
    for measure, raised in (("median PGE", raised_energy), ("PGA", raised_hits)):
        start, end, home = (
            float(cases.energy.median() if measure == "median PGE" else cases.hit.mean())
            for cases in (before["twemoji"], after["twemoji"], before["noto"])
        )
        share = (end - start) / (home - start) if home > start else float("nan")
        observation = f"{start:.2f} to {end:.2f} of {home:.2f} in the domain: {share:.0%}"
        sentence = f"Fine-tuning recovers at least half of the lost {measure}"
        findings.append(Finding(sentence, "ours", observation, len(a), raised.p, share >= 0.5))
    return findings


def compare_classes(before: Tables, after: Tables) -> Outcome:
    """Fig. 6: classes differ, and those that were grounded badly gain most."""
    home = before["noto"]
    scores = [group.energy.to_numpy() for _, group in home.groupby("label") if len(group) > 2]
    p = float(stats.kruskal(*scores).pvalue) if len(scores) > 1 else 1.0
    means = home.groupby("label").energy.mean()
    observation = f"mean PGE by class from {means.min():.2f} to {means.max():.2f}"
    sentence = "Classes differ widely in how well they are grounded"
    differ = Finding(sentence, "[M25] Fig. 6", observation, len(home), p, True)

    a, b = on_common_cases(after["twemoji"], before["twemoji"])
    labels = b.label.to_numpy()
    gain = pd.Series(a.energy.to_numpy() - b.energy.to_numpy()).groupby(labels).mean()
    start = pd.Series(b.energy.to_numpy()).groupby(labels).mean()
    table = pd.DataFrame({"mean PGE before": start, "gain": gain, "cases": b.groupby("label").size()})
    table = table.sort_values("gain", ascending=False).rename_axis("class").reset_index()
    test = stats.spearmanr(start, gain) if len(start) > 3 else None
    rank, p = (float(test.statistic), float(test.pvalue)) if test is not None else (float("nan"), 1.0)
    observation = f"rank correlation of PGE before with gain {rank:+.2f}"
    sentence = "Classes that were grounded badly gain most from fine-tuning"
    return [differ, Finding(sentence, "[M25] Fig. 6", observation, len(start), p, rank < 0)], {"classes by gain": table}


def tell_objects_apart(world: World) -> Outcome:
    """Fig. 7: own-box and cross-attribution."""
    finished, tables = world.run("discrimination", "noto", part="pairs", folder="discrimination")
    pairs = finished.frame
    apart = pairs[pairs.overlap == 0]
    findings = [
        mostly("A phrase's attribution to its own object is positive", "[M25] Fig. 7 (94.1 %)", pairs.own > 0),
        mostly("Its attribution to another object is negative", "[M25] Fig. 7 (68.4 %)", apart.cross < 0),
    ]
    return findings, {"two objects": tables["overall"]}


def compare_wrong_captions(world: World) -> Outcome:
    """Fig. 8: hard negatives."""
    finished, tables = world.run("hard-negatives", "noto", part="pairs", folder="hard-negatives")
    negatives = finished.frame
    replaced = of_kind(negatives, "replace_object")
    change = replaced.delta_attribution.astype(float).dropna()
    source = "[M25] Fig. 8 (95.2 %)"
    findings = [
        mostly("Replacing an object in the caption lowers the similarity", source, replaced.delta_similarity < 0),
        mostly("It lowers the attribution to the object's box", source, change < 0),
    ]
    for kind, words in SWAPS.items():
        swapped = of_kind(negatives, kind)
        if len(swapped):
            sentence = f"A wrong {words} lowers the similarity"
            findings.append(mostly(sentence, NOT_IN_PAPER, swapped.delta_similarity < 0))
    return findings, {"hard negatives": tables["overall"]}


def explain_failures(world: World) -> Outcome:
    """Fig. 9, with what is true of every case instead of a person's judgement."""
    tables: Tables = {}
    by_style = []
    for style in ("noto", "twemoji"):
        finished, own_tables = world.run("failures", style, part="pointing", folder=f"failures/{style}")
        by_style.append(case_facts(finished))
        tables[f"failures by proposed category ({style})"] = own_tables["categories"]
    cases = pd.concat(by_style, ignore_index=True)
    findings, rows = [], []
    for fact, words in FACTS.items():
        yes, no = cases[cases[fact]].failed, cases[~cases[fact]].failed
        if not len(yes) or not len(no):
            continue
        p = float(stats.fisher_exact([[int(part.sum()), int((~part).sum())] for part in (yes, no)]).pvalue)
        share, elsewhere = float(yes.mean()), float(no.mean())
        rows.append(
            {"cases where": words, "count": len(yes), "failures": share, "failures elsewhere": elsewhere, "p": p}
        )
        observation = f"{share:.0%} of {len(yes)} against {elsewhere:.0%} of {len(no)} cases"
        sentence = f"Grounding fails more often where {words}"
        findings.append(Finding(sentence, "[M25] Fig. 9", observation, len(cases), p, share > elsewhere))
    tables["failures by what is true (noto and twemoji)"] = pd.DataFrame(rows)
    return findings, tables


def case_facts(finished: Run) -> pd.DataFrame:
    """What the generator of the scenes knows of every case."""
    rows = []
    for case in finished.frame.to_dict("records"):
        example = finished.examples[case["key"]]
        target = next(region for region in example.regions if region.label == case["label"])
        different = [region for region in example.regions if region.label != case["label"]]
        theme = example.facts["theme"]
        rows.append(
            {
                "failed": case["energy"] < FAILED,
                "covered": target.visible < FULLY,
                "small": case["chance"] < SMALL,
                "alike": any(region.group == target.group for region in different),
                "correlated": bool(theme) and any(theme in classes()[r.label].themes for r in different),
                "foreign": not example.image_key.startswith("noto"),
            }
        )
    return pd.DataFrame(rows)


def compare_paths(world: World) -> Outcome:
    """Figs. 20 and 21: nodes and references."""
    methods = [(OURS, IntegratedJacobian())]
    quadratures = ("riemann", "gauss-legendre")
    finished, approximation = world.run(
        "approximation", "noto", methods, part="paths", folder="paths", nodes=NODES, quadratures=quadratures
    )
    usual = of_kind(finished.frame, "error").query("references == 'black, padding'")

    def errors(quadrature: str, nodes: int) -> pd.Series:
        return usual[(usual.quadrature == quadrature) & (usual.nodes == nodes)].value

    few, many = errors("riemann", 2), errors("riemann", 32)
    riemann, gauss = errors("riemann", 8), errors("gauss-legendre", 8)
    falls = "The error of the sums falls with the number of nodes (2 to 32)"
    exact = "Gauss's nodes are more exact than Riemann's, at eight nodes"
    finished, references = world.run("references", "noto", part="references", folder="references")
    similar = finished.frame.correlation.dropna() > 0.5
    findings = [
        higher(falls, "[M25] Fig. 20", "error", few, many),
        higher(exact, NOT_IN_PAPER, "error", riemann, gauss),
        mostly("Maps under two references correlate by more than 0.5", "[M25] Fig. 21", similar),
    ]
    tables = {
        "error over nodes (last layer)": approximation["overall"],
        "difference of attributions under two pairs of references": approximation["differences"],
        "maps under two references": references["overall"],
    }
    return findings, tables


def compare_masks(world: World) -> Outcome:
    """Faithfulness under masks and collages, against FIxLIP's game."""
    methods: list[tuple[str, Method]] = [
        (OURS, IntegratedJacobian()),
        (f"{OURS}, layer {world.middle}", world.path((world.middle, -1))),
        ("banzhaf", Banzhaf(budget=world.masks)),
        (FIXLIP, Banzhaf(budget=world.masks, prior=False, smooth=False, ridge=0.0, antithetic=False)),
    ]
    options: dict[str, Any] = {} if world.masks is None else {"masks": world.masks}
    finished, faithfulness = world.run("faithfulness", "noto", methods, part="masks", folder="faithfulness", **options)
    findings = []
    for name in (OURS, FIXLIP):
        sentence = f"Our mask regression predicts masked similarities better than {name}"
        values = paired_values(finished.frame, "banzhaf", name, "correlation")
        findings.append(higher(sentence, "ours", "correlation", *values))
    _, collages = world.run("collage", "noto", methods, part="masks", folder="collage", size=192)
    return findings, {"faithfulness": faithfulness["overall"], "collages": collages["overall"]}


PARTS: tuple[Callable[[World], Outcome], ...] = (
    compare_methods,
    compare_layers,
    compare_domains,
    tell_objects_apart,
    compare_wrong_captions,
    explain_failures,
    compare_paths,
    compare_masks,
)
