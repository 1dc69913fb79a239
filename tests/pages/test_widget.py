"""The widget in a notebook: it runs there, follows Python, and static renderers show the page instead."""

import re

import pytest

import secondsight as ss
from pages import chromium, needs_browser, page_of

pytest.importorskip("anywidget", reason="needs secondsight[notebook]")


@pytest.fixture(scope="module")
def e():
    from secondsight.data import Scenes

    one = next(iter(Scenes(1, seed=7, size=192)))
    return ss.explain(ss.load("scenes"), one.image, one.caption)


@needs_browser
def test_a_notebook_runs_with_the_widget(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    cells = [
        "import secondsight as ss\nfrom secondsight.data import Scenes\none = next(iter(Scenes(1, seed=7, size=192)))",
        "e = ss.explain(ss.load('scenes'), one.image, one.caption)\ne",
        "view = e.widget(one.caption.split()[-1])\nview",
        "view.pick((10, 10, 90, 90), [0, 1])\nview.picked",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [cell.outputs[-1]["data"] if cell.outputs else {} for cell in notebook.cells]
    assert "srcdoc=" in shown[1]["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in shown[2]
    assert "srcdoc=" in shown[2]["text/html"]
    assert shown[3]["text/plain"] == "([10.0, 10.0, 90.0, 90.0], [0, 1])"
    # Without a kernel, as after an export, the page is what is left.
    nbconvert = pytest.importorskip("nbconvert", reason="needs nbconvert")
    exported, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    frame = re.search(r"<iframe srcdoc=.*?</iframe>", exported, re.S)[0]
    (tmp_path / "exported.html").write_text(f"<!doctype html><title>x</title>{frame}")
    with chromium() as browser, page_of(browser) as page:
        page.goto((tmp_path / "exported.html").as_uri())
        page.frame_locator("iframe").locator(".ss-word").first.wait_for()
    # The widget's own cell shows its page as well, where no server gives the scripts that run widgets.
    cell = nbformat.v4.new_notebook(cells=[notebook.cells[2]], metadata=notebook.metadata)
    alone, _ = nbconvert.HTMLExporter().from_notebook_node(cell)
    assert alone.count("<iframe srcdoc=") == 1
    page_alone = re.search(r'<div class="secondsight-page"><iframe srcdoc=.*?</iframe></div>', alone, re.S)[0]
    (tmp_path / "alone.html").write_text(f"<!doctype html><title>x</title>{page_alone}")
    with chromium() as browser, page_of(browser) as page:
        page.goto((tmp_path / "alone.html").as_uri())
        page.frame_locator("iframe").locator(".ss-word").first.wait_for()
        assert page.locator(".secondsight-page").is_visible()


@needs_browser
def test_the_module_talks_with_python(e, tmp_path):
    """The module's `render` against a model such as anywidget's: what is picked is told, what is wished is done."""
    view = e.widget()
    module = view._esm if isinstance(view._esm, str) else str(view._esm)
    harness = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title><style>{view._css}</style>
    <main id="here"></main><script type="module">{module.replace("export default", "const widget =")}
    const values = {{data: {__import__("json").dumps(view.data).replace("<", chr(92) + "u003c")}, state: {{}}}}, heard = {{}};
    window.saved = 0;
    window.model = {{ get: (k) => values[k], set: (k, v) => {{ values[k] = v; }}, save_changes: () => {{ window.saved += 1; }},
      on: (name, f) => {{ heard[name] = f; }} }};
    window.wish = (state) => {{ values.state = state; heard["change:state"](); }};
    window.end = widget.render({{ model: window.model, el: document.getElementById("here") }});
    </script></html>"""
    (tmp_path / "w.html").write_text(harness)
    with chromium() as browser, page_of(browser, viewport={"width": 900, "height": 900}) as page:
        page.goto((tmp_path / "w.html").as_uri())
        page.wait_for_selector(".ss-word")
        # What is shown at first is told once.
        assert page.evaluate("[window.saved, window.model.get('state').right]") == [1, None]
        page.locator(".ss-word").nth(1).click()
        assert page.evaluate("[window.saved, window.model.get('state').right]") == [2, [1]]
        page.evaluate("window.wish({left: [10, 10, 90, 90], right: [0, 1]})")
        assert page.locator(".ss-word.ss-on").count() == 2
        assert page.evaluate("[window.saved, window.model.get('state').value !== undefined]") == [3, True]
        page.evaluate("window.end()")
        assert page.locator(".ss-word").count() == 0


def test_without_the_extra_a_sentence_says_what_to_install(e, monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *args, **options):
        if name == "secondsight.visual.widget":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ss.InputError, match=re.escape("pip install 'secondsight[notebook]'")):
        e.widget()


def test_python_picks_words_by_their_spelling(e):
    view = e.widget()
    word = e.words[1][0]
    view.pick((10, 10, 90, 90), word)
    assert view.picked == ([10.0, 10.0, 90.0, 90.0], [1])
    view.pick(None, [0, 2])
    assert view.picked == (None, [0, 2])
    with pytest.raises(ss.InputError, match="its words are"):
        view.pick(None, "zebra")
    with pytest.raises(ss.InputError, match="outside the image"):
        view.pick((500, 500, 600, 600))
