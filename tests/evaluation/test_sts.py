"""Pairs of sentences: the published files, and the experiment against sums over tokens, one by one, in double precision."""

from __future__ import annotations

import json
import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import secondsight as ss
from families import FAMILIES
from models import small
from secondsight.data import SentencePairs, open_sentence_pairs, stsb
from secondsight.evaluation import evaluate
from secondsight.evaluation.experiments.sts import TERMS, WORDS, aligned_words

PUBLISHED = """main-captions\tMSRvid\t2012test\t0001\t5.000\tA man plays a red guitar.\tA man plays a guitar.
main-captions\tMSRvid\t2012test\t0002\t3.800\tTwo dogs run "outside".\tTwo dogs play in the grass.\tlicence\tsource
main-news\tMSRpar\t2012test\t0003\t1.000\tThe cup is red.\tA DOG holds the cup.
broken line
main-forum\tdeft\t2014\t0004\t0.000\tThe cup of coffee.\tTwo dogs run.
"""

GLUE = """index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore
0\tmain-captions\tMSRvid\t2012test\t0000\tnone\tnone\tA cup.\tA red cup.\t4.000
1\tmain-captions\tMSRvid\t2012test\t0017\tnone\tnone\tA dog.\tA cup.\t0.500
"""


@cache
def model() -> ss.DualEncoder:
    return FAMILIES["st-minilm-mean"](torch.float64).model


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sts") / "sts-test.csv"
    path.write_text(PUBLISHED)
    return path


@pytest.fixture(scope="module")
def results(file, tmp_path_factory):
    methods = [("integrated", ss.IntegratedJacobian(layer="input", steps=8)), ("last", ss.IntegratedJacobian(steps=8))]
    return evaluate("sts", f"stsb:{file}", [("tiny", model())], methods, out=tmp_path_factory.mktemp("out"), words=3)


def naive_terms(e):
    """Parts of the interaction by loops over words and their tokens."""
    parts = dict.fromkeys(WORDS, 0.0)
    matrix = e.matrix.double().numpy()
    first, second = e.left_layout.words, e.right_layout.words
    table = np.array([[sum(matrix[i, j] for i in a.features for j in b.features) for b in second] for a in first])
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            if a.text.lower() == b.text.lower():
                parts["identical words"] += table[i, j]
            elif table[i, j] > 0 and table[i, j] == table[i].max() and table[i, j] == table[:, j].max():
                parts["aligned words"] += table[i, j]
            else:
                parts["other words"] += table[i, j]
    parts["special tokens"] = matrix.sum() - table.sum()
    return parts, table


def test_the_published_forms_are_read(tmp_path, file):
    pairs = stsb(file)
    assert [pair.score for pair in pairs] == [1.0, 0.76, 0.2, 0.0]
    assert (pairs[1].first, pairs[1].second) == ('Two dogs run "outside".', "Two dogs play in the grass.")
    assert pairs[1].left == pairs[1].first
    (tmp_path / "dev.tsv").write_text(GLUE)
    assert [(p.first, p.second, p.score) for p in stsb(tmp_path / "dev.tsv")] == [
        ("A cup.", "A red cup.", 0.8),
        ("A dog.", "A cup.", 0.1),
    ]
    lines = [{"sentence1": "a", "sentence2": "b", "score": 0.5}, {"sentence1": "no score", "sentence2": "b"}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = open_sentence_pairs(f"stsb:{tmp_path / 'pairs.jsonl'}")
    assert [(pair.first, pair.second, pair.score) for pair in data] == [("a", "b", 0.5)]
    assert data.summary() == "pairs: 1 pairs of sentences"
    assert isinstance(open_sentence_pairs(tmp_path / "dev.tsv"), SentencePairs)


def test_records_are_sums_over_the_tokens_of_words(file, results):
    records = results.records
    for pair in stsb(file):
        e = ss.explain(
            model().pair("text", "text"), pair.first, pair.second, ss.IntegratedJacobian(layer="input", steps=8)
        )
        parts, table = naive_terms(e)
        rows = records[(records.setting == "integrated") & (records["key"] == f"{pair.key}/{pair.key}")]
        row = rows[rows.kind == "pair"].iloc[0]
        assert row.similarity == pytest.approx(e.similarity, abs=1e-9)
        assert row.score == pair.score
        expected = {"base": e.terms.base, "first alone": e.terms.left, "second alone": e.terms.right}
        for name, value in {**expected, "interaction": e.terms.interaction, **parts}.items():
            assert row[name] == pytest.approx(value, abs=1e-9), name
        strongest = sorted(table.ravel(), reverse=True)[:3]
        assert list(rows[rows.kind == "words"].value) == pytest.approx(strongest, abs=1e-9)


def test_the_terms_carry_the_whole_correlation(file, results):
    pairs = results.records[results.records.kind == "pair"]
    for setting, group in pairs.groupby("setting"):
        row = results["overall"].set_index("setting").loc[setting]
        assert row["Spearman"] == pytest.approx(stats.spearmanr(group.similarity, group.score).statistic)
        assert row["Pearson"] == pytest.approx(stats.pearsonr(group.similarity, group.score).statistic)
        terms = results["terms"][results["terms"].setting == setting].set_index("term")
        covariance = np.cov(group.similarity, group.score)[0, 1]
        for term in (*TERMS, *WORDS):
            share = np.cov(group[term], group.score)[0, 1] / covariance
            assert terms.loc[term, "share of covariance"] == pytest.approx(share, abs=1e-9)
            without = stats.spearmanr(group.similarity - group[term], group.score).statistic
            assert terms.loc[term, "Spearman without it"] == pytest.approx(without)
        total = np.cov(group[list(TERMS)].sum(axis=1), group.score)[0, 1] / covariance
        assert terms.loc[list(TERMS), "share of covariance"].sum() == pytest.approx(total, abs=1e-9)
        assert setting != "last" or total == pytest.approx(1, abs=1e-4)
        whole = terms.loc["interaction", "share of covariance"]
        assert terms.loc[list(WORDS), "share of covariance"].sum() == pytest.approx(whole, abs=1e-9)


def test_bands_of_the_score_and_word_pairs_are_means_of_records(results):
    table = results["by score"]
    assert list(table[table.setting == "last"].score) == ["0 – 1", "1 – 2", "3 – 4", "4 – 5"]
    records = results.records
    pairs = records[(records.kind == "pair") & (records.setting == "last")]
    row = table[(table.setting == "last") & (table.score == "3 – 4")].iloc[0]
    assert row.similarity == pytest.approx(pairs[pairs.score == 0.76].similarity.mean())
    words = records[records.kind == "words"]
    for _, row in results["word pairs"].iterrows():
        own = words[(words.setting == row.setting) & (words["first"] == row["first"]) & (words.second == row.second)]
        assert row.total == pytest.approx(own.value.sum())
        assert row.pairs == len(own)
        assert row.words == ("identical" if row["first"] == row.second else "different")
    assert set(results.figures) == {"similarity", "terms 1", "terms 2"}


def test_aligned_words_are_each_others_strongest_and_differ():
    words = [ss.explain(model(), "A red dog", "A red dog").left_layout.words] * 2
    matrix = torch.tensor([[1.0, 0.2, 0.0], [0.3, 0.1, 0.9], [0.0, 0.5, 0.8]])
    same, aligned = aligned_words(*words, matrix)
    assert same.tolist() == torch.eye(3, dtype=torch.bool).tolist()
    assert aligned.nonzero().tolist() == [[1, 2]]


def test_a_run_that_stopped_goes_on(file, tmp_path):
    options = dict(models=[("tiny", model())], methods=[("last", ss.IntegratedJacobian(steps=8))], out=tmp_path)
    evaluate("sts", f"stsb:{file}", limit=2, **options)
    (journal,) = (tmp_path / "sts").rglob("records.jsonl")
    begun = journal.read_text()
    evaluate("sts", f"stsb:{file}", **options)
    assert journal.read_text().startswith(begun)
    again = pd.read_parquet(tmp_path / "sts" / "records.parquet")
    assert len(again[again.kind == "pair"]) == 4


def test_images_and_pairs_of_texts_are_not_mixed_up(file, tmp_path):
    with pytest.raises(ss.InputError, match=re.escape("'scenes:noto/2' is not a file of scored pairs")):
        evaluate("sts", "scenes:noto/2", [("tiny", model())], out=tmp_path)
    with pytest.raises(ss.InputError, match="unknown kind of data 'stsb'"):
        evaluate("pointing", f"stsb:{file}", [("small", small())], out=tmp_path)
    with pytest.raises(ss.InputError, match="'pointing' looks at images"):
        evaluate("pointing", open_sentence_pairs(file), [("small", small())], out=tmp_path)
    with pytest.raises(ss.InputError, match="words=0"):
        evaluate("sts", f"stsb:{file}", [("tiny", model())], out=tmp_path, words=0)


def test_texts_of_an_image_model_are_compared_too(file, tmp_path):
    results = evaluate("sts", f"stsb:{file}", [("clip", small())], out=tmp_path, limit=2)
    assert results["overall"].pairs.item() == 2
