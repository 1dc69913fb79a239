"""Fuzzing targets for untrusted input: each input either works or is refused in one sentence.

`python tests/support/hostile.py TARGET MINUTES` tries further seeds; those that fail become examples in test_hostile.py.
"""

import dataclasses
import io
import json
import math
import random
import sys
import tempfile
import time
import warnings
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import secondsight as ss
from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.inputs.images import image_of_bytes
from secondsight.visual.page import render_page
from secondsight.visual.page_data import page_data

ALLOWED = (ss.InputError, ss.AdapterError)
MAX_PIXELS = 4_000_000


@cache
def model():
    return ss.load("scenes")


@cache
def explanation():
    from secondsight.data import Scenes

    scene = next(iter(Scenes(1, seed=7)))
    return ss.explain(model(), scene.image, scene.caption)


@cache
def pictures() -> tuple[bytes, ...]:
    """Small files of every format that is read, with metadata as cameras and editors add it."""
    contents, rng = [], np.random.default_rng(0)
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
        contents.append(buffer.getvalue())
    return tuple(contents)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Bits flipped, numbers made extreme, stretches cut, doubled or swapped."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        at = rng.randrange(len(data))
        change = rng.randrange(6)
        if change == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            data[at] = rng.choice((0, 1, 127, 128, 255))
        elif change == 2:
            del data[at : at + rng.randrange(1, 64)]
        elif change == 3:
            data[at:at] = data[at : at + rng.randrange(1, 64)]
        elif change == 4:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"))
        else:
            del data[at:]
    return bytes(data)


def image(rng: random.Random) -> None:
    content = mutate(rng.choice(pictures()), rng)
    opened = image_of_bytes(content, most=MAX_PIXELS)
    assert opened.mode == "RGB"
    assert opened.width * opened.height <= MAX_PIXELS
    prepared = model().left.encoder.prepare(opened)
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
    e = explanation()
    pair = ss.explain(model(), e.left_input, words, truncate=True) if rng.random() < 0.2 else None
    if pair is None:
        layout = model().right.encoder.layout(prepared, -1, model().right.encoder.features(prepared.tensor, 2)[0])
        spans = [(w.start, w.end) for w in layout.words]
        assert all(words[a:b] == w.text for (a, b), w in zip(spans, layout.words, strict=True))
        return
    assert math.isfinite(pair.error)
    page = render_page(pair)
    assert page.count("</script>") == 2
    data = page_data(pair)["cases"][0]
    units = words.encode("utf-16-le", "surrogatepass")
    for word in data["right"]["words"]:
        cut = units[2 * word["start"] : 2 * word["end"]].decode("utf-16-le", "surrogatepass")
        assert cut == word["text"]


def selection(rng: random.Random) -> None:
    e = explanation()
    numbers = (0, 1, -1, 5, 1e9, -1e9, math.inf, -math.inf, math.nan, 0.5, 95.9, 96, 2**70, True)
    number = lambda: rng.choice(numbers)  # noqa: E731
    selected = rng.choice(
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
    values = side(selected)
    assert bool(torch.isfinite(values).all())


@cache
def saved_files() -> dict[str, bytes]:
    contents, e = {}, explanation()
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("npz", "json"):
            e.interactions.save(Path(folder) / f"i.{kind}")
            contents[f"interactions.{kind}"] = (Path(folder) / f"i.{kind}").read_bytes()
            u = model().right.contributions(["a cat"])[0]
            u.save(Path(folder) / f"c.{kind}")
            contents[f"contributions.{kind}"] = (Path(folder) / f"c.{kind}").read_bytes()
    return contents


def file(rng: random.Random) -> None:
    name = rng.choice(sorted(saved_files()))
    content = saved_files()[name]
    if name.endswith("json") and rng.random() < 0.7:
        data = json.loads(content)
        container = data
        for _ in range(rng.randrange(1, 4)):
            if isinstance(container, dict) and container:
                key = rng.choice(sorted(container))
                if isinstance(container[key], (dict, list)) and rng.random() < 0.6:
                    container = container[key]
                    continue
                container[key] = rng.choice((None, -1, 1e400, "x", [], {}, [[1]], True, 2**80))
            break
        content = json.dumps(data).encode()
    else:
        content = mutate(content, rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        kind = Interactions if name.startswith("interactions") else Contributions
        loaded = kind.load(path)
        assert len(loaded.left_layout.visible if kind is Interactions else loaded.layout.visible) >= 0


@cache
def store_files() -> tuple[bytes, bytes]:
    from secondsight.data import Scenes
    from secondsight.scale import decompose
    from secondsight.scale.sources import of_data

    with tempfile.TemporaryDirectory() as folder:
        decompose(of_data(Scenes(3, seed=2), "text"), model(), Path(folder) / "s")
        part = next((Path(folder) / "s").glob("part-*"))
        return (Path(folder) / "s" / "store.json").read_bytes(), part.read_bytes()


def store(rng: random.Random) -> None:
    from secondsight.scale import open_store

    facts, content = store_files()
    with tempfile.TemporaryDirectory() as folder:
        facts = mutate(facts, rng) if rng.random() < 0.2 else facts
        (Path(folder) / "store.json").write_bytes(facts)
        (Path(folder) / "part-0000000000-x.arrow").write_bytes(mutate(content, rng))
        opened = open_store(folder)
        for key in opened:
            opened[key]


def replace_values(data, rng: random.Random):
    """The same JSON or YAML with some values replaced by unexpected ones."""
    data = json.loads(json.dumps(data))
    for _ in range(rng.choice((1, 1, 2, 4))):
        container = data
        while isinstance(container, (dict, list)) and container:
            key = rng.choice(sorted(container)) if isinstance(container, dict) else rng.randrange(len(container))
            if isinstance(container[key], (dict, list)) and container[key] and rng.random() < 0.8:
                container = container[key]
                continue
            change = rng.randrange(8)
            if change == 0:
                del container[key]
            elif change == 1 and isinstance(container, dict):
                container[text(rng)] = container.pop(key)
            else:
                container[key] = rng.choice(
                    (None, -1, 2**80, 1e308, 0.5, text(rng), "../../etc/passwd", [], {}, [[]], True, "NaN")
                )
            break
    return data


def nested_brackets(rng: random.Random) -> str:
    depth = 10 ** rng.randrange(1, 6)
    return rng.choice(("[", '{"a":', "- ")) * depth


@cache
def data_files() -> dict[str, dict[str, object]]:
    """A small data set in every format: file name → content; text is mutated byte by byte."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 32, "height": 24} for i in (1, 2)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 9, 9], "iscrowd": 0} for i in (1, 2)]
    captions = [{"id": i, "image_id": i, "caption": "A dog and a frisbee."} for i in (1, 2)]
    entry = {
        "image": "1.jpg",
        "caption": "a dog and a cat",
        "phrases": [{"span": "dog", "boxes": [[0, 0, 9, 9]], "label": "dog"}, {"span": [12, 15], "boxes": []}],
        "regions": [{"label": "dog", "box": [0, 0, 9, 9], "group": "animal", "crowd": False, "visible": 0.5}],
        "negatives": ["a cow and a cat", {"caption": "a dog and a cow", "span": "cow", "phrase": "cat", "kind": "x"}],
        "facts": {"style": "noto"},
    }
    wrong = {"caption": "a cat on a mat", "label": 0, "cpt_p_id": "a", "type": "attr"}
    right = {
        "caption": "a dog on a mat",
        "label": 1,
        "bboxes": {"3": {"bbox": {"x": 1, "y": 2, "w": 5, "h": 5}, "name": "dog"}},
    }
    aro = {"image_path": "1.jpg", "bbox_x": 1, "bbox_y": 1, "bbox_w": 9, "bbox_h": 9, "relation_name": "on"}
    aro |= {"true_caption": "a dog on a mat", "false_caption": "a mat on a dog"}
    xml = (
        "<annotation><filename>1.jpg</filename><object><name>7</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>"
        "<ymax>9</ymax></bndbox></object><object><name>8</name><nobox>1</nobox></object></annotation>"
    )
    return {
        "coco": {
            "annotations/captions_x.json": {"images": images, "annotations": captions},
            "annotations/instances_x.json": {
                "images": images,
                "annotations": boxes,
                "categories": [{"id": 1, "name": "dog", "supercategory": "animal"}],
            },
        },
        "flickr30k": {
            "Sentences/1.txt": "[/EN#7/animals A dog] runs on [/EN#8/scene a lawn] .\nA [/EN#7/animals/other dog] .\n",
            "Annotations/1.xml": xml,
            "test.txt": "1\n",
        },
        "hnc": {"hnc.json": {"1": {"captions": {"a": right, "b": wrong}}}},
        "sugarcrepe": {"crepe.json": {"0": {"filename": "1.jpg", "caption": "a dog", "negative_caption": "a cat"}}},
        "compositional": {
            "pairs.jsonl": [{"images": ["1.jpg", "2.jpg"], "captions": ["a dog", "a cat"], "tag": "x"}] * 2
        },
        "aro": {"aro.json": [aro, {"image": "1.jpg", "caption_options": ["a dog on a mat", "on a dog a mat"]}]},
        "sugarcrepe++": {
            "crepe.json": [{"filename": "1.jpg", "caption": "a", "caption2": "b", "negative_caption": "c"}]
        },
        "whatsup": {"up.json": [{"image_path": "x/1.jpg", "caption_options": ["on", "under"]}, [1, "a cat", "a dog"]]},
        "vl-checklist": {"size.json": [["1.jpg", {"POS": ["a dog"], "NEG": ["a cat", "a cow"]}]]},
        "winoground": {
            "examples.jsonl": [{"id": 0, "image_0": "1.jpg", "image_1": "2.jpg", "caption_0": "a", "caption_1": "b"}]
        },
        "mmvp-vlm": {"Questions.csv": "Question ID,Type,Statement\n1,Color,a dog\n2,Color,a cat\n"},
        "jsonl": {"data.jsonl": [entry, entry]},
        "stsb": {
            "sts.csv": "main\tnews\t2012\t0001\t4.5\tA dog runs.\tA dog is running.\n" * 3,
            "sts.jsonl": [{"sentence1": "a", "sentence2": "b", "score": 3}] * 2,
        },
    }


def data(rng: random.Random) -> None:
    from secondsight.data import open_data, stsb

    kind = rng.choice(sorted(data_files()))
    files = data_files()[kind]
    target = rng.choice(sorted(files))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for photo in ("1.jpg", "2.jpg", "flickr30k-images/1.jpg"):
            (folder / photo).parent.mkdir(exist_ok=True)
            (folder / photo).write_bytes(pictures()[0])
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            lines = file.endswith(".jsonl")
            if file == target and not isinstance(content, str) and rng.random() < 0.7:
                content = [replace_values(entry, rng) for entry in content] if lines else replace_values(content, rng)
            if not isinstance(content, str):
                content = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)
            raw = content.encode()
            if file == target and rng.random() < 0.4:
                raw = nested_brackets(rng).encode() if rng.random() < 0.05 else mutate(raw, rng)
            (folder / file).write_bytes(raw)
        if kind == "stsb":
            assert all(0 <= pair.score <= 1 and pair.first is not None for pair in stsb(folder / target))
            return
        opened = open_data(
            {
                "coco": f"coco:{folder}",
                "flickr30k": f"flickr30k:{folder}#{rng.choice(('test', ''))}",
                "hnc": f"hnc:{folder / 'hnc.json'}#{folder}",
                "sugarcrepe": f"sugarcrepe:{folder / 'crepe.json'}#{folder}",
                "jsonl": f"jsonl:{folder / 'data.jsonl'}",
            }.get(kind, f"{kind}:{folder / target}#{folder}")
        )
        for entry in opened:
            assert entry.caption.strip()
            assert isinstance(entry.image, Image.Image) or entry.image.is_file()
            assert all(entry.words(phrase) for phrase in entry.phrases)
            boxes = [box for p in entry.phrases for box in p.boxes] + [r.box for r in entry.regions]
            assert all(math.isfinite(v) for box in boxes for v in box)
            assert all(x0 < x1 and y0 < y1 for x0, y0, x1, y1 in boxes)
            assert all(0 <= r.visible <= 1 for r in entry.regions)
        assert all(
            isinstance(k, str) and "\n" not in reason and len(reason) < 1000 for k, reason in opened.problems.items()
        )
        opened.summary()


def yaml(rng: random.Random) -> None:
    """The configuration of `evaluate paper`."""
    import yaml as library

    from secondsight.evaluation.studies.paper import configuration

    default = configuration()
    content = library.safe_dump(replace_values(default, rng), allow_unicode=True).encode()
    if rng.random() < 0.5:
        content = mutate(content, rng)
    if rng.random() < 0.05:
        # References that double at every level; YAML loads them lazily, but walking them takes forever.
        content = b"a: &a [x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 122))
        content = rng.choice((content, nested_brackets(rng).encode(), b"!!python/object/apply:os.system ['exit 1']"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_bytes(content)
        loaded = configuration(path)
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in loaded["models"].items())
    assert all(isinstance(row[4], (int, float)) for row in loaded["published"])


@cache
def weights() -> bytes:
    from importlib.resources import files

    return (files("secondsight.encoders.families") / "scenes.safetensors").read_bytes()


def checkpoint(rng: random.Random) -> None:
    """Weights whose header or numbers were changed: refused, or explained as they are."""
    content = weights()
    size = int.from_bytes(content[:8], "little")
    head, body = content[8 : 8 + size], bytearray(content[8 + size :])
    change = rng.randrange(4)
    if change == 0:
        head = mutate(head, rng)
    elif change == 1:
        head = json.dumps(replace_values(json.loads(head), rng)).encode()
    elif change == 2:
        del body[rng.randrange(len(body)) :]
    else:
        start = rng.randrange(0, len(body) - 4096, 4)
        body[start : start + 4096] = (
            rng.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\0\0\0\0")) * 1024
        )
    size = len(head) if rng.random() < 0.9 else rng.choice((0, 2**63, len(head) + 1, 10**8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        path.write_bytes(size.to_bytes(8, "little") + head + bytes(body))
        loaded = ss.load(f"scenes:{path}")
        e = ss.explain(loaded, explanation().left_input, "a cat left of a tree", method=ss.IntegratedJacobian(steps=4))
    assert math.isfinite(e.error)
    assert bool(torch.isfinite(e.matrix).all())


@cache
def app():
    from starlette.testclient import TestClient

    from secondsight.server import Limits, create_app

    limits = Limits(body=2**20, pixels=200_000, characters=200, captions=3, results=4, seconds=20.0)
    client = TestClient(
        create_app({"scenes": model()}, limits=limits), base_url="http://localhost", raise_server_exceptions=True
    )
    client.__enter__()
    return client


def request(rng: random.Random) -> None:
    """Requests to the app: valid JSON with odd values, wrong schemas, raw bytes, odd paths and headers."""
    import base64

    photo = base64.b64encode(
        rng.choice(pictures()) if rng.random() < 0.7 else mutate(rng.choice(pictures()), rng)
    ).decode()
    question: dict = {
        "image": photo,
        "captions": ["a cat", text(rng)],
        "steps": 2,
        "model": "scenes",
        "method": "token-embeddings",
    }
    if rng.random() < 0.5:
        question = replace_values(question, rng)
    if rng.random() < 0.2:
        question = {"query": text(rng), "limit": rng.choice((1, 0, 48, 2**70, "x"))}
    raw = json.dumps(question).encode()
    if rng.random() < 0.2:
        raw = nested_brackets(rng).encode() if rng.random() < 0.2 else mutate(raw, rng)
    path = rng.choice(
        ("/api/explain", "/api/explain", "/api/search", "/api/jobs/" + rng.choice(("x", "%00", "../..", "é" * 99)))
    )
    headers = {
        "content-type": rng.choice(("application/json", "application/json", "text/plain", "multipart/form-data", "x"))
    }
    if rng.random() < 0.1:
        headers[rng.choice(("host", "origin", "content-length", "transfer-encoding", "content-encoding"))] = rng.choice(
            ("evil.example", "null", "-1", "99999999999", "chunked", "gzip", "")
        )
    method = rng.choice(("POST", "POST", "POST", "GET", "PUT", "DELETE"))
    try:
        answer = app().request(method, path, content=raw, headers=headers)
    except UnicodeError:
        return  # the client's own refusal to send it
    assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text[:300]
    if answer.status_code >= 400:
        sentence = answer.json()["error"]
        assert sentence
        assert "\n" not in sentence
        assert "Traceback" not in answer.text
    elif answer.status_code == 204:
        assert not answer.content
    elif "json" in answer.headers["content-type"]:
        answer.json()


class Markup(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.targets: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.targets |= {value or "" for name, value in attrs if name in ("href", "src")}


EVIL = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "' onmouseover='alert(1)",
    "</title><script>", "</style><script>", "]]><script>", "<!--", "-->", "javascript:alert(1)", "</textarea>",
    "&lt;script&gt;", "\u2028</script>", "${alert(1)}", "<a href=javascript:alert(1)>", "</script\t><script>",
)  # fmt: skip


def evil(rng: random.Random) -> str:
    return " ".join([rng.choice((*EVIL, *PIECES[4:14])) for _ in range(rng.randrange(1, 4))] + ["cat"]).replace(
        "\ud800", ""
    )


@cache
def harmless_markup() -> tuple[Markup, Markup]:
    """The markup of an explanation's page and of a report with harmless texts."""
    report = parse_markup(report_page("a cat", "cat", "cat"))
    report.tags.add("tspan")  # how figures write characters of another font
    return parse_markup(render_page(explanation())), report


def parse_markup(page: str) -> Markup:
    markup = Markup()
    markup.feed(page)
    return markup


def report_page(caption: str, label: str, setting: str) -> str:
    """An experiment's report about a data set and settings with these names."""
    from secondsight.data import GroundedCaption, ListedDataset, Phrase, Region
    from secondsight.evaluation import evaluate

    box = (0.0, 0.0, 20.0, 20.0)  # so small that every case is a failure, which the report shows
    span = (len(caption) - 3, len(caption))
    entry = GroundedCaption(
        label, label, explanation().left_input, caption, (Phrase(span, (box,), label),), (Region(label, box, label),)
    )
    with tempfile.TemporaryDirectory() as folder:
        methods = [(setting, ss.METHODS["token-embeddings"]())]
        results = evaluate(
            "failures", ListedDataset(label, [entry], {label: label}), [(setting, model())], methods, out=folder
        )
        return (results.out / "report.html").read_text()


def html(rng: random.Random) -> None:
    """No caption, label or name adds an element or attribute to a page."""
    if rng.random() < 0.9:
        words = evil(rng)
        e = ss.explain(model(), explanation().left_input, words, truncate=True, method=ss.METHODS["token-embeddings"]())
        e = dataclasses.replace(e, about={**e.about, "model": evil(rng), "method": evil(rng)})
        page, harmless = render_page([e, e] if rng.random() < 0.3 else e), harmless_markup()[0]
    else:
        page, harmless = report_page(evil(rng), evil(rng), evil(rng)), harmless_markup()[1]
    markup = parse_markup(page)
    assert markup.tags <= harmless.tags, markup.tags - harmless.tags
    assert markup.attributes <= harmless.attributes, markup.attributes - harmless.attributes
    assert not any(target.strip().lower().startswith("javascript") for target in markup.targets)
    assert page.lower().count("<script") == (2 if harmless is harmless_markup()[0] else 1)


def picture(rng: random.Random) -> None:
    """Figures of any caption in every format, and LaTeX without commands from the caption."""
    from secondsight.visual import latex

    words = evil(rng) if rng.random() < 0.5 else text(rng)
    e = ss.explain(model(), explanation().left_input, words, truncate=True, method=ss.METHODS["token-embeddings"]())
    kind = rng.choice(("png", "svg", "pdf"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{kind}"
        e.save(path)
        content = path.read_bytes()
        if kind == "svg":
            assert not {"script", "foreignobject", "a"} & parse_markup(content.decode()).tags
    body = latex(e).replace("\\{", "").replace("\\}", "")
    assert body.count("{") == body.count("}")


def command(rng: random.Random) -> None:
    """Odd options: the exit code is 0 or 2, and a refusal is one sentence without a traceback."""
    from typer.testing import CliRunner

    from secondsight.cli import app as commands

    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "p.png"
        explanation().left_input.save(photo)
        words = [text(rng), "-1", "0", "1e999", "NaN", folder, str(photo), "0,0,1", "0,0,9,9", "1,2,3,x", "--", "-x"]
        words = [word.encode("utf-8", "replace").decode() for word in words]
        options = rng.sample(
            ["--select", "--box", "--method", "--layer", "--steps", "--tol", "--scale", "--out", "--json", "--against"],
            2,
        )
        arguments = ["explain", str(photo), "a cat", "--model", "scenes"]
        if rng.random() < 0.5:
            arguments[rng.randrange(1, 5)] = rng.choice(words)
        for option in options[: rng.randrange(3)]:
            value = rng.choice(words)
            if option in ("--out", "--json"):
                value = str(
                    Path(folder) / rng.choice(("x.html", "x", "no/x.html", "x.exe", "x.json", ".", "p.png/x.html"))
                )
            arguments += [option, value]
        result = CliRunner().invoke(commands, arguments)
        assert result.exit_code in (0, 2), (arguments, result.exit_code, result.exception)
        assert "Traceback" not in result.output
        if result.exit_code:
            files = {p.name for p in Path(folder).iterdir()} - {"p.png"}
            assert not any(name.startswith(".") for name in files), files


FUNCTIONS = (image, caption, selection, file, store, data, yaml, checkpoint, request, html, picture, command)
TARGETS = {f.__name__: f for f in FUNCTIONS}


def attempt(target: str, seed: int) -> str | None:
    """None if it works or is refused in one sentence, else what went wrong."""
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
    end, seed, problems = time.monotonic() + 60 * minutes, 0, {}
    while time.monotonic() < end:
        problem = attempt(target, seed)
        if problem is not None and problem.split(":")[0] not in problems:
            problems[problem.split(":")[0]] = seed
            print(f"seed {seed}: {problem[:300]}", flush=True)
        seed += 1
    print(f"{target}: {seed} attempts, {len(problems)} kinds of problems")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
