"""Words that a model would not miss: captions in which one is exchanged for another that captions have in the same place.

Attributions say which words carry the score. They do not see that a model takes every colour for any other: "a red background"
also says that there is a plain background. The exchanged caption is wrong about the image in that word alone.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.layout import Layout, Word
from secondsight.answers.audit.word_parts import CONTENT, part_of
from secondsight.answers.collection import Collection, Progress
from secondsight.answers.pictures import photograph
from secondsight.answers.report import MOST_CASES, Case, Claim, Section
from secondsight.answers.significance import FEWEST, above_p, equivalence_p, image_means, q_values, wilson
from secondsight.model import DualEncoder, Side
from secondsight.scale.query import query_side

IGNORED = 0.25
"""A word is ignored where exchanging it changes, whichever its sign, less than this share of what the average exchange does.

A model that was fine-tuned to ignore colours still kept an eighth of what they did before, so that a tenth finds nothing.
"""

SURE = 0.01
"""Words are compared with the average exchange where that lowers the similarity with at most this p-value."""

MOST_ENCODINGS = 2000
"""Exchanged captions that are encoded: a minute or a few on a processor."""

MOST_OF_PLACE = 100
"""Of one place, which is enough for its mean; the places of rarer words get the rest."""

MOST_CLAIMS = 8
"""Claims of each kind on the page; the tables have all places and words."""

NAMED = 6
"""Words that a row of a table names."""

BATCH = 100
"""Captions that are encoded before progress is told."""

ABOUT = (
    "A content word is exchanged for another that captions have between the same two neighbours, such as “red” for “blue” in "
    "“a … background”, never for one that a caption of the same image has. The right caption should be closer to the image "
    "than the wrong one. Words, and places with all their words together, are said to be hardly told apart if the exchange "
    f"surely changes less than {IGNORED:g} of what the average exchange does (an equivalence test over images). An exchanged "
    "caption may be true of the image as well (“photo” for “picture”): the cases show it."
)

_COLUMNS = ["caption", "image", "word", "place", "start", "end"]


def exchanged_section(
    collection: Collection, model: DualEncoder, *, alpha: float = 0.05, seed: int = 0, progress: Progress | None = None
) -> Section:
    """The section on exchanged words; encodes at most `MOST_ENCODINGS` captions with the model, which must be the stores'.

    Claims have a false discovery rate of at most `alpha` each kind. Raises `InputError` for another model.
    """
    side = query_side(collection.images, model, "text")
    rows = {key: row for row, key in enumerate(collection.images.keys())}
    texts = {key: row for row, key in enumerate(collection.texts.keys())}
    captions = [(rows[image], collection.texts[text].layout) for image, text in collection.pairs]
    drawn = draw_exchanges(captions, seed=seed)
    embeddings = collection.texts.embeddings[[texts[text] for _, text in collection.pairs]]
    exchanges = measure_exchanges(drawn, collection.images.embeddings, embeddings, side, progress)
    tables, average = {by: exchange_table(exchanges, by) for by in ("place", "word")}, average_exchange(exchanges)
    ignored = {by: table[table["q"] <= alpha] for by, table in tables.items()}
    # A word that stands in these places alone says nothing new.
    elsewhere = set(exchanges.loc[~exchanges["place"].isin(ignored["place"]["place"]), "word"])
    ignored["word"] = ignored["word"][ignored["word"]["word"].isin(elsewhere)]
    claims = [
        _claim(collection, exchanges[exchanges[by] == row[by]], row, by, average)
        for by in ("place", "word")
        for _, row in ignored[by].sort_values("images", ascending=False).head(MOST_CLAIMS).iterrows()
    ]
    cost = f"Here {len(exchanges)} captions were encoded, drawn from {len(captions)} with seed {seed}."
    usual = f" The average exchange lowers the similarity by {average:.3f}." if len(drawn) else ""
    return Section(
        "Exchanged words",
        f"{ABOUT} {cost}{usual}",
        claims,
        {"exchanged places": tables["place"], "exchanged words": tables["word"]},
        nothing="The model tells words apart, as far as captions allow to say.",
    )


def draw_exchanges(
    captions: Sequence[tuple[int, Layout]], *, most: int = MOST_ENCODINGS, seed: int = 0
) -> pd.DataFrame:
    """At most `most` exchanges in captions that are given with the rows of their images, drawn with `seed`.

    Columns: `caption` (its number), `image`, `word` and the `other` put there (lower-cased), their `place` "BEFORE … AFTER",
    `start` and `end` of the word in the `text`, and the text `exchanged`. A place has at most `MOST_OF_PLACE` of them; if that
    is still too much, the places of most images come first.
    """
    fillers: dict[str, dict[str, str]] = defaultdict(dict)
    of_image: dict[int, set[str]] = defaultdict(set)
    occurrences = []
    for number, (image, layout) in enumerate(captions):
        of_image[image] |= {word.text.lower() for word in layout.words}
        for word, place in _places(layout):
            fillers[place].setdefault(word.text.lower(), word.text)
            occurrences.append((number, image, word.text.lower(), place, word.start, word.end))
    table = pd.DataFrame(occurrences, columns=_COLUMNS)
    table = table[table["place"].map(lambda place: len(fillers[place]) > 1).astype(bool)]
    table = table.sample(frac=1, random_state=seed).drop_duplicates(["image", "place", "word"])
    table = table[table.groupby("place").cumcount() < MOST_OF_PLACE]
    images = table.groupby("place")["image"].transform("nunique")
    table = table.loc[images.sort_values(ascending=False, kind="stable").index[:most]].sort_values(["caption", "start"])
    rng, replacements = random.Random(seed), []
    for row in table.itertuples():
        choices = sorted(set(fillers[row.place]) - of_image[row.image])
        replacements.append(rng.choice(choices) if choices else "")
    table = table.assign(other=replacements, text=[captions[number][1].text for number in table["caption"]])
    table = table[table["other"] != ""]
    exchanged = [
        row.text[: row.start] + fillers[row.place][row.other] + row.text[row.end :] for row in table.itertuples()
    ]
    return table.assign(exchanged=exchanged).reset_index(drop=True)


def _places(layout: Layout) -> Iterable[tuple[Word, str]]:
    """The content words that the model reads, each with its neighbours; none where the wording is unknown."""
    if layout.text is None:
        return
    words = layout.words
    names = ["", *(word.text.lower() for word in words), ""]
    for word, before, after in zip(words, names, names[2:], strict=False):
        if word.features and part_of(word.text) == CONTENT:
            yield word, f"{before} … {after}".strip()


def measure_exchanges(
    exchanges: pd.DataFrame,
    images: Float[Tensor, "image joint"],
    captions: Float[Tensor, "caption joint"],
    side: Side,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Encode the exchanged captions and add the columns `right` and `wrong`, both similarities to the image, and `effect`.

    Embeddings of images and of the right captions are times their scale; `effect` is what the exchange takes away.
    """
    texts, similarities = list(exchanges["exchanged"]), []
    rows, numbers = (torch.tensor(exchanges[name].to_numpy(dtype=np.int64)) for name in ("image", "caption"))
    for first in range(0, len(texts), BATCH):
        embeddings = side.embed(texts[first : first + BATCH], truncate=True).detach().cpu().double()
        embeddings = torch.nn.functional.normalize(embeddings, dim=-1) if side.cosine else embeddings
        similarities.append((embeddings * images[rows[first : first + BATCH]].double()).sum(1))
        if progress is not None:
            progress("encoding exchanged captions", min(first + BATCH, len(texts)), len(texts))
    wrong = torch.cat(similarities).numpy() if similarities else np.zeros(0)
    right = (captions[numbers].double() * images[rows].double()).sum(1).numpy()
    return exchanges.assign(right=right, wrong=wrong, effect=right - wrong)


def exchange_table(exchanges: pd.DataFrame, by: str, share: float = IGNORED) -> pd.DataFrame:
    """What exchanges do `by` "place" or "word", those that most surely change little first.

    Columns: `others`, the words in the place, or those put there for the word; `images`; `effect`, how much the exchange
    lowers the similarity on average, with its interval `low` … `high`; `times average`, as a share of what the average
    exchange does (NaN where that is not surely positive); `wrong wins`, the share of images that are closer to the wrong
    caption, with Wilson's interval `wrong low` … `wrong high`; `q` of "not within `share` of the average exchange", over the
    rows of enough images, and 1 for others.
    """
    means, average = image_means(exchanges, by, "effect"), average_exchange(exchanges)
    lost = exchanges.assign(lost=np.where(exchanges["effect"] == 0, 0.5, exchanges["effect"] < 0))
    wrong = image_means(lost, by, "lost")["mean"].to_numpy(dtype=np.float64)
    bounds = [wilson(round(mean * count), count) for mean, count in zip(wrong, means["images"], strict=True)]
    frequent = exchanges.groupby(by)["word" if by == "place" else "other"].agg(_most_frequent)
    table = pd.DataFrame(
        {
            by: means.index,
            "others": frequent.reindex(means.index).to_numpy(),
            "images": means["images"].to_numpy(),
            "effect": means["mean"].to_numpy(),
            "low": means["low"].to_numpy(),
            "high": means["high"].to_numpy(),
            "times average": means["mean"].to_numpy() / average if average else np.nan,
            "wrong wins": wrong,
            "wrong low": [low for low, _ in bounds],
            "wrong high": [high for _, high in bounds],
            "q": 1.0,
        }
    )
    tested = (means["images"] >= FEWEST).to_numpy(dtype=bool)
    table.loc[tested, "q"] = q_values(equivalence_p(means, share * average)[tested])
    return table.sort_values(["q", "effect"], ignore_index=True)


def average_exchange(exchanges: pd.DataFrame) -> float:
    """How much exchanging a word lowers the similarity on average; 0 where it does not surely do so."""
    means = image_means(exchanges.assign(whole=0), "whole", "effect")
    return float(means["mean"].iloc[0]) if len(means) and above_p(means)[0] <= SURE else 0.0


def _most_frequent(words: pd.Series) -> str:
    names = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(name for name, _ in names[:NAMED]) + (", …" if len(names) > NAMED else "")


def _claim(collection: Collection, exchanges: pd.DataFrame, row: pd.Series, by: str, average: float) -> Claim:
    words = (
        f"the words in “{row['place']}” ({row['others']}) apart: exchanging one"
        if by == "place"
        else f"“{row['word']}” from other words in its places ({row['others']}): exchanging it"
    )
    sentence = (
        f"The model hardly tells {words} lowers the similarity by {row['effect']:z.3f} "
        f"({row['low']:z.3f} … {row['high']:z.3f}), the average exchange by {average:.3f} ({row['images']} images); the wrong "
        f"word wins in {row['wrong wins']:.0%} ({row['wrong low']:.0%} … {row['wrong high']:.0%})."
    )
    numbers: dict[str, Any] = {by: row[by], "q": float(row["q"]), "effect": float(row["effect"])}
    return Claim(sentence, _cases(collection, exchanges), numbers | {"wrong wins": float(row["wrong wins"])})


def _cases(collection: Collection, exchanges: pd.DataFrame) -> list[Case]:
    """The captions whose exchange does what it usually does."""
    usual = (exchanges["effect"] - exchanges["effect"].mean()).abs().sort_values().index
    images = collection.images.keys()
    cases = []
    for row in exchanges.loc[usual].drop_duplicates("image").head(MOST_CASES).itertuples():
        pieces = [
            (row.text[: row.start], None),
            (row.text[row.start : row.end], row.effect),
            (row.text[row.end :], None),
        ]
        facts = f"similarity {row.right:.3f}; {row.wrong:.3f} for “{row.exchanged}”"
        cases.append(Case(photograph(collection, images[row.image]), words=[p for p in pieces if p[0]], facts=facts))
    return cases
