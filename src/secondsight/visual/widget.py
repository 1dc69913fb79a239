"""The interactive view as a notebook widget: Python reads what the reader picks, and can pick for the reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from secondsight.algebra.layout import Box, Layout
from secondsight.visual.page import embed_page, web_file
from secondsight.visual.page_data import page_data
from secondsight.visual.page_sides import start_of

if TYPE_CHECKING:
    from secondsight.explanation import Explanation


_WITHOUT_PAGE = ".secondsight-page { display: none; }"
"""Hides the page that stands for the view as soon as the view itself, or its bundle's own page, is on the screen."""


class View(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget is untyped
    """One or several explanations as on their page; `value` follows what the reader picks.

    `e.widget("dog")` creates a view. Without a running kernel, as in an exported notebook, the page is shown instead.
    """

    _esm = web_file("view.js")
    _css = web_file("view.css") + _WITHOUT_PAGE
    data = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self, e: Explanation | Sequence[Explanation], selection: Any = None, *, box: Box | None = None
    ) -> None:
        super().__init__(data=page_data(e, selection, box))
        self._explanations = e if isinstance(e, Sequence) else [e]
        self._fallback = embed_page(e, selection, box)

    @property
    def value(self) -> float | None:
        """The interaction of what is picked on the two sides (all of a side if nothing is); None before the view is shown."""
        return self.state.get("value")

    @property
    def picked(self) -> tuple[Any, Any]:
        """What is picked on the left and on the right: a box in original pixels, indices of words, or None."""
        return self.state.get("left"), self.state.get("right")

    def pick(self, left: Any = None, right: Any = None) -> None:
        """Pick for the reader on either side: a span or a box as in `e[…]`, or indices of words; None picks everything.

        Raises `InputError` for a span or box that the input does not have.
        """
        index = self.state.get("case", 0)
        case = self.data["cases"][index]
        # A difference that the page computed is not among the explanations.
        e = self._explanations[index] if index < len(self._explanations) else None
        self.state = {
            "case": index,
            "left": _start(None if e is None else e.left_layout, case["left"], left),
            "right": _start(None if e is None else e.right_layout, case["right"], right),
        }

    def _ipython_display_(self) -> None:
        """The page by itself, then the view: exports such as nbconvert's choose the view, which needs a server to run."""
        from IPython.display import display

        show: Any = display  # IPython is untyped
        show({"text/html": f'<div class="secondsight-page">{self._fallback}</div>'}, raw=True)
        bundle = self._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        show(data, metadata=metadata, raw=True)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data, *metadata = bundle if isinstance(bundle, tuple) else (bundle,)
        data = {**(data or {}), "text/html": f"<style>{_WITHOUT_PAGE}</style>{self._fallback}"}
        return (data, *metadata) if metadata else data


def _start(layout: Layout | None, side: dict[str, Any], pick: Any) -> Any:
    """A pick as the view's state stores it. Indices of words, and picks without a layout, are stored unchanged."""
    if pick is None:
        return None
    is_words = isinstance(pick, Sequence) and not isinstance(pick, (str, tuple))
    return list(pick) if is_words or layout is None else start_of(layout, side, pick)
