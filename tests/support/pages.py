"""Numbers out of a page's data, and a browser for tests of pages.

The browser is Debian's chromium, driven by playwright; nothing but the page's own origin may be reached.
"""

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium")

REQUIRED = bool(os.environ.get("SECONDSIGHT_REQUIRE_BROWSER"))
MISSING = "these tests need Debian's chromium: apt-get install chromium"

needs_browser = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason=MISSING)


def unpacked(packed: str, rows: int) -> np.ndarray:
    """A matrix of a page's data."""
    return np.frombuffer(base64.b64decode(packed), "<f4").reshape(rows, -1)


@contextmanager
def chromium() -> Iterator:
    """A browser; playwright's own loop keeps others from running, so it lives no longer than its tests.

    Without chromium tests are skipped, but fail where SECONDSIGHT_REQUIRE_BROWSER is set, as `make test` does.
    """
    if CHROMIUM is None:
        (pytest.fail if REQUIRED else pytest.skip)(MISSING)
    if REQUIRED:
        import playwright.sync_api as playwright
    else:
        playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@contextmanager
def page_of(browser, **options) -> Iterator:
    """A page in a context of its own. On leaving: no message in the console, no request to another origin."""
    context = browser.new_context(**options)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda problem: said.append(str(problem)))
    page.on("request", lambda request: asked.append(request.url))
    page.expected = []
    yield page
    own = page.url.split("/")[2]
    foreign = [u for u in asked if not u.startswith(("data:", "blob:", "file:")) and u.split("/")[2] != own]
    context.close()
    assert foreign == []
    assert [line for line in said if not any(part in line for part in page.expected)] == []


def faults(page) -> list[str]:
    """What axe-core finds serious or critical, with the places."""
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {[node['html'][:120] for node in one['nodes']][:4]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
