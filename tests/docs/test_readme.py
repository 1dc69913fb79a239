"""The README's Python examples run as they stand; its commands name what exists."""

import re
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch

import secondsight as ss
from documents import ROOT, python_blocks, replace_all, shell_commands
from families import FAMILIES, save_hub

README = ROOT / "README.md"


def save_stand_ins(folder: Path) -> dict[str, str]:
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


@pytest.mark.parametrize("code", python_blocks(README))
def test_python_examples_run(code, builtin, tmp_path, monkeypatch):
    del builtin
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    if "hf:" in code:
        stand_ins = save_stand_ins(tmp_path)
        assert all(original in code for original in stand_ins)
        code = replace_all(code, stand_ins)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    if "my_clip" in names:
        assert ss.explain(names["model"], "examples/coffee.jpg", "a cup of coffee").error < 1e-2


def test_shell_examples_name_what_exists():
    commands = shell_commands(README)
    targets = {command.split()[1] for command in commands if command.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    explain = [command for command in commands if command.startswith("secondsight explain")]
    options = {option for command in explain for option in re.findall(r"--[a-z]+", command)}
    usage = subprocess.run(
        [sys.executable, "-m", "secondsight", "explain", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert options
    assert all(option in usage for option in options)
