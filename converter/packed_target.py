"""Writes integer ops as packed custom ops, which the bundled kernels compute."""

from __future__ import annotations

from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from subbyte.schemas import PACKED_OPS, ActivationType, Op, PackedLayer

from .errors import ConversionError
from .flatbuffer import TensorType, one_scale, schema
from .graph import Graph
from .integer_ops import LinearOp, activation_parameters

#: The type of a packed layer's activations for that of its tensors.
_ACTIVATION_TYPES = {TensorType.INT8: ActivationType.INT8, TensorType.INT16: ActivationType.INT16}


def packed_layer(graph: Graph, op: LinearOp) -> PackedLayer:
    """The op as the kernel gets it. It or its `pack()` raises ValueError where the format cannot hold the op."""
    x_scale, x_zero, y_scale, y_zero = activation_parameters(graph, op)
    # The order of XNNPACK, so that scales that are no powers of two round alike.
    multiplier = np.float32(x_scale) * op.weight_scale / np.float32(y_scale)
    bias = op.bias.astype(np.int64) - x_zero * op.weights.sum(axis=1, dtype=np.int64)
    if op.activation_type == TensorType.INT8:
        if np.any(np.abs(bias) >= 2**31):
            raise ValueError("a bias with its zero point does not fit 32 bits")
        bias = bias.astype(np.int32)
    grid = op.grid
    return PackedLayer(
        codes=grid.encode(op.weights),
        grid=grid,
        multiplier=multiplier,
        bias=bias,
        input_scale=x_scale,
        output_scale=y_scale,
        input_zero_point=x_zero,
        output_zero_point=y_zero,
        activation_type=_ACTIVATION_TYPES[op.activation_type],
        clamp=op.clamp,
        op=op.op,
        geometry=op.geometry,
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
    if op.clamp != op.code_range:
        options |= {"min": op.clamp[0], "max": op.clamp[1]}
    return [
        *rows,
        schema.OperatorT(
            opcodeIndex=graph.operator_code(PACKED_OPS[op.op]),
            inputs=[x, packed],
            outputs=op.outputs,
            customOptions=np.frombuffer(flexbuffers.Dumps(options), np.uint8),
        ),
    ]


def _rows_match(graph: Graph, op: LinearOp) -> bool:
    """Whether the input's last dimension is what one sum takes, and the output has the input's other dimensions."""
    if op.op != Op.FULLY_CONNECTED:
        return True
    shape = graph.shape(op.inputs[0])
    return len(shape) > 0 and shape[-1] == op.weights.shape[1] and (op.keep_dims or len(shape) == 2)


def _reshape_to_rows(graph: Graph, op: LinearOp) -> Any:
    """A stock FULLY_CONNECTED flattens its input by itself; the packed op takes rows."""
    x, features = op.inputs[0], op.weights.shape[1]
    rows = int(np.prod(graph.shape(x))) // features
    scale, zero_point = activation_parameters(graph, op)[:2]
    flat = graph.add_tensor(f"{op.layer}/input", (rows, features), op.activation_type, one_scale(scale, zero_point))
    return graph.reshape(x, flat)
