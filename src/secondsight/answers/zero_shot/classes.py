"""The classes of a zero-shot classifier: their names, the prompts that name them, and the prompts' mean as contributions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.layout import Layout
from secondsight.data.labelled import LabelledData
from secondsight.data.phrases import NO_CLASS
from secondsight.scale.store import Store
from secondsight.support.errors import InputError
from secondsight.support.files import brief, one_line

TEMPLATE = "a photo of a {}."
"""The usual prompt."""

PARTS = ("template words", "class words", "special positions")
"""The parts of a prompt, in the order of the features of `Classifier.parts`."""

Names = Mapping[str, Sequence[str]]
"""Every class with the words that prompts name it by."""


@dataclass(frozen=True)
class Prompt:
    """A template filled with a word for a class; `spans` are the word's characters in the text."""

    text: str
    spans: tuple[tuple[int, int], ...]


def class_names(classes: Names | Sequence[str] | str | Path | None, data: LabelledData) -> dict[str, tuple[str, ...]]:
    """The classes and their words: given ones, those of a file, or by default those of the data.

    A file has a class a line, with further columns between tabs where prompts shall name it by other words than its own
    name. The label "" of `coco_synonyms` is no class. Raises `InputError` for fewer than two classes, or where a label of the
    data is none of them.
    """
    if isinstance(classes, str | Path):
        names = _read_names(Path(classes))
    elif isinstance(classes, Mapping):
        names = {str(name): tuple(words) for name, words in classes.items()}
    else:
        names = {str(name): (str(name),) for name in (data.class_names if classes is None else classes)}
    names.pop(NO_CLASS, None)
    blank = [name for name, words in names.items() if not words or not all(word.strip() for word in words)]
    if blank:
        raise InputError(f"the class {blank[0]!r} has no word to name it by: leave it out or give a word")
    unknown = sorted(set(data.labels) - set(names))
    if unknown:
        raise InputError(
            f"the label {unknown[0]!r} of {data.name} is not among the {len(names)} classes "
            f"({one_line(', '.join(names), 200)}): add it to the classes, or leave its images out"
        )
    if len(names) < 2:
        raise InputError(f"{data.name} has one class, {next(iter(names))!r}: give at least two with classes=")
    return names


def _read_names(path: Path) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for line in read_lines(path):
        name, *words = (part.strip() for part in line.split("\t"))
        if name in names:
            raise InputError(f"{str(path)!r} has the class {name!r} twice: put all its words into one line")
        names[name] = tuple(word for word in words if word) or (name,)
    return names


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file that are not empty; `InputError` where there are none."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{str(path)!r} cannot be read as text ({brief(problem)})") from None
    filled = [line.rstrip() for line in lines if line.strip()]
    if not filled:
        raise InputError(f"{str(path)!r} has no line: give a class, or a template with {{}}, a line")
    return filled


def check_templates(templates: str | Path | Sequence[str]) -> list[str]:
    """The templates: one, several, or a file with one a line; `InputError` for one without {}."""
    if isinstance(templates, Path):
        templates = read_lines(templates)
    listed = list(dict.fromkeys([templates] if isinstance(templates, str) else templates))
    if not listed:
        raise InputError(f"there is no template: give one such as {TEMPLATE!r}")
    for template in listed:
        if not isinstance(template, str) or "{}" not in template:
            raise InputError(f"the template {template!r} has no {{}} for the class: write it as in {TEMPLATE!r}")
    return listed


def fill(template: str, word: str, articles: bool = False) -> Prompt:
    """A prompt; with `articles` an "a" before the word becomes "an" where the word begins with a vowel, and vice versa."""
    if articles:
        right = "an" if word[:1].lower() in "aeiou" else "a"
        template = re.sub(
            r"\b([Aa])n?(?= \{\})", lambda match: right if match[1] == "a" else right.capitalize(), template
        )
    pieces = template.split("{}")
    text, spans = pieces[0], []
    for piece in pieces[1:]:
        spans.append((len(text), len(text) + len(word)))
        text += word + piece
    return Prompt(text, tuple(spans))


class Classifier:
    """A model's zero-shot classifier: a class's direction is the mean of its prompts' embeddings.

    For a cosine each prompt's embedding and the mean have length one; a dot product takes them as they are. `prompts` are
    those of each class, `store` has their contributions under their texts.
    """

    def __init__(self, prompts: Mapping[str, Sequence[Prompt]], store: Store) -> None:
        self.prompts, self.store = prompts, store
        self.names = list(prompts)
        self.parts = [self._parts(prompts[name]) for name in self.names]

    def __getitem__(self, name: str) -> Contributions:
        """A class as the mean of all its prompts, token by token: `image @ (a[x] - a[y])` is the margin of x over y."""
        return self._mean([self._decomposed(prompt) for prompt in self.prompts[name]])

    @property
    def weights(self) -> Float[Tensor, "class joint"]:
        """Every class's direction; an image's embedding times its scale has its similarities as the products."""
        return torch.stack([part.embedding * part.scale for part in self.parts])

    def _parts(self, prompts: Sequence[Prompt]) -> Contributions:
        """A class with one feature for each of `PARTS`: sums of its prompts' vectors, so that nothing else changes."""
        mean = self._mean([_grouped(self._decomposed(prompt), prompt) for prompt in prompts])
        return replace(mean, factor=mean.vectors.unflatten(0, (-1, len(PARTS))).sum(0), layout=Layout(len(PARTS)))

    def _decomposed(self, prompt: Prompt) -> Contributions:
        return exact(self.store[prompt.text])

    def _mean(self, prompts: Sequence[Contributions]) -> Contributions:
        total = sum(prompts[1:], start=prompts[0]) / len(prompts)
        if not self.store.facts["cosine"]:
            return total
        return total / float((total.embedding * total.scale).norm())


def exact(contributions: Contributions) -> Contributions:
    """The same in double precision."""
    return replace(
        contributions,
        factor=contributions.vectors.double(),
        embedding=contributions.embedding.double(),
        reference_embedding=contributions.reference_embedding.double(),
    )


def _grouped(contributions: Contributions, prompt: Prompt) -> Contributions:
    """A prompt with one feature for each of `PARTS`."""
    layout = contributions.layout
    owners = torch.full((layout.size,), 2)
    for word in layout.words:
        is_class_word = any(word.start < end and start < word.end for start, end in prompt.spans)
        owners[list(word.features)] = 1 if is_class_word else 0
    vectors = contributions.vectors
    sums = vectors.new_zeros(len(PARTS), vectors.shape[-1]).index_add(0, owners, vectors)
    return replace(contributions, factor=sums, layout=Layout(len(PARTS)), outcome=None, deviations=None)
