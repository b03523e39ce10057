"""Records: the multiplier and the bias of each channel of a packed layer, and how they are stored.

records = Records.shortest(multiplier, bias)     # the form that takes fewest bytes and loses nothing
records.multipliers, records.biases              # as stored
read(data, header) == (multiplier, bias)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .definition import ENUMS

MultiplierType = ENUMS["MultiplierType"]
BiasType = ENUMS["BiasType"]

#: Bits of a multiplier and bias that share a word: `MultiplierType.IN_BIAS`.
SHARED_BITS = 16
#: A bias is at most so far shifted.
MOST_BIAS_SHIFT = 15

_BIAS_DTYPES = {BiasType.INT32: "<i4", BiasType.INT16: "<i2"}
_MULTIPLIER_DTYPES = {MultiplierType.FLOAT32: "<f4", MultiplierType.UFLOAT16: "<u2", MultiplierType.IN_BIAS: "<u4"}


@dataclass(frozen=True)
class Records:
    """Multipliers and biases of a layer as they are stored.

    Attributes:
        multipliers: [channels] float32 or uint16; of IN_BIAS [1] uint32, the bits of the smallest one.
        biases: [channels] int32 or int16.
        fields: of the header, which tell how to read them.
    """

    multipliers: np.ndarray
    biases: np.ndarray
    fields: dict[str, int]

    @classmethod
    def shortest(cls, multiplier: np.ndarray, bias: np.ndarray) -> Records:
        """Stores float32 multipliers [channels] and int64 biases [channels] in as few bytes as lose nothing.

        Raises ValueError for biases that no form holds.
        """
        biases, bias_type, shift = _shortest_biases(bias)
        fields = {"bias_type": bias_type, "bias_shift": shift, "multiplier_bits": 0, "multiplier_shift": 0}
        if bias_type == BiasType.INT16:
            shared = _share(multiplier, biases)
            if shared is not None:
                return cls(shared.multipliers, shared.biases, fields | shared.fields)
        multipliers, multiplier_type = _shortest_multipliers(multiplier)
        return cls(multipliers, biases, fields | {"multiplier_type": multiplier_type})


def read(data: bytes, header: np.void) -> tuple[np.ndarray, np.ndarray]:
    """(multiplier float32, bias int64), [output_channels] each, of a packed layer whose header has been checked."""
    channels = int(header["output_channels"])
    stored = np.frombuffer(data, _BIAS_DTYPES[header["bias_type"]], channels, int(header["bias_offset"]))
    stored = stored.astype(np.int64)
    in_bias, multiplier_type = int(header["multiplier_bits"]), header["multiplier_type"]
    count = 1 if multiplier_type == MultiplierType.IN_BIAS else channels
    multipliers = np.frombuffer(data, _MULTIPLIER_DTYPES[multiplier_type], count, int(header["multiplier_offset"]))
    if multiplier_type == MultiplierType.UFLOAT16:
        multipliers = (multipliers.astype(np.uint32) << 14).view(np.float32)
    elif multiplier_type == MultiplierType.IN_BIAS:
        steps = (stored & ((1 << in_bias) - 1)) << int(header["multiplier_shift"])
        multipliers = (multipliers + steps).astype(np.uint32).view(np.float32)
    return multipliers, stored >> in_bias << int(header["bias_shift"])


def record_bytes(header: np.void) -> dict[str, int]:
    """Sizes of the sections at `multiplier_offset` and `bias_offset`, without padding."""
    channels = int(header["output_channels"])
    count = 1 if header["multiplier_type"] == MultiplierType.IN_BIAS else channels
    return {
        "multiplier_offset": count * np.dtype(_MULTIPLIER_DTYPES[header["multiplier_type"]]).itemsize,
        "bias_offset": channels * np.dtype(_BIAS_DTYPES[header["bias_type"]]).itemsize,
    }


def _share(multiplier: np.ndarray, biases: np.ndarray) -> Records | None:
    """Both in words of 16 bits, or None where they have no room there."""
    # Floats of one sign are in the order of their bits: what they have above the smallest is a short code.
    bits = multiplier.astype("<f4").view("<u4").astype(np.int64)
    steps = bits - bits.min()
    common = int(np.bitwise_or.reduce(steps))
    shift = max((common & -common).bit_length() - 1, 0)
    width = int(steps.max() >> shift).bit_length()
    limit = 2 ** (SHARED_BITS - 1 - width) if width < SHARED_BITS else 0
    if biases.min() < -limit or biases.max() >= limit:
        return None
    words = (biases.astype(np.int64) << width) + (steps >> shift)
    fields = {"multiplier_type": MultiplierType.IN_BIAS, "multiplier_bits": width, "multiplier_shift": shift}
    return Records(bits.min(keepdims=True).astype("<u4"), words.astype("<i2"), fields)


def _shortest_multipliers(multiplier: np.ndarray) -> tuple[np.ndarray, int]:
    bits = multiplier.astype("<f4").view("<u4")
    if np.all(bits & 0xC0003FFF == 0):
        return (bits >> 14).astype("<u2"), MultiplierType.UFLOAT16
    return multiplier.astype("<f4"), MultiplierType.FLOAT32


def _shortest_biases(bias: np.ndarray) -> tuple[np.ndarray, int, int]:
    """int64 in 16 bits and a common shift where that loses nothing, else in 32, shifted where they need it."""
    common = int(np.bitwise_or.reduce(bias))
    shift = min((common & -common).bit_length() - 1, MOST_BIAS_SHIFT) if common else 0
    short = bias >> shift
    if short.min() >= -(2**15) and short.max() < 2**15:
        return short.astype("<i2"), BiasType.INT16, shift
    if bias.min() >= -(2**31) and bias.max() < 2**31:
        return bias.astype("<i4"), BiasType.INT32, 0
    if short.min() >= -(2**31) and short.max() < 2**31:
        return short.astype("<i4"), BiasType.INT32, shift
    raise ValueError("biases beyond 32 bits must be multiples of a power of two, at most 2^15, that leaves 32 bits")
