"""Contributions, interactions and layouts: the algebra of explanations. No model code."""
