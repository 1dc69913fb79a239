"""Draws the scenes' objects: python scripts/render_sprites.py NPM_FOLDER, then update the hashes it prints.

NPM_FOLDER holds the unpacked packages @iconify-json/noto, twemoji and fluent-emoji-flat (npm pack, tar -x). Needs
cairosvg. Each style becomes one sheet of 64-pixel drawings, ten a row, in the order of classes.tsv.
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import cairosvg
import numpy as np
from PIL import Image

STYLES = {"noto": "noto", "twemoji": "twemoji", "fluent": "fluent-emoji-flat"}
SIDE, COLUMNS = 64, 10


def plain(codepoint: str) -> str:
    return codepoint.lower().replace("-fe0f", "")


def drawing(icons: dict, name: str) -> np.ndarray:
    while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )
    png = cairosvg.svg2png(svg.encode(), output_width=SIDE, output_height=SIDE)
    return np.array(Image.open(io.BytesIO(png)).convert("RGBA"))


def main() -> None:
    source = Path(sys.argv[1])
    target = Path(__file__).parents[1] / "src/secondsight/data/scenes"
    codes = [line.split("\t")[2] for line in (target / "classes.tsv").read_text().splitlines()[1:]]
    for style, package in STYLES.items():
        icons = json.loads((source / package / "icons.json").read_text())
        chars = {plain(k): v for k, v in json.loads((source / package / "chars.json").read_text()).items()}
        rows = -(-len(codes) // COLUMNS)
        sheet = np.zeros((rows * SIDE, COLUMNS * SIDE, 4), np.uint8)
        for i, code in enumerate(codes):
            y, x = SIDE * (i // COLUMNS), SIDE * (i % COLUMNS)
            sheet[y : y + SIDE, x : x + SIDE] = drawing(icons, chars[code])
        file = target / f"{style}.png"
        Image.fromarray(sheet).save(file, optimize=True)
        print(style, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size)


if __name__ == "__main__":
    main()
