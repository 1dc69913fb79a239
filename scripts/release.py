"""Build a release and try it as a stranger would: `python scripts/release.py [--out dist]`.

Wheel and source distribution are built and checked, the wheel is installed into an empty environment away from the clone,
and there `secondsight explain` and `secondsight serve` explain a photograph. Exit code 1 with a sentence where anything fails.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

CARRIED = (
    "visual/web/view.js",
    "server/web/app.html",
    "server/web/examples/raccoon.jpg",
    "encoders/families/builtin_map.safetensors",
    "encoders/families/scenes.safetensors",
    "encoders/families/scenes_merges.txt.gz",
    "data/coco_synonyms.json",
    "data/scenes/noto.png",
    "evaluation/studies/paper.yaml",
    "py.typed",
)
"""Files without which an installed package does not do its work."""


def ran(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    process = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:6])} failed:\n{process.stdout[-2000:]}{process.stderr[-2000:]}")
    return process.stdout


def built(out: Path) -> tuple[Path, Path]:
    """The wheel and the source distribution, from the files that git knows."""
    shutil.rmtree(out, ignore_errors=True)
    ran(sys.executable, "-m", "build", "--outdir", str(out), cwd=ROOT)
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, source


def checked(wheel: Path, source: Path) -> None:
    """Metadata that an index accepts, one version everywhere, every file that the package needs, and no foreign file."""
    ran(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    source_text = (ROOT / "src/secondsight/__init__.py").read_text()
    if f'__version__ = "{version}"' not in source_text or f"-{version}-" not in wheel.name:
        raise SystemExit(f"the version is {version} in pyproject.toml and another in the package or the wheel's name")
    names = zipfile.ZipFile(wheel).namelist()
    missing = [name for name in CARRIED if f"secondsight/{name}" not in names]
    foreign = [n for n in names if not n.startswith(("secondsight/", f"secondsight-{version}.dist-info/"))]
    if missing or foreign:
        raise SystemExit(f"the wheel lacks {missing} or carries {foreign}")
    with tarfile.open(source) as archive:
        if any("coco_mini" in name or name.endswith((".pt", ".ckpt")) for name in archive.getnames()):
            raise SystemExit("the source distribution carries data or weights that are not ours")


def installed(wheel: Path, place: Path) -> Path:
    """An empty environment with the wheel; the folder of its commands."""
    ran(sys.executable, "-m", "venv", str(place / "venv"))
    commands = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
    ran(
        str(commands / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        f"{wheel}[builtin,web]",
    )
    return commands


def tried(commands: Path, place: Path) -> dict[str, float]:
    """What a stranger does first, away from the clone: a photograph in the terminal, then in the app."""
    photo = place / "photo.jpg"
    shutil.copy(ROOT / "examples" / "coffee.jpg", photo)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    output = ran(
        str(commands / "secondsight"), "explain", "photo.jpg", "a cup of coffee on a table", "--select", "coffee",
        "--out", "page.html", "--out", "figure.png", "--json", "numbers.json", cwd=place, env=env,
    )  # fmt: skip
    numbers = json.loads((place / "numbers.json").read_text())
    total = sum(numbers["terms"].values())
    if (
        "coffee" not in output
        or abs(total - numbers["similarity"]) > 1e-3
        or (place / "page.html").stat().st_size < 50_000
    ):
        raise SystemExit("the explanation of the installed package is not what it should be")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [str(commands / "secondsight"), "serve", "--port", str(port)],
        cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except (urllib.error.URLError, ConnectionError):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(
                        f"the app did not start: {server.stderr.read()[-500:] if server.stderr else ''}"
                    ) from None
                time.sleep(0.3)
        question = {"image": base64.b64encode(photo.read_bytes()).decode(), "captions": ["a cup of coffee"]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/explain", json.dumps(question).encode(), {"content-type": "application/json"}
        )
        answer = json.loads(urllib.request.urlopen(request, timeout=300).read())
    finally:
        server.terminate()
        server.wait(30)
    if b"<title>" not in page or answer["explanations"][0]["error"] > 1e-3:
        raise SystemExit("the app of the installed package does not explain")
    return {"terminal": numbers["error"], "app": answer["explanations"][0]["error"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    options = parser.parse_args()
    wheel, source = built(options.out.resolve())
    checked(wheel, source)
    print(
        f"{wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB) and {source.name} ({source.stat().st_size / 1e6:.1f} MB)"
    )
    with tempfile.TemporaryDirectory(prefix="stranger-") as place:
        errors = tried(installed(wheel, Path(place)), Path(place))
    print(
        "installed in an empty environment, it explains: errors", ", ".join(f"{v:.1e} ({k})" for k, v in errors.items())
    )


if __name__ == "__main__":
    main()
