"""Hubs in a search: which ranking finds a caption's photograph? python benchmarks/search_hubs.py COCO_FOLDER [SPLIT [MODEL]]

Every caption of a COCO folder ranks its photographs: by the similarity; with each photograph's usual similarity taken off, its
mean over ordinary captions (those that come with the package, or all captions of the data set itself); and with the term of
the photograph alone taken off, which one might try instead. Recall@k: the share of captions whose own photograph is among
the first k. `firsts`: for how many captions the most frequent winner comes first. Vectors are kept beside COCO_FOLDER's name
in the folder for temporary files, so that a second run is quick.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

import secondsight as ss
from secondsight.scale import OrdinaryQueries, decompose, open_source, open_store, ordinary_captions
from secondsight.scale.search import search


def main(folder: Path, split: str = "train2017", name: str = "builtin") -> None:
    """Print the table, and write it to benchmarks/results."""
    model = ss.load(name)
    spec = f"coco:{folder}#{split}"
    place = (
        Path(tempfile.gettempdir()) / f"search-hubs-{folder.name}-{split}-{name.replace('/', '-').replace(':', '-')}"
    )
    for side in ("image", "text"):
        decompose(open_source(spec, side), model, place / side, dtype="float32")
    photos, captions = open_store(place / "image"), open_store(place / "text")
    own = OrdinaryQueries.of(model.side("text"), ordinary_captions())
    whole = OrdinaryQueries(captions.embeddings.double().mean(0), len(captions))
    rankings = {
        "similarity": {"rank": "similarity"},
        "usual taken off, the package's captions": {"rank": "above-usual", "ordinary": own},
        "usual taken off, the data set's captions": {"rank": "above-usual", "ordinary": whole},
    }
    ranks = {title: ([], Counter()) for title in (*rankings, "image alone taken off")}
    for key in captions:
        query, photo = captions[key], photo_of(key, photos)
        for title, options in rankings.items():
            note(ranks[title], [hit.key for hit in search(photos, query, len(photos), **options)], photo)
        pairs = {other: photos[other] @ query for other in photos}
        order = sorted(pairs, key=lambda other: pairs[other].terms.left - pairs[other].similarity)
        note(ranks["image alone taken off"], order, photo)
    table = {title: summary(places, firsts) for title, (places, firsts) in ranks.items()}
    for title, row in table.items():
        print(f"{title:42}" + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    facts = {"model": name, "photographs": len(photos), "captions": len(captions), "ordinary": own.count}
    results = Path(__file__).parent / "results" / "search-hubs.json"
    results.write_text(json.dumps({**facts, "rankings": table}, indent=1) + "\n")


def photo_of(key: str, photos) -> str:
    """The photograph of a caption's key, PHOTO/CAPTION."""
    photo = key.rpartition("/")[0]
    assert photo in photos, f"{key!r} belongs to none of the photographs"
    return photo


def note(counts, order, photo) -> None:
    """Add the place of the right photograph, and the winner."""
    places, firsts = counts
    places.append(order.index(photo))
    firsts[order[0]] += 1


def summary(places, firsts) -> dict[str, float]:
    """Recall@1 and @5, the median place and the most frequent winner's count."""
    found = torch.tensor(places)
    recall = {f"recall@{k}": float((found < k).double().mean()) for k in (1, 5)}
    return {**recall, "median place": float(found.median()) + 1, "firsts": firsts.most_common(1)[0][1]}


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:4])
