"""The documentation's Python runs as it stands, page by page, and what is generated is current."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import threading
import tomllib
import types
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from pages import chromium, needs_browser
from secondsight.cli import app
from secondsight.data import Scenes, export_coco, write_jsonl
from secondsight.methods import base as methods_base

ROOT = Path(__file__).parents[2]
PAGES = sorted(p for p in (ROOT / "docs").glob("*.md") if "```python" in p.read_text())
TOLD = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=[p.stem for p in PAGES])
@pytest.mark.filterwarnings("ignore::secondsight.ConvergenceWarning")
def test_the_code_of_a_page_runs(page, builtin, tmp_path, monkeypatch):
    del builtin
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    # A page may define a method, which lists itself.
    monkeypatch.setattr(methods_base, "METHODS", dict(methods_base.METHODS))
    names = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S):
        exec(compile(code, page.name, "exec"), names)


def test_the_first_change_of_contributing(tmp_path):
    """Its steps in a copy of the tree: ruff has nothing to say, every family takes the method, its own test passes."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    method, imported, test = (textwrap.dedent(code) for code in re.findall(r" +```python\n(.*?)\n +```", text, re.S))
    for name in ("src", "tests", "examples", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    methods, tests = tmp_path / "src" / "secondsight" / "methods", tmp_path / "tests" / "methods" / "test_methods.py"
    (methods / "share_of_move.py").write_text(method + "\n")
    known = (methods / "__init__.py").read_text()
    known = known.replace("from secondsight.methods.shapley", f"{imported.strip()}\nfrom secondsight.methods.shapley")
    (methods / "__init__.py").write_text(known.replace("__all__ = [", '__all__ = [\n    "ShareOfMove",'))
    own = test[test.index("def test_") :]
    tests.write_text(
        tests.read_text().replace("from models import", "from models import clip, pixels\nfrom models import", 1)
        + f"\n\n{own}\n"
    )
    ruff = [sys.executable, "-m", "ruff"]
    for command in ([*ruff, "check", "--fix"], [*ruff, "format"], [*ruff, "check"]):
        done = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(tests), "-k", "share_of_move or share-of-move"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    assert passed >= 3, done.stdout


def shell(page: Path) -> list[str]:
    """The commands of a page's shell blocks."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(), re.S))
    lines = blocks.replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


STANDS_FOR = {
    # What readers have, and what stands for it here; numbers that only make it longer.
    "PHOTO": "scene.png",
    '"CAPTION"': '"a dog left of a tree"',
    "open_clip:ViT-B-16/openai": "scenes",
    "open_clip:ViT-B-16/tuned/model.safetensors": "scenes:tuned/model.safetensors",
    "--model builtin": "--model scenes",
    "--layer 6": "--layer 2",
    "--layer all": "--layer 1 --layer -1",
    "--limit 200": "--limit 3",
    "--n 1000": "--n 4",
    "noto/200": "noto/5",
    "twemoji/8#": "twemoji/5#",
    "budget=128": "budget=48",
    "/data/coco": "coco",
    "$HOME/Pictures": "photos",
    "~/Pictures": "photos",
    "--out tuned": "--out tuned --epochs 1 --batch 4",
    "--method banzhaf --method": "--method banzhaf:budget=48 --method",
}

PARSED = {
    "secondsight serve": "it serves until it is stopped; test_server.py",
    "secondsight evaluate paper": "its models come from a hub; test_evaluation.py",
    "secondsight evaluate scenes-paper": "a quarter of an hour; test_scenes_paper.py",
    "secondsight decompose --data coco:coco#train2017": "it needs a cluster; test_ray.py",
}
"""Commands whose options are checked without running them, and why."""


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A folder with what readers of the documentation have."""
    world = list(Scenes(12, seed=6))
    world[0].image.save(tmp_path / "scene.png")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for split in ("train2017", "val2017"):
        export_coco(Scenes(8, seed=len(split)), tmp_path / "coco", split)
    files = []
    for folder in ("photos", "mine"):
        (tmp_path / folder).mkdir()
    for i, one in enumerate(world):
        one.image.save(tmp_path / "photos" / f"{i}.png")
        files.append(one.__class__(**{**vars(one), "image": tmp_path / "photos" / f"{i}.png", "image_key": str(i)}))
    write_jsonl(tmp_path / "photos.jsonl", files[:4])
    write_jsonl(tmp_path / "mine" / "data.jsonl", files)
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "model.safetensors").write_bytes(
        (ROOT / "src" / "secondsight" / "encoders" / "families" / "scenes.safetensors").read_bytes()
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [p for p in TOLD if shell(p)], ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::secondsight.ConvergenceWarning")
def test_the_commands_of_a_page_run(page, builtin, reader):
    del builtin
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for line in shell(page):
        told = line
        for given, stand_in in STANDS_FOR.items():
            line = line.replace(given, stand_in)
        words = shlex.split(line)
        if words[0] == "make":
            assert words[1] in targets, told
        elif words[:2] == ["pip", "install"]:
            named = re.findall(r"\[(.*)\]", told)
            assert all(extra in extras for group in named for extra in group.split(",")), told
        elif words[0] == "secondsight":
            known = get_command(app).commands
            assert words[1] in known, told
            if any(line.startswith(start) for start in PARSED):
                known[words[1]].make_context(words[1], words[2:])
                continue
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, (told, done.output[-800:], done.exception)
        else:
            assert words[0] in ("cd", "git", "python", "python3", ".", "apt-get", ".venv/bin/python"), told
            for word in words[1:]:
                assert not word.endswith(".py") or (ROOT / word).exists() or (ROOT / "tests" / word).exists(), told


def test_links_lead_somewhere():
    for page in TOLD:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), (page.name, target)


class Links(HTMLParser):
    """What a page links to and loads, and the anchors that it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.add(found["href"])
        if found.get("src"):
            self.loads.add(found["src"])
        if tag == "link" and found.get("href") and found.get("rel") not in ("canonical", "next", "prev"):
            self.loads.add(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs", reason="needs secondsight[docs]")
    place = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-3000:]
    return place


def test_every_link_of_the_site_leads_somewhere(site):
    """Files, anchors and whatever a page loads; nothing is loaded from anywhere else."""
    pages = {p: Links(p.read_text()) for p in site.rglob("*.html")}
    assert len(pages) > 30
    for page, found in pages.items():
        for target in found.links | found.loads:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert target not in found.loads or parts.scheme == "data", (page.name, target)
                continue
            if page.name == "404.html":
                continue  # it is shown at any path, so its links start at the root
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            file = file / "index.html" if file.is_dir() else file
            assert file.exists(), (page.name, target)
            if parts.fragment and file in pages:
                assert unquote(parts.fragment) in pages[file].anchors | {"__top"}, (page.name, target)


@needs_browser
def test_the_site_in_a_browser(site):
    """It is searched and read without a message in the console or a request to another origin; formulas are set."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin, said = f"http://127.0.0.1:{server.server_port}/", []
    try:
        with chromium() as browser:
            page = browser.new_page()
            page.on("console", lambda message: said.append(message.text))
            page.on("request", lambda asked: asked.url.startswith((origin, "data:", "blob:")) or said.append(asked.url))
            page.goto(origin + "mathematics.html")
            assert page.locator("math").count() > 50
            assert page.locator("merror").count() == 0
            assert "\\(" not in page.inner_text("article")
            page.goto(origin + "tutorial.html")
            page.locator(".md-search__input").click()
            page.keyboard.type("Kronecker")
            page.wait_for_selector(".md-search-result__link")
            assert "mathematics" in page.locator(".md-search-result__link").first.get_attribute("href")
    finally:
        server.shutdown()
    assert said == []


def test_public_names_are_in_the_reference(site):
    """Whatever `secondsight` exports has its place in the reference."""
    import secondsight as ss

    shown = "\n".join(p.read_text() for p in (site / "reference").glob("*.html"))
    for name in set(ss.__all__) - {"METHODS", "methods", "visual"}:
        value = getattr(ss, name)
        home = value.__name__ if isinstance(value, types.ModuleType) else f"{value.__module__}.{value.__qualname__}"
        assert f'id="{home}"' in shown, name


def test_the_table_of_families_is_current(builtin):
    del builtin
    spec = importlib.util.spec_from_file_location("families_table", ROOT / "scripts" / "families_table.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text() == script.page(), "run scripts/families_table.py"
