"""Keras or `.tflite` in, a TFLite model with 1 to 8-bit weights out.

    result = converter.convert(model, target="packed")      # result.tflite, result.layers

The command `convert-to-tflite` does the same on files. TensorFlow is imported only to convert Keras models.

For tools that look into models or make their own: `Graph` reads and writes a `.tflite`, `LinearOp` is a layer in
integers, `TARGETS` writes it, `Footprint` says where the bytes of a file are and `microseconds` how long
it takes; `read_chain`, `image` and `c_source` are for firmware.
"""

from subbyte.extras import needed_by

with needed_by("subbyte.converter"):
    from .c_source import c_source
    from .chain import read_chain
    from .conversion import Conversion, LayerReport, Result, convert
    from .errors import ConversionError
    from .files import check_writable, write_atomically
    from .flatbuffer import TensorType, one_scale, schema
    from .graph import Graph
    from .image import image
    from .integer_ops import LinearOp
    from .keras_source import float_tflite, load_keras
    from .logs import silence_native_logs
    from .outputs import check_outputs
    from .sizes import Footprint, LayerBytes
    from .targets import TARGETS
    from .timing import Stopwatch, Timing, microseconds

__all__ = [
    "TARGETS",
    "Conversion",
    "ConversionError",
    "Footprint",
    "Graph",
    "LayerBytes",
    "LayerReport",
    "LinearOp",
    "Result",
    "Stopwatch",
    "TensorType",
    "Timing",
    "c_source",
    "check_outputs",
    "check_writable",
    "convert",
    "float_tflite",
    "image",
    "load_keras",
    "microseconds",
    "one_scale",
    "read_chain",
    "schema",
    "silence_native_logs",
    "write_atomically",
]
