"""Ways to look at an explanation: figures, the terminal, one page, a widget, LaTeX. Data and view are kept apart.

`plot`, `pairs` and `method_grid` draw explanations; `plots` has the kinds of figure that experiments give; `latex` colours
words for a paper.
"""

from typing import Any

from secondsight.support.errors import InputError

__all__ = ["latex", "method_grid", "pairs", "plot", "plots", "save"]

_HOMES = {"plot": "figures", "pairs": "figures", "method_grid": "figures", "latex": "latex_tables", "save": "saving"}


def __getattr__(name: str) -> Any:
    # Drawing libraries are loaded when something is drawn.
    from importlib import import_module

    if name == "plots":
        try:
            return import_module("secondsight.visual.charts")
        except ModuleNotFoundError as problem:
            raise InputError(f"plots need the package {problem.name!r}: pip install 'secondsight[eval]'") from problem
    if name in _HOMES:
        return getattr(import_module(f"secondsight.visual.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'secondsight.visual' has no attribute {name!r}")
