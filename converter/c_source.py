"""A packed `.tflite` as C for firmware: an array for each layer, a table of them, and what is to be known around it.

The bytes are those that the interpreter runs, so the numbers are the same. `examples/firmware` runs what comes out.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from subbyte.schemas import PackedLayer

from .errors import ConversionError
from .flatbuffer import IDENTIFIER, TensorType
from .graph import Graph
from .io_types import set_io
from .targets import PACKED_OP, PACKED_OPS
from .tflite_source import layer_name


@dataclass(frozen=True)
class CSource:
    """A model in C.

    Attributes:
        source, header: text of the two files; the source includes the header by its name.
    """

    source: str
    header: str


@dataclass(frozen=True)
class _Layer:
    """A packed layer, the rows of input that it takes, and its name."""

    packed: bytes
    fields: PackedLayer
    rows: int
    name: str


def c_source(tflite: bytes, name: str = "model") -> CSource:
    """Writes a packed model as C.

    Args:
        tflite: packed layers, each behind the other. A reshape may stand between them, and float32 inputs and outputs
            become int8.
        name: of the files, without suffix, and of what they define.

    Raises:
        ConversionError: the model is no such chain, or the name is none for C.
    """
    prefix = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_").lower()
    if not prefix[:1].isalpha() or prefix == "subbyte":
        raise ConversionError(f"{name!r} cannot name what is defined in C: give the output another name")
    graph = Graph.read(tflite)
    for op in graph.operators:
        if graph.kind(op) in PACKED_OPS.values() and graph.tensor(int(op.outputs[0])).type == TensorType.INT16:
            raise ConversionError(
                f"{layer_name(graph, op)} has 16-bit activations, and a model in C has 8-bit ones: run the .tflite"
            )
    set_io(graph, "int8")
    layers = _chain(graph)
    outputs = [layer.rows * len(layer.fields.codes) for layer in layers]
    # Layers that are used twice are there once.
    arrays = {layer.packed: f"layer_{index}" for index, layer in reversed(list(enumerate(layers)))}
    first, last = layers[0].fields, layers[-1].fields
    values = {
        "name": name,
        "prefix": prefix,
        "PREFIX": prefix.upper(),
        "layers": len(layers),
        "inputs": layers[0].rows * first.codes.shape[1],
        "outputs": outputs[-1],
        "layer_bytes": sum(map(len, arrays)),
        "buffer_bytes": max(outputs),
        "input_zero_point": first.input_zero_point,
        "output_zero_point": last.output_zero_point,
        "input_scale": np.float32(first.input_scale),
        "output_scale": np.float32(last.output_scale),
        "arrays": "\n".join(
            _array(layer, arrays[layer.packed])
            for index, layer in enumerate(layers)
            if arrays[layer.packed] == f"layer_{index}"
        ),
        "table": "\n".join(
            f"    {{{arrays[layer.packed]}, sizeof {arrays[layer.packed]}, {layer.rows}}}," for layer in layers
        ),
    }
    return CSource(source=_SOURCE.format(**values), header=_HEADER.format(**values))


def is_packed(path: Path) -> bool:
    """Whether a file is a `.tflite` whose layers are packed already, so that there is nothing to convert."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if data[4:8] != IDENTIFIER:
        return False
    graph = Graph.read(data, str(path))
    return any(graph.kind(op) in PACKED_OPS.values() for op in graph.operators)


def _chain(graph: Graph) -> list[_Layer]:
    ends = {"input": (graph.inputs, "QuantInput"), "output": (graph.outputs, "QuantActivation")}
    for side, (tensors, quantizer) in ends.items():
        if len(set(tensors)) != 1:
            raise ConversionError(f"a model in C has one {side}, and this one has {len(set(tensors))}")
        if graph.quantization(tensors[0]) is None:
            raise ConversionError(
                f"{side} {graph.name(tensors[0])} is not int8, as a model in C needs it: put {quantizer} there"
            )
    layers = []
    tensor = graph.inputs[0]
    for op in graph.operators:
        kind, name = graph.kind(op), layer_name(graph, op)
        if kind in PACKED_OPS.values() and kind != PACKED_OP:
            raise ConversionError(f"{name} is a convolution, and C has fully connected layers alone: run the .tflite")
        if kind not in (PACKED_OP, "RESHAPE"):
            raise ConversionError(
                f"{name} is a {kind}, and C has packed layers alone: take it out of the model, or run the .tflite"
            )
        if int(op.inputs[0]) != tensor:
            raise ConversionError(f"{name} does not follow the layer before it: a model in C is a chain of layers")
        if kind == PACKED_OP:
            layers.append(_layer(graph, op, name))
        tensor = int(op.outputs[0])
    if not layers or tensor != graph.outputs[0]:
        raise ConversionError("this model is not a chain of packed layers, as a model in C has to be")
    return layers


def _layer(graph: Graph, op: Any, name: str) -> _Layer:
    """Raises ConversionError where the packed bytes are damaged, or are for other tensors than those around them."""
    data = graph.constant(int(op.inputs[1])) if len(op.inputs) == 2 else None
    try:
        packed = b"" if data is None else data.tobytes()
        fields = PackedLayer.unpack(packed)
    except ValueError as error:
        raise ConversionError(f"{name} is damaged: {error}") from error
    ends = (fields.input_scale, fields.input_zero_point), (fields.output_scale, fields.output_zero_point)
    x, y = int(op.inputs[0]), int(op.outputs[0])
    rows, rest = divmod(math.prod(graph.shape(x)), fields.codes.shape[1])
    if (graph.quantization(x), graph.quantization(y)) != ends or rest:
        raise ConversionError(f"{name} was packed for another input or output: convert the model again")
    return _Layer(packed, fields, rows, name)


def _array(layer: _Layer, array: str) -> str:
    channels, features = layer.fields.codes.shape
    name = re.sub(r"[^\w/.:;-]", "_", layer.name)  # a backslash at its end would continue the comment
    lines = [
        "    " + " ".join(f"0x{byte:02x}," for byte in layer.packed[start : start + 16])
        for start in range(0, len(layer.packed), 16)
    ]
    return "\n".join(
        [
            f"// {name}: {features} inputs, {channels} outputs, weights of {layer.fields.weight_bits} bits.",
            f"static const _Alignas(64) uint8_t {array}[{len(layer.packed)}] = {{",
            *lines,
            "};\n",
        ]
    )


_HEADER = """\
// Written by convert-to-tflite: a packed model, to be run layer by layer with subbyte_fully_connected().
//
// Flash: {layer_bytes} bytes of layers. RAM: two buffers that the layers write in turn.
// Inputs and outputs are int8 codes, real = scale * (code - zero point).
#ifndef {PREFIX}_H
#define {PREFIX}_H

#include "subbyte.h"

#ifdef __cplusplus
extern "C" {{
#endif

enum {{
  {PREFIX}_LAYERS = {layers},
  {PREFIX}_INPUTS = {inputs},
  {PREFIX}_OUTPUTS = {outputs},
  {PREFIX}_BUFFER_BYTES = {buffer_bytes}, // the most that a layer gives
  {PREFIX}_INPUT_ZERO_POINT = {input_zero_point},
  {PREFIX}_OUTPUT_ZERO_POINT = {output_zero_point},
}};

#define {PREFIX}_INPUT_SCALE {input_scale}f
#define {PREFIX}_OUTPUT_SCALE {output_scale}f

extern const subbyte_layer {prefix}_layers[{PREFIX}_LAYERS];

#ifdef __cplusplus
}}
#endif
#endif
"""

_SOURCE = """\
// Written by convert-to-tflite.
#include "{name}.h"

{arrays}
const subbyte_layer {prefix}_layers[{PREFIX}_LAYERS] = {{
{table}
}};
"""
