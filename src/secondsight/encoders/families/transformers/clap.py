"""CLAP's sound side: log-mel spectrograms, and where their parts lie in time and frequency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from secondsight.algebra.layout import Layout, SpectrogramLayout
from secondsight.encoders.base import States
from secondsight.encoders.host import HostEncoder, Parts
from secondsight.inputs.audio import AUDIO_REFERENCES, open_audio
from secondsight.inputs.prepared import Duration, Prepared, matching_reference
from secondsight.support.errors import AdapterError, InputError

if TYPE_CHECKING:
    from transformers import ClapFeatureExtractor, ClapModel

_SILENCE = -100.0
"""Decibels of a log-mel spectrogram's floor."""


def _picture(spectrogram: Tensor) -> np.ndarray:
    """The (band, frame) levels to show: the first channel, which has the whole sound."""
    levels: np.ndarray = spectrogram[0, 0].mT.cpu().numpy()
    return levels


class ClapAudioEncoder(HostEncoder):
    """CLAP's audio tower, a Swin transformer over the spectrogram folded into a square; layer L is the input of stage L.

    Model-ready inputs are (1, channel, frame, band); the square holds the time chunks below one another.
    """

    kind = "audio"
    references = AUDIO_REFERENCES
    pool = "mean"
    # Stages halve their grids, so none can be skipped, and what follows them reads more than their hidden states.
    chained = False
    output_suffices = False

    def __init__(self, model: ClapModel, extractor: ClapFeatureExtractor | None) -> None:
        super().__init__(Parts(tower=model.audio_model, projection=model.audio_projection))
        self.extractor = extractor
        inner = model.audio_model.audio_encoder
        self.chunks: int = inner.freq_ratio
        self.channels = 4 if inner.enable_fusion else 1

    def blocks(self, module: Parts) -> Sequence[nn.Module]:
        """The stages."""
        return list(module.tower.audio_encoder.layers)

    def encode(self, module: Parts, tensors: Tensor) -> Tensor:
        """The projected embeddings of log-mel spectrograms (batch, channel, frame, band)."""
        # With feature fusion the processor calls a clip that comes alone long, whatever its length.
        longer = torch.full((len(tensors), 1), self.channels == 4, device=tensors.device)
        return module.projection(module.tower(input_features=tensors, is_longer=longer).pooler_output)

    def prepare(self, raw: Any, *, truncate: bool = False) -> Prepared:
        """Sound through the feature extractor, its own output, or a model-ready spectrogram (1, channel, frame, band)."""
        if isinstance(raw, Mapping):
            raw = raw.get("input_features")
        if isinstance(raw, Tensor):
            return self._prepare_spectrogram(raw)
        if self.extractor is None:
            raise InputError("this model came without a feature extractor: pass it, or a spectrogram as a tensor")
        rate: int = self.extractor.sampling_rate
        samples = open_audio(raw, rate)
        longest: int = self.extractor.nb_max_samples
        if len(samples) > longest and not truncate:
            raise InputError(
                f"the sound lasts {len(samples) / rate:.1f} s, the model hears {longest / rate:g} s: "
                "cut it, or allow the cut with truncate=True (--truncate)"
            )
        features = self.extractor(samples[:longest], sampling_rate=rate, return_tensors="pt")
        spectrogram = features["input_features"].float()
        return Prepared(spectrogram, _picture(spectrogram), Duration(longest / rate))

    def _prepare_spectrogram(self, raw: Tensor) -> Prepared:
        spectrogram = raw[None] if raw.ndim == 3 else raw
        if spectrogram.ndim != 4 or spectrogram.shape[:2] != (1, self.channels):
            raise InputError(
                f"a tensor {tuple(raw.shape)} is not a model-ready sound: (1, {self.channels}, frame, band) is needed"
            )
        if not spectrogram.is_floating_point() or not bool(torch.isfinite(spectrogram).all()):
            raise InputError("a spectrogram must hold finite floats")
        return Prepared(spectrogram, _picture(spectrogram), None)

    def reference(self, prepared: Prepared, choice: str | Tensor | None, seed: int) -> Tensor:
        """Silence (default), the input's mean level, Gaussian noise around it, or the given spectrogram."""
        spectrogram = prepared.tensor
        if isinstance(choice, Tensor):
            return matching_reference(choice, spectrogram)
        if choice is None or choice == "silence":
            return torch.full_like(spectrogram, _SILENCE)
        if choice == "mean":
            return spectrogram.mean((-2, -1), keepdim=True).expand_as(spectrogram).clone()
        if choice == "noise":
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(spectrogram.shape, generator=generator).to(spectrogram)
            return spectrogram.mean() + spectrogram.std() * noise
        names = ", ".join(AUDIO_REFERENCES)
        raise InputError(f"unknown audio reference {choice!r}; known: {names}, or a spectrogram tensor")

    def layout(self, prepared: Prepared, layer: int, states: States) -> Layout:
        """Bands × frames: the square holds the time chunks below one another, lowest band of each first."""
        size = len(states.hidden)
        side = round(size**0.5)
        if side * side != size or side % self.chunks:
            raise AdapterError(f"{size} positions do not make a square of {self.chunks} time chunks")
        bands = side // self.chunks
        cells = []
        for row in range(side):
            chunk, band = divmod(row, bands)
            cells += [band * side * self.chunks + chunk * side + column for column in range(side)]
        seconds = prepared.source.seconds if isinstance(prepared.source, Duration) else 0.0
        return SpectrogramLayout(size, {}, (bands, side * self.chunks), tuple(cells), seconds)
