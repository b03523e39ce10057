"""Builds .tflite models by hand, with the flatbuffer object API, for the tests of the plug-in."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field, replace

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from subbyte.converter.flatbuffer import per_channel
from subbyte.schemas import ENUMS, HEADER, PACKED_OPS, Grid, Op, PackedLayer, split_bias

INT16 = ENUMS["ActivationType"].INT16

OP_NAME = PACKED_OPS[Op.FULLY_CONNECTED]
_TYPES = {
    name: getattr(schema.TensorType, name.upper()) for name in ("int8", "int16", "int32", "int64", "uint8", "float32")
}


@dataclass
class Model:
    """A graph that grows tensor by tensor. Tensors are named by their index."""

    tensors: list = field(default_factory=list)
    buffers: list = field(default_factory=lambda: [schema.BufferT()])
    operators: list = field(default_factory=list)
    codes: list = field(default_factory=list)

    def tensor(self, shape, dtype="int8", scale=None, zero_point=0, data=None, name=None) -> int:
        tensor = schema.TensorT()
        tensor.name = name or f"tensor_{len(self.tensors)}"
        tensor.shape = list(shape)
        tensor.shapeSignature = [-1, *shape[1:]] if data is None and shape else None
        tensor.type = _TYPES[dtype]
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
        if data is not None:
            tensor.buffer = len(self.buffers)
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(bytes(data), np.uint8)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def op(self, code, inputs, outputs, options=None, options_type=0, custom=None) -> None:
        operator_code = schema.OperatorCodeT()
        operator_code.builtinCode, operator_code.version = code, 1
        operator_code.deprecatedBuiltinCode = min(code, 127)
        operator_code.customCode = custom
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.codes)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        operator.builtinOptions, operator.builtinOptionsType = options, options_type
        self.codes.append(operator_code)
        self.operators.append(operator)

    def custom(self, inputs, outputs, name=OP_NAME) -> None:
        self.op(schema.BuiltinOperator.CUSTOM, inputs, outputs, custom=name)

    def add(self, left: int, right: int, scale: float, zero_point: int) -> int:
        """A stock ADD of codes of one type."""
        dtype = next(name for name, number in _TYPES.items() if number == self.tensors[left].type)
        output = self.tensor(self.tensors[left].shape, dtype, scale, zero_point)
        self.op(
            schema.BuiltinOperator.ADD, [left, right], [output], schema.AddOptionsT(), schema.BuiltinOptions.AddOptions
        )
        return output

    def fully_connected(self, x: int, weights: np.ndarray, bias: np.ndarray, scales: np.ndarray) -> int:
        """A stock layer of int8 weights [outputs, inputs] behind tensor `x`; one scale, or one for each output."""
        kernel = self.tensor(weights.shape, data=weights.astype(np.int8).tobytes())
        self.tensors[kernel].quantization = per_channel(scales)
        offsets = self.tensor(bias.shape, data=bias.astype("<i4").tobytes())
        self.tensors[offsets].type = schema.TensorType.INT32
        self.tensors[offsets].quantization = per_channel(np.float32(self.tensors[x].quantization.scale[0]) * scales)
        y = self.tensor([*self.tensors[x].shape[:-1], len(weights)], scale=0.5)
        options = schema.FullyConnectedOptionsT()
        kind = schema.BuiltinOptions.FullyConnectedOptions
        self.op(schema.BuiltinOperator.FULLY_CONNECTED, [x, kernel, offsets], [y], options, kind)
        self.codes[-1].version = 12 if len(scales) > 1 else 4
        return y

    def layer(self, x: int, layer: PackedLayer, packed: bytes | None = None, name: str | None = None) -> int:
        """One packed layer behind tensor `x`; `packed` takes the place of its bytes."""
        packed = layer.pack() if packed is None else packed
        constant = self.tensor([len(packed)], "uint8", data=packed)
        shape = [*self.tensors[x].shape[:-1], layer.codes.shape[0]]
        dtype = layer.activation_dtype.name
        output = self.tensor(shape, dtype, layer.output_scale, layer.output_zero_point, name=name)
        self.custom([x, constant], [output], PACKED_OPS[layer.op])
        return output

    def input_for(self, layer: PackedLayer, leading=(1,)) -> int:
        shape = [*leading, layer.codes.shape[1]]
        return self.tensor(shape, layer.activation_dtype.name, layer.input_scale, layer.input_zero_point)

    def finish(self, inputs, outputs) -> bytes:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = self.codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def grid(bits: int, code_offset: int | None = None, code_step: int = 1, codebook: np.ndarray | None = None) -> Grid:
    """A grid of weights around 0, or of a codebook."""
    if codebook is not None:
        return Grid(bits, codebook=tuple(np.asarray(codebook).tolist()))
    return Grid(bits, -(1 << (bits - 1)) if code_offset is None else code_offset, code_step)


def random_layer(
    rng: np.random.Generator,
    features: int,
    channels: int,
    bits: int = 4,
    code_offset: int | None = None,
    code_step: int = 1,
    codebook: np.ndarray | None = None,
    **fields,
) -> PackedLayer:
    """A layer whose outputs spread over the whole range of codes where its inputs do; its `grid` by those arguments."""
    is_int16 = fields.get("activation_type") == INT16
    spread = 74 * np.sqrt(features) * (2 ** (bits - 1) if codebook is None else 64)
    defaults = {
        "multiplier": (rng.uniform(60, 180, channels) / spread).astype(np.float32),
        "bias": rng.integers(-1000, 1000, channels).astype(np.int32) * (256 if is_int16 else 1),
        "clamp": (-(2**15), 2**15 - 1) if is_int16 else (-128, 127),
        "input_scale": 0.5,
        "output_scale": 0.5,
        "grid": grid(bits, code_offset, code_step, codebook),
    }
    defaults["codes"] = rng.integers(0, 1 << bits, (channels, features))
    return PackedLayer(**{**defaults, **fields})


#: Where a layer can have its multipliers.
RECORDS = tuple(kind.name for kind in ENUMS["MultiplierType"])


def with_records(layer: PackedLayer, kind: str, rng: np.random.Generator) -> PackedLayer:
    """The layer with multipliers and biases that are stored in this way, one of RECORDS."""
    channels, bits = len(layer.bias), np.abs(layer.multiplier).view(np.uint32)
    if kind == "UFLOAT16":
        multiplier, stored = bits & 0x3FFFC000, rng.integers(-(2**15), 2**15, channels)
        stored[0] = -(2**15)
    elif kind == "IN_BIAS":
        width = int(rng.integers(0, 9))
        multiplier = bits.min() + (rng.integers(0, 1 << width, channels) << (24 - width))
        stored = rng.integers(-(2 ** (15 - width)), 2 ** (15 - width), channels) << int(rng.integers(0, 9))
    else:
        return layer
    if layer.activation_type == INT16:
        stored = stored - split_bias(layer.weights)
    multiplier = multiplier.astype(np.uint32).view(np.float32)
    layer = replace(layer, multiplier=multiplier, bias=stored.astype(layer.bias.dtype))
    header = np.frombuffer(layer.pack(), HEADER, 1)[0]
    assert kind == ENUMS["MultiplierType"](header["multiplier_type"]).name or channels < 3
    return layer


class CLayer(ctypes.Structure):
    """`subbyte_layer` of the C library."""

    _fields_ = (("packed", ctypes.c_void_p), ("bytes", ctypes.c_size_t), ("rows", ctypes.c_int32))


def chain(layers: list[PackedLayer], leading=(1,)) -> bytes:
    """A model of packed layers, each behind the other."""
    model = Model()
    first = x = model.input_for(layers[0], leading)
    for layer in layers:
        x = model.layer(x, layer)
    return model.finish([first], [x])
