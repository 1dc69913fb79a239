"""The shapes that stand in signatures are checked while tests run."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from secondsight.algebra.assignment import Assignment
from secondsight.encoders.families.sentence_transformers.lookups import Table
from secondsight.methods.layer_input import LayerInput
from secondsight.paths.tails import Affine


def test_functions_methods_and_dataclasses_with_other_shapes_are_refused():
    affine = Affine(torch.eye(3), torch.zeros(3))
    assert affine(torch.ones(2, 3)).shape == (2, 3)
    one = torch.tensor([0])
    for wrong in (
        lambda: Affine(torch.eye(3)[0]),
        lambda: affine.backward(torch.tensor(1)),
        lambda: Assignment(torch.zeros(1, 2), one, one.double()),
        lambda: Table(nn.Embedding(3, 2))(torch.zeros(1, 2, 3, dtype=torch.long)),
    ):
        with pytest.raises(TypeCheckError):
            wrong()
    assert hasattr(LayerInput.hidden.func, "__wrapped__")
