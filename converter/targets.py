"""Writes linear ops into a graph: packed custom ops, or stock ops in 8 or 4-bit containers with the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flatbuffers import flexbuffers
from subbyte.schemas import PackedLayer

from .errors import ConversionError
from .flatbuffer import TensorType, one_scale, per_channel, schema
from .graph import Graph
from .linear import LinearOp, activation_parameters

#: The custom op that the kernel registers.
PACKED_OP = "SubbyteFullyConnected"


def packed_layer(graph: Graph, op: LinearOp) -> PackedLayer:
    """The op as the kernel gets it. It or its `pack()` raises ValueError where the format cannot hold the op."""
    x_scale, x_zero, y_scale, y_zero = activation_parameters(graph, op)
    # The order of XNNPACK, so that scales that are no powers of two round alike.
    multiplier = np.float32(x_scale) * op.weight_scale / np.float32(y_scale)
    bias = op.bias.astype(np.int64) - x_zero * op.weights.sum(axis=1, dtype=np.int64)
    if np.any(np.abs(bias) >= 2**31):
        raise ValueError("a bias with its zero point does not fit 32 bits")
    grid = op.grid
    return PackedLayer(
        codes=grid.encode(op.weights),
        weight_bits=grid.bits,
        multiplier=multiplier,
        bias=bias.astype(np.int32),
        input_scale=x_scale,
        output_scale=y_scale,
        input_zero_point=x_zero,
        output_zero_point=y_zero,
        clamp=op.clamp,
        code_offset=grid.offset if grid.codebook is None else 0,
        code_step=grid.step if grid.codebook is None else 1,
        codebook=None if grid.codebook is None else np.asarray(grid.codebook, np.int8),
    )


def write_packed(graph: Graph, op: LinearOp) -> list:
    """A custom op on one constant that holds the whole layer."""
    try:
        data = np.frombuffer(packed_layer(graph, op).pack(), np.uint8)
    except ValueError as error:
        raise ConversionError(f"layer {op.layer} does not fit the packed format: {error}") from error
    packed = graph.add_constant("", data, TensorType.UINT8)
    rows = [] if _rows_match(graph, op) else [_reshape_to_rows(graph, op)]
    x = int(rows[0].outputs[0]) if rows else op.inputs[0]
    # For people who look at the file in Netron; the kernel reads the packed tensor alone.
    options = {"bits": op.grid.bits}
    if op.clamp != (-128, 127):
        options |= {"min": op.clamp[0], "max": op.clamp[1]}
    return [
        *rows,
        schema.OperatorT(
            opcodeIndex=graph.operator_code(PACKED_OP),
            inputs=[x, packed],
            outputs=op.outputs,
            customOptions=np.frombuffer(flexbuffers.Dumps(options), np.uint8),
        ),
    ]


def write_int8(graph: Graph, op: LinearOp) -> list:
    """A stock FULLY_CONNECTED with the codes in int8."""
    return _write_stock(graph, op, op.weights.astype(np.int8), TensorType.INT8)


def write_int4(graph: Graph, op: LinearOp) -> list:
    """A stock FULLY_CONNECTED with two codes a byte where they fit 4 bits, else `write_int8`."""
    if not fits_int4(op):
        return write_int8(graph, op)
    flat = np.zeros(-(-op.weights.size // 2) * 2, np.uint8)
    flat[: op.weights.size] = op.weights.astype(np.int8).ravel().view(np.uint8) & 15
    return _write_stock(graph, op, flat[0::2] | flat[1::2] << 4, TensorType.INT4)


def fits_int4(op: LinearOp) -> bool:
    return bool(op.weights.min() >= -8 and op.weights.max() <= 7)


#: How each `--target` writes a linear op.
WRITERS: dict[str, Callable[[Graph, LinearOp], list]] = {
    "packed": write_packed,
    "int8": write_int8,
    "int4": write_int4,
}


def _write_stock(graph: Graph, op: LinearOp, weights: np.ndarray, weight_type: int) -> list:
    x_scale = activation_parameters(graph, op)[0]
    scale = op.weight_scale if np.ptp(op.weight_scale) else op.weight_scale[:1]
    kernel = graph.add_constant(f"{op.layer}/kernel", weights, weight_type, per_channel(scale))
    graph.tensor(kernel).shape = np.asarray(op.weights.shape, np.int32)
    bias = graph.add_constant(f"{op.layer}/bias", op.bias, TensorType.INT32, per_channel(np.float32(x_scale) * scale))
    activation, tail = _stock_clamp(graph, op)
    output = op.outputs[0]
    if tail:
        output = _like(graph, output, f"{op.layer}/unbounded")
    options = schema.FullyConnectedOptionsT(fusedActivationFunction=activation, keepNumDims=op.keep_dims)
    dense = schema.OperatorT(
        # 12: one scale for each output channel.
        opcodeIndex=graph.operator_code("FULLY_CONNECTED", version=12 if len(scale) > 1 else 4),
        inputs=[op.inputs[0], kernel, bias],
        outputs=[output],
        builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
        builtinOptions=options,
    )
    return [dense, *_bounds(graph, tail, output, op)]


def _stock_clamp(graph: Graph, op: LinearOp) -> tuple[int, list[tuple[str, int]]]:
    """The clamp as a fused activation function, or as (op, code) pairs to follow where no function says it."""
    _, _, y_scale, y_zero = activation_parameters(graph, op)
    relu6 = int(np.clip(np.rint(6 / y_scale) + y_zero, -128, 127))
    functions = schema.ActivationFunctionType
    for ends, function in (
        ((-128, 127), functions.NONE),
        ((max(y_zero, -128), 127), functions.RELU),
        ((max(y_zero, -128), relu6), functions.RELU6),
    ):
        if op.clamp == ends:
            return function, []
    low, high = op.clamp
    return functions.NONE, [("MAXIMUM", low)] * (low > -128) + [("MINIMUM", high)] * (high < 127)


def _bounds(graph: Graph, tail: list[tuple[str, int]], tensor: int, op: LinearOp) -> list:
    """Stock MINIMUM and MAXIMUM ops from `tensor` to the op's output."""
    operators = []
    _, _, y_scale, y_zero = activation_parameters(graph, op)
    for position, (name, code) in enumerate(tail):
        last = position == len(tail) - 1
        bound = graph.add_constant(
            f"{op.layer}/{name.lower()}", np.asarray([code], np.int8), TensorType.INT8, one_scale(y_scale, y_zero)
        )
        output = op.outputs[0] if last else _like(graph, op.outputs[0], f"{op.layer}/{name.lower()}_bounded")
        operators.append(
            schema.OperatorT(
                opcodeIndex=graph.operator_code(name, version=2),
                inputs=[tensor, bound],
                outputs=[output],
                builtinOptionsType=schema.BuiltinOptions.MaximumMinimumOptions,
                builtinOptions=schema.MaximumMinimumOptionsT(),
            )
        )
        tensor = output
    return operators


def _rows_match(graph: Graph, op: LinearOp) -> bool:
    """Whether the input's last dimension is what one sum takes, and the output has the input's other dimensions."""
    shape = graph.shape(op.inputs[0])
    return len(shape) > 0 and shape[-1] == op.weights.shape[1] and (op.keep_dims or len(shape) == 2)


def _reshape_to_rows(graph: Graph, op: LinearOp) -> Any:
    """A stock FULLY_CONNECTED flattens its input by itself; the packed op takes rows."""
    x, features = op.inputs[0], op.weights.shape[1]
    rows = int(np.prod(graph.shape(x))) // features
    shape = graph.add_constant(f"{op.layer}/rows", np.asarray([-1, features], np.int32), TensorType.INT32)
    scale, zero_point = activation_parameters(graph, op)[:2]
    flat = graph.add_tensor(f"{op.layer}/input", (rows, features), TensorType.INT8, one_scale(scale, zero_point))
    return schema.OperatorT(
        opcodeIndex=graph.operator_code("RESHAPE"),
        inputs=[x, shape],
        outputs=[flat],
        builtinOptionsType=schema.BuiltinOptions.ReshapeOptions,
        builtinOptions=schema.ReshapeOptionsT(newShape=np.asarray([-1, features], np.int32)),
    )


def _like(graph: Graph, tensor: int, name: str) -> int:
    info = graph.tensor(tensor)
    return graph.add_tensor(name, graph.shape(tensor), info.type, info.quantization)
