"""Memory with guard pages on both sides: an access beyond a buffer's end ends the process."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_PROT_NONE = 0


class Guarded:
    """A copy of `data` whose last byte lies right before a page without access; another lies before the first page.

    Attributes:
        address: of the first byte. Aligned as the size happens to be.
        array: uint8 view of the copy.
    """

    def __init__(self, data: bytes | np.ndarray) -> None:
        content = np.frombuffer(bytes(data), np.uint8)
        page = mmap.PAGESIZE
        inner = max(1, -(-content.size // page)) * page
        self._map = mmap.mmap(-1, inner + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        for guard in (start, start + page + inner):
            if _libc.mprotect(guard, page, _PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.address = start + page + inner - content.size
        self.array = np.frombuffer(self._map, np.uint8, content.size, page + inner - content.size)
        self.array[:] = content
