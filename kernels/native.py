"""The C kernels without an interpreter, for tests and tools; `load` gives the functions of include/subbyte.h."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from subbyte.schemas.packed_layer import read_header

from .library import delegate_path


def isas() -> dict[str, bool]:
    """The instruction sets compiled in, best first, and whether this processor runs them; the last is "portable"."""
    library, known, index = load(), {}, 0
    while isa := library.subbyte_isa_at(index):
        known[library.subbyte_isa_name(isa).decode()] = bool(library.subbyte_isa_runs(isa))
        index += 1
    return known


def check(data: bytes) -> None:
    """Raises ValueError, with the reason, where `data` is not a packed layer that the kernels compute."""
    library = load()
    status = library.subbyte_check(data, len(data))
    if status:
        raise ValueError(library.subbyte_message(status).decode())


def fully_connected(data: bytes, x: np.ndarray, isa: str | None = None) -> np.ndarray:
    """One packed layer: int8 [..., K] to int8 [..., N], by the named or the best instruction set."""
    check(data)
    header = read_header(data)
    features, channels = int(header["input_features"]), int(header["output_channels"])
    if x.dtype != np.int8 or x.shape[-1:] != (features,):
        raise ValueError(f"x must be int8 [..., {features}], not {x.dtype} {list(x.shape)}")
    library = load()
    chosen = library.subbyte_best_isa() if isa is None else library.subbyte_find_isa(isa.encode())
    if not chosen or not library.subbyte_isa_runs(chosen):
        here = ", ".join(name for name, runs in isas().items() if runs)
        raise ValueError(f"no instruction set {isa!r} here, only {here}")
    x = np.ascontiguousarray(x)
    output = np.empty((*x.shape[:-1], channels), np.int8)
    library.subbyte_fully_connected(data, x.ctypes.data, x.size // features, output.ctypes.data, chosen)
    return output


@cache
def load(path: str | None = None) -> ctypes.CDLL:
    """The library, or another build of it, its functions typed. They take addresses, or bytes, and trust them."""
    library = ctypes.CDLL(path or str(delegate_path()))
    pointer, text, int32 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32
    signatures = {
        "subbyte_check": (int32, [pointer, ctypes.c_size_t]),
        "subbyte_message": (text, [int32]),
        "subbyte_best_isa": (pointer, []),
        "subbyte_isa_at": (pointer, [int32]),
        "subbyte_find_isa": (pointer, [text]),
        "subbyte_isa_name": (text, [pointer]),
        "subbyte_isa_runs": (int32, [pointer]),
        "subbyte_fully_connected": (None, [pointer, pointer, int32, pointer, pointer]),
        "subbyte_fully_connected_channels": (None, [pointer, pointer, int32, pointer, pointer, int32, int32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
