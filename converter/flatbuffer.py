"""The flatbuffer classes of TFLite's schema, from the installed interpreter package, with three that write less.

Nothing here imports TensorFlow where ai-edge-litert is installed.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import flatbuffers
import numpy as np


def _load_schema() -> ModuleType:
    for name in ("ai_edge_litert.schema_py_generated", "tensorflow.lite.python.schema_py_generated"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise ImportError("subbyte.converter needs ai-edge-litert or tensorflow: pip install 'subbyte[convert]'")


schema: Any = _load_schema()

TensorType = schema.TensorType
BUILTIN_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}

#: numpy types of the tensor types that constants of quantized models have.
DTYPES: dict[int, np.dtype] = {
    TensorType.FLOAT32: np.dtype("<f4"),
    TensorType.INT32: np.dtype("<i4"),
    TensorType.INT64: np.dtype("<i8"),
    TensorType.INT8: np.dtype("i1"),
    TensorType.UINT8: np.dtype("u1"),
    TensorType.INT16: np.dtype("<i2"),
    TensorType.BOOL: np.dtype("?"),
}

#: Smallest and largest code of the types that activations are quantized to.
CODE_RANGES = {TensorType.INT8: (-128, 127), TensorType.UINT8: (0, 255), TensorType.INT16: (-32768, 32767)}

#: Lets C code, and delegates that want it, read a packed tensor in place.
BUFFER_ALIGNMENT = 64
IDENTIFIER = b"TFL3"


class SharingBuilder(flatbuffers.Builder):
    """Writes equal strings and equal vectors of numbers once: shapes, custom options, names in the signature."""

    def __init__(self) -> None:
        super().__init__(1 << 16)
        self._written: dict[tuple, int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        return self._once((x.dtype.str, x.tobytes()), lambda: super(SharingBuilder, self).CreateNumpyVector(x))

    def CreateString(self, s: str | bytes, encoding: str = "utf-8", errors: str = "strict") -> int:
        text = s.encode(encoding, errors) if isinstance(s, str) else s
        return self._once(("string", text), lambda: super(SharingBuilder, self).CreateString(text))

    def _once(self, key: tuple, write: Callable[[], int]) -> int:
        if key not in self._written:
            self._written[key] = write()
        return self._written[key]


class AlignedBuffer(schema.BufferT):
    """The generated class aligns nothing when it writes an array."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        data = None
        if self.data is not None and len(self.data):
            raw = np.ascontiguousarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(raw), BUFFER_ALIGNMENT if len(raw) >= BUFFER_ALIGNMENT else 16)
            builder.head -= len(raw)
            builder.Bytes[builder.head : builder.head + len(raw)] = raw
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class SharedQuantization(schema.QuantizationParametersT):
    """Written once for all tensors that have it."""

    written: int | None = None

    def Pack(self, builder: flatbuffers.Builder) -> int:
        if self.written is None:
            self.written = super().Pack(builder)
        return self.written


def one_scale(scale: float, zero_point: int) -> Any:
    """Quantization parameters of an activation tensor."""
    return per_channel(np.asarray([scale], np.float32), zero_point)


def per_channel(scales: np.ndarray, zero_point: int = 0, dimension: int = 0) -> Any:
    """Quantization parameters with one scale for each slice along a dimension."""
    return schema.QuantizationParametersT(
        scale=scales.astype(np.float32),
        zeroPoint=np.full(len(scales), zero_point, np.int64),
        quantizedDimension=dimension,
    )
