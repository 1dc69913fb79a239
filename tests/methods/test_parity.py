"""The public implementation's numbers, by every strategy that applies."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

import secondsight as ss

DATA = Path(__file__).parents[1] / "data" / "parity"


@pytest.fixture(scope="module")
def model() -> ss.DualEncoder:
    host = open_clip.CLIP(**json.loads((DATA / "model_config.json").read_text()))
    host.load_state_dict(load_file(DATA / "weights.safetensors"), strict=False)
    return ss.wrap(host)


@pytest.mark.parametrize("strategy", ["auto", "pooled", "forward", "reverse", "paired"])
@pytest.mark.parametrize("case", range(5))
def test_attributions_are_those_of_the_public_implementation(model, case, strategy):
    cases = np.load(DATA / "cases.npz")

    def value(name: str) -> torch.Tensor:
        return torch.from_numpy(cases[f"{name}_{case}"])

    layers = int(value("image_layer")), int(value("text_layer"))
    if strategy == "pooled" and layers != (3, 2):
        pytest.skip("the closed form is for the last blocks")
    method = ss.IntegratedJacobian(
        layer=layers,
        quadrature="riemann",
        steps=int(value("n_steps")),
        reference=(value("image_reference"), value("token_reference")),
        strategy=strategy,
    )
    e = ss.explain(model, value("image"), value("tokens"), method)
    expected = value("attributions")
    # Theirs: tokens first, the class token's column dropped.
    ours = e.left_layout.view(e.matrix.T)
    assert float((ours - expected).abs().max()) < 1e-6
    assert e.similarity == pytest.approx(float(value("similarity")), abs=1e-6)
