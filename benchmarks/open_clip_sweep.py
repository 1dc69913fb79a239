"""Every configuration of open_clip: is it explained, and is what is explained the host's own similarity?

    python benchmarks/open_clip_sweep.py [--only PATTERN] [--json FILE]

Each configuration of `open_clip.list_models()` is built small, with random weights (see `small_open_clip`). A photograph
and a caption are explained in float32: by chained Jacobians from the input and from the first, middle and last block of
both towers, and by the integrated Jacobian at the last blocks. A line says how far the similarity and the four terms' sum
are from the similarity of open_clip's own normalised embeddings at most, or with which sentence the model was refused.
"""

import argparse
import fnmatch
import json
import logging
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import open_clip
import torch
from machine import described
from PIL import Image
from small_open_clip import PHOTO, small_open_clip, towers

import secondsight as ss
from secondsight.support.guard import untouched

CAPTION = "a cup of coffee"
SIMILARITY_ALLOWED, SUM_ALLOWED = 1e-6, 1e-5


@dataclass(frozen=True)
class Result:
    """What came of one configuration; `image` and `text` say what its towers are.

    `refusal` is the sentence where there is one. Else `similarity_gap` and `sum_gap` are the largest differences to the
    host's similarity of our similarity and of the four terms' sum, over all layers; `residual` is the larger one of the
    sides' relative residuals of the integrated Jacobian; `closed_form` names the sides that have one at the last block.
    """

    name: str
    image: str
    text: str
    seconds: float
    refusal: str | None = None
    similarity_gap: float | None = None
    sum_gap: float | None = None
    residual: float | None = None
    closed_form: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """ "refused", "explained", or "wrong" where similarity or sum is not the host's."""
        if self.similarity_gap is None or self.sum_gap is None:
            return "refused"
        right = self.similarity_gap <= SIMILARITY_ALLOWED and self.sum_gap <= SUM_ALLOWED
        return "explained" if right else "wrong"

    def __str__(self) -> str:
        head = f"{self.name:36} {self.seconds:5.1f} s  {self.verdict}: "
        if self.refusal is not None:
            return head + self.refusal
        return (
            f"{head}similarity {self.similarity_gap:.0e}, sum {self.sum_gap:.0e}, residual {self.residual:.0e}, "
            f"closed form of {' and '.join(self.closed_form) or 'neither side'}"
        )


def check(name: str) -> Result:
    """Build one configuration, explain a pair and compare with the host."""
    start = time.perf_counter()
    model, preprocess, tokenizer = small_open_clip(name)
    photo = Image.open(PHOTO).convert("RGB")
    with torch.no_grad():
        image = model.encode_image(preprocess(photo)[None], normalize=True)[0]
        text = model.encode_text(tokenizer([CAPTION]), normalize=True)[0]
    try:
        measured = measure(ss.wrap(model, preprocess, tokenizer), photo, float(image.double() @ text.double()))
    except (ss.InputError, ss.AdapterError) as problem:
        measured = {"refusal": str(problem)}
    return Result(name, *towers(name), seconds=round(time.perf_counter() - start, 2), **measured)


def measure(model: ss.DualEncoder, photo: Image.Image, host: float) -> dict[str, Any]:
    """The fields of `Result` that explanations give."""
    depths = (model.left.encoder.depth, model.right.encoder.depth)
    layers = ("input", 0, (depths[0] // 2, depths[1] // 2), -1)
    chained = [ss.explain(model, photo, CAPTION, ss.ChainedJacobian(layer=layer)) for layer in layers]
    integrated = ss.explain(model, photo, CAPTION, ss.IntegratedJacobian())
    sides = ((model.left, photo), (model.right, CAPTION))
    return {
        "similarity_gap": max(abs(e.similarity - host) for e in (*chained, integrated)),
        "sum_gap": max(abs(e.terms.total - host) for e in chained),
        "residual": max(outcome.residual for outcome in integrated.outcomes),
        "closed_form": tuple(side.kind for side, raw in sides if has_closed_form(side.encoder, raw)),
    }


def has_closed_form(encoder: ss.Encoder, raw: Any) -> bool:
    """Whether the last block has one for this input."""
    layer = encoder.depth - 1
    with untouched(encoder.module):
        state = encoder.features(encoder.prepare(raw).tensor, layer)[0]
        return encoder.closed_form(layer, state.context, torch.float32) is not None


def summary(results: Sequence[Result]) -> str:
    """How many were explained and refused, and the largest differences."""
    counts = Counter(result.verdict for result in results)
    explained = [result for result in results if result.verdict != "refused"]
    text = f"{len(results)} configurations: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    for field in ("similarity_gap", "sum_gap", "residual", "seconds"):
        worst = max(explained, key=lambda result: getattr(result, field), default=None)
        if worst is not None:
            text += f"\nlargest {field.replace('_', ' ')}: {getattr(worst, field):.1e} ({worst.name})"
    return text


def record(results: Sequence[Result]) -> dict[str, Any]:
    """The results as plain data, with what they were measured on."""
    facts = {"date": date.today().isoformat(), "open_clip": open_clip.__version__, **described()}
    return {**facts, "results": [asdict(result) | {"verdict": result.verdict} for result in results]}


def main() -> None:
    """Print a line for every configuration, and keep all of them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names to check, such as 'EVA*'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write what came of each")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    results = []
    for name in fnmatch.filter(open_clip.list_models(), options.only):
        results.append(check(name))
        print(results[-1], flush=True)
    print(summary(results))
    if options.json:
        options.json.write_text(json.dumps(record(results), indent=1) + "\n")


if __name__ == "__main__":
    main()
