"""Write docs/families.md: what every family of the conformance suite has, read from the encoders themselves.

    python scripts/families_table.py

A test fails when the page is not what this would write.
"""

import sys
import warnings
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import torch  # noqa: E402

import secondsight as ss  # noqa: E402
from families import CAPTIONS, FAMILIES, Example, photographs  # noqa: E402
from families.hub_more import blip2  # noqa: E402
from families.late_interaction import LATE  # noqa: E402
from secondsight.model import Side  # noqa: E402
from secondsight.support.guard import untouched  # noqa: E402

PAGE = ROOT / "docs" / "families.md"
LIBRARIES = {
    "hf": "transformers: `hf:NAME_OR_FOLDER`, or `ss.wrap(model, processor)`",
    "open-clip": "open_clip: `open_clip:ARCHITECTURE/TAG_OR_PATH`, or `ss.wrap(model, preprocess, tokenizer)`",
    "st": "sentence-transformers: `st:NAME_OR_FOLDER`, or `ss.wrap(model)`",
    "builtin": "builtin: `builtin`",
}
LATE_INTERACTION = (
    "[Late interaction](late_interaction.md): sentence-transformers' MultiVectorEncoder (`st:…`) and transformers' BLIP-2 "
    "(`hf:…`), or `ss.wrap(model, …)`"
)
INTRO = """# Families

<!-- Written by scripts/families_table.py from the encoders themselves. -->

Every line is a family of the conformance suite (`tests/support/families/`), run in float64: the encoder reproduces the host
library's own embedding, with the host's own preprocessing, to 1e-5; its head and all strategies agree to 1e-10, or to
3e-6 where the host computes parts in float32 whatever its weights are (ALIGN, AIMv2, CLAP, T5, Qwen).

*Closed form* says whether layer −1 has the `pooled` strategy, which costs less than one forward pass; `auto` takes it.
Without it, and at every other layer, `forward`, `reverse` and, for a pair, `paired` give the same numbers. `"input"`
(pixels, spectrogram bins, token embeddings) is a layer of every family.

| family | side | pool | closed form at −1 | strategies at −1 |
|---|---|---|---|---|
"""


def line(side: Side, raw: object) -> tuple[str, str, str, str]:
    """(side, pool, closed form, strategies) of one side."""
    encoder = side.encoder
    last = encoder.depth - 1
    with untouched(encoder.module):
        state = encoder.features(encoder.prepare(raw).tensor, last)[0]
        closed = encoder.closed_form(last, state.context, torch.float64) is not None
    strategies = "pooled, forward, reverse, paired" if closed else "forward, reverse, paired"
    return side.kind, encoder.pool, "yes" if closed else "no", strategies


def rows(title: str, example: Example) -> list[str]:
    """The lines of one family; one for both sides where they are the same encoder."""
    sides = [(example.model.left, example.left[0])]
    if example.model.left.encoder is not example.model.right.encoder:
        sides.append((example.model.right, example.right[0]))
    lines = []
    for n, (side, raw) in enumerate(sides):
        kind, *others = line(side, raw)
        named = kind if len(sides) == 1 or side.name == kind else f"{side.name} ({kind})"
        lines.append("| " + " | ".join((title if n == 0 else "", named, *others)) + " |")
    return lines


def library_of(name: str) -> str:
    """The key of `LIBRARIES` that a family's name begins with; `SystemExit` where there is none."""
    for key in LIBRARIES:
        if name.startswith(key):
            return key
    raise SystemExit(f"the family {name!r} begins with no key of LIBRARIES: add a line there")


def page() -> str:
    """The whole page."""
    text = INTRO
    for library, group in groupby(sorted(FAMILIES, key=library_of), key=library_of):
        text += f"| **{LIBRARIES[library]}** | | | | |\n"
        for name in group:
            text += "\n".join(rows(FAMILIES[name].__doc__ or name, FAMILIES[name](torch.float64))) + "\n"
    text += f"| **{LATE_INTERACTION}** | | | | |\n"
    for build in LATE.values():
        model = ss.wrap(build(torch.float64))
        for title, side in ((build.__doc__ or "", model.query), ("", model.document)):
            kind, *others = line(side, CAPTIONS[0])
            text += "| " + " | ".join((title, f"{side.name} ({kind})", *others)) + " |\n"
    contrast = blip2(torch.float64)
    for title, side, raw in (
        ("BLIP-2, image-text contrast", contrast.left, photographs()[0]),
        ("", contrast.right, CAPTIONS[0]),
    ):
        kind, *others = line(side, raw)
        text += "| " + " | ".join((title, f"{side.name} ({kind})", *others)) + " |\n"
    model = ss.load("builtin")
    photo = ROOT / "examples" / "coffee.jpg"
    text += f"| **{LIBRARIES['builtin']}** | | | | |\n"
    text += "| " + " | ".join(("EfficientNet-lite2", *line(model.left, photo))) + " |\n"
    text += "| " + " | ".join(("MiniLM and a ridge map", *line(model.right, "a cup"))) + " |\n"
    return text + "\nA model of your own: [Add your own model](your_own_model.md).\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
