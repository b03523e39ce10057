"""Log mel filter-bank energies, 27 frames of 20, in numpy for devices and in TensorFlow for input pipelines.

The front end of the paper (arXiv 2207.06920, section 2): 20 log mel energies of a 25 ms window every 10 ms, a window
of 81 frames of which every third is kept, normalised by a global mean and variance: 27 x 20 = 540 inputs.

Everything up to the mel energies is linear in the power of the signal, so a whole recording is analysed once
(`mel_energies`) and windows, gains and mixtures are made from its energies; `log_mel` comes last.

A frame has the same energies, bit for bit, alone and within a recording of any length: a device computes them as the
audio comes.

Both versions count in float64 up to the logarithm. In float32 the Fourier transform of a loud clip leaves rounding
noise in its silent bands that differs between libraries and that the logarithm makes large.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf

SAMPLE_RATE = 16_000
FRAME_LENGTH = 400  # samples: 25 ms
FRAME_STEP = 160  # samples: 10 ms
FFT_LENGTH = 512
MEL_BINS = 20
LOWEST_HZ, HIGHEST_HZ = 100.0, 7600.0
FRAMES = 81  # of the window, 10 ms apart
KEEP_EVERY = 3
KEPT_FRAMES = FRAMES // KEEP_EVERY
INPUTS = KEPT_FRAMES * MEL_BINS
WINDOW_SAMPLES = FRAME_LENGTH + (FRAMES - 1) * FRAME_STEP
LOG_FLOOR = 1e-4  # added to a mel energy; white noise of 16-bit rounding reaches about 1e-7, a murmur 1e-2

Floats = NDArray[np.floating[Any]]


@functools.cache
def mel_matrix() -> NDArray[np.float64]:
    """Weights [FFT_LENGTH // 2 + 1, MEL_BINS] from power spectrum to mel energies: triangles on the HTK mel scale."""

    def mel(hertz: Floats) -> Floats:
        return 1127.0 * np.log1p(hertz / 700.0)

    bins = mel(np.arange(FFT_LENGTH // 2 + 1) * (SAMPLE_RATE / FFT_LENGTH))[:, np.newaxis]
    low, high = mel(np.array([LOWEST_HZ, HIGHEST_HZ]))
    edges = np.linspace(low, high, MEL_BINS + 2)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    weights.flags.writeable = False
    return weights


@functools.cache
def _mel_terms() -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
    """The weights of `mel_matrix` that are not zero, band by band: their bins, themselves, and each band's first."""
    bands, bins = np.nonzero(mel_matrix().T)
    return bins, mel_matrix()[bins, bands], np.searchsorted(bands, np.arange(MEL_BINS))


@functools.cache
def hann_window() -> NDArray[np.float64]:
    """The periodic Hann window [FRAME_LENGTH], as `tf.signal.hann_window` and `scipy.signal.get_window` make it."""
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FRAME_LENGTH) / FRAME_LENGTH)
    window.flags.writeable = False
    return window


def mel_energies(audio: Floats) -> NDArray[np.float32]:
    """Mel energies [frames, MEL_BINS] of `audio` [samples], mono at 16 kHz, full scale 1; not yet logarithmic.

    Raises:
        ValueError: `audio` is not one-dimensional or is shorter than one frame.
    """
    audio = np.asarray(audio, np.float64)
    if audio.ndim != 1 or len(audio) < FRAME_LENGTH:
        raise ValueError(f"audio must be [samples] with at least {FRAME_LENGTH} samples (25 ms), got {audio.shape}")
    # Nothing is written here; but numpy keeps some 50 bytes for each view that it is told to make read-only.
    windows = np.lib.stride_tricks.sliding_window_view(audio, FRAME_LENGTH, writeable=True)
    frames = windows[::FRAME_STEP]
    spectrum = np.fft.rfft(frames * hann_window(), FFT_LENGTH)
    power = spectrum.real**2 + spectrum.imag**2
    bins, weights, firsts = _mel_terms()
    # A matrix product adds up in an order that depends on the number of frames; this one does not.
    return np.add.reduceat(power[:, bins] * weights, firsts, axis=1).astype(np.float32)


def log_mel(energies: Floats) -> NDArray[np.float32]:
    """Natural logarithm of mel energies (any shape) above a fixed floor, so that silence is a number too."""
    return np.log(energies + np.float32(LOG_FLOOR)).astype(np.float32)


def features(audio: Floats) -> NDArray[np.float32]:
    """The 540 inputs of one window, before normalisation.

    Args:
        audio: [WINDOW_SAMPLES], mono at 16 kHz, full scale 1.

    Raises:
        ValueError: `audio` has another shape.
    """
    if np.shape(audio) != (WINDOW_SAMPLES,):
        raise ValueError(f"a window has {WINDOW_SAMPLES} samples (0.825 s at 16 kHz), got shape {np.shape(audio)}")
    return log_mel(mel_energies(audio)[::KEEP_EVERY]).reshape(INPUTS)


def tf_features(audio: tf.Tensor) -> tf.Tensor:
    """`features` for a batch, in TensorFlow: float [batch, WINDOW_SAMPLES] to float32 [batch, INPUTS]."""
    import tensorflow as tf

    audio = tf.ensure_shape(tf.cast(audio, tf.float64), [None, WINDOW_SAMPLES])
    frames = tf.signal.frame(audio, FRAME_LENGTH, KEEP_EVERY * FRAME_STEP)
    spectrum = tf.signal.rfft(frames * hann_window(), [FFT_LENGTH])
    power = tf.math.real(spectrum) ** 2 + tf.math.imag(spectrum) ** 2
    energies = tf.cast(tf.tensordot(power, tf.constant(mel_matrix()), 1), tf.float32)
    return tf.reshape(tf.math.log(energies + LOG_FLOOR), [-1, INPUTS])


@dataclass(frozen=True)
class Normalization:
    """Global mean and deviation of each mel band, measured on training data and stored beside the model.

    Attributes:
        mean: float32 [MEL_BINS].
        deviation: float32 [MEL_BINS].
        keywords: what the model's outputs mean, in their order, without the last, "other"; empty in files of old.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    keywords: tuple[str, ...] = ()

    @classmethod
    def fit(cls, inputs: Floats, keywords: Sequence[str] = ()) -> Normalization:
        """Measures raw `features` [windows, INPUTS]."""
        bands = np.asarray(inputs, np.float64).reshape(-1, MEL_BINS)
        deviation = np.maximum(bands.std(axis=0), 1e-3)
        return cls(bands.mean(axis=0).astype(np.float32), deviation.astype(np.float32), tuple(keywords))

    def __call__(self, inputs: Floats) -> NDArray[np.float32]:
        """Normalises raw features [..., INPUTS]."""
        bands = np.asarray(inputs, np.float32).reshape(-1, MEL_BINS)
        return ((bands - self.mean) / self.deviation).reshape(np.shape(inputs))

    def save(self, path: str | Path) -> None:
        """Writes an .npz with the arrays `mean` and `deviation`, and `keywords` where they are known."""
        names = {"keywords": np.array(self.keywords)} if self.keywords else {}
        with open(path, "wb") as file:
            np.savez(file, mean=self.mean, deviation=self.deviation, **names)  # type: ignore[arg-type]  # as in data.py

    @classmethod
    def load(cls, path: str | Path) -> Normalization:
        """Reads what `save` wrote.

        Raises:
            ValueError: the file is missing or holds something else.
        """
        if not Path(path).is_file():
            raise ValueError(f"normalization file {path} not found: `train` writes it beside the model")
        try:
            with np.load(path) as file:
                arrays = dict(file.items())
        except (ValueError, OSError, EOFError) as error:  # what numpy says of pickles, of text and of nothing
            raise ValueError(f"{path} is no normalization file: {error}") from error
        names = arrays.pop("keywords", np.array([], np.str_))
        if set(arrays) != {"mean", "deviation"} or any(array.shape != (MEL_BINS,) for array in arrays.values()):
            raise ValueError(f"{path} is no normalization file: it needs arrays mean and deviation of {MEL_BINS}")
        return cls(arrays["mean"], arrays["deviation"], tuple(map(str, names)))
