"""The machine's limits, as `probe.c` measures them."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from subbyte.reports import Stopwatch

SOURCE = Path(__file__).with_name("probe.c")
WORD_BYTES, VECTOR_BYTES = 8, 64
READ_AT_LEAST = 1 << 20  # bytes in a call, so that the call itself costs nothing


class Probe:
    """`probe.c`, compiled in `folder` by the C compiler of the machine, or by $CC."""

    def __init__(self, folder: Path) -> None:
        library = folder / "probe.so"
        compiler = os.environ.get("CC", "cc").split()
        flags = ["-std=c11", "-O3", "-march=native", "-shared", "-fPIC"]
        subprocess.run([*compiler, *flags, str(SOURCE), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.read_words.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
        self._library.read_words.restype = ctypes.c_uint64
        self._library.add_in_sequence.argtypes = (ctypes.c_uint64,)

    def read_words(self, words: np.ndarray, passes: int) -> int:
        """The sum of uint64 words, `passes` times over, modulo 2^64.

        Raises ValueError for words that are not aligned to 64 bytes or no multiple of 32.
        """
        address = words.ctypes.data
        if words.dtype != np.uint64 or address % VECTOR_BYTES or words.size % 32:
            raise ValueError("words must be uint64, a multiple of 32, aligned to 64 bytes")
        return int(self._library.read_words(address, words.size, passes))

    def read_bandwidth(self, sizes: Sequence[int], stopwatch: Stopwatch) -> list[float]:
        """Bytes a second, reading as many bytes over and over, for each of `sizes`, with one thread; medians."""
        passes = {size: max(1, READ_AT_LEAST // size) for size in sizes}
        calls = {size: functools.partial(self.read_words, aligned_words(size), passes[size]) for size in sizes}
        timings = stopwatch.time_in_turn(calls)
        return [size * passes[size] / timings[size].median for size in sizes]

    def clock(self, stopwatch: Stopwatch) -> float:
        """Cycles a second, by additions that wait for one another."""
        count = 1 << 18
        timings = stopwatch.time_in_turn({"add": lambda: self._library.add_in_sequence(count)})
        return count / timings["add"].median


def aligned_words(size: int) -> np.ndarray:
    """`size` bytes as uint64 ones, aligned for the probe."""
    words = np.ones(size // WORD_BYTES + VECTOR_BYTES // WORD_BYTES, np.uint64)
    start = -words.ctypes.data % VECTOR_BYTES // WORD_BYTES
    return words[start : start + size // WORD_BYTES]
