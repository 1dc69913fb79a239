"""The kinds of data sets, and opening one by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from secondsight.data.coco import Coco
from secondsight.data.compositional import (
    aro,
    mmvp_vlm,
    open_scene_pairs,
    read_compositional,
    sugarcrepe_pp,
    vl_checklist,
    whatsup,
    winoground,
)
from secondsight.data.flickr30k import Flickr30k
from secondsight.data.grounded import GroundedDataset
from secondsight.data.hnc import Hnc
from secondsight.data.jsonl import Jsonl
from secondsight.data.mask_folders import is_mask_folder, open_mask_folder
from secondsight.data.scenes import open_scenes
from secondsight.data.sugarcrepe import sugarcrepe
from secondsight.support.errors import InputError


class Kind(NamedTuple):
    """A kind of data set: the help that names its parts, and a function of PATH and PART (None without #PART)."""

    help: str
    open: Callable[[str, str | None], GroundedDataset]


KINDS = {
    "aro": Kind("aro:FILE.json[#IMAGES]: ARO's relations, attributes or word orders", aro),
    "coco": Kind("coco:FOLDER[#SPLIT]: annotations/captions_SPLIT.json, instances_SPLIT.json and the images", Coco),
    "compositional": Kind("compositional:FILE.jsonl[#IMAGES]: images, captions, which fits", read_compositional),
    "flickr30k": Kind("flickr30k:FOLDER[#SPLIT]: Sentences, Annotations, flickr30k-images", Flickr30k),
    "hnc": Kind("hnc:FILE.json#IMAGES: HNC's captions and the folder of Visual Genome's images", Hnc),
    "jsonl": Kind("jsonl:FILE.jsonl[#IMAGES]: a JSON object a line", Jsonl),
    "masks": Kind("masks:FOLDER[#CLASSES]: ImageNet-S, Pascal VOC or PartImageNet; class names", open_mask_folder),
    "mmvp-vlm": Kind("mmvp-vlm:FOLDER[#IMAGES]: MMVP-VLM's Questions.csv and its folder of images", mmvp_vlm),
    "scene-pairs": Kind(
        "scene-pairs:STYLE[/COUNT][#SEED]: two drawn scenes, two captions of the same words", open_scene_pairs
    ),
    "scenes": Kind("scenes:STYLE[/COUNT][#SEED]: the package's own world; noto, twemoji or fluent", open_scenes),
    "sugarcrepe": Kind("sugarcrepe:FILE.json#IMAGES: SugarCrepe and the folder of COCO's val2017", sugarcrepe),
    "sugarcrepe++": Kind("sugarcrepe++:FILE.json#IMAGES: SugarCrepe++ and the folder of COCO's val2017", sugarcrepe_pp),
    "vl-checklist": Kind("vl-checklist:FILE.json#IMAGES: VL-CheckList's file and the images it names", vl_checklist),
    "whatsup": Kind("whatsup:FILE.json[#IMAGES]: What'sUp's controlled images, COCO-QA or VG-QA", whatsup),
    "winoground": Kind("winoground:FOLDER[#IMAGES]: Winoground's examples.jsonl and images", winoground),
}
"""Every kind of data set by its prefix, as in `coco:FOLDER`. A new data set needs one line here."""


def open_data(spec: str | Path) -> GroundedDataset:
    """The data set named by `KIND:PATH[#PART]`; the kind of a path alone is recognised from its files."""
    kind, colon, name = str(spec).partition(":")
    if not colon or kind not in KINDS:
        if colon and "/" not in kind and "\\" not in kind and not Path(spec).exists():
            raise InputError(f"unknown kind of data {kind!r}; known: {', '.join(KINDS)}")
        kind, name = recognise(str(spec)), str(spec)
    path, _, part = name.partition("#")
    return KINDS[kind].open(path, part or None)


def recognise(spec: str) -> str:
    """The kind of data set at `PATH[#PART]`."""
    path = Path(spec.partition("#")[0])
    if not path.exists():
        raise InputError(f"data {str(path)!r} does not exist")
    if path.suffix == ".jsonl":
        return "jsonl"
    if is_mask_folder(path):
        return "masks"
    if (path / "annotations").is_dir():
        return "coco"
    if (path / "Sentences").is_dir():
        return "flickr30k"
    if path.is_dir() and not any(path.iterdir()):
        raise InputError(f"data {str(path)!r} is an empty folder")
    if path.suffix in (".csv", ".tsv"):
        raise InputError(
            f"data {str(path)!r} is a table, which only some commands read: secondsight gate --pairs FILE, evaluate zero-shot "
            "--data labels:FILE, evaluate retrieval --data pairs:FILE (two texts); else give a JSONL file, jsonl:FILE"
        )
    names = "; ".join(kind.help for kind in KINDS.values())
    raise InputError(f"cannot recognise the data in {str(path)!r} from its files; name its kind: {names}")
