"""The interactive view in a notebook, as a widget: what is picked there reaches Python, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from secondsight.algebra.layout import Box
from secondsight.visual.page import embed_page, page_data, start_of, web_file

if TYPE_CHECKING:
    from secondsight.explanation import Explanation


class View(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget has no types here
    """One or several explanations as in their page; `value` follows what the reader picks.

    `e.widget("dog")` makes one. Where no kernel runs, as in an exported notebook, the page is shown instead.
    """

    _esm = web_file("view.js")
    _css = web_file("view.css")
    data = traitlets.Dict().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self, e: Explanation | Sequence[Explanation], selection: Any = None, *, box: Box | None = None
    ) -> None:
        super().__init__(data=page_data(e, selection, box))
        self._shown = e if isinstance(e, Sequence) else [e]
        self._fallback = embed_page(e, selection, box)

    @property
    def value(self) -> float | None:
        """The interaction of what is picked on the two sides, everything where nothing is; None before it was shown."""
        return self.state.get("value")

    @property
    def picked(self) -> tuple[Any, Any]:
        """What is picked on the left and on the right: a box in original pixels, indices of words, or None."""
        return self.state.get("left"), self.state.get("right")

    def pick(self, left: Any = None, right: Any = None) -> None:
        """Pick for the reader, on either side: a span or a box as in `e[…]`, or indices of words; None is everything.

        Raises `InputError` for what is not there.
        """
        case = self.state.get("case", 0)
        case_data = self.data["cases"][case]
        # A difference that the page made itself has the sides of its data only.
        layouts = [self._shown[case].left_layout, self._shown[case].right_layout] if case < len(self._shown) else None
        picks = []
        for place, (side, picked) in enumerate((("left", left), ("right", right))):
            words = isinstance(picked, Sequence) and not isinstance(picked, (str, tuple))
            if picked is None or words or layouts is None:
                picks.append(picked if picked is None else list(picked))
            else:
                picks.append(start_of(layouts[place], case_data[side], picked))
        self.state = {"case": case, "left": picks[0], "right": picks[1]}

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data, *rest = bundle if isinstance(bundle, tuple) else (bundle,)
        data = {**(data or {}), "text/html": self._fallback}
        return (data, *rest) if rest else data
