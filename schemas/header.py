"""Reads the header of a packed layer and refuses what version 1 does not know, as `kernels/src/check.c` does.

A test changes every field to every value and holds the two readers to the same answer.
"""

from __future__ import annotations

import numpy as np

from . import records
from .definition import ENUMS, HEADER
from .ops import Op
from .planes import BLOCK_BYTES, PLANE_WIDTHS, last_panel, panel_run, plane_bytes

Decode = ENUMS["Decode"]
ActivationType = ENUMS["ActivationType"]
Requantization = ENUMS["Requantization"]
MultiplierType = ENUMS["MultiplierType"]
BiasType = ENUMS["BiasType"]
Padding = ENUMS["Padding"]

MAGIC = int.from_bytes(b"SUBB", "little")
VERSION = 1

# |code| <= 255, |x| <= 128: K * 255 * 128 < 2^31.
MAX_FEATURES = (2**31 - 1) // (255 * 128)

#: The values of a field that version 1 knows, where it lists them.
_KNOWN = {
    "op": frozenset(Op),
    "decode": frozenset(Decode),
    "layout": frozenset(ENUMS["Layout"]),
    "activation_type": frozenset(ActivationType),
    "requantization": frozenset(Requantization),
    "multiplier_type": frozenset(MultiplierType),
    "bias_type": frozenset(BiasType),
    "padding": frozenset(Padding),
    "scale_block": frozenset({0}),
    "reserved": frozenset({0}),
}
#: How sums are kept and rounded, by the type of activations; the format foresees more than is computed.
ARITHMETIC = {
    ActivationType.INT8: {"requantization": Requantization.FLOAT32, "accumulator_bits": 32},
    ActivationType.INT16: {"requantization": Requantization.FIXED_POINT, "accumulator_bits": 64},
}
_WINDOW = ("kernel_height", "kernel_width", "stride_height", "stride_width", "dilation_height", "dilation_width")


def read_header(data: bytes) -> np.void:
    """The header of packed bytes, every field of it checked. Raises ValueError with the reason."""
    if len(data) < HEADER.itemsize:
        raise ValueError(f"{len(data)} bytes are too few for a packed layer's header")
    header = np.frombuffer(data, HEADER, 1)[0]
    if header["magic"] != MAGIC:
        raise ValueError("not a packed layer: wrong magic")
    if header["version"] != VERSION or header["header_bytes"] != HEADER.itemsize:
        raise ValueError(f"packed layer of version {header['version']}; this subbyte reads version {VERSION}")
    if header["total_bytes"] != len(data):
        raise ValueError(f"packed layer of {header['total_bytes']} bytes in {len(data)} bytes")
    _check_known(header)
    for is_good, reason in _CHECKS:
        if not is_good(header):
            raise ValueError(f"damaged packed layer: {reason}")
    return header


def _check_known(header: np.void) -> None:
    for name, known in _KNOWN.items():
        if header[name] not in known:
            raise ValueError(f"packed layer with {name} {header[name]}: version {VERSION} has none, update subbyte")
    activations = ActivationType(header["activation_type"])
    for name, value in ARITHMETIC[activations].items():
        if header[name] != value:
            raise ValueError(f"packed layer with {activations.name} activations and {name} {header[name]}, not {value}")
    if activations == ActivationType.INT16 and header["op"] != Op.FULLY_CONNECTED:
        raise ValueError("packed layer with 16-bit activations that is no dense layer")


def _has_good_geometry(h: np.void) -> bool:
    window = [int(h[name]) for name in _WINDOW]
    inputs, groups = int(h["input_channels"]), int(h["groups"])
    if h["op"] == Op.FULLY_CONNECTED:
        return inputs == h["input_features"] and groups == 1 and set(window) == {1} and h["padding"] == Padding.VALID
    if min(*window, inputs, groups) < 1 or inputs % groups or int(h["output_channels"]) % groups:
        return False
    fits = window[0] * window[1] * (inputs // groups) == h["input_features"]
    return fits and (h["op"] == Op.CONV_2D or groups == inputs)


def _has_good_activations(h: np.void) -> bool:
    scales = [float(h["input_scale"]), float(h["output_scale"])]
    if not all(0 < scale < np.inf for scale in scales):
        return False
    zero_points = [int(h["input_zero_point"]), int(h["output_zero_point"])]
    if h["activation_type"] == ActivationType.INT16:
        return zero_points == [0, 0] and h["clamp_min"] <= h["clamp_max"]
    ends = np.iinfo(np.int8)
    return all(ends.min <= zero <= ends.max for zero in zero_points) and (
        ends.min <= h["clamp_min"] <= h["clamp_max"] <= ends.max
    )


def _has_good_decode(h: np.void) -> bool:
    if h["decode"] == Decode.CODEBOOK:
        return bool(h["codebook_offset"] != 0)
    offset, step = int(h["code_offset"]), int(h["code_step"])
    last = offset + step * ((1 << int(h["weight_bits"])) - 1)
    return h["codebook_offset"] == 0 and step >= 1 and offset >= -128 and last <= 127


def _has_good_records(h: np.void) -> bool:
    if h["bias_shift"] > records.MOST_BIAS_SHIFT:
        return False
    if h["multiplier_type"] == MultiplierType.IN_BIAS:
        return h["bias_type"] == BiasType.INT16 and h["multiplier_bits"] <= 15 and h["multiplier_shift"] <= 31
    return h["multiplier_bits"] == 0 and h["multiplier_shift"] == 0


def _has_good_sections(h: np.void) -> bool:
    channels, features, bits = int(h["output_channels"]), int(h["input_features"]), int(h["weight_bits"])
    run = panel_run(h["op"], channels, int(h["groups"]))
    for width, offset in zip(PLANE_WIDTHS, h["plane_offset"], strict=True):
        if not bits & width:
            if offset != 0:
                return False
            continue
        # The last block starts 4 bytes a channel of the last panel before the end, and is read as a whole one.
        size = plane_bytes(width, channels, features) - 4 * last_panel(run) + BLOCK_BYTES
        if not _is_inside(h, offset, size, BLOCK_BYTES):
            return False
    sizes = records.record_bytes(h)
    if h["decode"] == Decode.CODEBOOK:
        sizes["codebook_offset"] = 1 << bits
    return all(_is_inside(h, h[name], size, 4) for name, size in sizes.items())


def _is_inside(h: np.void, offset: int, size: int, alignment: int) -> bool:
    offset = int(offset)
    return offset >= HEADER.itemsize and offset % alignment == 0 and offset + size <= int(h["total_bytes"])


# In this order: each may rely on those before it.
_CHECKS = (
    (lambda h: 1 <= h["weight_bits"] <= 8, "weight_bits must be 1 to 8"),
    (lambda h: 1 <= h["input_features"] <= MAX_FEATURES, f"input_features must be 1 to {MAX_FEATURES}"),
    (lambda h: h["output_channels"] >= 1, "output_channels must be at least 1"),
    (_has_good_geometry, "window, stride, dilation, groups and channels do not fit each other or the op"),
    (_has_good_activations, "zero points, clamp or scales are not those of its activations"),
    (_has_good_decode, "weights must be -128 to 127, evenly spaced or by a codebook"),
    (_has_good_records, "multipliers take more bits of the biases than they have, or biases a wrong shift"),
    (_has_good_sections, "a section lies outside, is misaligned, missing, or there without need"),
)
