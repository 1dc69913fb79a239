"""Mutation testing of the algebra and the pooled closed form: `python scripts/mutants.py [--keep FOLDER]`.

mutmut changes one thing at a time in a copy of the project and runs the tests that should notice. Survivors are printed with
their change; each is explained in tests/mutants.md, or a test is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

MUTATED = (
    "src/secondsight/algebra/contributions.py",
    "src/secondsight/algebra/interactions.py",
    "src/secondsight/algebra/difference.py",
    "src/secondsight/paths/pooled.py",
)

NOTICING = (
    "tests/algebra/test_algebra.py",
    "tests/algebra/test_sums.py",
    "tests/paths/test_pooled.py",
    "tests/algebra/test_difference.py",
    "tests/algebra/test_numerics.py::test_a_pair_is_linear_in_either_side",
    "tests/algebra/test_numerics.py::test_selections_add_up",
    "tests/algebra/test_numerics.py::test_the_size_of_the_embeddings_does_not_matter",
)
"""Tests in which a mutant should show; of all tests these are the quick ones."""

SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {mutated}
also_copy = ["tests", "examples", "docs", "scripts", "README.md", "CONTRIBUTING.md", "Makefile"]
pytest_add_cli_args_test_selection = {noticing}
pytest_add_cli_args = ["-x", "-q"]
max_children = 2
"""


def copied(place: Path) -> None:
    """The project's files there, set up for mutmut."""
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines():
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    settings = (place / "pyproject.toml").read_text()
    (place / "pyproject.toml").write_text(settings + SETTINGS.format(mutated=list(MUTATED), noticing=list(NOTICING)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="work there instead of in a temporary folder, and leave it")
    options = parser.parse_args()
    place = options.keep or Path(tempfile.mkdtemp(prefix="mutants-"))
    copied(place)
    command = str(Path(sys.executable).parent / "mutmut")
    # Its runs share a process, and what it changes is not what was checked.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
    subprocess.run([command, "run"], cwd=place, env=env, check=False)
    left = subprocess.run([command, "results"], cwd=place, env=env, capture_output=True, text=True, check=False).stdout
    for line in left.splitlines():
        name = line.strip().split(":")[0]
        print(line.strip())
        if "survived" in line:
            print(
                subprocess.run(
                    [command, "show", name], cwd=place, env=env, capture_output=True, text=True, check=False
                ).stdout
            )
    if options.keep is None:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
