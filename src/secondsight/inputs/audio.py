"""Sound files and arrays as mono samples at a model's rate."""

from __future__ import annotations

import os

import numpy as np

from secondsight.support.errors import InputError
from secondsight.support.files import brief
from secondsight.support.packages import require

AUDIO_REFERENCES = ("silence", "mean", "noise")


def open_audio(raw: object, rate: int) -> np.ndarray:
    """A path, a mono or (sample, channel) array at `rate`, or an (array, rate) pair, as mono samples at `rate`.

    Raises `InputError` naming what cannot be read.
    """
    samples, raw_rate = _samples(raw, rate)
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / np.iinfo(samples.dtype).max
    if samples.ndim == 2:
        samples = samples.mean(1 if samples.shape[0] >= samples.shape[1] else 0)
    if samples.ndim != 1 or len(samples) < 2 or not np.issubdtype(samples.dtype, np.number):
        raise InputError(f"samples of shape {samples.shape} are not a sound: one row of numbers is needed")
    samples = samples.astype(np.float64)
    if not np.isfinite(samples).all():
        raise InputError("the sound contains NaN or infinity")
    return samples if raw_rate == rate else _resample(samples, raw_rate, rate)


def _samples(raw: object, rate: int) -> tuple[np.ndarray, int]:
    """The samples as they come, and their rate."""
    if isinstance(raw, (str, os.PathLike)):
        return _read(os.fspath(raw))
    if isinstance(raw, tuple) and len(raw) == 2:
        return np.asarray(raw[0]), int(raw[1])
    if isinstance(raw, (list, np.ndarray)):
        return np.asarray(raw), rate
    raise InputError(
        f"cannot use {type(raw).__name__} as sound: give a path, an array of samples at {rate} Hz, or (array, rate)"
    )


def _resample(samples: np.ndarray, raw_rate: int, rate: int) -> np.ndarray:
    if raw_rate < 1:
        raise InputError(f"the sampling rate must be positive, not {raw_rate} Hz")
    signal = require("scipy", "audio", lambda: __import__("scipy.signal").signal)
    divisor = int(np.gcd(rate, raw_rate))
    resampled: np.ndarray = signal.resample_poly(samples, rate // divisor, raw_rate // divisor)
    return resampled


def _read(path: str) -> tuple[np.ndarray, int]:
    if not os.path.exists(path):
        raise InputError(f"{path!r} does not exist")
    soundfile = require("soundfile", "audio", lambda: __import__("soundfile"))
    try:
        samples, rate = soundfile.read(path)
    except (RuntimeError, OSError, TypeError) as problem:
        raise InputError(f"{path!r} cannot be read as sound ({brief(problem)})") from problem
    return samples, int(rate)
