"""What starting up loads, and what is refused before it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PHOTO = str(ROOT / "examples" / "coffee.jpg")

HEAVY = ("transformers", "timm", "torchvision", "open_clip", "torch._dynamo", "torch._inductor", "sympy", "pandas")
HEAVY += ("scipy", "fastapi", "ray", "anywidget", "IPython", "sklearn", "accelerate", "huggingface_hub")

COMMAND = """
import sys
sys.argv = ["secondsight", *{arguments!r}]
from secondsight.__main__ import main
try:
    main()
finally:
    print("LOADED", *sorted(sys.modules))
"""


def python(code: str) -> subprocess.CompletedProcess:
    # Coverage and the checker of shapes would load libraries of their own.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "COV_"))}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, env=clean
    )


def command(*arguments: str) -> tuple[subprocess.CompletedProcess, set[str]]:
    """The command, and the modules that it loaded."""
    result = python(COMMAND.format(arguments=arguments))
    line = next(line for line in result.stdout.splitlines() if line.startswith("LOADED"))
    return result, set(line.split()[1:])


def test_the_package_alone_loads_no_library():
    result = python("import sys, secondsight; print(*sys.modules)")
    assert not {"torch", "numpy", "PIL", *HEAVY} & set(result.stdout.split())


@pytest.mark.parametrize("kind", [None, "html"])
def test_explaining_by_the_builtin_model_loads_no_heavy_library(builtin, tmp_path, kind):
    del builtin
    files = [] if kind is None else ["--out", str(tmp_path / f"e.{kind}")]
    result, loaded = command("explain", PHOTO, "a cup of coffee on a saucer", *files)
    assert result.returncode == 0, result.stderr
    assert "torch" in loaded
    assert set(HEAVY) & loaded == set()
    assert result.stderr == ""


def test_numbers_alone_load_no_library_of_figures(builtin):
    del builtin
    _, loaded = command("explain", PHOTO, "a cup of coffee", "--quiet")
    assert "matplotlib" not in loaded


def damaged(folder: Path) -> Path:
    path = folder / "damaged.jpg"
    Image.effect_noise((200, 200), 60).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "caption", "options", "sentence"),
    [
        (lambda folder: written(folder, "empty.jpg", b""), "a dog", [], "is not a photograph that can"),
        (lambda folder: written(folder, "words.png", b"some words"), "a dog", [], "is not a photograph that can"),
        (lambda folder: written(folder, "no_ending", b"some words"), "a dog", [], "is not a photograph that can"),
        (damaged, "a dog", [], "damaged"),
        (lambda folder: folder / "missing.jpg", "a dog", [], "does not exist"),
        (lambda folder: folder, "a dog", [], "is a folder"),
        (lambda folder: PHOTO, " ", [], "the caption is empty"),
        (lambda folder: PHOTO, "a dog", ["--model", "bultin"], "unknown model"),
        (lambda folder: PHOTO, "a dog", ["--out", "/no/such/folder/page.html"], "does not exist"),
        (lambda folder: PHOTO, "a dog", ["--out", "/proc/page.html"], "cannot be written"),
        (lambda folder: PHOTO, "a dog", ["--out", "page.doc"], "must end in"),
        (lambda folder: PHOTO, "a dog", ["--box", "1,2,3"], "not four numbers"),
    ],
)
def test_bad_input_is_refused_before_torch_is_loaded(tmp_path, make, caption, options, sentence):
    result, loaded = command("explain", str(make(tmp_path)), caption, *options)
    assert result.returncode == 2
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert "torch" not in loaded


def test_an_unknown_method_is_refused_before_a_model_is_loaded():
    result, loaded = command("explain", PHOTO, "a dog", "--method", "shaply")
    assert result.returncode == 2
    assert "shaply" in result.stderr
    assert "secondsight.encoders.families.builtin" not in loaded


def test_libraries_warn_nobody():
    """timm and open_clip use torch.jit's functions, which torch is about to drop."""
    result = python("import secondsight as ss; ss.load('scenes'); ss.explain; ss.visual; ss.methods; ss.testing")
    assert result.returncode == 0
    assert result.stderr == ""
    result, _ = command("explain", PHOTO, "a tree", "--model", "scenes", "--quiet")
    assert result.stderr == ""
