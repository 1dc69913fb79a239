"""Running an experiment over a data set: every pair explained once, records that survive a kill, tables from records."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.algebra.layout import GridLayout
from secondsight.data.grounded import GroundedCaption, GroundedDataset, Phrase
from secondsight.evaluation import measures
from secondsight.inputs.prepared import Prepared
from secondsight.methods import Method
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import atomic, ensure_folder, locked, no_room

Record = dict[str, Any]

EXPERIMENTS: dict[str, type[Experiment]] = {}
"""Every experiment by its name on the command line."""


@dataclass(eq=False)
class Setting:
    """One model, method and layer under test; `label` names it in tables, `spec` says exactly what it is."""

    model: DualEncoder
    method: Method
    label: str
    spec: dict[str, Any] = field(default_factory=dict)
    cache: Path | None = None
    together: dict[str, list[str]] = field(default_factory=dict)
    _image: tuple[str, Prepared, Contributions | None] | None = field(default=None, init=False, repr=False)

    def prepared(self, example: GroundedCaption) -> tuple[Prepared, Prepared]:
        """Both inputs as tensors; captions that are too long are cut."""
        return self.image(example.image), self.text(example.caption)

    def image(self, image: Path | Image.Image) -> Prepared:
        """An image as the model's left side takes it."""
        return self.model.left.encoder.prepare(image)

    def text(self, caption: str) -> Prepared:
        """A caption as the model's right side takes it; cut where it is too long."""
        return self.model.right.encoder.prepare(caption, truncate=True)

    def explain(self, example: GroundedCaption, captions: Sequence[str] = ()) -> list[Interactions]:
        """Interactions of the image with the caption, or with each of `captions`; kept on disk where there is a cache.

        What is kept is read back, so a resumed run sees the same numbers as one that was not stopped.
        """
        asked = list(captions) or [example.caption]
        if self.cache is None:
            return self._made(example, [self.text(caption) for caption in asked])
        files = {caption: self._file(self.cache, example, caption) for caption in asked}
        missing = {caption: self.text(caption) for caption, file in files.items() if not file.is_file()}
        if missing:
            # The image's other captions will be asked for next, and its path is the same for all.
            for caption in self.together.get(example.image_key, ()):
                file = self._file(self.cache, example, caption)
                if caption not in missing and not file.is_file():
                    with contextlib.suppress(InputError):
                        missing[caption], files[caption] = self.text(caption), file
            for caption, pair in zip(missing, self._made(example, list(missing.values())), strict=True):
                ensure_folder(files[caption].parent)
                pair.save(files[caption])
        return [Interactions.load(files[caption]) for caption in asked]

    def _made(self, example: GroundedCaption, others: list[Prepared]) -> list[Interactions]:
        """Interactions with the captions; the image's vectors serve them all where the method has such."""
        left, right = self.model.left, self.model.right
        if self._image is None or self._image[0] != example.image_key:
            a = self.image(example.image)
            pairwise = self.method.pairwise(left, a)
            self._image = (example.image_key, a, None if pairwise else self.method.contributions(left, [a])[0])
        _, a, u = self._image
        if u is None:
            return self.method.interactions(left, right, a, others)
        return [u @ self.method.contributions(right, [b])[0] for b in others]

    def _file(self, cache: Path, example: GroundedCaption, caption: str) -> Path:
        image = example.image
        source = str(image) if isinstance(image, Path) else hashlib.sha256(image.tobytes()).hexdigest()
        named = json.dumps([self.spec, source, caption], sort_keys=True)
        digest = hashlib.sha256(named.encode()).hexdigest()[:32]
        return cache / digest[:2] / f"{digest}.npz"


@dataclass(frozen=True)
class Case:
    """A phrase that can be judged: its only object's box, as far as the model sees it."""

    phrase: Phrase
    box: tuple[float, float, float, float]
    share: float


def cases(example: GroundedCaption, layout: GridLayout, skipped: Callable[[str], None] | None = None) -> list[Case]:
    """The phrases whose class has one instance in the image, with a box the model sees, larger than one patch ([M25] §4.2).

    `share` is the box's part of what the model sees, the chance level of pointing. A box outside the crop, or that a
    phrase shares with others of its class, is left out and `skipped` is told why.
    """
    tell = skipped or (lambda reason: None)
    frame = layout.frame
    cell = measures.area(frame) / (layout.grid[0] * layout.grid[1])
    found, seen = [], set()
    for phrase in example.phrases:
        same = [region for region in example.regions if region.label == phrase.label]
        if len(phrase.boxes) != 1 or len(same) > 1:
            tell("several instances")
            continue
        box = measures.clipped(phrase.boxes[0], frame)
        if box is None:
            tell("outside the crop")
        elif measures.area(box) <= cell:
            tell("smaller than a patch")
        elif phrase.label in seen and len(same) == 1:
            tell("named again")
        else:
            seen.add(phrase.label)
            found.append(Case(phrase, box, measures.area(box) / measures.area(frame)))
    return found


def image_layout(layout: Any) -> GridLayout:
    """The layout as a grid; `InputError` for a side that is no image."""
    if not isinstance(layout, GridLayout):
        raise InputError(f"this experiment looks at images; the model's left side is {layout.modality}")
    return layout


class Experiment(ABC):
    """Turns explained pairs into records, and records into tables and figures.

    A subclass with a `name` is listed in `EXPERIMENTS` by being defined. Records are made one caption at a time and
    depend on nothing but the caption, the setting and `seed`, so a run can stop anywhere.
    """

    name: ClassVar[str]

    def __init__(self, *, rule: str = "pixel", seed: int = 0, **options: Any) -> None:
        measures.inside([[0.0]], [], (1, 1), None, rule)
        self.rule, self.seed = rule, seed
        if options:
            raise InputError(f"{self.name!r} has no option {sorted(options)[0]!r}")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            EXPERIMENTS[cls.name] = cls

    def options(self) -> dict[str, Any]:
        """What the records depend on, beside data and setting."""
        return {name: value for name, value in sorted(vars(self).items()) if not name.startswith("_")}

    def examples(self, data: GroundedDataset) -> Iterable[GroundedCaption]:
        """The captions to look at, in order."""
        return data

    def wants(self, example: GroundedCaption) -> bool:
        """Whether a caption can say anything; others cost nothing and do not count."""
        return True

    @abstractmethod
    def records(self, setting: Setting, example: GroundedCaption) -> list[Record]:
        """What there is to say about one caption under one setting."""

    @abstractmethod
    def tables(self, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Tables of all records; a record carries its "setting"."""

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Figures of all records, by file name."""
        return {}

    def gallery(self, frame: pd.DataFrame) -> list[Record]:
        """Records whose maps the report shows."""
        return []

    def tuned(self, setting: Setting) -> Iterator[Setting]:
        """The settings to run for one that was asked for."""
        yield setting


class Journal:
    """Records as lines of JSON, one example a line, flushed to disk; a line cut by a kill is dropped on reading."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.done: dict[str, list[Record]] = {}
        ensure_folder(path.parent)
        wanted = json.dumps(head, sort_keys=True)
        kept = self._kept()
        if kept:
            if kept[0] != wanted:
                raise InputError(
                    f"{str(path.parent)!r} has records of another run (other data, options or method): "
                    "choose another --out, or remove it"
                )
            for line in kept[1:]:
                entry = json.loads(line)
                self.done[entry["key"]] = entry["records"]
        else:
            with atomic(path) as file:
                file.write((wanted + "\n").encode())
        self._stream = path.open("ab")

    def _kept(self) -> list[str]:
        """Whole lines of an earlier run; whatever follows the last of them is cut off."""
        if not self.path.is_file():
            return []
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        return whole.decode().splitlines()

    def add(self, key: str, records: list[Record]) -> None:
        """One example's records, on disk when this returns."""
        line = json.dumps({"key": key, "records": records}, sort_keys=True)
        # As they will be read by a run that goes on from here, so that nothing depends on when it was stopped.
        self.done[key] = json.loads(line)["records"]
        try:
            self._stream.write((line + "\n").encode())
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as problem:
            raise InputError(no_room(self.path, problem)) from problem

    def close(self) -> None:
        """Close the file; what a full disk did not take is left out."""
        with contextlib.suppress(OSError):
            self._stream.close()


@dataclass
class Run:
    """What a run gave: all records, the captions that were left out and why, and the experiment."""

    experiment: Experiment
    frame: pd.DataFrame
    problems: dict[str, str]
    settings: list[Setting]
    data: GroundedDataset
    examples: dict[str, GroundedCaption]


def run(
    experiment: Experiment,
    data: GroundedDataset,
    settings: Sequence[Setting],
    out: str | os.PathLike[str],
    *,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Run:
    """Run an experiment under every setting, writing records to `out` as they come; goes on where an earlier one stopped.

    `limit` takes the first captions that the experiment can use. A caption or image that cannot be used is listed in
    `problems`, never fatal. `progress` is told the setting's label, how many captions are done and how many there are.
    """
    folder = Path(out)
    ensure_folder(folder)
    problems: dict[str, str] = {}
    rows: list[Record] = []
    shown: dict[str, GroundedCaption] = {}
    tuned = [one for setting in settings for one in experiment.tuned(setting)]
    chosen: list[GroundedCaption] = []
    for example in experiment.examples(data):
        if limit is not None and len(chosen) >= limit:
            break
        if experiment.wants(example):
            chosen.append(example)
    # Captions of one image follow each other, so that its vectors are made once.
    first = {one.image_key: i for i, one in reversed(list(enumerate(chosen)))}
    chosen.sort(key=lambda one: first[one.image_key])
    together: dict[str, list[str]] = {}
    for example in chosen:
        together.setdefault(example.image_key, []).append(example.caption)
    labels = [setting.label for setting in tuned]
    if len(set(labels)) < len(labels):
        raise InputError(f"two settings have the same name {max(labels, key=labels.count)!r}")
    for setting in tuned:
        if setting.cache is None:
            setting.cache = folder / "pairs"
        setting.together = together
        digest = hashlib.sha256(json.dumps(setting.spec, sort_keys=True).encode()).hexdigest()[:8]
        place = folder / experiment.name / f"{slug(setting.label)[:60]}-{digest}" / "records.jsonl"
        head = {
            "experiment": experiment.name,
            "data": data.name,
            "setting": setting.spec,
            "options": experiment.options(),
        }
        before, why = len(rows), "no phrase can be judged"
        with locked(ensure_folder(place.parent)), closing(Journal(place, head)) as journal:
            for count, example in enumerate(chosen, 1):
                key = f"{example.image_key}/{example.key}"
                if key not in journal.done:
                    try:
                        with torch.no_grad():
                            found = experiment.records(setting, example)
                    except InputError as problem:
                        found = [{"problem": str(problem)}]
                    journal.add(key, found)
                for record in journal.done[key]:
                    if "problem" in record:
                        problems[key] = why = record["problem"]
                    else:
                        rows.append({"setting": setting.label, "key": key, **record})
                shown[key] = example
                if progress:
                    progress(setting.label, count, len(chosen))
        if len(rows) == before and len(tuned) > 1 and chosen:
            raise InputError(f"the setting {setting.label!r} gave nothing for any of {len(chosen)} captions: {why}")
    frame = pd.DataFrame(rows)
    if frame.empty:
        why = next(iter(problems.values()), data.summary())
        raise InputError(f"{data.name} has nothing that {experiment.name!r} can judge: {why}")
    return Run(experiment, frame, {**data.problems, **problems}, tuned, data, shown)


def slug(text: str) -> str:
    """A label as a part of a file's name."""
    return "".join(c if c.isalnum() else "-" for c in text).strip("-")
