"""The C kernels without an interpreter, for tests and tools; `load` gives the functions of include/subbyte.h."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

from subbyte.schemas import ActivationType, Op, read_header

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
    """One packed layer: int8 or int16 [..., K] to the same [..., N], by the named or the best instruction set."""
    check(data)
    header = read_header(data)
    features, channels = int(header["input_features"]), int(header["output_channels"])
    is_int16 = header["activation_type"] == ActivationType.INT16
    dtype = np.dtype(np.int16 if is_int16 else np.int8)
    if x.dtype != dtype or x.shape[-1:] != (features,):
        raise ValueError(f"x must be {dtype} [..., {features}], not {x.dtype} {list(x.shape)}")
    library, chosen = load(), _find_isa(isa)
    x = np.ascontiguousarray(x)
    rows, output = x.size // features, np.empty((*x.shape[:-1], channels), dtype)
    arguments = (data, x.ctypes.data, rows, output.ctypes.data)
    if is_int16:
        scratch = np.empty(library.subbyte_fully_connected_int16_scratch(data, rows), np.int8)
        library.subbyte_fully_connected_int16(*arguments, scratch.ctypes.data, chosen)
    else:
        library.subbyte_fully_connected(*arguments, chosen)
    return output


def conv_2d(data: bytes, x: np.ndarray, isa: str | None = None) -> np.ndarray:
    """A packed convolution, depthwise or not: int8 [B, H, W, C] to int8 [B, OH, OW, N]."""
    check(data)
    header = read_header(data)
    channels = int(header["input_channels"])
    if header["op"] == Op.FULLY_CONNECTED:
        raise ValueError("the layer is no convolution")
    if x.dtype != np.int8 or x.ndim != 4 or x.shape[-1] != channels:
        raise ValueError(f"x must be int8 [batch, height, width, {channels}], not {x.dtype} {list(x.shape)}")
    library, chosen = load(), _find_isa(isa)
    batch, height, width, _ = x.shape
    sizes = (ctypes.c_int32(), ctypes.c_int32())
    library.subbyte_conv_2d_output(data, height, width, *map(ctypes.byref, sizes))
    output = np.empty((batch, *(size.value for size in sizes), int(header["output_channels"])), np.int8)
    scratch = np.empty(library.subbyte_conv_2d_scratch(data, batch, height, width), np.int8)
    x = np.ascontiguousarray(x)
    library.subbyte_conv_2d(data, x.ctypes.data, batch, height, width, output.ctypes.data, scratch.ctypes.data, chosen)
    return output


def _find_isa(name: str | None) -> int:
    library = load()
    chosen = library.subbyte_best_isa() if name is None else library.subbyte_find_isa(name.encode())
    if not chosen or not library.subbyte_isa_runs(chosen):
        here = ", ".join(isa for isa, runs in isas().items() if runs)
        raise ValueError(f"no instruction set {name!r} here, only {here}")
    return chosen


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
        "subbyte_find_layers": (int32, [pointer, ctypes.c_size_t, pointer, int32, pointer]),
        "subbyte_fully_connected": (None, [pointer, pointer, int32, pointer, pointer]),
        "subbyte_fully_connected_int16": (None, [pointer, pointer, int32, pointer, pointer, pointer]),
        "subbyte_fully_connected_int16_channels": (
            None,
            [pointer, pointer, int32, pointer, pointer, pointer, int32, int32],
        ),
        "subbyte_fully_connected_int16_scratch": (ctypes.c_size_t, [pointer, int32]),
        "subbyte_conv_2d": (None, [pointer, pointer, int32, int32, int32, pointer, pointer, pointer]),
        "subbyte_conv_2d_part": (
            None,
            [pointer, pointer, int32, int32, int32, pointer, pointer, pointer, int32, int32],
        ),
        "subbyte_conv_2d_scratch": (ctypes.c_size_t, [pointer, int32, int32, int32]),
        "subbyte_conv_2d_output": (None, [pointer, int32, int32, pointer, pointer]),
        "subbyte_fully_connected_channels": (None, [pointer, pointer, int32, pointer, pointer, int32, int32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
