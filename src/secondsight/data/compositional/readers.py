"""Benchmarks of compositionality in the forms in which they are published."""

from __future__ import annotations

import random
import re
from pathlib import Path, PurePosixPath
from typing import Any

from secondsight.data.compositional.schema import Comparison, Comparisons, read_comparisons
from secondsight.data.grounded import EntryError, image_folder, parse_box, read_json, read_table
from secondsight.data.negatives import changed_words
from secondsight.support.errors import InputError

ORDER_WORDS = 30
"""ARO's word orders look at the first words of a caption."""


def winoground(path: str | Path, images: str | Path | None = None) -> Comparisons:
    """Winoground (Thrush et al. 2022): a folder with data/examples.jsonl, or that file; `images` default to images/ beside it.

    Tags are the published groups: Object, Relation or Both, the number of main predicates, and the secondary tag.
    """
    file = _file(path, ("data/examples.jsonl", "examples.jsonl"))
    folder = image_folder(images, "Winoground", file.parent / "images")

    def parse(key: str, row: dict[str, Any]) -> Comparison:
        names = [str(row[f"image_{number}"]) for number in (0, 1)]
        # Image names come without their ending.
        names = [name if PurePosixPath(name).suffix else f"{name}.png" for name in names]
        main = row.get("num_main_preds")
        tags = [
            str(row.get("collapsed_tag") or row.get("tag") or "").strip(),
            str(row.get("secondary_tag") or "").strip(),
        ]
        if main:
            tags.insert(1, f"{main} main predicate{'s' if main != 1 else ''}")
        return Comparison(
            str(row["id"]),
            tuple(names),
            tuple(find_image(folder, name) for name in names),
            (row["caption_0"], row["caption_1"]),
            ((0,), (1,)),
            tuple(filter(None, tags)),
        )

    return read_comparisons("Winoground", ((f"line {n}", row) for n, row in enumerate(read_table(file), 1)), parse)


def aro(file: str | Path, images: str | Path | None = None) -> Comparisons:
    """ARO (Yuksekgonul et al. 2023): VG-Relation, VG-Attribution, COCO-Order and Flickr30k-Order; `images` default to images/.

    Visual Genome's pictures are cropped to the box of the relation. Orders are read from lists of "caption_options", the
    right one first, or made from captions of Karpathy's splits, seeded: trigrams shuffled, and words within trigrams.
    """
    path = Path(file)
    folder = image_folder(images, "ARO", path.parent / "images")

    def parse(key: str, row: dict[str, Any]) -> Comparison:
        name = str(row.get("image_path") or row["image"])
        image = find_image(folder, name)
        if "caption_options" in row:
            options = tuple(row["caption_options"])
            return Comparison(key, (name,), (image,), options, ((0,),))
        attributes = row.get("attributes")
        tag = " / ".join(map(str, attributes)) if isinstance(attributes, list) else str(row.get("relation_name") or "")
        x, y, width, height = (float(row[f"bbox_{side}"]) for side in "xywh")
        box = parse_box((x, y, x + width, y + height))
        if box is None:
            raise EntryError("box without a width and a height")
        captions = (row["true_caption"], row["false_caption"])
        return Comparison(key, (name,), (image,), captions, ((0,),), (tag,) if tag else (), crops=(box,))

    def parse_order(key: str, row: tuple[str, str]) -> Comparison:
        name, caption = row
        words = _plain_words(caption)[:ORDER_WORDS]
        options = _orders(words, random.Random(f"order/{key}"))
        return Comparison(key, (name,), (find_image(folder, name),), options, ((0,),))

    rows = _list(read_json(path), path, "ARO")
    if rows and isinstance(rows[0], dict) and isinstance(rows[0].get("caption"), list):
        captions = [
            (f"{number}/{i}", (str(row["image"]), caption))
            for number, row in enumerate(rows)
            for i, caption in enumerate(row.get("caption") or [])
        ]
        return read_comparisons(f"ARO {path.stem}, orders", captions, parse_order)
    return read_comparisons(f"ARO {path.stem}", _numbered(rows), parse)


def _plain_words(caption: str) -> list[str]:
    """ARO compares captions in lower case without punctuation, which would tell a shuffled one."""
    return re.sub(r'[.!"()*#:;~]', " ", caption.lower()).split()


def _orders(words: list[str], rng: random.Random) -> tuple[str, ...]:
    """The words in their order, with trigrams shuffled, and with the words of each trigram shuffled."""
    trigrams = [words[i : i + 3] for i in range(0, len(words), 3)]
    shuffled = rng.sample(trigrams, len(trigrams))
    within = [rng.sample(trigram, len(trigram)) for trigram in trigrams]
    right, *wrong = (" ".join(word for trigram in order for word in trigram) for order in (trigrams, shuffled, within))
    return (right, *dict.fromkeys(caption for caption in wrong if caption != right))


def sugarcrepe_pp(file: str | Path, images: str | Path | None = None) -> Comparisons:
    """SugarCrepe++ (Dumpala et al. 2024): "caption" and "caption2" fit a picture of COCO val2017, "negative_caption" not."""
    path = Path(file)
    folder = image_folder(images, "SugarCrepe++")

    def parse(key: str, row: dict[str, Any]) -> Comparison:
        name = str(row["filename"])
        captions = (row["caption"], row["caption2"], row["negative_caption"])
        return Comparison(key, (name,), (find_image(folder, name),), captions, ((0, 1),), (path.stem,))

    data = read_json(path)
    rows = data.items() if isinstance(data, dict) else _numbered(_list(data, path, "SugarCrepe++"), "id")
    return read_comparisons(f"SugarCrepe++ {path.stem}", rows, parse)


def whatsup(file: str | Path, images: str | Path | None = None) -> Comparisons:
    """What'sUp (Kamath et al. 2023): "image_path" and "caption_options", the right one first; `images` default to its folder.

    The tag is the relation in the image's name, and the pictures of the same two objects are a group. COCO-QA and VG-QA are
    lists of image number, right and wrong caption; their tag is the right caption's relation.
    """
    path = Path(file)
    folder = image_folder(images, "What'sUp", path.parent)

    def parse(key: str, row: Any) -> Comparison:
        if isinstance(row, list):
            number, right, wrong = row
            # COCO's names have twelve digits, Visual Genome's as many as they need.
            long, short = (find_image(folder, name) for name in (f"{int(number):012}.jpg", f"{int(number)}.jpg"))
            image = long if long.is_file() else short
            span = changed_words(right, wrong)[0]
            return Comparison(
                key, (image.name,), (image,), (right, wrong), ((0,),), (right[slice(*span)],) if span else ()
            )
        name = str(row["image_path"])
        first, *relation, last = PurePosixPath(name).stem.split("_")
        return Comparison(
            key,
            (name,),
            (find_image(folder, name),),
            tuple(row["caption_options"]),
            ((0,),),
            (" ".join(relation),) if relation else (),
            group=f"{first}/{last}" if relation else "",
        )

    return read_comparisons(f"What'sUp {path.stem}", _numbered(_list(read_json(path), path, "What'sUp")), parse)


def mmvp_vlm(path: str | Path, images: str | Path | None = None) -> Comparisons:
    """MMVP-VLM (Tong et al. 2024): a folder with Questions.csv, or that file; `images` default to "MLLM_VLM Images" beside it.

    Columns are number, type and statement. Numbers 1 and 2 are a pair, 3 and 4 the next; the picture of a statement is
    TYPE/NUMBER.jpg. Statements are read after "a photo of", as the authors do.
    """
    file = _file(path, ("Questions.csv",))
    folder = image_folder(images, "MMVP-VLM", file.parent / "MLLM_VLM Images")
    pairs: dict[int, dict[int, tuple[str, str]]] = {}
    problems: dict[str, str] = {}
    for line, row in enumerate(read_table(file), 2):
        number, *texts = [value.strip() if isinstance(value, str) else "" for value in row.values()][:3]
        if number.isdecimal() and int(number) > 0 and len(texts) == 2:
            pairs.setdefault((int(number) - 1) // 2, {})[int(number)] = (texts[0], texts[1])
        else:
            problems[f"line {line}"] = "no number, type and statement"

    def parse(key: str, rows: dict[int, tuple[str, str]]) -> Comparison:
        if len(rows) < 2:
            raise EntryError("a statement without the other one of its pair")
        if not all(statement for _, statement in rows.values()):
            raise EntryError("empty caption")
        numbers = sorted(rows)
        names = tuple(f"{rows[number][0]}/{number}.jpg" for number in numbers)
        pictures = tuple(find_image(folder, name) for name in names)
        captions = tuple(f"a photo of {rows[number][1]}" for number in numbers)
        return Comparison(key, names, pictures, captions, ((0,), (1,)), (rows[numbers[0]][0],))

    data = read_comparisons(
        "MMVP-VLM", ((f"{2 * pair + 1}-{2 * pair + 2}", rows) for pair, rows in pairs.items()), parse
    )
    data.problems |= problems
    return data


def vl_checklist(file: str | Path, images: str | Path | None = None) -> Comparisons:
    """VL-CheckList (Zhao et al. 2022): [image, {"POS": […], "NEG": […]}]; the first captions count, as published."""
    path = Path(file)
    folder = image_folder(images, "VL-CheckList")

    def parse(key: str, row: Any) -> Comparison:
        name, texts = row
        captions = (texts["POS"][0], texts["NEG"][0])
        return Comparison(key, (name,), (find_image(folder, name),), captions, ((0,),), (path.stem,))

    return read_comparisons(f"VL-CheckList {path.stem}", _numbered(_list(read_json(path), path, "VL-CheckList")), parse)


def find_image(folder: Path, name: str) -> Path:
    """The file of this name in a folder; leading folders that only the benchmark's authors have are left out."""
    parts = Path(name).parts
    candidates = [folder.joinpath(*parts[start:]) for start in range(len(parts))]
    return next((candidate for candidate in candidates if candidate.is_file()), folder / name)


def _file(path: str | Path, names: tuple[str, ...]) -> Path:
    """The file itself, or the first of these in the folder."""
    folder = Path(path)
    if not folder.is_dir():
        return folder
    name = next((name for name in names if (folder / name).is_file()), None)
    if name is None:
        raise InputError(f"the folder {str(path)!r} has no {names[0]}: give the benchmark's folder or its file")
    return folder / name


def _list(data: Any, path: Path, kind: str) -> list[Any]:
    if not isinstance(data, list):
        raise InputError(f"{str(path)!r} is not a file of {kind}: it needs a list")
    return data


def _numbered(rows: list[Any], field: str = "") -> list[tuple[str, Any]]:
    """Rows by their own key if they have one, else by their number."""
    return [
        (str(row[field]) if isinstance(row, dict) and field in row else str(number), row)
        for number, row in enumerate(rows)
    ]
