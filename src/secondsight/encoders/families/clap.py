"""Sound as log-mel spectrograms, and where their parts lie in time and frequency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secondsight.algebra.layout import Layout, SpectrogramLayout
from secondsight.encoders.base import States
from secondsight.encoders.host import HostEncoder
from secondsight.inputs.audio import AUDIO_REFERENCES, open_audio
from secondsight.inputs.prepared import Prepared, own_reference
from secondsight.support.errors import AdapterError, InputError

_SILENCE = -100.0
"""Decibels of a log-mel spectrogram's floor."""


def _picture(spectrogram: Tensor) -> np.ndarray:
    """What to show of a spectrogram: (band, frame) of its first channel, which has the whole sound."""
    shown: np.ndarray = spectrogram[0, 0].mT.cpu().numpy()
    return shown


class AudioEncoder(HostEncoder):
    """A `HostEncoder` of log-mel spectrograms (1, channel, frame, band), folded into a square of `chunks` time chunks.

    `extractor` is the model's own feature extractor, or None; `channels` how many copies of the spectrogram it makes.
    """

    kind = "audio"
    references = AUDIO_REFERENCES
    extractor: Any
    chunks: int
    channels: int

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """Sound through the feature extractor, its own output, or a model-ready spectrogram (1, channel, frame, band)."""
        if isinstance(raw, Mapping):
            raw = raw.get("input_features")
        if isinstance(raw, Tensor):
            spectrogram = raw[None] if raw.ndim == 3 else raw
            if spectrogram.ndim != 4 or spectrogram.shape[:2] != (1, self.channels):
                raise InputError(
                    f"a tensor {tuple(raw.shape)} is no model-ready sound: (1, {self.channels}, frame, band) is needed"
                )
            if not spectrogram.is_floating_point() or not bool(torch.isfinite(spectrogram).all()):
                raise InputError("a spectrogram is made of finite floats")
            return Prepared(spectrogram, _picture(spectrogram), None)
        if self.extractor is None:
            raise InputError("this model came without a feature extractor: pass it, or a spectrogram as a tensor")
        rate: int = self.extractor.sampling_rate
        samples = open_audio(raw, rate)
        longest: int = self.extractor.nb_max_samples
        if len(samples) > longest:
            if not truncate:
                raise InputError(
                    f"the sound lasts {len(samples) / rate:.1f} s, the model hears {longest / rate:g} s: "
                    "cut it, or allow the cut with truncate=True (--truncate)"
                )
            samples = samples[:longest]
        made = self.extractor(samples, sampling_rate=rate, return_tensors="pt")
        spectrogram = made["input_features"].float()
        return Prepared(spectrogram, _picture(spectrogram), longest / rate)

    def reference(self, prepared: Prepared, which: str | Tensor | None, seed: int) -> Tensor:
        """Silence (default), the input's mean level, Gaussian noise around it, or the given spectrogram."""
        own = prepared.tensor
        if isinstance(which, Tensor):
            return own_reference(which, own)
        if which is None or which == "silence":
            return torch.full_like(own, _SILENCE)
        if which == "mean":
            return own.mean((-2, -1), keepdim=True).expand_as(own).clone()
        if which == "noise":
            generator = torch.Generator().manual_seed(seed)
            return own.mean() + own.std() * torch.randn(own.shape, generator=generator).to(own)
        known = ", ".join(AUDIO_REFERENCES)
        raise InputError(f"unknown audio reference {which!r}; known: {known}, or a spectrogram tensor")

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Bands × frames: the square holds the time chunks below one another, lowest band of each first."""
        size = len(states.hidden)
        side = round(size**0.5)
        if side * side != size or side % self.chunks:
            raise AdapterError(f"{size} positions are no square of {self.chunks} time chunks")
        bands = side // self.chunks
        cells = []
        for row in range(side):
            chunk, band = divmod(row, bands)
            cells += [band * side * self.chunks + chunk * side + column for column in range(side)]
        seconds = float(prepared.place) if prepared.place is not None else 0.0
        return SpectrogramLayout(size, {}, (bands, side * self.chunks), tuple(cells), seconds)
