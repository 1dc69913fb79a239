"""What is under test: a model with a method at a layer, and the pairs that it explained."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from secondsight.algebra.contributions import Contributions
from secondsight.algebra.interactions import Interactions
from secondsight.data.grounded import GroundedCaption
from secondsight.encoders.fingerprint import fingerprint
from secondsight.inputs.prepared import Prepared
from secondsight.methods import Method, as_method
from secondsight.methods.presets import DEFAULT
from secondsight.model import DualEncoder
from secondsight.support.errors import InputError
from secondsight.support.files import ensure_folder

Layer = int | str | tuple[int | str, ...]
"""A layer of both sides, or one for each; "all" stands for every block of the image side."""

Span = tuple[int, int]
"""Characters of a caption, from the first to behind the last."""


@dataclass(eq=False)
class Setting:
    """One model, method and layer under test; `label` is its name in tables, `spec` identifies it exactly.

    Explained pairs are stored under `cache`. `captions` lists the captions of each image, by the image's key, so that all
    of them are explained while the image's contributions are at hand. With `phrases_alone` a phrase's map is that of the
    phrase as a text of its own, as methods of first order are used, and not the caption's map for the phrase. `filling` names
    the image reference that experiments put in the place of removed patches; None is the mean colour.
    """

    model: DualEncoder
    method: Method
    label: str
    spec: dict[str, Any] = field(default_factory=dict)
    cache: Path | None = None
    captions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    phrases_alone: bool = False
    filling: str | None = None
    _image: tuple[str, Prepared, Contributions | None] | None = field(default=None, init=False, repr=False)

    def prepared(self, example: GroundedCaption) -> tuple[Prepared, Prepared]:
        """Both inputs as tensors; a caption that is too long is truncated."""
        return self.image(example.left), self.text(example.caption)

    def image(self, image: Path | Image.Image | str) -> Prepared:
        """An image, or the first of two texts, as the input of the model's left side; a text that is too long is truncated."""
        return self.model.left.encoder.prepare(image, truncate=isinstance(image, str))

    def text(self, caption: str) -> Prepared:
        """A caption as the input of the model's right side, truncated if it is too long."""
        return self.model.right.encoder.prepare(caption, truncate=True)

    def explain(self, example: GroundedCaption, captions: Sequence[str] = ()) -> list[Interactions]:
        """Interactions of the image with its caption, or with each of `captions`.

        With a cache, they are always read from it, so that a resumed run sees the same numbers as an uninterrupted one.
        """
        captions = list(captions) or [example.caption]
        if self.cache is None:
            return self._interactions(example, [self.text(caption) for caption in captions])
        files = {caption: self._file(self.cache, example, caption) for caption in captions}
        missing = {caption: self.text(caption) for caption, file in files.items() if not file.is_file()}
        siblings = self.captions.get(example.image_key, ())
        if any(caption in siblings for caption in missing):
            for caption in siblings:
                file = self._file(self.cache, example, caption)
                if caption not in missing and not file.is_file():
                    with contextlib.suppress(InputError):
                        missing[caption], files[caption] = self.text(caption), file
        pairs = self._interactions(example, list(missing.values())) if missing else []
        for caption, pair in zip(missing, pairs, strict=True):
            ensure_folder(files[caption].parent)
            pair.save(files[caption])
        return [Interactions.load(files[caption]) for caption in captions]

    def explain_span(self, example: GroundedCaption, span: Span) -> tuple[Interactions, Span | None]:
        """The interactions that tell a span's map, and what to select in them: the span, or the whole of a phrase alone.

        Raises `InputError` for a span that was cut from a long caption.
        """
        if not self.phrases_alone:
            e = self.explain(example)[0]
            e.right_layout.select(span)
            return e, span
        return self.explain(example, [example.caption[span[0] : span[1]]])[0], None

    def explain_changed(
        self, example: GroundedCaption, image: Prepared, spans: Sequence[Span]
    ) -> list[tuple[Interactions, Span | None]]:
        """`explain_span` of several spans with a changed image in the place of the example's; nothing is stored."""
        if not self.phrases_alone:
            e = self.model.interactions(self.method, image, [self.text(example.caption)])[0]
            return [(e, span) for span in spans]
        phrases = [self.text(example.caption[start:end]) for start, end in spans]
        return [(e, None) for e in self.model.interactions(self.method, image, phrases)]

    def _interactions(self, example: GroundedCaption, texts: list[Prepared]) -> list[Interactions]:
        """Interactions with the captions; the last image's contributions are kept for its further captions."""
        left, right = self.model.left, self.model.right
        if self._image is None or self._image[0] != example.image_key:
            image = self.image(example.left)
            factorises = self.method.factorises and self.model.factorises
            contributions = self.method.contributions(left, [image])[0] if factorises else None
            if contributions is not None and contributions.rows.closed_form:
                # Its vectors are cheap and serve all captions; other paths are pulled back for each.
                contributions = contributions.dense()
            self._image = (example.image_key, image, contributions)
        _, image, contributions = self._image
        if contributions is None:
            return self.model.interactions(self.method, image, texts)
        return [contributions @ self.method.contributions(right, [text])[0] for text in texts]

    def _file(self, cache: Path, example: GroundedCaption, caption: str) -> Path:
        image = example.left
        source = str(image) if isinstance(image, Path | str) else hashlib.sha256(image.tobytes()).hexdigest()
        # A filling changes no explanation.
        spec = {name: value for name, value in self.spec.items() if name != "filling"}
        key = json.dumps([spec, source, caption], sort_keys=True)
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        return cache / digest[:2] / f"{digest}.npz"


def settings(
    models: Sequence[tuple[str, DualEncoder]],
    methods: Sequence[tuple[str, Method]] = (),
    layers: Sequence[Layer] = (),
    alone: Sequence[str] = (),
    *,
    pairs_of_texts: bool = False,
) -> list[Setting]:
    """Every model with every method at every layer; layers ("all",) are the image side's blocks one by one.

    Methods whose names are in `alone` get a second setting, with `phrases_alone`. With `pairs_of_texts` both sides of the
    models read texts. Raises `InputError` for a model without such sides.
    """
    methods = list(methods) or [(DEFAULT, as_method(None))]
    combinations = []
    for model_name, given in models:
        model = given.pair("text", "text") if pairs_of_texts else _of_captions(model_name, given)
        weights = fingerprint(model)
        for method_name, method in methods:
            for layer in _expand(layers, model):
                variant = method if layer is None else _at_layer(method, method_name, layer)
                parts = [model_name] if len(models) > 1 or len(methods) < 2 else []
                parts += [method_name] if len(methods) > 1 or len(models) < 2 else []
                parts += [f"layer {_layer_text(layer)}"] if layer is not None else []
                # The weights are part of the spec, as a checkpoint may be overwritten under the same name.
                options = {name: repr(value) for name, value in _options(variant).items()}
                spec = {"model": model_name, "weights": weights, "method": variant.name, "options": options}
                setting = Setting(model, variant, " · ".join(parts), spec, phrases_alone=variant.order == 1)
                combinations.append(setting)
                if method_name in alone and not setting.phrases_alone:
                    label = f"{setting.label}, phrase alone"
                    combinations.append(replace(setting, label=label, phrases_alone=True))
    return combinations


def _of_captions(name: str, model: DualEncoder) -> DualEncoder:
    """The model with images on its left and texts on its right; `InputError` if it has no such sides."""
    if (model.left.kind, model.right.kind) == ("image", "text"):
        return model
    try:
        return model.pair("image", "text")
    except InputError as error:
        raise InputError(
            f"experiments look at pictures with captions, and {name!r} compares {model.left.kind} with {model.right.kind}: "
            "explain its pairs with ss.explain, compare its similarities with people's by secondsight evaluate sts, or rank a "
            "collection with secondsight decompose and search"
        ) from error


def _expand(layers: Sequence[Layer], model: DualEncoder) -> Sequence[Layer | None]:
    """The layers to try; None is the method's own."""
    if list(layers) == ["all"]:
        return [(block, -1) for block in range(model.left.encoder.depth)]
    return list(layers) or [None]


def _at_layer(method: Method, name: str, layer: Layer) -> Method:
    if "layer" not in _options(method):
        raise InputError(f"the method {name!r} has no layers")
    changed: Any = method
    return replace(changed, layer=layer)


def _options(method: Method) -> dict[str, Any]:
    return {f.name: getattr(method, f.name) for f in fields(method)} if is_dataclass(method) else {}


def _layer_text(layer: Layer) -> str:
    return " / ".join(str(part) for part in layer) if isinstance(layer, tuple) else str(layer)
