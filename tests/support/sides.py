"""Random contributions of a photograph and a text: what the tests of the algebra start from."""

import torch
from hypothesis import strategies as st

from secondsight import Contributions, GridLayout, Layout, TokenLayout

TEXT = "A dog jumps for a frisbee."
TOKENS = ("<s>", "a", "dog", "jumps", "for", "a", "fris", "bee", ".", "</s>")
OFFSETS = (None, (0, 1), (2, 5), (6, 11), (12, 15), (16, 17), (18, 22), (22, 25), (25, 26), None)


def image_layout() -> GridLayout:
    """Two rows of three cells over a photograph of 90 × 60 pixels, behind a class token."""
    return GridLayout(7, {0: "class"}, (2, 3), (90, 60), (0.0, 0.0, 90.0, 60.0))


def text_layout() -> TokenLayout:
    """`TEXT` in pieces of words, between a start and an end token."""
    return TokenLayout(10, {0: "start", 9: "end"}, TOKENS, OFFSETS, TEXT)


def random_side(layout: Layout, seed: int, dtype: torch.dtype, exact: bool = True, joint: int = 4) -> Contributions:
    """Random contributions of one input; they add up to its embedding if `exact`."""
    g = torch.Generator().manual_seed(seed)
    vectors = torch.randn(layout.size, joint, generator=g, dtype=torch.float64)
    reference = torch.randn(joint, generator=g, dtype=torch.float64)
    missed = torch.zeros(joint) if exact else torch.randn(joint, generator=g)
    embedding = reference + vectors.sum(0) + missed
    scale = 1 / float(embedding.norm())
    return Contributions(vectors.to(dtype), embedding.to(dtype), reference.to(dtype), layout, scale, {"seed": seed})


seeds = st.integers(0, 2**31)
dtypes = st.sampled_from([torch.float32, torch.float64])


class InMemory:
    """The least that `search` needs: keys, embeddings and items."""

    def __init__(self, contributions):
        self.contributions = contributions
        self.embeddings = torch.stack([c.embedding.double() * c.scale for c in contributions.values()])

    def keys(self):
        return list(self.contributions)

    def __getitem__(self, key):
        return self.contributions[key]
