"""Grids: which weights a code of some bits can stand for.

A *code* is what is stored, unsigned; a *weight* is what it stands for, a signed integer within int8.

    weight = offset + step * code        evenly spaced, or
    weight = codebook[code]

Quantizers train onto a grid, the converter looks for the smallest that holds given weights, and the packed layer stores
one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_INT8 = (-128, 127)


@dataclass(frozen=True)
class Grid:
    """The weights of all codes of `bits` bits.

    Attributes:
        bits: 1 to 8.
        offset, step: of an evenly spaced grid; those of a codebook are 0 and 1.
        codebook: 2^bits weights, or None where they are evenly spaced.
    """

    bits: int
    offset: int = 0
    step: int = 1
    codebook: tuple[int, ...] | None = None

    @classmethod
    def symmetric(cls, bits: int) -> Grid:
        """TFLite's own: steps of 1 around zero. Quantizers leave its lowest weight, -2^(bits-1), out."""
        return cls(bits, offset=-(2 ** (bits - 1)))

    @classmethod
    def bin_centre(cls, bits: int) -> Grid:
        """The odd integers -(2^bits - 1) .. 2^bits - 1, up to 7 bits; with 1 bit the sign."""
        return cls(bits, offset=1 - 2**bits, step=2)

    @classmethod
    def candidates(cls, bits: int) -> tuple[Grid, ...]:
        """The evenly spaced grids of a width around zero: symmetric from 2 bits on, of odd integers up to 7."""
        symmetric, odd = cls.symmetric(bits), cls.bin_centre(bits)
        return (odd,) if bits == 1 else (symmetric,) if bits == 8 else (symmetric, odd)

    @classmethod
    def smallest(cls, weights: np.ndarray) -> Grid:
        """The grid of fewest bits that holds int8 weights without loss; evenly spaced rather than a codebook."""
        values = np.unique(weights).astype(int)
        codebook_bits = _bits_for(len(values))
        linear = cls._evenly_spaced(values)
        if linear is not None and linear.bits <= codebook_bits:
            return linear
        if codebook_bits == 8:
            return cls.symmetric(8)
        padding = [int(values[-1])] * ((1 << codebook_bits) - len(values))
        return cls(codebook_bits, codebook=(*values.tolist(), *padding))

    @classmethod
    def _evenly_spaced(cls, values: np.ndarray) -> Grid | None:
        """The one of fewest bits; None where it would leave int8, which the format wants of every code."""
        step = int(np.gcd.reduce(np.diff(values))) if len(values) > 1 else 1
        bits = _bits_for(int(values[-1] - values[0]) // step + 1)
        # Near the upper end of int8 it starts lower, so that unused codes are below.
        beyond = int(values[0]) + step * ((1 << bits) - 1) - _INT8[1]
        offset = int(values[0]) - step * max(0, -(-beyond // step))
        return cls(bits, offset=offset, step=step) if offset >= _INT8[0] else None

    @property
    def last(self) -> int:
        """The weight of the highest code of an evenly spaced grid."""
        return self.offset + self.step * ((1 << self.bits) - 1)

    @property
    def has_zero(self) -> bool:
        """Whether some code stands for 0."""
        return bool((self.weights == 0).any())

    @property
    def weights(self) -> np.ndarray:
        """[2^bits] int32, the weight of each code."""
        if self.codebook is not None:
            return np.asarray(self.codebook, np.int32)
        return self.offset + self.step * np.arange(1 << self.bits, dtype=np.int32)

    @property
    def largest_magnitude(self) -> int:
        """The largest magnitude among the weights of all codes, whether a layer uses them or not."""
        return int(np.abs(self.weights).max())

    def encode(self, weights: np.ndarray) -> np.ndarray:
        """uint8 codes; the inverse of `decode`. Raises ValueError for a weight off the grid."""
        if self.codebook is not None:
            values = self.weights
            order = np.argsort(values, kind="stable")
            codes = order[np.searchsorted(values[order], weights).clip(max=len(values) - 1)]
            decoded = values[codes]
        else:
            codes = (weights - self.offset) // self.step
            decoded = self.offset + self.step * codes
        if not np.array_equal(decoded, weights) or codes.min() < 0 or codes.max() >= 1 << self.bits:
            raise ValueError("a weight is off the grid")
        return codes.astype(np.uint8)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """int32 weights of codes below 2^bits, in their shape."""
        if self.codebook is not None:
            return self.weights[codes]
        return self.offset + self.step * codes.astype(np.int32)

    def nearest(self, real: np.ndarray) -> np.ndarray:
        """The weights of an evenly spaced grid that are nearest to real numbers, int32, in their shape."""
        codes = np.clip(np.rint((real - self.offset) / self.step), 0, (1 << self.bits) - 1)
        return (self.offset + self.step * codes).astype(np.int32)

    def check(self) -> None:
        """Raises ValueError for a grid that the packed format cannot hold."""
        if not 1 <= self.bits <= 8:
            raise ValueError(f"a grid has 1 to 8 bits, not {self.bits}")
        if self.codebook is None:
            if not (self.offset >= _INT8[0] and self.step >= 1 and self.last <= _INT8[1]):
                raise ValueError(f"weights from {self.offset} to {self.last} in steps of {self.step}: not 8 bits")
        elif len(self.codebook) != 1 << self.bits:
            raise ValueError(f"a codebook of {self.bits} bits has {1 << self.bits} values")
        elif min(self.codebook) < _INT8[0] or max(self.codebook) > _INT8[1]:
            raise ValueError(f"weights from {min(self.codebook)} to {max(self.codebook)}: not 8 bits")


def _bits_for(count: int) -> int:
    return max(1, (count - 1).bit_length())
