"""From a float Keras model to its quantization-aware twin."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .calibration import activation_ranges, check_calibration
from .float_graph import FloatGraph, Tensor
from .progress import progress
from .recipe import Recipe
from .split import split
from .tfmot_kinds import refuse_wrapped
from .twin import TwinBuilder


def quantize_model(model: tf.keras.Model, recipe: Recipe | None = None, calibration: Any = None) -> tf.keras.Model:
    """The quantization-aware twin of a float model, in stage 1, its weights fitted to the float ones.

    Dense, Conv1D and 2D, DepthwiseConv1D and 2D and SeparableConv1D and 2D become layers of this package; a
    BatchNormalization behind one becomes a part of it; ReLU, whether a layer or an argument, becomes `ClippedReLU`.
    Where else a tensor has to be int8 on the device, a `QuantActivation` stands behind it. Nested models are taken
    apart; layers used several times stay shared. What is not known stays as it is, and a warning names it.

    Example:
        twin = ql.quantize_model(model, ql.Recipe(bits=4, layers={"stem": 8}), calibration=x_train[:500])
        twin.compile(...)
        twin.fit(x, y, epochs=10, callbacks=[ql.TwoStage(second_stage_epochs=2)])

    Args:
        model: Sequential or functional, built; it is not changed.
        recipe: default `Recipe()`: 4 bits, 8 in the first and the last layer.
        calibration: real inputs, [samples, ...]: an array, or a list or dictionary of them as the model takes its
            inputs, by the inputs' names; a `tf.data.Dataset` or a generator of batches (see `schemas.samples`). The
            ranges of activations are then fixed to those with the least squared error. Without it they follow the
            batches of training, and the first batches must be seen before the model is of use in stage 2.

    Raises:
        ValueError: a model of another kind or without a layer to quantize, a recipe that names no layer, a calibration
            that does not fit.
        TypeError: a recipe that is none.
    """
    if recipe is not None and not isinstance(recipe, Recipe):
        lead = f"Recipe(bits={recipe})" if isinstance(recipe, int) else "Recipe(...)"
        raise TypeError(f"quantize_model takes a Recipe, not {recipe!r}: write {lead}")
    return build_twin(model, recipe or Recipe(), calibration).model


@dataclass
class Twin:
    """A quantized model beside the float one.

    Attributes:
        model: the quantized one.
        graph: the float one.
        pairs: name of a quantized layer to the float tensors that it computes, one for each use.
        quantized: names of the float layers that are quantized.
        left: a line for each layer that stayed in float.
        calibration: the samples used, in the order of the graph's inputs; or None.
    """

    model: tf.keras.Model
    graph: FloatGraph
    pairs: dict[str, list[Tensor]]
    quantized: set[str]
    left: list[str]
    calibration: list[np.ndarray] | None


def build_twin(model: tf.keras.Model, recipe: Recipe, calibration: Any = None, keeps_output_names: bool = True) -> Twin:
    """See `quantize_model`."""
    refuse_wrapped(model)
    graph = split(FloatGraph.of(model))
    samples = None if calibration is None else check_calibration(model, graph, calibration)
    calls = len(graph.calls)
    with progress("quantize_model", calls * (2 if samples is None else 3)) as done, _deep(calls):
        ranges = None if samples is None else activation_ranges(graph, samples, recipe, done)
        builder = TwinBuilder(graph, recipe, ranges, done, keeps_output_names)
        twin = builder.build(lambda inputs, outputs: _model_like(model, inputs, outputs))
    if not builder.pairs:
        reasons = "; ".join(builder.left) or "it has no layer with weights"
        raise ValueError(f"nothing to quantize in {model.name}: {reasons}")
    for line in builder.left:
        warnings.warn(f"quantize_model: {line}", stacklevel=3)
    return Twin(twin, graph, builder.pairs, builder.quantized, builder.left, samples)


@contextmanager
def _deep(calls: int) -> Iterator[None]:
    """Lets Keras make a model of so many calls one behind the other, which it walks by recursion."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 1000 + 20 * calls))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


#: What a subclass of `keras.Model` changes to train, or to be tested, in its own way.
_STEPS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "fit", "compile")


def _model_like(model: tf.keras.Model, inputs: Any, outputs: Any) -> tf.keras.Model:
    """A functional model of the same class where that trains in its own way, with what was hung on `model`."""
    kind = type(model)
    own = [step for step in _STEPS if getattr(kind, step, None) is not getattr(tf.keras.Model, step, None)]
    if isinstance(model, tf.keras.Sequential):
        own = [step for step in own if getattr(kind, step) is not getattr(tf.keras.Sequential, step, None)]
    if not own:
        return tf.keras.Model(inputs, outputs, name=model.name)
    parameters = inspect.signature(kind.__init__).parameters
    taken = {
        key: vars(model)[key] for key in parameters if key in vars(model) and key not in ("inputs", "outputs", "name")
    }
    try:
        if isinstance(model, tf.keras.Sequential):
            raise TypeError("it is a Sequential model")
        twin = kind(inputs=inputs, outputs=outputs, name=model.name, **taken)
    except TypeError as error:
        warnings.warn(
            f"quantize_model: {kind.__name__}.{own[0]} is not kept, since the class cannot be made of inputs and "
            f"outputs ({error}): the twin is a plain keras.Model",
            stacklevel=5,
        )
        return tf.keras.Model(inputs, outputs, name=model.name)
    for key, value in vars(model).items():
        if not key.startswith("_") and not hasattr(twin, key):
            setattr(twin, key, value)
    return twin
