"""Post-training quantization: a float model and some inputs in, a model in stage 2 out, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .float_graph import FloatGraph, Tensor
from .kernel_layer import KernelLayer
from .progress import progress
from .quantize import Twin, build_twin
from .recipe import Recipe
from .stages import set_stage

#: From here on the noise is below a tenth of the outputs (in amplitude).
ENOUGH_DB = 20.0


@dataclass(frozen=True)
class LayerError:
    """What quantization did to one layer.

    Attributes:
        layer: its name.
        bits: of its weights.
        sqnr_db: of its output on the calibration against the float model's, all layers before it quantized too.
    """

    layer: str
    bits: int
    sqnr_db: float


@dataclass(frozen=True)
class PostTraining:
    """A model quantized without training.

    Attributes:
        model: in stage 2, ready for conversion.
        layers: in the order of computation.
        output_sqnr_db: of the model's outputs on the calibration.
        same_top: share of the samples with the same largest output; None for a model that is no classifier.
        left: a line for each layer that stayed in float.
        samples: how many of the calibration were used.
    """

    model: tf.keras.Model
    layers: list[LayerError]
    output_sqnr_db: float
    same_top: float | None
    left: list[str]
    samples: int

    @property
    def wants_training(self) -> bool:
        """Whether the noise in the outputs is above a tenth of them: training wins most of such a loss back."""
        return self.output_sqnr_db < ENOUGH_DB


def quantize_post_training(model: tf.keras.Model, calibration: Any, recipe: Recipe | None = None) -> PostTraining:
    """Quantizes a float model on real inputs, without labels and without training.

    1. Batch normalizations fold into the layers before them.
    2. Each activation gets the range whose grid gives its values back with the least squared error.
    3. Each output channel of a kernel gets the clip and the gain with the least squared error.
    4. Layer by layer, what quantization (here and in all layers before) adds to the mean of each output channel is
       taken off its bias (Nagel et al. 2019, arXiv 1906.04721, section 4.2, on real inputs).

    Args:
        model, recipe: see `quantize_model`.
        calibration: see `quantize_model`; some hundred inputs.

    Raises:
        ValueError: see `quantize_model`.
    """
    twin = build_twin(model, recipe or Recipe(), calibration)
    set_stage(twin.model, 2)
    assert twin.calibration is not None, "build_twin has checked it"
    inputs = [tf.constant(array) for array in twin.calibration]
    floating = _Floating(twin, inputs)
    quantized = FloatGraph.of(twin.model)
    with progress("quantize_post_training", 2 * len(quantized.calls)) as done:
        layers = _correct_biases(twin, quantized, inputs, floating, done)
        found = _ends(quantized, inputs, done)
    pairs = [
        (floating[ours], found[theirs])
        for ours, theirs in zip(twin.graph.output_tensors, quantized.output_tensors, strict=True)
    ]
    return PostTraining(twin.model, layers, _sqnr_db(pairs), _same_top(pairs), twin.left, len(inputs[0]))


def _ends(graph: FloatGraph, inputs: list[Any], done: Callable[[], None]) -> dict[Tensor, np.ndarray]:
    """What a model gives, by tensor."""
    ends = set(graph.output_tensors)
    found: dict[Tensor, np.ndarray] = {}
    for number, outputs in graph.run(inputs):
        found |= {(number, i): output.numpy() for i, output in enumerate(outputs) if (number, i) in ends}
        done()
    return found


class _Floating:
    """What the float model computes, layer by layer as it is asked for; what has been given is forgotten."""

    def __init__(self, twin: Twin, inputs: list[Any]) -> None:
        self._run = twin.graph.run(inputs)
        self._ends = set(twin.graph.output_tensors)
        self._wanted = {tensor for tensors in twin.pairs.values() for tensor in tensors} | self._ends
        self._held: dict[Tensor, np.ndarray] = {}

    def __getitem__(self, tensor: Tensor) -> np.ndarray:
        while tensor not in self._held:
            number, outputs = next(self._run)
            self._held |= {(number, i): y.numpy() for i, y in enumerate(outputs) if (number, i) in self._wanted}
        return self._held[tensor] if tensor in self._ends else self._held.pop(tensor)


def _correct_biases(
    twin: Twin, graph: FloatGraph, inputs: list[Any], expected: _Floating, done: Callable[[], None]
) -> list[LayerError]:
    """Corrects the layers of `graph`, the quantized model, one after the other, and says what noise is left."""
    uses: dict[str, int] = {}
    errors = []
    for number, outputs in graph.run(inputs):
        done()
        layer = graph.calls[number].layer
        if not isinstance(layer, KernelLayer):
            continue
        use = uses[layer.name] = uses.get(layer.name, -1) + 1
        floating = expected[twin.pairs[layer.name][use]]
        if len(twin.pairs[layer.name]) == 1:  # a shared layer has one bias for all its inputs
            axes = tuple(range(floating.ndim - 1))
            shift = (floating.astype(np.float64) - outputs[0].numpy()).mean(axis=axes).astype(np.float32)
            _add_to_bias(layer, shift)
            outputs[0] += shift  # for the layers behind it
        noise = _sqnr_db([(floating, outputs[0].numpy())])
        errors.append(LayerError(layer.name, layer.kernel_quantizer.bits, noise))
    return errors


def _add_to_bias(layer: KernelLayer, shift: np.ndarray) -> None:
    if layer.normalization is not None:
        assert layer.normalization.beta is not None, "a twin's normalization has one"
        layer.normalization.beta.assign_add(shift)
    else:
        assert layer.bias is not None, "a twin's layer without normalization has one"
        layer.bias.assign_add(shift / tf.convert_to_tensor(layer.gain))


def _same_top(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float | None:
    (floating, quantized), *others = pairs
    if others or floating.ndim != 2 or floating.shape[1] < 2:
        return None
    return float(np.mean(floating.argmax(axis=1) == quantized.argmax(axis=1)))


def _sqnr_db(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The signal-to-noise ratio of (float, quantized) outputs together, in dB."""
    signal = sum(float(np.sum(np.square(floating, dtype=np.float64))) for floating, _ in pairs)
    noise = sum(float(np.sum(np.square(a.astype(np.float64) - b))) for a, b in pairs)
    return 10 * float(np.log10(signal / noise)) if noise > 0 and signal > 0 else float("inf")
