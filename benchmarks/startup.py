"""How long `secondsight explain` takes beside `import torch`: medians of five, alternating in one run.

    python benchmarks/startup.py [--rounds 5]

Three commands for the builtin model: numbers only; with a page and a picture; and an empty file, which is refused.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

PHOTO = Path(__file__).parents[1] / "examples" / "coffee.jpg"
CAPTION = "a cup of coffee on a saucer"


def seconds(*arguments: str, status: int = 0) -> float:
    """How long a Python process takes, which has to end with this status."""
    start = time.perf_counter()
    result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if result.returncode != status:
        sys.exit(f"{' '.join(arguments)} ended with {result.returncode}: {result.stderr}")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.jpg"
        empty.touch()
        explain = ("-m", "secondsight", "explain")
        files = ("--out", f"{folder}/e.html", "--out", f"{folder}/e.png")
        commands = {
            "import torch": ("-c", "import torch"),
            "explain": (*explain, str(PHOTO), CAPTION, "--quiet"),
            "explain, with .html and .png": (*explain, str(PHOTO), CAPTION, "--quiet", *files),
            "an empty file refused": (*explain, str(empty), CAPTION),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, arguments in commands.items():
                spent = seconds(*arguments, status=2 if "refused" in name else 0)
                # The first round fills the caches of files.
                if number:
                    times[name].append(spent)
    base = median(times["import torch"])
    for name, spent in times.items():
        print(f"{name:30} {median(spent):6.2f} s  {median(spent) / base:5.2f} × import torch")


if __name__ == "__main__":
    main()
