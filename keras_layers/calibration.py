"""Real inputs for a model, and the ranges of activations that follow from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .activations import code_range
from .float_graph import FloatGraph, Tensor
from .recipe import Recipe

#: So many samples of a calibration are used, evenly spread over it.
MOST_SAMPLES = 512


def check_calibration(model: tf.keras.Model, graph: FloatGraph, calibration: Any) -> list[np.ndarray]:
    """At most MOST_SAMPLES samples for each input, in order. Raises ValueError for what does not fit the model."""
    inputs = [call for call in graph.calls if call.layer is None]
    if isinstance(calibration, Mapping):
        missing = [call.name for call in inputs if call.name not in calibration]
        if missing and len(inputs) == len(calibration) == 1:
            arrays = list(calibration.values())
        elif missing:
            raise ValueError(
                f"the calibration has no array {missing[0]!r}: it holds {', '.join(map(str, calibration)) or 'nothing'}"
            )
        else:
            arrays = [calibration[call.name] for call in inputs]
    else:
        arrays = list(calibration) if isinstance(calibration, list | tuple) else [calibration]
    arrays = [np.asarray(array) for array in arrays]
    if len(arrays) != len(inputs):
        raise ValueError(f"the calibration has {len(arrays)} arrays, {model.name} takes {len(inputs)} inputs")
    for call, array in zip(inputs, arrays, strict=True):
        shape = tuple(call.args[0].shape)[1:]
        fits = array.ndim == len(shape) + 1 and all(
            wanted in (None, size) for wanted, size in zip(shape, array.shape[1:], strict=True)
        )
        if not fits or array.dtype.kind not in "fiub":
            wanted = ", ".join(map(str, shape))
            raise ValueError(
                f"the calibration of input {call.name!r} is {array.dtype} {list(array.shape)}, the model takes "
                f"[samples, {wanted}]"
            )
        if len(array) == 0:
            raise ValueError(f"the calibration of input {call.name!r} is empty: give some hundred samples")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"the calibration of input {call.name!r} holds NaN or infinity")
    if len({len(array) for array in arrays}) > 1:
        raise ValueError("the inputs of the calibration have different numbers of samples")
    chosen = np.unique(np.linspace(0, len(arrays[0]) - 1, MOST_SAMPLES).astype(int))
    return [
        array[chosen].astype(tf.as_dtype(call.args[0].dtype).as_numpy_dtype)
        for call, array in zip(inputs, arrays, strict=True)
    ]


@dataclass(frozen=True)
class Range:
    """Of a tensor on the calibration: smallest value, and the best end of a signed and of an unsigned range."""

    low: float
    signed: float
    unsigned: float

    def end(self, signed: bool) -> float:
        return self.signed if signed else self.unsigned


def activation_ranges(graph: FloatGraph, samples: list[np.ndarray], recipe: Recipe) -> dict[Tensor, Range]:
    """Of every float tensor. Raises ValueError where one is not finite."""
    ranges = {}
    for number, outputs in graph.run([tf.constant(array) for array in samples]):
        for i, output in enumerate(outputs):
            if output.dtype.is_floating:
                values = output.numpy().reshape(-1)
                if not np.all(np.isfinite(values)):
                    raise ValueError(f"{graph.calls[number].name} gives NaN or infinity on the calibration")
                ends = (best_range(values, recipe.activation_bits, sign, recipe.power_of_two) for sign in (True, False))
                ranges[number, i] = Range(float(values.min()), *ends)
    return ranges


def best_range(values: np.ndarray, bits: int, signed: bool, power_of_two: bool = True) -> float:
    """The `max_value` of an activation quantizer that gives `values` back with the least squared error.

    Sought among the powers of two from a 256th of the largest |value| up; where the scale need not be one, among even
    parts of the largest.

    Args:
        values: any shape; of more than 2^17 values an even choice is used.
        bits, signed, power_of_two: of the quantizer.
    """
    values = np.asarray(values, np.float64).reshape(-1)
    largest = float(np.abs(values).max(initial=0.0)) if signed else float(values.max(initial=0.0))
    if largest < 2.0**-16:
        return 1.0
    values = values[:: -(-len(values) // 2**17)]
    top = math.ceil(math.log2(largest))
    ends = [2.0 ** (top - i) for i in range(9)] if power_of_two else list(largest * np.linspace(1, 0.1, 46))
    low, high = code_range(bits, signed)

    def error(end: float) -> float:
        scale = end / (high + 1 if power_of_two else high)
        return float(np.sum((scale * np.clip(np.rint(values / scale), low, high) - values) ** 2))

    return min(ends, key=error)
