"""The kinds of data sets, and opening one by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from secondsight.data.coco import Coco
from secondsight.data.flickr30k import Flickr30k
from secondsight.data.grounded import GroundedDataset
from secondsight.data.hnc import Hnc
from secondsight.data.jsonl import Jsonl
from secondsight.data.scenes import open_scenes
from secondsight.data.sugarcrepe import sugarcrepe
from secondsight.support.errors import InputError


class Kind(NamedTuple):
    """A kind of data set: the help that names its parts, and a function of PATH and PART (None without #PART)."""

    help: str
    open: Callable[[str, str | None], GroundedDataset]


KINDS = {
    "coco": Kind("coco:FOLDER[#SPLIT]: annotations/captions_SPLIT.json, instances_SPLIT.json and the images", Coco),
    "flickr30k": Kind("flickr30k:FOLDER[#SPLIT]: Sentences, Annotations, flickr30k-images", Flickr30k),
    "hnc": Kind("hnc:FILE.json#IMAGES: HNC's captions and the folder of Visual Genome's images", Hnc),
    "jsonl": Kind("jsonl:FILE.jsonl[#IMAGES]: a JSON object a line", Jsonl),
    "scenes": Kind("scenes:STYLE[/COUNT][#SEED]: the package's own world; noto, twemoji or fluent", open_scenes),
    "sugarcrepe": Kind("sugarcrepe:FILE.json#IMAGES: SugarCrepe and the folder of COCO's val2017", sugarcrepe),
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
