"""Convolutional networks as model files: packed, and the same networks in stock ops."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte.converter import TARGETS, Graph, LinearOp, TensorType, one_scale, schema
from subbyte.schemas import Geometry, Op, Padding

from .networks import (
    ACTIVATION_SCALE,
    PACKED_FORMATS,
    Model,
    PackedFormat,
    empty_graph,
    model_path,
    open_interpreter,
    random_weights,
    ten_bits,
)

#: Deviations in codes: of inputs, spread evenly over int8, and of layers before ReLU, of which few leave int8.
INPUT_SPREAD, SPREAD = 74.0, 36.0
STOCK_NAMES = ("float32", "int8", "int4")


class Draft:
    """A network in integers, with random weights, that grows op by op.

    Tensors are [1, height, width, channels]. Each method adds an op behind tensor `x` and returns that of its output.
    Convolutions are padded to the size of their input; ReLU follows, except behind `dense` and where `relu` is off.
    """

    def __init__(self, packed_format: PackedFormat) -> None:
        self.graph = empty_graph()
        self._format = packed_format
        self._rng = np.random.default_rng(0)
        self._power: dict[int, float] = {}  # of a tensor: the mean square of its codes less the zero point

    def input(self, *shape: int) -> int:
        x = self._tensor((1, *shape), 0, INPUT_SPREAD**2)
        self.graph.main.inputs = [x]
        return x

    def convolution(
        self,
        x: int,
        channels: int,
        kernel: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        relu: bool = True,
    ) -> int:
        geometry = Geometry(kernel, stride, padding=Padding.SAME)
        return self._window(x, Op.CONV_2D, geometry, (channels, math.prod(kernel) * self.graph.shape(x)[-1]), relu)

    def depthwise(self, x: int, kernel: tuple[int, int]) -> int:
        channels = self.graph.shape(x)[-1]
        geometry = Geometry(kernel, padding=Padding.SAME, groups=channels)
        return self._window(x, Op.DEPTHWISE_CONV_2D, geometry, (channels, math.prod(kernel)), relu=True)

    def dense(self, x: int, channels: int) -> int:
        """A dense layer from [1, features] to [1, channels]."""
        y = self._tensor((1, channels), 0, SPREAD**2)
        return self._linear(x, y, Op.FULLY_CONNECTED, Geometry(), (channels, self.graph.shape(x)[-1]))

    def add(self, x: int, other: int) -> int:
        """ReLU of the sum of two tensors."""
        y = self._tensor(self.graph.shape(x), -128, (self._power[x] + self._power[other]) / 2)
        options = schema.AddOptionsT(fusedActivationFunction=schema.ActivationFunctionType.RELU)
        return self._stock("ADD", [x, other], y, options)

    def average(self, x: int) -> int:
        """Over height and width, behind ReLU: [1, channels]."""
        y = self._tensor((1, self.graph.shape(x)[-1]), -128, self._power[x] / 2)
        axes = self.graph.add_constant("axes", np.asarray([1, 2], np.int32), TensorType.INT32)
        return self._stock("MEAN", [x, axes], y, schema.ReducerOptionsT(keepDims=False))

    def write(self, y: int, target: str) -> bytes:
        """The .tflite of the network that ends in `y`, for a target of the converter."""
        graph = copy.deepcopy(self.graph)
        graph.main.outputs = [y]
        for op in [op for op in graph.operators if isinstance(op, LinearOp)]:
            graph.replace(op, TARGETS[target].write(graph, op))
        graph.prune()
        return graph.write()

    def _window(self, x: int, op: int, geometry: Geometry, size: tuple[int, int], relu: bool) -> int:
        _, height, width, _ = self.graph.shape(x)
        rows, columns = (-(-of // step) for of, step in zip((height, width), geometry.stride, strict=True))
        # A zero point of -128 clamps as ReLU does, which halves the mean square.
        y = self._tensor((1, rows, columns, size[0]), -128 if relu else 0, SPREAD**2 / (2 if relu else 1))
        return self._linear(x, y, op, geometry, size)

    def _linear(self, x: int, y: int, op: int, geometry: Geometry, size: tuple[int, int]) -> int:
        """A layer with weights of `size`: output channels, and inputs of each."""
        channels, features = size
        grid, weights = random_weights(self._rng, self._format, size)
        spread = math.sqrt(self._power[x] * features * np.mean(np.square(weights)))
        self.graph.operators.append(
            LinearOp(
                layer=f"layer{len(self.graph.operators)}",
                inputs=[x],
                outputs=[y],
                weights=weights,
                weight_scale=ten_bits(SPREAD / spread * self._rng.uniform(0.8, 1.2, channels)),
                bias=np.rint(self._rng.normal(0, spread / 4, channels)).astype(np.int32),
                grid=grid,
                op=op,
                geometry=geometry,
            )
        )
        return y

    def _stock(self, kind: str, inputs: list[int], y: int, options: Any) -> int:
        self.graph.operators.append(
            schema.OperatorT(
                opcodeIndex=self.graph.operator_code(kind, version=2),
                inputs=inputs,
                outputs=[y],
                builtinOptionsType=getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T")),
                builtinOptions=options,
            )
        )
        return y

    def _tensor(self, shape: tuple[int, ...], zero_point: int, power: float) -> int:
        quantization = one_scale(ACTIVATION_SCALE, zero_point)
        tensor = self.graph.add_tensor(f"x{len(self._power)}", shape, TensorType.INT8, quantization)
        self._power[tensor] = power
        return tensor


@dataclass(frozen=True)
class ConvNetwork:
    """A network of convolutions: its name, and what adds it to a draft and returns its output."""

    name: str
    build: Callable[[Draft], int]

    def write(self, packed_format: PackedFormat, target: str) -> bytes:
        """The .tflite with weights of that format, for a target of the converter."""
        draft = Draft(packed_format)
        return draft.write(self.build(draft), target)


def ds_cnn(draft: Draft) -> int:
    """Keyword spotting of MLPerf Tiny (arXiv 2106.07597): the small network of arXiv 1711.07128."""
    x = draft.convolution(draft.input(49, 10, 1), 64, (10, 4), stride=(2, 2))
    for _ in range(4):
        x = draft.convolution(draft.depthwise(x, (3, 3)), 64)
    return draft.dense(draft.average(x), 12)


def tc_resnet8(draft: Draft) -> int:
    """Keyword spotting, 98 frames of 40 bands as channels (arXiv 1904.03814)."""
    x = draft.convolution(draft.input(1, 98, 40), 16, (1, 3))
    for channels in (24, 32, 48):
        inner = draft.convolution(x, channels, (1, 9), stride=(1, 2))
        shortcut = draft.convolution(x, channels, stride=(1, 2))
        x = draft.add(draft.convolution(inner, channels, (1, 9), relu=False), shortcut)
    return draft.dense(draft.average(x), 12)


def resnet8(draft: Draft) -> int:
    """Image classification of MLPerf Tiny (arXiv 2106.07597)."""
    x = draft.convolution(draft.input(32, 32, 3), 16, (3, 3))
    for channels, step in ((16, 1), (32, 2), (64, 2)):
        inner = draft.convolution(x, channels, (3, 3), stride=(step, step))
        shortcut = x if step == 1 else draft.convolution(x, channels, stride=(step, step), relu=False)
        x = draft.add(draft.convolution(inner, channels, (3, 3), relu=False), shortcut)
    return draft.dense(draft.average(x), 10)


def conv_models(
    network: ConvNetwork,
    folder: Path,
    packed: Sequence[PackedFormat] = PACKED_FORMATS,
    stock: Sequence[str] = STOCK_NAMES,
) -> list[Model]:
    """Writes the network, packed files first.

    Each packed model has to give what the stock interpreter gives for the same weights in int8.
    """
    models = []
    for packed_format in packed:
        path = model_path(folder, network.name, packed_format.name)
        path.write_bytes(network.write(packed_format, "packed"))
        expected = functools.partial(run_stock, network.write(packed_format, "int8"))
        models.append(Model(packed_format.name, path, packed=True, expected=expected))
    for name in stock:
        path = model_path(folder, network.name, name)
        path.write_bytes(stock_tflite(network, name))
        models.append(Model(name, path))
    return models


def stock_tflite(network: ConvNetwork, name: str) -> bytes:
    """The network in stock ops with "float32", "int8" or "int4" weights."""
    if name == "float32":
        return float_tflite(network.write(PackedFormat(8), "int8"))
    return network.write(PackedFormat(int(name.removeprefix("int"))), name)


def run_stock(content: bytes, x: NDArray[np.int8]) -> NDArray[np.int8]:
    """What the stock interpreter gives for an input."""
    interpreter = open_interpreter(content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def float_tflite(int8: bytes) -> bytes:
    """A stock int8 model of a draft in float32: the same network before rounding."""
    graph = Graph.read(int8)
    for op in graph.operators:
        quantization = graph.quantization(int(op.outputs[0]))
        if hasattr(op.builtinOptions, "fusedActivationFunction") and quantization and quantization[1] == -128:
            op.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
    for index, tensor in enumerate(graph.main.tensors):
        parameters, value = tensor.quantization, graph.constant(index)
        if parameters is None or parameters.scale is None:
            continue  # axes
        tensor.type, tensor.quantization = TensorType.FLOAT32, None
        if value is not None:
            scale_shape = [1] * value.ndim
            scale_shape[parameters.quantizedDimension] = -1
            real = value * np.asarray(parameters.scale, np.float32).reshape(scale_shape)
            # A buffer of its own: equal codes share one, whatever their scales.
            tensor.buffer = len(graph.model.buffers)
            graph.model.buffers.append(schema.BufferT(data=np.frombuffer(real.astype(np.float32).tobytes(), np.uint8)))
    graph.prune()
    return graph.write()
