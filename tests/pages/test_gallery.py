"""The pictures of docs/gallery.md come from its script, and the script still runs."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

import secondsight as ss

ROOT = Path(__file__).parents[2]
MADE_ELSEWHERE = {"page.png", "why.png", "texts.png", "start.png", "app.png", "search.png"}
"""By a browser; the tests of the view and the app go through the same pages."""


@pytest.mark.filterwarnings("ignore::secondsight.ConvergenceWarning")
def test_the_script_makes_the_pages_pictures(tmp_path):
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "scripts" / "gallery.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    # The scenes model knows cups as well, and takes a tenth of the builtin one's time.
    scenes = ss.load("scenes")
    script.draw_explanations(tmp_path, scenes)
    script.draw_experiments(tmp_path, scenes)
    named = set(re.findall(r"gallery/([\w.-]+)", (ROOT / "docs" / "gallery.md").read_text())) - {"gallery.py"}
    made = {path.name for path in tmp_path.iterdir()}
    assert named == made | MADE_ELSEWHERE
    for path in tmp_path.glob("*.png"):
        # Something is drawn: many colours, and no picture of one shade.
        assert len(Image.open(path).convert("RGB").getcolors(1 << 24)) > 8
