"""What strangers may send, as targets for fuzzing: every one either works or says why not in one sentence.

`python tests/hostile.py TARGET MINUTES` goes on with seeds of its own; what it finds becomes an example in test_hostile.py.
"""

import io
import json
import math
import random
import sys
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import secondsight as ss
from secondsight.contributions import Contributions
from secondsight.encoders.images import image_of_bytes
from secondsight.interactions import Interactions
from secondsight.visual.page import page_data, render_page

ALLOWED = (ss.InputError, ss.AdapterError)
MOST = 4_000_000


@cache
def model():
    return ss.load("scenes")


@cache
def explained():
    from secondsight.data import Scenes

    one = next(iter(Scenes(1, seed=7)))
    return ss.explain(model(), one.image, one.caption)


@cache
def pictures() -> tuple[bytes, ...]:
    """Small files of every format that is read, with what cameras and editors add."""
    made, rng = [], np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    for kind, image, options in (
        ("JPEG", pixels, {"exif": exif}),
        ("JPEG", pixels.convert("CMYK"), {}),
        ("JPEG", pixels.convert("L"), {"progressive": True}),
        ("PNG", pixels.convert("RGBA"), {}),
        ("PNG", pixels.convert("P"), {"transparency": 3}),
        ("PNG", Image.fromarray(rng.integers(0, 65535, (24, 32), dtype=np.uint16)), {}),
        ("GIF", pixels, {"save_all": True, "append_images": [pixels.rotate(90)]}),
        ("WEBP", pixels, {}),
        ("TIFF", pixels, {"compression": "tiff_lzw"}),
        ("BMP", pixels, {}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        made.append(buffer.getvalue())
    return tuple(made)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, numbers made extreme, stretches cut, doubled or swapped."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        at = rng.randrange(len(data))
        what = rng.randrange(6)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at] = rng.choice((0, 1, 127, 128, 255))
        elif what == 2:
            del data[at : at + rng.randrange(1, 64)]
        elif what == 3:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        elif what == 4:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"))
        else:
            del data[at:]
    return bytes(data)


def image(rng: random.Random) -> None:
    content = mutated(rng.choice(pictures()), rng)
    found = image_of_bytes(content, most=MOST)
    assert found.mode == "RGB"
    assert found.width * found.height <= MOST
    prepared = model().left.encoder.prepare(found)
    assert bool(torch.isfinite(prepared.tensor).all())


PIECES = [
    "a cat", " ", "\n", "\t", "", "'", '"', "<b>", "</script>", "{{data}}", "\\", "\x00", "\x07", "\u200b", "\u202e", "\ufeff",
    "ü", "ﬁ", "İ", "ß", "ǆ", "e\u0301", "👩\u200d👩\u200d👧", "🏴\U000e0067\U000e0062", "العربية", "עברית", "日本語", "𝔘",
    "$x$", "[/b]",
    "a" * 300, "cat " * 50, "\ud800", "\uffff", "%s", "&amp;", "<|endoftext|>", "[CLS]", "</s>", "1e999", "-0", "NaN",
]  # fmt: skip


def text(rng: random.Random) -> str:
    return rng.choice(("", " ")).join(rng.choice(PIECES) for _ in range(rng.randrange(0, 8)))


def caption(rng: random.Random) -> None:
    words = text(rng)
    prepared = model().right.encoder.prepare(words, truncate=rng.random() < 0.5)
    e = explained()
    pair = ss.explain(model(), e.left_input, words, truncate=True) if rng.random() < 0.2 else None
    if pair is None:
        state = model().right.encoder.layout(prepared, -1, model().right.encoder.features(prepared.tensor, 2)[0])
        spans = [(w.start, w.end) for w in state.words]
        assert all(words[a:b] == w.text for (a, b), w in zip(spans, state.words, strict=True))
        return
    assert math.isfinite(pair.error)
    page = render_page(pair)
    assert page.count("</script>") == 2
    data = page_data(pair)["cases"][0]
    units = words.encode("utf-16-le", "surrogatepass")
    for word in data["right"]["words"]:
        got = units[2 * word["start"] : 2 * word["end"]].decode("utf-16-le", "surrogatepass")
        assert got == word["text"]


def selection(rng: random.Random) -> None:
    e = explained()
    numbers = (0, 1, -1, 5, 1e9, -1e9, math.inf, -math.inf, math.nan, 0.5, 95.9, 96, 2**70, True)
    number = lambda: rng.choice(numbers)  # noqa: E731
    picked = rng.choice(
        (
            lambda: text(rng),
            lambda: (number(), number()),
            lambda: (number(), number(), number(), number()),
            lambda: [number() for _ in range(rng.randrange(4))],
            lambda: slice(number(), number()),
            lambda: None,
            lambda: {"a": 1},
            lambda: np.array([1, 2]),
            lambda: torch.tensor([1.0]),
            lambda: (),
            lambda: b"cat",
        )
    )()
    side = rng.choice((e.toward_left, e.toward_right))
    values = side(picked)
    assert bool(torch.isfinite(values).all())


@cache
def saved() -> dict[str, bytes]:
    made, e = {}, explained()
    with tempfile.TemporaryDirectory() as place:
        for kind in ("npz", "json"):
            e.interactions.save(Path(place) / f"i.{kind}")
            made[f"interactions.{kind}"] = (Path(place) / f"i.{kind}").read_bytes()
            u = model().right.contributions(["a cat"])[0]
            u.save(Path(place) / f"c.{kind}")
            made[f"contributions.{kind}"] = (Path(place) / f"c.{kind}").read_bytes()
    return made


def file(rng: random.Random) -> None:
    name = rng.choice(sorted(saved()))
    content = saved()[name]
    if name.endswith("json") and rng.random() < 0.7:
        data = json.loads(content)
        place = data
        for _ in range(rng.randrange(1, 4)):
            if isinstance(place, dict) and place:
                key = rng.choice(sorted(place))
                if isinstance(place[key], (dict, list)) and rng.random() < 0.6:
                    place = place[key]
                    continue
                place[key] = rng.choice((None, -1, 1e400, "x", [], {}, [[1]], True, 2**80))
            break
        content = json.dumps(data).encode()
    else:
        content = mutated(content, rng)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / name
        path.write_bytes(content)
        kind = Interactions if name.startswith("interactions") else Contributions
        loaded = kind.load(path)
        assert len(loaded.left_layout.visible if kind is Interactions else loaded.layout.visible) >= 0


@cache
def part() -> tuple[bytes, bytes]:
    from secondsight.data import Scenes
    from secondsight.scale import decompose
    from secondsight.scale.sources import of_data

    with tempfile.TemporaryDirectory() as place:
        decompose(of_data(Scenes(3, seed=2), "text"), model(), Path(place) / "s")
        found = next((Path(place) / "s").glob("part-*"))
        return (Path(place) / "s" / "store.json").read_bytes(), found.read_bytes()


def store(rng: random.Random) -> None:
    from secondsight.scale import open_store

    facts, content = part()
    with tempfile.TemporaryDirectory() as place:
        facts = mutated(facts, rng) if rng.random() < 0.2 else facts
        (Path(place) / "store.json").write_bytes(facts)
        (Path(place) / "part-0000000000-x.arrow").write_bytes(mutated(content, rng))
        opened = open_store(place)
        for key in opened:
            opened[key]


TARGETS = {f.__name__: f for f in (image, caption, selection, file, store)}


def attempt(target: str, seed: int) -> str | None:
    """None where it works or is refused in one sentence; what went wrong otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            TARGETS[target](random.Random(seed))
        except ALLOWED as problem:
            sentence = str(problem)
            return (
                None
                if sentence and "\n" not in sentence and len(sentence) < 2000
                else f"no sentence: {sentence[:300]!r}"
            )
        except Exception as problem:
            return f"{type(problem).__name__}: {problem}"
    return None


def main(target: str, minutes: float) -> None:
    end, seed, found = time.monotonic() + 60 * minutes, 0, {}
    while time.monotonic() < end:
        problem = attempt(target, seed)
        if problem is not None and problem.split(":")[0] not in found:
            found[problem.split(":")[0]] = seed
            print(f"seed {seed}: {problem[:300]}", flush=True)
        seed += 1
    print(f"{target}: {seed} attempts, {len(found)} kinds of findings")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
