"""Training windows: each keyword many times, each time a little elsewhere, louder or softer, and in other noise.

Energies of independent sounds add, so gain and noise are made on mel energies, before the logarithm: a
hundred thousand noisy windows take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alignment import cut_windows
from .data import CONTEXT, MARGIN, Split
from .features import FRAMES, INPUTS, KEEP_EVERY, KEPT_FRAMES, MEL_BINS, log_mel

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Augmentation:
    """How far training windows leave the recordings. Levels in dB are uniform within their range.

    Attributes:
        shift: frames of 10 ms that a keyword may be off the centre, either way.
        tempo: a keyword is said up to this factor slower or faster; its pitch stays.
        tract: mel bands that the highest band may move, either way, lower ones in proportion: longer or shorter vocal
            tracts.
        gain: dB, either way.
        noisy: share of windows that get background.
        snr: dB of keyword over background, lowest and highest.
        chatter: share of the background that is running speech; the rest is noise.
        background: windows without keyword, as a share of all.
        frames_masked, bands_masked: SpecAugment (Park et al., 2019): the most kept frames, and mel bands, that are
            replaced by the window's mean, in one run each.
    """

    shift: int = 10
    tempo: float = 1.25
    tract: float = 1.0
    gain: float = 10.0
    noisy: float = 0.6
    snr: tuple[float, float] = (0.0, 30.0)
    chatter: float = 0.3
    background: float = 0.4
    frames_masked: int = 0
    bands_masked: int = 0


def training_windows(
    split: Split, windows: int, classes: int, settings: Augmentation, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Raw features [windows, INPUTS] and class indices [windows]; the last class is "other"."""
    rng = np.random.default_rng(seed)
    inputs, labels = np.empty((windows, INPUTS), np.float32), np.empty(windows, np.int64)
    for first in range(0, windows, 4096):  # bounds the memory
        part = slice(first, min(first + 4096, windows))
        energies, labels[part] = _draw(split, part.stop - first, classes - 1, settings, rng)
        energies = _add_background(energies, split, settings, rng)
        level = rng.uniform(-settings.gain, settings.gain, (len(energies), 1, 1))
        energies = log_mel(energies * 10.0 ** (level / 10.0))
        for axis, most in ((1, settings.frames_masked), (2, settings.bands_masked)):
            energies = _mask(energies, axis, most, rng) if most else energies
        inputs[part] = energies.reshape(-1, INPUTS)
    return inputs, labels


def _mask(features: Floats, axis: int, most: int, rng: np.random.Generator) -> Floats:
    """`features` [windows, KEPT_FRAMES, MEL_BINS] with a run of up to `most` rows or columns at their mean."""
    size = features.shape[axis]
    length = rng.integers(0, most + 1, len(features))
    start = rng.integers(0, size - length + 1)
    place = np.arange(size)
    hidden = (place >= start[:, np.newaxis]) & (place < (start + length)[:, np.newaxis])
    hidden = hidden[:, :, np.newaxis] if axis == 1 else hidden[:, np.newaxis]
    return np.where(hidden, features.mean(axis=(1, 2), keepdims=True), features)


def _random_windows(stream: Floats, count: int, rng: np.random.Generator) -> Floats:
    return cut_windows(stream, rng.integers(0, len(stream) - FRAMES + 1, count))


def _draw(
    split: Split, count: int, other: int, settings: Augmentation, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.int64]]:
    """Energies [count, KEPT_FRAMES, MEL_BINS] and labels: keywords near the centre, then speech, then noise."""
    rest = round(count * settings.background)
    noise = rest // 5
    clip = rng.integers(0, len(split.labels), count - rest)
    keywords = _warp(_at_a_tempo(split.keywords, clip, settings, rng), settings.tract, rng)
    speech, sounds = _random_windows(split.speech, rest - noise, rng), _random_windows(split.noise, noise, rng)
    return np.concatenate([keywords, speech, sounds]), np.append(split.labels[clip], np.full(rest, other))


def _at_a_tempo(keywords: Floats, clip: NDArray[np.int64], settings: Augmentation, rng: np.random.Generator) -> Floats:
    """Windows [len(clip), KEPT_FRAMES, MEL_BINS] with their frames nearer or further apart, around a shifted centre."""
    limit = np.log(settings.tempo)
    apart = KEEP_EVERY * np.exp(rng.uniform(-limit, limit, (len(clip), 1)))
    centre = MARGIN + KEEP_EVERY * (KEPT_FRAMES // 2) + rng.uniform(-settings.shift, settings.shift, (len(clip), 1))
    frames = np.rint(centre + apart * (np.arange(KEPT_FRAMES) - KEPT_FRAMES // 2)).astype(np.int64)
    return keywords[clip[:, np.newaxis], np.clip(frames, 0, CONTEXT - 1)]


def _warp(energies: Floats, most: float, rng: np.random.Generator) -> Floats:
    """`energies` [windows, KEPT_FRAMES, MEL_BINS] with their bands stretched upwards or downwards."""
    bands = np.arange(MEL_BINS)
    moved = bands * (1.0 + rng.uniform(-most, most, (len(energies), 1)) / (MEL_BINS - 1))
    below = np.minimum(moved.astype(np.int64), MEL_BINS - 2)
    part = np.clip(moved - below, 0.0, 1.0)[:, np.newaxis].astype(np.float32)
    low = np.take_along_axis(energies, below[:, np.newaxis], axis=2)
    high = np.take_along_axis(energies, below[:, np.newaxis] + 1, axis=2)
    return np.asarray(low + part * (high - low))


def _add_background(energies: Floats, split: Split, settings: Augmentation, rng: np.random.Generator) -> Floats:
    """`energies` [windows, KEPT_FRAMES, MEL_BINS] with running speech or noise behind some of them."""
    count = len(energies)
    speech = rng.random((count, 1, 1)) < settings.chatter
    sound = np.where(speech, _random_windows(split.speech, count, rng), _random_windows(split.noise, count, rng))
    ratio = energies.mean(axis=(1, 2), keepdims=True) / (sound.mean(axis=(1, 2), keepdims=True) + 1e-9)
    snr = rng.uniform(*settings.snr, (count, 1, 1)) + np.where(speech, 5.0, 0.0)  # chatter confuses more
    noisy = rng.random((count, 1, 1)) < settings.noisy
    return energies + sound * ratio * 10.0 ** (-snr / 10.0) * noisy
