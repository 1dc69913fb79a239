"""Whole studies: the paper's experiments, and what holds in the world of scenes."""
