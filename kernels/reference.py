"""What the kernels must compute, in numpy: short, slow and independent of the C code."""

from __future__ import annotations

import numpy as np
from subbyte.schemas import PackedLayer
from subbyte.schemas.packed_layer import Op, Padding


def run(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """The layer's op on int8 codes: [..., K] for a fully connected layer, [B, H, W, C] for a convolution."""
    functions = {Op.FULLY_CONNECTED: fully_connected, Op.CONV_2D: conv_2d, Op.DEPTHWISE_CONV_2D: depthwise_conv_2d}
    return functions[layer.op](layer, x)


def fully_connected(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """int8 [..., K] to int8 [..., N]."""
    sums = x.astype(np.int64) @ layer.weights.astype(np.int64).T + layer.bias.astype(np.int64)
    return requantize(sums, layer)


def conv_2d(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """int8 [B, H, W, C] to int8 [B, OH, OW, N]; codes [N, kernel height * kernel width * C / groups]."""
    return _grouped_conv_2d(layer, x, layer.geometry.groups)


def depthwise_conv_2d(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """int8 [B, H, W, C] to int8 [B, OH, OW, C * multiplier]; codes [C * multiplier, kernel height * kernel width].

    Output channel o reads input channel o // multiplier: a convolution in which every input channel is a group.
    """
    return _grouped_conv_2d(layer, x, x.shape[-1])


def _grouped_conv_2d(layer: PackedLayer, x: np.ndarray, groups: int) -> np.ndarray:
    height, width = layer.geometry.kernel
    channels = x.shape[-1] // groups
    weights = layer.weights.astype(np.int64).reshape(groups, -1, height, width, channels)
    patches = _patches(layer, x).astype(np.int64)
    patches = patches.reshape(*patches.shape[:-1], groups, channels)
    sums = np.einsum("bhwyxgc,gnyxc->bhwgn", patches, weights)
    return requantize(sums.reshape(*sums.shape[:3], -1) + layer.bias.astype(np.int64), layer)


def _patches(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """What each output reads, [B, OH, OW, kernel height, kernel width, C]; outside of x lies its zero point."""
    geometry, padding, indices = layer.geometry, [], []
    for size, kernel, stride, dilation in zip(
        x.shape[1:3], geometry.kernel, geometry.stride, geometry.dilation, strict=True
    ):
        window = (kernel - 1) * dilation + 1
        outputs = -(-size // stride) if geometry.padding == Padding.SAME else (size - window) // stride + 1
        missing = max(0, (outputs - 1) * stride + window - size)
        padding.append((missing // 2, missing - missing // 2))
        indices.append(stride * np.arange(outputs)[:, None] + dilation * np.arange(kernel))
    rows, columns = indices
    padded = np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=layer.input_zero_point)
    return padded[:, rows[:, None, :, None], columns[None, :, None, :]]


def requantize(sums: np.ndarray, layer: PackedLayer) -> np.ndarray:
    """Exact sums, bias included, [..., N] to int8 codes: one float32 product, ties to even, zero point, clamp."""
    with np.errstate(over="ignore"):
        scaled = np.rint(sums.astype(np.float32) * layer.multiplier.astype(np.float32))
    # Clipped before the conversion to integers, so that no product is too large for it.
    low, high = (end - layer.output_zero_point for end in layer.clamp)
    return (np.clip(scaled, low, high).astype(np.int64) + layer.output_zero_point).astype(np.int8)
