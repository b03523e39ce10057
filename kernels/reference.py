"""What the kernels must compute, in numpy: short, slow and independent of the C code."""

from __future__ import annotations

import numpy as np

from subbyte.schemas import ActivationType, Op, PackedLayer, Padding


def run(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """The layer's op on int8 or int16 codes, as its activations are; shapes as in `sums`."""
    return requantize(sums(layer, x), layer)


def fully_connected(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """int8 [..., K] to int8 [..., N]; of 16-bit activations from int16 to int16."""
    return run(layer, x)


def sums(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """The exact sums, bias included, in int64.

    A fully connected layer goes from [..., K] to [..., N]. A convolution goes from [B, H, W, C] to [B, OH, OW, N], by
    weights [N, kernel height * kernel width * C / groups]; in a depthwise one every input channel is a group, so that
    output channel n reads input channel n // multiplier.
    """
    weights, bias = layer.weights.astype(np.int64), layer.bias.astype(np.int64)
    if layer.op == Op.FULLY_CONNECTED:
        return x.astype(np.int64) @ weights.T + bias
    groups = x.shape[-1] if layer.op == Op.DEPTHWISE_CONV_2D else layer.geometry.groups
    patches = _patches(layer, x).astype(np.int64)
    patches = patches.reshape(*patches.shape[:-1], groups, -1)
    kernel = weights.reshape(groups, -1, *layer.geometry.kernel, patches.shape[-1])
    products = np.einsum("bhwyxgc,gnyxc->bhwgn", patches, kernel)
    return products.reshape(*patches.shape[:3], -1) + bias


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
    """The codes that exact sums [..., N] become.

    To int8: one float32 product, ties to even, zero point, clamp. To int16: the exact product, ties away from zero,
    clamp.
    """
    if layer.activation_type == ActivationType.INT16:
        return _requantize_int16(sums, layer)
    with np.errstate(over="ignore"):
        scaled = np.rint(sums.astype(np.float32) * layer.multiplier.astype(np.float32))
    # Clipped before the conversion to integers, so that no product is too large for it.
    low, high = (end - layer.output_zero_point for end in layer.clamp)
    return (np.clip(scaled, low, high).astype(np.int64) + layer.output_zero_point).astype(np.int8)


def _requantize_int16(sums: np.ndarray, layer: PackedLayer) -> np.ndarray:
    # multiplier = significand / 2^shift; the packer saw to it that significands and sums have 63 bits together.
    fraction, exponent = np.frexp(layer.multiplier.astype(np.float32))
    significand, shift = (fraction * 2**24).astype(np.uint64), 24 - exponent
    product = np.abs(sums).astype(np.uint64) * significand
    half = np.uint64(1) << np.clip(shift - 1, 0, 62).astype(np.uint64)
    rounded = np.where(shift > 63, 0, (product + half) >> np.clip(shift, 1, 63).astype(np.uint64))
    return np.clip(np.sign(sums) * rounded.astype(np.int64), *layer.clamp).astype(np.int16)
