"""Dense networks as model files: what is measured, packed, and how it is opened."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subbyte import kernels
from subbyte.converter import Graph, TensorType, one_scale, schema
from subbyte.kernels import reference
from subbyte.schemas import PACKED_OPS, ActivationType, Grid, PackedLayer

INT16 = ActivationType.INT16
ACTIVATION_SCALE = 2.0**-5


@dataclass(frozen=True)
class Network:
    """A stack of dense layers, ReLU between them. `widths`: of the input, of the hidden layers, of the output."""

    widths: tuple[int, ...]

    @property
    def name(self) -> str:
        if len(self.widths) > 2 and len(set(self.widths)) == 1:
            return f"{self.widths[0]}x{len(self.widths)}"
        return "-".join(map(str, self.widths))

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer."""
        return list(zip(self.widths, self.widths[1:], strict=False))

    @property
    def weights(self) -> int:
        return sum(features * channels for features, channels in self.layers)


@dataclass(frozen=True)
class PackedFormat:
    """Weights of `bits` bits, evenly spaced or from a codebook. Activations are int8, or `int16`."""

    bits: int
    codebook: bool = False
    int16: bool = False

    @property
    def name(self) -> str:
        return f"packed {self.bits}{', codebook' * self.codebook}{', int16' * self.int16}"


PACKED_FORMATS = (*(PackedFormat(bits) for bits in range(8, 0, -1)), PackedFormat(4, codebook=True))


@dataclass(frozen=True)
class Model:
    """A model file.

    Attributes:
        name: of its format, for example "packed 4" or "int8".
        path: the .tflite.
        packed: whether it needs the plug-in.
        expected: of a packed model, what it must give for an input.
    """

    name: str
    path: Path
    packed: bool = False
    expected: Callable[[NDArray[Any]], NDArray[Any]] | None = field(default=None, repr=False)

    def constant_bytes(self) -> int:
        """Bytes of weights, scales inside packed layers, and biases: what an inference reads once."""
        graph = Graph.read(self.path.read_bytes())
        return sum(len(buffer.data) for buffer in graph.model.buffers if buffer.data is not None)

    def interpreter(self, threads: int = 1, rows: int = 1, isa: str | None = None) -> Any:
        """An interpreter that has run once, on random inputs.

        Raises ValueError where a packed model gives other numbers than `expected`.
        """
        with forced_isa(isa):
            interpreter = open_interpreter(self.path, self.packed, threads)
        (x_details,), (y_details,) = interpreter.get_input_details(), interpreter.get_output_details()
        shape = (rows, *x_details["shape"][1:])
        interpreter.resize_tensor_input(x_details["index"], shape)
        interpreter.allocate_tensors()
        x = random_input(shape, x_details["dtype"])
        interpreter.set_tensor(x_details["index"], x)
        interpreter.invoke()
        if self.expected is not None:
            y = interpreter.get_tensor(y_details["index"])
            if not np.array_equal(y, self.expected(x)):
                raise ValueError(f"{self.path.name} gives other numbers than the reference")
        return interpreter


def open_interpreter(model: Path | bytes, packed: bool = False, threads: int = 1) -> Any:
    """The stock interpreter on a file or its bytes, with the plug-in if the model is packed."""
    from ai_edge_litert.interpreter import Interpreter

    make = kernels.Interpreter if packed else Interpreter
    source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    return make(**source, num_threads=threads)


@contextlib.contextmanager
def forced_isa(name: str | None) -> Iterator[None]:
    """Interpreters opened inside compute with that instruction set; None leaves the choice as it is."""
    before = os.environ.get("SUBBYTE_ISA")
    if name is not None:
        os.environ["SUBBYTE_ISA"] = name
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("SUBBYTE_ISA", None)
        else:
            os.environ["SUBBYTE_ISA"] = before


def random_input(shape: Sequence[int], dtype: type) -> NDArray[Any]:
    """Floats between -1 and 1, or int8 or int16 codes, evenly spread."""
    rng = np.random.default_rng(0)
    if dtype == np.float32:
        return rng.uniform(-1, 1, shape).astype(np.float32)
    codes = np.iinfo(dtype)
    return rng.integers(codes.min, codes.max + 1, shape).astype(dtype)


def model_path(folder: Path, network: str, model: str) -> Path:
    """Where a network's file is, by the names of the two."""
    return folder / f"{network} {model}.tflite".replace(",", "").replace(" ", "-")


def packed_model(network: Network, packed_format: PackedFormat, folder: Path) -> Model:
    """Writes the network with random weights."""
    layers = random_layers(network, packed_format)
    path = model_path(folder, network.name, packed_format.name)
    path.write_bytes(packed_tflite(layers))
    return Model(packed_format.name, path, packed=True, expected=functools.partial(run_reference, layers))


def run_reference(layers: Sequence[PackedLayer], x: NDArray[Any]) -> NDArray[Any]:
    """The codes that packed layers, each behind the other, must give."""
    for layer in layers:
        x = reference.run(layer, x)
    return x


def random_layers(network: Network, packed_format: PackedFormat) -> list[PackedLayer]:
    """Layers like those that the Keras layers deploy, with ReLU between them; scaled so that few outputs saturate."""
    rng = np.random.default_rng(0)
    layers: list[PackedLayer] = []
    x, zero_point = random_input((16, network.widths[0]), np.int16 if packed_format.int16 else np.int8), 0
    for _, channels in network.layers:
        layer = _random_layer(rng, packed_format, x, zero_point, channels)
        layers.append(layer)
        sums = (x.astype(np.float64) @ layer.weights.T.astype(np.float64) + layer.bias).astype(np.int64)  # exact
        x, zero_point = reference.requantize(sums, layer), layer.output_zero_point
    return layers


def _random_layer(
    rng: np.random.Generator, packed_format: PackedFormat, x: NDArray[Any], zero_point: int, channels: int
) -> PackedLayer:
    """One layer behind the activations `x` [samples, features]."""
    grid, weights = random_weights(rng, packed_format, (channels, x.shape[1]))
    spread = np.std((x.astype(np.float32) - zero_point) @ weights.T.astype(np.float32)) + 1
    if packed_format.int16:
        scale, codes, relu = ACTIVATION_SCALE / 2**8, 50 * 2**8, {"clamp": (0, 2**15 - 1), "activation_type": INT16}
    else:
        scale, codes, relu = ACTIVATION_SCALE, 50, {"output_zero_point": -128}  # whose clamp is ReLU
    return PackedLayer(
        codes=grid.encode(weights),
        grid=grid,
        multiplier=ten_bits(np.full(channels, codes / spread)),
        bias=(-zero_point * weights.sum(axis=1)).astype(np.int32),
        input_scale=scale,
        output_scale=scale,
        input_zero_point=zero_point,
        **relu,
    )


def random_weights(
    rng: np.random.Generator, packed_format: PackedFormat, shape: tuple[int, int]
) -> tuple[Grid, NDArray[np.int32]]:
    """Weights and their grid. Symmetric around zero, so that ReLU does not silence a layer."""
    bits, half = packed_format.bits, 1 << (packed_format.bits - 1)
    if packed_format.codebook:
        positive = np.sort(rng.choice(np.arange(1, 128), half, replace=False))
        values = np.concatenate([-positive[::-1], positive])
        grid = Grid(bits, codebook=tuple(values.tolist()))
    elif bits == 1:
        grid, values = Grid(1, offset=-1, step=2), np.asarray([-1, 1])
    else:
        grid, values = Grid(bits, offset=-half), np.arange(1 - half, half)
    return grid, rng.choice(values.astype(np.int32), shape)


def ten_bits(values: NDArray[Any]) -> NDArray[np.float32]:
    """Positive numbers below 2 with odd significands of 10 bits, as the Keras layers deploy them: stored in 2 bytes."""
    return (values.astype(np.float32).view(np.uint32) & 0x3FFF8000 | 0x4000).view(np.float32)


def packed_tflite(layers: Sequence[PackedLayer]) -> bytes:
    """A .tflite of packed layers, each behind the other."""
    graph = empty_graph()
    first = layers[0]
    kind = TensorType.INT16 if first.activation_type == INT16 else TensorType.INT8
    x = graph.add_tensor("x", (1, first.codes.shape[1]), kind, one_scale(first.input_scale, first.input_zero_point))
    graph.main.inputs = [x]
    for number, layer in enumerate(layers):
        packed = graph.add_constant("", np.frombuffer(layer.pack(), np.uint8), TensorType.UINT8)
        quantization = one_scale(layer.output_scale, layer.output_zero_point)
        y = graph.add_tensor(f"y{number}", (1, layer.codes.shape[0]), kind, quantization)
        code = graph.operator_code(PACKED_OPS[first.op])
        graph.operators.append(schema.OperatorT(opcodeIndex=code, inputs=[x, packed], outputs=[y]))
        x = y
    graph.main.outputs = [x]
    return graph.write()


def empty_graph() -> Graph:
    main = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])
    return Graph(schema.ModelT(version=3, subgraphs=[main], buffers=[schema.BufferT()], operatorCodes=[]))
