"""A small data set of captions with boxes, on disk."""

from pathlib import Path

from families import photographs
from secondsight.data import GroundedCaption, Negative, Phrase, Region, write_jsonl


def write_data(folder: Path, count: int = 4) -> Path:
    """A JSONL file of `count` photographs, each with a dog, a cat and one wrong caption."""
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number in range(count):
        image = photographs()[number % 2].resize((64 + 8 * number, 64))
        file = folder / f"{number}.png"
        image.save(file)
        width = image.width
        phrases = (
            Phrase((2, 5), ((2.0, 2.0, 40.0, 40.0),), "dog"),
            Phrase((12, 15), ((30.0, 30.0, float(width), 62.0),), "cat"),
        )
        regions = (Region("dog", phrases[0].boxes[0], "animal"), Region("cat", phrases[1].boxes[0], "animal"))
        negatives = (Negative("a cow and a cat", (2, 5), (2, 5), "replace_obj"),)
        example = GroundedCaption(str(number), f"{number}.png", file, "a dog and a cat", phrases, regions, negatives)
        examples.append(example)
    write_jsonl(folder / "data.jsonl", examples)
    return folder / "data.jsonl"
