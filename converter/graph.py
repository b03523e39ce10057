"""A TFLite model as an editable graph: read it, look things up, add to it, write it.

The flatbuffer object API of the installed interpreter package does the parsing, so nothing here imports TensorFlow
where ai-edge-litert is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import flatbuffers
import numpy as np

from .errors import ConversionError


def _load_schema() -> ModuleType:
    for name in ("ai_edge_litert.schema_py_generated", "tensorflow.lite.python.schema_py_generated"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise ImportError("subbyte.converter needs ai-edge-litert or tensorflow: pip install 'subbyte[convert]'")


schema: Any = _load_schema()

TensorType = schema.TensorType
_BUILTIN_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}

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

#: Lets C code, and delegates that want it, read a packed tensor in place.
BUFFER_ALIGNMENT = 64
_IDENTIFIER = b"TFL3"


class _AlignedBuffer(schema.BufferT):
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


class _SharedQuantization(schema.QuantizationParametersT):
    """Written once for all tensors that have it."""

    written: int | None = None

    def Pack(self, builder: flatbuffers.Builder) -> int:
        if self.written is None:
            self.written = super().Pack(builder)
        return self.written


class Graph:
    """The main subgraph of a TFLite model. Tensors are named by index, operators are the objects in `operators`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.main = model.subgraphs[0]

    @classmethod
    def read(cls, data: bytes, name: str = "the model") -> Graph:
        """Raises ConversionError for what is not a TFLite model."""
        if data[4:8] != _IDENTIFIER:
            raise ConversionError(f"{name} is not a TFLite model")
        try:
            model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
        except Exception as error:  # the generated reader fails in any way on damaged bytes
            raise ConversionError(f"{name} is damaged: {error}") from error
        for buffer in model.buffers:
            if buffer.offset > 1:  # stored behind the flatbuffer
                buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        return cls(model)

    def write(self) -> bytes:
        """The model's bytes; the same graph gives the same bytes."""
        self._compact()
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self.model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())

    def _compact(self) -> None:
        """Drops what readers do not need and shares what is equal: a tensor's description is as long as 100 weights."""
        for buffer in self.model.buffers:
            buffer.__class__ = _AlignedBuffer
        shared: dict[tuple, _SharedQuantization] = {}
        for tensor in (tensor for graph in self.model.subgraphs for tensor in graph.tensors):
            data = self.model.buffers[tensor.buffer].data
            if data is None or not len(data):
                tensor.buffer = 0
            tensor.hasRank = tensor.shape is None or not len(tensor.shape)
            old = tensor.quantization
            if old is not None and old.scale is not None and not old.detailsType:
                key = (bytes(np.asarray(old.scale)), bytes(np.asarray(old.zeroPoint)), old.quantizedDimension)
                new = _SharedQuantization(
                    scale=old.scale, zeroPoint=old.zeroPoint, quantizedDimension=old.quantizedDimension
                )
                tensor.quantization = shared.setdefault(key, new)
            elif old is not None and old.scale is None:
                tensor.quantization = None
        self._prune_buffers()

    @property
    def operators(self) -> list[Any]:
        return self.main.operators

    @property
    def inputs(self) -> list[int]:
        return list(self.main.inputs)

    @property
    def outputs(self) -> list[int]:
        return list(self.main.outputs)

    def tensor(self, index: int) -> Any:
        return self.main.tensors[index]

    def name(self, index: int) -> str:
        return (self.tensor(index).name or b"").decode()

    def kind(self, operator: Any) -> str:
        """ "FULLY_CONNECTED" and the like; a custom op's own name; "LINEAR" for what no target has written yet."""
        if not hasattr(operator, "opcodeIndex"):
            return operator.kind
        code = self.model.operatorCodes[operator.opcodeIndex]
        if code.customCode:
            return code.customCode.decode()
        return _BUILTIN_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]

    def producer(self, tensor: int) -> Any | None:
        return next((op for op in self.operators if tensor in op.outputs), None)

    def consumers(self, tensor: int) -> list[Any]:
        return [op for op in self.operators if tensor in op.inputs]

    def constant(self, tensor: int) -> np.ndarray | None:
        """A constant tensor's value, or None for what is computed."""
        info = self.tensor(tensor)
        data = self.model.buffers[info.buffer].data
        if data is None or info.type not in DTYPES:
            return None
        return np.frombuffer(np.asarray(data, np.uint8).tobytes(), DTYPES[info.type]).reshape(self.shape(tensor))

    def shape(self, tensor: int) -> tuple[int, ...]:
        shape = self.tensor(tensor).shape
        return tuple(int(size) for size in shape) if shape is not None else ()

    def quantization(self, tensor: int) -> tuple[float, int] | None:
        """(scale, zero point) of an int8 tensor with one scale, else None."""
        info = self.tensor(tensor)
        parameters = info.quantization
        if info.type != TensorType.INT8 or parameters is None or parameters.scale is None or len(parameters.scale) != 1:
            return None
        return float(parameters.scale[0]), int(parameters.zeroPoint[0])

    def add_constant(self, name: str, value: np.ndarray, tensor_type: int, quantization: Any = None) -> int:
        """A new constant tensor. An equal one is shared."""
        raw = np.frombuffer(value.tobytes(), np.uint8)
        buffers = self.model.buffers
        equal = (i for i, old in enumerate(buffers) if old.data is not None and np.array_equal(old.data, raw))
        buffer = next(equal, len(buffers))
        if buffer == len(buffers):
            buffers.append(schema.BufferT(data=raw))
        return self.add_tensor(name, value.shape, tensor_type, quantization, buffer)

    def add_tensor(
        self, name: str, shape: tuple[int, ...], tensor_type: int, quantization: Any = None, buffer: int = 0
    ) -> int:
        tensor = schema.TensorT(
            name=name.encode(),
            shape=np.asarray(shape, np.int32),
            type=tensor_type,
            buffer=buffer,
            quantization=quantization,
            hasRank=True,
        )
        self.main.tensors.append(tensor)
        return len(self.main.tensors) - 1

    def operator_code(self, name: str, version: int = 1) -> int:
        """Index of the op's code, added where the model has none; a name that TFLite does not know is a custom op."""
        builtin = getattr(schema.BuiltinOperator, name, None)
        for index, code in enumerate(self.model.operatorCodes):
            if builtin is None and code.customCode == name.encode():
                return index
            if builtin is not None and max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
                code.version = max(code.version, version)
                return index
        number = schema.BuiltinOperator.CUSTOM if builtin is None else builtin
        self.model.operatorCodes.append(
            schema.OperatorCodeT(
                builtinCode=number,
                deprecatedBuiltinCode=min(number, 127),
                version=version,
                customCode=name.encode() if builtin is None else None,
            )
        )
        return len(self.model.operatorCodes) - 1

    def replace(self, old: Any, new: list[Any]) -> None:
        position = next(i for i, op in enumerate(self.operators) if op is old)
        self.operators[position : position + 1] = new

    def replace_input(self, old: int, new: int) -> None:
        """Tensor `new` becomes the model's input in the place of `old`."""
        self.main.inputs = [new if tensor == old else tensor for tensor in self.inputs]
        self._rename_in_signatures("inputs", old, new)

    def replace_output(self, old: int, new: int) -> None:
        """Tensor `new` becomes the model's output in the place of `old`."""
        self.main.outputs = [new if tensor == old else tensor for tensor in self.outputs]
        self._rename_in_signatures("outputs", old, new)

    def named(self, side: str) -> dict[str, int]:
        """Tensors of the model's "inputs" or "outputs" by their names in its signature, or by their own without one."""
        maps = list(self._signature_maps(side))
        if not maps:
            return {self.name(tensor): tensor for tensor in getattr(self, side)}
        return {tensor_map.name.decode(): int(tensor_map.tensorIndex) for tensor_map in maps}

    def drop_output(self, name: str) -> int:
        """Takes an output out of the model and its signature; returns its tensor."""
        tensor = self.named("outputs")[name]
        for definition in self.model.signatureDefs:
            definition.outputs = [entry for entry in definition.outputs if entry.name.decode() != name]
        if tensor not in self.named("outputs").values():
            self.main.outputs = [output for output in self.outputs if output != tensor]
        return tensor

    def prune(self) -> None:
        """Removes operators without effect, then tensors, buffers and operator codes that nothing uses."""
        self.prune_operators()
        self._prune_tensors()
        self._prune_buffers()
        self._prune_codes()

    def prune_operators(self) -> None:
        """Removes operators without effect; tensors keep their indices."""
        used = set(self.outputs)
        kept = []
        for op in reversed(self.operators):
            if used.intersection(op.outputs):
                used.update(op.inputs)
                kept.append(op)
        self.main.operators = kept[::-1]

    def _prune_tensors(self) -> None:
        used = {*self.inputs, *self.outputs}
        for op in self.operators:
            for tensors in (op.inputs, op.outputs, op.intermediates):
                used.update(int(tensor) for tensor in (tensors if tensors is not None else ()))
        order = sorted(used - {-1})
        new = {old: index for index, old in enumerate(order)} | {-1: -1}
        self.main.tensors = [self.main.tensors[old] for old in order]
        for op in self.operators:
            for field in ("inputs", "outputs", "intermediates"):
                if getattr(op, field) is not None:
                    setattr(op, field, np.asarray([new[int(t)] for t in getattr(op, field)], np.int32))
        self.main.inputs, self.main.outputs = (
            np.asarray([new[t] for t in tensors], np.int32) for tensors in (self.inputs, self.outputs)
        )
        for tensor_map in self._signature_maps("inputs", "outputs"):
            tensor_map.tensorIndex = new[tensor_map.tensorIndex]

    def _prune_buffers(self) -> None:
        metadata = self.model.metadata or []
        subgraphs = self.model.subgraphs
        used = {0} | {t.buffer for graph in subgraphs for t in graph.tensors} | {entry.buffer for entry in metadata}
        order = sorted(used)
        new = {old: index for index, old in enumerate(order)}
        self.model.buffers = [self.model.buffers[old] for old in order]
        for graph in subgraphs:
            for tensor in graph.tensors:
                tensor.buffer = new[tensor.buffer]
        for entry in metadata:
            entry.buffer = new[entry.buffer]

    def _prune_codes(self) -> None:
        operators = [op for graph in self.model.subgraphs for op in graph.operators if hasattr(op, "opcodeIndex")]
        order = sorted({op.opcodeIndex for op in operators})
        new = {old: index for index, old in enumerate(order)}
        self.model.operatorCodes = [self.model.operatorCodes[old] for old in order]
        for op in operators:
            op.opcodeIndex = new[op.opcodeIndex]

    def _rename_in_signatures(self, side: str, old: int, new: int) -> None:
        for tensor_map in self._signature_maps(side):
            if tensor_map.tensorIndex == old:
                tensor_map.tensorIndex = new

    def _signature_maps(self, *sides: str) -> Iterator[Any]:
        for definition in self.model.signatureDefs or []:
            if definition.subgraphIndex == 0:
                for side in sides:
                    yield from getattr(definition, side) or []


def one_scale(scale: float, zero_point: int) -> Any:
    """Quantization parameters of an activation tensor."""
    return per_channel(np.asarray([scale], np.float32), zero_point)


def per_channel(scales: np.ndarray, zero_point: int = 0) -> Any:
    """Quantization parameters with one scale for each slice along dimension 0."""
    return schema.QuantizationParametersT(
        scale=scales.astype(np.float32), zeroPoint=np.full(len(scales), zero_point, np.int64), quantizedDimension=0
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Puts `data` at `path` whole or not at all. Raises ConversionError where that cannot be done."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConversionError(f"cannot write {path}: {error.strerror}") from error
