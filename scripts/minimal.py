"""What is tried with the smallest set of dependencies: `--tests` prints what the tests need beside them, `--modules` which.

CI installs the lower bounds of pyproject.toml (`uv pip install --resolution lowest-direct`) and runs these modules there.
"""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = (
    "pytest",
    "pytest-socket",
    "pytest-cov",
    "hypothesis",
    "beartype",
    "captum",
    "shapiq",
    "deepsig",
    "pycocotools",
    "httpx",
)

MODULES = ("algebra", "engine", "quadrature", "layout", "methods", "numerics", "parity", "encoders", "conformance", "loading",
           "untouched", "pairings", "images", "data", "builtin", "visual", "cli", "hostile")  # fmt: skip

if __name__ == "__main__":
    asked = sys.argv[1:]
    print(
        " ".join(
            TESTS
            if asked == ["--tests"]
            else [str(path) for name in MODULES for path in sorted(Path("tests").glob(f"*/test_{name}.py"))]
        )
    )
