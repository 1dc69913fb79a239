"""The pages of the documentation, their code and their commands, with small stand-ins for what takes readers long."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

from secondsight.data import Scenes, export_coco, write_jsonl

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks(page: Path) -> list[str]:
    """The code of a page's blocks of Python, without indented ones, which belong to lists of steps."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M)


def shell_commands(page: Path) -> list[str]:
    """The commands of a page's shell blocks, without comments."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def replace_all(text: str, stand_ins: dict[str, str]) -> str:
    """The text with each key replaced by its value, in order."""
    for original, stand_in in stand_ins.items():
        text = text.replace(original, stand_in)
    return text


def write_reader_folder(folder: Path) -> None:
    """Fills a folder with what readers of the documentation have: photographs, data sets and a fine-tuned model."""
    scenes = list(Scenes(12, seed=6))
    scenes[0].image.save(folder / "scene.png")
    (folder / "examples").symlink_to(ROOT / "examples")
    for split in ("train2017", "val2017"):
        export_coco(Scenes(8, seed=len(split)), folder / "coco", split)
    for name in ("photos", "mine", "tuned"):
        (folder / name).mkdir()
    captions = []
    for i, scene in enumerate(scenes):
        # Two photographs are enough for commands that go through a whole folder.
        photo = folder / ("photos" if i < 2 else "mine") / f"{i}.png"
        scene.image.save(photo)
        captions.append(replace(scene, image=photo, image_key=str(i)))
    for i, name in enumerate(("cat", "tree", "cat", "tree")):
        (folder / "photos_by_class" / name).mkdir(parents=True, exist_ok=True)
        scenes[i].image.save(folder / "photos_by_class" / name / f"{i}.png")
    write_jsonl(folder / "photos.jsonl", captions[:4])
    write_jsonl(folder / "mine" / "data.jsonl", captions)
    weights = ROOT / "src" / "secondsight" / "encoders" / "families" / "scenes.safetensors"
    shutil.copy(weights, folder / "tuned" / "model.safetensors")
