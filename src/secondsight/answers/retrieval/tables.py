"""Tables of misses: each with its parts, and by reason, by word, by winner and by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import poisson

from secondsight.answers.retrieval.alike import Annotations
from secondsight.answers.retrieval.misses import REASONS, Miss
from secondsight.answers.retrieval.ranks import Direction, Ranks, direction_group, intervals
from secondsight.answers.significance import outlier_p, q_values


def miss_table(misses: Sequence[Miss]) -> pd.DataFrame:
    """A row for each explained miss; shares are of its lead, and they add up to 1."""
    rows = []
    for miss in misses:
        top, against = miss.words[0] if miss.words else None, miss.against
        rows.append(
            {
                "direction": miss.direction.name,
                "query": miss.query,
                "right": miss.right,
                "winner": miss.winner,
                "rank": miss.rank,
                "rank above usual": miss.rank_above_usual,
                "lead": miss.lead_value,
                "reason": miss.reason,
                "top word": "" if top is None else top.word,
                "top word part": None if top is None else top.part,
                "word against": "" if against is None else against.word,
                "word against part": None if against is None else against.part,
                "words": miss.share(sum(part.part for part in miss.words)),
                "entries alone": miss.share(miss.alone),
                "special positions": miss.share(miss.special),
                "not explained": miss.share(miss.unexplained),
                "usual similarity": miss.share(miss.usual),
                "explanation": miss.sentence(),
            }
        )
    return pd.DataFrame(rows)


def reason_table(misses: Sequence[Miss]) -> pd.DataFrame:
    """How many explained misses of a direction have a reason, their mean lead, and how many above usual puts first."""
    rows = []
    for reason, meaning in REASONS.items():
        of_reason = [miss for miss in misses if miss.reason == reason]
        if of_reason:
            rows.append(
                {
                    "direction": of_reason[0].direction.name,
                    "reason": reason,
                    "misses": len(of_reason),
                    "share": len(of_reason) / len(misses),
                    "mean lead": float(np.mean([miss.lead_value for miss in of_reason])),
                    "first above usual": sum(miss.rank_above_usual == 1 for miss in of_reason),
                    "meaning": meaning,
                }
            )
    return pd.DataFrame(rows).sort_values("misses", ascending=False, kind="stable", ignore_index=True)


def word_table(misses: Sequence[Miss]) -> pd.DataFrame:
    """What every word adds to the leads of wrong winners: the sum over the misses that have it, and for how many it is top.

    As all these leads are positive, so are the sums of most words: read the order, and not the sign.
    """
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    tops: Counter[str] = Counter(miss.words[0].word for miss in misses if miss.words)
    for miss in misses:
        for part in miss.words:
            sums[part.word] += part.part  # type: ignore[assignment]  # counters add any number
            counts[part.word] += 1
    whole = sum(miss.lead_value for miss in misses)
    rows = [
        {
            "direction": misses[0].direction.name,
            "word": word,
            "misses": counts[word],
            "sum of leads": float(sums[word]),
            "mean": float(sums[word]) / counts[word],
            "share of all leads": float(sums[word]) / whole if whole else float("nan"),
            "top word of": tops[word],
        }
        for word in sorted(sums, key=lambda word: (-sums[word], word))
    ]
    return pd.DataFrame(rows)


def winner_table(direction: Direction, plain: Ranks, alpha: float = 0.05, *, winners_only: bool = True) -> pd.DataFrame:
    """How often every entry wins wrongly, against chance: every wrong entry as likely.

    Counted are photographs (or documents) with at least one query that it wins, as queries of one are not independent. The
    upper tail of a Poisson distribution gives p, the false discovery rate of all entries q. `hub`: the usual similarity is an
    outlier at the false discovery rate `alpha`, as in the audit.
    """
    wrong = np.flatnonzero(plain.rank > 1).tolist()
    group = f"{direction_group(direction)}s"
    if not wrong:
        return pd.DataFrame()
    winners = plain.winner[wrong]
    queries = np.bincount(winners, minlength=len(direction.entry_keys))
    groups_won = {(int(row), direction.groups[number]) for row, number in zip(winners, wrong, strict=True)}
    counts = np.bincount([row for row, _ in groups_won], minlength=len(direction.entry_keys))
    misses_of_group = np.array(list(Counter(direction.groups[number] for number in wrong).values()))
    expected = float((1 - (1 - 1 / max(len(direction.entry_keys) - 1, 1)) ** misses_of_group).sum())
    p = poisson.sf(counts - 1, expected)
    table = pd.DataFrame(
        {
            "direction": direction.name,
            "winner": direction.entry_keys,
            "wrong wins": queries,
            group: counts,
            "expected": expected,
            "p": p,
            "q": q_values(p),
        }
    )
    if direction.usual is not None:
        usual = direction.usual.numpy()
        table["usual similarity"] = usual
        table["usual rank"] = pd.Series(usual).rank(ascending=False, method="min").astype(int)
        outlying = outlier_p(usual)
        table["hub"] = False
        table.loc[outlying < 1, "hub"] = q_values(outlying[outlying < 1]) <= alpha
    if winners_only:
        table = table[table["wrong wins"] > 0]
    return table.sort_values([group, "wrong wins"], ascending=False, kind="stable", ignore_index=True)


def class_table(direction: Direction, plain: Ranks, annotations: Annotations, alpha: float, seed: int) -> pd.DataFrame:
    """recall@1 of the queries that name a class (captions) or show it (photographs), with intervals over photographs."""
    classes: Mapping[str, set[str]] = annotations.named if direction.name == "text→image" else annotations.shown
    numbers: dict[str, list[int]] = {}
    for number, key in enumerate(direction.query_keys):
        for label in classes.get(key, ()):
            numbers.setdefault(label, []).append(number)
    rows = []
    for label in sorted(numbers):
        first = plain.rank[numbers[label]] == 1
        low, high = intervals(first[:, None], [direction.groups[number] for number in numbers[label]], alpha, seed, 500)
        rows.append(
            {
                "direction": direction.name,
                "class": label,
                "queries": len(first),
                "recall@1": float(first.mean()),
                "low": float(low[0]),
                "high": float(high[0]),
                "misses": int((~first).sum()),
            }
        )
    return (
        pd.DataFrame(rows).sort_values("misses", ascending=False, kind="stable", ignore_index=True)
        if rows
        else pd.DataFrame()
    )
