"""The built site: its links, its reference, and how it reads in a browser."""

import importlib.util
import os
import re
import subprocess
import sys
import threading
import types
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from documents import PAGES, ROOT
from pages import chromium, needs_browser


def test_links_between_pages_lead_to_files():
    for page in PAGES:
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
        attributes = dict(attrs)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.add(attributes["href"])
        if attributes.get("src"):
            self.loads.add(attributes["src"])
        if tag == "link" and attributes.get("href") and attributes.get("rel") not in ("canonical", "next", "prev"):
            self.loads.add(attributes["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs", reason="needs secondsight[docs]")
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def test_every_link_of_the_site_leads_somewhere(site):
    """Files, anchors and everything a page loads exist; nothing is loaded from another origin."""
    pages = {p: Links(p.read_text()) for p in site.rglob("*.html")}
    assert len(pages) > 30
    for page, links in pages.items():
        for target in links.links | links.loads:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert target not in links.loads or parts.scheme == "data", (page.name, target)
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
    """Searching and reading log nothing to the console and ask no other origin; formulas are typeset."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}/"
    messages, foreign = [], []
    own = (origin, "data:", "blob:")
    try:
        with chromium() as browser:
            page = browser.new_page()
            page.on("console", lambda message: messages.append(message.text))
            page.on("request", lambda request: request.url.startswith(own) or foreign.append(request.url))
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
    assert messages == []
    assert foreign == []


def test_public_names_are_in_the_reference(site):
    """Every name that `secondsight` exports has its place in the reference."""
    import secondsight as ss

    reference = "\n".join(p.read_text() for p in (site / "reference").glob("*.html"))
    for name in set(ss.__all__) - {"METHODS", "PRESETS", "methods", "visual"}:
        value = getattr(ss, name)
        home = value.__name__ if isinstance(value, types.ModuleType) else f"{value.__module__}.{value.__qualname__}"
        assert f'id="{home}"' in reference, name


def test_the_table_of_families_is_current(builtin):
    del builtin
    spec = importlib.util.spec_from_file_location("families_table", ROOT / "scripts" / "families_table.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text() == script.page(), "run scripts/families_table.py"
