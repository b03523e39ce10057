"""What the kernels must compute, in numpy: short, slow and independent of the C code."""

from __future__ import annotations

import numpy as np
from subbyte.schemas import PackedLayer


def fully_connected(layer: PackedLayer, x: np.ndarray) -> np.ndarray:
    """int8 [..., K] to int8 [..., N]."""
    sums = x.astype(np.int64) @ layer.weights.astype(np.int64).T + layer.bias.astype(np.int64)
    return requantize(sums, layer)


def requantize(sums: np.ndarray, layer: PackedLayer) -> np.ndarray:
    """Exact sums, bias included, [..., N] to int8 codes: one float32 product, ties to even, zero point, clamp."""
    with np.errstate(over="ignore"):
        scaled = np.rint(sums.astype(np.float32) * layer.multiplier.astype(np.float32))
    # Clipped before the conversion to integers, so that no product is too large for it.
    low, high = (end - layer.output_zero_point for end in layer.clamp)
    return (np.clip(scaled, low, high).astype(np.int64) + layer.output_zero_point).astype(np.int8)
