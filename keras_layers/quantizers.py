"""Kernel quantizers: from a layer's latent float kernel to integer weights and the step between them.

    kernel = step * weights

A quantizer answers training and export from one computation, `real_weights` and the rounding behind it: training sees
`weights(latent)` in float32 with straight-through gradients, export the same in float64, where no compiler's last bit
can move a weight across a threshold.

The weights are those of a `subbyte.schemas.Grid`, which fit a TFLite int8 kernel. For b bits it is one of

* `symmetric`: -(2^(b-1)-1) .. 2^(b-1)-1, with zero; from 2 bits. TFLite's own grid.
* `bin_centre`: the odd integers -(2^b-1) .. 2^b-1, no zero; to 7 bits. With 1 bit it is the sign, -1 and 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from subbyte.schemas import Grid

from . import numerics, regularizers

#: Parts of a kernel's range among which `Quantizer.fit` looks for the best one.
SPANS = np.concatenate([np.arange(0.10, 0.5, 0.02), np.arange(0.5, 0.95, 0.01), np.arange(0.95, 1.001, 0.0025)])

#: The grids by the names that quantizers know them by.
GRIDS = {"symmetric": Grid.symmetric, "bin_centre": Grid.bin_centre}


class Quantizer:
    """Base of the kernel quantizers: the grid and the rounding. A subclass says what reaches the grid, and its step.

    Args:
        bits: width of a stored weight, 1 to 8.
        grid: one of `GRIDS`; None takes `symmetric` from 2 bits on and the sign at 1 bit.

    Attributes:
        grid: the weights that the layer can have.
    """

    #: Default `kernel_initializer` of a layer that uses this quantizer.
    initializer: Any = "glorot_uniform"
    #: Default `kernel_regularizer`.
    regularizer: Any = None
    #: Whether each output channel has a grid of its own.
    per_channel: bool = True

    def __init__(self, bits: int, grid: str | None = None) -> None:
        if isinstance(bits, bool) or bits not in range(1, 9):
            raise ValueError(f"{type(self).__name__}: bits must be 1 to 8, not {bits!r}")
        name = grid or ("bin_centre" if bits == 1 else "symmetric")
        if name not in GRIDS:
            raise ValueError(f"{type(self).__name__}: grid must be one of {', '.join(GRIDS)}, not {name!r}")
        self.bits, self.grid_name, self.grid = int(bits), name, GRIDS[name](int(bits))
        if self.grid not in Grid.candidates(self.bits):
            raise ValueError(
                "a symmetric grid of 1 bit has no value but 0: use grid='bin_centre', which is the sign"
                if bits == 1
                else "8-bit odd weights run to 255 and do not fit int8: use grid='symmetric'"
            )

    @property
    def largest_weight(self) -> int:
        """The largest one, and the negative of the smallest."""
        return self.grid.last

    def weights(self, latent: tf.Tensor) -> tf.Tensor:
        """Integers of the grid, in latent's shape and type; gradients pass the rounding, not where weights saturate.

        A weight saturates beyond its own bin: half a step of the grid from the largest weight on.
        """
        return self.round_weights(self.real_weights(latent))

    def round_weights(self, real: tf.Tensor) -> tf.Tensor:
        """The weights nearest to real-valued ones."""
        limit = self.largest_weight + self.grid.step / 2
        return numerics.straight_through_inside(self._nearest, real, -limit, limit)

    def _nearest(self, real: tf.Tensor) -> tf.Tensor:
        if self.bits == 1:
            return tf.where(real < 0, -tf.ones_like(real), tf.ones_like(real))
        step, middle = float(self.grid.step), float(self.grid.offset % self.grid.step)
        steps = (self.largest_weight + middle) / step, (self.largest_weight - middle) / step
        return step * tf.round(tf.clip_by_value((real - middle) / step, -steps[0], steps[1])) + middle

    def real_weights(self, latent: tf.Tensor) -> tf.Tensor:
        """What is rounded to weights: the kernel divided by the step."""
        raise NotImplementedError

    def step(self, latent: tf.Tensor) -> tf.Tensor:
        """What a weight of 1 stands for: a scalar, or one for each output channel (the last axis of latent)."""
        raise NotImplementedError

    def initial_gain(self, fan_in: int) -> float:
        """A gain that keeps the variance of activations behind a ReLU, for a kernel fresh from `initializer`."""
        del fan_in
        return 1.0

    def latent_of(self, kernel: np.ndarray, span: float | np.ndarray) -> np.ndarray:
        """A latent kernel whose range is `span` times that of a float one, channels last; what is beyond saturates."""
        raise NotImplementedError

    def fit(self, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The latent kernel that comes nearest to a float one, channel by channel in the sense of least squares.

        Args:
            kernel: float, [..., channels].

        Returns:
            (latent, gain): float32 [..., channels] and [channels], with kernel ~ gain * step(latent) * weights(latent).
        """
        flat = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
        # A few channels at a time stay in the cache; one grid for all of them needs all at once.
        parts = min(-(-flat.size // 2**15), flat.shape[1]) if self.per_channel else 1
        errors = np.concatenate([self._span_errors(part) for part in np.array_split(flat, parts, axis=1)], axis=1)
        if not self.per_channel:
            errors = errors.sum(axis=1, keepdims=True) + np.zeros_like(errors)
        # Spans that give the same weights are equally good: the widest of them changes the latent kernel least.
        best = (errors <= errors.min(axis=0) + 1e-13 * (flat**2).sum(axis=0))[::-1].argmax(axis=0)
        latent = self.latent_of(flat, SPANS[::-1][best]).astype(np.float32)
        wide = tf.constant(latent, tf.float64)
        values = self.weights(wide).numpy() * self.step(wide).numpy()
        energy = (values**2).sum(axis=0)
        gain = np.where(energy > 0, (flat * values).sum(axis=0) / np.where(energy > 0, energy, 1), 1.0)
        return latent.reshape(kernel.shape), gain.astype(np.float32)

    @property
    def reach(self) -> float:
        """The real weight, before it is rounded, at the end of the range that `latent_of` keeps."""
        raise NotImplementedError

    def _span_errors(self, flat: np.ndarray) -> np.ndarray:
        """The squared error [spans, channels] of float weights [weights, channels], each with its best gain.

        With the gain <x, w> / <w, w> of weights w, what is left of x is <x, x> - <x, w>^2 / <w, w>.
        """
        rows = np.ascontiguousarray(flat.T)
        largest = np.abs(rows).max(axis=1 if self.per_channel else None, keepdims=True)
        steps = rows * (self.reach / self.grid.step / np.maximum(largest, 2.0**-40))
        middle = self.grid.offset % self.grid.step / self.grid.step
        top = self.largest_weight / self.grid.step
        energy = np.einsum("ij,ij->i", rows, rows)
        weights, errors = np.empty_like(steps), np.empty((len(SPANS), len(rows)))
        for span, error in zip(SPANS, errors, strict=True):
            np.divide(steps, span, out=weights)
            if middle:
                weights -= middle
            np.rint(weights, out=weights)
            np.clip(weights, -top - middle, top - middle, out=weights)
            if middle:
                weights += middle
            shared, own = np.einsum("ij,ij->i", rows, weights), np.einsum("ij,ij->i", weights, weights)
            error[:] = energy - shared**2 / np.maximum(own, 2.0**-80)
        return errors

    def get_config(self) -> dict[str, Any]:
        return {"bits": self.bits, "grid": self.grid_name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Quantizer:
        return cls(**config)


@tf.keras.utils.register_keras_serializable(package="subbyte")
class Tanh(Quantizer):
    """kernel = q(tanh(P)), the latent P held near N(0, sigma^2): arXiv 2207.06920, section 4.2.

    With sigma near 0.85 tanh(P) is nearly uniform on (-1, 1), so every weight of the grid is about as frequent. The
    interval is cut into equal bins, one for each weight, which stands for the middle of its bin:

        weights = round(levels / 2 * tanh(P)),  step = 2 / levels,  levels = 2^bits - 1      (symmetric)

    Args:
        bits, grid: see `Quantizer`.
        sigma: standard deviation of the latent weights at the start and, through `TargetDistribution`, later.
    """

    def __init__(self, bits: int, grid: str | None = None, sigma: float = 0.85) -> None:
        super().__init__(bits, grid)
        if not sigma > 0:
            raise ValueError(f"Tanh: sigma must be positive, not {sigma!r}")
        self.sigma = float(sigma)

    @property
    def initializer(self) -> Any:
        return tf.keras.initializers.RandomNormal(stddev=self.sigma)

    @property
    def regularizer(self) -> Any:
        return regularizers.TargetDistribution(sigma=self.sigma)

    @property
    def reach(self) -> float:
        # tanh of infinity: the end of the outer bin.
        return self.largest_weight + self.grid.step / 2

    def real_weights(self, latent: tf.Tensor) -> tf.Tensor:
        return self.reach * tf.tanh(latent)

    def round_weights(self, real: tf.Tensor) -> tf.Tensor:
        # tanh ends where the last bins end: nothing saturates, and the gradient needs no mask over the kernel.
        return numerics.straight_through(self._nearest)(real)

    def step(self, latent: tf.Tensor) -> tf.Tensor:
        return tf.constant(1 / self.reach, latent.dtype)

    def latent_of(self, kernel: np.ndarray, span: float | np.ndarray) -> np.ndarray:
        largest = np.maximum(np.abs(kernel).max(axis=0), 2.0**-40)
        # The ends of the range are those of the outer bins, where tanh is 1 and the latent weight infinite.
        half_bin = 0.5 / self.reach
        return np.arctanh(np.clip(kernel / (span * largest), half_bin - 1, 1 - half_bin))

    def initial_gain(self, fan_in: int) -> float:
        # He et al. 2015, for a kernel of standard deviation 1/sqrt(3), that of U(-1, 1).
        return math.sqrt(2.0 / fan_in) * math.sqrt(3.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sigma": self.sigma}


@tf.keras.utils.register_keras_serializable(package="subbyte")
class Linear(Quantizer):
    """kernel = q(P) on a uniform grid for each output channel, its end at `clip` times the channel's largest |P|.

    What starts from the weights of a float model, and the paper's control without tanh (its table 2).

    Args:
        bits, grid: see `Quantizer`.
        clip: share of the range that the grid covers, over 0 to 1; what is beyond saturates.
        per_channel: False takes one grid for the whole kernel, so that weights which are equal stay equal.
    """

    def __init__(self, bits: int, grid: str | None = None, clip: float = 1.0, per_channel: bool = True) -> None:
        super().__init__(bits, grid)
        if not 0 < clip <= 1:
            raise ValueError(f"Linear: clip must be above 0 and at most 1, not {clip!r}")
        self.clip, self.per_channel = float(clip), bool(per_channel)

    def real_weights(self, latent: tf.Tensor) -> tf.Tensor:
        return latent / self.step(latent)

    def step(self, latent: tf.Tensor) -> tf.Tensor:
        axes = list(range(len(latent.shape) - self.per_channel))
        largest = tf.reduce_max(tf.abs(tf.stop_gradient(latent)), axis=axes)
        # A channel of zeros keeps a step, so that its weights are zeros and not NaN.
        return tf.maximum(self.clip * largest, 2.0**-40) / self._per_range

    def latent_of(self, kernel: np.ndarray, span: float | np.ndarray) -> np.ndarray:
        bound = span * np.abs(kernel).max(axis=0 if self.per_channel else None)
        return np.clip(kernel, -bound, bound)

    @property
    def _per_range(self) -> float:
        # Without a zero the weights stand in the middle of their bins: the range ends half a bin beyond the largest.
        return self.largest_weight + (0.0 if self.grid.has_zero else self.grid.step / 2)

    @property
    def reach(self) -> float:
        return self._per_range / self.clip

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "clip": self.clip, "per_channel": self.per_channel}


def get(identifier: Quantizer | dict[str, Any] | None) -> Quantizer:
    """A quantizer from itself or from its serialized form; None gives `Linear(8)`."""
    if identifier is None:
        return Linear(8)
    if isinstance(identifier, dict):
        # In .h5 files and SavedModels tf-keras looks for classes by their bare names.
        with tf.keras.utils.custom_object_scope({"Linear": Linear, "Tanh": Tanh}):
            identifier = tf.keras.utils.deserialize_keras_object(identifier)
    if not isinstance(identifier, Quantizer):
        raise TypeError(f"kernel_quantizer must be a quantizer such as quantizers.Tanh(bits=4), not {identifier!r}")
    return identifier
