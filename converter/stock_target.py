"""Writes integer ops as stock ops, weights in 8 or 4-bit containers, with the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from subbyte.schemas import Op, Padding

from .flatbuffer import DTYPES, TensorType, one_scale, per_channel, schema
from .graph import Graph
from .integer_ops import BOUNDS, LinearOp, activation_parameters, clamp_codes


def write_int8(graph: Graph, op: LinearOp) -> list:
    """A stock op with its weights in int8."""
    return _write_stock(graph, op, TensorType.INT8)


def write_int4(graph: Graph, op: LinearOp) -> list:
    """A stock op with two weights a byte where it takes them, else what `write_int8` writes."""
    return _write_stock(graph, op, TensorType.INT4 if fits_int4(op) else TensorType.INT8)


def fits_int4(op: LinearOp) -> bool:
    """Whether a stock op with 4-bit weights computes it: between int8 tensors, weights from -8 to 7."""
    return bool(op.activation_type == TensorType.INT8 and op.weights.min() >= -8 and op.weights.max() <= 7)


def _write_stock(graph: Graph, op: LinearOp, weight_type: int) -> list:
    x_scale = activation_parameters(graph, op)[0]
    scale = op.weight_scale if np.ptp(op.weight_scale) else op.weight_scale[:1]
    weights, channels = _stock_layout(op)
    stored = _two_a_byte(weights) if weight_type == TensorType.INT4 else weights
    kernel = graph.add_constant(f"{op.layer}/kernel", stored, weight_type, per_channel(scale, dimension=channels))
    graph.tensor(kernel).shape = np.asarray(weights.shape, np.int32)
    bias = _stock_bias(graph, op, per_channel(np.float32(x_scale) * scale))
    activation, tail = _stock_clamp(graph, op)
    output = op.outputs[0]
    if tail:
        output = _like(graph, output, f"{op.layer}/unbounded")
    name, options = _stock_options(graph, op, activation)
    stock = schema.OperatorT(
        opcodeIndex=graph.operator_code(name, _version(op, weight_type, per_channel=len(scale) > 1)),
        inputs=[op.inputs[0], kernel, bias],
        outputs=[output],
        builtinOptionsType=getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T")),
        builtinOptions=options,
    )
    return [stock, *_bounds(graph, tail, output, op)]


def _stock_bias(graph: Graph, op: LinearOp, quantization: Any) -> int:
    """int64 between int16 tensors: with none, or with int32, the stock op rounds in other ways."""
    tensor_type = TensorType.INT64 if op.activation_type == TensorType.INT16 else TensorType.INT32
    return graph.add_constant(f"{op.layer}/bias", op.bias.astype(DTYPES[tensor_type]), tensor_type, quantization)


def _stock_layout(op: LinearOp) -> tuple[np.ndarray, int]:
    """int8 weights as the stock op wants them, and the dimension of their output channels."""
    weights, kernel = op.weights.astype(np.int8), op.geometry.kernel
    if op.op == Op.DEPTHWISE_CONV_2D:
        return weights.T.reshape(1, *kernel, -1), 3
    if op.op == Op.CONV_2D:
        return weights.reshape(len(weights), *kernel, -1), 0
    return weights, 0


def _two_a_byte(weights: np.ndarray) -> np.ndarray:
    flat = np.zeros(-(-weights.size // 2) * 2, np.uint8)
    flat[: weights.size] = weights.ravel().view(np.uint8) & 15
    return flat[0::2] | flat[1::2] << 4


def _stock_options(graph: Graph, op: LinearOp, activation: int) -> tuple[str, Any]:
    """Name and options of the stock op."""
    if op.op == Op.FULLY_CONNECTED:
        options = schema.FullyConnectedOptionsT(fusedActivationFunction=activation, keepNumDims=op.keep_dims)
        return "FULLY_CONNECTED", options
    geometry = op.geometry
    window = {
        "padding": schema.Padding.SAME if geometry.padding == Padding.SAME else schema.Padding.VALID,
        "strideH": geometry.stride[0],
        "strideW": geometry.stride[1],
        "dilationHFactor": geometry.dilation[0],
        "dilationWFactor": geometry.dilation[1],
        "fusedActivationFunction": activation,
    }
    if op.op == Op.CONV_2D:
        return "CONV_2D", schema.Conv2DOptionsT(**window)
    multiplier = len(op.weights) // geometry.groups
    return "DEPTHWISE_CONV_2D", schema.DepthwiseConv2DOptionsT(depthMultiplier=multiplier, **window)


def _version(op: LinearOp, weight_type: int, per_channel: bool) -> int:
    """The first version of a stock op that knows these weights."""
    if op.op == Op.FULLY_CONNECTED:
        return 12 if per_channel else 7 if op.activation_type == TensorType.INT16 else 4
    if weight_type == TensorType.INT4:
        return 7
    return 6 if op.op == Op.CONV_2D and op.geometry.groups > 1 else 3


def _stock_clamp(graph: Graph, op: LinearOp) -> tuple[int, list[tuple[str, int]]]:
    """The clamp as a fused activation function, or as (op, code) pairs to follow where no function says it."""
    _, _, y_scale, y_zero = activation_parameters(graph, op)
    (first, last), functions = op.code_range, schema.ActivationFunctionType
    for ends, function in (
        ((first, last), functions.NONE),
        ((max(y_zero, first), last), functions.RELU),
        (clamp_codes(*BOUNDS["RELU6"], (y_scale, y_zero), op.activation_type), functions.RELU6),
    ):
        if op.clamp == ends:
            return function, []
    low, high = op.clamp
    return functions.NONE, [("MAXIMUM", low)] * (low > first) + [("MINIMUM", high)] * (high < last)


def _bounds(graph: Graph, tail: list[tuple[str, int]], tensor: int, op: LinearOp) -> list:
    """Stock MINIMUM and MAXIMUM ops from `tensor` to the op's output."""
    operators = []
    _, _, y_scale, y_zero = activation_parameters(graph, op)
    for position, (name, code) in enumerate(tail):
        last = position == len(tail) - 1
        bound = graph.add_constant(
            f"{op.layer}/{name.lower()}",
            np.asarray([code], DTYPES[op.activation_type]),
            op.activation_type,
            one_scale(y_scale, y_zero),
        )
        output = op.outputs[0] if last else _like(graph, op.outputs[0], f"{op.layer}/{name.lower()}_bounded")
        operators.append(
            schema.OperatorT(
                opcodeIndex=graph.operator_code(name, version=4 if op.activation_type == TensorType.INT16 else 2),
                inputs=[tensor, bound],
                outputs=[output],
                builtinOptionsType=schema.BuiltinOptions.MaximumMinimumOptions,
                builtinOptions=schema.MaximumMinimumOptionsT(),
            )
        )
        tensor = output
    return operators


def _like(graph: Graph, tensor: int, name: str) -> int:
    info = graph.tensor(tensor)
    return graph.add_tensor(name, graph.shape(tensor), info.type, info.quantization)
