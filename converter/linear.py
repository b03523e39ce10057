"""One integer linear op: what every path of the converter meets in, and every target is written from.

y code = clamp(rint(float32(sum(weights * x codes) + bias) * multiplier) + y zero point)
multiplier = x scale * weight scale / y scale

Between int16 tensors, whose zero points are 0, as TFLite's 16x8 ops: one exact product, halves away from zero.

y code = clamp(round((sum(weights * x codes) + bias) * multiplier))
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from subbyte.schemas.packed_layer import Geometry, Op

from .flatbuffer import CODE_RANGES, TensorType
from .graph import Graph

#: Real bounds beyond this many codes bound nothing.
_FAR = 2.0**17


@dataclass(frozen=True)
class Grid:
    """How a weight becomes a packed code of `bits` bits: weight = offset + step * code, or codebook[code]."""

    bits: int
    offset: int = 0
    step: int = 1
    codebook: tuple[int, ...] | None = None

    def encode(self, weights: np.ndarray) -> np.ndarray:
        """uint8 codes; the inverse of the decode. Raises ValueError for a weight off the grid."""
        if self.codebook is not None:
            values = np.asarray(self.codebook)
            order = np.argsort(values, kind="stable")
            codes = order[np.searchsorted(values[order], weights).clip(max=len(values) - 1)]
            decoded = values[codes]
        else:
            codes = (weights - self.offset) // self.step
            decoded = self.offset + self.step * codes
        if not np.array_equal(decoded, weights) or codes.min() < 0 or codes.max() >= 1 << self.bits:
            raise ValueError("a weight is off the grid")
        return codes.astype(np.uint8)


def smallest_grid(weights: np.ndarray) -> Grid:
    """The grid of fewest bits that holds int8 weights without loss; evenly spaced rather than a codebook."""
    values = np.unique(weights).astype(int)
    codebook_bits = _bits_for(len(values))
    linear = _even_grid(values)
    if linear is not None and linear.bits <= codebook_bits:
        return linear
    if codebook_bits == 8:
        return Grid(8, offset=-128)
    padding = [int(values[-1])] * ((1 << codebook_bits) - len(values))
    return Grid(codebook_bits, codebook=(*values.tolist(), *padding))


def _even_grid(values: np.ndarray) -> Grid | None:
    """The evenly spaced grid of fewest bits; None where it would leave int8, which the format wants of every code."""
    step = int(np.gcd.reduce(np.diff(values))) if len(values) > 1 else 1
    bits = _bits_for(int(values[-1] - values[0]) // step + 1)
    # Near the upper end of int8 it starts lower, so that unused codes are below.
    beyond = int(values[0]) + step * ((1 << bits) - 1) - 127
    offset = int(values[0]) - step * max(0, -(-beyond // step))
    return Grid(bits, offset=offset, step=step) if offset >= -128 else None


def _bits_for(count: int) -> int:
    return max(1, (count - 1).bit_length())


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
