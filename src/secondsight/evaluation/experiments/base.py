"""What every experiment defines: records of single captions, and tables and figures of all records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from secondsight.data.grounded import GroundedCaption, GroundedDataset
from secondsight.evaluation.measures import RULES
from secondsight.methods.base import one_of
from secondsight.support.errors import InputError

if TYPE_CHECKING:
    from secondsight.evaluation.setting import Setting

Record = dict[str, Any]
"""A row of results, made of plain values that JSON can hold."""

EXPERIMENTS: dict[str, type[Experiment]] = {}
"""Every experiment by its name on the command line."""


class Experiment(ABC):
    """Turns explained pairs into records, and records into tables and figures.

    A subclass with a `name` is listed in `EXPERIMENTS` once it is defined. The records of a caption depend only on the
    caption, the setting and the experiment's options, so that a run can be stopped and resumed anywhere. With
    `categories`, the report lets a person choose one of them for each case of the gallery. `by_embeddings` says that it
    multiplies embeddings of changed inputs, which late interaction has none of. With `contours` the gallery shows objects'
    contours in place of their boxes. `pairs_of_texts` says that it compares texts with texts and not images with captions.
    `needs` says what a caption that it `wants` must have.
    """

    name: ClassVar[str]
    needs: ClassVar[str] = ""
    categories: ClassVar[tuple[str, ...]] = ()
    min_settings: ClassVar[int] = 1
    by_embeddings: ClassVar[bool] = False
    contours: ClassVar[bool] = False
    pairs_of_texts: ClassVar[bool] = False

    def __init__(self, *, rule: str = "pixel", seed: int = 0, **options: Any) -> None:
        one_of("rule", rule, RULES)
        self.rule, self.seed = rule, seed
        if options:
            raise InputError(f"{self.name!r} has no option {sorted(options)[0]!r}")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            EXPERIMENTS[cls.name] = cls

    def options(self) -> dict[str, Any]:
        """The options on which the records depend, besides data and setting: all public attributes."""
        return {name: value for name, value in sorted(vars(self).items()) if not name.startswith("_")}

    def examples(self, data: GroundedDataset) -> Iterable[GroundedCaption]:
        """The captions to look at, in order."""
        return data

    def wants(self, example: GroundedCaption) -> bool:
        """Whether the experiment can use a caption; others are skipped and do not count towards a limit."""
        return True

    def variants(self, setting: Setting) -> Iterator[Setting]:
        """The settings to run in place of one that was requested."""
        yield setting

    @abstractmethod
    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """The records of one caption under one setting."""

    @abstractmethod
    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Tables of all records, one of them "overall"; `frame` has the records' columns, "setting" and "key"."""

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Figures of all records, by file name."""
        return {}

    def gallery(self, frame: pd.DataFrame) -> list[Record]:
        """Records whose maps the report shows: they need a "span", a "box", "words" and an "energy", or "facts" to show."""
        return []


def check_count(option: str, value: object, least: int = 1) -> None:
    """`InputError` unless an option's value is a whole number of at least so many."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{option}={value!r} must be a whole number of at least {least}")


def of_kind(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The records of one kind."""
    return frame[frame["kind"] == kind]


def groups(frame: pd.DataFrame, names: str | list[str]) -> Any:
    """Groups of the records with equal values in these columns, in the order of the records."""
    return frame.groupby(names, sort=False)
