"""A TFLite model as an editable graph: read it, look things up, add to it, write it."""

from __future__ import annotations

import copy
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from subbyte.schemas import PACKED_OPS

from .errors import ConversionError
from .flatbuffer import (
    BUILTIN_NAMES,
    CODE_RANGES,
    DTYPES,
    IDENTIFIER,
    AlignedBuffer,
    SharedQuantization,
    SharingBuilder,
    schema,
)

#: Ops that do something besides giving outputs: they set variables and tables, or run subgraphs that may.
_WITH_EFFECTS = {
    "ASSIGN_VARIABLE", "CALL", "CALL_ONCE", "HASHTABLE_IMPORT", "IF", "STABLEHLO_WHILE", "WHILE",
}  # fmt: skip

#: Metadata of which nothing is true of another file.
_ABOUT_THE_FILE = (b"min_runtime_version", b"CONVERSION_METADATA")


class Graph:
    """The main subgraph of a TFLite model. Tensors are named by index, operators are the objects in `operators`.

    Attributes:
        model: all of it, as the schema's objects.
        main: the first subgraph; others are what control flow and further signatures run, and stay as they are.
        associated_files: what stands behind the model in the file as a zip archive: labels, vocabularies.
        layer_names: what the user calls the layers, where that is known.
        path_ends: how many layers' paths end in the same folders, once `layer_name` has counted them.
    """

    layer_names: tuple[str, ...] = ()
    path_ends: Counter[tuple[str, ...]] | None = None

    def __init__(self, model: Any) -> None:
        self.model = model
        self.main = model.subgraphs[0]
        self.associated_files: list[tuple[zipfile.ZipInfo, bytes]] = []

    @classmethod
    def read(cls, data: bytes, name: str = "the model") -> Graph:
        """Raises ConversionError for what is not a TFLite model."""
        if data[4:8] != IDENTIFIER:
            raise ConversionError(f"{name} is not a TFLite model")
        try:
            model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
            for buffer in model.buffers:
                if buffer.offset > 1:  # stored behind the flatbuffer
                    buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
                    buffer.offset = buffer.size = 0
                if buffer.data is not None and not len(buffer.data):
                    buffer.data = None  # as the interpreter takes it: a tensor that is computed
            graph = cls(model)
            for op in graph.operators:
                op.inputs, op.outputs = (() if ends is None else ends for ends in (op.inputs, op.outputs))
            graph._look_at_everything()
        except Exception as error:  # the generated reader fails in any way on damaged bytes
            raise ConversionError(f"{name} is damaged: it does not read as a TFLite model") from error
        graph.associated_files = _read_archive(data)
        return graph

    def _look_at_everything(self) -> None:
        """Fails in any way where an index leads nowhere or a constant is cut off."""
        for op in self.operators:
            self.kind(op)
            for tensors in (op.inputs, op.outputs, op.intermediates):
                for tensor in tensors if tensors is not None else ():
                    if tensor != -1:
                        range(len(self.main.tensors))[tensor]
        for tensor in (*range(len(self.main.tensors)), *self.inputs, *self.outputs, *self.named("inputs").values()):
            self.name(tensor)
            self.quantization(tensor)
            if self.model.buffers[self.tensor(tensor).buffer] and self.tensor(tensor).sparsity is None:
                self.constant(tensor)
        for entry in self.model.metadata or ():
            self.model.buffers[entry.buffer].data  # noqa: B018  the look is the point

    def copy(self) -> Graph:
        """A graph to edit on its own; constants and weights, which no edit writes into, are shared with this one."""
        held = [buffer.data for buffer in self.model.buffers]
        held += [value for op in self.operators for value in vars(op).values()]
        shared = {id(value): value for value in held if isinstance(value, np.ndarray) and value.nbytes > 1024}
        return copy.deepcopy(self, shared)

    @property
    def is_packed(self) -> bool:
        """Whether it has ops that need the plug-in."""
        return any(self.kind(op) in PACKED_OPS.values() for op in self.operators)

    def write(self) -> bytes:
        """The model's bytes; the same graph gives the same bytes."""
        self._compact()
        builder = SharingBuilder()
        builder.Finish(self.model.Pack(builder), file_identifier=IDENTIFIER)
        return _with_archive(bytes(builder.Output()), self.associated_files)

    def _compact(self) -> None:
        """Drops what readers do not need and shares what is equal: a tensor's description is as long as 100 weights."""
        for buffer in self.model.buffers:
            buffer.__class__ = AlignedBuffer
        shared: dict[tuple, SharedQuantization] = {}
        for tensor in (tensor for graph in self.model.subgraphs for tensor in graph.tensors):
            data = self.model.buffers[tensor.buffer].data
            if data is None or not len(data):
                tensor.buffer = 0
            tensor.hasRank = tensor.shape is None or not len(tensor.shape)
            old = tensor.quantization
            if old is not None and old.scale is not None and not old.detailsType:
                # A vector has one dimension. Files exist that name its kernel's, and no runtime loads them.
                dimension = 0 if tensor.shape is not None and len(tensor.shape) == 1 else old.quantizedDimension
                key = (bytes(np.asarray(old.scale)), bytes(np.asarray(old.zeroPoint)), dimension)
                new = SharedQuantization(scale=old.scale, zeroPoint=old.zeroPoint, quantizedDimension=dimension)
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
        return readable(self.tensor(index).name or b"")

    def kind(self, operator: Any) -> str:
        """ "FULLY_CONNECTED" and the like; a custom op's own name; "LINEAR" for what no target has written yet."""
        if not hasattr(operator, "opcodeIndex"):
            return operator.kind
        code = self.model.operatorCodes[operator.opcodeIndex]
        if code.customCode:
            return readable(code.customCode)
        return BUILTIN_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]

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
        """(scale, zero point) of an int8, uint8 or int16 tensor with one scale, else None."""
        info = self.tensor(tensor)
        parameters = info.quantization
        if info.type not in CODE_RANGES or parameters is None or parameters.scale is None or len(parameters.scale) != 1:
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

    def reshape(self, source: int, target: int) -> Any:
        """A stock RESHAPE between two tensors; the first dimension stays free."""
        shape = np.asarray([-1, *self.shape(target)[1:]], np.int32)
        return schema.OperatorT(
            opcodeIndex=self.operator_code("RESHAPE"),
            inputs=[source, self.add_constant(f"{self.name(target)}/shape", shape, schema.TensorType.INT32)],
            outputs=[target],
            builtinOptionsType=schema.BuiltinOptions.ReshapeOptions,
            builtinOptions=schema.ReshapeOptionsT(newShape=shape),
        )

    def free_batch(self) -> None:
        """Lets every RESHAPE that keeps the first dimension take any size of it, as the interpreter's resizing asks."""
        for op in self.operators:
            if self.kind(op) != "RESHAPE" or len(op.inputs) != 2:
                continue
            source, target = (self.shape(int(tensor)) for tensor in (op.inputs[0], op.outputs[0]))
            keeps_first = bool(source and target) and source[0] == target[0] and 0 not in source
            if not keeps_first or self.constant(int(op.inputs[1])) is None:
                continue
            free = np.asarray([-1, *target[1:]], np.int32)
            op.inputs = [op.inputs[0], self.add_constant(self.name(int(op.inputs[1])), free, schema.TensorType.INT32)]
            if op.builtinOptions is not None:
                op.builtinOptions.newShape = free

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
        maps = list(self.signature_maps(side))
        if not maps:
            return {self.name(tensor): tensor for tensor in getattr(self, side)}
        return {readable(tensor_map.name): int(tensor_map.tensorIndex) for tensor_map in maps}

    def drop_output(self, name: str) -> int:
        """Takes an output out of the model and its signature; returns its tensor."""
        tensor = self.named("outputs")[name]
        for definition in self.model.signatureDefs:
            definition.outputs = [entry for entry in definition.outputs if readable(entry.name) != name]
        outputs = [int(output) for output in self.outputs]
        last = len(outputs) - 1 - outputs[::-1].index(tensor)  # the same tensor may be another output too
        self.main.outputs = outputs[:last] + outputs[last + 1 :]
        return tensor

    def keep_metadata(self, keep: bool) -> None:
        """Drops the entries that speak of the file as its converter wrote it, or all of them."""
        entries = self.model.metadata or []
        self.model.metadata = [entry for entry in entries if keep and entry.name not in _ABOUT_THE_FILE] or None

    def prune(self) -> None:
        """Removes operators without effect, then tensors, buffers and operator codes that nothing uses."""
        self.prune_operators()
        self._prune_tensors()
        self._prune_buffers()
        self._prune_codes()

    def has_effects(self, op: Any) -> bool:
        """Whether the op does something besides giving its outputs, so that it stays where nobody reads them.

        Custom ops of others, which nobody knows, and ops that keep a state in a variable tensor count as such.
        """
        kind = self.kind(op)
        is_custom = hasattr(op, "opcodeIndex") and bool(self.model.operatorCodes[op.opcodeIndex].customCode)
        if kind in _WITH_EFFECTS or (is_custom and kind not in PACKED_OPS.values()):
            return True
        return any(tensor >= 0 and self.tensor(int(tensor)).isVariable for tensor in op.inputs)

    def prune_operators(self) -> None:
        """Removes operators whose outputs nobody reads and that have no effects; tensors keep their indices."""
        used = set(self.outputs)
        kept = []
        for op in reversed(self.operators):
            if used.intersection(op.outputs) or self.has_effects(op):
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
        for tensor_map in self.signature_maps("inputs", "outputs"):
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
        for tensor_map in self.signature_maps(side):
            if tensor_map.tensorIndex == old:
                tensor_map.tensorIndex = new

    def signature_maps(self, *sides: str) -> Iterator[Any]:
        for definition in self.model.signatureDefs or []:
            if definition.subgraphIndex == 0:
                for side in sides:
                    yield from getattr(definition, side) or []


def readable(text: bytes) -> str:
    """A name in a file as text; the format asks for UTF-8, and old writers gave Latin-1."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _read_archive(data: bytes) -> list[tuple[zipfile.ZipInfo, bytes]]:
    """The files of a zip archive that stands behind a model."""
    stream = io.BytesIO(data)
    if not zipfile.is_zipfile(stream):
        return []
    with zipfile.ZipFile(stream) as archive:
        return [(entry, archive.read(entry)) for entry in archive.infolist()]


def _with_archive(model: bytes, files: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    if not files:
        return model
    stream = io.BytesIO(model)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        for entry, content in files:
            archive.writestr(entry, content)
    return stream.getvalue()
