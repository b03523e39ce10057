"""From the graph that TensorFlow's converter leaves to integer linear ops.

The converter has made every stock op int8 or int16 and kept each of our layers whole, in float, between quantized
tensors:

    DEQUANTIZE -> SubbyteFullyConnected or SubbyteConv2D -> [MUL, ADD, SUB, RELU, MINIMUM, ...] -> QUANTIZE

Constants behind the layer (a stock batch normalization) fold into its scale and bias, bounds into its clamp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from subbyte.schemas import PACKED_OPS, Geometry, Grid, Op, Padding

from .call_order import sort_by_calls
from .conv_1d import give_height, join_heights
from .errors import ConversionError
from .flatbuffer import TensorType
from .graph import Graph
from .integer_ops import BOUNDS, FUSED, LARGEST_MULTIPLIER, LinearOp, clamp_codes

#: Our layers, marked by Keras or packed already.
_MARKERS = frozenset(PACKED_OPS.values())

# A scale below this share of the offset would need a bias beyond float32's integers.
_SMALLEST_SCALE = 2.0**-22

# Share of the bytes of 8-bit weights that a smaller grid, its codebook included, may take: more does not pay for the
# time that 6 and 7 bits cost.
_WORTHWHILE = 0.8

# The sum has to stay within 32 bits, and within the 47 that the stock 16x8 kernels take.
_LARGEST_BIAS = {TensorType.INT8: 2**31 - 2**24, TensorType.INT16: 2**46}


@dataclass
class _Affine:
    """y = clip(scale * sum + offset, low, high), per channel, in float64."""

    scale: np.ndarray
    offset: np.ndarray
    low: float = -np.inf
    high: float = np.inf
    #: Nothing but bounds behind the layer: the offset is still an exact multiple of the scale.
    exact: bool = True
    #: The ops that have been folded.
    tail: list[Any] = field(default_factory=list)

    def bounded(self, low: float, high: float) -> _Affine:
        return replace(self, low=float(np.clip(self.low, low, high)), high=float(np.clip(self.high, low, high)))


def lift_markers(
    graph: Graph, taps: Mapping[str, str] | None = None, constants: Sequence[Sequence[np.ndarray]] = ()
) -> None:
    """Replaces every marked layer of `graph` by one `LinearOp` for each quantized tensor that it leads to.

    Args:
        graph: TensorFlow's conversion.
        taps: the keys name outputs of the graph that only tell where the output of an activation quantizer is, whose
            name is the value; they go.
        constants: of marked layers that have none in the graph; see `Source`.
    """
    if constants:
        sort_by_calls(graph, {_options(op)["constants"]: op for op in graph.operators if graph.kind(op) in _MARKERS})
    tapped = _drop_taps(graph, taps or {})
    quantizers = {tensor: (taps or {})[tap] for tensor, tap in tapped.items()}
    _check_loops(graph)
    _quantize_before_reshape(graph)
    for marker in [op for op in graph.operators if graph.kind(op) in _MARKERS]:
        for op in _lift_marker(graph, marker, quantizers, constants):
            _fold_quantized_bounds(graph, op)
            op.tap = tapped.get(op.outputs[0])
            if op.op != Op.FULLY_CONNECTED and len(graph.shape(op.inputs[0])) == 3:
                give_height(graph, op)
    join_heights(graph)
    graph.prune()


def _drop_taps(graph: Graph, taps: Mapping[str, str]) -> dict[int, str]:
    """Drops the outputs that are taps; by the quantized tensor that each tells of, its name."""
    tapped: dict[int, str] = {}
    for name in taps:
        dequantize = graph.producer(graph.drop_output(name))
        if dequantize is not None and graph.kind(dequantize) == "DEQUANTIZE":
            tapped.setdefault(int(dequantize.inputs[0]), name)
    graph.prune_operators()
    return tapped


def _name_quantized(graph: Graph, quantizers: Mapping[int, str]) -> None:
    """Calls tensors after the quantizers that alone make them; TensorFlow's converter joins the paths of many ops."""
    for tensor, layer in quantizers.items():
        producer = graph.producer(tensor)
        if producer is not None and graph.kind(producer) == "QUANTIZE":
            graph.tensor(tensor).name = layer.encode()


def _quantize_before_reshape(graph: Graph) -> None:
    """Exchanges RESHAPE and the QUANTIZE behind it, where TensorFlow's converter has drawn the RESHAPE forward."""
    for reshape in [op for op in graph.operators if graph.kind(op) == "RESHAPE"]:
        x, y = int(reshape.inputs[0]), int(reshape.outputs[0])
        readers = graph.consumers(y)
        if len(readers) != 1 or y in graph.outputs or graph.kind(readers[0]) != "QUANTIZE":
            continue
        quantize, after = readers[0], int(readers[0].outputs[0])
        if _is_of_marker(graph, x) and graph.quantization(after) is not None:
            middle = graph.add_tensor(
                graph.name(y), graph.shape(x), graph.tensor(after).type, graph.tensor(after).quantization
            )
            first, second = copy(quantize), copy(reshape)
            first.inputs, first.outputs = [x], [middle]
            second.inputs, second.outputs = [middle, *reshape.inputs[1:]], [after]
            graph.replace(quantize, [])
            graph.replace(reshape, [first, second])


def _is_of_marker(graph: Graph, tensor: int) -> bool:
    """Whether a float tensor is what a marked layer gives, other float ops of one tensor in between."""
    producer = graph.producer(tensor)
    while producer is not None and graph.quantization(tensor) is None and graph.kind(producer) not in _MARKERS:
        computed = [int(t) for t in producer.inputs if t >= 0 and graph.constant(int(t)) is None]
        if len(computed) != 1:
            return False
        tensor = computed[0]
        producer = graph.producer(tensor)
    return producer is not None and graph.quantization(tensor) is None


def _check_loops(graph: Graph) -> None:
    for subgraph in graph.model.subgraphs[1:]:
        for op in subgraph.operators:
            if graph.kind(op) in _MARKERS:
                raise ConversionError(
                    f"layer {_options(op)['layer']}: it stands in a loop or a branch, which stays float; take it out "
                    "of TimeDistributed or RNN (a QuantDense works on the last dimension alone)"
                )


def _options(marker: Any) -> dict[str, Any]:
    return flexbuffers.Loads(bytes(bytearray(marker.customOptions)))


def _lift_marker(
    graph: Graph, marker: Any, quantizers: dict[int, str], constants: Sequence[Sequence[np.ndarray]]
) -> list[LinearOp]:
    if len(marker.inputs) == 2:
        raise ConversionError("this model is packed already: convert the model that it was made from")
    options = _options(marker)
    layer = options["layer"]
    weights, scale, offset, real_weights = (
        constants[options["constants"]]
        if "constants" in options
        else (graph.constant(int(tensor)) for tensor in marker.inputs[1:5])
    )
    if weights is None or scale is None or offset is None or real_weights is None:
        raise ConversionError(f"layer {layer}: its weights are not constant in this graph")
    for what, value in (("weights", weights), ("weights", real_weights), ("scale or bias", scale), ("bias", offset)):
        if not np.all(np.isfinite(value)):
            raise ConversionError(
                f"layer {layer}: its {what} hold NaN or infinity; train it again from a sane checkpoint"
            )
    x = _quantized_input(graph, marker, layer)
    start = _Affine(scale.astype(np.float64), scale.astype(np.float64) * offset)
    lifted: list[tuple[LinearOp, Any]] = []
    for y, affine in _quantized_outputs(graph, int(marker.outputs[0]), start, layer):
        _check_widths(graph, options, (x, y), quantizers.get(y, "the activation quantizer behind it"))
        op = _linear_op(graph, layer, options, (x, y), (weights, offset, real_weights), affine)
        graph.tensor(y).name = layer.encode() if not lifted else f"{layer}_{len(lifted)}".encode()
        lifted.append((op, affine.tail[-1]))
    graph.replace(marker, [op for op, _ in lifted])
    for _, quantize in lifted:
        graph.replace(quantize, [])
    return [op for op, _ in lifted]


def _check_widths(graph: Graph, options: dict[str, Any], tensors: tuple[int, int], quantizer: str) -> None:
    """Raises ConversionError for a layer between codes of 8 bits and of 16, or made for others than it reads."""
    layer, convolution = options["layer"], "stride_height" in options
    reads, gives = (16 if graph.tensor(tensor).type == TensorType.INT16 else 8 for tensor in tensors)
    if reads != options.get("input_bits", 8):
        raise ConversionError(f"layer {layer}: it reads {reads}-bit activations: give it input_bits={reads}")
    if convolution and 16 in (reads, gives):
        raise ConversionError(
            f"layer {layer}: it is a convolution, and 16-bit activations are for dense layers alone: give the "
            "activation quantizers around it 8 bits or fewer"
        )
    if reads != gives:
        bits = "more than 8 bits" if reads == 16 else "8 bits or fewer"
        raise ConversionError(
            f"layer {layer}: it reads {reads}-bit activations and gives {gives}-bit ones: give {quantizer} {bits}, and "
            "where the width has to change, put a second QuantActivation behind it"
        )


def _fold_quantized_bounds(graph: Graph, op: LinearOp) -> None:
    """Takes in the bounds that TensorFlow's converter has put behind the quantization instead of before it."""
    while True:
        y, readers = op.outputs[0], graph.consumers(op.outputs[0])
        if len(readers) != 1 or y in graph.outputs or graph.kind(readers[0]) not in ("MINIMUM", "MAXIMUM"):
            return
        bound = next((graph.constant(int(t)) for t in readers[0].inputs if t != y), None)
        after = int(readers[0].outputs[0])
        if bound is None or bound.size != 1 or graph.quantization(after) != graph.quantization(y):
            return
        choose = min if graph.kind(readers[0]) == "MINIMUM" else max
        op.clamp = (choose(op.clamp[0], bound.item()), choose(op.clamp[1], bound.item()))
        op.outputs = [after]
        graph.tensor(after).name = graph.tensor(y).name
        graph.replace(readers[0], [])


def _quantized_input(graph: Graph, marker: Any, layer: str) -> int:
    dequantize = graph.producer(int(marker.inputs[0]))
    if dequantize is not None and _is_of_half_floats(graph, dequantize):
        raise _half_floats(layer, "before")
    if (
        dequantize is None
        or graph.kind(dequantize) != "DEQUANTIZE"
        or graph.quantization(int(dequantize.inputs[0])) is None
    ):
        raise ConversionError(
            f"layer {layer}: its input is not quantized; put QuantInput, ClippedReLU or QuantActivation before it"
        )
    return int(dequantize.inputs[0])


def _quantized_outputs(graph: Graph, tensor: int, affine: _Affine, layer: str) -> list[tuple[int, _Affine]]:
    """Follows a float tensor to every quantized tensor made from it."""
    consumers = graph.consumers(tensor)
    if tensor in graph.outputs or not consumers:
        raise _no_range(layer)
    found = []
    for op in consumers:
        y, after = int(op.outputs[0]), _apply(graph, op, tensor, affine)
        if graph.kind(op) == "QUANTIZE" and graph.quantization(y) is not None:
            found.append((y, after))
        elif _is_of_half_floats(graph, op):
            raise _half_floats(layer, "behind")
        elif after is affine:
            raise _no_range(layer, graph.kind(op))
        else:
            found += _quantized_outputs(graph, y, after, layer)
    return found


def _is_of_half_floats(graph: Graph, op: Any) -> bool:
    ends = {graph.tensor(int(tensor)).type for tensor in (*op.inputs, *op.outputs)}
    return graph.kind(op) == "CAST" and bool(ends & {TensorType.FLOAT16, TensorType.BFLOAT16})


def _half_floats(layer: str, where: str) -> ConversionError:
    return ConversionError(
        f"layer {layer}: the layer {where} it computes in half floats under a mixed-precision policy; give layers "
        "between quantized ones dtype='float32'"
    )


def _no_range(layer: str, op: str | None = None) -> ConversionError:
    found = f"{op} follows" if op else "it is the model's float output"
    return ConversionError(
        f"layer {layer}: its output has no range ({found}); put ClippedReLU or QuantActivation directly behind it"
    )


def _apply(graph: Graph, op: Any, tensor: int, affine: _Affine) -> _Affine:
    """The map with `op` behind it; `affine` itself where the op does not fold."""
    kind = graph.kind(op)
    if kind == "QUANTIZE":
        return replace(affine, tail=[*affine.tail, op])
    if kind in BOUNDS:
        return replace(affine.bounded(*BOUNDS[kind]), tail=[*affine.tail, op])
    other = next((graph.constant(int(t)) for t in op.inputs if t != tensor), None)
    if kind not in ("MINIMUM", "MAXIMUM", "MUL", "ADD", "SUB") or other is None or len(op.inputs) != 2:
        return affine
    value = other.astype(np.float64)
    if kind in ("MINIMUM", "MAXIMUM"):
        if value.size != 1:
            return affine
        ends = (-np.inf, value.item()) if kind == "MINIMUM" else (value.item(), np.inf)
        return replace(affine.bounded(*ends), tail=[*affine.tail, op])
    if np.isfinite([affine.low, affine.high]).any():
        return affine
    if value.size != 1 and (value.size, value.shape[-1]) != (affine.scale.size, affine.scale.size):
        return affine
    if kind == "SUB" and op.inputs[0] != tensor:
        return affine
    value = value.reshape(-1)
    scale = affine.scale * value if kind == "MUL" else affine.scale
    offset = {"MUL": affine.offset * value, "ADD": affine.offset + value, "SUB": affine.offset - value}[kind]
    moved = replace(affine, scale=scale, offset=offset, exact=False, tail=[*affine.tail, op])
    return moved.bounded(*BOUNDS.get(FUSED[op.builtinOptions.fusedActivationFunction], BOUNDS["NONE"]))


def _linear_op(
    graph: Graph,
    layer: str,
    options: dict[str, Any],
    tensors: tuple[int, int],
    constants: tuple[np.ndarray, np.ndarray, np.ndarray],
    affine: _Affine,
) -> LinearOp:
    x, y = tensors
    kernel, offset, real_kernel = constants
    y_parameters, activation_type = graph.quantization(y), graph.tensor(y).type
    assert y_parameters is not None, "a path ends in a quantized tensor"
    flip = np.where(affine.scale < 0, -1, 1)
    weights = (_rows(kernel) * flip[:, None]).astype(np.int32)
    if not graph.shape(x):
        raise ConversionError(
            f"layer {layer}: it reads a tensor whose shape TensorFlow's converter does not know, as behind a table: "
            "compute what stands in front of it before the model"
        )
    op, geometry = _geometry(options, kernel.shape, graph.shape(x)[-1])
    scales = graph.quantization(x)[0], y_parameters[0]  # type: ignore[index]
    scale, bias = _scale_and_bias(layer, options, affine, offset, scales, activation_type)
    unit = _bias_unit(bias, activation_type)
    return LinearOp(
        layer=layer,
        inputs=[x],
        outputs=[y],
        weights=weights,
        weight_scale=scale.astype(np.float32),
        bias=np.rint(bias / unit).astype(np.int64) * unit,
        grid=_grid(options, weights),
        op=op,
        geometry=geometry,
        activation_type=activation_type,
        clamp=clamp_codes(affine.low, affine.high, y_parameters, activation_type),
        keep_dims=op == Op.FULLY_CONNECTED and len(graph.shape(x)) > 2,
        real_weights=_rows(real_kernel).astype(np.float64) * flip[:, None],
        bias_unit=unit,
        exact=affine.exact,
    )


def _scale_and_bias(
    layer: str,
    options: dict[str, Any],
    affine: _Affine,
    offset: np.ndarray,
    scales: tuple[float, float],
    activation_type: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The scale of each channel's weights [channels], above 0, and its bias [channels] in steps of the sum, unrounded.

    Args:
        layer, options, affine: of the marked layer.
        offset: [channels], what the marker adds to its sum.
        scales: of the input and of the output.
        activation_type: of both.

    Raises:
        ConversionError: a bias is not exact where it has to be, or does not fit, or the output's scale is too fine.
    """
    x_scale, y_scale = scales
    scale = np.maximum(np.abs(affine.scale), np.maximum(np.abs(affine.offset) * _SMALLEST_SCALE, 2.0**-60))
    bias = (offset if affine.exact else affine.offset / scale) / x_scale
    if affine.exact and _is_power_of_two(x_scale) and np.any(bias != np.rint(bias)):
        mend = f"give it bias_resolution={int(1 / x_scale)} or its" if x_scale <= 1 else "give its"
        raise ConversionError(
            f"layer {layer}: its input scale {x_scale:g} is coarser than 1/{options['bias_resolution']}, so its bias "
            f"is not exact; {mend} input a smaller max_value"
        )
    if np.any(np.abs(bias) >= _LARGEST_BIAS[activation_type]):
        raise ConversionError(
            f"layer {layer}: a bias does not fit its sum at input scale {x_scale:g}; give its input a larger max_value"
        )
    if scale.max() * x_scale / y_scale >= LARGEST_MULTIPLIER[activation_type]:
        raise ConversionError(
            f"layer {layer}: its output scale {y_scale:g} is so fine that one step of its sum leaves the range "
            "of codes; give the activation quantizer behind it a larger max_value"
        )
    return scale, bias


def _bias_unit(bias: np.ndarray, activation_type: int) -> int:
    """The power of two whose multiples the packed format holds: a bias has 32 bits, and in int16 a shift with them.

    An exact bias is such a multiple: `bias_resolution` keeps it to 22 bits and a power of two.
    """
    if activation_type == TensorType.INT8:
        return 1
    # The format adds to them what is less than 2^30.
    return 1 << max(0, int(np.abs(bias).max()).bit_length() - 30)


def _grid(options: dict[str, Any], weights: np.ndarray) -> Grid:
    """The grid that the layer declares; for 8 bits of few distinct values, as clustering leaves them, the smallest."""
    declared = Grid(options["bits"], options["code_offset"], options["code_step"])
    if declared.bits < 8:
        return declared
    found = Grid.smallest(weights)
    stored = weights.size * found.bits / 8 + len(found.codebook or ())
    return found if stored <= _WORTHWHILE * weights.size else declared


def _geometry(options: dict[str, Any], kernel: tuple[int, ...], inputs: int) -> tuple[int, Geometry]:
    """The op and its window, from the kernel's shape: [inputs, outputs], or that of a convolution."""
    if len(kernel) == 2:
        return Op.FULLY_CONNECTED, Geometry()
    height, width, inputs_of_group, _ = kernel
    groups = inputs // inputs_of_group
    geometry = Geometry(
        kernel=(height, width),
        stride=(options["stride_height"], options["stride_width"]),
        dilation=(options["dilation_height"], options["dilation_width"]),
        padding=Padding[options["padding"]],
        groups=groups,
    )
    return Op.DEPTHWISE_CONV_2D if inputs_of_group == 1 < groups else Op.CONV_2D, geometry


def _rows(kernel: np.ndarray) -> np.ndarray:
    """A kernel [..., output_channels] as rows [output_channels, input_features]."""
    return kernel.reshape(-1, kernel.shape[-1]).T


def _is_power_of_two(value: float) -> bool:
    return math.frexp(value)[0] == 0.5
