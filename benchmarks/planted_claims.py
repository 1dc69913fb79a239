"""What the answers claim about a model with a planted fault, as rows of (part, name, q), for `planted.py`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

import secondsight as ss
from secondsight.answers import Collection, open_collection
from secondsight.answers.audit.exchanged import IGNORED, draw_exchanges, exchange_table, measure_exchanges
from secondsight.answers.audit.hubs import hub_table
from secondsight.answers.audit.rankings import Direction
from secondsight.answers.audit.spurious import spurious_table
from secondsight.answers.audit.spurious_cases import scenes_of, spurious_cases
from secondsight.answers.audit.word_parts import word_parts
from secondsight.answers.audit.words import word_table
from secondsight.answers.significance import FEWEST
from secondsight.answers.zero_shot import zero_shot
from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.data.labelled import LabelledData, LabelledImage

Claims = pd.DataFrame
"""Columns `name` and `q`; everything that was tested, claimed or not."""

SHARES = {"audit": IGNORED, "stricter": 0.1}
"""A word is ignored where exchanging it changes less than this share of what the average exchange does."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """Entries with the normalised embeddings of their images and captions."""

    model: ss.DualEncoder
    entries: Sequence[GroundedCaption]
    images: torch.Tensor
    captions: torch.Tensor

    @classmethod
    def of(cls, model: ss.DualEncoder, data: GroundedDataset) -> "Embedded":
        """The embeddings of a data set."""
        entries = list(data)
        images = F.normalize(model.left.embed([e.image for e in entries]), dim=-1)
        return cls(model, entries, images, F.normalize(model.right.embed([e.caption for e in entries]), dim=-1))

    @cached_property
    def exchanges(self) -> pd.DataFrame:
        """Captions with a word exchanged, and their similarities, as the audit has them."""
        texts = [prepared.tokenized for prepared in self.model.right.prepare([e.caption for e in self.entries])]
        captions = [(number, text.layout(len(text.tokens))) for number, text in enumerate(texts)]
        return measure_exchanges(draw_exchanges(captions), self.images, self.captions, self.model.right)


def hubs(data: Embedded) -> Claims:
    """Images and captions that are close to everything."""
    tables = []
    names = [f"image {e.image_key}" for e in data.entries], [f"caption {e.caption}" for e in data.entries]
    for side, own, others in ((0, data.images, data.captions), (1, data.captions, data.images)):
        right, zero = torch.arange(len(own))[:, None], torch.zeros_like(own)
        table = hub_table(Direction("", others, zero, own, zero, right))
        tables.append(pd.DataFrame({"name": names[side], "q": table["q"]}))
    return pd.concat(tables)


def open_stores(folder: Path, data: GroundedDataset) -> Collection:
    """The collection that `planted.py decompose` wrote to a folder."""
    return open_collection(folder / "image", folder / "text", data)


def words(collection: Collection) -> Claims:
    """Words that are ignored by their attributions."""
    table = word_table(word_parts(collection))
    return table.loc[table["kind"] == "content", ["word", "q ignored"]].set_axis(["name", "q"], axis=1)


def spurious(collection: Collection) -> Claims:
    """Words that rest on another object or on a background."""
    table = spurious_table(spurious_cases(collection, scenes_of(collection)))
    names = table["class"].str.cat(table["region"], " / ")
    return pd.DataFrame({"name": names, "q": table["q"], "reading": table["reading"], "p": table["p"]})


def exchanged(data: Embedded, by: str, share: float) -> Claims:
    """Words or places of words, see `by`, where exchanging a word changes less than `share` of the average exchange."""
    table = exchange_table(data.exchanges, by, share)
    return table.loc[table["images"] >= FEWEST, [by, "q", "effect"]].rename(columns={by: "name"})


def confusions(model: ss.DualEncoder, images: Sequence[LabelledImage], out: Path) -> Claims:
    """Classes that are taken for each other more than by chance."""
    # The method explains confusions and does not change them; the last layer costs least.
    answer = zero_shot(LabelledData.of("planted", images), model, out, "last-layer")
    table = answer.get("confusions", pd.DataFrame(columns=["class", "taken for", "q"]))
    names = [" / ".join(sorted(pair)) for pair in zip(table["class"], table["taken for"], strict=True)]
    return pd.DataFrame({"name": names, "q": table["q"].to_numpy()}).groupby("name", as_index=False).min()
