"""The report of a zero-shot classifier: its sections, and the sentences that its tables allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from scipy import stats

from secondsight.answers.report import Claim, Section
from secondsight.answers.wording import capitalised, count, p_text, times
from secondsight.answers.zero_shot import tables
from secondsight.answers.zero_shot.cases import Cases, Record, named_parts
from secondsight.answers.zero_shot.margins import BY_WORD, Margins
from secondsight.scale.lead import NINTHS

MOST_CLAIMS = 12
"""Sentences of a kind in a report; the tables have them all."""


def sections(margins: Margins, cases: Cases, alpha: float) -> list[Section]:
    """All sections; `alpha` is the false discovery rate of what is claimed beyond chance."""
    classes = tables.classes(margins)
    parts = [
        _accuracy(margins, cases, classes),
        _confusions(margins, cases, alpha),
        _priors(margins, cases, classes, alpha),
    ]
    outside = tables.outside(margins)
    return [*parts, _outside(margins, cases, outside, alpha)] if len(outside) else parts


def _accuracy(margins: Margins, cases: Cases, classes: pd.DataFrame) -> Section:
    table = tables.accuracy(margins)
    top = table.iloc[0]
    sentence = f"{top['right']:.0f} of {len(margins.records)} images get their class: {_interval(top)}"
    if len(table) > 1:
        sentence += f"; {_interval(table.iloc[1])} have it among the first five"
    wrong = _rows(margins.records[~margins.records["correct"]].sort_values("margin"))
    claims = [Claim(f"{sentence}.", cases.of(wrong))]
    narrow = _rows(margins.records[margins.records["correct"]].sort_values("margin"))
    if narrow:
        claims.append(
            Claim(
                f"The narrowest of the right answers leads the next class by {narrow[0]['margin']:.3f}.",
                cases.of(narrow),
            )
        )
    about = (
        "How many images are closest to the prompts of their own class, with Wilson's 95 % intervals. The cases are the "
        "clearest of the wrong answers, and the narrowest of the right ones. Maps and words show the lead of the answer over "
        "the right class, or of the right answer over the next: red speaks for the answer."
    )
    return Section("Accuracy", about, claims, {"accuracy": table, "classes": classes})


def _confusions(margins: Margins, cases: Cases, alpha: float) -> Section:
    records = margins.records
    wrong, table = records[~records["correct"]], tables.confusions(margins)
    claims = []
    if len(wrong):
        counts = {str(name): int(images) for name, images in wrong["reason"].value_counts().items()}
        counted = ", ".join(f"{name} ({images})" for name, images in counts.items())
        claims.append(Claim(f"The largest part of the wrong answers' lead is: {counted}.", numbers=counts))
    pairs = table[table["times"] >= tables.FEWEST] if len(table) else table
    for row in _rows(pairs)[:MOST_CLAIMS]:
        mistaken = wrong[(wrong["label"] == row["class"]) & (wrong["predicted"] == row["taken for"])]
        claims.append(Claim(_confusion(row, alpha), cases.of(_rows(mistaken.sort_values("margin"))), row))
    about = (
        "Every wrong answer leads the right one by parts that add up exactly: what the two prompts differ by whatever the "
        "picture (the captions alone), what the picture has whatever the prompt (the picture alone), and what the picture has "
        "in common with the template's words, with the classes' words and with special positions. A pair is beyond chance "
        "where other classes are taken for the same answer less often (Fisher's exact test, Benjamini and Hochberg's q)."
    )
    all_tables = {
        "confusions": table,
        "parts by word": tables.means(records, BY_WORD),
        "parts by region": tables.means(records, ("caption alone", *NINTHS, "image's special positions")),
    }
    filled = {name: frame for name, frame in all_tables.items() if len(frame)}
    return Section("Confusions", about, claims, filled, nothing="No answer is wrong.")


def _confusion(row: Mapping[str, Any], alpha: float) -> str:
    chance = f"{row['expected']:.1f} expected"
    if row["q"] == row["q"]:
        chance += f", {p_text('q', row['q'])}{'' if row['q'] <= alpha else ': perhaps chance'}"
    return (
        f"“{row['class']}” is taken for “{row['taken for']}” {times(row['times'])} of {row['images']} ({chance}): "
        f"{row['lead']:+.4f} on average, {_share(row['caption alone'], row['lead'])} in the captions alone (whatever the "
        f"picture). {named_parts({n: row[n] for n in BY_WORD}, row['taken for'], row['class'], False)}."
    )


def _share(part: float, whole: float) -> str:
    if part <= 0:
        return "nothing of it"
    return "all of it and more" if part > whole else f"{part / whole:.0%} of it"


def _priors(margins: Margins, cases: Cases, classes: pd.DataFrame, alpha: float) -> Section:
    table, owed = tables.priors(margins), tables.owed(margins)
    records = margins.records
    wrong = records[~records["correct"]]
    claims = []
    # Margins of wrong answers are negative.
    decided = wrong[wrong["margin"] - wrong["caption alone"] >= 0] if len(wrong) else wrong
    if len(decided):
        sentence = (
            f"In {len(decided)} of {len(wrong)} wrong answers the captions alone decide: without that part the right class "
            "would lead the one that won."
        )
        claims.append(Claim(sentence, cases.of(_rows(decided.sort_values("caption alone")))))
    claims += [Claim(_counterfactual(table.iloc[0], row), numbers=row) for row in _rows(table.iloc[1:])]
    claims.append(_agreement(classes, alpha))
    for row in _rows(classes[classes["q"] <= alpha].sort_values("q"))[:MOST_CLAIMS] if "q" in classes else []:
        mistaken = wrong[wrong["predicted"] == row["class"]].sort_values("margin")
        claims.append(Claim(_overanswered(row), cases.of(_rows(mistaken)), row))
    claims += _owed_claims(owed, records, cases)
    about = (
        "What is decided before a picture is seen. The part “captions alone” is a prompt's similarity to the reference "
        "picture; whether it is a prior is measured by two tests: does it agree with how close a class is to pictures of "
        "other classes, and are more answers right without it?"
    )
    all_tables = {"accuracy without": table, "owed to": owed}
    return Section(
        "The captions alone", about, claims, {name: frame for name, frame in all_tables.items() if len(frame)}
    )


def _counterfactual(usual: pd.Series, row: Mapping[str, Any]) -> str:
    if not row["gained"] and not row["lost"]:
        return f"{capitalised(row['ranked'])}, the same answers are right ({usual['accuracy']:.1%})."
    return (
        f"{capitalised(row['ranked'])}, {row['accuracy']:.1%} of the answers are right rather than {usual['accuracy']:.1%} "
        f"({row['gained']} gained, {row['lost']} lost; McNemar's {p_text('p', row['p'])})."
    )


def _agreement(classes: pd.DataFrame, alpha: float) -> Claim:
    measured = classes[["caption alone", "on other pictures"]].dropna()
    if len(measured) < 5:
        return Claim("There are too few classes to test whether the captions alone are a prior.")
    correlation = stats.spearmanr(measured["caption alone"], measured["on other pictures"])
    seen = "agree" if correlation.pvalue <= alpha and correlation.statistic > 0 else "are not seen to agree"
    return Claim(
        f"The captions alone {seen} with how close the classes are to pictures of other classes: rank correlation "
        f"{correlation.statistic:+.2f} over {len(measured)} classes ({p_text('p', correlation.pvalue)}).",
        numbers={"correlation": float(correlation.statistic), "p": float(correlation.pvalue)},
    )


def _overanswered(row: Mapping[str, Any]) -> str:
    missed = row["images"] - row["right"]
    return (
        f"“{row['class']}” is answered {times(row['answered'])} for {count(row['images'], 'image')}: "
        f"{times(row['answered wrongly'])} wrongly, and missed {times(missed)} ({p_text('q', row['q'])}). On pictures of other "
        f"classes it is {row['on other pictures']:+.4f} from the mean class; the captions alone say "
        f"{row['caption alone']:+.4f}."
    )


def _owed_claims(owed: pd.DataFrame, records: pd.DataFrame, cases: Cases) -> Iterable[Claim]:
    """Classes of whose right answers a half or more need what is no part of the picture."""
    for part, spoken in (("caption alone", "what the captions have alone"), ("template words", "the template's words")):
        column = f"only by {part}"
        if not len(owed):
            continue
        enough = (owed[column] >= tables.FEWEST) & (owed[column] * 2 >= owed["right"])
        for row in _rows(owed[enough].sort_values(column, ascending=False, kind="stable"))[: MOST_CLAIMS // 2]:
            right = records[records["correct"] & (records["label"] == row["class"])]
            chosen = right[right["margin"] <= right[part]].sort_values("margin")
            sentence = (
                f"“{row['class']}” is right only because of {spoken} in {row[column]} of {row['right']} right answers."
            )
            yield Claim(sentence, cases.of(_rows(chosen)), row)


def _outside(margins: Margins, cases: Cases, table: pd.DataFrame, alpha: float) -> Section:
    records = margins.records
    claims = []
    for row in _rows(table[~table["answers"].str.contains(" for ")]):
        boxed = records[
            records["outside the object"].notna() & (records["correct"] == row["answers"].startswith("right"))
        ]
        boxed = boxed.sort_values("outside the object", ascending=False)
        claims.append(Claim(_where(row, row["p"], "p"), cases.of(_rows(boxed)), row))
    claimed = (
        table[(table["q"] <= alpha) & (table["outside the object"] > table["area outside"])] if "q" in table else []
    )
    for row in _rows(claimed)[:MOST_CLAIMS] if len(claimed) else []:
        name = row["answers"].removeprefix("right answers for ")
        boxed = records[records["correct"] & (records["label"] == name) & records["outside the object"].notna()]
        ordered = _rows(boxed.sort_values("outside the object", ascending=False))
        claims.append(Claim(_where(row, row["q"], "q"), cases.of(ordered), row))
    about = (
        "Where the object is known: which share of what speaks for the answer lies outside its box, beside the share of the "
        "area that does. A class whose right answers come from outside is right for another reason than its object. The "
        "cases come with the largest share first."
    )
    return Section("Outside the object", about, claims, {"outside the object": table})


def _where(row: Mapping[str, Any], p: float, name: str) -> str:
    test = f" ({p_text(name, p)})" if p == p else ""
    share, area = row["outside the object"], row["area outside"]
    return (
        f"{capitalised(row['answers'])}: {share:.0%} of what speaks for the answer lies outside the object, and {area:.0%} of "
        f"the area{test}; {count(row['images'], 'image')}."
    )


def _interval(row: pd.Series) -> str:
    return f"{row['share']:.1%} (95 %: {row['low']:.1%} to {row['high']:.1%})"


def _rows(frame: pd.DataFrame) -> Sequence[Record]:
    rows: list[Record] = frame.to_dict("records")
    return rows
