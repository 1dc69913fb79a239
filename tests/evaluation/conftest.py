"""A small random model, and captions of drawn pictures with boxes and wrong captions for it."""

import pytest

from captions import write_data
from models import small


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))
