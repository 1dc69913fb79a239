"""SugarCrepe: captions of COCO images, each with one hard negative (Hsieh et al. 2023)."""

from __future__ import annotations

from pathlib import Path

from secondsight.data.grounded import GroundedCaption, ListedDataset, Negative, image_folder, read_json
from secondsight.data.negatives import changed_words
from secondsight.support.errors import InputError

FIELDS = ("filename", "caption", "negative_caption")


def sugarcrepe(file: str | Path, images: str | Path | None = None) -> ListedDataset:
    """SugarCrepe's JSON: "0": {"filename", "caption", "negative_caption"}; `images` is the folder of COCO val2017."""
    path = Path(file)
    folder, data = image_folder(images, "SugarCrepe"), read_json(path)
    if not isinstance(data, dict | list):
        raise InputError(f"{str(file)!r} is not a SugarCrepe file: it needs an object or a list")
    entries, problems = [], {}
    for key, row in data.items() if isinstance(data, dict) else enumerate(data):
        texts = [row.get(name) if isinstance(row, dict) else None for name in FIELDS]
        name, right, wrong = (text if isinstance(text, str) and text.strip() else None for text in texts)
        if name is None or right is None or wrong is None:
            problems[str(key)] = "no filename, caption and negative_caption"
            continue
        before, after = changed_words(right, wrong)
        negative = Negative(wrong, after, before, path.stem)
        entries.append(GroundedCaption(str(key), name, folder / name, right, negatives=(negative,)))
    return ListedDataset(f"SugarCrepe {path.stem}", entries, problems)
