"""What the answers claim about a model with a planted fault, as rows of (part, name, q), for `planted.py`."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

import secondsight as ss
from secondsight.answers import Collection, open_collection
from secondsight.answers.audit.hubs import hub_table
from secondsight.answers.audit.rankings import Direction
from secondsight.answers.audit.spurious import spurious_table
from secondsight.answers.audit.spurious_cases import scenes_of, spurious_cases
from secondsight.answers.audit.word_parts import CONTENT, part_of, word_parts
from secondsight.answers.audit.words import word_table
from secondsight.answers.significance import FEWEST, equivalence_p, image_means, q_values
from secondsight.answers.zero_shot import zero_shot
from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.data.labelled import LabelledData, LabelledImage
from secondsight.scale import open_store

Claims = pd.DataFrame
"""Columns `name` and `q`; everything that was tested, claimed or not."""

SHARES = (0.1, 0.25)
"""A word is ignored where exchanging it changes less than this share of what the average content word's exchange changes."""


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


def hubs(data: Embedded) -> Claims:
    """Images and captions that are close to everything."""
    tables = []
    names = [f"image {e.image_key}" for e in data.entries], [f"caption {e.caption}" for e in data.entries]
    for side, own, others in ((0, data.images, data.captions), (1, data.captions, data.images)):
        right, zero = torch.arange(len(own))[:, None], torch.zeros_like(own)
        table = hub_table(Direction("", others, zero, own, zero, right))
        tables.append(pd.DataFrame({"name": names[side], "q": table["q"]}))
    return pd.concat(tables)


def words(folder: Path, data: GroundedDataset, texts: str) -> Claims:
    """Words that are ignored by the attributions to captions in the store `texts`."""
    table = word_table(word_parts(with_texts(folder, data, texts)))
    return table.loc[table["kind"] == "content", ["word", "q ignored"]].set_axis(["name", "q"], axis=1)


def spurious(folder: Path, data: GroundedDataset, texts: str) -> Claims:
    """Words that rest on another object or on a background, by the attributions to captions in the store `texts`."""
    collection = with_texts(folder, data, texts)
    table = spurious_table(spurious_cases(collection, scenes_of(collection)))
    names = table["class"].str.cat(table["region"], " / ")
    return pd.DataFrame({"name": names, "q": table["q"], "reading": table["reading"], "p": table["p"]})


def with_texts(folder: Path, data: GroundedDataset, texts: str) -> Collection:
    """Stores of images and of captions; both decompose the same embeddings, at whichever layer."""
    whole = open_collection(folder / "image", folder / "text", data)
    if texts != "text":
        whole.texts = open_store(folder / texts)
        whole.texts.facts["space"] = whole.images.facts["space"]
    return whole


def exchanged(data: Embedded, by: str, share: float, seed: int = 0) -> Claims:
    """Words, or places of words, where exchanging a word for another that captions have in the same place changes nothing.

    What a word does is s(image, caption) − s(image, caption with another word between the same two neighbours). A word, or `by`
    "place" all words between two neighbours together, is ignored where that is surely within `share` of the average content
    word's, whichever its sign.
    """
    between = defaultdict(set)
    for entry in data.entries:
        for before, word, after in _places(entry.caption):
            between[before, after].add(word)
    rng, rows = random.Random(seed), []
    for number, entry in enumerate(data.entries):
        tokens = _tokens(entry.caption)
        for place, (before, word, after) in enumerate(_places(entry.caption)):
            others = sorted(other for other in between[before, after] - {word} if part_of(other) == CONTENT)
            if part_of(word) == CONTENT and others:
                caption = " ".join([*tokens[:place], rng.choice(others), *tokens[place + 1 :]]).replace(" ,", ",")
                rows.append((word, f"{before} … {after}", number, caption))
    table = pd.DataFrame(rows, columns=["word", "place", "image", "caption"])
    changed = F.normalize(data.model.right.embed(list(table["caption"])), dim=-1)
    numbers = torch.tensor(table["image"].to_numpy())
    table["effect"] = ((data.captions[numbers] - changed) * data.images[numbers]).sum(1).double().numpy()
    means = image_means(table, by, "effect")
    p = equivalence_p(means, share * image_means(table.assign(all=1), "all", "effect")["mean"].iloc[0])
    tested = (means["images"] >= FEWEST).to_numpy()
    effects = means["mean"][tested].to_numpy()
    return pd.DataFrame({"name": means.index[tested], "q": q_values(p[tested]), "effect": effects})


def _tokens(caption: str) -> list[str]:
    return caption.replace(",", " ,").split()


def _places(caption: str) -> list[tuple[str, str, str]]:
    """Every word with its neighbours; "an" counts as "a"."""
    tokens = ["", *("a" if t == "an" else t for t in _tokens(caption)), ""]
    return list(zip(tokens, tokens[1:], tokens[2:], strict=False))


def confusions(model: ss.DualEncoder, images: Sequence[LabelledImage], out: Path) -> Claims:
    """Classes that are taken for each other more than by chance."""
    # The method explains confusions and does not change them; the last layer costs least.
    answer = zero_shot(LabelledData.of("planted", images), model, out, "last-layer")
    table = answer.get("confusions", pd.DataFrame(columns=["class", "taken for", "q"]))
    names = [" / ".join(sorted(pair)) for pair in zip(table["class"], table["taken for"], strict=True)]
    return pd.DataFrame({"name": names, "q": table["q"].to_numpy()}).groupby("name", as_index=False).min()
