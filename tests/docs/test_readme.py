"""The README's Python and shell examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch

import secondsight as ss
from families import FAMILIES, save_hub

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def stand_ins(folder: Path) -> dict[str, str]:
    """Small random models on disk for those that readers fetch from a hub."""
    save_hub(FAMILIES["hf-siglip"](torch.float32), folder / "siglip")
    FAMILIES["st-minilm-mean"](torch.float32).host.save(str(folder / "minilm"))
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), folder / "clip.pt")
    return {
        "open_clip:ViT-B-16/openai": f"open_clip:ViT-S-32-alt/{folder / 'clip.pt'}",
        "hf:google/siglip-base-patch16-224": f"hf:{folder / 'siglip'}",
        "st:sentence-transformers/all-MiniLM-L6-v2": f"st:{folder / 'minilm'}",
        '"ViT-B-16"': '"ViT-S-32-alt"',
        'pretrained="openai"': "pretrained=None",
    }


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.S))
def test_python_examples_run(code, builtin, tmp_path, monkeypatch):
    del builtin
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    if "hf:" in code:
        for given, stand_in in stand_ins(tmp_path).items():
            assert given in code
            code = code.replace(given, stand_in)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    if "my_clip" in names:
        assert ss.explain(names["model"], "examples/coffee.jpg", "a cup of coffee").error < 1e-2


def test_shell_examples_name_what_exists():
    commands = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
    targets = {line.split()[1] for line in commands if line.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{t}:", makefile, re.M) for t in targets)
    options = {w for line in commands if line.startswith("secondsight explain") for w in re.findall(r"--[a-z]+", line)}
    helped = subprocess.run(
        [sys.executable, "-m", "secondsight", "explain", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert options
    assert all(option in helped for option in options)
