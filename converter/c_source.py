"""A packed `.tflite` as C for firmware: an array for each layer, a table of them, and what is to be known around it.

The bytes are those that the interpreter runs, so the numbers are the same. `examples/firmware` runs what comes out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .chain import ChainedLayer, read_chain
from .errors import ConversionError


@dataclass(frozen=True)
class CSource:
    """A model in C.

    Attributes:
        source, header: text of the two files; the source includes the header by its name.
    """

    source: str
    header: str


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
    layers = read_chain(tflite)
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


def _array(layer: ChainedLayer, array: str) -> str:
    channels, features = layer.fields.codes.shape
    name = re.sub(r"[^\w/.:;-]", "_", layer.name)  # a backslash at its end would continue the comment
    lines = [
        "    " + " ".join(f"0x{byte:02x}," for byte in layer.packed[start : start + 16])
        for start in range(0, len(layer.packed), 16)
    ]
    return "\n".join(
        [
            f"// {name}: {features} inputs, {channels} outputs, weights of {layer.fields.grid.bits} bits.",
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
