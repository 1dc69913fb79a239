"""STS: which part of two sentences' similarity follows people's scores (STS-B, Cer et al. 2017)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import Layout
from secondsight.algebra.layout.base import Word
from secondsight.data.grounded import GroundedCaption
from secondsight.data.stsb import SentencePair
from secondsight.evaluation import measures
from secondsight.evaluation.experiments.base import Experiment, Record, check_count, groups, of_kind
from secondsight.evaluation.setting import Setting
from secondsight.evaluation.statistics import bootstrap_interval
from secondsight.support.errors import InputError
from secondsight.visual.charts import lines

TERMS = ("base", "first alone", "second alone", "interaction")
"""The four terms of the similarity."""

WORDS = ("identical words", "aligned words", "other words", "special tokens")
"""The parts of the interaction."""

LISTED = 15
"""Word pairs of each kind that the table lists."""


class Sts(Experiment):
    """Which part of the similarity of two sentences follows people's scores? STS-B (Cer et al. 2017), for models of texts.

    Spearman's correlation with the scores is that of the benchmark. The share of the covariance says which term carries the
    correlation: the terms' shares add up to 1, but for the explanations' error. The interaction is divided in identical
    words, aligned words (others that are each other's strongest partner), all other pairs of words, and special tokens.
    `words` is the number of strongest word pairs of each pair of sentences that the table of word pairs is made of.
    """

    name: ClassVar[str] = "sts"
    pairs_of_texts: ClassVar[bool] = True

    def __init__(self, *, words: int = 5, **options: Any) -> None:
        super().__init__(**options)
        check_count("words", words)
        self.words = words

    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """One record of the pair, and one for each of its strongest word pairs."""
        if setting.method.order == 1:
            raise InputError(
                f"the method {setting.method.name!r} does not tell which word matched which: give one of order 2"
            )
        assert isinstance(example, SentencePair)  # `evaluate` checked the data
        e = setting.explain(example)[0]
        (first, second), matrix = word_interactions(e)
        same, aligned = aligned_words(first, second, matrix)
        terms = e.terms
        parts = [float(matrix[mask].sum()) for mask in (same, aligned, ~(same | aligned))]
        values = (terms.base, terms.left, terms.right, terms.interaction, *parts, terms.interaction - sum(parts))
        pair = {"kind": "pair", "score": example.score, "similarity": e.similarity, "error": e.error}
        records: list[Record] = [pair | dict(zip((*TERMS, *WORDS), values, strict=True))]
        for index in matrix.flatten().argsort(descending=True, stable=True)[: self.words].tolist():
            i, j = divmod(index, len(second))
            words = {"first": first[i].text.casefold(), "second": second[j].text.casefold()}
            records.append({"kind": "words", **words, "value": float(matrix[i, j]), "same": bool(same[i, j])})
        return records

    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """The correlation, what carries it, means by score, and the strongest word pairs."""
        pairs = of_kind(frame, "pair")
        tables = {"overall": _overall(pairs, self.seed), "terms": _terms(pairs), "by score": _by_score(pairs)}
        return tables | {"word pairs": _word_pairs(of_kind(frame, "words"))}

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Means by score: of the similarity for all settings, and of the terms for each."""
        figures, similarities = {}, {}
        for number, (setting, table) in enumerate(groups(_by_score(of_kind(frame, "pair")), "setting"), 1):
            middles = [int(score[0]) + 0.5 for score in table.score]
            similarities[str(setting)] = middles, table.similarity
            terms = {name: (middles, table[name]) for name in TERMS}
            figures[f"terms {number}"] = lines(terms, "people's score, 0 … 5", "mean", str(setting))
        return {"similarity": lines(similarities, "people's score, 0 … 5", "mean similarity", ""), **figures}


def word_interactions(e: Interactions) -> tuple[tuple[list[Word], list[Word]], Float[Tensor, "first second"]]:
    """The words of both texts, and their interactions: the sums over their tokens."""
    left, right = (_words(layout) for layout in (e.left_layout, e.right_layout))
    rows, columns = (_members(words, layout) for words, layout in ((left, e.left_layout), (right, e.right_layout)))
    return (left, right), rows @ e.matrix.double() @ columns.T


def aligned_words(
    first: list[Word], second: list[Word], matrix: Float[Tensor, "first second"]
) -> tuple[Bool[Tensor, "first second"], Bool[Tensor, "first second"]]:
    """Which pairs are of identical words, in any case, and which of others that are each other's strongest partner."""
    same = torch.tensor([[a.text.casefold() == b.text.casefold() for b in second] for a in first])
    strongest = (matrix == matrix.amax(0, keepdim=True)) & (matrix == matrix.amax(1, keepdim=True)) & (matrix > 0)
    return same, strongest & ~same


def _words(layout: Layout) -> list[Word]:
    """The words that have tokens; `InputError` if there are none."""
    words = [word for word in layout.words if word.features]
    if not words:
        raise InputError("a sentence has no words")
    return words


def _members(words: list[Word], layout: Layout) -> Float[Tensor, "word feature"]:
    """Which features each word has, 1 or 0."""
    members = torch.zeros(len(words), layout.size, dtype=torch.float64)
    for row, word in enumerate(words):
        members[row, list(word.features)] = 1
    return members


def _spearman(a: Any, b: Any) -> float:
    return measures.rank_correlation(a, b) if len(a) > 1 else float("nan")


def _overall(pairs: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Spearman's correlation with a bootstrap interval over the pairs, Pearson's, and the explanations' error."""
    rows = []
    for setting, group in groups(pairs, "setting"):
        values = group[["similarity", "score"]].to_numpy()

        def correlation(drawn: Any, values: np.ndarray = values) -> float:
            return _spearman(*values[drawn.astype(int)].T)

        numbers = np.arange(len(group))
        low, high = bootstrap_interval(numbers, numbers, correlation, bootstraps=500, seed=seed)
        pearson = measures.correlation(*values.T) if len(group) > 1 else float("nan")
        correlations = {"Spearman": _spearman(*values.T), "low": low, "high": high, "Pearson": pearson}
        rows.append({"setting": setting, "pairs": len(group), **correlations, "mean error": group.error.mean()})
    return pd.DataFrame(rows)


def _terms(pairs: pd.DataFrame) -> pd.DataFrame:
    """Of every term and part: its mean, its own correlation, its share of the covariance, and the correlation without it."""
    rows = []
    for setting, group in groups(pairs, "setting"):
        score = group.score - group.score.mean()
        covariance = float((group.similarity * score).mean())
        for term in (*TERMS, *WORDS):
            share = float((group[term] * score).mean()) / covariance if covariance else float("nan")
            row = {"setting": setting, "term": term, "mean": group[term].mean(), "sd": group[term].std(ddof=0)}
            row |= {"share of covariance": share, "Spearman": _spearman(group[term], group.score)}
            rows.append(row | {"Spearman without it": _spearman(group.similarity - group[term], group.score)})
    return pd.DataFrame(rows)


def _by_score(pairs: pd.DataFrame) -> pd.DataFrame:
    """Means of the similarity, its terms and the interaction's parts in five bands of the score."""
    bands = np.minimum((pairs.score * 5).astype(int), 4)
    columns = ["similarity", *TERMS, *WORDS]
    rows = [
        {"setting": setting, "score": f"{band} – {band + 1}", "pairs": len(rows), **rows[columns].mean()}
        for setting, group in groups(pairs, "setting")
        for band, rows in group.groupby(bands)
    ]
    return pd.DataFrame(rows)


def _word_pairs(words: pd.DataFrame) -> pd.DataFrame:
    """The word pairs with the largest sums over all sentences, identical ones and others."""
    sums = groups(words, ["setting", "same", "first", "second"]).value.agg(["count", "mean", "sum"]).reset_index()
    sums = sums.sort_values("sum", ascending=False, kind="stable")
    listed = (
        groups(sums, ["setting", "same"]).head(LISTED).sort_values(["setting", "same"], ascending=False, kind="stable")
    )
    listed["same"] = listed.same.map({True: "identical", False: "different"})
    columns = {"same": "words", "count": "pairs", "mean": "mean interaction", "sum": "total"}
    return pd.DataFrame(listed.rename(columns=columns).reset_index(drop=True))
