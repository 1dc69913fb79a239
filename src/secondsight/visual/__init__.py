"""Ways to look at an explanation: figures, the terminal, one page, a widget, LaTeX. Data and view are kept apart.

`plot`, `pairs` and `method_grid` draw explanations; `charts` draws the results of experiments; `latex` colours words for a
paper; `save` writes a figure.
"""

from typing import Any

from secondsight.support.errors import InputError

__all__ = ["charts", "latex", "method_grid", "pairs", "plot", "save"]

_MODULES = {"plot": "figures", "pairs": "figures", "method_grid": "figures", "latex": "latex_words", "save": "saving"}


def __getattr__(name: str) -> Any:
    # Drawing libraries are imported on first use.
    from importlib import import_module

    if name == "charts":
        try:
            return import_module("secondsight.visual.charts")
        except ModuleNotFoundError as error:
            raise InputError(f"charts need the package {error.name!r}: pip install 'secondsight[eval]'") from error
    if name in _MODULES:
        return getattr(import_module(f"secondsight.visual.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'secondsight.visual' has no attribute {name!r}")
