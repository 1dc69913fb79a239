"""Draws every kind of picture of the package, and the README's: `python scripts/gallery.py docs/gallery`."""

import argparse
import contextlib
import io
import logging
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

import secondsight as ss
from secondsight.data import Scenes
from secondsight.evaluation import evaluate
from secondsight.training import Recipe, finetune, tuned_name
from secondsight.visual import charts
from secondsight.visual.page import save_page
from secondsight.visual.saving import encode_figure
from secondsight.visual.terminal import terminal

COFFEE = Path(__file__).parents[1] / "examples" / "coffee.jpg"
CAPTION = "a cup of coffee on a saucer"
CUP = (170, 20, 410, 280)
"""A box around the cup, in pixels."""


def save_small(figure, path, max_width=820):
    """Write a figure as a PNG of few colours, which looks the same and keeps the repository small."""
    image = Image.open(io.BytesIO(encode_figure(figure, "png", 150))).convert("RGB")
    save_shrunk(image, path, max_width)


def save_shrunk(image, path, max_width):
    if image.width > max_width:
        image = image.resize((max_width, round(image.height * max_width / image.width)), Image.Resampling.LANCZOS)
    image.quantize(200, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def save_first_picture(e, path):
    """The picture at the top of the README."""
    image = Image.open(io.BytesIO(encode_figure(e.plot("coffee"), "png", 150))).convert("RGB")
    image.resize((900, round(image.height * 900 / image.width)), Image.Resampling.LANCZOS).save(path, quality=88)


def draw_decisions(out, builtin, scenes):
    """The README's four pictures, one for each decision."""
    out.mkdir(parents=True, exist_ok=True)
    cat, raccoon = COFFEE.with_name("cat.jpg"), COFFEE.with_name("raccoon.jpg")
    save_small(ss.explain(builtin, cat, "a cat and a dog").plot(), out / "caption.png", 480)
    save_small(ss.explain(builtin, raccoon, "a raccoon", against="a red fox").plot(), out / "classes.png", 480)
    hits = [ss.explain(builtin, photo, "a wild animal") for photo in (COFFEE, raccoon)]
    save_small(ss.visual.pairs([(hit, "animal") for hit in hits]), out / "search.png", 480)
    save_small(draw_tuning(scenes), out / "checkpoints.png", 480)


def draw_tuning(before):
    """What fine-tuning on drawings of another style changed, where it changed most within a noun's box."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        recipe = Recipe(epochs=3, batch=16, lr=1e-4, warm_up=4)
        weights = finetune("scenes", Scenes(200, style="twemoji", seed=1), "tuned", recipe)
        after = ss.load(tuned_name("scenes", weights))
        best, gained = None, 0.0
        for scene in Scenes(12, style="twemoji", seed=7):
            change = ss.explain(after, scene.image, scene.caption) - ss.explain(before, scene.image, scene.caption)
            for phrase in scene.phrases:
                noun = scene.words(phrase).split()[-1]
                inside = sum(dict(change.box(*box)).get(noun, 0.0) for box in phrase.boxes)
                if inside > gained:
                    best, gained = (change, noun), inside
    change, noun = best
    return change.plot(noun)


def draw_explanations(out, builtin):
    e = ss.explain(builtin, COFFEE, CAPTION)
    save_small(ss.visual.pairs([(e, "coffee"), (e, "saucer"), (e, CUP)]), out / "pairs.png")
    difference = ss.explain(builtin, COFFEE, "a cup of coffee", against="a glass of beer")
    save_small(difference.plot(), out / "difference.png", 620)
    methods = ["grounded", "last-layer", ss.Occlusion(), ss.Banzhaf(seed=0)]
    several = [ss.explain(builtin, COFFEE, CAPTION, method) for method in methods]
    save_small(ss.visual.method_grid(several, ["coffee", "saucer"]), out / "methods.png")
    console = Console(force_terminal=True, color_system="truecolor", width=64, record=True, file=io.StringIO())
    console.print(terminal(e, selection="coffee", columns=48))
    (out / "terminal.svg").write_text(console.export_svg(title="secondsight explain", unique_id="secondsight"))
    return e, difference


def draw_experiments(out, scenes):
    world, models = Scenes(60, seed=3), [("scenes", scenes)]
    last_layer = [("last-layer", ss.IntegratedJacobian())]
    with tempfile.TemporaryDirectory() as folder:

        def run(name, **options):
            return evaluate(name, world, models, out=folder, **options)

        methods = [("integrated-jacobian", ss.IntegratedJacobian()), ("token-embeddings", ss.TokenEmbeddings())]
        pointing = run("pointing", methods=methods)
        save_small(pointing.figures["energy"], out / "energy.png", 640)
        save_small(charts.class_bars(pointing["classes"], "mean PGE", "sd PGE", most=12), out / "classes.png", 640)
        # The default fails on one of these scenes only.
        save_small(run("failures", methods=last_layer).gallery(8), out / "failures.png")
        for name, kind in (("discrimination", "attribution 1"), ("hard-negatives", "change 1")):
            save_small(run(name).figures[kind], out / f"{name}.png", 640)
        save_small(run("perturbation", limit=12).figures["CID"], out / "perturbation.png", 640)
        approximation = run("approximation", limit=2, methods=last_layer)
        save_small(next(iter(approximation.figures.values())), out / "approximation.png", 640)


def draw_pages(out, e, difference, scenes, builtin):
    """Screenshots of the page and the app in chromium; without chromium the present ones stay."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from pages import CHROMIUM, chromium

    if CHROMIUM is None:
        print("no chromium: the pictures of the page and the app were not drawn")
        return
    with tempfile.TemporaryDirectory() as folder, chromium() as driver:
        save_page(e, Path(folder) / "page.html", "coffee", CUP)
        save_page(difference, Path(folder) / "why.html")
        save_page(ss.explain(scenes, "a cat and a dog on grass", "a dog with a ball"), Path(folder) / "texts.html")
        for name in ("page", "why", "texts"):
            page = driver.new_page(viewport={"width": 1000, "height": 780})
            page.goto((Path(folder) / f"{name}.html").as_uri())
            page.wait_for_selector(".ss-word")
            save_screenshot(page, out / f"{name}.png")
        for name, address in serve_pages(builtin):
            page = driver.new_page(viewport={"width": 1000, "height": 780})
            page.goto(address)
            if name == "search":
                page.get_by_text("7 photographs", exact=True).wait_for(timeout=120_000)
                page.get_by_label("What to look for").fill("a wild animal")
                page.get_by_role("button", name="Search").click()
                page.wait_for_selector(".hit canvas")
            else:
                page.wait_for_selector("#cards button")
            if name == "app":
                page.locator("#cards button").last.click()
                page.wait_for_selector("#view .ss-word")
            page.wait_for_load_state("networkidle")
            save_screenshot(page, out / f"{name}.png")


def save_screenshot(page, path):
    save_shrunk(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"), path, 1000)


def serve_pages(builtin):
    """Runs the app with its own photographs and yields the name and address of every page to show."""
    import uvicorn

    from secondsight.server import create_app

    photos = Path(ss.__file__).parent / "server" / "web" / "examples"
    server = uvicorn.Server(
        uvicorn.Config(create_app({"builtin": builtin}, photos=photos), host="127.0.0.1", port=0, log_level="error")
    )
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield from (("start", address), ("app", address), ("search", f"{address}/#/search"))
    server.should_exit = True


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)
    np.random.seed(0)
    scenes = ss.load("scenes")
    builtin = ss.load("builtin")
    e, difference = draw_explanations(out, builtin)
    save_first_picture(e, out.parent / "coffee.jpg")
    draw_decisions(out.parent / "decisions", builtin, scenes)
    draw_experiments(out, scenes)
    draw_pages(out, e, difference, scenes, builtin)
    for path in sorted(out.iterdir()):
        print(f"{path} {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    main(parser.parse_args().out)
