"""Real inputs for a model, and the ranges of activations that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from subbyte.schemas.samples import samples_by_input

from .activations import code_range
from .float_graph import Call, FloatGraph, Tensor
from .recipe import Recipe

#: So many samples of a calibration are used, evenly spread over it.
MOST_SAMPLES = 512


def check_calibration(model: tf.keras.Model, graph: FloatGraph, calibration: Any) -> list[np.ndarray]:
    """Returns at most MOST_SAMPLES samples for each of `graph.input_calls`.

    Args:
        model: the float one, for messages.
        graph: the same, taken apart.
        calibration: in any form that `samples_by_input` takes.

    Raises:
        ValueError: what does not fit the model.
    """
    calls = graph.input_calls
    ranks = {call.name: len(call.args[0].shape) for call in calls}
    arrays = samples_by_input(calibration, ranks, MOST_SAMPLES, _names_by_key(graph))
    for call in calls:
        _check_array(call, arrays[call.name])
    if len({len(array) for array in arrays.values()}) > 1:
        raise ValueError("the inputs of the calibration have different numbers of samples")
    total, size = len(arrays[calls[0].name]), graph.batch_size or 1
    if total < size:
        raise ValueError(f"{model.name} takes batches of {size}, the calibration has {total} samples")
    chosen = np.unique(np.linspace(0, total - 1, max(MOST_SAMPLES, size)).astype(int))
    if len(chosen) > size:
        chosen = chosen[: len(chosen) - len(chosen) % size]
    return [arrays[call.name][chosen].astype(tf.as_dtype(call.args[0].dtype).as_numpy_dtype) for call in calls]


def _names_by_key(graph: FloatGraph) -> dict[str, str]:
    """The names of inputs by the keys of a model that takes a dictionary."""
    if not isinstance(graph.inputs, Mapping):
        return {}
    references = {key: value for key, value in graph.inputs.items() if hasattr(value, "tensor")}
    return {key: graph.calls[reference.tensor[0]].name for key, reference in references.items()}


def _check_array(call: Call, array: np.ndarray) -> None:
    shape, dtype = tuple(call.args[0].shape)[1:], tf.as_dtype(call.args[0].dtype)
    fits = array.ndim == len(shape) + 1 and all(
        wanted in (None, size) for wanted, size in zip(shape, array.shape[1:], strict=True)
    )
    kinds = "OSU" if dtype == tf.string else "fiub"
    if not fits or array.dtype.kind not in kinds:
        wanted = ", ".join(map(str, shape))
        raise ValueError(
            f"the calibration of input {call.name!r} is {array.dtype} {list(array.shape)}, the model takes "
            f"[samples, {wanted}]"
        )
    if len(array) == 0:
        raise ValueError(f"the calibration of input {call.name!r} is empty: give some hundred samples")
    if dtype != tf.string and not np.all(np.isfinite(array)):
        raise ValueError(f"the calibration of input {call.name!r} holds NaN or infinity")


@dataclass(frozen=True)
class Range:
    """A tensor on the calibration.

    Attributes:
        low, high: its smallest and largest value.
        values: an even choice of its values.
        recipe: of the activation quantizers.
    """

    low: float
    high: float
    values: np.ndarray
    recipe: Recipe

    def end(self, signed: bool) -> float:
        """The best end of a signed or of an unsigned range."""
        largest = max(abs(self.low), abs(self.high)) if signed else max(self.high, 0.0)
        return _best_end(self.values, largest, self.recipe.activation_bits, signed, self.recipe.power_of_two)


def activation_ranges(
    graph: FloatGraph, samples: list[np.ndarray], recipe: Recipe, done: Callable[[], None] = lambda: None
) -> dict[Tensor, Range]:
    """The ranges of every tensor of numbers. Raises ValueError where one is not finite."""
    ranges = {}
    for number, outputs in graph.run([tf.constant(array) for array in samples]):
        for i, output in enumerate(outputs):
            # What Keras says to be float may be integer.
            if output.dtype.is_floating or output.dtype.is_integer:
                values = output.numpy().reshape(-1)
                # Both are NaN where a value is.
                low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
                if not (math.isfinite(low) and math.isfinite(high)):
                    raise ValueError(f"{graph.calls[number].name} gives NaN or infinity on the calibration")
                ranges[number, i] = Range(low, high, _thinned(values).copy(), recipe)
        done()
    return ranges


def _thinned(values: np.ndarray) -> np.ndarray:
    """An even choice of at most 2^17 values."""
    return values[:: max(-(-len(values) // 2**17), 1)]


def best_range(values: np.ndarray, bits: int, signed: bool, power_of_two: bool = True) -> float:
    """The `max_value` of an activation quantizer that gives `values` back with the least squared error.

    Sought among the powers of two from a 256th of the largest |value| up; where the scale need not be one, among even
    parts of the largest.

    Args:
        values: any shape; of more than 2^17 values an even choice is used.
        bits, signed, power_of_two: of the quantizer.
    """
    values = np.asarray(values).reshape(-1)
    largest = float(np.abs(values).max(initial=0.0)) if signed else float(values.max(initial=0.0))
    return _best_end(_thinned(values), largest, bits, signed, power_of_two)


def _best_end(values: np.ndarray, largest: float, bits: int, signed: bool, power_of_two: bool) -> float:
    if largest < 2.0**-16:
        return 1.0
    values = values.astype(np.float64)
    top = math.ceil(math.log2(largest))
    ends = [2.0 ** (top - i) for i in range(9)] if power_of_two else list(largest * np.linspace(1, 0.1, 46))
    low, high = code_range(bits, signed)

    def error(end: float) -> float:
        scale = end / (high + 1 if power_of_two else high)
        return float(np.sum((scale * np.clip(np.rint(values / scale), low, high) - values) ** 2))

    return min(ends, key=error)
