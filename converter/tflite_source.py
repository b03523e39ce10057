"""From the fully connected layers of an int8 `.tflite`, whoever made it, to integer linear ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from .flatbuffer import TensorType, schema
from .graph import Graph
from .linear import LinearOp, clamp_codes, smallest_grid
from .targets import packed_layer

_RELU_ENDS = {
    schema.ActivationFunctionType.NONE: (-np.inf, np.inf),
    schema.ActivationFunctionType.RELU: (0.0, np.inf),
    schema.ActivationFunctionType.RELU_N1_TO_1: (-1.0, 1.0),
    schema.ActivationFunctionType.RELU6: (0.0, 6.0),
}

#: Layers with weights that are not packed.
_OTHER_WEIGHTED = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV",
    "BATCH_MATMUL",
    "SVDF",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
)


def raise_linear_ops(graph: Graph) -> list[str]:
    """Replaces every FULLY_CONNECTED of `graph` that packs without loss. Returns a line for each layer left stock."""
    notes = []
    for op in list(graph.operators):
        if isinstance(op, LinearOp):
            continue
        kind = graph.kind(op)
        if kind == "FULLY_CONNECTED":
            linear = _linear_op(graph, op)
            if isinstance(linear, LinearOp):
                graph.replace(op, [linear])
            else:
                notes.append(f"{layer_name(graph, op)} stays a stock {kind}: {linear}")
        elif kind in _OTHER_WEIGHTED:
            notes.append(f"{layer_name(graph, op)} stays a stock {kind}: only fully connected layers are packed")
    return notes


def layer_name(graph: Graph, op: Any) -> str:
    return graph.name(int(op.outputs[0])) or "an unnamed layer"


def _linear_op(graph: Graph, op: Any) -> LinearOp | str:
    """The op in integers, or why it has to stay."""
    options = op.builtinOptions
    if len(op.inputs) < 2 or len(op.outputs) != 1 or not isinstance(options, schema.FullyConnectedOptionsT):
        return "it has no weights or no options"
    x, kernel = int(op.inputs[0]), int(op.inputs[1])
    y = int(op.outputs[0])
    x_parameters, y_parameters = graph.quantization(x), graph.quantization(y)
    if x_parameters is None or y_parameters is None:
        return "its input and output are not int8"
    weights = graph.constant(kernel) if graph.tensor(kernel).type == TensorType.INT8 else None
    if weights is None or weights.ndim != 2 or not weights.size:
        return "its weights are not a constant int8 matrix"
    if options.weightsFormat or options.fusedActivationFunction not in _RELU_ENDS:
        return "it has a weight format or an activation function that is not known"
    parameters = graph.tensor(kernel).quantization
    if parameters is None or parameters.scale is None or len(parameters.scale) not in (1, len(weights)):
        return "its weights have not one scale, nor one for each channel"
    scales = [x_parameters[0], y_parameters[0], *parameters.scale]
    if not all(0 < scale < np.inf for scale in scales) or parameters.quantizedDimension != 0:
        return "its scales are not positive numbers, or not those of channels"
    if np.any(np.asarray(parameters.zeroPoint)):
        return "its weights have a zero point"
    grid = smallest_grid(weights)
    if grid.bits == 8:
        return f"its {len(np.unique(weights))} distinct weights need 8 bits"
    bias_tensor = int(op.inputs[2]) if len(op.inputs) > 2 else -1
    bias = graph.constant(bias_tensor) if bias_tensor >= 0 else np.zeros(len(weights), np.int32)
    if bias is None or bias.dtype != np.int32 or bias.size != len(weights):
        return "its bias is not constant int32, one for each channel"
    linear = LinearOp(
        layer=layer_name(graph, op),
        inputs=[x],
        outputs=[y],
        weights=weights.astype(np.int32),
        weight_scale=np.broadcast_to(np.asarray(parameters.scale, np.float32), len(weights)),
        bias=bias.reshape(-1),
        grid=grid,
        clamp=clamp_codes(*_RELU_ENDS[options.fusedActivationFunction], y_parameters),
        keep_dims=bool(options.keepNumDims),
        stock=True,
    )
    try:
        packed_layer(graph, linear).pack()
    except ValueError as error:
        return str(error)
    return linear
