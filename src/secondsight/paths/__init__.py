"""The path integral: quadrature, strategies, and the closed form. Knows functions and tensors, no model family."""
