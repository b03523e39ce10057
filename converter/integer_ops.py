"""Ops in integers: what every way into the converter is lifted to, and every target is written from.

An `IntegerOp` stands among a graph's operators until a target writes it. The first is `LinearOp`:

y code = clamp(rint(float32(sum(weights * x codes) + bias) * multiplier) + y zero point)
multiplier = x scale * weight scale / y scale

Between int16 tensors, whose zero points are 0, as TFLite's 16x8 ops: one exact product, halves away from zero.

y code = clamp(round((sum(weights * x codes) + bias) * multiplier))
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeGuard

import numpy as np

from subbyte.schemas import Geometry, Grid, Op

from .flatbuffer import CODE_RANGES, TensorType, schema
from .graph import Graph

#: Real bounds beyond this many codes bound nothing.
_FAR = 2.0**17

#: Real bounds of the ops, and of the fused functions, that do nothing but bound a value.
BOUNDS = {
    "NONE": (-math.inf, math.inf),
    "RELU": (0.0, math.inf),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}
#: Names of the fused functions by their numbers in the schema.
FUSED = {value: name for name, value in vars(schema.ActivationFunctionType).items() if isinstance(value, int)}

#: In int8 one step of the sum runs through all codes, and the stock interpreter's fast kernels refuse it; its 16x8
#: kernels shift to the left by 7 bits at the most.
LARGEST_MULTIPLIER = {TensorType.INT8: 256, TensorType.INT16: 128}


class IntegerOp(Protocol):
    """What the graph, the targets and the verifier ask of an op in integers.

    Attributes:
        kind: what `Graph.kind` calls it before a target has written it.
        layer: name for people.
        inputs, outputs: tensors by index in the graph; they carry the quantization.
        intermediates: tensors between them, by index; only stock ops have some.
        exact: a model in Keras gives the same numbers, but for what `rounding` says.
        stock: made from a stock op: the model in Keras, if there is one, does not round as it does.
        tap: name under which the model in Keras gives the output, or None.
    """

    kind: ClassVar[str]
    layer: str
    inputs: list[int]
    outputs: list[int]
    intermediates: list[int]
    exact: bool
    stock: bool
    tap: str | None

    def rounding(self, graph: Graph) -> float:
        """How far, in codes of the output, the op may stand from the model in Keras for equal inputs."""

    def gain(self, graph: Graph) -> float:
        """How many codes of the output one code of the input moves at most."""


def is_integer_op(op: object) -> TypeGuard[IntegerOp]:
    """Whether an operator of a graph is one that no target has written yet."""
    return not hasattr(op, "opcodeIndex")


@dataclass
class LinearOp:
    """A fully connected layer or a convolution in integers. Stands among a graph's operators until a target writes it.

    Attributes:
        layer: name for people.
        inputs, outputs: one tensor of `activation_type` each, indices in the graph; of four dimensions for a
            convolution.
        weights: [output_channels, input_features] int32 within int8; of a convolution [output_channels, kernel height *
            kernel width * input channels of a group], in that order.
        weight_scale: [output_channels] float32, positive.
        bias: [output_channels] int64, in units of x scale * weight scale; the input's zero point is not in it.
        grid: of the weights.
        op: whether it is fully connected, a convolution or a depthwise one.
        geometry: the window of a convolution; a depthwise one has as many groups as input channels.
        activation_type: INT8 or INT16 of `TensorType`, of input and output.
        clamp: smallest and largest output code.
        keep_dims: the output of a fully connected layer keeps the input's leading dimensions.
        real_weights: like `weights` before rounding, or None where nobody knows.
        bias_unit: of an int16 layer whose bias is not exact, the power of two to whose multiples it is rounded.
        exact: nothing but bounds stands between the layer and its output, so that Keras gives the same numbers.
        stock: made from a stock op: the model in Keras, if there is one, does not round these weights.
        tap: name under which the model in Keras gives the same tensor, or None.
    """

    kind: ClassVar[str] = "LINEAR"

    layer: str
    inputs: list[int]
    outputs: list[int]
    weights: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray
    grid: Grid
    op: int = Op.FULLY_CONNECTED
    geometry: Geometry = field(default_factory=Geometry)
    activation_type: int = TensorType.INT8
    clamp: tuple[int, int] = CODE_RANGES[TensorType.INT8]
    keep_dims: bool = False
    real_weights: np.ndarray | None = None
    bias_unit: int = 1
    exact: bool = True
    stock: bool = False
    tap: str | None = None
    intermediates: list[int] = field(default_factory=list)

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code that the output's type holds."""
        return CODE_RANGES[self.activation_type]

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """The shape of the weights in Keras: output channels last, but for a depthwise convolution."""
        channels, features = self.weights.shape
        if self.op == Op.FULLY_CONNECTED:
            return features, channels
        groups = self.geometry.groups
        if self.op == Op.DEPTHWISE_CONV_2D:
            return *self.geometry.kernel, groups, channels // groups
        return *self.geometry.kernel, features // math.prod(self.geometry.kernel), channels

    def rounding(self, graph: Graph) -> float:
        """Half a unit of the bias where it had to be rounded to the kernel's integers, else nothing."""
        x_scale, _, y_scale, _ = activation_parameters(graph, self)
        if self.exact and all(math.frexp(scale)[0] == 0.5 for scale in (x_scale, y_scale)):
            return 0.0
        return float(self._multiplier(graph).max()) * self.bias_unit / 2

    def gain(self, graph: Graph) -> float:
        """The largest sum of |weights| * multiplier of a channel."""
        return float((np.abs(self.weights).sum(axis=1) * self._multiplier(graph)).max())

    def _multiplier(self, graph: Graph) -> np.ndarray:
        x_scale, _, y_scale, _ = activation_parameters(graph, self)
        return x_scale * self.weight_scale.astype(np.float64) / y_scale

    def sqnr_db(self) -> float | None:
        """Signal to quantization noise of the weights in dB, None where the float weights are not known."""
        if self.real_weights is None:
            return None
        noise = float(np.sum((self.real_weights - self.weights) ** 2))
        signal = float(np.sum(self.real_weights**2))
        return 10 * float(np.log10(signal / noise)) if noise > 0 and signal > 0 else float("inf")


def half_away(values: np.ndarray) -> np.ndarray:
    """Nearest integers, halves away from zero."""
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


def clamp_codes(
    low: float, high: float, quantization: tuple[float, int], activation_type: int = TensorType.INT8
) -> tuple[int, int]:
    """Real bounds as the smallest and largest code of a type under (scale, zero point)."""
    scale, zero_point = quantization
    ends = np.clip([low / scale, high / scale], -_FAR, _FAR)
    codes = half_away(ends) if activation_type == TensorType.INT16 else np.rint(ends)
    first, last = np.clip(codes + zero_point, *CODE_RANGES[activation_type])
    return int(first), int(last)


def activation_parameters(graph: Graph, op: LinearOp) -> tuple[float, int, float, int]:
    """(x scale, x zero point, y scale, y zero point)."""
    x, y = graph.quantization(op.inputs[0]), graph.quantization(op.outputs[0])
    if x is None or y is None:
        raise TypeError(f"{op.layer} does not stand between quantized tensors")
    return (*x, *y)
