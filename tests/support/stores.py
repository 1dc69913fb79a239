"""Contributions of random numbers, for tests of stores and for the processes that these start."""

import torch

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import GridLayout
from secondsight.algebra.outcome import Outcome


def random_contributions(seed, features=7, joint=12, size=1.0):
    g = torch.Generator().manual_seed(seed)
    vectors = torch.randn(features, joint, generator=g) * size
    reference = torch.randn(joint, generator=g)
    layout = GridLayout(features, {0: "class"}, (features - 1, 1), (60, 40), (0.0, 0.0, 60.0, 40.0))
    outcome = Outcome("random", "input" if seed % 2 else 3, "black", 1e-7 * seed, seed < 4, 1e-3, None, 17)
    return Contributions(
        vectors,
        reference + vectors.sum(0),
        reference,
        layout,
        0.5,
        {"note": "random"},
        outcome=outcome if seed else None,
    )
