"""A gate's report: what moved, with both models' maps of the pairs that show it, and a summary for a pull request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from secondsight.answers.gate.cases import Cases
from secondsight.answers.gate.compare import Comparison
from secondsight.answers.gate.moves import Move, by_group
from secondsight.answers.gate.summary import SINGULAR, summarise, title_of
from secondsight.answers.report import Answer, Claim, Section, write_answer
from secondsight.answers.wording import p_text
from secondsight.evaluation.report import write_bytes
from secondsight.evaluation.statistics import bootstrap_interval

EXAMPLES = 3
"""Pairs that a claim shows, each once with either model."""

ABOUT = (
    "A pair's advantage is its similarity less what its image and its caption have with everything else, in spreads: "
    "standard deviations of the same quantity over the wrong pairs. Of two pictures, the first is the map of the model "
    "before, the second of the one after; words are coloured by what each carries of the advantage."
)


@dataclass(frozen=True, eq=False)
class Gate:
    """The outcome: whether the gate `passed`, every test in `moves`, conspicuous `pairs`, a short `summary` in Markdown.

    `answer` has the report's claims and tables.
    """

    passed: bool
    moves: pd.DataFrame
    pairs: pd.DataFrame
    summary: str
    answer: Answer


def report(compared: Comparison, out: Path, command: str) -> Gate:
    """Write report.html, summary.md and the tables, and return the outcome."""
    moves, pairs = moves_table(compared), pairs_table(compared)
    overall = overall_table(compared)
    cases = Cases(compared)
    summary = summarise(compared, overall, cases, command)
    sections = [
        _overview(compared, overall),
        _moved(compared, cases, "worse"),
        _moved(compared, cases, "better"),
        _single_pairs(compared, cases, pairs),
        Section(
            "Every test",
            f"The null hypothesis of a test is that the mean change lies within ± {compared.tolerance:g} spreads; p values "
            "of all tests together (Holm). “Carried” is what the subject's own words carry of the advantage; other words and "
            "special tokens carry the rest. Subjects with too few images to ever be significant are not tested.",
            tables={"tests": moves},
            nothing="",
        ),
    ]
    facts = {
        "before": compared.names[0],
        "after": compared.names[1],
        "pairs": f"{len(compared.collections[0])} of {compared.images} images",
        "method": compared.collections[0].images.facts["method"]["name"],
        "alpha": f"{compared.alpha:g}: the chance of any false alarm among all tests is at most this",
        "tolerance": f"{compared.tolerance:g} spreads",
        "fails on": ", ".join(compared.fail_on),
        "reproduce": command or "secondsight.answers.gate",
    }
    answer = write_answer(out, title_of(compared), ABOUT, sections, facts, compared.problems)
    write_bytes(answer.out / "summary.md", summary.encode())
    return Gate(compared.passed, moves, pairs, summary, answer)


def moves_table(compared: Comparison) -> pd.DataFrame:
    """Every test, worst first."""
    rows = [
        {
            "of": move.subject.kind,
            "name": move.subject.name,
            "images": move.images,
            "before": move.before,
            "after": move.after,
            "change": move.change,
            "carried before": move.carried[0],
            "carried after": move.carried[1],
            "p": move.p,
            "p (Holm)": move.adjusted,
            "verdict": move.explained or (move.verdict(compared.alpha) if move.tested else "too few"),
        }
        for move in compared.moves
    ]
    order = {"worse": 0, "better": 1, "same": 3, "too few": 4}
    return pd.DataFrame(sorted(rows, key=lambda row: (order.get(str(row["verdict"]), 2), row["change"])))


def pairs_table(compared: Comparison) -> pd.DataFrame:
    """The conspicuous pairs, the largest fall first."""
    before, after = compared.advantages
    columns = ["image", "caption", "before", "after", "change", "first caption", "first image"]
    rows = [
        {
            "image": compared.collections[0].pairs[number][0],
            "caption": before.captions[number],
            "before": before.total[number],
            "after": after.total[number],
            "change": compared.change[number],
            "first caption": _rank_change(before.first_caption[number], after.first_caption[number]),
            "first image": _rank_change(before.first_image[number], after.first_image[number]),
        }
        for number in compared.pairs
    ]
    return pd.DataFrame(rows, columns=columns)


def _rank_change(before: bool, after: bool) -> str:
    return {(True, True): "yes", (True, False): "lost", (False, True): "won", (False, False): "no"}[
        bool(before), bool(after)
    ]


def overall_table(compared: Comparison) -> pd.DataFrame:
    """Means over images before and after, and the interval of the change when images are drawn anew."""
    groups = np.unique([image for image, _ in compared.collections[0].pairs], return_inverse=True)[1]
    measured = {
        "advantage": [a.total for a in compared.advantages],
        "similarity": [a.similarity for a in compared.advantages],
        "right caption first": [a.first_caption.astype(float) for a in compared.advantages],
        "right image first": [a.first_image.astype(float) for a in compared.advantages],
    }
    rows = {}
    for name, (before, after) in measured.items():
        means = [by_group(values, groups) for values in (before, after)]
        change = means[1] - means[0]
        low, high = bootstrap_interval(change, np.arange(len(change)), bootstraps=1000)
        rows[name] = {
            "before": means[0].mean(), "after": means[1].mean(), "change": change.mean(), "from": low, "to": high,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def _overview(compared: Comparison, overall: pd.DataFrame) -> Section:
    claims = [Claim(title_of(compared) + ".", numbers={"passed": compared.passed})]
    claims += [
        Claim(sentence(move, compared), numbers=_numbers(move))
        for move in compared.moves
        if move.subject.kind == "whole"
    ]
    return Section("Altogether", "With 95 % intervals of the change.", claims, {"overall": overall})


def _moved(compared: Comparison, cases: Cases, verdict: str) -> Section:
    about = {
        "worse": "Classes and words whose pairs' mean advantage fell, and not through another class.",
        "better": "Classes and words whose pairs' mean advantage rose, and not through another class.",
    }[verdict]
    claims = [
        Claim(f"{sentence(move, compared)} {cases.terms_sentence(move)}", cases.of_move(move, EXAMPLES), _numbers(move))
        for move in compared.moved(verdict)
        if move.subject.kind != "whole"
    ]
    return Section(f"What got {verdict}", about, claims, nothing="Nothing, beyond chance and tolerance.")


def _single_pairs(compared: Comparison, cases: Cases, table: pd.DataFrame) -> Section:
    claims = [
        Claim(cases.pair_sentence(number), cases.of_pair(number), {"pair": list(compared.collections[0].pairs[number])})
        for number in compared.pairs[:10]
    ]
    about = (
        f"Pairs that lost their first rank, or moved unlike the others, by more than {compared.tolerance:g} spreads. Single "
        "pairs are listed without a test."
    )
    return Section("Single pairs", about, claims, {"pairs": table}, nothing="None stands out.")


def sentence(move: Move, compared: Comparison) -> str:
    """A move in words."""
    verdict = move.verdict(compared.alpha)
    change = "fell" if move.change < 0 else "rose"
    p = p_text("p", move.adjusted)
    numbers = f"{change} from {move.before:.2f} to {move.after:.2f} spreads"
    if f"{move.before:.2f}" == f"{move.after:.2f}":
        numbers = f"stayed at {move.after:.2f} spreads"
    if move.subject.kind == "whole":
        did = "did not move beyond chance and tolerance" if verdict == "same" else f"got {verdict}"
        return f"The pairs altogether {did}: the mean advantage {numbers} over {move.images} images ({p})."
    kind = SINGULAR[move.subject.kind]
    return (
        f"Pairs with the {kind} “{move.subject.name}” got {verdict}: their mean advantage {numbers} over "
        f"{move.images} images ({p}). Its own words carry {move.carried[1]:.2f} of it now, and carried {move.carried[0]:.2f}."
    )


def _numbers(move: Move) -> dict[str, object]:
    return {
        "kind": move.subject.kind, "name": move.subject.name, "images": move.images, "before": move.before,
        "after": move.after, "p": move.adjusted,
    }  # fmt: skip
