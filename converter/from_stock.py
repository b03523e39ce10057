"""From the weighted layers of an int8 or uint8 `.tflite`, whoever made it, to integer linear ops.

They are packed without loss where their weights take few values, or with fewer bits than they have where asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from subbyte.schemas import STOCK_OPS, Geometry, Grid, Op, Padding, first_and_last

from .errors import ConversionError
from .flatbuffer import TensorType, schema
from .graph import Graph
from .integer_ops import BOUNDS, FUSED, LARGEST_MULTIPLIER, LinearOp, clamp_codes
from .layer_names import layer_name
from .packed_target import packed_layer
from .preference import compare, reason_to_stay
from .quantize_ops import Int8Twins
from .requantize import requantize

#: Layers with weights that are not packed.
_OTHER_WEIGHTED = ("TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL", "SVDF", "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM")
_TYPE_NAMES = {value: name.lower() for name, value in vars(TensorType).items() if isinstance(value, int)}


class _StaysStock(Exception):
    """Why a layer is not packed."""


def check_quantized(graph: Graph, name: str) -> None:
    """Raises ConversionError for a model that computes all its weighted layers in float."""
    weighted = [op for op in graph.operators if graph.kind(op) in (*_READERS, *_OTHER_WEIGHTED) and len(op.inputs) > 1]
    types = {(graph.tensor(int(op.inputs[0])).type, graph.tensor(int(op.inputs[1])).type) for op in weighted}
    if types and all(inputs == TensorType.FLOAT32 for inputs, _ in types):
        dynamic = any(weights in (TensorType.INT8, TensorType.INT4) for _, weights in types)
        weights = "dynamic-range, with float32 activations" if dynamic else "float32"
        raise ConversionError(
            f"nothing to pack in {name}: its weights are {weights}; quantize it to int8 first, with TensorFlow's "
            "converter and a representative dataset, or convert the Keras model with --bits and --calibration"
        )


def lift_stock(graph: Graph, bits: int | None = None, first_last_bits: int = 8, prefer: str | None = None) -> list[str]:
    """Replaces the stock layers of `graph` that pack. Returns a line for each reason to leave some.

    Args:
        graph: any; only int8 and uint8 layers with constant weights are looked at.
        bits: None takes what packs without loss in less than 8 bits. A number requantizes what does not fit it.
        first_last_bits: that number for the first and the last layer that pack. In published models 8 bits there keep
            more answers and cost few bytes: `benchmarks/third_party.py` measures both.
        prefer: without `bits`, what must get better where a layer is packed, one of `PREFERENCES`; None packs all.
    """
    lifted: list[tuple[Any, LinearOp]] = []
    reasons: dict[str, list[Any]] = {}
    twins = Int8Twins(graph)
    for op in [op for op in graph.operators if graph.kind(op) in (*_READERS, *_OTHER_WEIGHTED)]:
        try:
            lifted.append((op, _linear_op(graph, op, twins)))
        except _StaysStock as reason:
            reasons.setdefault(str(reason), []).append(op)
    ends = _first_and_last(graph, [op for op, _ in lifted])
    for op, linear in lifted:
        width = first_last_bits if id(op) in ends else bits
        try:
            narrow = _narrow(graph, linear, None if bits is None else width)
            if bits is None and prefer is not None:
                _check_worth(graph, op, narrow, prefer)
            graph.replace(op, twins.connect(op, narrow))
        except _StaysStock as reason:
            reasons.setdefault(str(reason), []).append(op)
    return [_note(graph, ops, reason) for reason, ops in reasons.items()]


def _first_and_last(graph: Graph, lifted: list[Any]) -> set[int]:
    """Ids of the first and of the last ops among `lifted`."""
    numbers = {id(op): number for number, op in enumerate(graph.operators)}
    maker = {int(tensor): number for number, op in enumerate(graph.operators) for tensor in op.outputs}
    made_by = [[maker[int(tensor)] for tensor in op.inputs if int(tensor) in maker] for op in graph.operators]
    return {id(graph.operators[number]) for number in first_and_last(made_by, {numbers[id(op)] for op in lifted})}


def _note(graph: Graph, ops: list[Any], reason: str) -> str:
    others = f", like {len(ops) - 1} more" if len(ops) > 1 else ""
    return f"{layer_name(graph, ops[0])} stays a stock {graph.kind(ops[0])}{others}: {reason}"


def _narrow(graph: Graph, linear: LinearOp, bits: int | None) -> LinearOp:
    """The layer in `bits` bits, or as it is where it fits them. Raises _StaysStock where it cannot be packed."""
    if bits is None and linear.grid.bits >= 8:
        raise _StaysStock(f"its weights take more than 128 values and need {linear.grid.bits} bits")
    if bits is not None:
        linear = requantize(linear, bits)
    try:
        layer = packed_layer(graph, linear)
        layer.pack()
    except ValueError as error:
        raise _StaysStock(str(error)) from error
    if bits is not None and layer.multiplier.max() >= LARGEST_MULTIPLIER[linear.activation_type]:
        raise _StaysStock(f"one step of its weights in {bits} bits runs through all output codes; give it more bits")
    return linear


def _check_worth(graph: Graph, op: Any, layer: LinearOp, prefer: str) -> None:
    """Raises _StaysStock where packing makes nothing better."""
    reason = reason_to_stay(*compare(graph, op, layer, prefer), prefer)
    if reason is not None:
        raise _StaysStock(reason)


@dataclass(frozen=True)
class _Window:
    """What the kinds of stock layers tell in their own ways.

    Attributes:
        weights: int32 [output_channels, input_features], what the codes stand for.
        channel_dimension: of the stored weights.
        op, geometry, keep_dims: as in LinearOp.
        activation: fused, of the schema.
    """

    weights: np.ndarray
    channel_dimension: int
    op: int
    geometry: Geometry
    activation: int
    keep_dims: bool = False


def _linear_op(graph: Graph, op: Any, twins: Int8Twins) -> LinearOp:
    """The op in integers, between int8 tensors. Raises _StaysStock, saying why, where that cannot be."""
    if graph.kind(op) not in _READERS:
        raise _StaysStock("only fully connected layers and convolutions are packed")
    if len(op.inputs) < 2 or len(op.outputs) != 1 or int(op.inputs[1]) < 0 or op.builtinOptions is None:
        raise _StaysStock("it has no weights or no options")
    x, kernel, y = twins.of(int(op.inputs[0])), int(op.inputs[1]), twins.of(int(op.outputs[0]))
    x_parameters, y_parameters = graph.quantization(x), graph.quantization(y)
    int8 = all(graph.tensor(tensor).type == TensorType.INT8 for tensor in (x, y))
    if x_parameters is None or y_parameters is None or not int8:
        types = ", ".join(_type_name(graph, int(tensor)) for tensor in (*op.inputs[:2], op.outputs[0]))
        raise _StaysStock(
            f"its input, weights and output are {types}: int8 or uint8 is wanted, with one scale for each tensor"
        )
    window = _READERS[graph.kind(op)](graph, op, _weights(graph, kernel, graph.tensor(int(op.inputs[0])).type))
    function = FUSED.get(window.activation)
    if function not in BOUNDS:
        raise _StaysStock("its activation function is not known")
    channels = len(window.weights)
    scale = _channel_scales(graph.tensor(kernel).quantization, window, (x_parameters[0], y_parameters[0]))
    bias_tensor = int(op.inputs[2]) if len(op.inputs) > 2 else -1
    bias = graph.constant(bias_tensor) if bias_tensor >= 0 else np.zeros(channels, np.int32)
    if bias is None or bias.dtype != np.int32 or bias.size != channels:
        raise _StaysStock("its bias is not constant int32, one for each channel")
    return LinearOp(
        layer=layer_name(graph, op),
        inputs=[x],
        outputs=[y],
        weights=window.weights,
        weight_scale=scale,
        bias=bias.reshape(-1),
        grid=_grid(window.weights),
        op=window.op,
        geometry=window.geometry,
        clamp=clamp_codes(*BOUNDS[function], y_parameters),
        keep_dims=window.keep_dims,
        stock=True,
    )


def _weights(graph: Graph, kernel: int, codes: int) -> np.ndarray:
    """int32 weights in their stored shape, codes of this type less their zero point. Raises _StaysStock."""
    stored = graph.constant(kernel) if graph.tensor(kernel).type == codes else None
    if stored is None or not stored.size:
        raise _StaysStock(f"its weights are {_type_name(graph, kernel)}: constant {_TYPE_NAMES[codes]} is wanted")
    parameters = graph.tensor(kernel).quantization
    zero_points = np.asarray(() if parameters is None or parameters.zeroPoint is None else parameters.zeroPoint)
    if not zero_points.any():
        return stored.astype(np.int32)
    # The stock kernels know of none in int8, and of one for all channels in uint8.
    if codes != TensorType.UINT8 or zero_points.size != 1:
        raise _StaysStock("its weights have a zero point")
    return stored.astype(np.int32) - int(zero_points[0])


def _grid(weights: np.ndarray) -> Grid:
    """The smallest that holds them: 9 bits, which no format of ours stores, where a zero point takes them off int8."""
    int8 = np.iinfo(np.int8)
    return Grid.smallest(weights) if int8.min <= weights.min() and weights.max() <= int8.max else Grid.symmetric(9)


def _type_name(graph: Graph, tensor: int) -> str:
    number = graph.tensor(tensor).type
    return _TYPE_NAMES.get(number, f"of the unknown type {number}")


def _channel_scales(parameters: Any, window: _Window, activation_scales: tuple[float, float]) -> np.ndarray:
    """float32 [output_channels]."""
    channels = len(window.weights)
    if parameters is None or parameters.scale is None or len(parameters.scale) not in (1, channels):
        raise _StaysStock("its weights have not one scale, nor one for each channel")
    along_channels = len(parameters.scale) == 1 or parameters.quantizedDimension == window.channel_dimension
    if not all(0 < scale < np.inf for scale in (*activation_scales, *parameters.scale)) or not along_channels:
        raise _StaysStock("its scales are not positive numbers, or not those of channels")
    return np.broadcast_to(np.asarray(parameters.scale, np.float32), channels)


def _fully_connected(graph: Graph, op: Any, stored: np.ndarray) -> _Window:
    options = op.builtinOptions
    if stored.ndim != 2 or not isinstance(options, schema.FullyConnectedOptionsT) or options.weightsFormat:
        raise _StaysStock("its weights are not a matrix in the plain format")
    return _Window(
        stored, 0, Op.FULLY_CONNECTED, Geometry(), options.fusedActivationFunction, bool(options.keepNumDims)
    )


def _conv_2d(graph: Graph, op: Any, stored: np.ndarray) -> _Window:
    if stored.ndim != 4 or not isinstance(op.builtinOptions, schema.Conv2DOptionsT):
        raise _StaysStock("its weights are not [output channels, height, width, input channels]")
    channels, height, width, inputs_of_group = stored.shape
    groups, rest = divmod(_input_channels(graph, op), inputs_of_group)
    if rest or not groups or channels % groups:
        raise _StaysStock(f"its {channels} channels do not fit its {_input_channels(graph, op)} inputs in groups")
    # The same numbers, and the kernels have a faster way for them.
    depthwise = inputs_of_group == 1 < groups
    return _convolution(
        graph, op, stored.reshape(channels, -1), (height, width), groups, 0,
        Op.DEPTHWISE_CONV_2D if depthwise else Op.CONV_2D,
    )  # fmt: skip


def _depthwise_conv_2d(graph: Graph, op: Any, stored: np.ndarray) -> _Window:
    if stored.ndim != 4 or stored.shape[0] != 1 or not isinstance(op.builtinOptions, schema.DepthwiseConv2DOptionsT):
        raise _StaysStock("its weights are not [1, height, width, channels]")
    _, height, width, channels = stored.shape
    inputs = _input_channels(graph, op)
    if not inputs or channels % inputs:
        raise _StaysStock(f"its {channels} channels are no multiple of its {inputs} inputs")
    # The stock op goes by the shapes too, whatever its options call the multiplier.
    rows = stored.reshape(-1, channels).T
    return _convolution(graph, op, rows, (height, width), inputs, 3, Op.DEPTHWISE_CONV_2D)


def _input_channels(graph: Graph, op: Any) -> int:
    shapes = [graph.shape(int(tensor)) for tensor in (op.inputs[0], op.outputs[0])]
    if any(len(shape) != 4 for shape in shapes):
        raise _StaysStock("its input and output are not [batch, height, width, channels]")
    return shapes[0][3]


def _convolution(
    graph: Graph, op: Any, weights: np.ndarray, kernel: tuple[int, int], groups: int, channel_dimension: int, kind: int
) -> _Window:
    options = op.builtinOptions
    if options.padding not in (schema.Padding.SAME, schema.Padding.VALID):
        raise _StaysStock("its padding is not known")
    geometry = Geometry(
        kernel=kernel,
        stride=(options.strideH, options.strideW),
        dilation=(options.dilationHFactor, options.dilationWFactor),
        padding=Padding.SAME if options.padding == schema.Padding.SAME else Padding.VALID,
        groups=groups,
    )
    if min(*geometry.stride, *geometry.dilation) < 1:
        raise _StaysStock(f"its stride {geometry.stride} or dilation {geometry.dilation} is no step")
    x, y = (graph.shape(int(tensor)) for tensor in (op.inputs[0], op.outputs[0]))
    outputs = tuple(
        -(-size // stride) if geometry.padding == Padding.SAME else (size - (taps - 1) * dilation - 1) // stride + 1
        for size, taps, stride, dilation in zip(x[1:3], kernel, geometry.stride, geometry.dilation, strict=True)
    )
    if y != (x[0], *outputs, len(weights)):
        raise _StaysStock(f"its output is stored as {list(y)}, and its window gives {list(outputs)}")
    return _Window(weights, channel_dimension, kind, geometry, options.fusedActivationFunction)


_READERS = dict(zip(STOCK_OPS.values(), (_fully_connected, _conv_2d, _depthwise_conv_2d), strict=True))
