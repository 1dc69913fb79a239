"""Every kind of picture that the package draws, for docs/gallery.md: `python scripts/gallery.py docs/gallery`."""

import argparse
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
from secondsight.visual import charts
from secondsight.visual.page import save_page
from secondsight.visual.saving import written
from secondsight.visual.terminal import terminal

COFFEE = Path(__file__).parents[1] / "examples" / "coffee.jpg"
CAPTION = "a cup of coffee and a spoon on a wooden table"


def small(figure, path, wide=820):
    """A figure as a PNG of few colours: drawings and maps look the same, files do not grow with every change."""
    image = Image.open(io.BytesIO(written(figure, "png", 150))).convert("RGB")
    shrunk(image, path, wide)


def shrunk(image, path, wide):
    if image.width > wide:
        image = image.resize((wide, round(image.height * wide / image.width)), Image.Resampling.LANCZOS)
    image.quantize(200, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)


def explanations(out, builtin):
    e = ss.explain(builtin, COFFEE, CAPTION)
    small(ss.visual.pairs([(e, "coffee"), (e, "table"), (e, (330, 220, 410, 330))]), out / "pairs.png")
    why = ss.explain(builtin, COFFEE, "a cup of coffee", against="a glass of beer")
    small(why.plot(), out / "difference.png", 620)
    methods = [ss.IntegratedJacobian(), ss.JacobianTimesInput(), ss.Occlusion(), ss.Banzhaf(seed=0)]
    several = [ss.explain(builtin, COFFEE, "a cup of coffee on a table", method) for method in methods]
    small(ss.visual.method_grid(several, ["coffee", "table"]), out / "methods.png")
    console = Console(force_terminal=True, color_system="truecolor", width=64, record=True, file=io.StringIO())
    console.print(terminal(e, selection="coffee", wide=48))
    (out / "terminal.svg").write_text(console.export_svg(title="secondsight explain", unique_id="secondsight"))
    return e, why


def experiments(out, scenes):
    world, both = Scenes(60, seed=3), [("scenes", scenes)]
    with tempfile.TemporaryDirectory() as place:

        def run(name, data=world, models=both, **options):
            return evaluate(name, data, models, out=place, **options)

        methods = [("integrated-jacobian", ss.IntegratedJacobian()), ("token-embeddings", ss.TokenEmbeddings())]
        pointing = run("pointing", methods=methods)
        small(pointing.figures["energy"], out / "energy.png", 640)
        small(charts.class_bars(pointing["classes"], "mean PGE", "sd PGE", most=12), out / "classes.png", 640)
        small(run("failures", models=both).gallery(8), out / "failures.png")
        for name, kind in (("discrimination", "attribution 1"), ("hard-negatives", "change 1")):
            small(run(name).figures[kind], out / f"{name}.png", 640)
        small(run("perturbation", limit=12).figures["CID"], out / "perturbation.png", 640)
        result = run("approximation", limit=2)
        small(next(iter(result.figures.values())), out / "approximation.png", 640)


def browser(out, e, why, scenes):
    """The page and the app as Debian's chromium shows them; left as they are where it is not installed."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from pages import CHROMIUM, chromium

    if CHROMIUM is None:
        print("no chromium: pictures of the page and the app were not made")
        return
    with tempfile.TemporaryDirectory() as place, chromium() as driver:
        save_page(e, Path(place) / "page.html", "coffee", (330, 220, 410, 330))
        save_page(why, Path(place) / "why.html")
        save_page(ss.explain(scenes, "a cat and a dog on grass", "a dog with a ball"), Path(place) / "texts.html")
        for name in ("page", "why", "texts"):
            page = driver.new_page(viewport={"width": 1000, "height": 780})
            page.goto((Path(place) / f"{name}.html").as_uri())
            page.wait_for_selector(".ss-word")
            shot(page, out / f"{name}.png")
        for name, address in served(scenes, Path(place)):
            page = driver.new_page(viewport={"width": 1000, "height": 780})
            page.goto(address)
            if name == "app":
                page.locator("#cards button").nth(7).click()
                page.wait_for_selector("#view .ss-word")
            else:
                page.wait_for_function("() => !document.getElementById('query-form').hidden")
                page.get_by_label("What to look for").fill("a pizza")
                page.get_by_role("button", name="Search").click()
                page.wait_for_selector(".hit canvas")
            page.wait_for_load_state("networkidle")
            shot(page, out / f"{name}.png")


def shot(page, path):
    shrunk(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB"), path, 1000)


def served(scenes, place):
    import uvicorn

    from secondsight.server import create_app

    folder = place / "photos"
    folder.mkdir()
    for i, example in enumerate(Scenes(24, seed=21, size=256)):
        example.image.save(folder / f"{i:02d}.png")
    server = uvicorn.Server(
        uvicorn.Config(create_app({"scenes": scenes}, photos=folder), host="127.0.0.1", port=0, log_level="error")
    )
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield "app", f"{address}/#/gallery"
    time.sleep(5)
    yield "search", f"{address}/#/search"
    server.should_exit = True


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)
    np.random.seed(0)
    scenes = ss.load("scenes")
    e, why = explanations(out, ss.load("builtin"))
    experiments(out, scenes)
    browser(out, e, why, scenes)
    for path in sorted(out.iterdir()):
        print(f"{path} {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    main(parser.parse_args().out)
