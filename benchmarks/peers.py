"""The stock models that packed ones are measured against: float32, and what ai-edge-quantizer makes of it."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from subbyte.converter import Graph, TensorType, schema

from .networks import Model, Network, empty_graph, model_path, random_input

CALIBRATION_SAMPLES = 32


@dataclass(frozen=True)
class StockFormat:
    """Weights of `bits` bits, a scale for each channel.

    `dynamic`: inputs and activations are float, and rounded to 8 bits inside each op by the range of that input
    ("dynamic range"). Otherwise they are int8 tensors, as in a packed model, or `int16` ones.
    """

    bits: int
    dynamic: bool = False
    int16: bool = False

    @property
    def name(self) -> str:
        return f"int{self.bits}{', dynamic' * self.dynamic}{', int16' * self.int16}"


# What the stock interpreter runs with weights of that size: int2 exists as dynamic range alone.
STOCK_FORMATS = (
    StockFormat(8),
    StockFormat(8, dynamic=True),
    StockFormat(4),
    StockFormat(4, dynamic=True),
    StockFormat(2, dynamic=True),
)
INT16_FORMAT = StockFormat(8, int16=True)  # which no other format needs to be held against
STOCK_NAMES = ("float32", *(stock_format.name for stock_format in STOCK_FORMATS))


def stock_models(network: Network, folder: Path, names: tuple[str, ...] = STOCK_NAMES) -> list[Model]:
    """Writes the network, with random weights, in the formats of these names."""
    floats = float_tflite(network)
    contents = {"float32": floats} if "float32" in names else {}
    for stock_format in (*STOCK_FORMATS, INT16_FORMAT):
        if stock_format.name in names:
            contents[stock_format.name] = quantize(floats, network, stock_format)
    models = []
    for name, content in contents.items():
        path = model_path(folder, network.name, name)
        path.write_bytes(content)
        models.append(Model(name, path))
    return models


def float_tflite(network: Network) -> bytes:
    """Stock float FULLY_CONNECTED ops, ReLU fused into all but the last, with the signature that calibration needs."""
    rng = np.random.default_rng(0)
    graph = empty_graph()
    code = graph.operator_code("FULLY_CONNECTED")
    x = graph.add_tensor("x", (1, network.widths[0]), TensorType.FLOAT32)
    graph.main.inputs = [x]
    for number, (features, channels) in enumerate(network.layers):
        kernel = rng.standard_normal((channels, features), np.float32) * np.float32(np.sqrt(2 / features))
        inputs = [
            x,
            graph.add_constant(f"kernel{number}", kernel, TensorType.FLOAT32),
            graph.add_constant(f"bias{number}", rng.standard_normal(channels, np.float32), TensorType.FLOAT32),
        ]
        x = graph.add_tensor(f"y{number}", (1, channels), TensorType.FLOAT32)
        last = number == len(network.layers) - 1
        activation = schema.ActivationFunctionType.NONE if last else schema.ActivationFunctionType.RELU
        graph.operators.append(
            schema.OperatorT(
                opcodeIndex=code,
                inputs=inputs,
                outputs=[x],
                builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
                builtinOptions=schema.FullyConnectedOptionsT(fusedActivationFunction=activation),
            )
        )
    graph.main.outputs = [x]
    sides = {
        side: [schema.TensorMapT(name=side.encode(), tensorIndex=tensor)]
        for side, tensor in (("inputs", graph.main.inputs[0]), ("outputs", x))
    }
    graph.model.signatureDefs = [schema.SignatureDefT(signatureKey=b"serving_default", subgraphIndex=0, **sides)]
    return graph.write()


def quantize(floats: bytes, network: Network, stock_format: StockFormat) -> bytes:
    """The float model in another format.

    Raises ValueError where the quantizer leaves the weights as they were, which it does in silence.
    """
    from ai_edge_quantizer import qtyping, quantizer

    work = quantizer.Quantizer(bytearray(floats))
    operations = qtyping.TFLOperationName
    silent = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        warnings.simplefilter("ignore")
        if stock_format.dynamic:
            work.add_dynamic_config(".*", operations.FULLY_CONNECTED, num_bits=stock_format.bits)
            content = bytes(work.quantize().quantized_model)
        else:
            # Inputs and outputs of the model are operations too, and become int8.
            work.add_static_config(
                ".*",
                operations.ALL_SUPPORTED,
                activation_num_bits=16 if stock_format.int16 else 8,
                weight_num_bits=stock_format.bits,
            )
            sample = random_input((CALIBRATION_SAMPLES, 1, network.widths[0]), np.float32)
            ranges = work.calibrate({"serving_default": [{"inputs": x} for x in sample]})
            content = bytes(work.quantize(ranges).quantized_model)
    if kernel_types(content) != {getattr(TensorType, f"INT{stock_format.bits}")}:
        raise ValueError(f"ai-edge-quantizer does not make {stock_format.name}")
    return content


def kernel_types(content: bytes) -> set[int]:
    """The tensor types of the kernels of a model's FULLY_CONNECTED ops."""
    graph = Graph.read(content)
    return {graph.tensor(int(op.inputs[1])).type for op in graph.operators if graph.kind(op) == "FULLY_CONNECTED"}
