"""Words that carry the score, words that the model ignores, and words that speak against their own image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from secondsight.answers.audit.word_parts import (
    CONTENT,
    FUNCTION,
    PARTS,
    REFERENCE,
    WordMeasure,
    part_of,
    word_parts,
)
from secondsight.answers.collection import Collection, Progress
from secondsight.answers.pictures import coloured_words, photograph
from secondsight.answers.report import MOST_CASES, Case, Claim, Section
from secondsight.answers.significance import FEWEST, above_p, below_p, equivalence_p, image_means, q_values

IGNORED = 0.1
"""A word is ignored where what it adds is, whichever its sign, within this share of what the average content word adds."""

CARRIES = 2.0
"""A word carries the score where it adds more than so many times what the average content word adds."""

SURE = 0.01
"""Words are compared with the average content word where that adds something with at most this p-value."""

MOST_CLAIMS = 8
"""Claims of each kind on the page; the table has all words."""

ABOUT = (
    "What a word adds to the similarity is a sum over its tokens, exact for every pair: with its own image, and on average "
    "with all other images. The difference decides rankings: it is positive where the word singles out its own image. A word "
    f"is said to carry the score if it adds more than {CARRIES:g} times what the average content word adds, and to be ignored "
    f"if it surely adds less than {IGNORED:g} of that (an equivalence test; that nothing was found would not be enough). "
    'Articles, prepositions and the like are rightly ignored, and only in the table. The method "collection" (the default) '
    "asks about the words as they were written. Stores of the last layer, such as those of --method last-layer, hold tokens "
    "after the words have been mixed: a word that is ignored there may have changed its neighbours."
)

_COLUMNS = {"own": "own image", "others": "other images", "gain": "own over others"}


def words_section(
    collection: Collection, *, alpha: float = 0.05, seed: int = 0, progress: Progress | None = None
) -> Section:
    """The section on words. Claims have a false discovery rate of at most `alpha` each kind; nothing in it is random."""
    del seed
    parts = word_parts(collection, progress)
    table = word_table(parts)
    claims = []
    for kind, sentence in _SENTENCES.items():
        claimed = table[table[f"q {kind}"] <= alpha]
        claimed = claimed.sort_values("images" if kind == "ignored" else "own over others", ascending=kind == "against")
        for _, row in claimed.head(MOST_CLAIMS).iterrows():
            numbers = {
                "kind": kind,
                "word": row["word"],
                "q": float(row[f"q {kind}"]),
                "gain": float(row["own over others"]),
            }
            claims.append(Claim(_filled(sentence, row), _cases(collection, parts, row["word"], kind), numbers))
    whole = parts_table(parts)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in whole["share"].items() if abs(share) >= 0.01)
    return Section(
        "Words",
        f"{ABOUT} Here, what captions add with their own images over others is {shares}.",
        claims,
        {"words": table, "parts of captions": whole.reset_index(names="part")},
        nothing="No word stands out.",
    )


_SENTENCES = {
    "carries": "“{word}” carries the score: it adds {gain:+.3f} with its own image over others, {times:.1f} times the average "
    "content word ({images} images).",
    "ignored": "“{word}” is ignored: it adds {gain:+.4f} with its own image over others ({low:+.4f} … {high:+.4f}), "
    "{times:.0%} of the average content word ({images} images).",
    "against": "“{word}” speaks against its own image: it adds {gain:+.3f} with it over others ({low:+.3f} … {high:+.3f}, "
    "{images} images).",
}


def _filled(sentence: str, row: pd.Series) -> str:
    return sentence.format(
        word=row["word"],
        gain=row["own over others"],
        low=row["low"],
        high=row["high"],
        times=row["times average"],
        images=row["images"],
    )


def word_table(parts: pd.DataFrame) -> pd.DataFrame:
    """All words of the rows of `word_parts`, those that add most first.

    `own image` and `other images` are the means of the word's part over the images, `own over others` their difference with
    its interval `low` … `high`; `times average` divides it by the average content word's (NaN where that is not surely
    positive). `q carries`, `q ignored` and `q against` are q-values over the content words of enough images, and 1 for others.
    """
    words = parts[parts["part"].isin([CONTENT, FUNCTION])]
    groups, means = words.groupby("word"), image_means(words, "word", "gain")
    average = average_content(parts)
    content = np.array([part_of(word) == CONTENT for word in means.index], dtype=bool)
    table = pd.DataFrame(
        {
            "word": means.index,
            "kind": np.where(content, "content", "function"),
            "occurrences": groups["count"].sum().to_numpy(),
            "images": means["images"].to_numpy(),
            "own image": groups["own"].mean().to_numpy(),
            "other images": groups["others"].mean().to_numpy(),
            "own over others": means["mean"].to_numpy(),
            "low": means["low"].to_numpy(),
            "high": means["high"].to_numpy(),
            "times average": means["mean"].to_numpy() / average if average else np.nan,
        }
    )
    tested = content & (means["images"] >= FEWEST).to_numpy()
    p_values = {
        "carries": above_p(means, CARRIES * average),
        "ignored": equivalence_p(means, IGNORED * average),
        "against": below_p(means),
    }
    for kind, p in p_values.items():
        table[f"q {kind}"] = 1.0
        table.loc[tested, f"q {kind}"] = q_values(p[tested])
    return table.sort_values("own over others", ascending=False, ignore_index=True)


def average_content(parts: pd.DataFrame) -> float:
    """What the average content word adds, own over others; 0 where it is not surely positive and so no measure of others."""
    content = image_means(parts[parts["part"] == CONTENT], "part", "gain")
    return float(content["mean"].iloc[0]) if len(content) and above_p(content)[0] <= SURE else 0.0


def parts_table(parts: pd.DataFrame) -> pd.DataFrame:
    """What captions' similarities consist of: the mean of each part of a caption, and its `share` of own over others."""
    captions = parts.loc[parts["part"] == REFERENCE, "count"].sum()
    sums = {
        title: (parts[name] * parts["count"]).groupby(parts["part"]).sum() / captions
        for name, title in _COLUMNS.items()
    }
    table = pd.DataFrame(sums).reindex(PARTS).fillna(0.0)
    return table.assign(share=table["own over others"] / table["own over others"].sum()).rename_axis(None)


def _cases(collection: Collection, parts: pd.DataFrame, word: str, kind: str) -> list[Case]:
    """The captions of the images in which a word adds most, least, or what it usually adds."""
    rows = parts[(parts["word"] == word) & (parts["part"] != FUNCTION)]
    ranked = {"carries": -rows["gain"], "against": rows["gain"], "ignored": (rows["gain"] - rows["gain"].mean()).abs()}
    images = collection.images.keys()
    keys = [images[row] for row in rows.loc[ranked[kind].sort_values().index[:MOST_CASES], "image"]]
    texts: dict[str, list[str]] = {}
    for image, text in collection.pairs:
        texts.setdefault(image, []).append(text)
    measure = WordMeasure(collection)
    cases = (_case(collection, measure, image, texts[image], word, kind) for image in keys)
    return [case for case in cases if case is not None]


def _case(
    collection: Collection, measure: WordMeasure, image: str, captions: Sequence[str], word: str, kind: str
) -> Case | None:
    """The first of an image's captions that has a word, each word with what it adds; the word's map where it adds much."""
    for key in captions:
        caption = collection.texts[key]
        places = [place for place in caption.layout.words if place.text.lower() == word and place.features]
        if not places:
            continue
        image_direction, other_direction = measure.directions(key)
        gains = caption.vectors.double().numpy() @ (image_direction - other_direction) * caption.scale
        pair, photo = collection.images[image] @ caption, photograph(collection, image)
        features = [feature for place in places for feature in place.features]
        has_map = photo is not None and kind != "ignored"
        heat = pair.heatmap(features).float().numpy() if has_map else None
        gain = float(gains[features].sum())
        facts = f"“{word}” {gain:+.4f} over other images, similarity {pair.similarity:.3f}"
        return Case(photo, heat, words=coloured_words(caption.layout, gains), facts=facts)
    return None
