"""What the report of retrieval says: claims in sentences, with the misses that show them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy.stats import spearmanr

from secondsight.answers.collection import Collection
from secondsight.answers.report import MOST_CASES, Case, Claim, Section
from secondsight.answers.retrieval.alike import Annotations
from secondsight.answers.retrieval.cases import case_of
from secondsight.answers.retrieval.misses import REASONS, Miss
from secondsight.answers.retrieval.ranks import (
    ABOVE,
    PLAIN,
    Direction,
    Ranks,
    change_table,
    direction_group,
    recall_table,
)
from secondsight.answers.retrieval.tables import class_table, miss_table, reason_table, winner_table, word_table
from secondsight.answers.wording import count, p_text, plural
from secondsight.evaluation.statistics import holm

WORDS_TOLD, WINNERS_TOLD = 3, 5
"""Words and winners of each direction that are told in sentences; the tables have all."""


def recall_section(
    ways: Sequence[Direction], rankings: Sequence[dict[str, Ranks]], k: Sequence[int], alpha: float, seed: int
) -> Section:
    """recall@k of both directions and rankings, and what taking the usual similarity off changes."""
    recall = pd.concat(
        [recall_table(way, by, k, alpha, seed) for way, by in zip(ways, rankings, strict=True)], ignore_index=True
    )
    tables, claims = {"recall": recall}, []
    both = [(way, by) for way, by in zip(ways, rankings, strict=True) if ABOVE in by]
    changes = pd.DataFrame()
    if both:
        changes = pd.concat([change_table(way, by, k, alpha, seed) for way, by in both], ignore_index=True)
        changes["p adjusted"] = holm(list(changes["p"]))
        tables["recall above usual"] = changes
    for way in ways:
        row = recall[(recall["direction"] == way.name) & (recall["ranked by"] == PLAIN)].iloc[0]
        depth = k[0]
        share, low, high = (row[f"recall@{depth}{end}"] for end in ("", " low", " high"))
        sentence = (
            f"{way.name}: {share:.1%} of {len(way.query_keys)} {plural(way.nouns[0])} find their {way.nouns[1]} among the "
            f"first {depth} of {len(way.entry_keys)} ({1 - alpha:.0%} interval {low:.1%} to {high:.1%}); the median rank is "
            f"{row['median rank']:g}."
        )
        claims.append(Claim(sentence.replace("among the first 1 of", "first among"), numbers=dict(row)))
        if len(changes) and way.name in set(changes["direction"]):
            claims.append(_change_claim(way, changes[changes["direction"] == way.name].iloc[0], alpha))
    groups = f"{direction_group(ways[0])}s"
    about = (
        "recall@k is the share of queries that find something right among the first k. Above usual, every entry's mean "
        f"similarity to all queries is taken off. Intervals draw {groups} anew; p is the exact sign test over {groups} "
        "(McNemar's where each has one query), adjusted by Holm over all rows."
    )
    if not both:
        about = (
            "recall@k is the share of queries that find something right among the first k, by the best matches of token "
            "vectors (MaxSim). These have no mean query, so that there is no ranking above usual."
        )
    return Section("How well it retrieves", about, claims, tables)


def _change_claim(way: Direction, row: pd.Series, alpha: float) -> Claim:
    interval, test = f"{row['low'] * 100:+.1f} to {row['high'] * 100:+.1f}", p_text("adjusted p", row["p adjusted"])
    if row["p adjusted"] <= alpha:
        moves = "rises" if row["change"] > 0 else "falls"
        sentence = (
            f"{way.name}: above usual, recall{row['recall']} {moves} by {abs(row['change']) * 100:.1f} points "
            f"({interval}; {test})."
        )
    else:
        sentence = (
            f"{way.name}: above usual, recall{row['recall']} changes by {row['change'] * 100:+.1f} points ({interval}), which "
            f"could be chance among so many tests ({test})."
        )
    return Claim(sentence, numbers=dict(row))


def miss_section(way: Direction, plain: Ranks, misses: Sequence[Miss], collection: Collection) -> Section:
    """The reasons of one direction's misses, each with its largest leads."""
    query, entry = way.nouns
    title = f"Why a {query} misses its {entry}"
    if not misses:
        return Section(title, "", nothing=f"No {query} missed, or none was explained.")
    whole = int((plain.rank > 1).sum())
    told = (
        f"{len(misses)} of {whole} misses, drawn at random, are" if len(misses) < whole else f"All {whole} misses are"
    )
    about = (
        f"{told} explained: the lead of the first {entry} over the right one, by words and by regions. A miss has the first "
        "reason of the table that holds; the rules look at exact parts of the lead, and at captions and annotations."
    )
    reasons = reason_table(misses)
    claims = []
    for row in reasons.itertuples(index=False):
        of_reason = sorted((m for m in misses if m.reason == row.reason), key=lambda miss: -miss.lead_value)
        share = f"{row.misses} of {count(len(misses), 'miss')} ({row.share:.0%})"
        sentence = f"{share}: {row.reason}, that is, {REASONS[row.reason]}."
        if row.reason == "usual similarity":
            back = sum(m.rank_above_usual == 1 for m in of_reason)
            sentence = f"{sentence[:-1]}; above usual, {back} of them have the right one first."
        cases = [case_of(miss, collection) for miss in of_reason[:MOST_CASES]]
        claims.append(Claim(sentence, cases, {"direction": way.name, "reason": row.reason, "misses": int(row.misses)}))
    tables = {f"reasons {way.name}": reasons, f"misses {way.name}": miss_table(misses)}
    return Section(title, about, claims, tables)


def word_section(misses: Sequence[Sequence[Miss]], collection: Collection) -> Section:
    """The words that add most to wrong leads."""
    claims: list[Claim] = []
    tables = {}
    for of_way in misses:
        if not of_way:
            continue
        way, table = of_way[0].direction, word_table(of_way)
        tables[f"words {way.name}"] = table
        helping = (table["top word of"] > 0) & (table["sum of leads"] > 0)
        for row in table[helping].head(WORDS_TOLD).to_dict("records"):
            with_word = [(part.part, miss) for miss in of_way for part in miss.words if part.word == row["word"]]
            cases = [case_of(miss, collection) for _, miss in sorted(with_word, key=lambda scored: -scored[0])[:3]]
            share = row["share of all leads"]
            told = f"{share:.0%} of" if share <= 1 else "more than"
            claims.append(
                Claim(
                    f"{way.name}: “{row['word']}” adds {row['sum of leads']:.3f} to the leads of "
                    f"{count(row['misses'], 'wrong winner')}, {told} all leads; it is the word that adds most in "
                    f"{count(row['top word of'], 'miss')}.",
                    cases,
                    {"direction": way.name, **row},
                )
            )
    about = (
        "What each word adds to the lead of the wrong winner, added up over the explained misses that have it: the query's "
        "words, or where the query is a photograph those of both captions. As every such lead is positive, most sums are: the "
        "order tells more than the sign, and frequent words come first."
    )
    return Section("Which words cause misses", about, claims, tables)


def winner_section(
    ways: Sequence[Direction],
    plain: Sequence[Ranks],
    misses: Sequence[Sequence[Miss]],
    alpha: float,
    collection: Collection,
) -> Section:
    """The entries that win wrongly more often than by chance."""
    claims: list[Claim] = []
    tables = {}
    for way, ranking, of_way in zip(ways, plain, misses, strict=True):
        table = winner_table(way, ranking, alpha)
        if not len(table):
            continue
        tables[f"wrong winners {way.name}"] = table
        groups = f"{direction_group(way)}s"
        if "usual similarity" in table:
            claims.append(_usual_claim(way, winner_table(way, ranking, winners_only=False), alpha, len(ways)))
        significant = table[table["q"] <= alpha]
        for row in significant.head(WINNERS_TOLD).to_dict("records"):
            won, usual = count(row["wrong wins"], way.nouns[0]), ""
            if way.nouns[0] != direction_group(way):
                won += f" of {count(row[groups], direction_group(way))}"
            if "usual rank" in row:
                rank = row["usual rank"]
                usual = (
                    f" Its usual similarity has rank {rank} of {len(way.entry_keys)}{', a hub' if row['hub'] else ''}."
                )
            sentence = (
                f"{way.name}: {way.nouns[1]} {row['winner']} wins wrongly for {won}; by chance {row['expected']:.1f} {groups} "
                f"are expected ({p_text('q', row['q'])}).{usual}"
            )
            cases = _winner_cases(way, row["winner"], of_way, collection)
            claims.append(Claim(sentence, cases, {**row, "direction": way.name}))
    about = (
        f"Entries that come first where something else is right. Chance takes every wrong entry as equally likely, so that a "
        f"photograph that resembles many others is told as well; the false discovery rate is at most {alpha:g}. A hub's mean "
        "similarity to all queries is an outlier of the others', as in secondsight audit."
    )
    return Section(
        "Which entries win wrongly",
        about,
        claims,
        tables,
        nothing="No entry wins wrongly more often than chance allows.",
    )


def _usual_claim(way: Direction, table: pd.DataFrame, alpha: float, tests: int) -> Claim:
    """Whether entries that are closer to all queries win wrongly more often; p is Bonferroni's for so many tests."""
    counts = table[f"{direction_group(way)}s"]
    constant = counts.nunique() < 2 or table["usual similarity"].nunique() < 2
    rho, p = (0.0, 1.0) if constant else spearmanr(table["usual similarity"], counts)
    p = min(float(p) * tests, 1.0)
    queries, entries = (plural(noun) for noun in way.nouns)
    says = f"{entries} that are closer to all {queries} win wrongly {'more' if rho > 0 else 'less'} often"
    says = (
        says
        if p <= alpha
        else f"no relation is seen between how close {entries} are to all {queries} and how often they win"
    )
    numbers = {"direction": way.name, "rho": float(rho), "p": float(p), "entries": len(table)}
    return Claim(
        f"{way.name}: {says} (Spearman's ρ {rho:+.2f}, {p_text('p', p)}, over {len(table)} {entries}).", numbers=numbers
    )


def _winner_cases(way: Direction, winner: str, misses: Sequence[Miss], collection: Collection) -> list[Case]:
    won = sorted((miss for miss in misses if miss.winner == winner), key=lambda miss: -miss.lead_value)
    return [case_of(miss, collection) for miss in won[:3]]


def class_section(
    ways: Sequence[Direction], plain: Sequence[Ranks], annotations: Annotations, alpha: float, seed: int
) -> list[Section]:
    """recall@1 by class, where objects are annotated."""
    tables = {}
    for way, ranking in zip(ways, plain, strict=True):
        table = class_table(way, ranking, annotations, alpha, seed)
        if len(table):
            tables[f"classes {way.name}"] = table
    if not tables:
        return []
    about = (
        "recall@1 of the captions that name a class, and of the photographs that show it; most misses first. Intervals draw "
        "photographs anew and are of each class alone: with many classes some lie apart by chance."
    )
    return [Section("By class", about, tables=tables, nothing="The tables have every class.")]
