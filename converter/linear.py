"""One integer linear op: what every path of the converter meets in, and every target is written from.

y code = clamp(rint(float32(sum(weights * x codes) + bias) * multiplier) + y zero point)
multiplier = x scale * weight scale / y scale
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from subbyte.schemas.packed_layer import Geometry, Op

from .graph import Graph


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
        inputs, outputs: one int8 tensor each, indices in the graph; of four dimensions for a convolution.
        weights: [output_channels, input_features] int32 within int8; of a convolution [output_channels, kernel height *
            kernel width * input channels of a group], in that order.
        weight_scale: [output_channels] float32, positive.
        bias: [output_channels] int32, in units of x scale * weight scale; the input's zero point is not in it.
        grid: of the weights.
        op: whether it is fully connected, a convolution or a depthwise one.
        geometry: the window of a convolution; a depthwise one has as many groups as input channels.
        clamp: smallest and largest output code.
        keep_dims: the output of a fully connected layer keeps the input's leading dimensions.
        real_weights: like `weights` before rounding, or None where nobody knows.
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
    clamp: tuple[int, int] = (-128, 127)
    keep_dims: bool = False
    real_weights: np.ndarray | None = None
    exact: bool = True
    stock: bool = False
    tap: str | None = None
    intermediates: list[int] = field(default_factory=list)

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


def clamp_codes(low: float, high: float, quantization: tuple[float, int]) -> tuple[int, int]:
    """Real bounds as the smallest and largest int8 code under (scale, zero point)."""
    scale, zero_point = quantization
    codes = np.rint(np.clip([low / scale, high / scale], -512, 512)) + zero_point
    first, last = np.clip(codes, -128, 127)
    return int(first), int(last)


def activation_parameters(graph: Graph, op: LinearOp) -> tuple[float, int, float, int]:
    """(x scale, x zero point, y scale, y zero point)."""
    x, y = graph.quantization(op.inputs[0]), graph.quantization(op.outputs[0])
    if x is None or y is None:
        raise TypeError(f"{op.layer} does not stand between int8 tensors")
    return (*x, *y)
