"""A miss explained: why the winner leads the right entry, in exact parts, and the rule that names the reason."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from secondsight.answers.retrieval.ranks import Direction, Ranks
from secondsight.answers.wording import plural
from secondsight.scale.lead import Lead
from secondsight.scale.search import Hit

MOST = 0.5
"""The share of a lead, or of its positive words, that counts as most of it."""

NOTHING = 0.1
"""Below this share of what a word gives the winner, it gives the right entry nothing."""

COMMON = 0.1
"""Objects that a larger share of the photographs shows do not make two of them alike."""

EQUAL = 1e-7
"""A smaller lead is a tie: similarities are compared in single precision."""

REASONS: dict[str, str] = {
    "same input": "the winner is right too, or equal to the right one: the same caption, or the same vectors",
    "not explained": "most of the lead is missed by the explanation",
    "word order": "the winner's caption has the same words in another order",
    "same objects": "the winner shows every object that is named, as few others do (annotations)",
    "same words": "the captions of the winner have at least half of the words, by their rarity, as few others have",
    "usual similarity": "most of the lead is there for every query: the winner is closer to all of them",
    "entry alone": "more of the lead is what the two have alone, against an empty query, than what the words add",
    "special positions": "more of the lead is at special positions, such as the end of the text, than at words",
    "missing word": "the word that adds most to the lead gives the right one nothing",
    "stronger word": "the word that adds most to the lead gives both something, and the winner more",
    "several words": "no word adds as much as half of what speaks for the winner",
}
"""The reasons of misses, in the order in which they are tried; the first that holds names the miss."""


@dataclass(frozen=True)
class WordPart:
    """What a word adds to a lead, and what it gives the winner and the right entry."""

    word: str
    part: float
    winner: float
    right: float


@dataclass(frozen=True, eq=False)
class Miss:
    """A query whose right entry is not first, with the lead of the winner over the right one.

    `lead_value` = `words` + `alone` + `special` + `unexplained`, exactly. `usual` is by how much the winner is closer to
    all queries; None for token vectors. `alike` is what captions and annotations say, of the reasons that begin
    with "same" or "word".
    """

    direction: Direction
    query: str
    rank: int
    rank_above_usual: int | None
    lead: Lead
    usual: float | None
    alike: str | None = None

    @property
    def winner(self) -> str:
        """The key of the entry that came first."""
        return self.lead.first.key

    @property
    def right(self) -> str:
        """The key of the first right entry."""
        return self.lead.second.key

    @property
    def lead_value(self) -> float:
        """The winner's similarity minus the right one's."""
        return self.lead.value

    @property
    def by_query_words(self) -> bool:
        """Whether words are the query's; otherwise the query is a photograph, and they are both captions'."""
        return bool(self.lead.margin.right_layout.words)

    @cached_property
    def words(self) -> list[WordPart]:
        """Words that count, largest part first; a word that comes several times is one."""
        margin = self.lead.margin
        matrix = margin.matrix.double()
        first, second = (hit.entry.layout for hit in (self.lead.first, self.lead.second))
        gains: dict[str, list[float]] = {}
        if self.by_query_words:
            rows = margin.left_layout.split(matrix.T)
            columns = [part.sum(1) for part in rows]
            total = columns[0] + columns[1] + margin.right_effects.double()
            for word in margin.right_layout.words:
                features = list(word.features)
                sums = [float(v[features].sum()) for v in (total, columns[0], -columns[1])]
                _add(gains, word.text, *sums)
        else:
            for number, (layout, values) in enumerate(
                zip((first, second), margin.left_layout.split(matrix.sum(1)), strict=True)
            ):
                for word in layout.words:
                    value = float(values[list(word.features)].sum())
                    _add(gains, word.text, value, *((value, 0.0) if number == 0 else (0.0, -value)))
        parts = [WordPart(word, *values) for word, values in gains.items()]
        return sorted(parts, key=lambda part: -part.part)

    @cached_property
    def alone(self) -> float:
        """What the two entries score whatever the words: the difference of what they have alone, and of the references."""
        margin = self.lead.margin
        alone = margin.base + float(margin.left_effects.double().sum())
        return alone if self.by_query_words else alone + float(margin.right_effects.double().sum())

    @cached_property
    def special(self) -> float:
        """What special positions of the texts add."""
        margin = self.lead.margin
        interaction = float(margin.matrix.double().sum())
        if self.by_query_words:
            interaction += float(margin.right_effects.double().sum())
        return interaction - sum(part.part for part in self.words)

    @property
    def unexplained(self) -> float:
        """What the parts miss of the lead."""
        return self.lead_value - sum(part.part for part in self.words) - self.alone - self.special

    @property
    def against(self) -> WordPart | None:
        """The word that speaks most for the right entry."""
        return self.words[-1] if self.words and self.words[-1].part < 0 else None

    def share(self, part: float | None) -> float:
        """A part as a share of the lead; NaN without one, or where the lead is zero."""
        return float("nan") if part is None or self.lead_value == 0 else part / self.lead_value

    @cached_property
    def reason(self) -> str:
        """The first of `REASONS` that holds."""
        lead = self.lead_value
        if self.alike == "same input" or lead < EQUAL:
            return "same input"
        if abs(self.unexplained) > MOST * lead:
            return "not explained"
        if self.alike is not None:
            return self.alike
        if self.usual is not None and self.usual > MOST * lead:
            return "usual similarity"
        sources = {"words": sum(part.part for part in self.words), "alone": self.alone, "special": self.special}
        largest = max(sources, key=sources.__getitem__)
        if largest != "words" or not self.words:
            return "entry alone" if largest == "alone" else "special positions"
        top = self.words[0]
        if top.part < MOST * sum(part.part for part in self.words if part.part > 0):
            return "several words"
        return "missing word" if top.right <= NOTHING * top.winner else "stronger word"

    def sentence(self) -> str:
        """The reason in words, with the numbers that it follows from."""
        query, entry = self.direction.nouns
        lead = f"{self.lead_value:.4f}"
        usual, top = self.usual or 0.0, self.words[0] if self.words else None
        word = "" if top is None else f"“{top.word}” {top.part:+.4f} of {lead}"
        several = ", ".join(f"“{part.word}” {part.part:+.4f}" for part in self.words[:3] if part.part > 0)
        return {
            "same input": f"the winner is as right: the same {'caption' if 'photograph' in (query, entry) else 'text'}, "
            "or equal vectors",
            "not explained": f"the explanation misses {self.unexplained:+.4f} of {lead}",
            "word order": f"the same words in another order; most by {word}",
            "same objects": f"both show every object that is named; most by {word}",
            "same words": f"the winner's captions have most of the words too; most by {word}",
            "usual similarity": f"the winner is closer to every {query} by {usual:+.4f}, of a lead of {lead}; then by {word}",
            "entry alone": f"the {plural(entry)} alone, against an empty {query}: {self.alone:+.4f} of {lead}; then by {word}",
            "special positions": f"special positions of the text: {self.special:+.4f} of {lead}",
            "missing word": f"the right {entry} gains nothing from {word}"
            if self.by_query_words
            else f"the right {entry} lacks {word}",
            "stronger word": f"{word}: {top.winner:+.4f} in the winner, {top.right:+.4f} in the right one"
            if top
            else "",
            "several words": f"several words: {several}, of {lead}",
        }[self.reason]


def explain_miss(
    direction: Direction, number: int, plain: Ranks, above: Ranks | None, alike: str | None = None
) -> Miss:
    """Query `number` of a direction; only its three inputs are read from the stores."""
    query = direction.queries[direction.query_keys[number]]
    rows = int(plain.winner[number]), int(plain.right[number])
    hits = []
    for row in rows:
        entry = direction.entries[direction.entry_keys[row]]
        hits.append(Hit(direction.entry_keys[row], entry.similarity_to(query), entry, query))
    usual = direction.usual
    return Miss(
        direction,
        direction.query_keys[number],
        int(plain.rank[number]),
        None if above is None else int(above.rank[number]),
        hits[0].compare(hits[1]),
        None if usual is None else float(usual[rows[0]] - usual[rows[1]]),
        alike,
    )


def _add(gains: dict[str, list[float]], word: str, part: float, winner: float, right: float) -> None:
    sums = gains.setdefault(word.casefold(), [0.0, 0.0, 0.0])
    for place, value in enumerate((part, winner, right)):
        sums[place] += value
