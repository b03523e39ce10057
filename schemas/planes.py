"""Planes: where the codes of a packed layer lie, as `Layout` in `packed_layer.fbs` says.

A code of b bits is cut into one plane for each binary digit of b, 5 = 4 + 1; the widest has the lowest bits. A plane
goes panel by panel of 16 output channels, and a panel block by block of 4 bytes a channel.
"""

from __future__ import annotations

import numpy as np

from .ops import Op

PANEL = 16  # output channels
BLOCK_BYTES = 64
PLANE_WIDTHS = (8, 4, 2, 1)


def plane_bytes(width: int, channels: int, features: int) -> int:
    """Size of the plane of `width` bits."""
    return -(-features * width // 32) * 4 * channels


def panel_run(op: int, channels: int, groups: int) -> int:
    """Output channels that panels go through: those that read the same inputs."""
    return channels // groups if op == Op.CONV_2D else channels


def pack_planes(codes: np.ndarray, bits: int, run: int | None = None) -> list[np.ndarray]:
    """Codes [channels, features] as uint8 planes of 8, 4, 2 and 1 bits; empty where `bits` has no such digit.

    Panels start anew after every `run` channels; by default they go through all.
    """
    planes, shift = [], 0
    for width in PLANE_WIDTHS:
        if not bits & width:
            planes.append(np.zeros(0, np.uint8))
            continue
        planes.append(_pack_plane((codes >> shift) & ((1 << width) - 1), width, run or len(codes)))
        shift += width
    return planes


def unpack_planes(planes: list[np.ndarray | None], channels: int, features: int, run: int | None = None) -> np.ndarray:
    """The inverse of `pack_planes`: uint8 codes [channels, features]."""
    codes, shift = np.zeros((channels, features), np.uint8), 0
    for width, plane in zip(PLANE_WIDTHS, planes, strict=True):
        if plane is not None and plane.size:
            codes |= _unpack_plane(plane, width, channels, features, run or channels) << shift
            shift += width
    return codes


def _panels(channels: int, run: int) -> list[slice]:
    return [
        slice(c, min(c + PANEL, start + run))
        for start in range(0, channels, run)
        for c in range(start, start + run, PANEL)
    ]


def _pack_plane(digits: np.ndarray, width: int, run: int) -> np.ndarray:
    channels, features = digits.shape
    fields = 8 // width
    blocks = -(-features // (4 * fields))
    padded = np.zeros((channels, blocks, fields, 4), np.uint8)
    padded.reshape(channels, -1)[:, :features] = digits
    shifts = (width * np.arange(fields, dtype=np.uint8))[:, None]
    rows = np.bitwise_or.reduce(padded << shifts, axis=2)  # [channels, blocks, 4]
    return np.concatenate([rows[panel].transpose(1, 0, 2).ravel() for panel in _panels(channels, run)])


def _unpack_plane(plane: np.ndarray, width: int, channels: int, features: int, run: int) -> np.ndarray:
    fields = 8 // width
    blocks = -(-features // (4 * fields))
    rows = np.empty((channels, blocks, 4), np.uint8)
    for panel in _panels(channels, run):
        section = plane[panel.start * blocks * 4 : panel.stop * blocks * 4]
        rows[panel] = section.reshape(blocks, -1, 4).transpose(1, 0, 2)
    shifts = (width * np.arange(fields, dtype=np.uint8))[:, None]
    digits = (rows[:, :, None, :] >> shifts) & ((1 << width) - 1)  # [channels, blocks, fields, 4]
    return digits.reshape(channels, -1)[:, :features]


def last_panel(channels: int) -> int:
    """Output channels of the last of the panels that hold so many."""
    return (channels - 1) % PANEL + 1
