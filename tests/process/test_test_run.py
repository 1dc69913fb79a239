"""What `make test` and `.ci/run` make sure of: no browser, no LaTeX, or a skipped test is said and fails."""

import os
import subprocess
import sys

from documents import ROOT

SKIPS = """
import pytest

def test_of_a_page():
    pytest.skip("needs Debian's chromium")

def test_of_photographs():
    pytest.skip("needs the photographs in a folder, which are not part of the project")

@pytest.mark.xfail
def test_expected_to_fail():
    raise ValueError
"""


def run_skips(folder, *options):
    """pytest's last line on `SKIPS`, and its exit code."""
    (folder / "test_skips.py").write_text(SKIPS)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}:{ROOT / 'tests' / 'support'}",
        "PYTEST_ADDOPTS": "",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", *options, "."]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return result.stdout.splitlines()[-1], result.returncode


def test_only_allowed_skips_pass_where_skips_are_forbidden(tmp_path):
    summary, code = run_skips(tmp_path, "--no-skips")
    assert summary.startswith("1 failed, 1 skipped, 1 xfailed")
    assert code == 1
    summary, code = run_skips(tmp_path)
    assert summary.startswith("2 skipped, 1 xfailed")
    assert code == 0


def test_a_machine_without_a_package_manager_is_told_what_to_install(tmp_path):
    script = ROOT / "scripts" / "system_packages.sh"
    result = subprocess.run(["/bin/bash", script], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == (
        "make test needs chromium and pdflatex on the PATH; "
        "on Debian, as root: apt-get install chromium texlive-latex-recommended\n"
    )


def test_what_has_to_pass_forbids_skips_and_requires_the_browser():
    assert "--no-skips make test" in (ROOT / ".ci" / "run").read_text()
    assert "SECONDSIGHT_REQUIRE_BROWSER=1" in (ROOT / "Makefile").read_text()
