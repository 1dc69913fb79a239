"""Pointing accuracy of the builtin model on a COCO folder: python benchmarks/builtin_pointing.py COCO_FOLDER [SPLIT [METHOD…]]

Protocol ([M25] §4.2, per-pixel rule): every caption that names an object (the category's name, plural allowed), where the
image has one instance of the category, not a crowd, with a box larger than one 14×14 patch of the image. The span's
attribution map, by default of two presets, is upsampled bilinearly to the photograph. PGA: share of maps whose highest pixel
lies in the box. PGE: positive attribution in the box over positive attribution everywhere; chance is the box's area.
"""

import re
import statistics
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path

import torch
from pycocotools.coco import COCO

import secondsight as ss
from secondsight.explanation import explain_prepared
from secondsight.methods import method_of_text

PATCHES = 196


def cases(folder: Path, split: str):
    """(file, caption, character span, box as x0, y0, x1, y1), ordered by file and caption."""
    instances = COCO(folder / "annotations" / f"instances_{split}.json")
    captions = COCO(folder / "annotations" / f"captions_{split}.json")
    for caption in captions.dataset["annotations"]:
        if caption["image_id"] not in instances.imgs:
            continue
        image = instances.imgs[caption["image_id"]]
        objects = instances.imgToAnns[image["id"]]
        count = Counter(a["category_id"] for a in objects)
        for a in objects:
            name = instances.cats[a["category_id"]]["name"]
            x, y, w, h = a["bbox"]
            match = re.search(rf"\b{re.escape(name)}(es|s)?\b", caption["caption"].lower())
            single = count[a["category_id"]] == 1 and not a["iscrowd"]
            if match and single and w * h >= image["width"] * image["height"] / PATCHES:
                yield folder / split / image["file_name"], caption["caption"], match.span(), (x, y, x + w, y + h)


def measure(model: ss.DualEncoder, pointing_cases, method: ss.Method) -> dict[str, float]:
    """PGA, median PGE and chance over the cases."""
    hits, energies, areas = [], [], []
    for file, photo_cases in groupby(pointing_cases, key=lambda case: case[0]):
        photo_cases = list(photo_cases)
        # The photograph's path is computed once for all of its captions.
        (image,) = model.left.prepare([file])
        captions = list(dict.fromkeys(caption for _, caption, _, _ in photo_cases))
        explanations = explain_prepared(model, image, model.right.prepare(captions), method)
        by_caption = dict(zip(captions, explanations, strict=True))
        for _, caption, span, (x0, y0, x1, y1) in photo_cases:
            heat = by_caption[caption].heatmap(span)
            box = torch.zeros_like(heat)
            box[int(y0) : int(y1), int(x0) : int(x1)] = 1
            positive = heat.clamp(min=0)
            hits.append(float(box.flatten()[heat.flatten().argmax()]))
            energies.append(float((positive * box).sum() / positive.sum().clamp(min=1e-12)))
            areas.append(float(box.mean()))
    return {
        "cases": len(hits),
        "PGA": statistics.mean(hits),
        "median PGE": statistics.median(energies),
        "PGE above 0.8": statistics.mean(e > 0.8 for e in energies),
        "chance": statistics.mean(areas),
    }


if __name__ == "__main__":
    root, part = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "train2017"
    model, pairs = ss.load("builtin"), list(cases(root, part))
    for text in sys.argv[3:] or ("grounded", "last-layer"):
        print(text)
        for key, value in measure(model, pairs, method_of_text(text)).items():
            print(f"{key:>14} {value:.3f}" if isinstance(value, float) else f"{key:>14} {value}", flush=True)
